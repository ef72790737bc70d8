#include "check_fixture.h"

#include <realign/mem.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ra_err read_ids(ra_h5 *h5, const char *group, int64_t i, const char *name, int32_t **ids, int32_t *count)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%lld/%s", group, (long long)i, name);
    *ids = NULL;
    *count = 0;
    if (!ra_h5_has(h5, path)) return RA_OK;
    int rank;
    int64_t shape[4];
    RA_TRY(ra_h5_shape(h5, path, &rank, shape));
    if (rank != 1 || shape[0] > 1 << 20) return ra_fail(RA_ERR_FORMAT, "%s must be a list of token ids", path);
    *ids = ra_calloc((size_t)shape[0] + 1, sizeof **ids);
    *count = (int32_t)shape[0];
    return ra_h5_read(h5, path, H5T_NATIVE_INT32, 0, -1, *ids);
}

static ra_err read_logp(ra_h5 *h5, int64_t i, const char *prefix, const char *role, int32_t count, double **out)
{
    char path[96];
    snprintf(path, sizeof path, "sample/%lld/%slogp_%s", (long long)i, prefix, role);
    *out = NULL;
    if (count == 0 || !ra_h5_has(h5, path)) return RA_OK;
    int rank;
    int64_t shape[4];
    RA_TRY(ra_h5_shape(h5, path, &rank, shape));
    if (rank != 1 || shape[0] != count) return ra_fail(RA_ERR_FORMAT, "%s must hold %d values", path, count);
    *out = ra_calloc((size_t)count, sizeof **out);
    return ra_h5_read(h5, path, H5T_NATIVE_DOUBLE, 0, -1, *out);
}

static ra_err read_sample(ra_h5 *h5, const char *group, int64_t i, const char *const names[RA_ROLES], ra_check_sample *out)
{
    int32_t *prompt;
    out->sample.id = i;
    RA_TRY(read_ids(h5, group, i, "prompt", &prompt, &out->sample.prompt_count));
    out->sample.prompt = prompt;
    for (int r = 0; r < RA_ROLES; r++) {
        int32_t *ids;
        if (!names[r]) continue;
        RA_TRY(read_ids(h5, group, i, names[r], &ids, &out->sample.response[r].count));
        out->sample.response[r].token = ids;
        if (strcmp(group, "sample") != 0) continue;
        RA_TRY(read_logp(h5, i, "", names[r], out->sample.response[r].count, &out->logp[r]));
        RA_TRY(read_logp(h5, i, "ref_", names[r], out->sample.response[r].count, &out->ref_logp[r]));
    }
    if (out->sample.prompt_count < 1) return ra_fail(RA_ERR_FORMAT, "%s/%lld/prompt is empty", group, (long long)i);
    return RA_OK;
}

static int32_t tokens_of(const ra_sample *s)
{
    int32_t n = s->prompt_count;
    for (int r = 0; r < RA_ROLES; r++) n += s->response[r].count;
    return n;
}

static ra_err read_all(ra_fixture *f)
{
    static const char *const roles[RA_ROLES] = {"chosen", "rejected", "correction"}, *const gold[RA_ROLES] = {"preferred",
                                                                                                              "other", NULL};
    struct {
        const char *name;
        double *value;
    } attrs[] = {{"beta", &f->beta},        {"tau", &f->tau},      {"alpha_kl", &f->alpha_kl},
                 {"gamma", &f->gamma},      {"lr", &f->lr},        {"adam_beta1", &f->beta1},
                 {"adam_beta2", &f->beta2}, {"adam_eps", &f->eps}, {"clip", &f->clip}};
    for (size_t i = 0; i < sizeof attrs / sizeof attrs[0]; i++)
        RA_TRY(ra_h5_read_attr_f64(f->h5, "/", attrs[i].name, attrs[i].value));
    int rank;
    int64_t shape[4];
    RA_TRY(ra_h5_shape(f->h5, "action", &rank, shape));
    if (rank != 1) return ra_fail(RA_ERR_FORMAT, "action must be a list, one a sample");
    f->samples = shape[0];
    f->sample = ra_calloc((size_t)f->samples, sizeof *f->sample);
    int32_t *action = ra_calloc((size_t)f->samples, sizeof *action);
    ra_err err = ra_h5_read(f->h5, "action", H5T_NATIVE_INT32, 0, -1, action);
    for (int64_t i = 0; i < f->samples && err == RA_OK; i++) {
        if (action[i] < 0 || action[i] > 3)
            err = ra_fail(RA_ERR_FORMAT, "action[%lld] is %d; accepted: 0 to 3", (long long)i, action[i]);
        if (err != RA_OK) break;
        f->sample[i].action = action[i];
        err = read_sample(f->h5, "sample", i, roles, &f->sample[i]);
        if (err == RA_OK && tokens_of(&f->sample[i].sample) > f->longest) f->longest = tokens_of(&f->sample[i].sample);
    }
    ra_free(action);
    RA_TRY(err);
    char path[64];
    for (;; f->gold++) {
        snprintf(path, sizeof path, "gold/%lld", (long long)f->gold);
        if (!ra_h5_has(f->h5, path)) break;
    }
    f->pair = ra_calloc((size_t)f->gold, sizeof *f->pair);
    for (int64_t i = 0; i < f->gold; i++) {
        RA_TRY(read_sample(f->h5, "gold", i, gold, &f->pair[i]));
        if (tokens_of(&f->pair[i].sample) > f->longest) f->longest = tokens_of(&f->pair[i].sample);
    }
    return RA_OK;
}

ra_err ra_fixture_open(const char *dir, ra_fixture *f)
{
    *f = (ra_fixture){.dir = dir};
    char *path = ra_format("%s/reference.h5", dir);
    ra_err err = ra_h5_open(path, NULL, &f->h5);
    if (err == RA_OK) err = read_all(f);
    if (err != RA_OK) err = ra_fail_in(err, "%s", path);
    free(path);
    return err;
}

static void free_samples(ra_check_sample *s, int64_t n)
{
    for (int64_t i = 0; s && i < n; i++) {
        ra_free((void *)(uintptr_t)s[i].sample.prompt);
        for (int r = 0; r < RA_ROLES; r++) {
            ra_free((void *)(uintptr_t)s[i].sample.response[r].token);
            ra_free(s[i].logp[r]);
            ra_free(s[i].ref_logp[r]);
        }
    }
    ra_free(s);
}

void ra_fixture_close(ra_fixture *f)
{
    free_samples(f->sample, f->samples);
    free_samples(f->pair, f->gold);
    ra_h5_close(f->h5);
}

static void record(ra_check_table *t, const char *name, double tolerance, double worst, int64_t n, bool parts)
{
    ra_check_row *r = NULL;
    for (int i = 0; i < t->rows; i++) {
        if (strcmp(t->row[i].name, name) == 0) r = &t->row[i];
    }
    if (!r) {
        if (t->rows == (int)(sizeof t->row / sizeof t->row[0])) ra_die("check: more than %d kinds of quantities", t->rows);
        r = &t->row[t->rows++];
        snprintf(r->name, sizeof r->name, "%s", name);
        r->tolerance = tolerance;
        r->passed = true;
        r->parts = parts;
    }
    r->elements += n;
    if (isnan(worst) || worst > r->worst) r->worst = worst; /* a NaN takes over and stays: nothing is larger */
    r->passed = r->worst <= r->tolerance;
}

void ra_check_compare(ra_check_table *t, const char *name, double tolerance, double floor, const double *got, const double *want,
                      int64_t n)
{
    double worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double error = fabs(got[i] - want[i]) / fmax(fabs(want[i]), floor);
        if (!(error <= worst)) worst = error;
        if (isnan(error)) break;
    }
    record(t, name, tolerance, worst, n, false);
}

void ra_check_compare_tensor(ra_check_table *t, const char *name, double tolerance, const double *got, const double *want,
                             int64_t n)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    record(t, name, tolerance, size > 0.0 ? sqrt(difference / size) : sqrt(difference), n, true);
}

/* Tables of all ranks hold the same rows in the same order: each stage has tensors of every kind. */
void ra_check_merge(ra_check_table *t, const ra_comm *world, const ra_comm *pipeline)
{
    for (int i = 0; i < t->rows; i++) {
        ra_check_row *r = &t->row[i];
        double worst = isnan(r->worst) ? INFINITY : r->worst;
        ra_comm_max_f64(world, &worst, 1);
        r->worst = worst;
        r->passed = worst <= r->tolerance;
        if (r->parts) ra_comm_sum_i64(pipeline, &r->elements, 1);
    }
}

int ra_check_failures(const ra_check_table *t)
{
    int failures = 0;
    for (int i = 0; i < t->rows; i++) failures += !t->row[i].passed;
    return failures;
}

void ra_check_print(const ra_check_table *t)
{
    printf("%-44s %10s  %-12s %-10s\n", "quantity", "elements", "worst error", "tolerance");
    for (int i = 0; i < t->rows; i++) {
        const ra_check_row *r = &t->row[i];
        printf("%-44s %10lld  %-12.3e %-10.1e %s\n", r->name, (long long)r->elements, r->worst, r->tolerance,
               r->passed ? "PASS" : "FAIL");
    }
    if (t->note) printf("%s\n", t->note);
}
