/* The `exec` kind: which copy of the program holds which items, and what happens when one dies, hangs or talks nonsense.
 *
 * Whoever kills a copy takes the other items in its window along. All of them are asked again alone, one at a time, so that the culprit is found and the others lose nothing but
 * time. Only a death of a fresh copy that held one item alone counts against that item: any other may have been somebody else's doing. Those others are finite: each cost a
 * window, or came after a verdict. */
#include "exec_impl.h"
#include "jsontext.h"
#include "retry.h"
#include <realign/log.h>
#include <realign/timer.h>

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_MS = 50, WORDS_SHOWN = 200 /* lines of standard error that are passed on */, WORD_BYTES = 500 };
#define FIRST_DELAY_S 0.1 /* before a restart; doubles with each start in a row that gave no answer */
#define MOST_DELAY_S 10.0
#define OUTPUT_ENDED_S 0.5 /* a program that has closed its output may take so long to exit */
#define CLOSE_S 1.0        /* after the end of input, and again after SIGTERM */

typedef enum { TOLD_GARBAGE, TOLD_UNKNOWN, TOLD_REPEATED, TOLD_SENSELESS, TOLD_KINDS } told_kind;

typedef struct {
    ra_exec_config config; /* name and argv are owned */
    char *policy;
    ra_exec_worker *workers;
    ra_rng rng;
    ra_exec_counts counts;
    ra_exec_answer answer;  /* the last line that was read */
    int64_t base;           /* id of item 0 of this call */
    double slowest_start_s; /* the longest time from a start to the first answer; 0: none yet */
    int barren;             /* deaths in a row, of all copies, without a verdict in between */
    int words_shown;
    bool told[TOLD_KINDS];
    bool stopping;
    char problem[400];
} exec;

/* One call of judge. */
typedef struct {
    exec *x;
    const ra_oracle_item *items;
    int n, next; /* items; the first that was not yet given out */
    int open;    /* items without a verdict */
    int *again;  /* to be asked again, alone: a ring of n places, each item in it once at most */
    int n_again, first_again;
    uint8_t *attempts; /* by item; DONE when it has its verdict */
    ra_verdict_sink sink;
    void *context;
} judging;
enum { DONE = 255 };

/* ---- verdicts ---- */
static void settle(judging *j, int item, const ra_verdict *verdict)
{
    exec *x = j->x;
    j->attempts[item] = DONE;
    j->open--;
    if (verdict->compliant < 0) {
        x->counts.undecided++;
    } else {
        x->counts.judged++;
        x->barren = 0;
    }
    j->sink(j->context, item, verdict);
}

static void ask_again(judging *j, int item, bool counts, const char *why)
{
    exec *x = j->x;
    if (counts) j->attempts[item]++;
    if (j->attempts[item] < x->config.attempts) {
        j->again[(j->first_again + j->n_again++) % j->n] = item;
        x->counts.asked_again++;
        return;
    }
    static const ra_verdict none = {.compliant = -1, .rule = -1};
    snprintf(x->problem, sizeof x->problem, "%s: %d attempts, the last one: %.300s", x->config.name, j->attempts[item], why);
    settle(j, item, &none);
}

static void tell_once(exec *x, told_kind kind, const ra_exec_worker *w, const char *what)
{
    if (x->told[kind]) return;
    x->told[kind] = true;
    ra_warn("%s: copy %d of %s: %s; more of this kind is counted only", x->config.name, w->number, x->config.argv[0], what);
}

static int find_held(const ra_exec_worker *w, int64_t item)
{
    for (int i = 0; i < w->n_held; i++) {
        if (w->held[i].item == item) return i;
    }
    return -1;
}

static void release(ra_exec_worker *w, int slot)
{
    memmove(&w->held[slot], &w->held[slot + 1], (size_t)(w->n_held - slot - 1) * sizeof *w->held);
    w->n_held--;
}

/* An answer about an item this copy does not hold. */
static void count_stray(judging *j, const ra_exec_worker *w, int64_t id)
{
    exec *x = j->x;
    bool past = id >= 0 && id < x->base, done = id >= x->base && id < x->base + j->n && j->attempts[id - x->base] == DONE;
    char what[100];
    if (past || done) {
        x->counts.repeated++;
        snprintf(what, sizeof what, "a second answer to id %lld", (long long)id);
        tell_once(x, TOLD_REPEATED, w, what);
    } else {
        x->counts.unknown++;
        snprintf(what, sizeof what, "an answer to id %lld, which it was not asked", (long long)id);
        tell_once(x, TOLD_UNKNOWN, w, what);
    }
}

static void take_line(judging *j, ra_exec_worker *w, const char *line, size_t n)
{
    exec *x = j->x;
    ra_exec_line kind = ra_exec_read_answer(line, n, &x->answer);
    if (kind == RA_EXEC_GARBAGE) {
        x->counts.garbage++;
        tell_once(x, TOLD_GARBAGE, w, x->answer.problem.data);
        return;
    }
    int slot = find_held(w, x->answer.id - x->base);
    if (slot < 0) {
        count_stray(j, w, x->answer.id);
        return;
    }
    int item = w->held[slot].item;
    release(w, slot);
    if (w->n_held == 0) w->alone = false;
    w->last_s = ra_now();
    if (kind == RA_EXEC_SENSELESS) {
        x->counts.senseless++;
        tell_once(x, TOLD_SENSELESS, w, x->answer.problem.data);
        ask_again(j, item, true, x->answer.problem.data);
        return;
    }
    if (!w->answered && w->last_s - w->started_s > x->slowest_start_s) x->slowest_start_s = w->last_s - w->started_s;
    w->answered = true;
    w->failures = 0;
    if (x->answer.verdict.compliant < 0)
        snprintf(x->problem, sizeof x->problem, "%s: %.300s", x->config.name, x->answer.problem.data);
    settle(j, item, &x->answer.verdict);
}

/* ---- what the program writes ---- */
static void pass_on_words(exec *x, ra_exec_worker *w)
{
    const char *line;
    size_t at = 0, n;
    while (ra_exec_next_line(&w->words, &at, &line, &n)) {
        if (n == 0) continue;
        ra_buf_clear(&w->last_words);
        ra_text_quote(&w->last_words, line, n, WORD_BYTES);
        if (x->words_shown < WORDS_SHOWN) ra_info("%s[%d]: %s", x->config.name, w->number, w->last_words.data);
        if (++x->words_shown == WORDS_SHOWN)
            ra_info("%s: no more of what the program says on standard error is shown", x->config.name);
    }
    ra_exec_drop(&w->words, at);
}

/* False: it wrote a line without end. */
static bool take_output(judging *j, ra_exec_worker *w)
{
    const char *line;
    size_t at = 0, n;
    bool good = ra_exec_worker_read(w);
    while (ra_exec_next_line(&w->output, &at, &line, &n)) take_line(j, w, line, n);
    ra_exec_drop(&w->output, at);
    pass_on_words(j->x, w);
    if (w->process.out < 0 && w->out_ended_s == 0) w->out_ended_s = ra_now();
    return good;
}

/* ---- death ---- */
static void forget(ra_exec_worker *w)
{
    w->n_held = 0;
    w->alone = false;
    w->answered = false;
    w->written = 0;
    ra_buf_clear(&w->to_write);
    ra_buf_clear(&w->output);
    ra_buf_clear(&w->words);
}

/* The copy has ended, or is to (`why` not NULL). Its items are asked again. An error where copies do nothing but die. */
static ra_err bury(judging *j, ra_exec_worker *w, const char *why)
{
    exec *x = j->x;
    if (!why) { /* what it said before counts, with or without a last line end */
        take_output(j, w);
        if (w->output.length) take_line(j, w, w->output.data, w->output.length);
    }
    ra_buf how = {0};
    if (why) ra_buf_addf(&how, "%s and ", why);
    if (w->words.length) {
        ra_buf_adds(&w->words, "\n");
        pass_on_words(x, w);
    }
    ra_process_end(&w->process, &how);
    if (w->last_words.length) ra_buf_addf(&how, "; its last words: %s", w->last_words.data);
    bool failed = w->n_held > 0 || !w->answered;
    ra_err err = RA_OK;
    if (failed) {
        x->counts.deaths++;
        x->counts.hangs += why != NULL;
        x->barren++;
        if (x->barren > x->config.restarts) {
            err = ra_fail(RA_ERR_IO, "%s: %s: %d copies in a row ended without a verdict; the last one %s", x->config.name,
                          x->config.argv[0], x->barren, how.data);
        } else if (x->counts.deaths <= 10) {
            ra_warn("%s: copy %d of %s %s", x->config.name, w->number, x->config.argv[0], how.data);
            if (x->counts.deaths == 10) ra_warn("%s: further ends of copies are counted only", x->config.name);
        }
    }
    if (!w->answered) w->failures++;
    w->due_s = w->failures ? ra_now() + ra_retry_delay(&x->rng, w->failures, FIRST_DELAY_S, MOST_DELAY_S) : 0;
    bool counts = w->alone && !w->answered;
    for (int i = 0; i < w->n_held && err == RA_OK; i++) ask_again(j, w->held[i].item, counts, how.data);
    forget(w);
    ra_buf_free(&how);
    return err;
}

/* Of the copy's next answer. What a start takes is not known before the first one; later ones should not take much longer, so that a hang shows sooner. */
static double answer_limit_s(const exec *x, const ra_exec_worker *w)
{
    const ra_exec_config *c = &x->config;
    if (w->answered) return c->timeout_s;
    if (x->slowest_start_s == 0) return c->start_timeout_s;
    return fmin(c->start_timeout_s, 4 * x->slowest_start_s + c->timeout_s);
}

static bool is_over_time(const exec *x, const ra_exec_worker *w, double now)
{
    if (w->n_held == 0) return false;
    if (now - w->last_s > answer_limit_s(x, w)) return true;
    for (int i = 0; i < w->n_held; i++) {
        if (now > w->held[i].deadline_s) return true;
    }
    return false;
}

static ra_err look_after(judging *j, ra_exec_worker *w)
{
    const exec *x = j->x;
    if (w->process.pid == 0) return RA_OK;
    if (!take_output(j, w)) return bury(j, w, "wrote a line of more than 1 MiB");
    double now = ra_now();
    if (ra_process_has_ended(&w->process)) return bury(j, w, NULL);
    if (w->out_ended_s > 0 && now - w->out_ended_s > OUTPUT_ENDED_S) return bury(j, w, "closed its output");
    if (is_over_time(x, w, now))
        return bury(j, w, w->answered ? "answered nothing for longer than timeout" : "gave no first answer within start_timeout");
    return RA_OK;
}

/* ---- giving out ---- */
static ra_err start_copy(exec *x, ra_exec_worker *w)
{
    ra_err err = ra_process_start(&w->process, (char *const *)x->config.argv);
    if (err != RA_OK) return ra_fail_in(err, "%s.command", x->config.name);
    x->counts.starts++;
    w->started_s = ra_now();
    w->out_ended_s = 0;
    ra_buf_clear(&w->last_words);
    return RA_OK;
}

static void give(judging *j, ra_exec_worker *w, int item, bool alone)
{
    exec *x = j->x;
    double now = ra_now();
    if (w->n_held == 0) w->last_s = now;
    w->alone = alone;
    /* one after the other, each within its time: that long it may take at most until this one is answered */
    double allowed = x->config.timeout_s * w->n_held + answer_limit_s(x, w);
    w->held[w->n_held++] = (ra_exec_held){item, now + allowed};
    ra_exec_write_item(x->base + item, x->policy, &j->items[item], &w->to_write);
}

static ra_err give_out(judging *j, ra_exec_worker *w)
{
    exec *x = j->x;
    bool queued = j->n_again > 0;
    if (w->process.pid == 0) {
        if (!(queued || j->next < j->n) || ra_now() < w->due_s) return RA_OK;
        RA_TRY(start_copy(x, w));
    }
    if (w->out_ended_s > 0) return RA_OK; /* it is about to end */
    if (w->n_held == 0 && queued) {
        int item = j->again[j->first_again];
        j->first_again = (j->first_again + 1) % j->n;
        j->n_again--;
        give(j, w, item, true);
    } else if (!w->alone) {
        while (w->n_held < x->config.window && j->next < j->n) give(j, w, j->next++, false);
    }
    ra_exec_worker_write(w);
    return RA_OK;
}

static void wait_for_something(exec *x, struct pollfd *files)
{
    int wait_ms = POLL_MS;
    for (int i = 0; i < x->config.workers; i++) {
        const ra_exec_worker *w = &x->workers[i];
        files[3 * i] = (struct pollfd){w->to_write.length > w->written ? w->process.in : -1, POLLOUT, 0};
        files[3 * i + 1] = (struct pollfd){w->process.out, POLLIN, 0};
        files[3 * i + 2] = (struct pollfd){w->process.err, POLLIN, 0};
        if (w->process.pid && w->out_ended_s > 0) wait_ms = 2; /* its exit shows on no file */
    }
    poll(files, 3 * (nfds_t)x->config.workers, wait_ms);
}

static ra_err run(judging *j)
{
    exec *x = j->x;
    struct pollfd *files = ra_calloc((size_t)x->config.workers * 3, sizeof *files);
    ra_err err = RA_OK;
    while (j->open > 0 && err == RA_OK) {
        if (x->config.stop && x->config.stop(x->config.stop_context)) {
            x->stopping = true;
            err = ra_fail(RA_ERR_STOPPED, "asked to stop");
            break;
        }
        for (int i = 0; i < x->config.workers && err == RA_OK; i++) err = give_out(j, &x->workers[i]);
        if (err == RA_OK) wait_for_something(x, files);
        for (int i = 0; i < x->config.workers && err == RA_OK; i++) err = look_after(j, &x->workers[i]);
    }
    ra_free(files);
    return err;
}

/* ---- the table ---- */
static ra_err judge(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    exec *x = state;
    judging j = {.x = x, .items = items, .n = n, .open = n, .sink = sink, .context = context};
    j.again = ra_calloc((size_t)n + 1, sizeof *j.again);
    j.attempts = ra_calloc((size_t)n + 1, 1);
    ra_sigpipe hold;
    ra_sigpipe_hold(&hold);
    ra_err err = run(&j);
    ra_sigpipe_release(&hold);
    if (err != RA_OK) { /* copies that hold items of this call know ids that nobody waits for */
        ra_buf how = {0};
        for (int i = 0; i < x->config.workers; i++) {
            ra_exec_worker *w = &x->workers[i];
            if (w->n_held == 0) continue;
            if (!x->stopping) ra_process_end(&w->process, &how);
            forget(w);
        }
        ra_buf_free(&how);
    }
    x->base += n;
    ra_free(j.again);
    ra_free(j.attempts);
    return err;
}

static const char *problem(const void *state)
{
    return ((const exec *)state)->problem;
}

/* Waits for all copies, `seconds` at most; what they still write is thrown away so that none blocks on a full pipe. */
static void await_ends(exec *x, double seconds)
{
    double until = ra_now() + seconds;
    for (;;) {
        bool any = false;
        for (int i = 0; i < x->config.workers; i++) {
            ra_exec_worker *w = &x->workers[i];
            if (w->process.pid == 0) continue;
            ra_exec_worker_read(w);
            pass_on_words(x, w);
            ra_buf_clear(&w->output);
            any = any || !ra_process_has_ended(&w->process);
        }
        if (!any || ra_now() > until) return;
        const struct timespec pause = {0, 5000000};
        nanosleep(&pause, NULL);
    }
}

static void close_exec(void *state)
{
    exec *x = state;
    if (!x) return;
    if (!x->stopping) {
        for (int i = 0; i < x->config.workers; i++) ra_process_close(&x->workers[i].process.in);
        await_ends(x, CLOSE_S);
    }
    for (int i = 0; i < x->config.workers; i++) ra_process_signal(&x->workers[i].process, SIGTERM);
    await_ends(x, x->stopping ? CLOSE_S / 4 : CLOSE_S);
    ra_buf how = {0};
    for (int i = 0; i < x->config.workers; i++) {
        ra_exec_worker *w = &x->workers[i];
        if (w->process.pid) ra_process_end(&w->process, &how);
        ra_buf_free(&w->to_write);
        ra_buf_free(&w->output);
        ra_buf_free(&w->words);
        ra_buf_free(&w->last_words);
        ra_free(w->held);
    }
    ra_buf_free(&how);
    ra_buf_free(&x->answer.problem);
    ra_free(x->workers);
    for (int i = 0; i < x->config.n_argv; i++) free((char *)x->config.argv[i]);
    free((void *)x->config.argv);
    free((char *)x->config.name);
    free(x->policy);
    ra_free(x);
}

static const ra_oracle_ops exec_ops = {
    .name = "exec", .judges_text = true, .costly = true, .batch = 1024, .judge = judge, .problem = problem, .close = close_exec};

static ra_err check_config(const ra_exec_config *c)
{
    if (c->n_argv < 1 || !*c->argv[0])
        return ra_fail(RA_ERR_ARG, "%s.command is not given; give a list: the program and its arguments", c->name);
    if (c->workers < 1 || c->window < 1)
        return ra_fail(RA_ERR_ARG, "%s: %d workers with a window of %d; give 1 or more of each", c->name, c->workers, c->window);
    if (c->attempts < 1 || c->attempts >= DONE)
        return ra_fail(RA_ERR_ARG, "%s.attempts: %d; give 1 to %d", c->name, c->attempts, DONE - 1);
    if (!(c->timeout_s > 0) || !(c->start_timeout_s > 0))
        return ra_fail(RA_ERR_ARG, "%s: a time limit that is not above 0", c->name);
    return RA_OK;
}

ra_err ra_exec_open(const ra_exec_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state)
{
    *state = NULL;
    *ops = &exec_ops;
    RA_TRY(check_config(config));
    exec *x = ra_calloc(1, sizeof *x);
    char **argv = ra_realloc(NULL, (size_t)config->n_argv + 1, sizeof *argv);
    for (int i = 0; i < config->n_argv; i++) argv[i] = ra_strdup(config->argv[i]);
    argv[config->n_argv] = NULL;
    x->config = *config;
    x->config.name = ra_strdup(config->name);
    x->config.argv = (const char *const *)argv;
    x->policy = ra_strdup(policy_text ? policy_text : "");
    x->rng = ra_rng_make(config->seed, RA_STREAM_RETRY);
    x->workers = ra_calloc((size_t)config->workers, sizeof *x->workers);
    for (int i = 0; i < config->workers; i++) {
        ra_exec_worker *w = &x->workers[i];
        w->number = i + 1;
        w->process = (ra_process){0, -1, -1, -1};
        w->held = ra_calloc((size_t)config->window, sizeof *w->held);
    }
    ra_err err = start_copy(x, &x->workers[0]); /* a program that cannot be started shows before the work begins */
    if (err == RA_OK) {
        *state = x;
    } else {
        close_exec(x);
    }
    return err;
}

/* ---- counts ---- */
const ra_exec_counts *ra_exec_counted(const void *state)
{
    return &((const exec *)state)->counts;
}

void ra_exec_counts_text(const ra_exec_counts *c, ra_buf *out)
{
    ra_buf_addf(out, "%lld verdicts by %lld starts of the program", (long long)c->judged, (long long)c->starts);
    if (c->deaths)
        ra_buf_addf(out, ", %lld of them ended before their work was done (%lld killed for time or size)", (long long)c->deaths,
                    (long long)c->hangs);
    if (c->asked_again) ra_buf_addf(out, ", %lld items asked again", (long long)c->asked_again);
    if (c->undecided) ra_buf_addf(out, ", %lld undecided", (long long)c->undecided);
    if (c->garbage + c->unknown + c->repeated + c->senseless)
        ra_buf_addf(out,
                    "; errors of the program: %lld lines that are no answer, %lld unknown ids, %lld second answers, %lld answers "
                    "without sense",
                    (long long)c->garbage, (long long)c->unknown, (long long)c->repeated, (long long)c->senseless);
}
