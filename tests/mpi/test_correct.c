/* Corrections on any number of ranks: the same files; what fell back is counted and never used; a run weighs and trains with what is left; stops, reuse, refusals. */
#include "../../src/stage/corrections.h"
#include "../../src/stage/run_context.h"
#include "support/correct_run.h"
#include "support/support.h"

#include <realign/file.h>
#include <realign/gold.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const ra_comm alone = {MPI_COMM_SELF, 0, 1};

/* Collective. A directory with model, data and policy. */
static char *make_dir(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world);
    ra_err err = ra_comm_agree(world, world->rank == 0 ? correct_run_make(dir) : RA_OK);
    if (err != RA_OK) ra_die("%s", ra_error_message());
    return dir;
}

static ra_err run_to_triage(const ra_settings *s, const ra_comm *comm)
{
    RA_TRY(ra_stage_prepare(s, comm));
    return ra_stage_triage(s, comm);
}

static ra_err run_to_corrections(const ra_settings *s, const ra_comm *comm)
{
    RA_TRY(run_to_triage(s, comm));
    return ra_stage_correct(s, comm);
}

static ra_buf read_file(const char *dir, const char *run, const char *name)
{
    ra_buf text = {0};
    char *base = ra_path_join(dir, run), *path = ra_path_join(base, name);
    if (ra_file_read(path, &text) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
    free(base);
    return text;
}

static const char *same_file(const char *dir, const char *a, const char *b, const char *name)
{
    ra_buf x = read_file(dir, a, name), y = read_file(dir, b, name);
    bool same = x.length == y.length && x.length > 0 && memcmp(x.data, y.data, x.length) == 0;
    MPI_EXPECT(same, "%s of %s and %s differ (%zu and %zu bytes)", name, a, b, x.length, y.length);
    ra_buf_free(&x);
    ra_buf_free(&y);
    return NULL;
}

static ra_corrections read_corrections(const char *dir, const char *run)
{
    ra_corrections c;
    uint64_t key;
    char *path = ra_path_join(dir, run);
    if (ra_corrections_read(path, &c, &key) != RA_OK) ra_die("%s", ra_error_message());
    free(path);
    return c;
}

static const char *same_corrections(const char *dir, const char *a, const char *b)
{
    ra_corrections x = read_corrections(dir, a), y = read_corrections(dir, b);
    MPI_EXPECT(x.n == y.n && x.tokens == y.tokens, "%d and %d pairs", (int)x.n, (int)y.n);
    MPI_EXPECT(memcmp(x.token, y.token, (size_t)x.tokens * sizeof *x.token) == 0, "tokens differ");
    for (int64_t i = 0; i < x.n; i++) {
        ra_correction_row p = x.row[i], q = y.row[i];
        bool both_nan = isnan(p.probability) && isnan(q.probability);
        if (both_nan) p.probability = q.probability = p.margin = q.margin = 0.0f;
        bool same = p.id == q.id && p.outcome == q.outcome && p.attempts == q.attempts && p.verdict == q.verdict &&
                    p.rule == q.rule && p.probability == q.probability && p.margin == q.margin &&
                    p.prompt_count == q.prompt_count && memcmp(p.count, q.count, sizeof p.count) == 0 &&
                    memcmp(p.skip, q.skip, sizeof p.skip) == 0;
        MPI_EXPECT(same, "the row of sample %d differs", (int)p.id);
    }
    ra_corrections_free(&x);
    ra_corrections_free(&y);
    return NULL;
}

/* Collective. The same on the first rank alone, in dir/one, and on all in dir/all. */
static const char *on_one_and_all(const ra_comm *world, const char *dir, const char *data, const char *const *words)
{
    ra_settings *one = correct_run_settings(dir, "one", data, words), *all = correct_run_settings(dir, "all", data, words);
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? run_to_corrections(one, &alone) : RA_OK));
    MPI_EXPECT_OK(run_to_corrections(all, world));
    RA_MPI(MPI_Barrier(world->comm));
    ra_settings_free(one);
    ra_settings_free(all);
    const char *failed = same_file(dir, "one", "all", "corrections.jsonl");
    return failed ? failed : same_corrections(dir, "one", "all");
}

static int count_outcomes(const ra_corrections *c, int outcome)
{
    int n = 0;
    for (int64_t i = 0; i < c->n; i++) n += c->row[i].outcome == outcome;
    return n;
}

/* ---- a column ---- */
static int wanted_outcome(int i)
{
    switch (correct_run_column(i)) {
    case COLUMN_GOOD: return RA_CORRECTION_USED;
    case COLUMN_BAD: return RA_CORRECTION_REFUSED;
    case COLUMN_LONG: return RA_CORRECTION_TOO_LONG;
    default: return RA_CORRECTION_MISSING;
    }
}

static const char *column(const ra_comm *world)
{
    char *dir = make_dir(world);
    const char *failed = on_one_and_all(world, dir, "column.jsonl", NULL);
    if (failed) return failed;
    ra_corrections c = read_corrections(dir, "all");
    MPI_EXPECT(c.n == CORRECT_ROWS / 2, "%d pairs", (int)c.n);
    for (int64_t i = 0; i < c.n; i++) {
        int id = (int)c.row[i].id, wanted = wanted_outcome(id);
        MPI_EXPECT(c.row[i].outcome == wanted, "row %d: outcome %d, not %d", id, c.row[i].outcome, wanted);
        MPI_EXPECT((c.row[i].count[RA_CORRECTION] > 0) == (wanted == RA_CORRECTION_USED), "row %d: tokens of a correction", id);
        MPI_EXPECT(c.row[i].attempts == (wanted != RA_CORRECTION_MISSING), "row %d: %d attempts", id, c.row[i].attempts);
    }
    ra_corrections_free(&c);

    /* a run uses what the oracle accepted, and nothing else of what the store holds */
    ra_settings *s = correct_run_settings(dir, "all", "column.jsonl", NULL);
    ra_store *store;
    ra_run run;
    MPI_EXPECT_OK(ra_store_open(ra_set_text(s, "run.dir"), &store));
    MPI_EXPECT_OK(ra_run_open(s, world, &run));
    int in_store = 0, used = 0;
    for (int i = 0; i < CORRECT_ROWS; i++) {
        ra_sample stored = ra_store_get(store, i), shown = ra_store_get(run.store, i);
        MPI_EXPECT(stored.state == RA_SAMPLE_OK, "row %d: a correction that does not fit cost the pair (%s)", i,
                   ra_sample_state_name(stored.state));
        in_store += stored.response[RA_CORRECTION].count > 0;
        if (!correct_run_punished(i)) continue;
        bool corrected = wanted_outcome(i) == RA_CORRECTION_USED;
        used += corrected;
        MPI_EXPECT(ra_run_kind(&run, i) == (corrected ? RA_LOSS_PUNISH_CORRECTED : RA_LOSS_PUNISH), "row %d: kind %d", i,
                   (int)ra_run_kind(&run, i));
        if (!corrected) continue;
        bool same = stored.prompt_count == shown.prompt_count;
        for (int r = 0; r < RA_ROLES && same; r++) {
            same = stored.response[r].count == shown.response[r].count && stored.response[r].skip == shown.response[r].skip &&
                   memcmp(stored.response[r].token, shown.response[r].token, (size_t)shown.response[r].count * 4) == 0;
        }
        MPI_EXPECT(same, "row %d is shown other than prepare made it with the same correction", i);
    }
    MPI_EXPECT(in_store > used && used > 5, "%d corrections in the store, %d used", in_store, used);
    /* the gold batch takes a pair's own y_c where there is one */
    ra_gold_pair pair[30];
    int64_t pairs = ra_gold_draw(run.store, run.action, 30, 1, pair), own = 0;
    for (int64_t i = 0; i < pairs; i++) {
        bool takes = pair[i].better == RA_CORRECTION;
        own += takes;
        bool corrected = correct_run_punished((int)pair[i].sample) && wanted_outcome((int)pair[i].sample) == RA_CORRECTION_USED;
        MPI_EXPECT(takes == corrected, "gold pair of sample %d", (int)pair[i].sample);
    }
    MPI_EXPECT(own > 0, "no gold pair has a correction");
    uint64_t with = run.key;
    ra_run_close(&run);
    CHECK_OK(ra_set_put(s, "correct.source", "none"));
    MPI_EXPECT_OK(ra_run_open(s, world, &run));
    for (int i = 0; i < CORRECT_ROWS; i++)
        MPI_EXPECT(ra_store_get(run.store, i).response[RA_CORRECTION].count == 0, "source none: row %d has a correction", i);
    MPI_EXPECT(run.key != with, "weights with and without corrections have the same key");
    ra_run_close(&run);
    ra_store_close(store);
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* ---- a model ---- */
static const char *const sampled[] = {"correct.source=model", NULL};

/* Data whose column holds what the model wrote. */
static ra_err write_as_column(const char *dir)
{
    ra_buf rows = read_file(dir, ".", "rows.jsonl"), lines = read_file(dir, "all", "corrections.jsonl"), out = {0};
    const char *line = lines.data, *row = rows.data;
    for (int i = 0; i < CORRECT_ROWS; i++) {
        json_t *r = json_loads(row, JSON_DISABLE_EOF_CHECK, NULL);
        json_t *c = *line ? json_loads(line, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
        bool mine = c && json_integer_value(json_object_get(c, "id")) == i;
        if (mine && strcmp(json_string_value(json_object_get(c, "outcome")), "corrected") == 0)
            json_object_set(r, "correction", json_object_get(c, "correction"));
        if (mine) line = strchr(line, '\n') + 1;
        char *text = json_dumps(r, 0);
        ra_buf_addf(&out, "%s\n", text);
        free(text);
        json_decref(r);
        json_decref(c);
        row = strchr(row, '\n') + 1;
    }
    char *path = ra_path_join(dir, "written.jsonl");
    ra_err err = ra_file_write(path, out.data, out.length);
    free(path);
    ra_buf_free(&rows);
    ra_buf_free(&lines);
    ra_buf_free(&out);
    return err;
}

/* What the store shows is what prepare would have made of the rows with these corrections in them. */
static const char *as_prepared(const ra_comm *world, const char *dir, const char *const *words, const char *const *form)
{
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? write_as_column(dir) : RA_OK));
    ra_settings *s = correct_run_settings(dir, "all", "rows.jsonl", words),
                *t = correct_run_settings(dir, "again", "written.jsonl", form);
    MPI_EXPECT_OK(ra_stage_prepare(t, world));
    ra_run run;
    ra_store *store;
    MPI_EXPECT_OK(ra_run_open(s, world, &run));
    MPI_EXPECT_OK(ra_store_open(ra_set_text(t, "run.dir"), &store));
    for (int i = 0; i < CORRECT_ROWS; i++) {
        ra_sample a = ra_store_get(run.store, i), b = ra_store_get(store, i);
        MPI_EXPECT(a.prompt_count == b.prompt_count && memcmp(a.prompt, b.prompt, (size_t)a.prompt_count * 4) == 0,
                   "row %d: prompts differ", i);
        for (int r = 0; r < RA_ROLES; r++) {
            bool same = a.response[r].count == b.response[r].count && a.response[r].skip == b.response[r].skip &&
                        (a.response[r].count == 0 ||
                         memcmp(a.response[r].token, b.response[r].token, (size_t)a.response[r].count * 4) == 0);
            MPI_EXPECT(same, "row %d, role %d: branches differ", i, r);
        }
    }
    ra_store_close(store);
    ra_run_close(&run);
    ra_settings_free(s);
    ra_settings_free(t);
    return NULL;
}

/* Weighing and training on it: y_c has a reference where eq. 2c is used, y_l where eq. 2 is. */
static const char *weighed_and_trained(const ra_comm *world, const char *dir)
{
    ra_settings *s = correct_run_settings(dir, "all", "rows.jsonl", sampled);
    MPI_EXPECT_OK(ra_stage_weigh(s, world));
    MPI_EXPECT_OK(ra_stage_train(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    ra_corrections c = read_corrections(dir, "all");
    char *path = ra_path_join(ra_set_text(s, "run.dir"), "weights.h5");
    ra_h5 *h5;
    double reference[CORRECT_ROWS * RA_ROLES];
    int64_t corrected;
    MPI_EXPECT_OK(ra_h5_open(path, NULL, &h5));
    MPI_EXPECT_OK(ra_h5_read(h5, "reference_logp", H5T_NATIVE_DOUBLE, 0, -1, reference));
    MPI_EXPECT_OK(ra_h5_read_attr_i64(h5, "/", "corrected", &corrected));
    ra_h5_close(h5);
    for (int64_t i = 0; i < c.n; i++) {
        bool used = c.row[i].outcome == RA_CORRECTION_USED;
        const double *r = reference + c.row[i].id * RA_ROLES;
        MPI_EXPECT(isfinite(r[RA_CHOSEN]) && isfinite(r[RA_CORRECTION]) == used && isfinite(r[RA_REJECTED]) == !used,
                   "sample %d: references %g %g %g", (int)c.row[i].id, r[0], r[1], r[2]);
    }
    MPI_EXPECT(corrected == count_outcomes(&c, RA_CORRECTION_USED), "weights.h5 counts %d corrected pairs", (int)corrected);
    ra_corrections_free(&c);
    free(path);

    /* other corrections than those that were weighed are refused */
    CHECK_OK(ra_set_put(s, "correct.temperature", "0.9"));
    ra_err err = ra_stage_weigh(s, world);
    MPI_EXPECT(err == RA_ERR_DATA && strstr(ra_error_message(), "corrections.h5") &&
                   strstr(ra_error_message(), "realign correct"),
               "%d: %s", err, ra_error_message());
    CHECK_OK(ra_set_put(s, "correct.source", "none"));
    err = ra_stage_train(s, world);
    MPI_EXPECT(err == RA_ERR_DATA && strstr(ra_error_message(), "run weigh again"), "%d: %s", err, ra_error_message());
    ra_settings_free(s);
    return NULL;
}

static const char *model(const ra_comm *world)
{
    char *dir = make_dir(world);
    const char *failed = on_one_and_all(world, dir, "rows.jsonl", sampled);
    if (failed) return failed;
    ra_corrections c = read_corrections(dir, "all");
    int used = count_outcomes(&c, RA_CORRECTION_USED), again = 0;
    for (int64_t i = 0; i < c.n; i++) again += c.row[i].outcome == RA_CORRECTION_USED && c.row[i].attempts > 1;
    MPI_EXPECT(c.n == CORRECT_ROWS / 2 && used > 5 && used < c.n && again > 3, "%d pairs, %d used, %d of them not at once",
               (int)c.n, used, again);
    for (int64_t i = 0; i < c.n; i++)
        MPI_EXPECT(c.row[i].outcome == RA_CORRECTION_USED || c.row[i].attempts == 4, "sample %d gave up early", (int)c.row[i].id);
    ra_corrections_free(&c);
    failed = as_prepared(world, dir, sampled, NULL);
    if (!failed) failed = weighed_and_trained(world, dir);
    if (failed) return failed;
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* A prompt that is cut is cut again where a correction is the longest response; a template without turns. */
static const char *forms(const ra_comm *world)
{
    static const char *const words[][5] = {
        {"correct.source=model", "data.truncate=left", "data.max_tokens=36", NULL},
        {"correct.source=model", "template=plain", "data.truncate=right", "data.max_tokens=20", NULL}};
    for (int i = 0; i < 2; i++) {
        char *dir = make_dir(world);
        const char *failed = on_one_and_all(world, dir, "rows.jsonl", words[i]);
        if (!failed) failed = as_prepared(world, dir, words[i], words[i] + 1);
        if (failed) return failed;
        ra_corrections c = read_corrections(dir, "all");
        int cut = 0;
        for (int64_t k = 0; k < c.n; k++) cut += c.row[k].cut > 0;
        MPI_EXPECT(cut > 0 && cut < c.n, "form %d: %d of %d corrected pairs were cut", i, cut,
                   count_outcomes(&c, RA_CORRECTION_USED));
        ra_corrections_free(&c);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* ---- stops and reuse ---- */
static int64_t lines_in_candidates(const char *dir, const char *run)
{
    int64_t lines = 0;
    for (int rank = 0; rank < 4; rank++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%s/candidates/rank-%05d.jsonl", dir, run, rank);
        ra_buf text = {0};
        if (ra_file_exists(name) && ra_file_read(name, &text) == RA_OK) {
            for (size_t i = 0; i < text.length; i++) lines += text.data[i] == '\n';
        }
        ra_buf_free(&text);
    }
    return lines;
}

/* Takes half of the candidates of every rank away, the last one in its middle. */
static void tear_candidates(const char *dir, const char *run)
{
    for (int rank = 0; rank < 4; rank++) {
        char name[64];
        struct stat info;
        snprintf(name, sizeof name, "%s/%s/candidates/rank-%05d.jsonl", dir, run, rank);
        if (stat(name, &info) == 0 && truncate(name, info.st_size / 2) != 0) ra_die("%s: %m", name);
    }
}

static ino_t inode_of(const char *dir, const char *run)
{
    struct stat info = {0};
    char *base = ra_path_join(dir, run), *path = ra_path_join(base, "corrections.h5");
    stat(path, &info);
    free(path);
    free(base);
    return info.st_ino;
}

static const char *stops(const ra_comm *world)
{
    char *dir = make_dir(world), *stop = ra_path_join(dir, "stop"), *word = ra_format("run.stop_file=%s", stop);
    const char *const words[] = {"correct.source=model", word, NULL};
    const char *failed = on_one_and_all(world, dir, "rows.jsonl", words);
    if (failed) return failed;
    ra_settings *s = correct_run_settings(dir, "stopped", "rows.jsonl", words);
    MPI_EXPECT_OK(run_to_triage(s, world));
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? ra_file_write(stop, "", 0) : RA_OK));
    ra_err err = ra_stage_correct(s, world);
    MPI_EXPECT(err == RA_ERR_STOPPED && strstr(ra_error_message(), "of 30 Punish pairs done"), "%d: %s", err, ra_error_message());
    ra_run run;
    err = ra_run_open(s, world, &run);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "corrections.h5 is missing"), "%d: %s", err, ra_error_message());
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) unlink(stop);
    RA_MPI(MPI_Barrier(world->comm));
    CHECK_OK(ra_set_put(s, "run.resume", "must")); /* something is there to go on from */
    MPI_EXPECT_OK(ra_stage_correct(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    failed = same_file(dir, "one", "stopped", "corrections.jsonl");
    if (failed) return failed;
    int64_t asked = lines_in_candidates(dir, "one");
    MPI_EXPECT(lines_in_candidates(dir, "stopped") == asked, "%d candidates were asked for in two starts, %d in one",
               (int)lines_in_candidates(dir, "stopped"), (int)asked);

    /* made again from what a crash left of the candidates, on another number of ranks */
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) {
        tear_candidates(dir, "stopped");
        char *path = ra_path_join(ra_set_text(s, "run.dir"), "corrections.h5");
        unlink(path);
        free(path);
    }
    RA_MPI(MPI_Barrier(world->comm));
    CHECK_OK(ra_set_put(s, "run.resume", "auto"));
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? ra_stage_correct(s, &alone) : RA_OK));
    failed = same_file(dir, "one", "stopped", "corrections.jsonl");
    if (!failed) failed = same_corrections(dir, "one", "stopped");
    if (failed) return failed;
    ra_settings_free(s);
    free(word);
    free(stop);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *reuse(const ra_comm *world)
{
    char *dir = make_dir(world);
    ra_settings *s = correct_run_settings(dir, "run", "rows.jsonl", sampled);
    MPI_EXPECT_OK(run_to_triage(s, world));
    CHECK_OK(ra_set_put(s, "run.resume", "must"));
    ra_err err = ra_stage_correct(s, world);
    MPI_EXPECT(err == RA_ERR_DATA && strstr(ra_error_message(), "run.resume is must"), "%d: %s", err, ra_error_message());
    CHECK_OK(ra_set_put(s, "run.resume", "auto"));
    MPI_EXPECT_OK(ra_stage_correct(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    ino_t first = inode_of(dir, "run");
    int64_t lines = lines_in_candidates(dir, "run");
    CHECK_OK(ra_set_put(s, "beta", "0.7"));
    MPI_EXPECT_OK(ra_stage_correct(s, world));
    MPI_EXPECT(inode_of(dir, "run") == first, "corrections were made again though nothing changed that they depend on");
    RA_MPI(MPI_Barrier(world->comm));
    CHECK_OK(ra_set_put(s, "correct.attempts", "2")); /* made again, from the candidates that are there */
    MPI_EXPECT_OK(ra_stage_correct(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT(inode_of(dir, "run") != first, "another number of attempts changed nothing");
    MPI_EXPECT(lines_in_candidates(dir, "run") == lines, "fewer attempts asked for new candidates");
    RA_MPI(MPI_Barrier(world->comm));
    CHECK_OK(ra_set_put(s, "seed", "2"));
    MPI_EXPECT_OK(ra_stage_correct(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT(lines_in_candidates(dir, "run") > lines, "another seed asked for nothing");
    ra_settings_free(s);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* ---- refusals ---- */
static const char *refusals(const ra_comm *world)
{
    char *dir = make_dir(world), *policy = ra_path_join(dir, "labels.yaml"), *word = ra_format("policy=%s", policy);
    const char *const by_labels[] = {word, NULL}, *const sampled_by_labels[] = {word, "correct.source=model", NULL};
    /* labels cannot judge a text: nothing is used, and that is no error where nobody asked for corrections */
    ra_settings *s = correct_run_settings(dir, "labels", "column.jsonl", by_labels);
    MPI_EXPECT_OK(run_to_corrections(s, world));
    RA_MPI(MPI_Barrier(world->comm));
    ra_corrections c = read_corrections(dir, "labels");
    MPI_EXPECT(c.n == 30 && count_outcomes(&c, RA_CORRECTION_USED) == 0 && count_outcomes(&c, RA_CORRECTION_UNDECIDED) > 10,
               "%d pairs, %d used", (int)c.n, count_outcomes(&c, RA_CORRECTION_USED));
    ra_corrections_free(&c);
    ra_settings_free(s);
    s = correct_run_settings(dir, "labels", "column.jsonl", sampled_by_labels);
    ra_err err = ra_stage_correct(s, world);
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "labels") && strstr(ra_error_message(), "correct.source=none"),
               "%d: %s", err, ra_error_message());
    ra_settings_free(s);

    s = correct_run_settings(dir, "run", "rows.jsonl", NULL); /* neither a column nor a source */
    MPI_EXPECT_OK(run_to_corrections(s, world));
    char *path = ra_path_join(ra_set_text(s, "run.dir"), "corrections.h5");
    MPI_EXPECT(!ra_file_exists(path), "corrections without a source");
    free(path);
    CHECK_OK(ra_set_put(s, "correct.source", "endpoint"));
    err = ra_stage_correct(s, world);
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "correct.url"), "%d: %s", err, ra_error_message());
    CHECK_OK(ra_set_put(s, "correct.source", "model"));
    CHECK_OK(ra_set_put(s, "correct.model", "/nowhere"));
    err = ra_stage_correct(s, world);
    MPI_EXPECT(err != RA_OK && strstr(ra_error_message(), "correct.model") && strstr(ra_error_message(), "/nowhere"), "%d: %s",
               err, ra_error_message());
    /* data that are no longer those that were prepared */
    CHECK_OK(ra_set_put(s, "correct.source", "column"));
    char *column = ra_path_join(dir, "column.jsonl"), *rows = ra_path_join(dir, "rows.jsonl");
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) {
        ra_buf text = {0};
        if (ra_file_read(column, &text) != RA_OK) ra_die("%s", ra_error_message());
        for (char *at = text.data; (at = strstr(at, "hello")); at++) *at = 'j';
        if (ra_file_write(rows, text.data, text.length) != RA_OK) ra_die("%s", ra_error_message());
        ra_buf_free(&text);
    }
    RA_MPI(MPI_Barrier(world->comm));
    err = ra_stage_correct(s, world);
    MPI_EXPECT(err == RA_ERR_DATA && strstr(ra_error_message(), "realign prepare"), "%d: %s", err, ra_error_message());
    ra_settings_free(s);
    free(column);
    free(rows);
    free(word);
    free(policy);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"a column: the same on any rank count; what the oracle refuses is not used", column},
        {"a model: the same on any rank count, as prepare would have it; weigh and train", model},
        {"cut prompts, cut responses, a template without turns", forms},
        {"an orderly stop and a torn file lose nothing that was finished", stops},
        {"finished corrections are reused where they fit", reuse},
        {"refusals name what to change", refusals},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
