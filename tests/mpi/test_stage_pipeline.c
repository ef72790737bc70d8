/* Stages that infer, on a grid with a pipeline: triage by a judge, corrections by a model, generation and evaluation write what one rank with the whole models writes, and no verdict is
 * kept twice. Grids that do not fit are refused by their key. */
#include "support/correct_run.h"
#include "support/support.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/stage.h>
#include <realign/tools.h>
#include <realign/verdicts.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ra_comm alone = {MPI_COMM_SELF, 0, 1};

/* ref: a number does not depend on what is computed beside it. */
static const char *const judged[] = {"backend=ref",
                                     "precision=fp64",
                                     "oracle.judge.precision=fp64",
                                     "oracle.kind=judge",
                                     "oracle.judge.yes=y",
                                     "oracle.judge.no=n",
                                     "oracle.judge.least_share=0",
                                     "oracle.judge.pack_tokens=700",
                                     "oracle.threshold=0.9963", /* about half of what this random model says */
                                     "correct.source=model",
                                     "correct.max_new_tokens=12",
                                     "correct.attempts=2",
                                     "max_new_tokens=8",
                                     "eval.limit=9",
                                     "data.limit=24",
                                     NULL};

static ra_settings *settings_of(const char *dir, const char *name, int stages)
{
    ra_settings *s = correct_run_settings(dir, name, "rows.jsonl", judged);
    char *model = ra_path_join(dir, "model"), *rows = ra_path_join(dir, "rows.jsonl"), *text = ra_path_join(dir, "policy.yaml"),
         *number = ra_format("%d", stages);
    const char *const more[][2] = {
        {"oracle.judge.model", model}, {"eval.path", rows}, {"eval.perplexity_path", text}, {"grid.pipeline", number}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        if (ra_set_put(s, more[i][0], more[i][1]) != RA_OK) ra_die("%s", ra_error_message());
    }
    free(model);
    free(rows);
    free(text);
    free(number);
    return s;
}

/* A trained model, as far as evaluate can see. */
static ra_err make_trained(const char *dir, const char *name)
{
    char *config = ra_path_join(dir, "config.json"), *tokenizer = ra_path_join(dir, "tokenizer"), *run = ra_path_join(dir, name),
         *out = ra_path_join(run, "model");
    const char *argv[] = {"--random", config, "--seed", "8", "--tokenizer", tokenizer, out};
    ra_err err = ra_dir_make(run);
    if (err == RA_OK) err = ra_tool_convert(7, (char **)(uintptr_t)argv);
    free(config);
    free(tokenizer);
    free(run);
    free(out);
    return err;
}

/* Collective. */
static ra_err run_all(const ra_comm *comm, const char *dir, const char *name, int stages)
{
    ra_settings *s = settings_of(dir, name, stages);
    ra_err err = ra_comm_agree(comm, comm->rank == 0 ? make_trained(dir, name) : RA_OK);
    if (err == RA_OK) err = ra_stage_prepare(s, comm);
    if (err == RA_OK) err = ra_stage_triage(s, comm);
    if (err == RA_OK) err = ra_stage_correct(s, comm);
    if (err == RA_OK) err = ra_stage_generate(s, comm);
    if (err == RA_OK) err = ra_stage_evaluate(s, comm);
    ra_settings_free(s);
    return err;
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

static const char *same_files(const char *dir)
{
    static const char *const names[] = {"triage.jsonl", "corrections.jsonl", "generations-before.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ra_buf x = read_file(dir, "one", names[i]), y = read_file(dir, "all", names[i]);
        bool same = x.length == y.length && x.length > 0 && memcmp(x.data, y.data, x.length) == 0;
        ra_buf_free(&x);
        ra_buf_free(&y);
        MPI_EXPECT(same, "%s differs", names[i]);
    }
    return NULL;
}

/* Margins, perplexities and drift. */
static const char *same_numbers(const char *dir)
{
    static const struct {
        const char *file, *name;
    } arrays[] = {{"triage.h5", "margin_w"}, {"triage.h5", "margin_l"}, {"evaluate.h5", "retain/trained_logp"}};
    static const char *const attributes[] = {"perplexity_before", "perplexity_after", "tpa_before", "tpa_after", "retain_drift"};
    static const char *const runs[] = {"one", "all"};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        double value[2][CORRECT_ROWS] = {{0}}, most = 0.0;
        for (int k = 0; k < 2; k++) {
            ra_h5 *file;
            char *base = ra_path_join(dir, runs[k]), *path = ra_path_join(base, arrays[i].file);
            MPI_EXPECT_OK(ra_h5_open(path, NULL, &file));
            MPI_EXPECT_OK(ra_h5_read(file, arrays[i].name, H5T_NATIVE_DOUBLE, 0, -1, value[k]));
            ra_h5_close(file);
            free(path);
            free(base);
        }
        for (int r = 0; r < CORRECT_ROWS; r++) {
            double x = value[0][r], y = value[1][r];
            MPI_EXPECT((isnan(x) && isnan(y)) || fabs(x - y) <= 1e-9 * fmax(1.0, fabs(x)), "%s[%d]: %.12g and %.12g",
                       arrays[i].name, r, x, y);
            if (!isnan(x)) most = fmax(most, fabs(x));
        }
        MPI_EXPECT(most > 1e-3, "%s is 0 throughout", arrays[i].name);
    }
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        double value[2];
        for (int k = 0; k < 2; k++) {
            ra_h5 *file;
            char *base = ra_path_join(dir, runs[k]), *path = ra_path_join(base, "evaluate.h5");
            MPI_EXPECT_OK(ra_h5_open(path, NULL, &file));
            MPI_EXPECT_OK(ra_h5_read_attr_f64(file, "/", attributes[i], &value[k]));
            ra_h5_close(file);
            free(path);
            free(base);
        }
        MPI_EXPECT(fabs(value[0] - value[1]) <= 1e-9 * fmax(1.0, fabs(value[0])), "%s: %.12g and %.12g", attributes[i], value[0],
                   value[1]);
    }
    return NULL;
}

/* Stages that hold a part of the judge keep nothing: each question has one record. */
static const char *kept_once(const char *dir)
{
    ra_verdicts_counts count[2];
    static const char *const runs[] = {"one", "all"};
    for (int k = 0; k < 2; k++) {
        ra_verdicts *v;
        char *base = ra_path_join(dir, runs[k]), *path = ra_path_join(base, "verdicts");
        MPI_EXPECT_OK(ra_verdicts_open(path, &v));
        count[k] = ra_verdicts_count(v);
        MPI_EXPECT_OK(ra_verdicts_close(v));
        free(path);
        free(base);
    }
    MPI_EXPECT(count[1].distinct == count[0].distinct && count[1].distinct > 20, "%d questions, %d on one rank",
               (int)count[1].distinct, (int)count[0].distinct);
    MPI_EXPECT(count[1].records == count[1].distinct, "%d records of %d questions", (int)count[1].records,
               (int)count[1].distinct);
    return NULL;
}

static const char *stages_agree(const ra_comm *world)
{
    if (world->size % 2 != 0) return NULL;
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? correct_run_make(dir) : RA_OK));
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? run_all(&alone, dir, "one", 1) : RA_OK));
    MPI_EXPECT_OK(run_all(world, dir, "all", 2));
    const char *failed = world->rank == 0 ? same_files(dir) : NULL;
    if (!failed && world->rank == 0) failed = same_numbers(dir);
    if (!failed && world->rank == 0) failed = kept_once(dir);
    MPI_EXPECT_OK(ra_comm_agree(world, failed ? ra_fail(RA_ERR_DATA, "%s", failed) : RA_OK));
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* The same error on all ranks, by its key: stages that do not divide the ranks, more stages than layers. */
static const char *grids_are_refused(const ra_comm *world)
{
    static ra_err (*const stage[])(const ra_settings *s, const ra_comm *world) = {ra_stage_triage, ra_stage_correct,
                                                                                  ra_stage_generate, ra_stage_evaluate};
    char *dir = test_mpi_dir_make(world);
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? correct_run_make(dir) : RA_OK));
    ra_settings *s = settings_of(dir, "bad", world->size + 1);
    for (size_t i = 0; i < sizeof stage / sizeof *stage; i++) {
        ra_err err = stage[i](s, world);
        MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "grid.pipeline"), "stage %zu: %s", i, ra_error_message());
    }
    ra_settings_free(s);
    if (world->size > 2) { /* 2 layers */
        s = settings_of(dir, "bad", world->size);
        for (size_t i = 0; i < sizeof stage / sizeof *stage; i++) {
            if (i == 1) continue; /* there is no triage to correct */
            ra_err err = stage[i](s, world);
            MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "2 layers"), "stage %zu: %s", i, ra_error_message());
        }
        ra_settings_free(s);
    }
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"triage, correct, generate and evaluate in a pipeline write what one rank writes", stages_agree},
        {"grids that do not fit are refused", grids_are_refused}};
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
