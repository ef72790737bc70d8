/* Weighing and training over a grid data x pipeline: every layout of the ranks at hand gives one stage's numbers; a schedule and what is made again change none of them to the bit;
 * loss and statistics are on every rank. Schedules as tables are tests/unit/test_schedule.c. */
#include "support/own_runctl.h"
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/engine.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 48, COLUMNS = 24, COMPARED = COLUMNS - 2, MOST_STEPS = 16, MOST_WORDS = 12 };

/* Collective. The same verdict on every rank, so that none goes on alone. */
static bool all_agree(const ra_comm *world, bool mine)
{
    int all = mine;
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, world->comm));
    return all;
}
#define AGREED(condition, ...)                                                 \
    do {                                                                       \
        if (!all_agree(world, condition)) return test_message("" __VA_ARGS__); \
    } while (0)

/* ---- a run and its numbers ---- */
typedef struct {
    double raw[SAMPLES], weight[SAMPLES], reference[SAMPLES * RA_ROLES];
    double step[MOST_STEPS][COLUMNS];
    int steps;
} numbers;

static ra_err read_weights(const char *dir, numbers *out)
{
    char *path = ra_path_join(dir, "weights.h5");
    ra_h5 *h5;
    ra_err err = ra_h5_open(path, NULL, &h5);
    free(path);
    if (err != RA_OK) return err;
    err = ra_h5_read(h5, "raw", H5T_NATIVE_DOUBLE, 0, -1, out->raw);
    if (err == RA_OK) err = ra_h5_read(h5, "weight", H5T_NATIVE_DOUBLE, 0, -1, out->weight);
    if (err == RA_OK) err = ra_h5_read(h5, "reference_logp", H5T_NATIVE_DOUBLE, 0, -1, out->reference);
    ra_h5_close(h5);
    return err;
}

static ra_err read_steps(const char *dir, numbers *out)
{
    char *path = ra_path_join(dir, "steps.tsv");
    ra_buf text = {0};
    out->steps = 0;
    ra_err err = ra_file_read(path, &text);
    for (char *line = err == RA_OK ? strchr(text.data, '\n') : NULL; line && line[1] && out->steps < MOST_STEPS;
         line = strchr(line + 1, '\n'), out->steps++) {
        char *at = line + 1;
        for (int c = 0; c < COLUMNS; c++) out->step[out->steps][c] = strtod(at, &at);
    }
    ra_buf_free(&text);
    free(path);
    return err;
}

/* Weighs and trains in dir/name with the family's words and a layout's. Collective over comm. */
static ra_err run(const ra_comm *comm, const char *dir, const char *family, const char *const *own, const char *const *layout,
                  numbers *out)
{
    char *model = ra_format("%s/fixtures/%s/reference", test_shared(), family), *words[MOST_WORDS + 1] = {NULL};
    tiny_run tiny = {.model = model, .samples = SAMPLES, .seed = 5};
    int n = 0;
    for (; own && *own; own++) words[n++] = ra_strdup(*own);
    for (; layout && *layout; layout++) words[n++] = ra_strdup(*layout);
    ra_settings *s = tiny_run_settings(dir, &tiny, words);
    ra_err err = tiny_run_make(comm, dir, &tiny);
    if (err == RA_OK) err = ra_stage_weigh(s, comm);
    if (err == RA_OK) err = ra_stage_train(s, comm);
    ra_settings_free(s);
    for (int i = 0; i < n; i++) free(words[i]);
    free(model);
    RA_MPI(MPI_Barrier(comm->comm));
    if (err == RA_OK) err = read_weights(dir, out);
    if (err == RA_OK) err = read_steps(dir, out);
    return err;
}

/* ---- comparisons ---- */
static double difference(const double *a, const double *b, int n)
{
    double worst = 0.0, scale = 0.0;
    for (int i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (isnan(a[i]) || isnan(b[i])) return NAN;
        worst = fmax(worst, fabs(a[i] - b[i]));
        scale = fmax(scale, fabs(b[i]));
    }
    return scale > 0.0 ? worst / scale : worst;
}

/* Of the columns of steps.tsv but for the times, each relative to its own largest value. */
static double steps_difference(const numbers *a, const numbers *b)
{
    double worst = a->steps == b->steps && a->steps > 4 ? 0.0 : NAN, x[MOST_STEPS], y[MOST_STEPS];
    for (int c = 0; c < COMPARED; c++) {
        for (int i = 0; i < a->steps; i++) x[i] = a->step[i][c], y[i] = b->step[i][c];
        double scale = 1e-3, d = 0.0;
        for (int i = 0; i < a->steps; i++) scale = fmax(scale, fabs(y[i]));
        for (int i = 0; i < a->steps; i++) d = fmax(d, fabs(x[i] - y[i]) / scale);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

static bool same_bits(const numbers *a, const numbers *b)
{
    bool same = a->steps == b->steps && a->steps > 4;
    same &= memcmp(a->raw, b->raw, sizeof a->raw) == 0 && memcmp(a->reference, b->reference, sizeof a->reference) == 0;
    for (int i = 0; i < a->steps; i++) same &= memcmp(a->step[i], b->step[i], COMPARED * sizeof a->step[i][0]) == 0;
    return same;
}

/* ---- layouts ---- */
static const char *const full[] = {"train.epochs=1", "train.batch=6", NULL},
                         *const adapter[] = {"train.epochs=1", "train.batch=6", "lora.enabled=true",
                                             "lora.targets=[q_proj,v_proj,down_proj]", NULL},
                         *const cosine[] = {"train.epochs=1", "train.batch=8", "weights.direction=cosine", NULL};

static const char *layouts(const ra_comm *world)
{
    static const struct {
        const char *family;
        const char *const *words;
    } cases[] = {{"gemma2", full}, {"llama32_tied", full}, {"llama31", adapter}, {"qwen25_tied", cosine}};
    static const int32_t layers[] = {4, 3, 4, 2};
    if (!test_shared()) return NULL;
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    static numbers one, many;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = test_mpi_dir_make(world), *alone = ra_path_join(dir, "alone");
        MPI_EXPECT_OK(
            ra_comm_agree(world, world->rank == 0 ? run(&self, alone, cases[i].family, cases[i].words, NULL, &one) : RA_OK));
        ra_comm_bcast(world, &one, sizeof one, 0);
        for (int32_t stages = 1; stages <= world->size && stages <= layers[i]; stages++) {
            if (world->size % stages != 0) continue;
            char *pipeline = ra_format("grid.pipeline=%d", stages), *name = ra_format("%s/stages-%d", dir, stages);
            const char *const words[] = {pipeline, NULL};
            MPI_EXPECT_OK(ra_comm_agree(world, run(world, name, cases[i].family, cases[i].words, words, &many)));
            double d[] = {difference(many.raw, one.raw, SAMPLES), difference(many.weight, one.weight, SAMPLES),
                          difference(many.reference, one.reference, SAMPLES * RA_ROLES), steps_difference(&many, &one)};
            AGREED(d[0] < 2e-6 && d[1] < 2e-6 && d[2] < 2e-6 && d[3] < 1e-3,
                   "%s, %d stages of %d ranks: products %.1e, weights %.1e, log p_ref %.1e, steps %.1e", cases[i].family, stages,
                   world->size, d[0], d[1], d[2], d[3]);
            free(name);
            free(pipeline);
        }
        free(alone);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* ---- what must not change a bit ---- */
static const char *bits(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    int32_t stages = world->size == 3 ? 3 : world->size >= 2 ? 2 : 1;
    char *pipeline = ra_format("grid.pipeline=%d", stages);
    const char *const variants[][MOST_WORDS] = {
        {pipeline, "grid.schedule=1f1b"},
        {pipeline, "grid.schedule=gpipe"},
        {pipeline, "grid.schedule=zero-bubble"},
        {pipeline, "recompute=inputs"},
        {pipeline, "recompute=full", "grid.schedule=gpipe"},
        {pipeline, "grid.schedule=1f1b"},
    };
    static const struct {
        const char *family;
        const char *const *words;
    } cases[] = {{"gemma2", full}, {"llama31", adapter}, {"llama32_tied", full}};
    static numbers first, other;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t v = 0; v < sizeof variants / sizeof variants[0]; v++) {
            char *dir = test_mpi_dir_make(world);
            MPI_EXPECT_OK(
                ra_comm_agree(world, run(world, dir, cases[i].family, cases[i].words, variants[v], v ? &other : &first)));
            AGREED(v == 0 || same_bits(&other, &first), "%s: %s %s changes the numbers of %s", cases[i].family, variants[v][1],
                   variants[v][2] ? variants[v][2] : "", variants[0][1]);
            test_mpi_dir_remove(world, dir);
        }
    }
    free(pipeline);
    return NULL;
}

/* Chunks of layers change who holds what, and so the order of no sum but that over stages of norms and products. */
static const char *interleaved(const ra_comm *world)
{
    if (!test_shared() || world->size % 2 != 0) return NULL;
    static const char *const plain[] = {"grid.pipeline=2", NULL}, *const chunks[] = {"grid.pipeline=2", "grid.chunks=2",
                                                                                     "grid.schedule=interleaved", NULL};
    static numbers a, b;
    static const char *const families[] = {"gemma2", "llama31"};
    for (int i = 0; i < 2; i++) {
        char *dir = test_mpi_dir_make(world), *one = ra_path_join(dir, "one"), *two = ra_path_join(dir, "two");
        MPI_EXPECT_OK(ra_comm_agree(world, run(world, one, families[i], i ? adapter : full, plain, &a)));
        MPI_EXPECT_OK(ra_comm_agree(world, run(world, two, families[i], i ? adapter : full, chunks, &b)));
        double d[] = {difference(b.raw, a.raw, SAMPLES), steps_difference(&b, &a)};
        AGREED(d[0] < 1e-9 && d[1] < 1e-5, "%s: products %.1e, steps %.1e", families[i], d[0], d[1]);
        free(one);
        free(two);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* ---- refusals ---- */
static const char *refusals(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    const struct {
        const char *words[3], *says;
    } cases[] = {{{"grid.pipeline=5"}, "grid.pipeline"},
                 {{"grid.data=7"}, "grid.data"},
                 {{"grid.chunks=5"}, "grid.chunks"},
                 {{"grid.schedule=zero-bubble", "recompute=full"}, "recompute"}};
    static numbers out;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = test_mpi_dir_make(world);
        ra_err err = run(world, dir, "gemma2", full, cases[i].words, &out);
        AGREED(err == RA_ERR_ARG && strstr(ra_error_message(), cases[i].says), "%s gave %d: %s", cases[i].words[0], (int)err,
               ra_error_message());
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const test_mpi tests[] = {{"every layout has one stage's numbers", layouts},
                              {"schedules and recomputation change no bit", bits},
                              {"chunks of layers change rounding alone", interleaved},
                              {"a grid that does not fit is refused by its key", refusals}};
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
