/* Correctors: a column, a local model, an endpoint. */
#include "corrector.h"
#include "inference.h"
#include "responses.h"

#include <realign/chat.h>
#include <realign/file.h>
#include <realign/hash.h>
#include <realign/judge.h>
#include <realign/log.h>
#include <realign/oracle_http.h>
#include <realign/rng.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ATTEMPTS = 128, QUESTION_FORM = 1 /* part of the identity: another wording takes a new number */ };

struct ra_corrector {
    ra_corrector_config config;
    char *name, *identity, *instruction;
    const char *model, *adapter; /* of a local model */
    bool show_rejected;
    ra_inference inference;
    ra_generator *generator; /* NULL: nothing was asked yet */
    const struct batch *batch_now;
    ra_chat *chat;
    int batch;
    int64_t asked;
    char problem[400];
};

/* The candidates that are not known yet, while they are asked for. */
typedef struct {
    ra_corrector *c;
    ra_candidate **candidate; /* (n) */
    ra_hash *key;             /* (n) */
    int n;
    ra_buf text;
    ra_message *turns;
    ra_err err; /* of keeping a text */
} asking;

/* ---- questions ---- */
static ra_hash key_of(const ra_corrector *c, const ra_candidate *x)
{
    const ra_row *row = x->row;
    int64_t numbers[2] = {row->id, x->attempt};
    ra_hasher *h = ra_hasher_new();
    ra_hasher_add(h, c->identity, strlen(c->identity) + 1);
    ra_hasher_add(h, numbers, sizeof numbers);
    for (int i = 0; i < row->n_prompt; i++) {
        ra_hasher_add(h, row->prompt[i].role, strlen(row->prompt[i].role) + 1);
        ra_hasher_add(h, row->prompt[i].content, strlen(row->prompt[i].content) + 1);
    }
    if (c->show_rejected) {
        ra_hasher_add(h, row->chosen, strlen(row->chosen) + 1);
        ra_hasher_add(h, row->rejected, strlen(row->rejected) + 1);
    }
    return ra_hasher_end(h);
}

/* Numbers that key what is random: different for every sample and attempt. */
static int64_t draw_of(const ra_candidate *x)
{
    return x->row->id * MOST_ATTEMPTS + x->attempt;
}

/* The conversation with its last turn replaced; a->turns and a->text hold it until the next call. */
static int write_turns(asking *a, const ra_row *row)
{
    ra_buf_clear(&a->text);
    ra_correct_write_question(a->c->instruction, a->c->show_rejected, row, &a->text);
    a->turns = ra_realloc(a->turns, (size_t)row->n_prompt, sizeof *a->turns);
    memcpy(a->turns, row->prompt, (size_t)row->n_prompt * sizeof *a->turns);
    a->turns[row->n_prompt - 1].content = a->text.data;
    return row->n_prompt;
}

static void take_text(asking *a, int i, const char *text, bool cut)
{
    ra_candidate *x = a->candidate[i];
    bool endless;
    x->text = ra_correct_clean_answer(text, &endless);
    x->end = cut || endless ? RA_TEXT_CUT : RA_TEXT_WHOLE;
    a->c->asked++;
    ra_err err = ra_candidates_add(a->c->config.candidates, a->key[i], x->row->id, x->attempt, x->text, x->end == RA_TEXT_CUT);
    if (a->err == RA_OK) a->err = err;
}

/* ---- a local model ---- */
/* What the generator works on: it calls back with sequences alone. */
typedef struct batch {
    asking *a;
    ra_continuation *sequence; /* (n) */
    int *index;                /* (n) of its candidate */
} batch;

static bool halts(void *context)
{
    const ra_corrector *c = context;
    return c->batch_now->a->err != RA_OK || (c->config.halt && c->config.halt(c->config.context));
}

static void take_continuation(void *context, const ra_continuation *sequence)
{
    ra_corrector *c = context;
    const batch *b = c->batch_now;
    ra_buf text = {0};
    ra_buf_adds(&text, "");
    ra_err err = ra_tokenizer_decode(c->inference.tokenizer, sequence->token, sequence->count, true, &text);
    if (b->a->err == RA_OK) b->a->err = err;
    if (err == RA_OK) take_text(b->a, b->index[sequence - b->sequence], text.data, !sequence->stopped);
    ra_buf_free(&text);
}

/* Collective over the stages of a replica. */
static ra_err open_model(ra_corrector *c)
{
    const ra_settings *s = c->config.s;
    const ra_grid *grid = c->config.grid;
    if (c->generator) return RA_OK;
    bool own = *ra_set_text(s, "correct.model") || *ra_set_text(s, "correct.tokenizer") || ra_set_given(s, "correct.template");
    ra_err err = own ? ra_inference_open_other(s, grid, c->model, c->adapter, ra_set_text(s, "correct.tokenizer"),
                                               ra_set_text(s, "correct.template"), &c->inference)
                     : ra_inference_open(s, grid, c->model, NULL, &c->inference);
    if (err != RA_OK) ra_fail_in(err, "correct.model");
    err = ra_grid_agree(grid, err);
    if (err != RA_OK) {
        ra_inference_close(&c->inference);
        return err;
    }
    ra_rng seed = ra_rng_make((uint64_t)ra_set_int(s, "seed"), RA_STREAM_CORRECTION);
    const ra_generation config = {.sampling = {.temperature = ra_set_real(s, "correct.temperature"),
                                               .top_p = ra_set_real(s, "correct.top_p"),
                                               .seed = ra_rng_u64(&seed)},
                                  .batch = (int32_t)ra_set_int(s, "generate.batch"),
                                  .max_new_tokens = (int32_t)ra_set_int(s, "correct.max_new_tokens"),
                                  .prefill_rows = (int32_t)ra_set_int(s, "pack.tokens"),
                                  .stop = c->inference.stop,
                                  .stops = c->inference.stops,
                                  .finished = take_continuation,
                                  .halt = halts,
                                  .context = c};
    c->generator = ra_generator_new(c->inference.m, grid, &config);
    return RA_OK;
}

/* Questions that leave no room for an answer are not put. */
static ra_err render_all(const batch *b, ra_rendered *rendered, int *n)
{
    asking *a = b->a;
    for (int i = 0; i < a->n; i++) {
        const ra_row *row = a->candidate[i]->row;
        int turns = write_turns(a, row);
        ra_err err = ra_turns_render(&a->c->inference, a->turns, turns, true, &rendered[*n]);
        if (err != RA_OK) return ra_fail_in(err, "correct.model: row %lld", (long long)row->id + 1);
        ra_continuation *x = &b->sequence[*n];
        *x = (ra_continuation){
            .id = draw_of(a->candidate[i]), .prompt = rendered[*n].ids.id, .prompt_count = (int32_t)rendered[*n].ids.count};
        if (ra_generator_check(a->c->generator, x) == RA_OK) {
            b->index[(*n)++] = i;
        } else {
            a->candidate[i]->end = RA_TEXT_CUT;
        }
    }
    return RA_OK;
}

static ra_err ask_model(asking *a)
{
    ra_corrector *c = a->c;
    ra_grid_call(c->config.grid, RA_CALL_CORRECTOR);
    RA_TRY(open_model(c));
    batch b = {a, ra_calloc((size_t)a->n, sizeof *b.sequence), ra_calloc((size_t)a->n, sizeof *b.index)};
    ra_rendered *rendered = ra_calloc((size_t)a->n, sizeof *rendered);
    int n = 0;
    c->batch_now = &b;
    ra_err err = ra_grid_agree(c->config.grid, render_all(&b, rendered, &n));
    if (err == RA_OK) err = ra_generator_run(c->generator, b.sequence, n);
    if (a->err != RA_OK) err = a->err;
    c->batch_now = NULL;
    for (int i = 0; i < a->n; i++) {
        if (i < n) ra_free(b.sequence[i].token);
        ra_rendered_free(&rendered[i]);
    }
    ra_free(rendered);
    ra_free(b.index);
    ra_free(b.sequence);
    return err;
}

ra_err ra_corrector_follow(ra_corrector *c)
{
    RA_TRY(open_model(c));
    RA_TRY(ra_grid_agree(c->config.grid, RA_OK)); /* of what stage 0 renders */
    return ra_generator_run(c->generator, NULL, 0);
}

/* ---- an endpoint ---- */
static void put_question(void *context, int item, int unread, ra_chat_question *out)
{
    (void)unread;
    asking *a = context;
    const ra_settings *s = a->c->config.s;
    const ra_candidate *x = a->candidate[item];
    ra_rng rng = ra_rng_make((uint64_t)ra_set_int(s, "seed"), (uint64_t)RA_STREAM_CORRECTION << 56 | (uint64_t)draw_of(x));
    *out = (ra_chat_question){.n_messages = write_turns(a, x->row),
                              .temperature = ra_set_real(s, "correct.temperature"),
                              .max_tokens = (int)ra_set_int(s, "correct.max_new_tokens"),
                              .seed = (int64_t)(ra_rng_u32(&rng) >> 1)}; /* some servers take 31 bits */
    out->messages = a->turns;
}

static bool take_answer(void *context, int item, const ra_chat_answer *answer, const char **why)
{
    (void)why;
    asking *a = context;
    if (answer->text) {
        take_text(a, item, answer->text, strcmp(answer->finish_reason, "length") == 0);
    } else {
        a->candidate[item]->end = RA_TEXT_FAILED;
        a->c->asked++;
        snprintf(a->c->problem, sizeof a->c->problem, "%s", answer->problem);
    }
    return true;
}

static ra_err ask_endpoint(asking *a)
{
    const ra_chat_job job = {put_question, take_answer, a, 0};
    RA_TRY(ra_chat_ask(a->c->chat, a->n, &job));
    return a->err;
}

/* The further members of a request, with top_p where it says something. */
static ra_err extra_of(const ra_settings *s, char **out)
{
    const char *text = ra_set_text(s, "oracle.http.extra");
    *out = NULL;
    if (ra_set_real(s, "correct.top_p") >= 1.0) {
        *out = ra_strdup(text);
        return RA_OK;
    }
    json_t *extra = *text ? json_loads(text, 0, NULL) : json_object();
    if (!json_is_object(extra)) {
        json_decref(extra);
        return ra_fail(RA_ERR_ARG, "oracle.http.extra must be a JSON object");
    }
    json_object_set_new(extra, "top_p", json_real(ra_set_real(s, "correct.top_p")));
    *out = json_dumps(extra, JSON_COMPACT);
    json_decref(extra);
    return RA_OK;
}

static const char *endpoint_model(const ra_settings *s)
{
    const char *own = ra_set_text(s, "correct.model");
    return *own ? own : ra_set_text(s, "oracle.http.model");
}

static ra_err open_endpoint(ra_corrector *c)
{
    const ra_settings *s = c->config.s;
    const char *url = ra_set_text(s, "correct.url");
    if (!*url)
        return ra_fail(RA_ERR_ARG, "correct.source is endpoint, but neither correct.url nor oracle.http.url says where it is");
    if (!*endpoint_model(s))
        return ra_fail(RA_ERR_ARG, "correct.source is endpoint, but neither correct.model nor oracle.http.model names its model");
    ra_http_config config;
    ra_http_config_read(s, c->config.grid->data.rank, c->config.grid->data.size, &config);
    char *extra;
    RA_TRY(extra_of(s, &extra));
    bool same_server = strcmp(url, ra_set_text(s, "oracle.http.url")) == 0;
    const char *key_env = ra_set_text(s, "correct.key_env");
    config.chat.url = url;
    config.chat.model = endpoint_model(s);
    if (*key_env || !same_server) config.chat.key_env = key_env; /* a key goes to the server it was given for, and to no other */
    config.chat.extra = extra;
    config.chat.stop = c->config.halt;
    config.chat.stop_context = c->config.context;
    ra_err err = ra_chat_open(&config.chat, &c->chat);
    free(extra);
    return err == RA_OK ? RA_OK : ra_fail_in(err, "correct.source endpoint");
}

/* ---- opening ---- */
static void describe_endpoint(ra_corrector *c)
{
    const ra_settings *s = c->config.s;
    c->name = ra_format("endpoint %s, model %s", ra_set_text(s, "correct.url"), endpoint_model(s));
    c->identity = ra_format("endpoint %s model %s extra %s own_sampling %d", ra_set_text(s, "correct.url"), endpoint_model(s),
                            ra_set_text(s, "oracle.http.extra"), ra_set_bool(s, "oracle.http.own_sampling"));
}

/* Collective: rank 0's view of the files is everyone's. */
static void describe_model(ra_corrector *c)
{
    static const char *const texts[] = {"backend",       "precision",         "tokenizer",       "template",
                                        "template_date", "correct.tokenizer", "correct.template"};
    const ra_settings *s = c->config.s;
    const char *given = ra_set_text(s, "correct.model");
    c->model = *given ? given : ra_set_text(s, "model");
    c->adapter = *given ? ra_adapter_in(given) : NULL;
    if (c->adapter) c->model = ra_set_text(s, "model");
    ra_hasher *h = ra_hasher_new();
    ra_model_files_add(h, c->model);
    ra_model_files_add(h, c->adapter);
    ra_model_files_add(h, ra_set_text(s, "tokenizer"));
    ra_model_files_add(h, ra_set_text(s, "correct.tokenizer"));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ra_hasher_add(h, ra_set_text(s, texts[i]), strlen(ra_set_text(s, texts[i])) + 1);
    char hash[33];
    ra_hash_text(ra_hasher_end(h), hash);
    ra_comm_bcast(&c->config.grid->world, hash, sizeof hash, 0);
    c->name = ra_format("model %s", *given ? given : c->model);
    c->identity = ra_format("model %s files %s", *given ? given : c->model, hash);
}

/* What all that are asked depend on. */
static ra_err describe_question(ra_corrector *c)
{
    const ra_settings *s = c->config.s;
    RA_TRY(ra_correct_instruction(s, c->config.policy, &c->instruction));
    c->show_rejected = ra_set_bool(s, "correct.show_rejected");
    char hash[33], *who = c->identity;
    ra_hash_text(ra_hash_bytes(c->instruction, strlen(c->instruction)), hash);
    c->identity = ra_format("%s form %d instruction %s show_rejected %d temperature %.17g top_p %.17g max_new_tokens %" PRId64
                            " seed %" PRId64,
                            who, QUESTION_FORM, hash, c->show_rejected, ra_set_real(s, "correct.temperature"),
                            ra_set_real(s, "correct.top_p"), ra_set_int(s, "correct.max_new_tokens"), ra_set_int(s, "seed"));
    free(who);
    return RA_OK;
}

static ra_err describe(ra_corrector *c)
{
    enum { ROUNDS = 4, COLUMN_BATCH = 4096 };
    const ra_settings *s = c->config.s;
    if (strcmp(c->config.source, "column") == 0) {
        c->name = ra_strdup("column of the data");
        c->identity = ra_strdup("column");
        c->batch = COLUMN_BATCH;
        return RA_OK;
    }
    bool endpoint = strcmp(c->config.source, "endpoint") == 0;
    if (endpoint) {
        describe_endpoint(c);
    } else {
        describe_model(c);
        if (!*c->model) return ra_fail(RA_ERR_ARG, "correct.source is model, but neither correct.model nor model says which");
    }
    c->batch = ROUNDS * (int)ra_set_int(s, endpoint ? "oracle.http.concurrency" : "generate.batch");
    RA_TRY(describe_question(c));
    return endpoint ? open_endpoint(c) : RA_OK;
}

ra_err ra_corrector_open(const ra_corrector_config *config, ra_corrector **out)
{
    ra_corrector *c = ra_calloc(1, sizeof *c);
    c->config = *config;
    ra_err err = ra_comm_agree(&config->grid->world, describe(c));
    *out = err == RA_OK ? c : NULL;
    if (err != RA_OK) ra_corrector_close(c);
    return err;
}

void ra_corrector_close(ra_corrector *c)
{
    if (!c) return;
    ra_generator_free(c->generator);
    if (c->generator) ra_inference_close(&c->inference);
    ra_chat_close(c->chat);
    free(c->name);
    free(c->identity);
    free(c->instruction);
    ra_free(c);
}

/* ---- texts ---- */
static void take_column(ra_candidate *x)
{
    x->end = x->row->correction ? RA_TEXT_WHOLE : RA_TEXT_NONE;
    x->text = x->row->correction ? ra_strdup(x->row->correction) : NULL;
}

ra_err ra_corrector_write(ra_corrector *c, ra_candidate *candidate, int n)
{
    bool column = strcmp(c->config.source, "column") == 0;
    asking a = {.c = c, .candidate = ra_alloc((size_t)n + 1, sizeof *a.candidate), .key = ra_alloc((size_t)n + 1, sizeof *a.key)};
    for (int i = 0; i < n; i++) {
        ra_candidate *x = &candidate[i];
        const char *text;
        bool cut;
        x->text = NULL;
        if (column) {
            take_column(x);
            continue;
        }
        ra_hash key = key_of(c, x);
        if (ra_candidates_find(c->config.candidates, key, &text, &cut)) {
            x->text = ra_strdup(text);
            x->end = cut ? RA_TEXT_CUT : RA_TEXT_WHOLE;
            continue;
        }
        a.key[a.n] = key;
        a.candidate[a.n++] = x;
    }
    ra_err err = RA_OK;
    if (a.n > 0) err = c->chat ? ask_endpoint(&a) : ask_model(&a);
    free(a.turns);
    ra_buf_free(&a.text);
    ra_free(a.key);
    ra_free(a.candidate);
    return err;
}

const char *ra_corrector_name(const ra_corrector *c)
{
    return c->name;
}

const char *ra_corrector_identity(const ra_corrector *c)
{
    return c->identity;
}

int ra_corrector_batch(const ra_corrector *c)
{
    return c->batch;
}

int64_t ra_corrector_asked(const ra_corrector *c)
{
    return c->asked;
}

const char *ra_corrector_problem(const ra_corrector *c)
{
    return c->problem;
}
