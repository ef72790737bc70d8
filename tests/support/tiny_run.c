#include "tiny_run.h"
#include "../../src/stage/corrections.h"
#include "../../src/stage/run_context.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/store.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { INVERT, PUNISH, RETAIN, LONGEST = 32 };

/* The edge case of sample i. */
typedef enum { ORDINARY, ONE_TOKEN, LONG_AND_SHORT, SKIPPED_TOKENS, SHORT_PROMPT, UNUSABLE } shape;

static shape shape_of(const tiny_run *run, int64_t i)
{
    static const shape shapes[11] = {ORDINARY,       ONE_TOKEN, ORDINARY,     SKIPPED_TOKENS, ORDINARY, LONG_AND_SHORT,
                                     SKIPPED_TOKENS, ORDINARY,  SHORT_PROMPT, ORDINARY,       UNUSABLE};
    if (run->sets == TINY_CONTRADICTION) return ORDINARY;
    return run->one_token_prompts ? ONE_TOKEN : shapes[i % 11];
}

int8_t tiny_run_action(const tiny_run *run, int64_t i)
{
    switch (run->sets) {
    case TINY_NO_RETAIN: return i % 2 ? INVERT : PUNISH;
    case TINY_NO_CONFLICT: return RETAIN;
    case TINY_NO_DONOR: return PUNISH;
    case TINY_CONTRADICTION: return i == 0 ? INVERT : RETAIN;
    default: return (int8_t)(i % 3);
    }
}

typedef struct {
    int32_t prompt[LONGEST], response[RA_ROLES][LONGEST];
} storage;

static int32_t fill(ra_rng *rng, int32_t vocabulary, int32_t n, int32_t *ids)
{
    for (int32_t i = 0; i < n; i++) ids[i] = 1 + (int32_t)ra_rng_below(rng, (uint64_t)vocabulary - 1);
    return n;
}

static void add_response(ra_sample *s, storage *ids, ra_rng *rng, int32_t vocabulary, ra_role role, int32_t count, int32_t skip)
{
    s->response[role].count = fill(rng, vocabulary, count, ids->response[role]);
    s->response[role].skip = skip;
    s->response[role].token = ids->response[role];
}

static ra_sample make_sample(const tiny_run *run, int32_t vocabulary, int64_t i, storage *ids)
{
    ra_rng rng = ra_rng_make(run->seed, (uint64_t)RA_STREAM_TEST << 32 | (uint64_t)(run->sets == TINY_CONTRADICTION ? 0 : i));
    ra_sample s = {.id = i, .state = RA_SAMPLE_OK, .prompt = ids->prompt};
    shape kind = shape_of(run, i);
    if (kind == UNUSABLE) {
        s.state = (ra_sample_state)(1 + i / 11 % (RA_SAMPLE_STATES - 1));
        return s;
    }
    s.prompt_count = fill(&rng, vocabulary,
                          run->one_token_prompts || kind == SHORT_PROMPT ? 1 : 2 + (int32_t)ra_rng_below(&rng, 7), ids->prompt);
    int32_t skip = kind == SKIPPED_TOKENS ? 1 + (int32_t)(i % 2) : 0;
    for (int role = 0; role < RA_ROLES; role++) {
        int32_t count = kind == ONE_TOKEN                             ? 1
                        : kind == LONG_AND_SHORT && role == RA_CHOSEN ? 30
                                                                      : 2 + skip + (int32_t)ra_rng_below(&rng, 8);
        if (role == RA_CORRECTION && (tiny_run_action(run, i) != PUNISH || i % 2 || run->sets == TINY_NO_DONOR))
            continue; /* came back empty */
        add_response(&s, ids, &rng, vocabulary, (ra_role)role, count, role == RA_REJECTED && i % 3 == 0 ? 0 : skip);
    }
    return s;
}

static ra_err read_vocabulary(const char *model, int32_t *out)
{
    char *path = ra_path_join(model, "config.json");
    json_t *root = json_load_file(path, 0, NULL);
    *out = (int32_t)json_integer_value(json_object_get(root, "vocab_size"));
    json_decref(root);
    ra_err err = *out > 1 ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s has no vocab_size", path);
    free(path);
    return err;
}

static ra_err write_store(const char *dir, const tiny_run *run)
{
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    int32_t vocabulary;
    ra_store_writer *writer;
    RA_TRY(read_vocabulary(run->model, &vocabulary));
    RA_TRY(ra_store_create(dir, &self, &writer));
    storage *ids = ra_alloc(RA_STORE_BLOCK, sizeof *ids);
    ra_sample *block = ra_alloc(RA_STORE_BLOCK, sizeof *block);
    ra_err err = RA_OK;
    for (int64_t at = 0; at < run->samples && err == RA_OK; at += RA_STORE_BLOCK) {
        int n = 0;
        for (; n < RA_STORE_BLOCK && at + n < run->samples; n++) block[n] = make_sample(run, vocabulary, at + n, &ids[n]);
        err = ra_store_add_round(writer, block, n);
    }
    ra_free(block);
    ra_free(ids);
    if (err == RA_OK) return ra_store_commit(writer, NULL, 0, NULL);
    ra_store_abandon(writer);
    return err;
}

static ra_err write_triage(const char *dir, const tiny_run *run)
{
    char *path = ra_path_join(dir, "triage.h5");
    int8_t *action = ra_alloc((size_t)run->samples, 1);
    for (int64_t i = 0; i < run->samples; i++) action[i] = tiny_run_action(run, i);
    ra_h5 *h5;
    ra_err err = ra_h5_create(path, NULL, &h5);
    if (err == RA_OK)
        err = ra_h5_write_all(h5, "/action", H5T_NATIVE_INT8, 1, &run->samples, action, "0 invert, 1 punish, 2 retain, -1 none",
                              "1");
    if (err == RA_OK) err = ra_h5_commit(h5);
    ra_free(action);
    free(path);
    return err;
}

/* Every correction of the store is compliant: corrections.h5 says so of the Punish samples that have one. */
static ra_err write_corrections(const char *dir, const tiny_run *run)
{
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    ra_settings *s = tiny_run_settings(dir, run, NULL);
    ra_store *store = NULL;
    char *triage_key = NULL;
    int8_t *action = ra_alloc((size_t)run->samples, 1);
    ra_corrections c = {.row = ra_realloc(NULL, (size_t)run->samples, sizeof *c.row)};
    ra_buf tokens = {0};
    ra_err err = ra_store_open(dir, &store);
    if (err == RA_OK) err = ra_run_read_actions(s, dir, store, action, &triage_key);
    for (int64_t i = 0; i < run->samples && err == RA_OK; i++) {
        if (action[i] != PUNISH) continue;
        ra_sample x = ra_store_get(store, i);
        ra_correction_row *row = &c.row[c.n++];
        *row = (ra_correction_row){.id = i, .rule = -1, .verdict = -1, .outcome = RA_CORRECTION_MISSING};
        if (x.response[RA_CORRECTION].count == 0) continue;
        row->outcome = RA_CORRECTION_USED;
        row->prompt_count = x.prompt_count;
        row->cut = x.cut;
        ra_buf_add(&tokens, x.prompt, (size_t)x.prompt_count * sizeof *x.prompt);
        for (int r = 0; r < RA_ROLES; r++) {
            row->count[r] = x.response[r].count;
            row->skip[r] = x.response[r].skip;
            ra_buf_add(&tokens, x.response[r].token, (size_t)x.response[r].count * sizeof(int32_t));
        }
    }
    c.token = (int32_t *)(void *)tokens.data;
    c.tokens = (int64_t)(tokens.length / sizeof *c.token);
    if (err == RA_OK && c.n > 0) {
        const ra_corrections_about about = {.dir = dir,
                                            .source = "column",
                                            .corrector = "tiny_run",
                                            .depends_on = "tiny_run",
                                            .key = ra_corrections_key(s, store, action, triage_key)};
        err = ra_corrections_write(&about, &self, &c);
    }
    ra_corrections_free(&c);
    ra_free(action);
    free(triage_key);
    ra_store_close(store);
    ra_settings_free(s);
    return err;
}

ra_err tiny_run_make(const ra_comm *comm, const char *dir, const tiny_run *run)
{
    ra_err err = comm->rank == 0 ? ra_dir_make(dir) : RA_OK;
    if (comm->rank == 0 && err == RA_OK) err = write_store(dir, run);
    if (comm->rank == 0 && err == RA_OK) err = write_triage(dir, run);
    if (comm->rank == 0 && err == RA_OK) err = write_corrections(dir, run);
    return ra_comm_agree(comm, err);
}

static void put(ra_settings *s, const char *key, const char *value)
{
    if (ra_set_put(s, key, value) != RA_OK) ra_die("%s", ra_error_message());
}

ra_settings *tiny_run_settings(const char *dir, const tiny_run *run, char *const *words)
{
    static const char *const quick[][2] = {{"backend", "cpu"},         {"precision", "fp32"},   {"run.threads", "1"},
                                           {"run.log_level", "quiet"}, {"train.batch", "4"},    {"train.lr", "2e-4"},
                                           {"train.warmup", "2"},      {"train.epochs", "100"}, {"train.max_steps", "20"},
                                           {"pack.tokens", "96"},      {"gold.size", "9"},      {"checkpoint.every", "0"},
                                           {"lora.rank", "4"}};
    ra_log_setup(ra_log_rank(), RA_LOG_QUIET);
    ra_settings *s = ra_settings_new();
    put(s, "run.dir", dir);
    put(s, "model", run->model);
    for (size_t i = 0; i < sizeof quick / sizeof quick[0]; i++) put(s, quick[i][0], quick[i][1]);
    int n = 0;
    while (words && words[n]) n++;
    if (n && ra_settings_read_words(s, n, words) != RA_OK) ra_die("%s", ra_error_message());
    return s;
}
