/* realign generate, realign score: a model at a shell. Lines are taken in windows, so that input may be of any length and what is computed is batched. */
#include "inference.h"

#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW_LINES = 256 };

/* One line's work. */
typedef struct {
    int32_t *ids; /* (count) what goes into the model */
    int32_t count, first;
    double *logprob;              /* score */
    ra_continuation continuation; /* generate */
} job;

typedef struct tool {
    ra_inference model;
    ra_rendered rendered;
    ra_generator *generator;
    ra_scorer *scorer;
    ra_err (*read)(struct tool *t, const json_t *line, job *j);
    ra_err (*compute)(struct tool *t, job *jobs, int64_t n, long first_line);
    json_t *(*write)(struct tool *t, const job *j);
} tool;

/* "ids" say everything; what stands beside them would be passed over. */
static ra_err check_alone(const json_t *line)
{
    static const char *const others[] = {"messages", "prompt", "response"};
    for (size_t i = 0; json_object_get(line, "ids") && i < sizeof others / sizeof *others; i++) {
        if (json_object_get(line, others[i]))
            return ra_fail(RA_ERR_DATA, "\"ids\" and \"%s\" are both there; give one of them", others[i]);
    }
    return RA_OK;
}

/* ---- score ---- */

static ra_err read_scored(tool *t, const json_t *line, job *j)
{
    RA_TRY(check_alone(line));
    if (json_object_get(line, "ids")) {
        RA_TRY(ra_ids_read(line, &j->ids, &j->count));
        j->first = 1;
    } else {
        ra_message *turns;
        int n;
        RA_TRY(ra_turns_read(line, &turns, &n));
        ra_err err = strcmp(turns[n - 1].role, "assistant") == 0
                         ? ra_turns_render(&t->model, turns, n, false, &t->rendered)
                         : ra_fail(RA_ERR_DATA, "there is nothing to score: \"response\", or an assistant's turn at the end of "
                                                "\"messages\", was expected");
        ra_free(turns);
        RA_TRY(err);
        j->first = (int32_t)t->rendered.response_start;
        j->count = (int32_t)t->rendered.response_end;
        j->ids = ra_alloc((size_t)j->count + 1, sizeof *j->ids);
        memcpy(j->ids, t->rendered.ids.id, (size_t)j->count * sizeof *j->ids);
    }
    j->logprob = ra_calloc((size_t)j->count + 1, sizeof *j->logprob);
    ra_scored q = {.token = j->ids, .count = j->count, .first = j->first};
    return ra_scorer_check(t->scorer, &q);
}

static ra_err compute_scored(tool *t, job *jobs, int64_t n, long first_line)
{
    ra_scored *list = ra_alloc((size_t)n, sizeof *list);
    for (int64_t i = 0; i < n; i++) {
        list[i] = (ra_scored){.id = first_line + i,
                              .token = jobs[i].ids,
                              .count = jobs[i].count,
                              .first = jobs[i].first,
                              .logprob = jobs[i].logprob};
    }
    ra_err err = ra_scorer_run(t->scorer, list, n);
    ra_free(list);
    return err;
}

static json_t *write_scored(tool *t, const job *j)
{
    (void)t;
    json_t *list = json_array(), *out = json_object();
    for (int32_t i = 0; i < j->count - j->first; i++) json_array_append_new(list, json_real(j->logprob[i]));
    json_object_set_new(out, "logprobs", list);
    return out;
}

/* ---- generate ---- */

static ra_err read_prompt(tool *t, const json_t *line, job *j)
{
    RA_TRY(check_alone(line));
    if (json_object_get(line, "ids")) {
        RA_TRY(ra_ids_read(line, &j->ids, &j->count));
    } else {
        ra_message *turns;
        int n;
        RA_TRY(ra_turns_read(line, &turns, &n));
        ra_err err = ra_turns_render(&t->model, turns, n, true, &t->rendered);
        ra_free(turns);
        RA_TRY(err);
        j->count = (int32_t)t->rendered.ids.count;
        j->ids = ra_alloc((size_t)j->count + 1, sizeof *j->ids);
        memcpy(j->ids, t->rendered.ids.id, (size_t)j->count * sizeof *j->ids);
    }
    j->continuation = (ra_continuation){.prompt = j->ids, .prompt_count = j->count};
    return ra_generator_check(t->generator, &j->continuation);
}

static ra_err compute_generated(tool *t, job *jobs, int64_t n, long first_line)
{
    ra_continuation *list = ra_alloc((size_t)n, sizeof *list);
    for (int64_t i = 0; i < n; i++) {
        list[i] = jobs[i].continuation;
        list[i].id = first_line + i;
    }
    ra_err err = ra_generator_run(t->generator, list, n);
    for (int64_t i = 0; i < n; i++) jobs[i].continuation = list[i];
    ra_free(list);
    return err;
}

/* text is null where the model's tokenizer cannot be read. */
static json_t *write_generated(tool *t, const job *j)
{
    const ra_continuation *c = &j->continuation;
    ra_buf text = {0};
    json_t *out = json_object();
    bool decoded = t->model.tokenizer && ra_tokenizer_decode(t->model.tokenizer, c->token, c->count, true, &text) == RA_OK;
    json_object_set_new(out, "ids", ra_ids_json(c->token, c->count));
    json_object_set_new(out, "text", decoded ? json_stringn(text.length ? text.data : "", text.length) : json_null());
    ra_buf_free(&text);
    return out;
}

/* ---- lines ---- */

static ra_err read_line(tool *t, const char *text, size_t n, job *j)
{
    json_error_t error;
    json_t *line = json_loadb(text, n, JSON_ALLOW_NUL, &error);
    if (!line) return ra_fail(RA_ERR_DATA, "not JSON: %s (column %d)", error.text, error.column);
    ra_err err = json_is_object(line) ? t->read(t, line, j) : ra_fail(RA_ERR_DATA, "an object was expected");
    json_decref(line);
    return err;
}

static ra_err print_job(tool *t, const job *j)
{
    json_t *out = t->write(t, j);
    /* ASCII: U+0085 and U+2028 would end the line for some readers. */
    bool written = json_dumpf(out, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) == 0 && putchar('\n') != EOF;
    json_decref(out);
    return written ? RA_OK : ra_fail(RA_ERR_IO, "standard output: %m");
}

static ra_err finish_window(tool *t, job *jobs, int64_t n, long first_line)
{
    ra_err err = n ? t->compute(t, jobs, n, first_line) : RA_OK;
    for (int64_t i = 0; i < n && err == RA_OK; i++) err = print_job(t, &jobs[i]);
    for (int64_t i = 0; i < n; i++) {
        ra_free(jobs[i].ids);
        ra_free(jobs[i].logprob);
        ra_free(jobs[i].continuation.token);
    }
    if (fflush(stdout) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "standard output: %m");
    return err;
}

/* A bad line ends the tool, after what stands before it was written. */
static ra_err every_line(tool *t)
{
    job *jobs = ra_calloc(WINDOW_LINES, sizeof *jobs);
    char *text = NULL;
    size_t capacity = 0;
    ra_err err = RA_OK;
    long number = 0;
    bool more = true;
    while (more && err == RA_OK) {
        int64_t n = 0;
        ra_err bad = RA_OK;
        char *why = NULL;
        memset(jobs, 0, WINDOW_LINES * sizeof *jobs);
        while (n < WINDOW_LINES && bad == RA_OK) {
            ssize_t length = getline(&text, &capacity, stdin);
            more = length >= 0;
            if (!more) break;
            bad = read_line(t, text, (size_t)length, &jobs[n]);
            n++;
        }
        if (bad != RA_OK) {
            why = ra_format("line %ld: %s", number + (long)n, ra_error_message());
            n--;
            ra_free(jobs[n].ids);
            ra_free(jobs[n].logprob);
        }
        err = finish_window(t, jobs, n, number + 1);
        number += (long)n;
        if (err == RA_OK && bad != RA_OK) err = ra_fail(bad, "%s", why);
        free(why);
    }
    if (err == RA_OK && ferror(stdin)) err = ra_fail(RA_ERR_IO, "standard input: %m");
    free(text);
    ra_free(jobs);
    return err;
}

/* --model M, --template NAME and key=value words. */
static ra_err read_options(int argc, char **argv, ra_settings *s)
{
    char **word = ra_calloc((size_t)argc + 1, sizeof *word);
    int words = 0;
    ra_err err = RA_OK;
    for (int i = 0; i < argc && err == RA_OK; i++) {
        const char *key = !strcmp(argv[i], "--model") ? "model" : !strcmp(argv[i], "--template") ? "template" : NULL;
        if (key && i + 1 == argc) {
            err = ra_fail(RA_ERR_ARG, "%s needs a value", argv[i]);
        } else if (key) {
            word[words++] = ra_format("%s=%s", key, argv[++i]);
        } else if (argv[i][0] != '-' && strchr(argv[i], '=')) {
            word[words++] = ra_strdup(argv[i]);
        } else {
            err = ra_fail(RA_ERR_ARG,
                          "unknown option %s; accepted: --model M, --template NAME, and key=value words (`realign help` lists "
                          "the keys) such as precision=fp32 or max_new_tokens=64",
                          argv[i]);
        }
    }
    if (err == RA_OK) err = ra_settings_read_words(s, words, word);
    for (int i = 0; i < words; i++) free(word[i]);
    ra_free(word);
    if (err == RA_OK && !*ra_set_text(s, "model"))
        err = ra_fail(RA_ERR_ARG, "--model is missing: a model directory or a GGUF file");
    if (err == RA_OK && ra_set_int(s, "grid.pipeline") > 1) {
        err = ra_fail(RA_ERR_ARG,
                      "grid.pipeline: lines are read and answered by one rank, which holds the whole model; accepted: 1. A run's "
                      "stages (generate, evaluate) take a pipeline");
    }
    return err;
}

static ra_err run(int argc, char **argv, tool *t)
{
    ra_settings *s = ra_settings_new();
    ra_err err = read_options(argc, argv, s);
    if (err == RA_OK) err = ra_inference_open(s, NULL, ra_set_text(s, "model"), NULL, &t->model);
    if (err == RA_OK) {
        ra_generation generation = ra_generation_of(s, &t->model);
        t->generator = ra_generator_new(t->model.m, NULL, &generation);
        t->scorer = ra_scorer_new(t->model.m, NULL, (int32_t)ra_set_int(s, "pack.tokens"));
        err = every_line(t);
        const ra_generation_counts *c = ra_generator_counts(t->generator);
        if (c->new_tokens) {
            ra_info("%s; %lld prompt tokens in %.2f s, %lld new tokens in %.2f s (%lld steps): %.0f new tokens/s over both",
                    ra_backend_describe(t->model.b), (long long)c->prompt_tokens, c->prefill_s, (long long)c->new_tokens,
                    c->decode_s, (long long)c->steps, (double)c->new_tokens / (c->prefill_s + c->decode_s));
        }
    }
    ra_generator_free(t->generator);
    ra_scorer_free(t->scorer);
    ra_rendered_free(&t->rendered);
    ra_inference_close(&t->model);
    ra_settings_free(s);
    return err;
}

ra_err ra_tool_score(int argc, char **argv)
{
    tool t = {.read = read_scored, .compute = compute_scored, .write = write_scored};
    return run(argc, argv, &t);
}

ra_err ra_tool_generate(int argc, char **argv)
{
    tool t = {.read = read_prompt, .compute = compute_generated, .write = write_generated};
    return run(argc, argv, &t);
}
