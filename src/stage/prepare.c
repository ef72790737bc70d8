/* prepare: preference rows -> sample store. Blocks of rows are dealt to the ranks; in each round every rank reads, renders and tokenises its block, and
 * the store's writer puts the blocks in order. No rank holds more than a block of rows, and rank 0 the integers of the index. */
#include "open_text.h"
#include "prepare_sample.h"
#include "prepare_tally.h"
#include <realign/file.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>
#include <realign/timer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    const char *dir;
    ra_tokenizer *tokenizer;
    ra_template *tpl;
    ra_sample_rules rules;
    ra_timers *timers;
    char **depends_on;
    int64_t n_depends_on;
    ra_tally tally;
    ra_duplicates *rows, *prompts; /* seen so far */
    bool drop_duplicates;
} prepare;

/* ---- what the store depends on ---- */

static void depend(prepare *p, char *line)
{
    p->depends_on = ra_realloc(p->depends_on, (size_t)p->n_depends_on + 1, sizeof *p->depends_on);
    p->depends_on[p->n_depends_on++] = line;
}

/* A file is known by path, size and time of change: reading terabytes to see that nothing changed would cost as much as preparing them. */
static ra_err depend_on_file(prepare *p, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) return ra_fail(RA_ERR_IO, "data.path: %s: %m", path);
    depend(p, ra_format("data.path=%s, %lld bytes, changed at %lld.%09ld", path, (long long)info.st_size,
                        (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
    return RA_OK;
}

static void depend_on_list(prepare *p, const char *key)
{
    const char *const *items;
    ra_buf line = {0};
    int n = ra_set_list(p->s, key, &items);
    ra_buf_addf(&line, "%s=[", key);
    for (int i = 0; i < n; i++) ra_buf_addf(&line, "%s%s", i ? ", " : "", items[i]);
    ra_buf_adds(&line, "]");
    depend(p, line.data);
}

static ra_err list_dependencies(prepare *p)
{
    static const char *const texts[] = {"data.schema", "data.truncate", "data.duplicates", "data.identical", "data.empty"};
    static const char *const numbers[] = {"data.max_tokens", "data.limit", "data.row_limit", "data.malformed_limit"};
    static const char *const lists[] = {"data.columns", "data.weights", "data.caps"};
    const char *own = ra_tokenizer_chat_template(p->tokenizer);
    char hash[33];
    ra_hash_text(ra_hash_bytes(own, own ? strlen(own) : 0), hash);
    depend(p, ra_format("tokenizer=%016llx", (unsigned long long)ra_tokenizer_hash(p->tokenizer)));
    const char *date = ra_template_date(p->tpl);
    depend(p, ra_format("template=%s%s%s, the tokenizer's own has hash %s", ra_template_name(p->tpl), date ? " of " : "",
                        date ? date : "", own ? hash : "(none)"));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        depend(p, ra_format("%s=%s", texts[i], ra_set_text(p->s, texts[i])));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        depend(p, ra_format("%s=%lld", numbers[i], (long long)ra_set_int(p->s, numbers[i])));
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) depend_on_list(p, lists[i]);
    const char *const *weights;
    if (ra_set_list(p->s, "data.weights", &weights) > 0) depend(p, ra_format("seed=%lld", (long long)ra_set_int(p->s, "seed")));
    char **files;
    int n;
    RA_TRY(ra_prefdata_list_files(p->s, &files, &n));
    ra_err err = RA_OK;
    for (int i = 0; i < n && err == RA_OK; i++) err = depend_on_file(p, files[i]);
    ra_prefdata_free_files(files, n);
    return err;
}

/* Rank 0. Is there a sound store made from the same? Otherwise `why` says what keeps it from being used. */
static bool is_up_to_date(prepare *p, ra_buf *why)
{
    char **lines = NULL;
    int64_t n = 0;
    char *index = ra_path_join(p->dir, "store.h5");
    bool there = ra_file_exists(index), same = false;
    free(index);
    if (!there) {
        ra_buf_adds(why, "there is none yet");
    } else if (ra_store_depends_on(p->dir, &lines, &n) != RA_OK) {
        ra_buf_adds(why, ra_error_message());
    } else {
        int64_t i = 0;
        while (i < n && i < p->n_depends_on && strcmp(lines[i], p->depends_on[i]) == 0) i++;
        same = i == n && i == p->n_depends_on;
        if (!same) {
            ra_buf_addf(why, "it was made from %s, now it is %s", i < n ? lines[i] : "fewer files",
                        i < p->n_depends_on ? p->depends_on[i] : "fewer files");
        }
    }
    free(lines);
    return same;
}

static void report_reuse(const prepare *p, const ra_store *store)
{
    int64_t usable = 0, tokens = 0, n = ra_store_count(store);
    for (int64_t i = 0; i < n; i++) {
        usable += ra_store_state(store, i) == RA_SAMPLE_OK;
        tokens += ra_store_tokens(store, i);
    }
    ra_info("prepare: reusing the store in %s: %lld rows, %lld usable, %lld tokens, hash %016llx", p->dir, (long long)n,
            (long long)usable, (long long)tokens, (unsigned long long)ra_store_hash(store));
}

/* Collective. Sets *reused; an error only where run.resume forbids to begin afresh. */
static ra_err try_reuse(prepare *p, bool *reused)
{
    const char *resume = ra_set_text(p->s, "run.resume");
    *reused = false;
    if (strcmp(resume, "never") == 0) return RA_OK;
    ra_buf why = {0};
    int same = p->world->rank == 0 && is_up_to_date(p, &why);
    ra_comm_bcast(p->world, &same, sizeof same, 0);
    ra_store *store = NULL;
    if (same && ra_store_open_shared(p->dir, p->world, &store) != RA_OK) {
        ra_buf_clear(&why);
        ra_buf_adds(&why, ra_error_message());
        same = 0;
    }
    ra_err err = RA_OK;
    if (same) {
        report_reuse(p, store);
        *reused = true;
    } else if (strcmp(resume, "must") == 0) {
        err = p->world->rank == 0
                  ? ra_fail(RA_ERR_DATA, "run.resume is must, but the store in %s cannot be used: %s", p->dir, why.data)
                  : RA_OK;
        err = ra_comm_agree(p->world, err);
    } else {
        ra_info("prepare: making the store in %s: %s", p->dir, why.data ? why.data : "");
    }
    ra_store_close(store);
    ra_buf_free(&why);
    return err;
}

/* ---- rounds ---- */

static ra_err read_block(prepare *p, ra_prefdata *data, ra_job *jobs, int *n)
{
    for (*n = 0; *n < RA_STORE_BLOCK;) {
        const ra_row *row;
        ra_row_status status;
        bool more;
        RA_TRY(ra_prefdata_next(data, p->world->rank, p->world->size, RA_STORE_BLOCK, &row, &status, &more));
        if (!more) return RA_OK;
        ra_job_begin(&jobs[(*n)++], row, status);
    }
    return RA_OK;
}

/* Collective. Which rows of this round repeat an earlier row, or its prompt alone. */
static void find_repeats(prepare *p, ra_job *jobs, int n)
{
    ra_hash row[RA_STORE_BLOCK], prompt[RA_STORE_BLOCK];
    int64_t id[RA_STORE_BLOCK], first_row[RA_STORE_BLOCK], first_prompt[RA_STORE_BLOCK];
    ra_job *asked[RA_STORE_BLOCK];
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (jobs[i].sample.state != RA_SAMPLE_OK) continue;
        row[m] = jobs[i].hash;
        prompt[m] = (ra_hash){jobs[i].prompt_hash, jobs[i].prompt_hash};
        id[m] = jobs[i].id;
        asked[m++] = &jobs[i];
    }
    ra_duplicates_add(p->rows, row, id, m, first_row);
    ra_duplicates_add(p->prompts, prompt, id, m, first_prompt);
    for (int i = 0; i < m; i++) {
        asked[i]->prompt_again = first_prompt[i] < id[i];
        if (first_row[i] == id[i]) continue;
        asked[i]->repeats = first_row[i];
        if (!p->drop_duplicates) continue;
        char why[80];
        snprintf(why, sizeof why, "prompt and responses of row %lld", (long long)first_row[i] + 1);
        ra_job_refuse(asked[i], RA_SAMPLE_DUPLICATE, why);
    }
}

static ra_err run_block(prepare *p, ra_job *jobs, int n, ra_sample *samples)
{
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < n; i++) ra_job_run(&jobs[i], &p->rules);
    for (int i = 0; i < n; i++) {
        if (jobs[i].err != RA_OK) return ra_fail(jobs[i].err, "row %lld: %s", (long long)jobs[i].id + 1, jobs[i].why);
        samples[i] = jobs[i].sample;
        ra_tally_add(&p->tally, &jobs[i], ra_row_held_out(p->s, jobs[i].prompt_hash));
    }
    return RA_OK;
}

/* Collective. Rows and malformed rows of all ranks so far; too many malformed ones are an error on any rank count. */
static ra_err check_totals(const prepare *p, int64_t *rows)
{
    int64_t totals[2] = {p->tally.rows, p->tally.state[RA_SAMPLE_MALFORMED]}, limit = ra_set_int(p->s, "data.malformed_limit");
    ra_comm_sum_i64(p->world, totals, 2);
    *rows = totals[0];
    if (totals[1] <= limit) return RA_OK;
    return ra_fail(RA_ERR_DATA, "%lld malformed rows among the first %lld, more than data.malformed_limit = %lld",
                   (long long)totals[1], (long long)totals[0], (long long)limit);
}

static ra_err run_rounds(prepare *p, ra_prefdata *data, ra_store_writer *writer, ra_job *jobs)
{
    ra_sample samples[RA_STORE_BLOCK];
    int64_t rows = 0;
    bool ended = false;
    for (int64_t before = -1; rows > before;) {
        before = rows;
        int n = 0;
        ra_timer_begin(p->timers, "read rows");
        ra_err err = ended ? RA_OK : read_block(p, data, jobs, &n);
        ended = n < RA_STORE_BLOCK;
        ra_timer_end(p->timers, "read rows");
        RA_TRY(ra_comm_agree(p->world, err));
        ra_timer_begin(p->timers, "find repeated rows");
        find_repeats(p, jobs, n);
        ra_timer_end(p->timers, "find repeated rows");
        ra_timer_begin(p->timers, "render and tokenise");
        err = run_block(p, jobs, n, samples);
        ra_timer_end(p->timers, "render and tokenise");
        RA_TRY(ra_comm_agree(p->world, err));
        RA_TRY(check_totals(p, &rows));
        ra_timer_begin(p->timers, "write tokens");
        err = ra_store_add_round(writer, samples, n);
        ra_timer_end(p->timers, "write tokens");
        for (int i = 0; i < n; i++) ra_job_end(&jobs[i]);
        RA_TRY(err);
        ra_progress(0, "prepare: %lld rows", (long long)rows);
    }
    ra_progress(1, "prepare: %lld rows", (long long)rows);
    return RA_OK;
}

static void report(const prepare *p, const char *schema, char *const *sources, double seconds)
{
    if (p->world->rank != 0) return;
    ra_buf table = {0};
    ra_tally_print(&p->tally, seconds, &table);
    for (int i = 0; i < p->tally.n_origins && p->tally.n_origins > 1; i++) ra_buf_addf(&table, "  %s\n", sources[i]);
    ra_info("prepare: schema %s, template %s, at most %lld tokens a sequence, longer ones: %s\n%s", schema,
            ra_template_name(p->tpl), (long long)p->rules.max_tokens, ra_set_text(p->s, "data.truncate"), table.data);
    ra_buf_free(&table);
}

/* Collective. What the rows came to, as an error where nothing can be used. */
static ra_err check_usable(const prepare *p)
{
    const ra_tally *t = &p->tally;
    if (t->state[RA_SAMPLE_OK] > 0) return RA_OK;
    ra_buf counts = {0};
    for (int i = RA_SAMPLE_OK + 1; i < RA_SAMPLE_STATES; i++) {
        if (i > RA_SAMPLE_TOO_LONG && t->state[i] == 0) continue;
        ra_buf_addf(&counts, "%s%lld %s", i > RA_SAMPLE_OK + 1 ? ", " : "", (long long)t->state[i],
                    ra_sample_state_name((ra_sample_state)i));
    }
    ra_err err = ra_fail(RA_ERR_DATA, "prepare: none of the %lld rows can be used (%s)", (long long)t->rows, counts.data);
    ra_buf_free(&counts);
    return err;
}

/* Collective. Tells what the rows came to and commits the store. Frees *writer where it does. */
static ra_err finish(prepare *p, const ra_prefdata *data, ra_store_writer **writer, double seconds)
{
    ra_tally_merge(&p->tally, p->world);
    char **sources = ra_tally_sources(&p->tally, data);
    report(p, ra_prefdata_schema(data), sources, seconds);
    ra_err err = check_usable(p);
    if (err == RA_OK) {
        ra_buf yaml = {0};
        ra_settings_write_yaml(p->s, &yaml);
        ra_timer_begin(p->timers, "finish store");
        ra_store_note_sources(*writer, (const char *const *)sources, p->tally.n_origins);
        err = ra_store_commit(*writer, (const char *const *)p->depends_on, p->n_depends_on, yaml.data);
        *writer = NULL;
        ra_timer_end(p->timers, "finish store");
        ra_buf_free(&yaml);
    }
    for (int i = 0; i < p->tally.n_origins; i++) free(sources[i]);
    free(sources);
    return err;
}

static ra_err make_store(prepare *p, ra_prefdata *data)
{
    double begin = ra_now();
    ra_store_writer *writer;
    RA_TRY(ra_store_create(p->dir, p->world, &writer));
    p->rows = ra_duplicates_new(p->world);
    p->prompts = ra_duplicates_new(p->world);
    p->drop_duplicates = strcmp(ra_set_text(p->s, "data.duplicates"), "drop") == 0;
    ra_tally_begin(&p->tally, ra_prefdata_origins(data));
    ra_job *jobs = ra_calloc(RA_STORE_BLOCK, sizeof *jobs);
    ra_err err = run_rounds(p, data, writer, jobs);
    for (int i = 0; i < RA_STORE_BLOCK; i++) ra_job_free(&jobs[i]);
    ra_free(jobs);
    if (err == RA_OK) err = finish(p, data, &writer, ra_now() - begin);
    if (err != RA_OK) ra_store_abandon(writer);
    return err;
}

/* ---- the stage ---- */

static ra_err open_inputs(prepare *p, ra_prefdata **data)
{
    if (p->world->rank == 0) RA_TRY(ra_dir_try(p->dir));
    RA_TRY(ra_tokenizer_open(ra_set_text(p->s, "tokenizer"), &p->tokenizer));
    bool looked;
    RA_TRY(ra_check_tokenizer_early(p->s, p->tokenizer, &looked));
    if (!looked && p->world->rank == 0) {
        ra_info("prepare: no model to be seen yet; whether the tokenizer fits it (%d ids) is checked when it is opened",
                ra_tokenizer_vocabulary_size(p->tokenizer));
    }
    RA_TRY(ra_open_template(p->s, p->tokenizer, &p->tpl));
    p->rules = (ra_sample_rules){.tpl = p->tpl,
                                 .bos = ra_tokenizer_bos(p->tokenizer),
                                 .max_tokens = ra_set_int(p->s, "data.max_tokens"),
                                 .truncate = ra_truncate_of(ra_set_text(p->s, "data.truncate"))};
    RA_TRY(list_dependencies(p)); /* before the data are read: what changes meanwhile is noticed the next time */
    return ra_prefdata_open_settings(p->s, data);
}

static void close_all(prepare *p, ra_prefdata *data)
{
    ra_prefdata_close(data);
    ra_template_close(p->tpl);
    ra_tokenizer_close(p->tokenizer);
    ra_timers_free(p->timers);
    ra_duplicates_free(p->rows);
    ra_duplicates_free(p->prompts);
    ra_tally_free(&p->tally);
    for (int64_t i = 0; i < p->n_depends_on; i++) free(p->depends_on[i]);
    free(p->depends_on);
    ra_free(p);
}

ra_err ra_stage_prepare(const ra_settings *s, const ra_comm *world)
{
    prepare *p = ra_calloc(1, sizeof *p);
    *p = (prepare){.s = s, .world = world, .dir = ra_set_text(s, "run.dir"), .timers = ra_timers_new()};
    ra_prefdata *data = NULL;
    bool reused = false;
    ra_timer_begin(p->timers, "prepare");
    ra_err err = ra_comm_agree(world, open_inputs(p, &data));
    if (err == RA_OK) err = try_reuse(p, &reused);
    if (err == RA_OK && !reused) err = make_store(p, data);
    ra_timer_end(p->timers, "prepare");
    if (err == RA_OK) {
        char *path = ra_path_join(p->dir, "timers.tsv");
        err = ra_timers_write(p->timers, world->comm, "prepare", path);
        free(path);
    }
    close_all(p, data);
    return err;
}
