#define _GNU_SOURCE /* strcasestr */
/* What an HTTP answer means. Servers agree on the good case and differ in how they say no; doc/endpoints.md lists the shapes. */
#include "chat_impl.h"
#include "jsontext.h"

#include <string.h>

enum { QUOTED = 300 };

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* ---- errors ---- */
typedef struct {
    const char *message, *code, *type;
    long status; /* as the body says, 0: it does not */
} complaint;

/* {"error": {"message", "type", "code"}}, {"error": "text", "error_type"}, {"object": "error", "message"}, {"detail": "text" or [{"msg"}]}, and choices[0].error. */
static bool find_complaint(const json_t *root, complaint *out)
{
    *out = (complaint){0};
    if (!json_is_object(root)) return false;
    const json_t *error = json_object_get(root, "error"), *detail = json_object_get(root, "detail");
    const char *object = text_of(root, "object");
    if (!error || json_is_null(error)) error = json_object_get(json_array_get(json_object_get(root, "choices"), 0), "error");
    if (json_is_object(error)) {
        out->message = text_of(error, "message");
    } else if (json_is_string(error)) {
        out->message = json_string_value(error);
        error = root;
    } else if (object && strcmp(object, "error") == 0) {
        out->message = text_of(root, "message");
        error = root;
    } else if (detail) {
        out->message = json_is_string(detail) ? json_string_value(detail) : text_of(json_array_get(detail, 0), "msg");
        error = root;
    } else {
        return false;
    }
    out->code = text_of(error, "code");
    out->type = text_of(error, "type");
    if (!out->type) out->type = text_of(root, "error_type");
    const json_t *number = json_object_get(error, "code");
    if (json_is_integer(number)) out->status = (long)json_integer_value(number);
    return true;
}

static bool says(const char *text, const char *word)
{
    return text && strcasestr(text, word);
}

/* The server's limits concern this conversation, not the others: it is too long for the model, or a filter took it. */
static bool is_about_content(long status, const complaint *c)
{
    if (status != 400 && status != 413 && status != 422 && status != 403) return false;
    static const char *const marks[] = {"content_filter",    "content_policy",         "ResponsibleAIPolicyViolation",
                                        "context_length",    "exceed_context_size",    "context length",
                                        "context size",      "context window",         "content management policy",
                                        "input is too long", "max_new_tokens` must be"};
    if (status == 413) return true;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (says(c->code, marks[i]) || says(c->type, marks[i]) || says(c->message, marks[i])) return true;
    }
    return false;
}

static bool is_worth_a_retry(long status)
{
    return status == 408 || status == 409 || status == 425 || status == 429 || status >= 500;
}

static void put_complaint(ra_buf *out, long status, const complaint *c, size_t n)
{
    ra_buf_addf(out, "HTTP %ld", status);
    if (c->message && *c->message) {
        ra_buf_adds(out, ": ");
        ra_text_quote(out, c->message, strlen(c->message), QUOTED);
        if (c->code && !says(c->message, c->code)) {
            ra_buf_adds(out, " (");
            ra_text_quote(out, c->code, strlen(c->code), 60);
            ra_buf_adds(out, ")");
        }
    } else {
        ra_buf_addf(out, " with %zu bytes that are no error message of a chat endpoint", n);
    }
}

static void read_refusal(long status, const json_t *root, size_t n, ra_chat_reply *out)
{
    complaint c;
    bool found = find_complaint(root, &c);
    put_complaint(&out->problem, status, &c, n);
    out->kind = RA_CHAT_FATAL;
    if (is_about_content(status, &c)) {
        out->kind = RA_CHAT_REFUSED;
    } else if (says(c.code, "insufficient_quota") || says(c.type, "insufficient_quota")) {
        ra_buf_adds(&out->problem, "; waiting does not help");
    } else if (is_worth_a_retry(status)) {
        out->kind = RA_CHAT_BUSY;
    } else if (status == 404 && !found) {
        ra_buf_adds(&out->problem, "; the url is what stands before /chat/completions, most often it ends in /v1");
    }
}

/* ---- the good case ---- */
/* A text, or a list of parts {"type": "text", "text"}; parts of other types (reasoning) are left out. */
static bool read_content(const json_t *content, ra_buf *out)
{
    if (json_is_string(content)) {
        ra_buf_add(out, json_string_value(content), json_string_length(content));
        return true;
    }
    if (!json_is_array(content)) return false;
    ra_buf_adds(out, "");
    size_t i;
    json_t *part;
    bool any = json_array_size(content) == 0;
    json_array_foreach(content, i, part)
    {
        const char *type = text_of(part, "type"), *text = text_of(part, "text");
        if (!type || strcmp(type, "text") != 0 || !text) continue;
        ra_buf_adds(out, text);
        any = true;
    }
    return any;
}

static int64_t count_of(const json_t *root, const char *key)
{
    const json_t *count = json_object_get(json_object_get(root, "usage"), key);
    return json_is_integer(count) && json_integer_value(count) >= 0 ? json_integer_value(count) : -1;
}

static void malformed(ra_chat_reply *out, const char *what)
{
    out->kind = RA_CHAT_MALFORMED;
    ra_buf_adds(&out->problem, what);
}

/* Content null: the model refused, or all its tokens went into reasoning. Both are answers: the caller asks again or gives up. */
static void read_empty(const json_t *message, ra_chat_reply *out)
{
    const char *refusal = text_of(message, "refusal");
    ra_buf_adds(&out->text, refusal ? refusal : "");
    out->kind = RA_CHAT_GOOD;
}

static void read_choice(const json_t *root, ra_chat_reply *out)
{
    const json_t *choices = json_object_get(root, "choices"), *choice = json_array_get(choices, 0),
                 *message = json_object_get(choice, "message");
    if (!json_is_array(choices)) {
        malformed(out, "an answer without \"choices\"");
    } else if (!json_is_object(choice)) {
        malformed(out, "an answer whose \"choices\" hold nothing");
    } else if (!json_is_object(message)) {
        malformed(out, "an answer without choices[0].message");
    } else {
        const json_t *content = json_object_get(message, "content");
        const char *reason = text_of(choice, "finish_reason");
        out->finish_reason = reason ? reason : "";
        out->logprobs = json_object_get(choice, "logprobs");
        if (json_is_null(out->logprobs)) out->logprobs = NULL;
        out->prompt_tokens = count_of(root, "prompt_tokens");
        out->answer_tokens = count_of(root, "completion_tokens");
        if (strcmp(out->finish_reason, "content_filter") == 0) {
            out->kind = RA_CHAT_REFUSED;
            ra_buf_adds(&out->problem, "the server's filter cut the answer (finish_reason: content_filter)");
        } else if (json_is_null(content)) {
            read_empty(message, out);
        } else if (read_content(content, &out->text)) {
            out->kind = RA_CHAT_GOOD;
        } else {
            malformed(out, "an answer whose choices[0].message.content is no text");
        }
    }
}

void ra_chat_read_reply(long status, const char *body, size_t n, ra_chat_reply *out)
{
    *out = (ra_chat_reply){.finish_reason = "", .prompt_tokens = -1, .answer_tokens = -1};
    json_error_t error;
    out->root = n ? json_loadb(body, n, 0, &error) : NULL;
    complaint c;
    if (status >= 300 && status < 400) {
        out->kind = RA_CHAT_FATAL;
        ra_buf_addf(&out->problem,
                    "HTTP %ld: the server sends requests elsewhere; redirects are not followed, so that the key stays where it "
                    "was meant to go: give the final address",
                    status);
    } else if (status < 200 || status >= 400) {
        read_refusal(status, out->root, n, out);
    } else if (!out->root) {
        malformed(out, "");
        ra_buf_addf(&out->problem, "an answer of %zu bytes that is no JSON", n);
    } else if (find_complaint(out->root, &c)) { /* some gateways say 200 before they know */
        bool known = c.status >= 400 && c.status < 600;
        put_complaint(&out->problem, known ? c.status : status, &c, n);
        out->kind = known && is_about_content(c.status, &c) ? RA_CHAT_REFUSED : RA_CHAT_MALFORMED;
    } else {
        read_choice(out->root, out);
    }
}

void ra_chat_reply_free(ra_chat_reply *reply)
{
    json_decref(reply->root);
    ra_buf_free(&reply->text);
    ra_buf_free(&reply->problem);
    *reply = (ra_chat_reply){0};
}
