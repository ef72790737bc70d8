/* triage: the new policy's verdict on both responses of every row, and the action that follows (METHOD section 2): what the result depends on, its order,
 * what is said about it. */
#include "triage.h"
#include "oracles.h"
#include "run_context.h"

#include <realign/file.h>
#include <realign/hash.h>
#include <realign/judge.h>
#include <realign/log.h>
#include <realign/stage.h>
#include <realign/timer.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = RA_TRIAGE_BLOCK, SHOWN_REASONS = 4 };

typedef struct {
    ra_triage_share share;
    char data_hash[33];
    char *key;
} triage;

/* ---- what the result depends on ---- */
static void make_key(triage *t)
{
    t->key = ra_format("data %s, policy %016" PRIx64 ", keys %016" PRIx64, t->data_hash, ra_oracle_hash(t->share.oracle),
                       ra_prefdata_settings_hash(t->share.s));
}

/* Collective. Sets *reused; an error only where run.resume forbids to begin afresh. */
static ra_err try_reuse(triage *t, bool *reused)
{
    const char *resume = ra_set_text(t->share.s, "run.resume"), *dir = ra_set_text(t->share.s, "run.dir");
    *reused = false;
    if (strcmp(resume, "never") == 0) return RA_OK;
    ra_buf why = {0};
    int same = t->share.world->rank == 0 && ra_triage_is_current(dir, t->key, &why);
    ra_comm_bcast(t->share.world, &same, sizeof same, 0);
    ra_err err = RA_OK;
    *reused = same != 0;
    if (same) {
        ra_info("triage: %s/triage.h5 is up to date (run.resume: never begins afresh)", dir);
    } else if (strcmp(resume, "must") == 0) {
        if (t->share.world->rank == 0)
            err = ra_fail(RA_ERR_DATA, "run.resume is must, but %s/triage.h5 cannot be used: %s", dir, why.data);
        err = ra_comm_agree(t->share.world, err);
    }
    ra_buf_free(&why);
    return err;
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

/* Collective. Afterwards this rank holds rows [first, first + n) of the data in t->share.rows. Returns first. */
static int64_t gather_contiguous(triage *t, int64_t total)
{
    int size = t->share.world->size, rank = t->share.world->rank;
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
    RA_MPI(MPI_Alltoallv(t->share.rows, send, send_at, type, arrived, get, get_at, type, t->share.world->comm));
    RA_MPI(MPI_Type_free(&type));
    for (int64_t id = first; id < end; id++)
        ordered[id - first] = arrived[get_at[id / BLOCK % size]++]; /* each rank's rows come in order */
    ra_free(arrived);
    ra_free(plan);
    free(t->share.rows);
    t->share.rows = ordered;
    t->share.n = t->share.capacity = end - first;
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
    reason mine[SHOWN_REASONS] = {0}, *all = ra_calloc((size_t)t->share.world->size, sizeof mine);
    for (int i = 0; i < SHOWN_REASONS && why[i]; i++) {
        mine[i].row = rows[i];
        snprintf(mine[i].why, sizeof mine[i].why, "%s", why[i]);
    }
    RA_MPI(MPI_Gather(mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, t->share.world->comm));
    int n = t->share.world->size * SHOWN_REASONS, shown = 0;
    if (t->share.world->rank == 0) qsort(all, (size_t)n, sizeof *all, by_row);
    for (int i = 0; i < n && shown < SHOWN_REASONS; i++) {
        if (all[i].row == 0) continue;
        ra_info("triage: row %lld is %s: %s", (long long)all[i].row, what, all[i].why);
        shown++;
    }
    if (total > shown) ra_info("triage: and %lld more %s rows", (long long)total - shown, what);
    ra_free(all);
}

/* Collective. */
static void report(const triage *t, const ra_triage_counts *counts, const ra_agreement *agreement)
{
    const ra_data_counts *c = ra_prefdata_counts(t->share.data);
    report_reasons(t, "malformed", counts->state[RA_TRIAGE_MALFORMED], c->first_malformed, c->why_malformed);
    report_reasons(t, "skipped", counts->state[RA_TRIAGE_SKIPPED], c->first_skipped, c->why_skipped);
    ra_buf table = {0}, advice = {0};
    ra_triage_table(counts, &t->share.categories, t->share.oracle, &table);
    ra_triage_agreement_table(agreement, t->share.oracle, &table);
    ra_triage_advice(counts, &advice);
    ra_info("triage: policy %s (%s), schema %s, %lld rows\n%s", ra_oracle_policy(t->share.oracle)->name,
            ra_oracle_kind(t->share.oracle), ra_prefdata_schema(t->share.data), (long long)counts->all.rows, table.data);
    if (t->share.categories.overflow) {
        ra_info("triage: the category column holds more than %d different texts and is not used", RA_MOST_CATEGORIES);
    }
    if (counts->state[RA_TRIAGE_UNDECIDED] && *ra_oracle_problem(t->share.oracle)) {
        ra_info("triage: a row could not be decided: %s", ra_oracle_problem(t->share.oracle));
    }
    if (counts->flipped) ra_info("triage: oracle.noise turned %lld verdicts round", (long long)counts->flipped);
    if (advice.length && t->share.world->rank == 0) ra_warn("triage: %.*s", (int)advice.length - 1, advice.data);
    ra_buf_free(&table);
    ra_buf_free(&advice);
}

/* The same limits on any number of ranks. */
static ra_err check_counts(const triage *t, const ra_triage_counts *c)
{
    int64_t limit = ra_set_int(t->share.s, "data.malformed_limit"), used = c->all.judged[0] + c->all.judged[1];
    if (c->state[RA_TRIAGE_MALFORMED] > limit) {
        return ra_fail(RA_ERR_DATA, "%lld malformed rows among %lld, more than data.malformed_limit = %lld",
                       (long long)c->state[RA_TRIAGE_MALFORMED], (long long)c->all.rows, (long long)limit);
    }
    if (used) return RA_OK;
    return ra_fail(RA_ERR_DATA,
                   "triage: none of the %lld rows could be judged (%lld skipped, %lld malformed, %lld undecided%s%s)",
                   (long long)c->all.rows, (long long)c->state[RA_TRIAGE_SKIPPED], (long long)c->state[RA_TRIAGE_MALFORMED],
                   (long long)c->state[RA_TRIAGE_UNDECIDED], *ra_oracle_problem(t->share.oracle) ? ": " : "",
                   ra_oracle_problem(t->share.oracle));
}

/* ---- the stage ---- */
/* Collective. What is known once all rows are judged, of all ranks. */
static void count(triage *t, ra_triage_counts *counts, ra_agreement *agreement)
{
    const ra_comm *world = t->share.world;
    ra_triage_count(counts, world, t->share.rows, t->share.n, t->share.categories.n, ra_oracle_rule_count(t->share.oracle));
    counts->flipped = ra_oracle_counted(t->share.oracle)->flipped;
    ra_comm_sum_i64(world, &counts->flipped, 1);
    *agreement = *ra_oracle_agreement(t->share.oracle);
    ra_agreement_sum(agreement, world);
}

static ra_err write(const triage *t, const ra_triage_counts *counts, const ra_agreement *agreement, int64_t first, int64_t total)
{
    const ra_settings *s = t->share.s;
    ra_buf yaml = {0};
    ra_settings_write_yaml(s, &yaml);
    const ra_triage_result result = {.dir = ra_set_text(s, "run.dir"),
                                     .used_yaml = yaml.data,
                                     .schema = ra_prefdata_schema(t->share.data),
                                     .key = t->key,
                                     .data_hash = t->data_hash,
                                     .oracle = t->share.oracle,
                                     .categories = &t->share.categories,
                                     .counts = counts,
                                     .agreement = agreement,
                                     .noise = ra_set_real(s, "oracle.noise"),
                                     .threshold = ra_set_real(s, "oracle.threshold"),
                                     .first = first,
                                     .count = t->share.n,
                                     .total = total,
                                     .rows = t->share.rows};
    ra_err err = ra_triage_write(&result, t->share.world);
    ra_buf_free(&yaml);
    return err;
}

static ra_err make(triage *t)
{
    RA_TRY(ra_prefdata_find_duplicates(t->share.data, t->share.s, t->share.world));
    RA_TRY(ra_triage_judge(&t->share));
    int64_t total = ra_prefdata_counts(t->share.data)->rows;
    ra_progress(1, "triage: %lld rows read", (long long)total);
    ra_category_merge(&t->share.categories, t->share.world, t->share.rows, t->share.n);
    int64_t first = gather_contiguous(t, total);
    ra_triage_counts counts;
    ra_agreement *agreement = ra_alloc(1, sizeof *agreement);
    count(t, &counts, agreement);
    report(t, &counts, agreement);
    ra_err err = ra_comm_agree(t->share.world, check_counts(t, &counts));
    if (err == RA_OK) err = write(t, &counts, agreement, first, total);
    ra_free(agreement);
    ra_triage_counts_free(&counts);
    return err;
}

static ra_err open_data(triage *t)
{
    if (t->share.world->rank == 0) RA_TRY(ra_dir_try(ra_set_text(t->share.s, "run.dir")));
    return ra_prefdata_open_settings(t->share.s, &t->share.data);
}

ra_err ra_triage_with(const ra_settings *s, const ra_comm *world, ra_oracle *oracle)
{
    triage *t = ra_calloc(1, sizeof *t);
    t->share = (ra_triage_share){.s = s, .world = world, .oracle = oracle};
    ra_timers *timers = ra_timers_new();
    bool reused = false;
    ra_oracle_set_noise(oracle, ra_set_real(s, "oracle.noise"), (uint64_t)ra_set_int(s, "seed"));
    ra_timer_begin(timers, "triage");
    ra_err err = ra_comm_agree(world, open_data(t));
    if (err == RA_OK) err = ra_prefdata_hash_files(s, world, t->data_hash);
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
    ra_prefdata_close(t->share.data);
    ra_err closed = ra_oracle_close(oracle);
    if (err == RA_OK) err = ra_comm_agree(world, closed);
    ra_category_free(&t->share.categories);
    free(t->share.rows);
    free(t->key);
    ra_free(t);
    return err;
}

/* Collective over grid->world. Stage 0 of each replica triages, the others hold their part of the judge's model. */
static ra_err triage_spread(const ra_settings *s, const ra_grid *grid, ra_oracle *oracle)
{
    ra_err err;
    if (grid->stage == 0) {
        err = ra_triage_with(s, &grid->data, oracle);
        ra_grid_call(grid, RA_CALL_END);
    } else {
        ra_runctl control = ra_run_control(s);
        ra_runctl_start(&control); /* signals are stage 0's to answer; here they must not kill */
        err = ra_oracle_serve(oracle, NULL, grid);
        ra_runctl_end();
        ra_oracle_close(oracle);
    }
    return ra_comm_agree(&grid->world, err);
}

ra_err ra_stage_triage(const ra_settings *s, const ra_comm *world)
{
    ra_oracle *oracle = NULL;
    ra_grid grid;
    RA_TRY(ra_grid_make(world, (int32_t)ra_set_int(s, "grid.pipeline"), &grid));
    ra_err err = ra_grid_check(s, &grid);
    if (err == RA_OK) err = ra_oracle_open_settings(s, &grid, NULL, &oracle);
    err = ra_comm_agree(world, err);
    if (err == RA_OK) {
        err = ra_oracle_is_spread(oracle, &grid) ? triage_spread(s, &grid, oracle) : ra_triage_with(s, world, oracle);
    } else {
        ra_oracle_close(oracle);
    }
    ra_grid_free(&grid);
    return err;
}
