/* Two ways to use the ranks at hand: data x 1 and 1 x pipeline, on one model in one run, ranks interleaved in time; and the bubble that is measured against theory.
 *   mpirun -n P bench_pipeline [MODEL [PRECISION [ROWS]]]     MODEL: a directory or a GGUF file; else $REALIGN_DEMO_GGUF
 * Busy is what a rank spends in its slots' computation, by the engine's timers; the bubble is 1 - sum busy / (P makespan). Theory, for the costs that were measured: ra_schedule_time with
 * each stage's own forward and backward times, no latency, and the closed form for even stages. */
#include "support/passes.h"

#include <realign/cost.h>
#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/settings.h>

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 60, RESPONSE = 58, REPEATS = 2 };

typedef struct {
    int32_t rows, vocabulary;
} shape;

static void fill(void *context, int32_t index, ra_microbatch *mb)
{
    const shape *s = context;
    static int32_t ids[PROMPT + 2 * RESPONSE];
    ra_microbatch_clear(mb);
    ra_rng rng = ra_rng_make((uint64_t)index, RA_STREAM_TEST);
    for (;;) {
        for (int i = 0; i < PROMPT + 2 * RESPONSE; i++) ids[i] = (int32_t)ra_rng_below(&rng, (uint64_t)s->vocabulary);
        ra_sample sample = {.id = index, .prompt_count = PROMPT, .prompt = ids};
        for (int r = 0; r < 2; r++) {
            sample.response[r].count = RESPONSE;
            sample.response[r].token = ids + PROMPT + r * RESPONSE;
        }
        if (!ra_microbatch_add(mb, &sample, RA_LOSS_PAIR, 1.0, NULL)) return;
    }
}

typedef struct {
    ra_grid grid;
    ra_model *m;
    ra_engine *e;
    ra_timers *timers;
    void *gradient;
    int64_t size;
    shape s;
} side;

static void open_side(const ra_comm *world, int32_t stages, ra_backend *b, const ra_modelfile *file, int32_t rows,
                      const char *layers, side *x)
{
    *x = (side){.timers = ra_timers_new()};
    ra_arch arch;
    ra_part part;
    ra_settings *settings = ra_settings_new();
    ra_workload work = {.training = RA_TRAIN_FULL, .context = 90.0, .head_share = 2.0 * RESPONSE / (PROMPT + 2.0 * RESPONSE)};
    if (stages > 1 && layers) {
        char *word = ra_format("grid.layers=%s", layers);
        if (ra_settings_read_words(settings, 1, &word) != RA_OK) ra_die("%s", ra_error_message());
        free(word);
    }
    ra_engine_config config = {.rows = rows, .keep = true, .schedule = RA_PIPELINE_1F1B};
    if (ra_grid_make(world, stages, &x->grid) != RA_OK || ra_arch_of(file, &arch) != RA_OK ||
        ra_grid_part(settings, &x->grid, &arch, &work, &part) != RA_OK ||
        ra_model_open(b, file, RA_TRAIN_FULL, NULL, 512, &part, &x->m) != RA_OK ||
        ra_engine_new(x->m, &x->grid, &config, x->timers, &x->e) != RA_OK)
        ra_die("%s", ra_error_message());
    x->size = ra_model_trainable(x->m)->size;
    x->gradient = b->ops->alloc(b, (size_t)x->size * b->r_size);
    x->s = (shape){rows, arch.vocabulary};
    ra_arch_free(&arch);
    ra_settings_free(settings);
}

static void close_side(ra_backend *b, side *x)
{
    b->ops->release(b, x->gradient);
    ra_engine_free(x->e);
    ra_model_close(x->m);
    ra_grid_free(&x->grid);
    ra_timers_free(x->timers);
}

/* Seconds of one step's passes, micro-batches in all; the slowest rank's. */
static double step(const ra_comm *world, side *x, int32_t micro_batches)
{
    static const ra_objective o = {.beta = 0.3, .npo_scale = 1.0};
    ra_pass pass = {.context = &x->s,
                    .count = micro_batches / x->grid.data.size,
                    .fill = fill,
                    .backward = &(ra_backward){.gradient = x->gradient}};
    RA_MPI(MPI_Barrier(world->comm));
    double begun = ra_now();
    if (ra_engine_run(x->e, &o, &pass) != RA_OK) ra_die("%s", ra_error_message());
    double seconds = ra_now() - begun;
    ra_comm_max_f64(world, &seconds, 1);
    return seconds;
}

static void busy_of(const side *x, double out[2])
{
    out[0] = ra_timer_seconds(x->timers, "forward");
    out[1] = ra_timer_seconds(x->timers, "backward") + ra_timer_seconds(x->timers, "head forward") +
             ra_timer_seconds(x->timers, "head backward");
}

/* The bubble of the best of several steps, and what schedule and measured times of the stages make it. */
static void bubble(const ra_comm *world, side *x, int32_t m)
{
    int32_t p = x->grid.stages;
    double best = 1e30, busy = 0.0, forward = 0.0, backward = 0.0;
    for (int k = 0; k < REPEATS; k++) {
        double before[2], after[2];
        busy_of(x, before);
        double seconds = step(world, x, m);
        busy_of(x, after);
        if (seconds >= best) continue;
        best = seconds;
        forward = after[0] - before[0];
        backward = after[1] - before[1];
        busy = forward + backward;
    }
    double *f = ra_calloc((size_t)p * 2, sizeof *f), total = busy;
    f[x->grid.stage] = forward / m;
    f[p + x->grid.stage] = backward / m;
    ra_comm_sum_f64(world, f, 2 * p);
    ra_comm_sum_f64(world, &total, 1);
    ra_schedule_costs *stage = ra_calloc((size_t)p, sizeof *stage);
    double most = 0.0, mean = 0.0;
    for (int32_t i = 0; i < p; i++) {
        stage[i] = (ra_schedule_costs){.forward = f[i], .backward = f[p + i]};
        most = fmax(most, f[i] + f[p + i]);
        mean += (f[i] + f[p + i]) / p;
    }
    ra_schedule schedule;
    ra_schedule_timing timing;
    ra_schedule_costs costs = {.stage = stage};
    if (ra_schedule_make(RA_PIPELINE_1F1B, p, m, 1, &schedule) != RA_OK || ra_schedule_time(&schedule, &costs, &timing) != RA_OK)
        ra_die("%s", ra_error_message());
    if (world->rank == 0) {
        printf("  %3d micro-batches: bubble %5.1f %%; even stages (p-1)/(m+p-1) %5.1f %%; with these stages' times %5.1f %% "
               "(slowest stage "
               "%.2f of the mean)\n",
               m, 100.0 * (1.0 - total / (p * best)), 100.0 * (p - 1) / (m + p - 1), 100.0 * timing.bubble, most / mean);
    }
    ra_schedule_timing_free(&timing);
    ra_schedule_free(&schedule);
    ra_free(stage);
    ra_free(f);
}

int main(int argc, char **argv)
{
    ra_comm world;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) ra_die("%s", ra_error_message());
    const char *path = argc > 1 ? argv[1] : getenv("REALIGN_DEMO_GGUF");
    if (!path || world.size < 2) {
        if (world.rank == 0)
            printf("bench_pipeline: %s\n",
                   path ? "start it with mpirun -n 2 or more" : "no model: give a path or set REALIGN_DEMO_GGUF");
        ra_comm_finalize();
        return 0;
    }
    ra_backend *b = NULL;
    ra_modelfile *file = NULL;
    int32_t rows = argc > 3 ? atoi(argv[3]) : 352, m = 8 * world.size;
    omp_set_num_threads(ra_comm_threads(&world, 0));
    if (ra_backend_open("cpu", argc > 2 ? argv[2] : "fp32", ra_comm_threads(&world, 0), &b) != RA_OK ||
        ra_modelfile_open(path, &file) != RA_OK)
        ra_die("%s", ra_error_message());
    side data, pipeline;
    open_side(&world, 1, b, file, rows, NULL, &data);
    open_side(&world, world.size, b, file, rows, argc > 4 ? argv[4] : NULL, &pipeline);
    if (world.rank == 0) printf("%s, %d ranks, packs of %d rows, full parameters\n", ra_backend_describe(b), world.size, rows);
    double best[2] = {1e30, 1e30};
    for (int k = 0; k < REPEATS; k++) {
        best[0] = fmin(best[0], step(&world, &data, m));
        best[1] = fmin(best[1], step(&world, &pipeline, m));
    }
    if (world.rank == 0) {
        printf("  %d x 1: %7.0f rows/s    1 x %d: %7.0f rows/s    ratio %.2f (%d micro-batches; the bubble leaves %.2f)\n",
               world.size, m * rows / best[0], world.size, m * rows / best[1], best[0] / best[1], m, m / (m + world.size - 1.0));
    }
    for (int32_t n = world.size; n <= 8 * world.size; n *= 2) bubble(&world, &pipeline, n);
    close_side(b, &data);
    close_side(b, &pipeline);
    ra_modelfile_close(file);
    ra_backend_close(b);
    ra_comm_finalize();
    return 0;
}
