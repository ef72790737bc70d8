/* correct: corrections y_c of Punish pairs (METHOD eq. 2c). Candidates are written (a column, a model, an endpoint), fitted to the sample, judged by the oracle; what does not hold is tried
 * again, then the pair falls back to eq. 2 and is counted. Rows are dealt to the ranks; nothing depends on their number. */
#include "open_text.h"
#include "correct.h"
#include "oracles.h"
#include "run_context.h"
#include "triage.h"

#include <realign/file.h>
#include <realign/hash.h>
#include <realign/judge.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/runctl.h>
#include <realign/stage.h>
#include <realign/timer.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_S = 2 /* between looks for the stop file */ };

typedef struct {
    ra_row *row;
    int attempt;
} waiting;

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    ra_grid grid;
    const ra_comm *ranks; /* those that work on pairs: stage 0 of each replica; the others hold their part of the models */
    const char *dir, *source;
    ra_store *store;
    int8_t *action; /* (samples) */
    int64_t pairs;  /* Punish pairs of all ranks */
    uint64_t key;
    char *depends_on;
    ra_oracle *oracle;
    ra_tokenizer *tokenizer;
    ra_template *tpl;
    ra_correct_checker checker;
    ra_candidates *candidates;
    ra_corrector *corrector;
    ra_runctl control;
    double looked_at; /* when the stop file was last looked for */
    int attempts;
    ra_prefdata *data;
    waiting *queue; /* (queued) */
    int64_t queued, queue_capacity;
    int batch;
    ra_correct_results results;
    double begun;
} correct;

/* ---- the queue ---- */
static void wait_in_line(correct *c, ra_row *row, int attempt)
{
    if (c->queued == c->queue_capacity) {
        c->queue_capacity = c->queue_capacity ? 2 * c->queue_capacity : 256;
        c->queue = ra_realloc(c->queue, (size_t)c->queue_capacity, sizeof *c->queue);
    }
    c->queue[c->queued++] = (waiting){row, attempt};
}

/* Reads this rank's Punish pairs until a batch waits; *more is false at the end of the data. */
static ra_err fill(correct *c, bool *more)
{
    while (*more && c->queued < c->batch) {
        const ra_row *row;
        ra_row_status status;
        RA_TRY(ra_prefdata_next(c->data, c->ranks->rank, c->ranks->size, 1, &row, &status, more));
        if (!*more) return RA_OK;
        if (row->id >= ra_store_count(c->store) || c->action[row->id] != RA_ACTION_PUNISH) continue;
        if (status != RA_ROW_OK) {
            return ra_fail(RA_ERR_DATA,
                           "row %lld cannot be used (%s), though it was prepared: the data have changed; run `realign run` again",
                           (long long)row->id + 1, row->why ? row->why : "no reason given");
        }
        wait_in_line(c, ra_row_copy(row), 0);
    }
    return RA_OK;
}

/* ---- a round ---- */
static void settle(correct *c, const ra_candidate *x, const ra_job *job, ra_correction_outcome outcome, const ra_verdict *v)
{
    bool again = outcome != RA_CORRECTION_USED && outcome != RA_CORRECTION_MISSING && x->attempt + 1 < c->attempts;
    if (again) {
        wait_in_line(c, x->row, x->attempt + 1);
        return;
    }
    ra_correction_row row = {.id = x->row->id,
                             .probability = v->probability,
                             .margin = v->margin,
                             .rule = v->rule,
                             .verdict = v->compliant,
                             .outcome = (int8_t)outcome,
                             .attempts = (int8_t)(outcome == RA_CORRECTION_MISSING ? 0 : x->attempt + 1)};
    ra_correct_add(&c->results, &row, outcome == RA_CORRECTION_USED ? &job->sample : NULL, x->row, x->text, c->source,
                   ra_oracle_rule_name(c->oracle, v->rule));
    ra_row_free(x->row);
}

static ra_err work(correct *c, ra_candidate *candidate, int n)
{
    ra_correction_outcome *outcome = ra_alloc((size_t)n + 1, sizeof *outcome);
    ra_verdict *verdict = ra_alloc((size_t)n + 1, sizeof *verdict);
    ra_err err = ra_corrector_write(c->corrector, candidate, n);
    if (err == RA_OK) err = ra_correct_check(&c->checker, candidate, n, outcome, verdict, &c->results.counts);
    for (int i = 0; i < n; i++) {
        if (err == RA_OK) {
            c->results.counts.candidates += candidate[i].end != RA_TEXT_NONE;
            settle(c, &candidate[i], &c->checker.job[i], outcome[i], &verdict[i]);
        } else {
            ra_row_free(candidate[i].row);
        }
        ra_job_end(&c->checker.job[i]);
        free(candidate[i].text);
    }
    ra_free(verdict);
    ra_free(outcome);
    return err;
}

/* The first of the queue. */
static ra_err work_batch(correct *c, bool *more)
{
    RA_TRY(fill(c, more));
    int n = c->queued < c->batch ? (int)c->queued : c->batch;
    if (n == 0) return RA_OK;
    ra_candidate *candidate = ra_calloc((size_t)n, sizeof *candidate);
    for (int i = 0; i < n; i++) candidate[i] = (ra_candidate){.row = c->queue[i].row, .attempt = c->queue[i].attempt};
    c->queued -= n;
    memmove(c->queue, c->queue + n, (size_t)c->queued * sizeof *c->queue);
    ra_err err = work(c, candidate, n);
    ra_free(candidate);
    return err;
}

static void tell(const correct *c, const ra_correct_counts *sum, bool last)
{
    double seconds = ra_now() - c->begun, rate = seconds > 0.0 ? (double)sum->pairs / seconds : 0.0;
    int64_t told = sum->judged - sum->undecided;
    ra_progress(last,
                "correct: %lld of %lld Punish pairs, %lld corrected, %lld candidates (%lld new), %.1f %% of those judged comply, "
                "%.0f s left",
                (long long)sum->pairs, (long long)c->pairs, (long long)sum->outcome[RA_CORRECTION_USED],
                (long long)sum->candidates, (long long)sum->asked, told > 0 ? 100.0 * (double)sum->compliant / (double)told : 0.0,
                rate > 0.0 ? (double)(c->pairs - sum->pairs) / rate : 0.0);
}

/* The same on every rank: sums only. */
static ra_err check_undecided(const correct *c, const ra_correct_counts *sum)
{
    int64_t limit = ra_set_int(c->s, "oracle.undecided_limit");
    if (sum->undecided <= limit) return RA_OK;
    const char *why = ra_oracle_problem(c->oracle);
    return ra_fail(RA_ERR_DATA, "%lld of %lld corrections could not be judged, more than oracle.undecided_limit = %lld%s%s",
                   (long long)sum->undecided, (long long)sum->judged, (long long)limit, *why ? ": " : "", why);
}

/* Rounds in step: a signal, the limit of time and the stop file end them between batches, and a batch before its end. */
static ra_err work_all(correct *c, ra_correct_counts *sum)
{
    bool more = true;
    for (;;) {
        ra_err err = work_batch(c, &more);
        bool stopped = err == RA_ERR_STOPPED; /* of this rank alone, perhaps: the others hear of it below */
        RA_TRY(ra_comm_agree(c->ranks, stopped ? RA_OK : err));
        *sum = c->results.counts;
        sum->asked = ra_corrector_asked(c->corrector);
        ra_correct_sum(c->ranks, sum);
        int64_t left[2] = {stopped, more || c->queued > 0};
        ra_comm_sum_i64(c->ranks, left, 2);
        bool done = left[0] == 0 && left[1] == 0;
        tell(c, sum, done);
        RA_TRY(ra_comm_agree(c->ranks, check_undecided(c, sum)));
        if (done) return RA_OK;
        const char *reason = NULL;
        if (ra_runctl_should_stop(&c->control, c->ranks, &reason) || left[0] > 0) {
            if (!reason) reason = "the wall-clock limit or the stop file";
            ra_info("correct: stopped by %s with %lld of %lld Punish pairs done; run the same command again to go on", reason,
                    (long long)sum->pairs, (long long)c->pairs);
            return ra_fail(RA_ERR_STOPPED, "stopped by %s with %lld of %lld Punish pairs done", reason, (long long)sum->pairs,
                           (long long)c->pairs);
        }
    }
}

/* For waits that no other rank takes part in; asked often. */
static bool should_halt(void *context)
{
    correct *c = context;
    ra_runctl view = c->control;
    double now = ra_now();
    if (now - c->looked_at < LOOK_S) {
        view.stop_file = NULL; /* it may lie on a slow file system */
    } else {
        c->looked_at = now;
    }
    return ra_runctl_is_due(&view);
}

/* ---- what the result depends on ---- */
static void make_depends_on(correct *c)
{
    uint64_t rest[3] = {(uint64_t)c->checker.rules.max_tokens, (uint64_t)c->checker.rules.truncate,
                        ra_tokenizer_hash(c->tokenizer)};
    char hash[33];
    ra_hash_text(ra_hash_bytes(ra_corrector_identity(c->corrector), strlen(ra_corrector_identity(c->corrector))), hash);
    c->depends_on =
        ra_format("samples and settings %016" PRIx64 ", oracle %016" PRIx64 ", corrector %s, attempts %d, form %016" PRIx64,
                  c->key, ra_oracle_hash(c->oracle), hash, c->attempts, ra_hash_bytes(rest, sizeof rest).low);
}

/* Collective. Sets *reused; an error only where run.resume forbids to begin afresh. */
static ra_err try_reuse(const correct *c, bool *reused)
{
    const char *resume = ra_set_text(c->s, "run.resume");
    *reused = false;
    if (strcmp(resume, "never") == 0) return RA_OK;
    ra_buf why = {0};
    int same = c->world->rank == 0 && ra_corrections_are_current(c->dir, c->depends_on, &why);
    ra_comm_bcast(c->world, &same, sizeof same, 0);
    ra_err err = RA_OK;
    *reused = same != 0;
    if (same) {
        ra_info("correct: %s/corrections.h5 is up to date (run.resume: never begins afresh)", c->dir);
    } else if (strcmp(resume, "must") == 0 && (!c->candidates || ra_candidates_count(c->candidates) == 0)) {
        if (c->world->rank == 0)
            err = ra_fail(RA_ERR_DATA, "run.resume is must, but %s/corrections.h5 cannot be used: %s", c->dir, why.data);
        err = ra_comm_agree(c->world, err);
    }
    ra_buf_free(&why);
    return err;
}

/* ---- result ---- */
static ra_err write_files(const correct *c, const ra_correct_counts *sum, const ra_corrections *all, const ra_buf *lines)
{
    ra_buf yaml = {0};
    ra_settings_write_yaml(c->s, &yaml);
    const ra_corrections_about about = {.dir = c->dir,
                                        .used_yaml = yaml.data,
                                        .source = c->source,
                                        .corrector = ra_corrector_name(c->corrector),
                                        .depends_on = c->depends_on,
                                        .key = c->key,
                                        .oracle = c->oracle,
                                        .candidates = sum->candidates,
                                        .judged = sum->judged,
                                        .compliant = sum->compliant};
    char *path = ra_path_join(c->dir, "corrections.jsonl");
    ra_err err = ra_file_write(path, lines->data, lines->length);
    if (err == RA_OK) err = ra_corrections_write(&about, c->ranks, all); /* last: its presence says that both are complete */
    free(path);
    ra_buf_free(&yaml);
    return err;
}

static ra_err finish(correct *c, const ra_correct_counts *sum)
{
    if (sum->pairs != c->pairs) {
        return ra_fail(RA_ERR_DATA,
                       "the data hold %lld of the %lld Punish pairs of triage.h5: they have changed; run `realign run` again",
                       (long long)sum->pairs, (long long)c->pairs);
    }
    ra_corrections all;
    ra_buf lines = {0};
    ra_correct_gather(c->ranks, &c->results, &all, &lines);
    ra_err err = ra_comm_agree(c->ranks, c->ranks->rank == 0 ? write_files(c, sum, &all, &lines) : RA_OK);
    ra_corrections_free(&all);
    ra_buf_free(&lines);
    return err;
}

static void report(const correct *c, const ra_correct_counts *sum)
{
    ra_buf table = {0};
    ra_correct_table(sum, &table);
    ra_info("correct: %s, judged by %s\n%s", ra_corrector_name(c->corrector),
            c->checker.judges ? ra_oracle_kind(c->oracle) : "nobody", table.data);
    if (sum->outcome[RA_CORRECTION_FAILED] && *ra_corrector_problem(c->corrector))
        ra_info("correct: the endpoint gave no correction: %s", ra_corrector_problem(c->corrector));
    if (sum->undecided && *ra_oracle_problem(c->oracle))
        ra_info("correct: a correction could not be judged: %s", ra_oracle_problem(c->oracle));
    ra_buf_free(&table);
}

static ra_err make(correct *c)
{
    ra_correct_counts sum = {0};
    c->batch = ra_corrector_batch(c->corrector);
    c->checker.job = ra_calloc((size_t)c->batch, sizeof *c->checker.job);
    c->begun = c->looked_at = ra_now();
    RA_TRY(ra_comm_agree(c->ranks, ra_prefdata_open_settings(c->s, &c->data)));
    RA_TRY(work_all(c, &sum));
    RA_TRY(finish(c, &sum));
    report(c, &sum);
    return RA_OK;
}

/* ---- the stage ---- */
/* Collective. */
static ra_err make_together(correct *c)
{
    if (c->grid.stages == 1) return make(c);
    ra_err err = c->grid.stage == 0 ? make(c) : ra_oracle_serve(c->oracle, c->corrector, &c->grid);
    if (c->grid.stage == 0) ra_grid_call(&c->grid, RA_CALL_END);
    return ra_comm_agree(c->world, err);
}

static ra_err open_samples(correct *c)
{
    char *triage_key = NULL;
    RA_TRY(ra_store_open(c->dir, &c->store));
    int64_t n = ra_store_count(c->store);
    c->source = ra_corrections_source(c->s, c->store);
    c->action = ra_alloc((size_t)n, 1);
    ra_err err = ra_run_read_actions(c->s, c->dir, c->store, c->action, &triage_key);
    if (err == RA_OK) c->key = ra_corrections_key(c->s, c->store, c->action, triage_key);
    for (int64_t i = 0; i < n && err == RA_OK; i++) c->pairs += c->action[i] == RA_ACTION_PUNISH;
    free(triage_key);
    return err;
}

static ra_err open_form(correct *c)
{
    RA_TRY(ra_tokenizer_open(ra_set_text(c->s, "tokenizer"), &c->tokenizer));
    RA_TRY(ra_open_template(c->s, c->tokenizer, &c->tpl));
    c->checker.rules = (ra_sample_rules){.tpl = c->tpl,
                                         .bos = ra_tokenizer_bos(c->tokenizer),
                                         .max_tokens = ra_set_int(c->s, "data.max_tokens"),
                                         .truncate = ra_truncate_of(ra_set_text(c->s, "data.truncate"))};
    return ra_oracle_open_settings(c->s, &c->grid, c->ranks, &c->oracle);
}

/* A policy of labels says nothing about texts that are not in the data. */
static ra_err check_oracle(correct *c)
{
    c->checker.judges = ra_oracle_judges_text(c->oracle);
    if (c->checker.judges) return RA_OK;
    if (strcmp(ra_set_text(c->s, "correct.source"), "auto") != 0) {
        return ra_fail(
            RA_ERR_ARG,
            "correct.source is %s, but the oracle (%s) judges by columns of the data and cannot check a correction; add an "
            "oracle that reads text with oracle.combine=first (doc/oracles.md), or set correct.source=none",
            c->source, ra_oracle_kind(c->oracle));
    }
    if (c->world->rank == 0) {
        ra_warn(
            "correct: the oracle (%s) judges by columns of the data and cannot check the corrections of the data: none is used",
            ra_oracle_kind(c->oracle));
    }
    return RA_OK;
}

/* Collective. */
static ra_err open_corrector(correct *c)
{
    bool column = strcmp(c->source, "column") == 0, never = strcmp(ra_set_text(c->s, "run.resume"), "never") == 0;
    bool sampled = !column && (ra_set_real(c->s, "correct.temperature") > 0.0 || strcmp(c->source, "endpoint") == 0);
    c->attempts = sampled ? (int)ra_set_int(c->s, "correct.attempts") : 1;
    if (!column) {
        char *dir = ra_path_join(c->dir, "candidates");
        ra_err err = ra_candidates_open(dir, c->world, never, &c->candidates);
        free(dir);
        RA_TRY(err);
        int64_t damaged = ra_candidates_damaged(c->candidates);
        if (damaged) ra_info("correct: %lld torn or damaged lines of earlier candidates were passed over", (long long)damaged);
    }
    const ra_corrector_config config = {.s = c->s,
                                        .grid = &c->grid,
                                        .source = c->source,
                                        .policy = ra_oracle_policy(c->oracle),
                                        .candidates = c->candidates,
                                        .halt = should_halt,
                                        .context = c};
    return ra_corrector_open(&config, &c->corrector);
}

static ra_err run(correct *c, bool *made)
{
    bool reused = false;
    RA_TRY(ra_comm_agree(c->world, open_samples(c)));
    if (strcmp(c->source, "none") == 0 || c->pairs == 0) {
        ra_info("correct: nothing to do: %s",
                c->pairs == 0 ? "no pair is punished" : "correct.source gives no corrections (doc/corrections.md)");
        return RA_OK;
    }
    ra_err err = open_form(c);
    RA_TRY(ra_comm_agree(c->world, err));
    RA_TRY(ra_comm_agree(c->world, check_oracle(c)));
    c->checker.store = c->store;
    c->checker.oracle = c->oracle;
    c->checker.dir = c->dir;
    RA_TRY(open_corrector(c));
    make_depends_on(c);
    RA_TRY(try_reuse(c, &reused));
    if (reused) return RA_OK;
    *made = true;
    ra_runctl_start(&c->control);
    err = make_together(c);
    ra_runctl_end();
    return err;
}

static ra_err release(correct *c)
{
    ra_err err = ra_oracle_close(c->oracle), kept = ra_candidates_close(c->candidates);
    ra_corrector_close(c->corrector);
    ra_prefdata_close(c->data);
    ra_template_close(c->tpl);
    ra_tokenizer_close(c->tokenizer);
    ra_store_close(c->store);
    ra_free(c->action);
    for (int64_t i = 0; i < c->queued; i++) ra_row_free(c->queue[i].row);
    for (int i = 0; c->checker.job && i < c->batch; i++) ra_job_free(&c->checker.job[i]);
    ra_free(c->checker.job);
    free(c->queue);
    free(c->depends_on);
    ra_buf_free(&c->results.bytes);
    ra_grid_free(&c->grid);
    ra_free(c);
    return err != RA_OK ? err : kept;
}

ra_err ra_stage_correct(const ra_settings *s, const ra_comm *world)
{
    correct *c = ra_calloc(1, sizeof *c);
    *c = (correct){.s = s, .world = world, .dir = ra_set_text(s, "run.dir"), .control = ra_run_control(s)};
    ra_err unfit = ra_grid_make(world, (int32_t)ra_set_int(s, "grid.pipeline"), &c->grid);
    if (unfit == RA_OK) unfit = ra_grid_check(s, &c->grid);
    if (unfit != RA_OK) {
        ra_grid_free(&c->grid);
        ra_free(c);
        return unfit;
    }
    c->ranks = &c->grid.data;
    ra_timers *timers = ra_timers_new();
    bool made = false;
    ra_timer_begin(timers, "correct");
    ra_err err = run(c, &made);
    ra_timer_end(timers, "correct");
    if (err == RA_OK && made) {
        char *path = ra_path_join(c->dir, "timers.tsv");
        err = ra_timers_write(timers, world->comm, "correct", path);
        free(path);
    }
    ra_timers_free(timers);
    ra_err closed = release(c);
    return err == RA_OK ? ra_comm_agree(world, closed) : err;
}
