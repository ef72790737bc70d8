/* A client of OpenAI-compatible chat endpoints: POST {url}/chat/completions, many at a time, through libcurl's multi interface. It sends conversations and hands
 * the answers' texts to a callback; it retries what is worth it, keeps to a rate and a budget, and stops when asked to. Oracles ask it for verdicts,
 * corrections for texts. Not collective throughout; one thread at a time for each ra_chat. */
#ifndef REALIGN_CHAT_H
#define REALIGN_CHAT_H
#include <realign/error.h>
#include <realign/mem.h>
#include <realign/tokenizer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_chat ra_chat;

/* Texts are copied by ra_chat_open; NULL and "" mean the same. */
typedef struct {
    const char *name;            /* group of settings that messages name: "oracle.http" */
    const char *url;             /* https://host/v1; without credentials, query or fragment */
    const char *model;           /* as the server calls it */
    const char *key_env;         /* the environment variable that holds the key; "": no key is sent */
    const char *ca_file;         /* certificates to trust in place of the system's; TLS is always verified */
    const char *extra;           /* a JSON object: further members of every request */
    bool plain_http;             /* allows http:// to other hosts than this one: key and texts travel in clear */
    bool newer_limit;            /* send max_completion_tokens in place of max_tokens */
    bool own_sampling;           /* leave temperature to the server */
    int concurrency;             /* requests in flight */
    double rate;                 /* requests a second at most; 0: no limit */
    double timeout_s;            /* of one request, connection and answer together */
    int retries;                 /* of one conversation, after its first request */
    double backoff_s;            /* before the first retry; doubles with each further one */
    double wait_limit_s;         /* the longest single wait; a server that asks for more ends the work */
    int64_t budget;              /* requests over the client's life, retries among them; 0: no limit */
    int64_t answer_limit;        /* bytes of one HTTP answer */
    uint64_t seed;               /* of the jitter */
    bool (*stop)(void *context); /* asked several times a second; true: abandon everything at once. May be NULL */
    void *stop_context;
} ra_chat_config;

typedef struct {
    const ra_message *messages;
    int n_messages;
    double temperature;
    int max_tokens;
    int64_t seed;     /* -1: none is sent; not every server knows it */
    int top_logprobs; /* alternatives a token to report; 0: no log-probabilities are asked for */
} ra_chat_question;

/* Valid during the callback. */
typedef struct {
    const char *text;          /* NULL: given up, `problem` says why */
    const char *finish_reason; /* "stop", "length" ...; "" where the server does not say */
    const json_t *logprobs;    /* choices[0].logprobs as it came, or NULL */
    const char *problem;       /* with text NULL; never holds the key */
} ra_chat_answer;

typedef struct {
    /* Makes the conversation of `item`; what it points to must live until the next call. `unread`: so many answers to it could not be used. */
    void (*question)(void *context, int item, int unread, ra_chat_question *out);
    /* Called once an item with an answer that is taken (return true) or with text NULL. Returns false where the answer cannot be used, *why saying so
     * (owned by the callee, until its next call): the item is asked again, `unread_limit` times at most, then given up. */
    bool (*answer)(void *context, int item, const ra_chat_answer *answer, const char **why);
    void *context;
    int unread_limit;
} ra_chat_job;

typedef struct {
    int64_t requests;                     /* sent, retries among them */
    int64_t taken, given_up;              /* conversations */
    int64_t busy;                         /* retries after 408, 409, 425, 429 and 5xx */
    int64_t lost;                         /* after timeouts and broken connections */
    int64_t malformed;                    /* after answers that are no JSON, of another shape, or too long */
    int64_t unread;                       /* answers that the callback could not use */
    int64_t prompt_tokens, answer_tokens; /* as far as the server reports its use */
} ra_chat_counts;

/* RA_ERR_ARG names the setting that is wrong, or the environment variable that is not set; never its value. */
ra_err ra_chat_open(const ra_chat_config *config, ra_chat **out);
/* Asks items 0 .. n-1 and returns when each has been answered or given up. An item is given up when its retries are used up though the server answers others, when
 * the server refuses it for what it holds (too long, filtered), or when its answers cannot be used.
 * RA_ERR_IO: the server does not answer at all; RA_ERR_ARG: it refuses (key, model, request), with its message; RA_ERR_DATA: the budget is spent;
 * RA_ERR_STOPPED: `stop` said so. What was answered before an error was handed over; with a spent budget, so is all that was in flight. */
ra_err ra_chat_ask(ra_chat *chat, int n, const ra_chat_job *job);
const ra_chat_counts *ra_chat_counted(const ra_chat *chat);
/* "812 requests, 3 retries (2 busy, 1 lost), ..."; appended to `out`. */
void ra_chat_counts_text(const ra_chat_counts *counts, ra_buf *out);
void ra_chat_close(ra_chat *chat);

#endif
