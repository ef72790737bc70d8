/* Average drift of log-probabilities on Retain samples: the method promises to leave them where they were. */
#include "evaluate.h"
#include "triage.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/store.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static ra_err read_column(const char *path, const char *name, hid_t type, int64_t rows, int64_t width, void *out)
{
    ra_h5 *h5 = NULL;
    int rank;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_open(path, NULL, &h5));
    ra_err err = ra_h5_shape(h5, name, &rank, shape);
    if (err == RA_OK && (shape[0] != rows || (rank > 1 ? shape[1] : 1) != width)) {
        err = ra_fail(RA_ERR_DATA, "%s: %s has %lld rows, the sample store has %lld: they come from different data", path, name,
                      (long long)shape[0], (long long)rows);
    }
    if (err == RA_OK) err = ra_h5_read(h5, name, type, 0, -1, out);
    ra_h5_close(h5);
    return err;
}

static int32_t scored_tokens(const ra_sample *s)
{
    return s->response[RA_CHOSEN].count - s->response[RA_CHOSEN].skip;
}

/* Ids of usable Retain samples; the same on every rank. */
static ra_err list_retain(ra_drift *d, const ra_store *store, const char *triage)
{
    int64_t n = ra_store_count(store);
    int8_t *action = ra_alloc((size_t)n + 1, 1);
    ra_err err = read_column(triage, "action", H5T_NATIVE_INT8, n, 1, action);
    d->sample = ra_alloc((size_t)n + 1, sizeof *d->sample);
    d->tokens = ra_alloc((size_t)n + 1, sizeof *d->tokens);
    for (int64_t i = 0; i < n && err == RA_OK; i++) {
        if (action[i] != RA_ACTION_RETAIN || ra_store_state(store, i) != RA_SAMPLE_OK) continue;
        ra_sample s = ra_store_get(store, i);
        if (scored_tokens(&s) < 1) continue;
        d->tokens[d->n] = scored_tokens(&s);
        d->sample[d->n++] = i;
    }
    d->reference = ra_calloc((size_t)d->n, sizeof *d->reference);
    d->trained = ra_calloc((size_t)d->n, sizeof *d->trained);
    ra_free(action);
    return err;
}

/* Collective over the stages of a replica. log p(y_w|x) of its samples, index % replicas == replica; on stage 0. */
static ra_err score_mine(const ra_grid *grid, ra_inference *model, int32_t rows, const ra_store *store, const ra_drift *d,
                         double *logp)
{
    int64_t first = grid->data.rank, stride = grid->data.size, n = 0, most = d->n / stride + 1;
    ra_scored *list = ra_calloc((size_t)most, sizeof *list);
    for (int64_t i = first; i < d->n && grid->stage == 0; i += stride, n++) {
        ra_sample s = ra_store_get(store, d->sample[i]);
        int32_t count = s.prompt_count + s.response[RA_CHOSEN].count, *token = ra_alloc((size_t)count, sizeof *token);
        memcpy(token, s.prompt, (size_t)s.prompt_count * sizeof *token);
        memcpy(token + s.prompt_count, s.response[RA_CHOSEN].token, (size_t)s.response[RA_CHOSEN].count * sizeof *token);
        list[n] = (ra_scored){.id = s.id,
                              .token = token,
                              .count = count,
                              .first = s.prompt_count + s.response[RA_CHOSEN].skip,
                              .logprob = ra_alloc((size_t)d->tokens[i], sizeof(double))};
    }
    ra_scorer *scorer = ra_scorer_new(model->m, grid, rows);
    ra_err err = ra_scorer_run(scorer, list, n);
    ra_scorer_free(scorer);
    for (int64_t k = 0; k < n; k++) {
        int64_t i = first + k * stride;
        for (int32_t t = 0; t < d->tokens[i] && err == RA_OK; t++) logp[i] += list[k].logprob[t];
        ra_free((int32_t *)(uintptr_t)list[k].token);
        ra_free(list[k].logprob);
    }
    ra_free(list);
    return err;
}

/* Collective. */
static ra_err score(ra_evaluation *e, int which, const ra_store *store, double *logp)
{
    RA_TRY(ra_side_open(&e->side[which]));
    ra_err err =
        score_mine(&e->grid, &e->side[which].inference, (int32_t)ra_set_int(e->s, "pack.tokens"), store, &e->drift, logp);
    err = ra_comm_agree(e->world, err);
    if (err == RA_OK) ra_comm_sum_f64(e->world, logp, e->drift.n); /* one rank holds each, the others 0 */
    return err;
}

/* True where weights.h5 knows log p_ref of every Retain sample. */
static bool read_reference(const char *path, int64_t n_store, ra_drift *d)
{
    if (!ra_file_exists(path)) return false;
    double *all = ra_alloc((size_t)(n_store * RA_ROLES), sizeof *all);
    bool complete = read_column(path, "reference_logp", H5T_NATIVE_DOUBLE, n_store, RA_ROLES, all) == RA_OK;
    for (int64_t i = 0; i < d->n && complete; i++) {
        d->reference[i] = all[d->sample[i] * RA_ROLES + RA_CHOSEN];
        complete = isfinite(d->reference[i]);
    }
    ra_free(all);
    return complete;
}

static void average(ra_drift *d)
{
    int64_t tokens = 0;
    double sum = 0.0, absolute = 0.0;
    for (int64_t i = 0; i < d->n; i++) {
        double difference = d->trained[i] - d->reference[i];
        sum += difference;
        absolute += fabs(difference);
        tokens += d->tokens[i];
    }
    d->mean = sum / (double)d->n;
    d->mean_absolute = absolute / (double)d->n;
    d->mean_per_token = sum / (double)tokens;
}

static ra_err measure(ra_evaluation *e, const ra_store *store, const char *triage, const char *weights)
{
    ra_drift *d = &e->drift;
    RA_TRY(ra_comm_agree(e->world, list_retain(d, store, triage)));
    if (d->n == 0) {
        ra_info("evaluate: there are no Retain samples: no drift to measure");
        return RA_OK;
    }
    int known = e->world->rank == 0 && read_reference(weights, ra_store_count(store), d);
    ra_comm_bcast(e->world, &known, sizeof known, 0);
    ra_comm_bcast(e->world, d->reference, d->n * (int64_t)sizeof *d->reference, 0);
    if (!known) {
        memset(d->reference, 0, (size_t)d->n * sizeof *d->reference);
        RA_TRY(score(e, RA_BEFORE, store, d->reference));
    }
    RA_TRY(score(e, RA_AFTER, store, d->trained));
    average(d);
    e->has_drift = true;
    return RA_OK;
}

ra_err ra_evaluate_drift(ra_evaluation *e)
{
    const char *dir = ra_set_text(e->s, "run.dir");
    char *index = ra_path_join(dir, "store.h5"), *triage = ra_path_join(dir, "triage.h5"),
         *weights = ra_path_join(dir, "weights.h5");
    int there = e->world->rank == 0 && ra_file_exists(index) && ra_file_exists(triage);
    ra_comm_bcast(e->world, &there, sizeof there, 0);
    ra_err err = RA_OK;
    if (there) {
        ra_store *store = NULL;
        err = ra_comm_agree(e->world, ra_store_open(dir, &store));
        if (err == RA_OK) err = measure(e, store, triage, weights);
        ra_store_close(store);
    } else {
        ra_info("evaluate: %s has no sample store with a triage: drift on Retain samples is not measured", dir);
    }
    free(index);
    free(triage);
    free(weights);
    return err;
}

void ra_drift_free(ra_drift *d)
{
    ra_free(d->sample);
    ra_free(d->reference);
    ra_free(d->trained);
    ra_free(d->tokens);
    memset(d, 0, sizeof *d);
}
