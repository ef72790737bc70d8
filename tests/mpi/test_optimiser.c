/* The optimiser by itself: learning rates by their formulas, clipping by the global norm, a gradient that is not finite, and stages that update as one rank would. */
#include "support/layouts.h"
#include "support/support.h"

#include <realign/engine.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    MPI_EXPECT_OK(ra_grid_make(world, 1, &grid));
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
    ra_grid_free(&grid);
    free(path);
    return NULL;
}

/* ---- stages ---- */

/* One training: on the ranks of a layout, or whole on this rank. */
typedef struct {
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_optimiser *o;
} training;

static ra_err training_begin(const ra_comm *comm, const test_layout *l, const char *model, double clip, training *t)
{
    RA_TRY(ra_grid_make(comm, l->stages, &t->grid));
    ra_part part = test_layout_part(l, t->grid.stage, TEST_LAYERS);
    RA_TRY(ra_backend_open("cpu", "fp32", 1, &t->b));
    RA_TRY(ra_modelfile_open(model, &t->file));
    RA_TRY(ra_model_open(t->b, t->file, RA_TRAIN_FULL, NULL, 16, &part, &t->m));
    ra_optimiser_config c = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1, .clip = clip};
    t->o = ra_optimiser_new(t->m, &t->grid, &c);
    return RA_OK;
}

static void training_end(training *t)
{
    ra_optimiser_free(t->o);
    ra_model_close(t->m);
    ra_modelfile_close(t->file);
    ra_backend_close(t->b);
    ra_grid_free(&t->grid);
}

/* What the embedding's side and the head's side of a tied tensor contribute; another tensor has the first alone. */
static float share_of(int64_t i, int64_t step, int side)
{
    return (float)(sin((double)(i % 9973) * (side ? 0.7 : 0.3) + (double)step) * (side ? 0.04 : 0.03));
}

/* The same gradient by place in the whole network, from replica 0 alone; the last stage gives the head's side of a tied tensor. */
static void put_gradient(training *t, bool tied, int64_t step)
{
    const ra_layout *l = ra_model_trainable(t->m);
    float *g = ra_optimiser_gradient(t->o);
    for (int i = 0; i < l->count && t->grid.data.rank == 0; i++) {
        const ra_param *p = &l->param[i];
        bool both = tied && p->canonical == 0;
        for (int64_t k = 0; k < p->count; k++) {
            int64_t c = p->canonical + k;
            double sum = 0.0;
            if (!both || t->m->first) sum += (double)share_of(c, step, 0);
            if (both && t->m->last) sum += (double)share_of(c, step, 1);
            g[p->offset + k] = (float)sum;
        }
    }
}

/* Largest difference of this rank's masters from those of the whole network. */
static double difference(training *part, training *whole)
{
    const ra_layout *l = ra_model_trainable(part->m);
    const float *a = ra_model_masters(part->m), *b = ra_model_masters(whole->m);
    double most = 0.0;
    for (int i = 0; i < l->count; i++) {
        for (int64_t k = 0; k < l->param[i].count; k++)
            most = fmax(most, fabs((double)a[l->param[i].offset + k] - (double)b[l->param[i].canonical + k]));
    }
    return most;
}

/* Collective over the ends of a pipeline. */
static bool copies_agree(training *t)
{
    if (t->grid.ends.size < 2 || !t->m->arch.tied) return true;
    int64_t n = (int64_t)t->m->arch.vocabulary * t->m->arch.hidden;
    const float *mine = (const float *)ra_model_masters(t->m) + (t->m->first ? t->m->embedding : t->m->head);
    float *first = ra_alloc((size_t)n, sizeof *first);
    memcpy(first, mine, (size_t)n * sizeof *first);
    ra_comm_bcast(&t->grid.ends, first, n * (int64_t)sizeof *first, 0);
    bool same = memcmp(first, mine, (size_t)n * sizeof *first) == 0;
    ra_free(first);
    return same;
}

static const char *steps_as_whole(const ra_comm *comm, const test_layout *l, const char *model, bool tied, double clip)
{
    static const test_layout one = {1, 1, 1};
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    training part, whole;
    MPI_EXPECT_OK(training_begin(comm, l, model, clip, &part));
    MPI_EXPECT_OK(training_begin(&self, &one, model, clip, &whole));
    for (int64_t step = 0; step < 4; step++) {
        double norm, want;
        put_gradient(&part, tied, step);
        put_gradient(&whole, tied, step);
        MPI_EXPECT_OK(ra_optimiser_step(part.o, &norm));
        MPI_EXPECT_OK(ra_optimiser_step(whole.o, &want));
        MPI_EXPECT(want > clip || clip == 0.0, "the gradient, %g, is shorter than the clip", want);
        MPI_EXPECT(fabs(norm / want - 1.0) < 1e-6, "step %d: norm %.9g, that of one rank %.9g", (int)step, norm, want);
        double d = difference(&part, &whole);
        MPI_EXPECT(d < 1e-6, "step %d: parameters differ from those of one rank by %.2e", (int)step, d);
        MPI_EXPECT(copies_agree(&part), "step %d: the two copies of the embedding differ", (int)step);
    }
    training_end(&part);
    training_end(&whole);
    return NULL;
}

static const char *stages(const ra_comm *world)
{
    test_layout layouts[TEST_LAYOUTS_MOST];
    int n = test_layouts(world->size, TEST_LAYERS, layouts);
    char *dir = test_mpi_dir_make(world);
    const char *wrong = NULL;
    ra_log_setup(world->rank, RA_LOG_QUIET);
    for (int i = 0; i < 4 * n && !wrong; i++) {
        bool tied = i & 1;
        double clip = i & 2 ? 0.5 : 0.0;
        const test_layout *l = &layouts[i / 4];
        char *model = test_layout_model_path(dir, "llama", tied);
        MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? test_layout_model(dir, "llama", tied) : RA_OK));
        ra_comm comm = test_layout_join(world, l);
        if (comm.size) wrong = steps_as_whole(&comm, l, model, tied, clip);
        if (wrong) wrong = test_message("%s, %s, clip %g: %s", test_layout_name(l), tied ? "tied" : "untied", clip, wrong);
        AGREED(!wrong, "%s", wrong ? wrong : "another rank failed");
        test_layout_leave(&comm);
        free(model);
    }
    test_mpi_dir_remove(world, dir);
    return wrong;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"learning rates of all schedules", schedules},
        {"clipping; an infinite gradient changes nothing", clipping},
        {"stages: norm, clipping and updates are those of one rank; a tied embedding counts once and stays one", stages},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
