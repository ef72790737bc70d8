/* Many conversations at once over one libcurl multi handle. A turn is one conversation under way: in flight, or waiting for its next attempt. */
#include "chat_impl.h"
#include <realign/log.h>
#include <realign/timer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WAITING_PER_SLOT =
        4,        /* conversations under way for each request in flight: failures must not send the whole work into the wait */
    POLL_MS = 50, /* how often `stop` is asked */
    NEWS_S = 30,  /* seconds between two lines about retries */
    SHORT_PROMPT = 12 /* bytes a reported token above which a prompt was probably cut: real texts have 2 to 6 */
};
#define DRAIN_S 10.0 /* how long answers in flight are waited for once nothing more will be sent */

typedef struct {
    CURL *easy;
    char error[CURL_ERROR_SIZE];
    int item; /* -1: free */
    int tries, unread;
    bool in_flight, too_long;
    double due_s, first_s; /* ra_now: not before; when it was first sent */
    double retry_after_s;  /* what the server asked for; 0 without */
    ra_buf body, reply;
    int64_t limit; /* bytes of `reply` */
} turn;

struct ra_chat {
    ra_chat_config config; /* its texts are owned */
    json_t *extra;
    ra_chat_secret secret;
    ra_buf address;
    CURLM *multi;
    turn *turns;
    int n_turns;
    ra_rng rng;
    ra_chat_counts counts;
    double next_send_s, pause_s; /* ra_now: rate; all wait until then because the server asked */
    double last_answer_s, last_news_s;
    bool cut_told;
};

/* One call of ra_chat_ask. */
typedef struct {
    ra_chat *chat;
    const ra_chat_job *job;
    int n, next; /* items: all, the first one that was not begun */
    int in_flight, waiting;
    ra_err err;     /* not RA_OK: nothing more is sent */
    ra_buf message; /* of `err` */
    double ended_s; /* when `err` was set */
} ask;

/* ---- libcurl's callbacks ---- */
static size_t take_bytes(char *bytes, size_t size, size_t n, void *context)
{
    turn *t = context;
    if (t->reply.length + size * n > (size_t)t->limit) {
        t->too_long = true;
        return 0;
    }
    ra_buf_add(&t->reply, bytes, size * n);
    return size * n;
}

/* "Retry-After: 1.5", "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", "retry-after-ms: 300" */
static size_t take_header(char *bytes, size_t size, size_t n, void *context)
{
    turn *t = context;
    size_t length = size * n;
    char line[200];
    if (length == 0 || length >= sizeof line) return length;
    memcpy(line, bytes, length);
    line[length] = '\0';
    char *value = strchr(line, ':'), *end;
    if (!value) return length;
    *value++ = '\0';
    bool ms = strcasecmp(line, "retry-after-ms") == 0;
    if (!ms && strcasecmp(line, "retry-after") != 0) return length;
    double seconds = strtod(value, &end);
    if (end == value) {
        time_t when = curl_getdate(value, NULL);
        seconds = when < 0 ? 0 : difftime(when, time(NULL));
    }
    if (ms) seconds /= 1000.0;
    if (seconds > t->retry_after_s) t->retry_after_s = seconds;
    return length;
}

/* ---- open and close ---- */
static char *copy(const char *text)
{
    return ra_strdup(text ? text : "");
}

static ra_err check_config(const ra_chat_config *c)
{
    if (!c->model || !*c->model)
        return ra_fail(RA_ERR_ARG, "%s.model is not given; give the model's name as the server knows it", c->name);
    if (c->concurrency < 1 || c->concurrency > 1024)
        return ra_fail(RA_ERR_ARG, "%s.concurrency: %d; give 1 to 1024 requests in flight", c->name, c->concurrency);
    if (c->ca_file && *c->ca_file) {
        FILE *file = fopen(c->ca_file, "r");
        if (!file) return ra_fail(RA_ERR_IO, "%s.ca_file: %s cannot be read", c->name, c->ca_file);
        fclose(file);
    }
    return RA_OK;
}

static void copy_config(ra_chat *chat, const ra_chat_config *from)
{
    ra_chat_config *c = &chat->config;
    *c = *from;
    c->name = copy(from->name);
    c->url = copy(from->url);
    c->model = copy(from->model);
    c->key_env = copy(from->key_env);
    c->ca_file = copy(from->ca_file);
    c->extra = NULL; /* parsed */
}

static void set_options(const ra_chat *chat, turn *t, bool local)
{
    const ra_chat_config *c = &chat->config;
    CURL *e = t->easy;
    curl_easy_setopt(e, CURLOPT_URL, chat->address.data);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(e, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, chat->secret.headers);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1); /* a broken connection then costs one request, not all */
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)(c->timeout_s * 1000.0));
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L);
    if (*c->ca_file) {
        curl_easy_setopt(e, CURLOPT_CAINFO, c->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
    }
    if (local) curl_easy_setopt(e, CURLOPT_PROXY, ""); /* a proxy would carry the key off this host in clear */
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* a name look-up that hangs must not hold up a stop */
#endif
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_PRIVATE, t);
}

ra_err ra_chat_open(const ra_chat_config *config, ra_chat **out)
{
    *out = NULL;
    RA_TRY(check_config(config));
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return ra_fail(RA_ERR_IO, "libcurl does not start");
    ra_chat *chat = ra_calloc(1, sizeof *chat);
    copy_config(chat, config);
    bool local = false;
    ra_err err = ra_chat_check_url(&chat->config, &local, &chat->address);
    if (err == RA_OK) err = ra_chat_read_extra(config, &chat->extra);
    if (err == RA_OK) err = ra_chat_secret_load(&chat->secret, &chat->config);
    if (err != RA_OK) {
        ra_chat_close(chat);
        return err;
    }
    chat->rng = ra_rng_make(config->seed, RA_STREAM_RETRY);
    chat->multi = curl_multi_init();
    curl_multi_setopt(chat->multi, CURLMOPT_MAXCONNECTS, (long)config->concurrency);
    chat->n_turns = WAITING_PER_SLOT * config->concurrency;
    chat->turns = ra_calloc((size_t)chat->n_turns, sizeof *chat->turns);
    for (int i = 0; i < chat->n_turns; i++) {
        turn *t = &chat->turns[i];
        t->item = -1;
        t->limit = config->answer_limit;
        t->easy = curl_easy_init();
        if (!chat->multi || !t->easy) {
            ra_chat_close(chat);
            return ra_fail(RA_ERR_IO, "libcurl gives no handle");
        }
        set_options(chat, t, local);
    }
    *out = chat;
    return RA_OK;
}

void ra_chat_close(ra_chat *chat)
{
    if (!chat) return;
    for (int i = 0; i < chat->n_turns; i++) {
        curl_easy_cleanup(chat->turns[i].easy);
        ra_buf_free(&chat->turns[i].body);
        ra_buf_free(&chat->turns[i].reply);
    }
    ra_free(chat->turns);
    if (chat->multi) curl_multi_cleanup(chat->multi);
    ra_chat_secret_free(&chat->secret);
    ra_buf_free(&chat->address);
    json_decref(chat->extra);
    free((char *)chat->config.name);
    free((char *)chat->config.url);
    free((char *)chat->config.model);
    free((char *)chat->config.key_env);
    free((char *)chat->config.ca_file);
    ra_free(chat);
    curl_global_cleanup();
}

/* ---- ends of a turn ---- */
static void end_all(ask *a, ra_err err, const char *text)
{
    if (a->err != RA_OK) return; /* the first reason stands */
    a->err = err;
    a->ended_s = ra_now();
    ra_buf_adds(&a->message, text);
    ra_chat_secret_hide(&a->chat->secret, a->message.data);
}

static void give_up(ask *a, turn *t, char *problem)
{
    ra_chat_secret_hide(&a->chat->secret, problem);
    const ra_chat_answer none = {.finish_reason = "", .problem = problem};
    const char *why;
    a->job->answer(a->job->context, t->item, &none, &why);
    a->chat->counts.given_up++;
    t->item = -1;
}

static void tell_retries(ask *a, const char *problem)
{
    ra_chat *chat = a->chat;
    double now = ra_now();
    if (now - chat->last_news_s < NEWS_S) return;
    chat->last_news_s = now;
    char *shown = ra_strdup(problem);
    ra_chat_secret_hide(&chat->secret, shown);
    ra_buf counts = {0};
    ra_chat_counts_text(&chat->counts, &counts);
    ra_info("%s: asking again after: %s (so far %s)", chat->config.name, shown, counts.data);
    ra_buf_free(&counts);
    free(shown);
}

/* The turn waits for its next attempt, or is given up, or everything is. */
static void try_again(ask *a, turn *t, const char *problem, double wait_s)
{
    ra_chat *chat = a->chat;
    const ra_chat_config *c = &chat->config;
    double now = ra_now(), delay = ra_retry_delay(&chat->rng, t->tries, c->backoff_s, c->wait_limit_s);
    char *text = NULL;
    if (wait_s > c->wait_limit_s) {
        text = ra_format("%s: the server asks to wait %.0f s, longer than %s.wait_limit (%g s): %s", c->name, wait_s, c->name,
                         c->wait_limit_s, problem);
        end_all(a, RA_ERR_IO, text);
    } else if (t->tries > c->retries && chat->last_answer_s >= t->first_s) {
        text = ra_format("%d attempts failed, the last one with: %s", t->tries, problem);
        give_up(a, t, text);
    } else if (t->tries > c->retries) {
        text = ra_format("%s: %s answers nothing; %d attempts failed, the last one with: %s", c->name, c->url, t->tries, problem);
        end_all(a, RA_ERR_IO, text);
    } else {
        t->due_s = now + (delay > wait_s ? delay : wait_s);
        if (wait_s > 0 && now + wait_s > chat->pause_s)
            chat->pause_s = now + wait_s; /* limits are the account's, not the request's */
        a->waiting++;
        tell_retries(a, problem);
    }
    free(text);
}

/* A server that cuts prompts in silence judges by half a policy. */
static void check_prompt(ra_chat *chat, const turn *t, int64_t tokens)
{
    if (tokens <= 0 || chat->cut_told || (int64_t)t->body.length < SHORT_PROMPT * (tokens + 32 /* the request's own JSON */))
        return;
    chat->cut_told = true;
    ra_warn("%s: the server counts %lld tokens in a request of %zu bytes; if it cut the prompt (context too short), the answers "
            "are about a part of it: raise the "
            "server's context length",
            chat->config.name, (long long)tokens, t->body.length);
}

static void hand_over(ask *a, turn *t, const ra_chat_reply *reply)
{
    ra_chat *chat = a->chat;
    chat->last_answer_s = ra_now();
    if (reply->prompt_tokens > 0) chat->counts.prompt_tokens += reply->prompt_tokens;
    if (reply->answer_tokens > 0) chat->counts.answer_tokens += reply->answer_tokens;
    check_prompt(chat, t, reply->prompt_tokens);
    const ra_chat_answer answer = {reply->text.data, reply->finish_reason, reply->logprobs, NULL};
    const char *why = NULL;
    if (a->job->answer(a->job->context, t->item, &answer, &why)) {
        chat->counts.taken++;
        t->item = -1;
        return;
    }
    chat->counts.unread++;
    if (++t->unread > a->job->unread_limit) {
        char *text = ra_format("%d answers could not be used, the last one: %s", t->unread, why ? why : "");
        give_up(a, t, text);
        free(text);
        return;
    }
    t->tries = 0;
    t->due_s = 0;
    a->waiting++;
}

static bool is_hopeless(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_CERTPROBLEM ||
           code == CURLE_SSL_CIPHER || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT ||
           code == CURLE_SSL_ISSUER_ERROR;
}

static void finish_transfer(ask *a, turn *t, CURLcode code)
{
    ra_chat *chat = a->chat;
    const char *name = chat->config.name;
    t->in_flight = false;
    a->in_flight--;
    if (code != CURLE_OK) {
        const char *said = *t->error ? t->error : curl_easy_strerror(code);
        char *text;
        if (is_hopeless(code)) {
            bool trust = code == CURLE_PEER_FAILED_VERIFICATION;
            text = ra_format("%s: %s: %s%s%s%s", name, chat->config.url, said, trust ? " (a certificate of your own: " : "",
                             trust ? name : "", trust ? ".ca_file)" : "");
            end_all(a, RA_ERR_IO, text);
        } else if (t->too_long) {
            chat->counts.malformed++;
            text = ra_format("an answer of more than %lld bytes", (long long)t->limit);
            try_again(a, t, text, 0);
        } else {
            chat->counts.lost++;
            text = ra_strdup(said);
            try_again(a, t, text, 0);
        }
        free(text);
        return;
    }
    long status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    ra_chat_reply reply;
    ra_chat_read_reply(status, t->reply.data, t->reply.length, &reply);
    switch (reply.kind) {
    case RA_CHAT_GOOD: hand_over(a, t, &reply); break;
    case RA_CHAT_BUSY:
        chat->counts.busy++;
        try_again(a, t, reply.problem.data, t->retry_after_s);
        break;
    case RA_CHAT_MALFORMED:
        chat->counts.malformed++;
        try_again(a, t, reply.problem.data, 0);
        break;
    case RA_CHAT_REFUSED:
        chat->last_answer_s = ra_now();
        give_up(a, t, reply.problem.data);
        break;
    case RA_CHAT_FATAL: {
        char *text = ra_format("%s: %s: %s", name, chat->config.url, reply.problem.data);
        end_all(a, RA_ERR_ARG, text);
        free(text);
        break;
    }
    }
    ra_chat_reply_free(&reply);
}

/* ---- the loop ---- */
static void send_turn(ask *a, turn *t, double now)
{
    ra_chat *chat = a->chat;
    ra_chat_question question = {.seed = -1};
    a->job->question(a->job->context, t->item, t->unread, &question);
    ra_buf_clear(&t->body);
    ra_buf_clear(&t->reply);
    ra_chat_write_request(&chat->config, chat->extra, &question, &t->body);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body.length);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->body.data);
    *t->error = '\0';
    t->too_long = false;
    t->retry_after_s = 0;
    if (t->tries++ == 0) t->first_s = now;
    t->in_flight = true;
    a->in_flight++;
    chat->counts.requests++;
    if (chat->config.rate > 0) chat->next_send_s = (now > chat->next_send_s ? now : chat->next_send_s) + 1.0 / chat->config.rate;
    curl_multi_add_handle(chat->multi, t->easy);
}

/* The turn that may be sent: the one that has been due longest, else a new item. *next_s: when to look again, where there is none yet. */
static turn *pick_turn(ask *a, double now, double *next_s)
{
    turn *best = NULL, *unused = NULL;
    for (int i = 0; i < a->chat->n_turns; i++) {
        turn *t = &a->chat->turns[i];
        if (t->item < 0) {
            if (!unused) unused = t;
        } else if (!t->in_flight && (!best || t->due_s < best->due_s)) {
            best = t;
        }
    }
    if (best && best->due_s <= now) {
        a->waiting--;
        return best;
    }
    if (unused && a->next < a->n) {
        unused->item = a->next++;
        unused->tries = unused->unread = 0;
        return unused;
    }
    if (best && best->due_s < *next_s) *next_s = best->due_s;
    return NULL;
}

static bool has_unsent(const ask *a)
{
    return a->waiting > 0 || a->next < a->n;
}

static void send_due(ask *a, double *next_s)
{
    ra_chat *chat = a->chat;
    while (a->err == RA_OK && a->in_flight < chat->config.concurrency && has_unsent(a)) {
        double now = ra_now(), gate = chat->pause_s > chat->next_send_s ? chat->pause_s : chat->next_send_s;
        if (gate > now) {
            if (gate < *next_s) *next_s = gate;
            return;
        }
        if (chat->config.budget > 0 && chat->counts.requests >= chat->config.budget) {
            char *text = ra_format("%s: the budget of %lld requests is spent; raise %s.budget and start again", chat->config.name,
                                   (long long)chat->config.budget, chat->config.name);
            end_all(a, RA_ERR_DATA, text);
            free(text);
            return;
        }
        turn *t = pick_turn(a, now, next_s);
        if (!t) return;
        send_turn(a, t, now);
    }
}

static int take_finished(ask *a)
{
    int left, n = 0;
    for (CURLMsg *m = curl_multi_info_read(a->chat->multi, &left); m; m = curl_multi_info_read(a->chat->multi, &left)) {
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode code = m->data.result;
        CURL *easy = m->easy_handle;
        turn *t;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
        curl_multi_remove_handle(a->chat->multi, easy);
        finish_transfer(a, t, code);
        n++;
    }
    return n;
}

static void run(ask *a)
{
    ra_chat *chat = a->chat;
    for (;;) {
        if (chat->config.stop && chat->config.stop(chat->config.stop_context)) {
            a->err = RA_OK; /* a stop goes before what ended the work */
            ra_buf_clear(&a->message);
            end_all(a, RA_ERR_STOPPED, "asked to stop");
            return;
        }
        double now = ra_now(), next_s = now + POLL_MS / 1000.0;
        send_due(a, &next_s);
        if (a->in_flight == 0 && (a->err != RA_OK || !has_unsent(a))) return;
        if (a->err != RA_OK && now - a->ended_s > DRAIN_S) return;
        int running;
        CURLMcode bad = curl_multi_perform(chat->multi, &running);
        if (take_finished(a) > 0) continue; /* there is room to send */
        if (bad == CURLM_OK) bad = curl_multi_poll(chat->multi, NULL, 0, (int)((next_s - now) * 1000.0) + 1, NULL);
        if (bad != CURLM_OK) {
            end_all(a, RA_ERR_IO, curl_multi_strerror(bad));
            return;
        }
    }
}

ra_err ra_chat_ask(ra_chat *chat, int n, const ra_chat_job *job)
{
    ask a = {.chat = chat, .job = job, .n = n};
    ra_sigpipe hold;
    ra_sigpipe_hold(&hold);
    run(&a);
    for (int i = 0; i < chat->n_turns; i++) {
        turn *t = &chat->turns[i];
        if (t->in_flight) curl_multi_remove_handle(chat->multi, t->easy);
        t->in_flight = false;
        t->item = -1;
    }
    ra_sigpipe_release(&hold);
    ra_err err = a.err == RA_OK ? RA_OK : ra_fail(a.err, "%s", a.message.data);
    ra_buf_free(&a.message);
    return err;
}

/* ---- counts ---- */
const ra_chat_counts *ra_chat_counted(const ra_chat *chat)
{
    return &chat->counts;
}

void ra_chat_counts_text(const ra_chat_counts *c, ra_buf *out)
{
    ra_buf_addf(out, "%lld requests, %lld answers", (long long)c->requests, (long long)c->taken);
    if (c->busy + c->lost + c->malformed)
        ra_buf_addf(out, ", %lld retries (server busy or failing %lld, connection lost or too slow %lld, malformed %lld)",
                    (long long)(c->busy + c->lost + c->malformed), (long long)c->busy, (long long)c->lost,
                    (long long)c->malformed);
    if (c->unread) ra_buf_addf(out, ", %lld unusable answers", (long long)c->unread);
    if (c->given_up) ra_buf_addf(out, ", %lld given up", (long long)c->given_up);
    if (c->prompt_tokens) ra_buf_addf(out, ", %lld + %lld tokens", (long long)c->prompt_tokens, (long long)c->answer_tokens);
}
