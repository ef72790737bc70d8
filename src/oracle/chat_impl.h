/* What the files of the chat client share. */
#ifndef RA_ORACLE_CHAT_IMPL_H
#define RA_ORACLE_CHAT_IMPL_H
#include "retry.h"
#include <realign/chat.h>
#include <curl/curl.h>

/* ---- the key, and what may be said (chat_secret.c) ---- */
typedef struct {
    char *key; /* NULL: none */
    struct curl_slist *headers;
} ra_chat_secret;
/* Reads the key from the environment and makes the headers of every request. */
ra_err ra_chat_secret_load(ra_chat_secret *secret, const ra_chat_config *config);
void ra_chat_secret_free(ra_chat_secret *secret);
/* Overwrites every occurrence of the key in a text that is about to be shown. */
void ra_chat_secret_hide(const ra_chat_secret *secret, char *text);
/* Checks the address: scheme, no credentials, plain http only where it is allowed. *local: the host is this one. Appends "{url}/chat/completions". */
ra_err ra_chat_check_url(const ra_chat_config *config, bool *local, ra_buf *address);

/* ---- one request (chat_request.c) ---- */
/* `extra`, `config`: as checked by ra_chat_open. Appends the JSON body. */
void ra_chat_write_request(const ra_chat_config *config, const json_t *extra, const ra_chat_question *question, ra_buf *body);
/* Parses and checks config->extra; *out NULL where there is none. */
ra_err ra_chat_read_extra(const ra_chat_config *config, json_t **out);

/* ---- one answer (chat_answer.c) ---- */
typedef enum {
    RA_CHAT_GOOD,      /* a text */
    RA_CHAT_BUSY,      /* come again */
    RA_CHAT_MALFORMED, /* come again: this was no answer */
    RA_CHAT_REFUSED,   /* this conversation alone cannot be answered */
    RA_CHAT_FATAL      /* nothing will be answered as things are */
} ra_chat_kind;

typedef struct {
    ra_chat_kind kind;
    json_t *root; /* what `text`, `finish_reason` and `logprobs` point into; or NULL */
    ra_buf text;
    const char *finish_reason;
    const json_t *logprobs;
    int64_t prompt_tokens, answer_tokens; /* -1: not reported */
    ra_buf problem; /* of all kinds but GOOD; the server's words are quoted, a body that is not understood is not */
} ra_chat_reply;

/* `status`: of HTTP. `body`: n bytes. Fills a reply that is all zero or was freed. */
void ra_chat_read_reply(long status, const char *body, size_t n, ra_chat_reply *out);
void ra_chat_reply_free(ra_chat_reply *reply);

#endif
