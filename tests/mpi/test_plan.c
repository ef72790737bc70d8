/* Planned memory against what a backend handed out, in weighing and training of small models over every layout of the ranks at hand; and the limit. The issue asks for 5 %; sizes come from
 * the functions that allocate, so here they must be the same to the byte. */
#include "support/own_runctl.h"
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/plan.h>
#include <realign/stage.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 36, MOST_WORDS = 12 };

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

static ra_settings *settings_of(const char *dir, const char *family, const char *const *own, int stages, tiny_run *tiny)
{
    char *words[MOST_WORDS + 1] = {NULL};
    int n = 0;
    words[n++] = ra_format("grid.pipeline=%d", stages);
    words[n++] = ra_strdup("train.max_steps=3");
    for (; own && *own; own++) words[n++] = ra_strdup(*own);
    *tiny = (tiny_run){.model = ra_format("%s/fixtures/%s/reference", test_shared(), family), .samples = SAMPLES, .seed = 5};
    ra_settings *s = tiny_run_settings(dir, tiny, words);
    while (n > 0) free(words[--n]);
    return s;
}

/* The rows of memory-STAGE.tsv: every rank's kinds add up to what was planned, and that is its peak. NULL when all is well. */
static const char *check_table(const char *dir, const char *stage, int ranks)
{
    char *name = ra_format("memory-%s.tsv", stage), *path = ra_path_join(dir, name);
    ra_buf text = {0};
    int rows = 0;
    const char *wrong = ra_file_read(path, &text) == RA_OK ? NULL : test_message("%s is not there", name);
    for (char *line = text.data ? strchr(text.data, '\n') : NULL; !wrong && line && line[1];
         line = strchr(line + 1, '\n'), rows++) {
        char *at = line + 1;
        double value[4], kinds = 0.0;
        for (int i = 0; i < 4; i++) value[i] = strtod(at, &at);
        for (int k = 0; k < RA_MEMORY_KINDS; k++) kinds += strtod(at, &at);
        if (value[0] != rows || kinds != value[2] || value[2] < 1e5)
            wrong = test_message("%s: row %d: %.0f planned, its kinds make %.0f", name, rows, value[2], kinds);
        if (!wrong && value[2] != value[3])
            wrong = test_message("%s: row %d: %.0f planned, %.0f at the peak", name, rows, value[2], value[3]);
    }
    if (!wrong && rows != ranks) wrong = test_message("%s has %d rows, not %d", name, rows, ranks);
    ra_buf_free(&text);
    free(path);
    free(name);
    return wrong;
}

static const char *one_case(const ra_comm *world, const char *family, const char *const *words, int stages)
{
    char *dir = test_mpi_dir_make(world);
    tiny_run tiny;
    ra_settings *s = settings_of(dir, family, words, stages, &tiny);
    MPI_EXPECT_OK(tiny_run_make(world, dir, &tiny));
    MPI_EXPECT_OK(ra_stage_weigh(s, world));
    MPI_EXPECT_OK(ra_stage_train(s, world));
    const char *wrong = world->rank == 0 ? check_table(dir, "weigh", world->size) : NULL;
    if (!wrong && world->rank == 0) wrong = check_table(dir, "train", world->size);
    AGREED(!wrong, "%s, %d stages, %s: %s", family, stages, words[0] ? words[0] : "full", wrong ? wrong : "another rank");
    ra_settings_free(s);
    free((char *)(uintptr_t)tiny.model);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *planned_is_real(const ra_comm *world)
{
    static const struct {
        const char *family;
        int layers, fewest, most; /* stages that the case is for */
        const char *words[6];
    } cases[] = {
        {"gemma2", 4, 1, 4, {NULL}},
        {"llama31", 4, 1, 4, {"precision=bf16", "recompute=inputs"}},
        {"llama32_tied", 3, 1, 2, {"lora.enabled=true", "recompute=full"}},
        {"llama31", 4, 1, 4, {"grid.schedule=gpipe", "pack.minimum=1", "pack.tokens=48", "train.batch=5", "train.max_steps=7"}},
        {"llama31", 4, 2, 4, {"grid.schedule=zero-bubble"}},
        {"gemma2", 4, 2, 2, {"grid.schedule=interleaved", "grid.chunks=2", "pack.minimum=5"}},
        {"qwen25_tied", 2, 1, 2, {"weights.direction=cosine", "weights.parameters=adapter", "lora.enabled=true"}},
        {"qwen25_tied", 2, 1, 1, {"weights.enabled=false", "backend=ref", "precision=fp64"}}};
    if (!test_shared()) return NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int stages = cases[i].fewest; stages <= cases[i].most && stages <= world->size; stages++) {
            if (world->size % stages != 0 || stages > cases[i].layers) continue;
            const char *wrong = one_case(world, cases[i].family, cases[i].words, stages);
            if (wrong) return wrong;
        }
    }
    return NULL;
}

/* Too little is an error before training, which says what was asked for, what is allowed and what would fit. */
static const char *limit_refuses(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    static const char *const words[] = {"grid.memory=2MiB", NULL};
    tiny_run tiny;
    ra_settings *s = settings_of(dir, "llama31", words, 1, &tiny);
    MPI_EXPECT_OK(tiny_run_make(world, dir, &tiny));
    ra_err err = ra_stage_weigh(s, world);
    const char *said = ra_error_message();
    AGREED(err == RA_ERR_DATA && strstr(said, "grid.memory") && strstr(said, "2.00 MiB") && strstr(said, "what would fit: ") &&
               strstr(said, "recompute=inputs"),
           "%s: %s", ra_error_name(err), said);
    MPI_EXPECT_OK(ra_set_put(s, "grid.memory", "1GiB"));
    MPI_EXPECT_OK(ra_stage_weigh(s, world));
    ra_settings_free(s);
    free((char *)(uintptr_t)tiny.model);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* A rank that is imagined has the place of the one that is made. */
static const char *imagined_grid(const ra_comm *world)
{
    for (int32_t stages = 1; stages <= world->size; stages++) {
        ra_grid real, imagined;
        if (world->size % stages != 0) continue;
        MPI_EXPECT_OK(ra_grid_make(world, stages, &real));
        MPI_EXPECT_OK(ra_grid_imagine(world->size, stages, world->rank, &imagined));
        const ra_comm a[] = {real.world, real.data, real.pipeline, real.ends},
                      b[] = {imagined.world, imagined.data, imagined.pipeline, imagined.ends};
        bool same = real.stage == imagined.stage && real.stages == imagined.stages;
        for (int i = 0; i < 4; i++) same &= a[i].size == b[i].size && (a[i].size == 0 || a[i].rank == b[i].rank);
        AGREED(same, "%d ranks, %d stages: rank %d has another place", world->size, stages, world->rank);
        ra_grid_free(&real);
    }
    ra_grid none;
    AGREED(ra_grid_imagine(3, 2, 0, &none) == RA_ERR_ARG, "2 stages for 3 ranks were accepted");
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {{"planned memory is what weighing and training take", planned_is_real},
                                     {"a limit refuses, and says what would fit", limit_refuses},
                                     {"an imagined grid is the real one", imagined_grid}};
    return test_mpi_main(argc, argv, tests, 3);
}
