/* Triage, the judging itself: rows are held back until there is a batch, the batch is judged in one call, all ranks in step. Blocks of rows are dealt to
 * the ranks; a rank keeps a few numbers a row of its share. Nothing depends on the number of ranks. */
#include "run_context.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/timer.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row that waits: two items. */
typedef struct {
    int64_t at; /* index among this rank's rows */
    ra_row *row;
} waiting;

/* Sums over ranks after each batch. */
typedef struct {
    int64_t more, judged, compliant, undecided, asked, known;
} tally;

typedef struct {
    ra_triage_share *t;
    waiting *row; /* (capacity) */
    int n, capacity;
    bool costly;
    int64_t texts, questions; /* of all ranks: what is to be judged, and what must be asked at most; costly kinds only */
    double begun;
} judging;

/* ---- rows that wait ---- */

static void let_all_go(judging *j)
{
    for (int i = 0; i < j->n; i++) ra_row_free(j->row[i].row);
    j->n = 0;
}

static void make_items(const judging *j, ra_oracle_item *items)
{
    for (int i = 0; i < j->n; i++) {
        const ra_row *r = j->row[i].row;
        int index = r->chosen_is_first ? 0 : 1;
        items[2 * i] = (ra_oracle_item){r->prompt_text, r->chosen, r->category, r->source, index, r->prompt, r->n_prompt};
        items[2 * i + 1] =
            (ra_oracle_item){r->prompt_text, r->rejected, r->category, r->source, 1 - index, r->prompt, r->n_prompt};
    }
}

static ra_triage_row *add_row(ra_triage_share *t)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 4096;
        t->rows = ra_realloc(t->rows, (size_t)t->capacity, sizeof *t->rows);
    }
    ra_triage_row *row = &t->rows[t->n++];
    *row = (ra_triage_row){.action = RA_ACTION_NONE,
                           .c_w = -1,
                           .c_l = -1,
                           .rule_w = -1,
                           .rule_l = -1,
                           .category = -1,
                           .probability_w = NAN,
                           .probability_l = NAN,
                           .margin_w = NAN,
                           .margin_l = NAN};
    return row;
}

/* Reads this rank's rows until the batch is full; *more is false at the end of the data. */
static ra_err fill(judging *j, ra_prefdata *data, bool keep, bool *more)
{
    ra_triage_share *t = j->t;
    while (j->n < j->capacity) {
        const ra_row *row;
        ra_row_status status;
        RA_TRY(ra_prefdata_next(data, t->world->rank, t->world->size, RA_TRIAGE_BLOCK, &row, &status, more));
        if (!*more) return RA_OK;
        ra_triage_row *out = keep ? add_row(t) : NULL;
        if (status == RA_ROW_OK) {
            j->row[j->n++] = (waiting){.at = t->n - 1, .row = ra_row_copy(row)};
        } else if (keep) {
            out->state = status == RA_ROW_SKIPPED ? RA_TRIAGE_SKIPPED : RA_TRIAGE_MALFORMED;
        }
    }
    return RA_OK;
}

/* ---- one batch ---- */
static void settle(judging *j, const waiting *w, const ra_verdict verdict[2])
{
    ra_triage_share *t = j->t;
    ra_triage_row *out = &t->rows[w->at];
    out->c_w = verdict[0].compliant;
    out->c_l = verdict[1].compliant;
    out->rule_w = verdict[0].rule;
    out->rule_l = verdict[1].rule;
    out->probability_w = verdict[0].probability;
    out->probability_l = verdict[1].probability;
    out->margin_w = verdict[0].margin;
    out->margin_l = verdict[1].margin;
    out->category = ra_category_index(&t->categories, w->row->category);
    bool held_out = ra_row_held_out(t->s, w->row->prompt_hash);
    ra_action action = held_out ? RA_ACTION_NONE : ra_triage_action(out->c_w, out->c_l);
    out->action = (int8_t)action;
    out->state = held_out ? RA_TRIAGE_HELD_OUT : action == RA_ACTION_NONE ? RA_TRIAGE_UNDECIDED : RA_TRIAGE_USED;
}

static ra_err judge_batch(judging *j, bool *more)
{
    RA_TRY(fill(j, j->t->data, true, more));
    if (j->n == 0) return RA_OK;
    ra_oracle_item *items = ra_alloc((size_t)j->n * 2, sizeof *items);
    ra_verdict *verdicts = ra_alloc((size_t)j->n * 2, sizeof *verdicts);
    make_items(j, items);
    ra_err err = ra_oracle_judge(j->t->oracle, items, 2 * j->n, verdicts);
    if (err != RA_OK)
        ra_fail_in(err, "rows %lld to %lld", (long long)j->row[0].row->id + 1, (long long)j->row[j->n - 1].row->id + 1);
    for (int i = 0; i < j->n && err == RA_OK; i++) settle(j, &j->row[i], &verdicts[2 * i]);
    ra_free(verdicts);
    ra_free(items);
    let_all_go(j);
    return err;
}

/* ---- all batches ---- */
static tally sum_up(const judging *j, bool more)
{
    const ra_oracle_counts *c = ra_oracle_counted(j->t->oracle);
    tally sum = {more, c->judged, c->compliant, c->undecided, c->asked, c->known};
    ra_comm_sum_i64(j->t->world, &sum.more, sizeof sum / sizeof(int64_t));
    return sum;
}

static void add_time(ra_buf *out, double seconds)
{
    if (seconds >= 5400.0) ra_buf_addf(out, "%.1f h", seconds / 3600.0);
    if (seconds < 5400.0 && seconds >= 90.0) ra_buf_addf(out, "%.0f min", seconds / 60.0);
    if (seconds < 90.0) ra_buf_addf(out, "%.0f s", seconds);
}

static void tell(const judging *j, const tally *sum)
{
    if (!j->costly) {
        ra_progress(0, "triage: %lld rows read", (long long)ra_prefdata_counts(j->t->data)->rows);
        return;
    }
    double elapsed = ra_now() - j->begun, rate = elapsed > 0.0 ? (double)sum->asked / elapsed : 0.0;
    int64_t told = sum->judged - sum->undecided, left = j->questions - sum->asked;
    ra_buf line = {0};
    ra_buf_addf(&line, "triage: %lld of %lld responses judged, %lld asked (%.1f/s), %lld known", (long long)sum->judged,
                (long long)j->texts, (long long)sum->asked, rate, (long long)sum->known);
    if (sum->asked > 0 && left > 0 && sum->more) {
        ra_buf_adds(&line, ", ");
        add_time(&line, (double)left / rate);
        ra_buf_adds(&line, " left");
    }
    if (told) ra_buf_addf(&line, ", %.1f %% comply", 100.0 * (double)sum->compliant / (double)told);
    if (sum->undecided) ra_buf_addf(&line, ", %lld undecided", (long long)sum->undecided);
    ra_progress(!sum->more, "%s", line.data);
    ra_buf_free(&line);
}

/* Not collective. The rank with the last word on why is the first that has one. */
static ra_err check_undecided(const judging *j, const tally *sum)
{
    int64_t limit = ra_set_int(j->t->s, "oracle.undecided_limit");
    if (sum->undecided <= limit) return RA_OK;
    const char *why = ra_oracle_problem(j->t->oracle);
    return ra_fail(RA_ERR_DATA, "%lld of %lld responses could not be judged, more than oracle.undecided_limit = %lld%s%s",
                   (long long)sum->undecided, (long long)sum->judged, (long long)limit, *why ? ": " : "", why);
}

/* Collective. Every rank fails; the message is of the lowest rank that knows a reason. */
static ra_err agree_on_undecided(const judging *j, const tally *sum)
{
    ra_err mine = check_undecided(j, sum);
    if (mine == RA_OK) return RA_OK;
    ra_err known = ra_comm_agree(j->t->world, *ra_oracle_problem(j->t->oracle) ? mine : RA_OK);
    return known != RA_OK ? known : check_undecided(j, sum);
}

/* Collective. A pass over the data to know how much there is to do. */
static ra_err plan(judging *j)
{
    ra_triage_share *t = j->t;
    struct {
        int64_t texts;
        ra_oracle_plan plan;
    } sum = {0};
    ra_prefdata *data = NULL;
    RA_TRY(ra_comm_agree(t->world, ra_prefdata_open_settings(t->s, &data)));
    ra_err err = ra_prefdata_find_duplicates(data, t->s, t->world);
    for (bool more = true; more && err == RA_OK;) {
        err = fill(j, data, false, &more);
        ra_oracle_item *items = ra_alloc((size_t)j->n * 2, sizeof *items);
        make_items(j, items);
        sum.texts += 2 * (int64_t)j->n;
        ra_oracle_plan_add(t->oracle, items, 2 * j->n, &sum.plan);
        ra_free(items);
        let_all_go(j);
    }
    ra_prefdata_close(data);
    RA_TRY(ra_comm_agree(t->world, err));
    ra_comm_sum_i64(t->world, &sum.texts, sizeof sum / sizeof(int64_t));
    j->texts = sum.texts;
    j->questions = ra_oracle_plan_questions(&sum.plan);
    ra_info("triage: %lld responses, %s%lld questions to the oracle %s", (long long)j->texts,
            ra_oracle_member_count(t->oracle) > 1 ? "at most " : "", (long long)j->questions, ra_oracle_kind(t->oracle));
    return ra_comm_agree(t->world, ra_oracle_announce(t->oracle, &sum.plan));
}

static ra_err judge_all(judging *j, ra_runctl *control)
{
    ra_triage_share *t = j->t;
    if (j->costly) RA_TRY(plan(j));
    j->begun = ra_now();
    for (bool more = true;;) {
        RA_TRY(ra_comm_agree(t->world, more ? judge_batch(j, &more) : RA_OK));
        tally sum = sum_up(j, more);
        tell(j, &sum);
        RA_TRY(agree_on_undecided(j, &sum));
        if (sum.more == 0) return RA_OK;
        const char *reason = NULL;
        if (j->costly && ra_runctl_should_stop(control, t->world, &reason)) {
            ra_info("triage: stopped by %s with %lld of %lld responses judged; run the same command again to go on", reason,
                    (long long)sum.judged, (long long)j->texts);
            return ra_fail(RA_ERR_STOPPED, "stopped by %s with %lld of %lld responses judged", reason, (long long)sum.judged,
                           (long long)j->texts);
        }
    }
}

ra_err ra_triage_judge(ra_triage_share *t)
{
    int rows = ra_oracle_batch(t->oracle) / 2;
    judging j = {.t = t, .capacity = rows > 0 ? rows : 1, .costly = ra_oracle_is_costly(t->oracle)};
    j.row = ra_calloc((size_t)j.capacity, sizeof *j.row);
    ra_runctl control = ra_run_control(t->s);
    if (j.costly) ra_runctl_start(&control); /* a cheap oracle is done before anyone can wish it would stop */
    ra_err err = judge_all(&j, &control);
    if (j.costly) ra_runctl_end();
    let_all_go(&j);
    ra_free(j.row);
    return err;
}
