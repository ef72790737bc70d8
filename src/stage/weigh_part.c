/* weigh.part.h5: the results of a weighing that was stopped. They do not depend on the rank count, so another one may go on. */
#include "weigh.h"

#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "weigh.part.h5";

static ra_err put_all(ra_h5 *h5, const ra_weigh *g, const double *raw, const double *reference)
{
    int64_t shape[2] = {g->run.n, RA_ROLES};
    RA_TRY(ra_h5_write_all(h5, "raw", H5T_NATIVE_DOUBLE, 1, shape, raw, "<g_J, grad L_i> / gamma; 0 where not done", "1"));
    RA_TRY(ra_h5_write_all(h5, "reference_logp", H5T_NATIVE_DOUBLE, 2, shape, reference,
                           "log p_ref(y|x) of y_w, y_l, y_c; 0 where not done", "nat"));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "key", (int64_t)g->w.key));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "conflict_packs", g->done.conflicts));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "retain_packs", g->done.retain));
    return ra_h5_write_attr_i64(h5, "/", "pack_rows", g->run.rows); /* packs are counted, and this decides what they hold */
}

ra_err ra_weigh_part_write(const ra_weigh *g)
{
    const ra_run *r = &g->run;
    int64_t n = r->n;
    double *raw = ra_alloc((size_t)n, sizeof *raw), *reference = ra_alloc((size_t)n * RA_ROLES, sizeof *reference);
    memcpy(raw, g->w.raw, (size_t)n * sizeof *raw);
    memcpy(reference, g->w.reference, (size_t)n * RA_ROLES * sizeof *reference);
    if (!g->shared) {
        ra_comm_sum_f64(&r->grid.data, raw, n);
        ra_comm_sum_f64(&r->grid.data, reference, n * RA_ROLES);
    }
    ra_err err = RA_OK;
    if (r->world->rank == 0) {
        char *path = ra_run_path(r, name);
        ra_h5 *h5 = NULL;
        err = ra_h5_create(path, NULL, &h5);
        if (err == RA_OK) {
            err = put_all(h5, g, raw, reference);
            if (err == RA_OK) {
                err = ra_h5_commit(h5);
            } else {
                ra_h5_close(h5);
            }
        }
        free(path);
    }
    ra_free(raw);
    ra_free(reference);
    return ra_comm_agree(r->world, err);
}

/* Rank 0. */
static ra_err take_up(ra_weigh *g, const char *path, int64_t packs[2])
{
    ra_h5 *h5 = NULL;
    int64_t key, rows, shape[4];
    int rank;
    ra_err err = ra_h5_open(path, NULL, &h5);
    if (err == RA_OK) err = ra_h5_verify_all(h5);
    if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "key", &key);
    if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "pack_rows", &rows);
    if (err == RA_OK) err = ra_h5_shape(h5, "raw", &rank, shape);
    if (err == RA_OK && ((uint64_t)key != g->w.key || rows != g->run.rows || shape[0] != g->run.n)) {
        ra_info("weigh: %s was made from other data or settings; beginning anew", path);
    } else if (err == RA_OK) {
        err = ra_h5_read(h5, "raw", H5T_NATIVE_DOUBLE, 0, -1, g->w.raw);
        if (err == RA_OK) err = ra_h5_read(h5, "reference_logp", H5T_NATIVE_DOUBLE, 0, -1, g->w.reference);
        if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "conflict_packs", &packs[0]);
        if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "retain_packs", &packs[1]);
    }
    ra_h5_close(h5);
    return err;
}

ra_err ra_weigh_part_read(ra_weigh *g)
{
    ra_run *r = &g->run;
    int64_t packs[2] = {0, 0};
    ra_err err = RA_OK;
    if (r->world->rank == 0 && strcmp(ra_set_text(r->s, "run.resume"), "never") != 0) {
        char *path = ra_run_path(r, name), *hidden = ra_run_path(r, "hidden.bin.part");
        if (ra_file_exists(path)) err = take_up(g, path, packs);
        if (packs[1] > 0 && !ra_file_exists(hidden)) {
            ra_info("weigh: %s is missing; its part begins anew", hidden);
            packs[1] = 0;
        }
        free(path);
        free(hidden);
    }
    RA_TRY(ra_comm_agree(r->world, err));
    ra_comm_bcast(r->world, packs, sizeof packs, 0);
    ra_comm_bcast(&r->grid.pipeline, g->w.raw, r->n * (int64_t)sizeof *g->w.raw, 0); /* one replica holds them, all its stages */
    ra_comm_bcast(&r->grid.pipeline, g->w.reference, r->n * RA_ROLES * (int64_t)sizeof *g->w.reference, 0);
    g->done.conflicts = (int32_t)packs[0];
    g->done.retain = (int32_t)packs[1];
    if (packs[0] + packs[1] > 0) {
        ra_info("weigh: going on after %lld packs of conflicts and %lld of Retain samples", (long long)packs[0],
                (long long)packs[1]);
    }
    return RA_OK;
}

void ra_weigh_part_remove(const ra_weigh *g)
{
    if (g->run.world->rank != 0) return;
    char *path = ra_run_path(&g->run, name);
    unlink(path);
    free(path);
}
