/* Training on made-up samples: the same losses on any rank count, stop and resume to the bit, and refusals that say why. This program has its own run control (the module that
 * decides when to stop), so that a stop falls after a given step; signals, limits and the stop file are tests/cli/resume.sh. */
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
#include <unistd.h>

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

enum { STEPS = 20, COLUMNS = 24, COMPARED = COLUMNS - 2 };

/* ---- runs ---- */
static char *model_of(const char *family)
{
    const char *shared = test_shared();
    return shared ? ra_format("%s/fixtures/%s/reference", shared, family) : NULL;
}

typedef struct {
    char *dir, *model;
    tiny_run run;
    char *words[16];
    int n;
} place;

static ra_err place_make(const ra_comm *comm, const char *dir, const char *name, const char *family, place *p)
{
    *p = (place){.dir = ra_path_join(dir, name), .model = model_of(family)};
    p->run = (tiny_run){.model = p->model, .samples = 48, .seed = 5};
    return tiny_run_make(comm, p->dir, &p->run);
}

static void place_word(place *p, const char *word)
{
    p->words[p->n++] = ra_strdup(word);
}

static void place_free(place *p)
{
    for (int i = 0; i < p->n; i++) free(p->words[i]);
    free(p->dir);
    free(p->model);
}

static ra_err weigh_it(const ra_comm *comm, const place *p)
{
    ra_settings *s = tiny_run_settings(p->dir, &p->run, p->words);
    ra_err err = ra_stage_weigh(s, comm);
    ra_settings_free(s);
    return err;
}

/* Stops after `steps` more steps. */
static ra_err train_it(const ra_comm *comm, const place *p, int64_t steps)
{
    ra_settings *s = tiny_run_settings(p->dir, &p->run, p->words);
    questions_left = steps;
    ra_err err = ra_stage_train(s, comm);
    questions_left = INT64_MAX;
    ra_settings_free(s);
    return err;
}

static ra_err weigh_and_train(const ra_comm *comm, const place *p)
{
    ra_err err = weigh_it(comm, p);
    return err == RA_OK ? train_it(comm, p, INT64_MAX) : err;
}

/* steps.tsv as numbers. Returns the rows. */
static int read_steps(const char *dir, double value[][COLUMNS], int most)
{
    char *path = ra_path_join(dir, "steps.tsv");
    ra_buf text = {0};
    int rows = 0;
    if (ra_file_read(path, &text) == RA_OK) {
        for (char *line = strchr(text.data, '\n'); line && line[1] && rows < most; line = strchr(line + 1, '\n'), rows++) {
            char *at = line + 1;
            for (int c = 0; c < COLUMNS; c++) value[rows][c] = strtod(at, &at);
        }
    }
    ra_buf_free(&text);
    free(path);
    return rows;
}

/* The text of steps.tsv without the last two columns, which are times. */
static char *steps_without_times(const char *dir)
{
    char *path = ra_path_join(dir, "steps.tsv");
    ra_buf text = {0}, kept = {0};
    if (ra_file_read(path, &text) != RA_OK) ra_buf_adds(&text, "unreadable\n");
    for (char *line = text.data, *end; line && *line && (end = strchr(line, '\n')); line = end + 1) {
        char *cut = line;
        for (int tabs = 0; cut < end && tabs < COMPARED; cut++) tabs += *cut == '\t';
        ra_buf_add(&kept, line, (size_t)(cut - line));
        ra_buf_adds(&kept, "\n");
    }
    ra_buf_free(&text);
    free(path);
    return kept.data;
}

static bool same_file(const char *a_dir, const char *b_dir, const char *name)
{
    char *a = ra_path_join(a_dir, name), *b = ra_path_join(b_dir, name);
    ra_buf x = {0}, y = {0};
    bool same = ra_file_read(a, &x) == RA_OK && ra_file_read(b, &y) == RA_OK && x.length == y.length && x.length > 0 &&
                memcmp(x.data, y.data, x.length) == 0;
    ra_buf_free(&x);
    ra_buf_free(&y);
    free(a);
    free(b);
    return same;
}

static bool same_steps(const char *a_dir, const char *b_dir)
{
    char *a = steps_without_times(a_dir), *b = steps_without_times(b_dir);
    bool same = a && b && strcmp(a, b) == 0 && strlen(a) > 100;
    free(a);
    free(b);
    return same;
}

/* Columns of steps.tsv. */
enum { LOSS = 5, KL = 9, GRADIENT_NORM = 21 };

/* Largest relative difference of the losses (below 0.1: absolute, times 10, for KL is a difference of numbers near 5) and a tenth of that of gradient norms (below 1, where clipping
 * begins: absolute; a short gradient is a sum that nearly cancels, and its rounding is that of its terms); NaN where a column is a number in one file alone. */
static double largest_difference(double a[][COLUMNS], double b[][COLUMNS], int rows)
{
    static const int columns[] = {LOSS, LOSS + 1, LOSS + 2, LOSS + 3, KL, GRADIENT_NORM};
    double worst = 0.0;
    for (int i = 0; i < rows * 6; i++) {
        double x = a[i / 6][columns[i % 6]], y = b[i / 6][columns[i % 6]];
        if (isnan(x) && isnan(y)) continue;
        bool norm = columns[i % 6] == GRADIENT_NORM;
        double d = norm ? fabs(x - y) / fmax(fabs(y), 1.0) / 10.0 : fabs(x - y) / fmax(fabs(y), 0.1);
        if (isnan(d)) return d;
        worst = fmax(worst, d);
    }
    return worst;
}

/* Rank 0 alone, in a directory of its own: what all layouts are compared with. */
static ra_err alone(const ra_comm *world, const place *p, double value[][COLUMNS], int *rows)
{
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    ra_err err = world->rank == 0 ? weigh_and_train(&self, p) : RA_OK;
    err = ra_comm_agree(world, err);
    *rows = read_steps(p->dir, value, STEPS + 1);
    return err;
}

/* ---- the same run on this rank count ---- */
static const char *const lora_words[] = {"lora.enabled=true", "train.lr=1e-3", NULL}, *const full_words[] = {NULL},
                         *const dpo_words[] = {"method=dpo", NULL},
                         *const wide_words[] = {"weights.normalise=mean", "pack.tokens=300", "pack.minimum=3", NULL};

typedef struct {
    const char *family;
    const char *const *words;
} variant;

static const char *compare_layouts(const ra_comm *world, const variant *v)
{
    char *shared = model_of(v->family);
    if (!shared) return NULL;
    free(shared);
    char *dir = test_mpi_dir_make(world);
    place one, all;
    MPI_EXPECT_OK(place_make(world, dir, "one", v->family, &one));
    MPI_EXPECT_OK(place_make(world, dir, "all", v->family, &all));
    for (int i = 0; v->words[i]; i++) place_word(&one, v->words[i]), place_word(&all, v->words[i]);
    double a[STEPS + 1][COLUMNS], b[STEPS + 1][COLUMNS];
    int rows;
    MPI_EXPECT_OK(alone(world, &one, a, &rows));
    MPI_EXPECT_OK(weigh_and_train(world, &all));
    RA_MPI(MPI_Barrier(world->comm));
    {
        AGREED(rows == STEPS && read_steps(all.dir, b, STEPS + 1) == STEPS, "%s: %d steps, not %d", v->family, rows, STEPS);
        double d = largest_difference(b, a, STEPS);
        AGREED(d <= 1e-5, "%s %s: losses differ by %.2e from those of 1 rank", v->family, v->words[0] ? v->words[0] : "", d);
        AGREED(a[STEPS - 1][1] >= 1, "an epoch boundary must lie within the steps");
        AGREED(fabs(a[0][LOSS] - a[STEPS - 1][LOSS]) > 1e-6 * fabs(a[0][LOSS]), "nothing was learnt");
    }
    place_free(&one);
    place_free(&all);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *same_losses(const ra_comm *world)
{
    static const variant variants[] = {{"llama31", full_words},
                                       {"llama31", lora_words},
                                       {"llama31", dpo_words},
                                       {"qwen25_tied", wide_words},
                                       {"gemma2", full_words}};
    const char *failure = NULL;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0] && !failure; i++) failure = compare_layouts(world, &variants[i]);
    return failure;
}

/* ---- stop and resume ---- */
static const char *stop_and_go(const ra_comm *world, const char *dir, const place *whole, const char *const *words, int64_t k)
{
    char name[32];
    snprintf(name, sizeof name, "stopped-%lld", (long long)k);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, name, "llama31", &p));
    for (int i = 0; words[i]; i++) place_word(&p, words[i]);
    MPI_EXPECT_OK(weigh_it(world, &p));
    ra_err err = train_it(world, &p, k);
    AGREED(err == RA_ERR_STOPPED, "stop after %lld steps: %s", (long long)k, err == RA_OK ? "it went on" : ra_error_message());
    double value[STEPS + 1][COLUMNS];
    RA_MPI(MPI_Barrier(world->comm));
    AGREED(read_steps(p.dir, value, STEPS + 1) == k, "steps.tsv must have %lld rows after the stop", (long long)k);
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(train_it(world, &p, INT64_MAX));
    RA_MPI(MPI_Barrier(world->comm));
    AGREED(same_steps(p.dir, whole->dir), "stopped after %lld steps: steps.tsv differs from the uninterrupted run's (%s, %s)",
           (long long)k, p.dir, whole->dir);
    bool adapter = words[0] != NULL;
    AGREED(same_file(p.dir, whole->dir, adapter ? "model/adapter_model.safetensors" : "model/model.safetensors"),
           "stopped after %lld steps: the final weights differ", (long long)k);
    place_free(&p);
    return NULL;
}

static const char *resume_bitwise(const ra_comm *world)
{
    static const char *const *const kinds[] = {full_words, lora_words};
    static const int64_t stops[] = {1, 7, 19};
    if (!test_shared()) return NULL;
    const char *failure = NULL;
    for (int kind = 0; kind < 2 && !failure; kind++) {
        char *dir = test_mpi_dir_make(world);
        place whole;
        MPI_EXPECT_OK(place_make(world, dir, "whole", "llama31", &whole));
        for (int i = 0; kinds[kind][i]; i++) place_word(&whole, kinds[kind][i]);
        MPI_EXPECT_OK(weigh_and_train(world, &whole));
        RA_MPI(MPI_Barrier(world->comm));
        for (int i = 0; i < 3 && !failure; i++) failure = stop_and_go(world, dir, &whole, kinds[kind], stops[i]);
        place_free(&whole);
        if (!failure) test_mpi_dir_remove(world, dir);
    }
    return failure;
}

/* Half of the steps by rank 0 alone, the rest by all; and the other way round. */
static const char *resume_elsewhere(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    char *dir = test_mpi_dir_make(world);
    double a[STEPS + 1][COLUMNS], b[STEPS + 1][COLUMNS];
    int rows;
    place one;
    MPI_EXPECT_OK(place_make(world, dir, "one", "llama31", &one));
    MPI_EXPECT_OK(alone(world, &one, a, &rows));
    for (int alone_first = 0; alone_first < 2; alone_first++) {
        place p;
        MPI_EXPECT_OK(place_make(world, dir, alone_first ? "grows" : "shrinks", "llama31", &p));
        MPI_EXPECT_OK(weigh_it(world, &p));
        for (int half = 0; half < 2; half++) {
            const ra_comm *comm = alone_first == (half == 0) ? &self : world;
            ra_err err = comm == world || world->rank == 0 ? train_it(comm, &p, half ? INT64_MAX : STEPS / 2) : RA_OK;
            if (half == 0 && err == RA_ERR_STOPPED) err = RA_OK;
            MPI_EXPECT_OK(ra_comm_agree(world, err));
        }
        {
            AGREED(read_steps(p.dir, b, STEPS + 1) == STEPS, "not all steps are in steps.tsv");
            double d = largest_difference(b, a, STEPS);
            AGREED(d <= 1e-5, "%d ranks, %s: losses differ by %.2e", world->size, alone_first ? "1 rank first" : "1 rank last",
                   d);
        }
        place_free(&p);
    }
    place_free(&one);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* ---- refusals ---- */
static const char *expect_failure(ra_err err, ra_err code, const char *word, const char *other)
{
    if (err == code && strstr(ra_error_message(), word) && strstr(ra_error_message(), other)) return NULL;
    return test_message("wanted an error %d with \"%s\" and \"%s\", got %d: %s", code, word, other, err,
                        err == RA_OK ? "" : ra_error_message());
}

/* Rank 0. Multiplies one value of a dataset and puts its checksum right again: a wrong value, not a damaged file. */
static ra_err rewrite(const char *dir, const char *name, const char *dataset, int64_t rows, int64_t width, double factor)
{
    char *path = ra_path_join(dir, name);
    double *value = ra_alloc((size_t)(rows * width), sizeof *value);
    ra_h5 *h5;
    ra_err err = ra_h5_open(path, NULL, &h5);
    if (err == RA_OK) err = ra_h5_read(h5, dataset, H5T_NATIVE_DOUBLE, 0, -1, value);
    ra_h5_close(h5);
    for (int64_t i = 0; i < rows * width; i++) value[i] *= factor;
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, dataset, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, value);
    H5Adelete(set, "checksum"); /* what carries no checksum is not verified */
    H5Dclose(set);
    H5Fclose(file);
    ra_free(value);
    free(path);
    return err;
}

static const char *wrong_reference(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "llama31", &p));
    MPI_EXPECT_OK(weigh_it(world, &p));
    MPI_EXPECT_OK(ra_comm_agree(
        world, world->rank == 0 ? rewrite(p.dir, "weights.h5", "reference_logp", p.run.samples, RA_ROLES, 1.001) : RA_OK));
    const char *failure = expect_failure(train_it(world, &p, INT64_MAX), RA_ERR_NUMERIC,
                                         "before the first step the model is not its reference", "weigh");
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return failure;
}

/* Weights of another triage or other settings must not be trained with. */
static const char *stale_weights(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "llama31", &p));
    MPI_EXPECT_OK(weigh_it(world, &p));
    tiny_run other = p.run;
    other.sets = TINY_NO_CONFLICT;
    MPI_EXPECT_OK(tiny_run_make(world, p.dir, &other));
    const char *failure = expect_failure(train_it(world, &p, INT64_MAX), RA_ERR_DATA, "weights.h5", "run weigh again");
    if (!failure) {
        MPI_EXPECT_OK(tiny_run_make(world, p.dir, &p.run));
        place_word(&p, "beta=0.7");
        failure = expect_failure(train_it(world, &p, INT64_MAX), RA_ERR_DATA, "weights.h5", "run weigh again");
    }
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return failure;
}

/* hidden.bin cut short: train says so, and weigh makes it anew. */
static const char *lost_states(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "llama31", &p));
    MPI_EXPECT_OK(weigh_it(world, &p));
    char *path = ra_path_join(p.dir, "hidden.bin");
    if (world->rank == 0 && truncate(path, 100) != 0) return "truncate failed";
    RA_MPI(MPI_Barrier(world->comm));
    const char *failure = expect_failure(train_it(world, &p, INT64_MAX), RA_ERR_FORMAT, "hidden.bin", "run weigh again");
    if (!failure && weigh_and_train(world, &p) != RA_OK)
        failure = test_message("weigh must make hidden.bin anew: %s", ra_error_message());
    free(path);
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return failure;
}

/* A copy of the model with one weight that is no number. */
static ra_err copy_with_nan(const char *from, const char *to)
{
    RA_TRY(ra_dir_make(to));
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *a = ra_path_join(from, names[i]), *b = ra_path_join(to, names[i]);
        ra_buf bytes = {0};
        ra_err err = ra_file_read(a, &bytes);
        if (err == RA_OK && i == 1) memset(bytes.data + bytes.length - 4096, 0xff, 4);
        if (err == RA_OK) err = ra_file_write(b, bytes.data, bytes.length);
        ra_buf_free(&bytes);
        free(a);
        free(b);
        RA_TRY(err);
    }
    return RA_OK;
}

static const char *nan_weight(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "llama32_tied", &p));
    char *broken = ra_path_join(dir, "broken");
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? copy_with_nan(p.model, broken) : RA_OK));
    char *word = ra_format("model=%s", broken);
    place_word(&p, word);
    const char *failure = expect_failure(weigh_it(world, &p), RA_ERR_DATA, broken, "tensor");
    free(word);
    free(broken);
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return failure;
}

/* Ids beyond the model's vocabulary would read past the embedding. */
static const char *foreign_ids(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "qwen25", &p));                   /* 208 ids */
    char *small = model_of("llama32_tied"), *word = ra_format("model=%s", small); /* 160 */
    place_word(&p, word);
    const char *failure = expect_failure(weigh_it(world, &p), RA_ERR_DATA, "vocabulary", "160");
    free(word);
    free(small);
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return failure;
}

/* ---- odd data and settings ---- */
static const char *short_texts(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p = {.dir = ra_path_join(dir, "run"), .model = model_of("llama31")};
    p.run = (tiny_run){.model = p.model, .samples = 400, .seed = 9, .one_token_prompts = true};
    MPI_EXPECT_OK(tiny_run_make(world, p.dir, &p.run));
    place_word(&p, "train.batch=150");
    place_word(&p, "train.max_steps=3");
    place_word(&p, "pack.minimum=1");
    MPI_EXPECT_OK(weigh_and_train(world, &p));
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* A finished run that is started again does nothing more, also where it ended by its gradient norm. */
static const char *finished(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    place p;
    MPI_EXPECT_OK(place_make(world, dir, "run", "llama31", &p));
    place_word(&p, "train.stop_gradient_norm=1e6");
    double value[STEPS + 1][COLUMNS];
    MPI_EXPECT_OK(weigh_and_train(world, &p));
    RA_MPI(MPI_Barrier(world->comm));
    AGREED(read_steps(p.dir, value, STEPS + 1) == 1, "the first gradient is small enough to end the run");
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(train_it(world, &p, INT64_MAX));
    RA_MPI(MPI_Barrier(world->comm));
    AGREED(read_steps(p.dir, value, STEPS + 1) == 1, "started again, it must not take another step");
    place_free(&p);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"20 steps: losses as on 1 rank (full, LoRA, DPO, three families)", same_losses},
        {"stop after 1, 7 and 19 steps and resume: the same bits, full and LoRA", resume_bitwise},
        {"resume on another rank count", resume_elsewhere},
        {"a wrong reference is noticed before the first step", wrong_reference},
        {"weights of another triage or other settings are refused", stale_weights},
        {"a cut hidden.bin is noticed and made anew", lost_states},
        {"a weight that is no number is named", nan_weight},
        {"ids beyond the vocabulary are refused", foreign_ids},
        {"one-token prompts and responses: more head rows than pack rows", short_texts},
        {"a run that ended by its gradient norm stays ended", finished},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
