/* Training that is stopped on one layout of ranks and goes on in another: the losses and the result of a run that was never stopped; and the same bits where the layout stays. This program
 * has its own run control, so that a stop falls after a given step. */
#include "support/layouts.h"
#include "support/own_runctl.h"
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/modelfile.h>
#include <realign/stage.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10, LAYERS = 4, LOSS = 5 /* column of steps.tsv */ };

typedef struct {
    const char *family, *adapter; /* adapter: "true" or "false" */
} variant;
static const variant variants[] = {{"llama31", "false"}, {"gemma2", "false"}, {"llama31", "true"}};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

/* ---- runs ---- */
typedef struct {
    const variant *v;
    char *dir, *model;
    tiny_run run;
} place;

static ra_err place_make(const ra_comm *world, const char *dir, const char *name, const variant *v, place *p)
{
    *p =
        (place){.v = v, .dir = ra_path_join(dir, name), .model = ra_format("%s/fixtures/%s/reference", test_shared(), v->family)};
    p->run = (tiny_run){.model = p->model, .samples = 48, .seed = 5};
    return tiny_run_make(world, p->dir, &p->run);
}

static void place_free(place *p)
{
    free(p->dir);
    free(p->model);
}

typedef ra_err (*stage)(const ra_settings *s, const ra_comm *world);

/* Collective over world: a stage on the ranks of a layout. Ends after so many more steps. */
static ra_err run_on(const ra_comm *world, const test_layout *l, const place *p, stage what, int64_t steps)
{
    ra_comm comm = test_layout_join(world, l);
    ra_err err = RA_OK;
    if (comm.size) {
        char *words[] = {ra_format("grid.pipeline=%d", l->stages),
                         ra_format("grid.chunks=%d", l->chunks),
                         ra_format("grid.schedule=%s", l->chunks > 1 ? "interleaved" : "1f1b"),
                         ra_format("train.max_steps=%d", STEPS),
                         ra_format("lora.enabled=%s", p->v->adapter),
                         ra_format("train.lr=%s", strcmp(p->v->adapter, "true") == 0 ? "1e-3" : "2e-4"),
                         NULL};
        ra_settings *s = tiny_run_settings(p->dir, &p->run, words);
        questions_left = steps;
        err = what(s, &comm);
        questions_left = INT64_MAX;
        ra_settings_free(s);
        for (int i = 0; words[i]; i++) free(words[i]);
    }
    test_layout_leave(&comm);
    return ra_comm_agree(world, err);
}

/* Weighs and trains k steps on one layout, the rest on another. */
static const char *train_in_two(const ra_comm *world, const place *p, const test_layout *a, const test_layout *b, int64_t k)
{
    MPI_EXPECT_OK(run_on(world, a, p, ra_stage_weigh, INT64_MAX));
    ra_err err = run_on(world, a, p, ra_stage_train, k);
    MPI_EXPECT(err == RA_ERR_STOPPED, "stop after %d steps: %s", (int)k, err == RA_OK ? "it went on" : ra_error_message());
    MPI_EXPECT_OK(run_on(world, b, p, ra_stage_train, INT64_MAX));
    return NULL;
}

static const char *train_whole(const ra_comm *world, const place *p, const test_layout *l)
{
    MPI_EXPECT_OK(run_on(world, l, p, ra_stage_weigh, INT64_MAX));
    MPI_EXPECT_OK(run_on(world, l, p, ra_stage_train, INT64_MAX));
    return NULL;
}

/* ---- results ---- */

/* Losses of steps.tsv. Returns the rows. */
static int read_losses(const char *dir, double loss[STEPS + 1])
{
    char *path = ra_path_join(dir, "steps.tsv");
    ra_buf text = {0};
    int rows = 0;
    if (ra_file_read(path, &text) == RA_OK) {
        for (char *line = strchr(text.data, '\n'); line && line[1] && rows <= STEPS; line = strchr(line + 1, '\n'), rows++) {
            char *at = line + 1;
            for (int c = 0; c <= LOSS; c++) loss[rows] = strtod(at, &at);
        }
    }
    ra_buf_free(&text);
    free(path);
    return rows;
}

static const char *same_losses(const char *dir, const char *whole)
{
    double a[STEPS + 1], b[STEPS + 1];
    int rows = read_losses(dir, a);
    MPI_EXPECT(rows == STEPS && read_losses(whole, b) == STEPS, "%d steps, not %d", rows, STEPS);
    for (int i = 0; i < STEPS; i++) {
        double d = fabs(a[i] - b[i]) / fmax(fabs(b[i]), 0.1);
        MPI_EXPECT(d <= 1e-5, "step %d: loss %.9g, not %.9g", i + 1, a[i], b[i]);
    }
    MPI_EXPECT(fabs(b[0] - b[STEPS - 1]) > 1e-6 * fabs(b[0]), "nothing was learnt");
    return NULL;
}

static char *result_of(const place *p)
{
    return ra_format("%s/model/%s.safetensors", p->dir, strcmp(p->v->adapter, "true") == 0 ? "adapter_model" : "model");
}

/* |a - b| / |b| over all tensors of two results. */
static const char *close_tensors(const place *a, const place *b, double tolerance)
{
    char *x = result_of(a), *y = result_of(b);
    ra_modelfile *f, *g;
    MPI_EXPECT_OK(ra_modelfile_open(x, &f));
    MPI_EXPECT_OK(ra_modelfile_open(y, &g));
    MPI_EXPECT(ra_modelfile_count(f) == ra_modelfile_count(g), "%d tensors, not %d", ra_modelfile_count(f),
               ra_modelfile_count(g));
    double difference = 0.0, length = 0.0;
    for (int i = 0; i < ra_modelfile_count(f); i++) {
        const ra_tensor_info *t = ra_modelfile_info(f, i);
        double *u = ra_alloc((size_t)t->elements, sizeof *u), *v = ra_alloc((size_t)t->elements, sizeof *v);
        MPI_EXPECT_OK(ra_modelfile_read(f, t->name, 0, t->elements, RA_DTYPE_F64, u));
        MPI_EXPECT_OK(ra_modelfile_read(g, t->name, 0, t->elements, RA_DTYPE_F64, v));
        for (int64_t k = 0; k < t->elements; k++) difference += (u[k] - v[k]) * (u[k] - v[k]), length += v[k] * v[k];
        ra_free(u);
        ra_free(v);
    }
    ra_modelfile_close(f);
    ra_modelfile_close(g);
    free(x);
    free(y);
    MPI_EXPECT(difference <= tolerance * tolerance * length, "the resulting weights differ by %.2e", sqrt(difference / length));
    return NULL;
}

/* All of steps.tsv but its last two columns, which are times, and the resulting weights. */
static const char *same_bits(const place *a, const place *b)
{
    char *x[] = {ra_path_join(a->dir, "steps.tsv"), result_of(a)}, *y[] = {ra_path_join(b->dir, "steps.tsv"), result_of(b)};
    const char *wrong = NULL;
    for (int i = 0; i < 2 && !wrong; i++) {
        ra_buf f = {0}, g = {0};
        MPI_EXPECT_OK(ra_file_read(x[i], &f));
        MPI_EXPECT_OK(ra_file_read(y[i], &g));
        ra_buf *both[] = {&f, &g};
        for (int k = 0; k < 2 && i == 0; k++) {
            size_t to = 0;
            int tabs = 0;
            for (size_t at = 0; at < both[k]->length; at++) {
                char c = both[k]->data[at];
                tabs = c == '\n' ? 0 : tabs + (c == '\t');
                if (tabs < 22) both[k]->data[to++] = c;
            }
            both[k]->length = to;
        }
        if (f.length != g.length || f.length < 100 || memcmp(f.data, g.data, f.length) != 0)
            wrong = test_message("%s differs from %s", x[i], y[i]);
        ra_buf_free(&f);
        ra_buf_free(&g);
    }
    for (int i = 0; i < 2; i++) free(x[i]), free(y[i]);
    return wrong;
}

/* ---- tests ---- */

/* From one layout to the next, so that each is left or entered, and from the last to the first; compared with one rank that was never stopped. */
static const char *change_layouts(const ra_comm *world, const char *dir, const variant *v)
{
    test_layout layouts[TEST_LAYOUTS_MOST];
    int n = test_layouts(world->size, LAYERS, layouts);
    place whole;
    MPI_EXPECT_OK(place_make(world, dir, "whole", v, &whole));
    const char *wrong = train_whole(world, &whole, &layouts[0]);
    for (int i = v == variants ? (n - 1) % 2 : n - 1; i < n && !wrong; i += 2) {
        const test_layout *a = &layouts[i], *b = &layouts[(i + 1) % n];
        char *name = ra_format("run-%d", i);
        place p;
        MPI_EXPECT_OK(place_make(world, dir, name, v, &p));
        wrong = train_in_two(world, &p, a, b, STEPS / 2);
        if (!wrong) wrong = same_losses(p.dir, whole.dir);
        if (!wrong) wrong = close_tensors(&p, &whole, 5e-6);
        if (wrong) wrong = test_message("%s, then %s: %s", test_layout_name(a), test_layout_name(b), wrong);
        place_free(&p);
        free(name);
    }
    place_free(&whole);
    return wrong;
}

static const char *test_change(const ra_comm *world)
{
    const char *wrong = NULL;
    for (int i = 0; i < VARIANTS && !wrong && test_shared(); i++) {
        char *dir = test_mpi_dir_make(world);
        wrong = change_layouts(world, dir, &variants[i]);
        if (wrong) wrong = test_message("%s, lora.enabled=%s: %s", variants[i].family, variants[i].adapter, wrong);
        test_mpi_dir_remove(world, dir);
    }
    return wrong;
}

/* The last layouts, which are those of all ranks. */
static const char *test_same(const ra_comm *world)
{
    test_layout layouts[TEST_LAYOUTS_MOST];
    int n = test_layouts(world->size, LAYERS, layouts);
    const char *wrong = NULL;
    for (int i = n > 2 ? n - 2 : 0; i < n && !wrong && test_shared(); i++) {
        const variant *v = &variants[i % VARIANTS];
        char *dir = test_mpi_dir_make(world);
        place whole, p;
        MPI_EXPECT_OK(place_make(world, dir, "whole", v, &whole));
        MPI_EXPECT_OK(place_make(world, dir, "stopped", v, &p));
        wrong = train_whole(world, &whole, &layouts[i]);
        if (!wrong) wrong = train_in_two(world, &p, &layouts[i], &layouts[i], 3);
        if (!wrong) wrong = same_bits(&p, &whole);
        if (wrong) wrong = test_message("%s, %s: %s", v->family, test_layout_name(&layouts[i]), wrong);
        place_free(&whole);
        place_free(&p);
        test_mpi_dir_remove(world, dir);
    }
    return wrong;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"stopped on one layout, gone on with in another: the losses of one rank", test_change},
        {"stopped and gone on with in the same layout: the same bits", test_same},
    };
    if (!test_shared()) {
        const char *rank = getenv("OMPI_COMM_WORLD_RANK");
        if (!rank || strcmp(rank, "0") == 0) puts("1..1\nok 1 - training on layouts # SKIP the shared fixtures are absent");
        return 0;
    }
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
