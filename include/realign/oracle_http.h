/* The `http` kind of oracle: a model behind an OpenAI-compatible chat endpoint is asked whether a response complies with a policy in words. Not collective
 * throughout: each rank asks for its own items. */
#ifndef REALIGN_ORACLE_HTTP_H
#define REALIGN_ORACLE_HTTP_H
#include <realign/chat.h>
#include <realign/oracle.h>

typedef struct {
    ra_chat_config chat;
    int max_tokens;                    /* of an answer */
    int top_logprobs;                  /* 0: verdicts without probability */
    int reminders;                     /* how often an answer that is neither yes nor no is asked again */
    double price_prompt, price_answer; /* a million tokens, in any currency */
    double run_rate;                   /* as in `chat`, but of all ranks together: for the estimate */
    int64_t run_budget;
} ra_http_config;

/* Reads oracle.http.*; texts belong to `s`. Rate and budget are the whole run's: this rank takes its share. `stop` is left NULL. */
void ra_http_config_read(const ra_settings *s, int rank, int ranks, ra_http_config *out);

/* `policy_text`: the policy in words, as the model reads it. Verdicts have rule -1; probability and margin come from log-probabilities where they are asked for and the
 * server gives them, else probability is 0 or 1 and margin 0. Errors: as ra_chat_open; RA_ERR_ARG without a policy text.
 * The table's `announce` logs the estimate, and is RA_ERR_DATA where the budget cannot be enough.
 * The table's `judge` returns the errors of ra_chat_ask. */
ra_err ra_http_open(const ra_http_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state);
/* What a verdict depends on besides policy and item: address, model, form of the question, sampling; one line, without the key. Free with free.
 * For configurations that ra_http_open accepts: others may hold a password in the address. */
char *ra_http_identity(const ra_http_config *config);
const ra_chat_counts *ra_http_counted(const void *state);

/* Before asking: what `items` items with `bytes` bytes of conversations and responses in all will take, without retries. Tokens are guessed from bytes. */
typedef struct {
    int64_t requests;
    double prompt_tokens, answer_tokens; /* answers: the most, max_tokens each */
    double cost;                         /* 0 without prices */
    double seconds;                      /* at least, because of the rate; 0 without one */
    bool over_budget;
} ra_http_estimate;
void ra_http_estimate_work(const ra_http_config *config, const char *policy_text, int64_t items, int64_t bytes,
                           ra_http_estimate *out);
/* One line for the log; appended to `out`. */
void ra_http_estimate_text(const ra_http_estimate *estimate, ra_buf *out);

#endif
