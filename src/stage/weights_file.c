#include "weights_file.h"

#include <realign/h5.h>
#include <realign/hash.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

ra_weights ra_weights_new(int64_t n)
{
    ra_weights w = {.n = n};
    size_t count = (size_t)n;
    w.raw = ra_calloc(count, sizeof *w.raw);
    w.weight = ra_calloc(count, sizeof *w.weight);
    w.reference = ra_calloc(count * RA_ROLES, sizeof *w.reference);
    w.length = ra_calloc(count * RA_ROLES, sizeof *w.length);
    w.hidden = ra_calloc(count, sizeof *w.hidden);
    return w;
}

void ra_weights_free(ra_weights *w)
{
    ra_free(w->raw);
    ra_free(w->weight);
    ra_free(w->reference);
    ra_free(w->length);
    ra_free(w->hidden);
    *w = (ra_weights){0};
}

uint64_t ra_weights_key(const ra_run *run)
{
    static const char *const keys[] = {"method",    "seed",    "beta", "tau",  "gamma",   "invert_loss",
                                       "npo_scale", "weights", "gold", "lora", "backend", "precision"};
    uint64_t parts[3] = {run->key, ra_settings_hash(run->s, keys, sizeof keys / sizeof keys[0]), (uint64_t)run->b->a};
    return ra_hash_bytes(parts, sizeof parts).low;
}

/* Ranks share the rows. */
static ra_err put(ra_h5 *h5, const ra_comm *comm, const char *name, hid_t type, size_t size, int64_t n, int64_t width,
                  const void *data, const char *description, const char *unit)
{
    int64_t first = n * comm->rank / comm->size, last = n * (comm->rank + 1) / comm->size, shape[2] = {n, width};
    return ra_h5_write(h5, name, type, width > 1 ? 2 : 1, shape, first, last - first,
                       (const char *)data + (size_t)(first * width) * size, description, unit);
}

static ra_err put_all(const ra_run *run, ra_h5 *h5, const ra_weights *w, const char *used)
{
    const ra_comm *c = run->world;
    RA_TRY(put(h5, c, "weight", H5T_NATIVE_DOUBLE, sizeof(double), w->n, 1, w->weight,
               "impact weight w_i, clipped and normalised; 0 for samples that are no conflict", "1"));
    RA_TRY(put(h5, c, "raw", H5T_NATIVE_DOUBLE, sizeof(double), w->n, 1, w->raw,
               "<g_J, grad L_i> / gamma before clipping; NaN for samples that are no conflict", "1"));
    RA_TRY(put(h5, c, "reference_logp", H5T_NATIVE_DOUBLE, sizeof(double), w->n, RA_ROLES, w->reference,
               "log p_ref(y|x) of y_w, y_l, y_c; NaN where it was not needed", "nat"));
    RA_TRY(put(h5, c, "length", H5T_NATIVE_INT32, sizeof(int32_t), w->n, RA_ROLES, w->length, "scored tokens of y_w, y_l, y_c",
               "token"));
    RA_TRY(put(h5, c, "hidden_row", H5T_NATIVE_INT64, sizeof(int64_t), w->n, 1, w->hidden,
               "first row in hidden.bin of a Retain sample's y_w; -1 elsewhere", "row"));
    RA_TRY(ra_h5_write_attr_text(h5, "/", "normalise", ra_set_text(run->s, "weights.normalise")));
    RA_TRY(ra_h5_write_attr_text(h5, "/", "hidden_type", ra_dtype_name(run->b->a)));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "average_weight", w->average));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "length_correlation", w->length_correlation));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "target_norm", w->target_norm));
    RA_TRY(ra_h5_write_attr_f64(h5, "/", "self_check", w->self_check));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "conflicts", w->conflicts));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "positive", w->positive));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "corrected", run->corrected));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "gold_size", w->gold));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "hidden_rows", w->hidden_rows));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "hidden_bytes", w->hidden_bytes));
    RA_TRY(ra_h5_write_attr_i64(h5, "/", "key", (int64_t)w->key));
    return ra_h5_write_provenance(h5, c, used);
}

ra_err ra_weights_write(const ra_run *run, const ra_weights *w)
{
    char *path = ra_run_path(run, "weights.h5");
    ra_buf used = {0};
    ra_settings_write_yaml(run->s, &used);
    ra_h5 *h5 = NULL;
    ra_err err = ra_h5_create(path, run->world, &h5);
    if (err == RA_OK) err = put_all(run, h5, w, used.data);
    if (err == RA_OK) {
        err = ra_h5_commit(h5);
    } else {
        ra_h5_close(h5);
    }
    ra_buf_free(&used);
    free(path);
    return err;
}

static ra_err get_all(const ra_run *run, ra_h5 *h5, ra_weights *w)
{
    int rank;
    int64_t shape[4], key;
    RA_TRY(ra_h5_verify_all(h5));
    RA_TRY(ra_h5_shape(h5, "weight", &rank, shape));
    if (shape[0] != run->n) {
        return ra_fail(RA_ERR_DATA, "weights.h5 has %lld rows, the sample store has %lld: run weigh again", (long long)shape[0],
                       (long long)run->n);
    }
    *w = ra_weights_new(run->n);
    RA_TRY(ra_h5_read(h5, "weight", H5T_NATIVE_DOUBLE, 0, -1, w->weight));
    RA_TRY(ra_h5_read(h5, "raw", H5T_NATIVE_DOUBLE, 0, -1, w->raw));
    RA_TRY(ra_h5_read(h5, "reference_logp", H5T_NATIVE_DOUBLE, 0, -1, w->reference));
    RA_TRY(ra_h5_read(h5, "length", H5T_NATIVE_INT32, 0, -1, w->length));
    RA_TRY(ra_h5_read(h5, "hidden_row", H5T_NATIVE_INT64, 0, -1, w->hidden));
    RA_TRY(ra_h5_read_attr_f64(h5, "/", "average_weight", &w->average));
    RA_TRY(ra_h5_read_attr_f64(h5, "/", "length_correlation", &w->length_correlation));
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "conflicts", &w->conflicts));
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "positive", &w->positive));
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "hidden_rows", &w->hidden_rows));
    RA_TRY(ra_h5_read_attr_i64(h5, "/", "key", &key));
    w->key = (uint64_t)key;
    if (w->key != ra_weights_key(run)) {
        return ra_fail(RA_ERR_DATA,
                       "%s/weights.h5 was made from other data, another triage, another model or other settings: run weigh again",
                       run->dir);
    }
    char *type = NULL;
    RA_TRY(ra_h5_read_attr_text(h5, "/", "hidden_type", &type));
    bool same = strcmp(type, ra_dtype_name(run->b->a)) == 0;
    ra_err err =
        same ? RA_OK
             : ra_fail(RA_ERR_DATA,
                       "weights.h5 was made with activations in %s, this run uses %s: run weigh again with the same precision",
                       type, ra_dtype_name(run->b->a));
    free(type);
    return err;
}

ra_err ra_weights_read(const ra_run *run, ra_weights *w)
{
    char *path = ra_run_path(run, "weights.h5");
    ra_h5 *h5 = NULL;
    *w = (ra_weights){0};
    ra_err err = ra_file_exists(path)
                     ? ra_h5_open(path, NULL, &h5)
                     : ra_fail(RA_ERR_IO, "%s is missing: run `realign weigh` first, or `realign run` for all stages", path);
    if (err == RA_OK) err = get_all(run, h5, w);
    ra_h5_close(h5);
    free(path);
    err = ra_comm_agree(run->world, err);
    if (err != RA_OK) ra_weights_free(w);
    return err;
}

bool ra_weights_up_to_date(const ra_run *run, uint64_t key)
{
    char *path = ra_run_path(run, "weights.h5"), *hidden = ra_run_path(run, "hidden.bin");
    struct stat info;
    ra_h5 *h5 = NULL;
    int64_t stored = 0, bytes = -1;
    bool same = ra_file_exists(path) && ra_h5_open(path, NULL, &h5) == RA_OK &&
                ra_h5_read_attr_i64(h5, "/", "key", &stored) == RA_OK && (uint64_t)stored == key &&
                ra_h5_read_attr_i64(h5, "/", "hidden_bytes", &bytes) == RA_OK && stat(hidden, &info) == 0 &&
                (int64_t)info.st_size == bytes && ra_h5_verify_all(h5) == RA_OK;
    ra_h5_close(h5);
    free(path);
    free(hidden);
    return same;
}
