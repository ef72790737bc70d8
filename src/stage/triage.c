/* triage: the new policy's verdict on both responses of every row, and the action that follows (METHOD section 2). Blocks of rows are dealt to the ranks;
 * a rank keeps ten bytes a row of its share. Nothing depends on the number of ranks. */
#include "triage.h"
#include "oracles.h"

#include <realign/file.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/stage.h>
#include <realign/timer.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 /* rows dealt at a time */, SHOWN_REASONS = 4 };

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    ra_oracle *oracle;
    ra_prefdata *data;
    ra_triage_row *rows; /* of this rank's share, in ascending id */
    int64_t n, capacity;
    ra_category_list categories;
    char data_hash[33];
    char *key;
} triage;

/* ---- what the result depends on ---- */
/* Collective. Content of all files; the files are shared among the ranks. */
static ra_err hash_data(triage *t)
{
    const char *const *paths;
    int n = ra_set_list(t->s, "data.path", &paths);
    int64_t *parts = ra_calloc((size_t)n * 2, sizeof *parts);
    ra_err err = RA_OK;
    for (int i = t->world->rank; i < n && err == RA_OK; i += t->world->size) {
        ra_hash hash;
        err = ra_hash_file(paths[i], &hash);
        if (err != RA_OK) break;
        memcpy(&parts[2 * i], &hash.high, sizeof hash.high);
        memcpy(&parts[2 * i + 1], &hash.low, sizeof hash.low);
    }
    err = ra_comm_agree(t->world, err);
    if (err == RA_OK) {
        ra_comm_sum_i64(t->world, parts, 2 * (int64_t)n); /* one rank has each, the others 0 */
        ra_hash_text(ra_hash_bytes(parts, (size_t)n * 2 * sizeof *parts), t->data_hash);
    }
    ra_free(parts);
    return err;
}

static void make_key(triage *t)
{
    static const char *const data[] = {"data.schema", "data.limit", "data.malformed_limit", "data.row_limit", "data.held_out"},
                             *const seed[] = {"seed"};
    uint64_t keys = ra_settings_hash(t->s, data, sizeof data / sizeof *data);
    if (ra_set_real(t->s, "data.held_out") > 0) keys ^= ra_settings_hash(t->s, seed, 1);
    t->key = ra_format("data %s, policy %016" PRIx64 ", keys %016" PRIx64, t->data_hash, ra_oracle_hash(t->oracle), keys);
}

/* Collective. Sets *reused; an error only where run.resume forbids to begin afresh. */
static ra_err try_reuse(triage *t, bool *reused)
{
    const char *resume = ra_set_text(t->s, "run.resume"), *dir = ra_set_text(t->s, "run.dir");
    *reused = false;
    if (strcmp(resume, "never") == 0) return RA_OK;
    ra_buf why = {0};
    int same = t->world->rank == 0 && ra_triage_is_current(dir, t->key, &why);
    ra_comm_bcast(t->world, &same, sizeof same, 0);
    ra_err err = RA_OK;
    *reused = same != 0;
    if (same) {
        ra_info("triage: %s/triage.h5 is up to date (run.resume: never begins afresh)", dir);
    } else if (strcmp(resume, "must") == 0) {
        if (t->world->rank == 0)
            err = ra_fail(RA_ERR_DATA, "run.resume is must, but %s/triage.h5 cannot be used: %s", dir, why.data);
        err = ra_comm_agree(t->world, err);
    }
    ra_buf_free(&why);
    return err;
}

/* ---- judging this rank's rows ---- */
static ra_triage_row *add_row(triage *t)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 4096;
        t->rows = ra_realloc(t->rows, (size_t)t->capacity, sizeof *t->rows);
    }
    ra_triage_row *row = &t->rows[t->n++];
    *row = (ra_triage_row){.action = RA_ACTION_NONE, .c_w = -1, .c_l = -1, .rule_w = -1, .rule_l = -1, .category = -1};
    return row;
}

static ra_err judge_row(triage *t, const ra_row *row, ra_triage_row *out)
{
    int index_w = row->chosen_is_first ? 0 : 1;
    const ra_oracle_item items[2] = {
        {row->prompt_text, row->chosen, row->category, row->source, index_w, row->prompt, row->n_prompt},
        {row->prompt_text, row->rejected, row->category, row->source, 1 - index_w, row->prompt, row->n_prompt},
    };
    ra_verdict verdict[2];
    ra_err err = ra_oracle_judge(t->oracle, items, 2, verdict);
    if (err != RA_OK) return ra_fail_in(err, "row %lld", (long long)row->id + 1);
    out->c_w = verdict[0].compliant;
    out->c_l = verdict[1].compliant;
    out->rule_w = verdict[0].rule;
    out->rule_l = verdict[1].rule;
    out->category = ra_category_index(&t->categories, row->category);
    bool held_out = ra_row_held_out(t->s, row->id);
    ra_action action = held_out ? RA_ACTION_NONE : ra_triage_action(out->c_w, out->c_l);
    out->action = (int8_t)action;
    out->state = held_out ? RA_TRIAGE_HELD_OUT : action == RA_ACTION_NONE ? RA_TRIAGE_UNDECIDED : RA_TRIAGE_USED;
    return RA_OK;
}

static ra_err judge_all(triage *t)
{
    for (;;) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        RA_TRY(ra_prefdata_next(t->data, t->world->rank, t->world->size, BLOCK, &row, &status, &more));
        if (!more) return RA_OK;
        ra_triage_row *out = add_row(t);
        if (status == RA_ROW_OK) {
            RA_TRY(judge_row(t, row, out));
        } else {
            out->state = status == RA_ROW_SKIPPED ? RA_TRIAGE_SKIPPED : RA_TRIAGE_MALFORMED;
        }
        if (t->n % 4096 == 0) ra_progress(0, "triage: %lld rows read", (long long)ra_prefdata_counts(t->data)->rows);
    }
}

/* ---- from dealt blocks to contiguous rows ---- */
static int64_t first_row(int64_t total, int rank, int size)
{
    return (int64_t)((__int128)total * rank / size);
}

/* How many of the rows below `end` belong to `rank`. */
static int64_t share_below(int64_t end, int rank, int size)
{
    int64_t round = (int64_t)BLOCK * size, rest = end % round - (int64_t)BLOCK * rank;
    return end / round * BLOCK + (rest < 0 ? 0 : rest > BLOCK ? BLOCK : rest);
}

/* Collective. Afterwards this rank holds rows [first, first + n) of the data in t->rows. Returns first. */
static int64_t gather_contiguous(triage *t, int64_t total)
{
    int size = t->world->size, rank = t->world->rank;
    int *plan = ra_calloc((size_t)size * 4, sizeof *plan), *send = plan, *send_at = plan + size, *get = plan + 2 * size,
        *get_at = plan + 3 * size;
    int64_t first = first_row(total, rank, size), end = first_row(total, rank + 1, size);
    for (int r = 0; r < size; r++) {
        int64_t theirs = first_row(total, r, size), their_end = first_row(total, r + 1, size);
        send_at[r] = (int)share_below(theirs, rank, size);
        send[r] = (int)share_below(their_end, rank, size) - send_at[r];
        get[r] = (int)(share_below(end, r, size) - share_below(first, r, size));
        get_at[r] = r ? get_at[r - 1] + get[r - 1] : 0;
    }
    MPI_Datatype type;
    RA_MPI(MPI_Type_contiguous((int)sizeof(ra_triage_row), MPI_BYTE, &type));
    RA_MPI(MPI_Type_commit(&type));
    ra_triage_row *arrived = ra_alloc((size_t)(end - first), sizeof *arrived),
                  *ordered = ra_realloc(NULL, (size_t)(end - first), sizeof *ordered);
    RA_MPI(MPI_Alltoallv(t->rows, send, send_at, type, arrived, get, get_at, type, t->world->comm));
    RA_MPI(MPI_Type_free(&type));
    for (int64_t id = first; id < end; id++)
        ordered[id - first] = arrived[get_at[id / BLOCK % size]++]; /* each rank's rows come in order */
    ra_free(arrived);
    ra_free(plan);
    free(t->rows);
    t->rows = ordered;
    t->n = t->capacity = end - first;
    return first;
}

/* ---- reports ---- */
typedef struct {
    int64_t row; /* as an editor shows it; 0: none */
    char why[248];
} reason;

static int by_row(const void *a, const void *b)
{
    int64_t x = ((const reason *)a)->row, y = ((const reason *)b)->row;
    return (x > y) - (x < y);
}

/* Collective. Rank 0 tells the first rows of all ranks that cannot be used, and why. */
static void report_reasons(const triage *t, const char *what, int64_t total, const int64_t *rows, const char *const *why)
{
    if (total == 0) return;
    reason mine[SHOWN_REASONS] = {0}, *all = ra_calloc((size_t)t->world->size, sizeof mine);
    for (int i = 0; i < SHOWN_REASONS && why[i]; i++) {
        mine[i].row = rows[i];
        snprintf(mine[i].why, sizeof mine[i].why, "%s", why[i]);
    }
    RA_MPI(MPI_Gather(mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, t->world->comm));
    int n = t->world->size * SHOWN_REASONS, shown = 0;
    if (t->world->rank == 0) qsort(all, (size_t)n, sizeof *all, by_row);
    for (int i = 0; i < n && shown < SHOWN_REASONS; i++) {
        if (all[i].row == 0) continue;
        ra_info("triage: row %lld is %s: %s", (long long)all[i].row, what, all[i].why);
        shown++;
    }
    if (total > shown) ra_info("triage: and %lld more %s rows", (long long)total - shown, what);
    ra_free(all);
}

/* Collective. */
static void report(const triage *t, const ra_triage_counts *counts)
{
    const ra_data_counts *c = ra_prefdata_counts(t->data);
    report_reasons(t, "malformed", counts->state[RA_TRIAGE_MALFORMED], c->first_malformed, c->why_malformed);
    report_reasons(t, "skipped", counts->state[RA_TRIAGE_SKIPPED], c->first_skipped, c->why_skipped);
    ra_buf table = {0}, advice = {0};
    ra_triage_table(counts, &t->categories, t->oracle, &table);
    ra_triage_advice(counts, &advice);
    ra_info("triage: policy %s (%s), schema %s, %lld rows\n%s", ra_oracle_policy(t->oracle)->name, ra_oracle_kind(t->oracle),
            ra_prefdata_schema(t->data), (long long)counts->all.rows, table.data);
    if (t->categories.overflow) {
        ra_info("triage: the category column holds more than %d different texts and is not used", RA_MOST_CATEGORIES);
    }
    if (counts->state[RA_TRIAGE_UNDECIDED] && *ra_oracle_problem(t->oracle)) {
        ra_info("triage: a row could not be decided: %s", ra_oracle_problem(t->oracle));
    }
    if (advice.length && t->world->rank == 0) ra_warn("triage: %.*s", (int)advice.length - 1, advice.data);
    ra_buf_free(&table);
    ra_buf_free(&advice);
}

/* The same limits on any number of ranks. */
static ra_err check_counts(const triage *t, const ra_triage_counts *c)
{
    int64_t limit = ra_set_int(t->s, "data.malformed_limit"), used = c->all.judged[0] + c->all.judged[1];
    if (c->state[RA_TRIAGE_MALFORMED] > limit) {
        return ra_fail(RA_ERR_DATA, "%lld malformed rows among %lld, more than data.malformed_limit = %lld",
                       (long long)c->state[RA_TRIAGE_MALFORMED], (long long)c->all.rows, (long long)limit);
    }
    if (used) return RA_OK;
    return ra_fail(
        RA_ERR_DATA, "triage: none of the %lld rows could be judged (%lld skipped, %lld malformed, %lld undecided%s%s)",
        (long long)c->all.rows, (long long)c->state[RA_TRIAGE_SKIPPED], (long long)c->state[RA_TRIAGE_MALFORMED],
        (long long)c->state[RA_TRIAGE_UNDECIDED], *ra_oracle_problem(t->oracle) ? ": " : "", ra_oracle_problem(t->oracle));
}

/* ---- the stage ---- */
static ra_err open_inputs(triage *t)
{
    if (t->world->rank == 0) RA_TRY(ra_dir_try(ra_set_text(t->s, "run.dir")));
    RA_TRY(ra_oracle_open_settings(t->s, t->world, &t->oracle));
    return ra_prefdata_open_settings(t->s, &t->data);
}

static ra_err make(triage *t)
{
    RA_TRY(ra_comm_agree(t->world, judge_all(t)));
    int64_t total = ra_prefdata_counts(t->data)->rows;
    ra_progress(1, "triage: %lld rows read", (long long)total);
    ra_category_merge(&t->categories, t->world, t->rows, t->n);
    int64_t first = gather_contiguous(t, total);
    ra_triage_counts counts;
    ra_triage_count(&counts, t->world, t->rows, t->n, t->categories.n, ra_oracle_rule_count(t->oracle));
    report(t, &counts);
    ra_err err = ra_comm_agree(t->world, check_counts(t, &counts));
    if (err == RA_OK) {
        ra_buf yaml = {0};
        ra_settings_write_yaml(t->s, &yaml);
        const ra_triage_result result = {ra_set_text(t->s, "run.dir"),
                                         yaml.data,
                                         ra_prefdata_schema(t->data),
                                         t->key,
                                         t->data_hash,
                                         t->oracle,
                                         &t->categories,
                                         &counts,
                                         first,
                                         t->n,
                                         total,
                                         t->rows};
        err = ra_triage_write(&result, t->world);
        ra_buf_free(&yaml);
    }
    ra_triage_counts_free(&counts);
    return err;
}

ra_err ra_stage_triage(const ra_settings *s, const ra_comm *world)
{
    triage *t = ra_calloc(1, sizeof *t);
    t->s = s;
    t->world = world;
    ra_timers *timers = ra_timers_new();
    bool reused = false;
    ra_timer_begin(timers, "triage");
    ra_err err = ra_comm_agree(world, open_inputs(t));
    if (err == RA_OK) err = hash_data(t);
    if (err == RA_OK) make_key(t);
    if (err == RA_OK) err = try_reuse(t, &reused);
    if (err == RA_OK && !reused) err = make(t);
    ra_timer_end(timers, "triage");
    if (err == RA_OK) {
        char *path = ra_path_join(ra_set_text(s, "run.dir"), "timers.tsv");
        err = ra_timers_write(timers, world->comm, "triage", path);
        free(path);
    }
    ra_timers_free(timers);
    ra_prefdata_close(t->data);
    ra_oracle_close(t->oracle);
    ra_category_free(&t->categories);
    free(t->rows);
    free(t->key);
    ra_free(t);
    return err;
}
