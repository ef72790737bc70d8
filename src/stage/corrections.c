/* Which corrections a run uses. */
#include "corrections.h"
#include "triage.h"

#include <realign/file.h>
#include <realign/hash.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

const char *ra_correction_outcome_name(ra_correction_outcome outcome)
{
    static const char *const names[RA_CORRECTION_OUTCOMES] = {"corrected", "empty",           "too long",        "not compliant",
                                                              "undecided", "endpoint failed", "none in the data"};
    return names[outcome];
}

void ra_corrections_free(ra_corrections *c)
{
    free(c->row);
    free(c->token);
    *c = (ra_corrections){0};
}

static bool has_corrections(const ra_store *store)
{
    for (int64_t i = 0; i < ra_store_count(store); i++) {
        if (ra_store_get(store, i).response[RA_CORRECTION].count > 0) return true;
    }
    return false;
}

const char *ra_corrections_source(const ra_settings *s, const ra_store *store)
{
    const char *source = ra_set_text(s, "correct.source");
    if (strcmp(source, "auto") != 0) return source;
    return has_corrections(store) ? "column" : "none";
}

uint64_t ra_corrections_key(const ra_settings *s, const ra_store *store, const int8_t *action, const char *triage_key)
{
    static const char *const model[] = {"correct.", "seed", "model", "tokenizer", "template"}, *const endpoint[] = {
                                                                                                   "correct.",
                                                                                                   "seed",
                                                                                                   "oracle.http.url",
                                                                                                   "oracle.http.model",
                                                                                                   "oracle.http.extra",
                                                                                                   "oracle.http.own_sampling"};
    const char *source = ra_corrections_source(s, store);
    uint64_t numbers[3] = {ra_store_hash(store), ra_hash_bytes(action, (size_t)ra_store_count(store)).low, 0};
    if (strcmp(source, "model") == 0) numbers[2] = ra_settings_hash(s, model, sizeof model / sizeof *model);
    if (strcmp(source, "endpoint") == 0) numbers[2] = ra_settings_hash(s, endpoint, sizeof endpoint / sizeof *endpoint);
    ra_hasher *h = ra_hasher_new();
    ra_hasher_add(h, numbers, sizeof numbers);
    ra_hasher_add(h, source, strlen(source) + 1);
    ra_hasher_add(h, triage_key, strlen(triage_key) + 1);
    return ra_hasher_end(h).low;
}

/* Samples that point into the tokens of `c`. */
static int64_t list_samples(const ra_corrections *c, ra_sample *out)
{
    const int32_t *at = c->token;
    int64_t n = 0;
    for (int64_t i = 0; i < c->n; i++) {
        const ra_correction_row *row = &c->row[i];
        if (row->outcome != RA_CORRECTION_USED) continue;
        ra_sample *s = &out[n++];
        *s = (ra_sample){.id = row->id, .state = RA_SAMPLE_OK, .cut = row->cut, .prompt_count = row->prompt_count, .prompt = at};
        at += row->prompt_count;
        for (int r = 0; r < RA_ROLES; r++) {
            s->response[r].count = row->count[r];
            s->response[r].skip = row->skip[r];
            s->response[r].token = at;
            at += row->count[r];
        }
    }
    return n;
}

static ra_err show(const char *dir, ra_store *store, uint64_t wanted)
{
    ra_corrections c = {0};
    uint64_t key;
    RA_TRY(ra_corrections_read(dir, &c, &key));
    ra_err err = RA_OK;
    if (key != wanted) {
        err = ra_fail(
            RA_ERR_DATA,
            "%s/corrections.h5 was made from other samples, another triage or other correct.* settings: run `realign correct` "
            "again, or set correct.source=none",
            dir);
    }
    if (err == RA_OK) {
        ra_sample *samples = ra_alloc((size_t)c.n, sizeof *samples);
        err = ra_store_set_corrections(store, samples, list_samples(&c, samples));
        ra_free(samples);
    }
    ra_corrections_free(&c);
    return err;
}

ra_err ra_corrections_apply(const ra_settings *s, const char *dir, ra_store *store, const int8_t *action, const char *triage_key)
{
    bool punished = memchr(action, RA_ACTION_PUNISH, (size_t)ra_store_count(store)) != NULL;
    if (punished && strcmp(ra_corrections_source(s, store), "none") != 0)
        return show(dir, store, ra_corrections_key(s, store, action, triage_key));
    return has_corrections(store) ? ra_store_set_corrections(store, NULL, 0) : RA_OK;
}
