/* The judge kind: pages of judge_text.c through ask.c, and verdicts from the logits of the answer tokens. */
#include <realign/judge.h>

#include "ask.h"
#include "judge_text.h"

#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/modelfile.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ANSWERS = 64 };
static const double uncertain_share = 0.5; /* counted and warned about */

typedef struct {
    ra_judge_config config; /* its texts are gone after opening */
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_tokenizer *t;
    ra_judge_form form;
    int32_t positions;            /* of the model, or max_tokens */
    int32_t answer[MOST_ANSWERS]; /* yes tokens, then no tokens */
    int32_t n_yes, n_answers;
    char identity[160];
    ra_model *m; /* NULL until the first item */
    ra_asker *asker;
    ra_judge_counts counts;
    char problem[400];
    ra_verdict_sink sink; /* of the running call */
    void *context;
} judge;

/* ---- opening ---- */

void ra_judge_config_read(const ra_settings *s, ra_judge_config *out)
{
    *out = (ra_judge_config){.model = ra_set_text(s, "oracle.judge.model"),
                             .tokenizer = ra_set_text(s, "oracle.judge.tokenizer"),
                             .chat_template = ra_set_text(s, "oracle.judge.template"),
                             .backend = ra_set_text(s, "backend"),
                             .precision = ra_set_text(s, "oracle.judge.precision"),
                             .threads = (int)ra_set_int(s, "run.threads"),
                             .max_tokens = (int32_t)ra_set_int(s, "oracle.judge.max_tokens"),
                             .pack_tokens = (int32_t)ra_set_int(s, "oracle.judge.pack_tokens"),
                             .threshold = 0.5,
                             .least_share = ra_set_real(s, "oracle.judge.least_share")};
    out->n_yes = ra_set_list(s, "oracle.judge.yes", &out->yes);
    out->n_no = ra_set_list(s, "oracle.judge.no", &out->no);
}

/* The word's id where it is one token, as it is or after a space; -1 else. */
static ra_err single_token(const ra_tokenizer *t, const char *word, bool after_space, int32_t *id)
{
    ra_ids ids = {0};
    ra_buf text = {0};
    ra_buf_addf(&text, "%s%s", after_space ? " " : "", word);
    ra_err err = ra_tokenizer_encode(t, text.data, text.length, 0, &ids);
    *id = err == RA_OK && ids.count == 1 ? ids.id[0] : -1;
    ra_buf_free(&text);
    ra_ids_free(&ids);
    return err;
}

static int find(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] == id) return i;
    }
    return -1;
}

static ra_err read_answers(judge *j, const char *key, const char *const *word, int n, int before)
{
    for (int i = 0; i < n; i++) {
        for (int space = 0; space < 2; space++) {
            int32_t id;
            RA_TRY(single_token(j->t, word[i], space, &id));
            if (id < 0) continue;
            int at = find(j->answer, j->n_answers, id);
            if (at >= 0 && at < before)
                return ra_fail(RA_ERR_ARG, "%s: '%s' is a token of oracle.judge.yes too; an answer is one or the other", key,
                               word[i]);
            if (at >= 0) continue;
            if (j->n_answers == MOST_ANSWERS) return ra_fail(RA_ERR_ARG, "%s: more than %d answer tokens", key, MOST_ANSWERS);
            j->answer[j->n_answers++] = id;
        }
    }
    if (j->n_answers > before) return RA_OK;
    return ra_fail(
        RA_ERR_ARG,
        "%s: none of its %d words is a single token of the judge's tokenizer, as it is or after a space; give words that are",
        key, n);
}

static ra_err open_model_file(judge *j)
{
    char *json = NULL;
    ra_arch arch;
    RA_TRY(ra_modelfile_open(j->config.model, &j->file));
    RA_TRY(ra_modelfile_config_json(j->file, &json));
    ra_err err = ra_arch_parse(json, j->config.model, &arch);
    free(json);
    if (err != RA_OK) return err;
    j->positions = j->config.max_tokens < arch.max_position ? j->config.max_tokens : arch.max_position;
    int32_t tokens = ra_tokenizer_vocabulary_size(j->t);
    if (tokens > arch.vocabulary)
        err = ra_fail(RA_ERR_DATA, "%s has ids up to %d; the model %s has %d rows: they do not belong together",
                      j->config.tokenizer, tokens - 1, j->config.model, arch.vocabulary);
    ra_arch_free(&arch);
    return err;
}

/* The words of the form are known by a page about nothing: template, system turn and question are in its text. */
static ra_err make_identity(judge *j)
{
    ra_judge_form form;
    ra_judge_page page = {0};
    ra_hash model, all;
    char text[33];
    const ra_judge_config *c = &j->config;
    ra_err err = ra_modelfile_hash(j->file, &model);
    if (err != RA_OK) return err;
    err = ra_judge_form_open(j->t, c->chat_template, "policy", c->yes[0], c->no[0], j->positions, &form);
    if (err == RA_OK) err = ra_judge_page_write(&form, &(ra_oracle_item){.prompt = "prompt", .response = "reply"}, &page);
    if (err == RA_OK) {
        ra_hasher *h = ra_hasher_new();
        uint64_t tokenizer = ra_tokenizer_hash(j->t);
        int32_t numbers[] = {j->positions, j->n_yes, j->n_answers};
        ra_hasher_add(h, &model, sizeof model);
        ra_hasher_add(h, &tokenizer, sizeof tokenizer);
        ra_hasher_add(h, page.rendered.text.data, page.rendered.text.length);
        ra_hasher_add(h, numbers, sizeof numbers);
        ra_hasher_add(h, j->answer, (size_t)j->n_answers * sizeof *j->answer);
        ra_hasher_add(h, &c->least_share, sizeof c->least_share);
        all = ra_hasher_end(h);
        ra_hash_text(all, text);
        snprintf(j->identity, sizeof j->identity, "judge %s %s %s", text, j->b->name, j->b->precision);
    }
    ra_judge_page_free(&page);
    ra_judge_form_close(&form);
    return err;
}

static ra_err open_all(judge *j, const char *policy_text)
{
    const ra_judge_config *c = &j->config;
    if (!c->model || !*c->model)
        return ra_fail(RA_ERR_ARG,
                       "oracle.judge.model: no judge model was given; accepted: a Hugging Face directory or a GGUF file");
    if (!policy_text || !*policy_text) return ra_fail(RA_ERR_ARG, "the policy has no text for a judge to read; give it `text:`");
    if (c->n_yes < 1 || c->n_no < 1)
        return ra_fail(RA_ERR_ARG, "%s: no word was given; an answer needs at least one",
                       c->n_yes < 1 ? "oracle.judge.yes" : "oracle.judge.no");
    if (!c->tokenizer || !*c->tokenizer) j->config.tokenizer = c->model;
    RA_TRY(ra_tokenizer_open(c->tokenizer, &j->t));
    RA_TRY(read_answers(j, "oracle.judge.yes", c->yes, c->n_yes, 0));
    j->n_yes = j->n_answers;
    RA_TRY(read_answers(j, "oracle.judge.no", c->no, c->n_no, j->n_yes));
    RA_TRY(open_model_file(j));
    RA_TRY(ra_backend_open(c->backend, c->precision, c->threads, &j->b));
    RA_TRY(ra_judge_form_open(j->t, c->chat_template, policy_text, c->yes[0], c->no[0], j->positions, &j->form));
    return make_identity(j);
}

static void summarise(const judge *j)
{
    const ra_judge_counts *c = &j->counts;
    if (!c->items) return;
    ra_info("judge: %lld items, %lld tokens of which %lld computed, %.1f s in the model", (long long)c->items,
            (long long)c->tokens, (long long)c->rows, c->seconds);
    if (c->cut)
        ra_warn("judge: %lld conversations lost their beginning to oracle.judge.max_tokens or the model's positions (%d)",
                (long long)c->cut, j->positions);
    if (c->spelled_apart)
        ra_warn("judge: %lld items held special tokens of the judge's tokenizer, which were spelled apart",
                (long long)c->spelled_apart);
    if (c->uncertain)
        ra_warn("judge: after %lld of %lld items less than half of the probability lay on yes and no together: is the model fit "
                "to judge, and the template its own?",
                (long long)c->uncertain, (long long)c->items);
    if (c->unjudged)
        ra_warn("judge: items that could not be judged: %lld; of them too long: %lld, without enough probability on yes and no "
                "(oracle.judge.least_share): %lld; the last: %s",
                (long long)c->unjudged, (long long)c->too_long, (long long)c->without_answer, j->problem);
}

static void release(judge *j)
{
    ra_asker_free(j->asker);
    ra_model_close(j->m);
    ra_judge_form_close(&j->form);
    ra_backend_close(j->b);
    ra_modelfile_close(j->file);
    ra_tokenizer_close(j->t);
    ra_free(j);
}

static void close_judge(void *state)
{
    judge *j = state;
    ra_judge_counts counts = ra_judge_counted(j);
    j->counts = counts;
    summarise(j);
    release(j);
}

/* ---- judging ---- */

ra_verdict ra_judge_verdict(float margin, double threshold)
{
    double probability = 1.0 / (1.0 + exp(-(double)margin));
    return (ra_verdict){.compliant = probability >= threshold, .rule = -1, .probability = (float)probability, .margin = margin};
}

static double log_sum_exp(const double *x, int n)
{
    double top = -INFINITY, sum = 0.0;
    for (int i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

static void cannot_tell(judge *j, int item, ra_verdict verdict)
{
    verdict.compliant = -1;
    j->counts.unjudged++;
    j->sink(j->context, item, &verdict);
}

/* margin = log p(yes) - log p(no); share = p(yes) + p(no), each summed over its tokens */
static ra_err answered(void *context, int64_t item, const double *logit, double lse)
{
    judge *j = context;
    double yes = log_sum_exp(logit, j->n_yes), no = log_sum_exp(logit + j->n_yes, j->n_answers - j->n_yes);
    double share = exp(yes - lse) + exp(no - lse);
    if (!isfinite(yes - no) || !isfinite(share)) return ra_fail(RA_ERR_NUMERIC, "the judge model's logits are not numbers");
    ra_verdict verdict = ra_judge_verdict((float)(yes - no), j->config.threshold);
    if (share < uncertain_share) j->counts.uncertain++;
    if (share < j->config.least_share) {
        j->counts.without_answer++;
        snprintf(j->problem, sizeof j->problem,
                 "yes and no have %.3g of the probability together; %g is the least (oracle.judge.least_share)", share,
                 j->config.least_share);
        cannot_tell(j, (int)item, verdict);
    } else {
        j->sink(j->context, (int)item, &verdict);
    }
    return RA_OK;
}

static ra_err load_model(judge *j)
{
    ra_arch arch;
    ra_part part;
    RA_TRY(ra_arch_of(j->file, &arch));
    ra_err err = ra_grid_share(&j->grid, &arch, &part);
    ra_arch_free(&arch);
    if (err == RA_OK) err = ra_model_open(j->b, j->file, RA_FROZEN, NULL, j->positions, &part, &j->m);
    return err == RA_OK ? RA_OK : ra_fail_in(err, "oracle.judge.model");
}

/* Collective over the pipeline. */
static ra_err load(judge *j)
{
    if (j->asker) return RA_OK;
    char what[160];
    ra_err err = ra_grid_agree(&j->grid, load_model(j));
    if (err != RA_OK) {
        ra_model_close(j->m);
        j->m = NULL;
        return err;
    }
    ra_arch_describe(&j->m->arch, what, sizeof what);
    ra_info("judge: %s; %s; template %s; the policy takes %d tokens, computed once", what, ra_backend_describe(j->b),
            ra_template_name(j->form.tpl), j->form.root_count);
    j->asker = ra_asker_new(j->m, &j->grid, j->config.pack_tokens, j->form.root, j->form.root_count, j->answer, j->n_answers,
                            answered, j);
    return RA_OK;
}

static ra_err judge_one(judge *j, const ra_oracle_item *item, int index, ra_judge_page *page)
{
    ra_err err = ra_judge_page_write(&j->form, item, page);
    j->counts.items++;
    j->counts.cut += err == RA_OK && page->cut;
    j->counts.spelled_apart += page->spelled_apart;
    if (err == RA_OK)
        return ra_asker_add(j->asker, index, page->rendered.ids.id, (int32_t)page->rendered.ids.count, page->branch);
    if (err != RA_ERR_DATA) return err;
    j->counts.too_long += page->too_long;
    snprintf(j->problem, sizeof j->problem, "%s", ra_error_message());
    cannot_tell(j, index, (ra_verdict){.rule = -1, .probability = 0.5f});
    return RA_OK;
}

/* What was run before an error is handed over too; the error stays. */
static ra_err end_round(judge *j, ra_err err)
{
    char *why = err == RA_OK ? NULL : ra_strdup(ra_error_message());
    ra_err late = ra_asker_end(j->asker);
    if (why) ra_fail(err, "%s", why);
    free(why);
    return err == RA_OK ? late : err;
}

static ra_err judge_all(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    judge *j = state;
    ra_judge_page page = {0};
    ra_grid_call(&j->grid, RA_CALL_ORACLE);
    RA_TRY(load(j));
    ra_err err = RA_OK;
    j->sink = sink;
    j->context = context;
    for (int i = 0; i < n && err == RA_OK; i++) {
        bool stop = j->config.stop && j->config.stop(j->config.stop_context);
        err = stop ? ra_fail(RA_ERR_STOPPED, "the judge was stopped") : judge_one(j, &items[i], i, &page);
    }
    if (err == RA_OK) err = ra_asker_flush(j->asker);
    err = end_round(j, err);
    ra_judge_page_free(&page);
    return err;
}

static ra_err follow(void *state)
{
    judge *j = state;
    RA_TRY(load(j));
    ra_asker_follow(j->asker);
    return RA_OK;
}

static const char *problem(const void *state)
{
    return ((const judge *)state)->problem;
}

const char *ra_judge_identity(const void *state)
{
    return ((const judge *)state)->identity;
}

const int32_t *ra_judge_answers(const void *state, int *n_yes, int *n)
{
    const judge *j = state;
    *n_yes = j->n_yes;
    *n = j->n_answers;
    return j->answer;
}

ra_judge_counts ra_judge_counted(const void *state)
{
    const judge *j = state;
    ra_judge_counts counts = j->counts;
    if (j->asker) {
        const ra_asking_counts *a = ra_asker_counts(j->asker);
        counts.tokens = a->tokens;
        counts.rows = a->rows;
        counts.seconds = a->seconds;
    }
    return counts;
}

ra_err ra_judge_open(const ra_judge_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state)
{
    static const ra_oracle_ops judge_ops = {.name = "judge",
                                            .judges_text = true,
                                            .costly = true,
                                            .batch = 128, /* several packs, so that the last, shorter one weighs little */
                                            .judge = judge_all,
                                            .problem = problem,
                                            .follow = follow,
                                            .close = close_judge};
    judge *j = ra_calloc(1, sizeof *j);
    j->config = *config;
    j->grid = config->grid ? *config->grid : ra_grid_alone();
    ra_err err = open_all(j, policy_text);
    if (err != RA_OK) {
        release(j);
        return err;
    }
    *ops = &judge_ops;
    *state = j;
    return RA_OK;
}
