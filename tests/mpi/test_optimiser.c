/* The optimiser by itself: learning rates by their formulas, clipping by the global norm, and a gradient that is not finite. */
#include "support/support.h"

#include <realign/engine.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>

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

/* Learning rates by their formula: warm-up to the peak, then down to the floor at the last step's end. */
static const char *schedules(const ra_comm *world)
{
    (void)world;
    ra_optimiser_config c = {.lr = 2.0, .warmup_steps = 4, .total_steps = 24, .min_lr_ratio = 0.1};
    static const struct {
        unsigned schedule;
        int64_t t;
        double want;
    } cases[] = {{RA_SCHEDULE_CONSTANT, 1, 0.5},
                 {RA_SCHEDULE_CONSTANT, 4, 2.0},
                 {RA_SCHEDULE_CONSTANT, 24, 2.0},
                 {RA_SCHEDULE_LINEAR, 2, 1.0},
                 {RA_SCHEDULE_LINEAR, 5, 2.0},
                 {RA_SCHEDULE_LINEAR, 15, 1.1},
                 {RA_SCHEDULE_LINEAR, 25, 0.2},
                 {RA_SCHEDULE_LINEAR, 99, 0.2},
                 {RA_SCHEDULE_COSINE, 3, 1.5},
                 {RA_SCHEDULE_COSINE, 5, 2.0},
                 {RA_SCHEDULE_COSINE, 10, 0.2 + 1.8 * 0.8535533905932737},
                 {RA_SCHEDULE_COSINE, 15, 1.1},
                 {RA_SCHEDULE_COSINE, 25, 0.2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        c.schedule = cases[i].schedule;
        double got = ra_learning_rate(&c, cases[i].t);
        MPI_EXPECT(fabs(got - cases[i].want) < 1e-12, "schedule %u, step %lld: %.12g, not %.12g", cases[i].schedule,
                   (long long)cases[i].t, got, cases[i].want);
    }
    c.warmup_steps = 0;
    MPI_EXPECT(fabs(ra_learning_rate(&c, 1) - 2.0) < 1e-12, "without warm-up the first step has the peak");
    c.warmup_steps = 50;
    MPI_EXPECT(fabs(ra_learning_rate(&c, 24) - 0.96) < 1e-12, "a warm-up longer than the run goes on rising");
    return NULL;
}

/* Ones from every rank: the gradient is the number of ranks everywhere, its norm known, and Adam's first mean shows what clipping left of it. */
static const char *clipping(const ra_comm *world)
{
    if (!test_shared()) return NULL;
    static const double clips[] = {0.0, 0.5, 1e9};
    char *path = model_of("llama32_tied");
    ra_grid grid;
    ra_grid_make(world, &grid);
    for (int i = 0; i < 4; i++) {
        ra_backend *b;
        ra_modelfile *file;
        ra_model *m;
        MPI_EXPECT_OK(ra_backend_open("cpu", "fp32", 1, &b));
        MPI_EXPECT_OK(ra_modelfile_open(path, &file));
        MPI_EXPECT_OK(ra_model_open(b, file, RA_TRAIN_FULL, NULL, 16, NULL, &m));
        ra_optimiser_config c = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .clip = i < 3 ? clips[i] : 1.0};
        ra_optimiser *o = ra_optimiser_new(m, &grid, &c);
        int64_t n = ra_model_trainable(m)->size, begin, end;
        float *gradient = ra_optimiser_gradient(o), first = *(float *)ra_model_masters(m);
        for (int64_t k = 0; k < n; k++) gradient[k] = 1.0F;
        if (i == 3 && world->rank == world->size - 1) gradient[n / 2] = INFINITY;
        double norm, want = world->size * sqrt((double)n);
        ra_err err = ra_optimiser_step(o, &norm);
        if (i == 3) {
            AGREED(err == RA_ERR_NUMERIC && first == *(float *)ra_model_masters(m) && ra_optimiser_steps(o) == 0,
                   "an infinite gradient: %d, nothing may change", err);
        } else {
            double left = world->size * (clips[i] > 0.0 && clips[i] < want ? clips[i] / want : 1.0);
            ra_optimiser_range(o, &begin, &end);
            const float *mean = ra_optimiser_moment(o, 0);
            AGREED(err == RA_OK && fabs(norm / want - 1.0) < 1e-6, "norm %.9g, not %.9g", norm, want);
            AGREED(begin == end || fabs(mean[0] / (0.1 * left) - 1.0) < 1e-5, "clip %g: mean %.9g, not %.9g", clips[i], mean[0],
                   0.1 * left);
        }
        ra_optimiser_free(o);
        ra_model_close(m);
        ra_modelfile_close(file);
        ra_backend_close(b);
    }
    free(path);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"learning rates of all schedules", schedules},
        {"clipping; an infinite gradient changes nothing", clipping},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
