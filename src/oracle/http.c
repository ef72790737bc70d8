/* The `http` kind: questions to a chat endpoint, its answers as verdicts. */
#include "http.h"
#include <realign/log.h>
#include <realign/oracle_http.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_A_TOKEN 4.0 /* English text and common vocabularies; other scripts take more tokens */

typedef struct {
    ra_http_config config; /* its texts are the chat's affair, not used after opening */
    ra_chat *chat;
    char *policy;
    ra_buf question, why;
    ra_message message;
    char problem[400];
} http;

/* One call of judge. */
typedef struct {
    http *h;
    const ra_oracle_item *items;
    ra_verdict_sink sink;
    void *context;
} judging;

static void make_question(void *context, int item, int unread, ra_chat_question *out)
{
    judging *j = context;
    http *h = j->h;
    ra_buf_clear(&h->question);
    ra_http_write_question(h->policy, &j->items[item], unread > 0, &h->question);
    h->message = (ra_message){"user", h->question.data}; /* no system turn: some templates refuse it */
    out->messages = &h->message;
    out->n_messages = 1;
    out->temperature = 0;
    out->max_tokens = h->config.max_tokens;
    out->top_logprobs = h->config.top_logprobs;
}

static bool take_answer(void *context, int item, const ra_chat_answer *answer, const char **why)
{
    judging *j = context;
    http *h = j->h;
    ra_verdict verdict = {.compliant = -1, .rule = -1};
    if (answer->text) {
        int value = ra_http_read_answer(answer->text, answer->finish_reason, why);
        if (value < 0) return false;
        double probability, margin;
        verdict.compliant = (int8_t)value;
        verdict.probability = (float)value;
        if (answer->logprobs && ra_http_read_logprobs(answer->logprobs, value, &probability, &margin)) {
            verdict.probability = (float)probability;
            verdict.margin = (float)margin;
        }
    } else {
        snprintf(h->problem, sizeof h->problem, "%s: %s", h->config.chat.name, answer->problem);
    }
    j->sink(j->context, item, &verdict);
    return true;
}

static ra_err judge(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    http *h = state;
    judging j = {h, items, sink, context};
    const ra_chat_job job = {make_question, take_answer, &j, h->config.reminders};
    return ra_chat_ask(h->chat, n, &job);
}

static const char *problem(const void *state)
{
    return ((const http *)state)->problem;
}

static void close_http(void *state)
{
    http *h = state;
    if (!h) return;
    ra_chat_close(h->chat);
    ra_buf_free(&h->question);
    free((char *)h->config.chat.name);
    free(h->policy);
    ra_free(h);
}

static ra_err announce(void *state, int64_t questions, int64_t bytes)
{
    const http *h = state;
    ra_http_estimate estimate;
    ra_http_estimate_work(&h->config, h->policy, questions, bytes, &estimate);
    ra_buf text = {0};
    ra_http_estimate_text(&estimate, &text);
    ra_info("%s: %s", h->config.chat.name, text.data);
    ra_buf_free(&text);
    if (!estimate.over_budget) return RA_OK;
    return ra_fail(RA_ERR_DATA, "%s.budget: %lld requests are not enough for %lld questions, which take one each at least",
                   h->config.chat.name, (long long)h->config.run_budget, (long long)questions);
}

static const ra_oracle_ops http_ops = {.name = "http",
                                       .judges_text = true,
                                       .costly = true,
                                       .batch = 1024,
                                       .judge = judge,
                                       .problem = problem,
                                       .close = close_http,
                                       .announce = announce};

ra_err ra_http_open(const ra_http_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state)
{
    *state = NULL;
    *ops = &http_ops;
    if (!policy_text || !policy_text[strspn(policy_text, " \t\r\n")])
        return ra_fail(RA_ERR_ARG, "the http oracle needs the policy in words, and the policy file gives none (doc/policies.md)");
    if (config->max_tokens < 1)
        return ra_fail(RA_ERR_ARG, "%s.max_tokens: %d; give 1 or more", config->chat.name, config->max_tokens);
    ra_chat *chat;
    RA_TRY(ra_chat_open(&config->chat, &chat));
    http *h = ra_calloc(1, sizeof *h);
    h->config = *config;
    h->config.chat = (ra_chat_config){.name = ra_strdup(config->chat.name)};
    h->chat = chat;
    h->policy = ra_strdup(policy_text);
    *state = h;
    return RA_OK;
}

const ra_chat_counts *ra_http_counted(const void *state)
{
    return ra_chat_counted(((const http *)state)->chat);
}

char *ra_http_identity(const ra_http_config *config)
{
    const ra_chat_config *c = &config->chat;
    return ra_format("http form=%d url=%s model=%s sampling=%s max_tokens=%d logprobs=%d reminders=%d extra=%s",
                     RA_HTTP_QUESTION_FORM, c->url ? c->url : "", c->model ? c->model : "", c->own_sampling ? "own" : "greedy",
                     config->max_tokens, config->top_logprobs, config->reminders, c->extra ? c->extra : "");
}

/* ---- the estimate ---- */
void ra_http_estimate_work(const ra_http_config *config, const char *policy_text, int64_t items, int64_t bytes,
                           ra_http_estimate *out)
{
    double fixed = (double)ra_http_question_overhead(policy_text);
    out->requests = items;
    out->prompt_tokens = ((double)items * fixed + (double)bytes) / BYTES_A_TOKEN;
    out->answer_tokens = (double)items * config->max_tokens;
    out->cost = (out->prompt_tokens * config->price_prompt + out->answer_tokens * config->price_answer) / 1e6;
    out->seconds = config->run_rate > 0 ? (double)items / config->run_rate : 0;
    out->over_budget = config->run_budget > 0 && items > config->run_budget;
}

void ra_http_estimate_text(const ra_http_estimate *e, ra_buf *out)
{
    ra_buf_addf(out, "%lld requests, about %.3g prompt tokens, at most %.3g answer tokens", (long long)e->requests,
                e->prompt_tokens, e->answer_tokens);
    if (e->cost > 0) ra_buf_addf(out, ", about %.2f at the given prices", e->cost);
    if (e->seconds > 0) ra_buf_addf(out, ", at least %.0f s at the given rate", e->seconds);
}
