/* One vector in pieces and in even ranges: every element once, copies too, messages longer than a block, memory that is not the host's. Checkpoints and exports of every layout of ranks,
 * read by every other. */
#include "../../src/engine/redistribute.h"
#include "support/layouts.h"
#include "support/support.h"

#include <realign/checkpoint.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* What element `i` of vector `v` is in these tests: never 0, and exact in either precision. */
static double value_of(int v, int64_t i)
{
    uint64_t x = ((uint64_t)i * 4 + (uint64_t)v + 1) * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    return ldexp((double)(x >> 41 | 1), -23) * (x & 1024 ? -1.0 : 1.0);
}

static void put(const ra_backend *b, void *vector, int64_t at, double value)
{
    if (b->r == RA_DTYPE_F64) {
        ((double *)vector)[at] = value;
    } else {
        ((float *)vector)[at] = (float)value;
    }
}

static double get(const ra_backend *b, const void *vector, int64_t at)
{
    return b->r == RA_DTYPE_F64 ? ((const double *)vector)[at] : (double)((const float *)vector)[at];
}

/* ---- pieces by hand ---- */
enum { SEGMENTS = 7, SEGMENT = (1 << 20) / 2 + 48, LONG = (2 << 20) + 16 };

/* Segments of the vector go to ranks in turn; the second is longer than two messages. */
static int64_t segment_begin(int s)
{
    return (int64_t)s * SEGMENT + (s > 1 ? LONG - SEGMENT : 0);
}

static const char *exchange(const ra_comm *world, const char *precision, bool host)
{
    ra_backend *b;
    MPI_EXPECT_OK(ra_backend_open(strcmp(precision, "fp64") ? "cpu" : "ref", precision, 1, &b));
    b->host = host;
    int64_t size = segment_begin(SEGMENTS), begin = ra_comm_range_begin(world, size, world->rank),
            n = ra_comm_range_begin(world, size, world->rank + 1) - begin, wrong = 0;
    ra_pieces pieces = {0};
    for (int s = SEGMENTS - 1; s >= 0; s--) { /* in no order */
        if (s % world->size != world->rank) continue;
        int64_t count = segment_begin(s + 1) - segment_begin(s);
        void *memory = b->ops->alloc(b, (size_t)count * b->r_size);
        for (int64_t i = 0; i < count; i++) put(b, memory, i, value_of(0, segment_begin(s) + i));
        pieces.piece[pieces.count++] = (ra_piece){segment_begin(s), count, memory};
    }
    char *range = ra_alloc((size_t)n + 16, b->r_size);
    memset(range, 0xff, (size_t)(n + 16) * b->r_size);
    ra_gather_range(world, b, size, &pieces, range);
    for (int64_t i = 0; i < n; i++) wrong += get(b, range, i) != value_of(0, begin + i);
    MPI_EXPECT(wrong == 0, "gathered: %lld of %lld elements are wrong", (long long)wrong, (long long)n);
    MPI_EXPECT(isnan(get(b, range, n)), "gathered: written past the range");
    /* Back, and the first 64 elements of the vector to all ranks. */
    void *copy = b->ops->alloc(b, 80 * b->r_size);
    for (int64_t i = 0; i < 80; i++) put(b, copy, i, NAN);
    for (int32_t k = 0; k < pieces.count; k++) {
        for (int64_t i = 0; i < pieces.piece[k].count; i++) put(b, pieces.piece[k].memory, i, NAN);
    }
    pieces.piece[pieces.count++] = (ra_piece){0, 64, copy};
    for (int64_t i = 0; i < n; i++) put(b, range, i, value_of(1, begin + i));
    ra_scatter_range(world, b, size, &pieces, range);
    for (int32_t k = 0; k < pieces.count; k++) {
        const ra_piece *p = &pieces.piece[k];
        for (int64_t i = 0; i < p->count; i++) wrong += get(b, p->memory, i) != value_of(1, p->canonical + i);
    }
    MPI_EXPECT(wrong == 0, "scattered: %lld elements are wrong", (long long)wrong);
    MPI_EXPECT(isnan(get(b, copy, 64)), "scattered: written past a piece");
    for (int32_t k = 0; k < pieces.count; k++) b->ops->release(b, pieces.piece[k].memory);
    ra_free(range);
    ra_backend_close(b);
    return NULL;
}

static const char *test_exchange(const ra_comm *world)
{
    static const struct {
        const char *precision;
        bool host;
    } cases[] = {{"fp32", true}, {"fp64", true}, {"fp32", false}};
    for (int i = 0; i < 3; i++) {
        const char *wrong = exchange(world, cases[i].precision, cases[i].host);
        if (wrong) return test_message("%s, %s: %s", cases[i].precision, cases[i].host ? "host memory" : "other memory", wrong);
    }
    return NULL;
}

/* ---- trainings ---- */
enum { STEP = 5, KEY = 0x5eed };

typedef struct {
    const char *name, *backend, *precision, *family;
    bool tied;
    ra_training mode;
    bool staged; /* memory as if it were not the host's */
} setup;
static const setup setups[] = {
    {"tied, all parameters, fp32", "cpu", "fp32", "llama", true, RA_TRAIN_FULL, false},
    {"all parameters, fp64", "ref", "fp64", "qwen2", false, RA_TRAIN_FULL, false},
    {"tied, an adapter, fp64", "ref", "fp64", "llama", true, RA_TRAIN_ADAPTER, false},
    {"an adapter, fp32", "cpu", "fp32", "qwen2", false, RA_TRAIN_ADAPTER, false},
    {"tied, all parameters, fp32, staged", "cpu", "fp32", "llama", true, RA_TRAIN_FULL, true},
};
enum { SETUPS = sizeof setups / sizeof setups[0] };

typedef struct {
    test_layout layout;
    ra_comm comm; /* size 0: this rank is not in it */
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_optimiser *o;
} training;

static char *model_of(const char *dir, const setup *s)
{
    return test_layout_model_path(dir, s->family, s->tied);
}

static ra_err make_model(const char *dir, const setup *s)
{
    return test_layout_model(dir, s->family, s->tied);
}

static ra_err training_begin(const ra_comm *world, const test_layout *l, const char *dir, const setup *s, training *t)
{
    *t = (training){.layout = *l, .comm = test_layout_join(world, l)};
    if (t->comm.size == 0) return RA_OK;
    char *model = model_of(dir, s);
    ra_lora_config lora = {.rank = 3, .alpha = 6.0, .targets = 1u << RA_Q | 1u << RA_V | 1u << RA_UP | 1u << RA_DOWN};
    RA_TRY(ra_grid_make(&t->comm, l->stages, &t->grid));
    ra_part part = test_layout_part(l, t->grid.stage, TEST_LAYERS);
    RA_TRY(ra_backend_open(s->backend, s->precision, 1, &t->b));
    RA_TRY(ra_modelfile_open(model, &t->file));
    RA_TRY(ra_model_open(t->b, t->file, s->mode, s->mode == RA_TRAIN_ADAPTER ? &lora : NULL, 16, &part, &t->m));
    ra_optimiser_config c = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
    t->o = ra_optimiser_new(t->m, &t->grid, &c);
    t->b->host = !s->staged;
    free(model);
    return RA_OK;
}

static void training_end(training *t)
{
    if (t->comm.size == 0) return;
    ra_optimiser_free(t->o);
    ra_model_close(t->m);
    ra_modelfile_close(t->file);
    ra_backend_close(t->b);
    ra_grid_free(&t->grid);
    test_layout_leave(&t->comm);
}

enum { VECTORS = 3 };

/* What a rank holds of vector v: elements [*begin, *end) of its own layout. */
static void *vector_of(training *t, int v, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = ra_model_trainable(t->m)->size;
    if (v == 0) return ra_model_masters(t->m);
    ra_optimiser_range(t->o, begin, end);
    return ra_optimiser_moment(t->o, v - 1);
}

/* Tensors from value_of, of vector v + shift, by their place in the whole network. */
static void fill(training *t, int shift)
{
    const ra_layout *l = ra_model_trainable(t->m);
    for (int v = 0; v < VECTORS; v++) {
        int64_t begin, end;
        void *vector = vector_of(t, v, &begin, &end);
        for (int i = 0; i < l->count; i++) {
            const ra_param *p = &l->param[i];
            for (int64_t k = 0; k < p->count; k++) {
                int64_t at = p->offset + k;
                if (at >= begin && at < end) put(t->b, vector, at - begin, value_of(v + shift, p->canonical + k));
            }
        }
    }
    ra_optimiser_set_steps(t->o, STEP + shift);
}

/* The first element, padding included, that is not what fill left with shift 0. */
static const char *expect_filled(training *t)
{
    const ra_layout *l = ra_model_trainable(t->m);
    for (int v = 0; v < VECTORS; v++) {
        int64_t begin, end;
        const void *vector = vector_of(t, v, &begin, &end);
        double *want = ra_calloc((size_t)l->size, sizeof *want);
        for (int i = 0; i < l->count; i++) {
            const ra_param *p = &l->param[i];
            for (int64_t k = 0; k < p->count; k++) want[p->offset + k] = value_of(v, p->canonical + k);
        }
        int64_t at = begin;
        while (at < end && get(t->b, vector, at - begin) == want[at]) at++;
        ra_free(want);
        MPI_EXPECT(at == end, "vector %d differs at element %lld of %lld", v, (long long)at, (long long)end);
    }
    MPI_EXPECT(ra_optimiser_steps(t->o) == STEP, "the steps differ");
    return NULL;
}

/* ---- checkpoints ---- */
static const char *write_one(training *t, const char *dir)
{
    ra_checkpoint_policy policy = {.dir = dir, .keep = 1};
    ra_train_state state = {.step = STEP, .epoch = 1, .next = 3, .best = 0.5, .key = KEY};
    fill(t, 0);
    MPI_EXPECT_OK(ra_checkpoint_write(&t->grid, &policy, t->m, t->o, &state));
    return expect_filled(t); /* writing changes nothing */
}

static const char *read_one(training *t, const char *dir)
{
    ra_train_state state = {0};
    bool found;
    fill(t, 1);
    MPI_EXPECT_OK(ra_checkpoint_load(&t->grid, dir, KEY, t->m, t->o, &state, &found));
    MPI_EXPECT(found && state.step == STEP && state.epoch == 1 && state.next == 3 && state.best == 0.5, "the state differs");
    return expect_filled(t);
}

/* The vectors of the file itself, as one rank reads them whose layout is that of the whole network. */
static const char *read_file(training *t, const char *dir)
{
    static const char *const names[VECTORS] = {"master", "adam_m", "adam_v"};
    char *path = ra_format("%s/step-%08d.h5", dir, STEP);
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_open(path, NULL, &file));
    fill(t, 1);
    for (int v = 0; v < VECTORS; v++) {
        int64_t begin, end;
        void *vector = vector_of(t, v, &begin, &end);
        MPI_EXPECT_OK(ra_h5_read(file, names[v], t->b->r == RA_DTYPE_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT, 0, -1, vector));
    }
    ra_optimiser_set_steps(t->o, STEP);
    ra_h5_close(file);
    free(path);
    return expect_filled(t);
}

/* Collective. A message that some rank has, on all of them. */
static const char *agreed(const ra_comm *world, const char *wrong)
{
    if (ra_comm_agree(world, wrong ? ra_fail(RA_ERR_DATA, "%s", wrong) : RA_OK) == RA_OK) return NULL;
    return test_message("%s", ra_error_message());
}

/* Fewer ranks have their own run of this program. */
static bool takes_all(const ra_comm *world, const test_layout *l)
{
    return l->replicas * l->stages == world->size;
}

/* Every layout's checkpoint, loaded by every layout; or to save time by itself, the next and one rank. */
static const char *write_and_read(const ra_comm *world, const char *dir, const setup *s, bool all)
{
    test_layout layouts[TEST_LAYOUTS_MOST];
    training t[TEST_LAYOUTS_MOST];
    int n = test_layouts(world->size, TEST_LAYERS, layouts);
    const char *wrong = NULL;
    for (int i = 0; i < n; i++) MPI_EXPECT_OK(ra_comm_agree(world, training_begin(world, &layouts[i], dir, s, &t[i])));
    for (int i = 0; i < n && !wrong; i++) {
        char *checkpoints = ra_format("%s/checkpoints-%d", dir, i);
        wrong = agreed(world, t[i].comm.size ? write_one(&t[i], checkpoints) : NULL);
        if (!wrong) wrong = agreed(world, t[0].comm.size ? read_file(&t[0], checkpoints) : NULL);
        if (wrong) wrong = test_message("%s writes: %s", test_layout_name(&layouts[i]), wrong);
        for (int j = 0; j < n && !wrong; j++) {
            if (!takes_all(world, &layouts[i]) && !takes_all(world, &layouts[j])) continue;
            if (!all && j != 0 && j != i && j != (i + 1) % n) continue;
            wrong = agreed(world, t[j].comm.size ? read_one(&t[j], checkpoints) : NULL);
            if (wrong)
                wrong =
                    test_message("%s writes, %s reads: %s", test_layout_name(&layouts[i]), test_layout_name(&layouts[j]), wrong);
        }
        free(checkpoints);
    }
    for (int i = 0; i < n; i++) training_end(&t[i]);
    return wrong;
}

static const char *test_checkpoints(const ra_comm *world)
{
    const char *wrong = NULL;
    ra_log_setup(world->rank, RA_LOG_QUIET);
    for (int i = 0; i < SETUPS && !wrong; i++) {
        char *dir = test_mpi_dir_make(world);
        MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? make_model(dir, &setups[i]) : RA_OK));
        wrong = write_and_read(world, dir, &setups[i], i == 0);
        if (wrong) wrong = test_message("%s: %s", setups[i].name, wrong);
        test_mpi_dir_remove(world, dir);
    }
    return wrong;
}

/* ---- exports ---- */
static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Every file of both directories, byte for byte. Not collective. */
static const char *same_directory(const char *a, const char *b)
{
    struct dirent **x = NULL, **y = NULL;
    int n = scandir(a, &x, visible, alphasort), k = scandir(b, &y, visible, alphasort);
    const char *wrong = n > 0 && n == k ? NULL : test_message("%d files became %d", n, k);
    for (int i = 0; i < n && !wrong; i++) {
        char *from = ra_path_join(a, x[i]->d_name), *to = ra_path_join(b, x[i]->d_name);
        ra_buf f = {0}, g = {0};
        if (ra_file_read(from, &f) != RA_OK || ra_file_read(to, &g) != RA_OK || f.length != g.length ||
            memcmp(f.data, g.data, f.length) != 0) {
            wrong = test_message("%s differs", x[i]->d_name);
        }
        ra_buf_free(&f);
        ra_buf_free(&g);
        free(from);
        free(to);
    }
    for (int i = 0; i < n; i++) free(x[i]);
    for (int i = 0; i < k; i++) free(y[i]);
    free(x);
    free(y);
    return wrong;
}

static const struct {
    int setup;
    ra_export_kind kind;
    ra_dtype dtype;
    int64_t shard;
} exports[] = {{0, RA_EXPORT_MODEL, RA_DTYPE_F32, INT64_MAX},   {1, RA_EXPORT_MODEL, RA_DTYPE_BF16, 30000},
               {2, RA_EXPORT_MERGED, RA_DTYPE_F64, INT64_MAX},  {3, RA_EXPORT_MERGED, RA_DTYPE_BF16, INT64_MAX},
               {3, RA_EXPORT_ADAPTER, RA_DTYPE_F32, INT64_MAX}, {4, RA_EXPORT_MODEL, RA_DTYPE_F16, INT64_MAX}};
enum { EXPORTS = sizeof exports / sizeof exports[0] };

/* The same parameters on every layout: the same files as from one rank. */
static const char *export_everywhere(const ra_comm *world, const char *dir, int which)
{
    const setup *s = &setups[exports[which].setup];
    test_layout layouts[TEST_LAYOUTS_MOST];
    int n = test_layouts(world->size, TEST_LAYERS, layouts);
    char *model = model_of(dir, s), *first = ra_format("%s/export-%d-0", dir, which);
    const char *wrong = NULL;
    for (int i = 0; i < n && !wrong; i++) {
        training t;
        if (i > 0 && !takes_all(world, &layouts[i])) continue;
        MPI_EXPECT_OK(ra_comm_agree(world, training_begin(world, &layouts[i], dir, s, &t)));
        char *out = ra_format("%s/export-%d-%d", dir, which, i);
        ra_err err = RA_OK;
        if (t.comm.size) {
            fill(&t, 0);
            err = ra_export(&t.grid, t.m, t.file, model, exports[which].kind, t.grid.stage ? RA_DTYPE_F32 : exports[which].dtype,
                            exports[which].shard, out);
        }
        MPI_EXPECT_OK(ra_comm_agree(world, err));
        wrong = agreed(world, world->rank == 0 ? same_directory(first, out) : NULL);
        if (wrong) wrong = test_message("%s: %s", test_layout_name(&layouts[i]), wrong);
        free(out);
        training_end(&t);
    }
    free(first);
    free(model);
    return wrong;
}

static const char *test_exports(const ra_comm *world)
{
    const char *wrong = NULL;
    char *dir = test_mpi_dir_make(world);
    for (int i = 0; i < EXPORTS && !wrong; i++) {
        MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? make_model(dir, &setups[exports[i].setup]) : RA_OK));
        wrong = export_everywhere(world, dir, i);
        if (wrong) wrong = test_message("export %d: %s", i, wrong);
    }
    test_mpi_dir_remove(world, dir);
    return wrong;
}

/* Rank 0 runs out of space half-way; then another stage cannot read. Nobody waits, and nothing is left. */
static const char *fail_exports(training *t, const char *model, const char *foreign, const char *out)
{
    char *part = ra_format("%s.part", out);
    struct rlimit before, little;
    getrlimit(RLIMIT_FSIZE, &before);
    little = (struct rlimit){100000, before.rlim_max};
    if (t->comm.rank == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &little);
    }
    ra_err err = ra_export(&t->grid, t->m, t->file, model, RA_EXPORT_MERGED, RA_DTYPE_F64, INT64_MAX, out);
    if (t->comm.rank == 0) setrlimit(RLIMIT_FSIZE, &before);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "model.safetensors.part") && !ra_file_exists(part) &&
                   !ra_file_exists(out),
               "no space: %s", err == RA_OK ? "succeeded" : ra_error_message());
    ra_modelfile *wrong_file;
    MPI_EXPECT_OK(ra_modelfile_open(foreign, &wrong_file)); /* without biases */
    err = ra_export(&t->grid, t->m, t->grid.stage ? wrong_file : t->file, model, RA_EXPORT_MERGED, RA_DTYPE_F64, INT64_MAX, out);
    MPI_EXPECT(t->grid.stages == 1
                   ? err == RA_OK
                   : err != RA_OK && strstr(ra_error_message(), "stage 1: ") && strstr(ra_error_message(), "q_proj.bias") &&
                         !ra_file_exists(part) && !ra_file_exists(out),
               "a stage that cannot read: %s", err == RA_OK ? "succeeded" : ra_error_message());
    MPI_EXPECT_OK(ra_export(&t->grid, t->m, t->file, model, RA_EXPORT_MERGED, RA_DTYPE_F64, INT64_MAX, out));
    ra_modelfile_close(wrong_file);
    free(part);
    return NULL;
}

/* As one pipeline. */
static const char *test_export_failures(const ra_comm *world)
{
    test_layout l = {1, world->size < TEST_LAYERS ? world->size : TEST_LAYERS, 1};
    const setup *s = &setups[3], other = {.family = "llama", .tied = true};
    char *dir = test_mpi_dir_make(world), *out = ra_path_join(dir, "out"), *model = model_of(dir, s),
         *foreign = model_of(dir, &other);
    training t;
    ra_err err = world->rank == 0 ? make_model(dir, s) : RA_OK;
    if (err == RA_OK && world->rank == 0) err = make_model(dir, &other);
    MPI_EXPECT_OK(ra_comm_agree(world, err));
    MPI_EXPECT_OK(ra_comm_agree(world, training_begin(world, &l, dir, s, &t)));
    const char *wrong = t.comm.size ? fail_exports(&t, model, foreign, out) : NULL;
    training_end(&t);
    free(model);
    free(foreign);
    free(out);
    test_mpi_dir_remove(world, dir);
    return wrong;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"pieces to ranges and back", test_exchange},
        {"checkpoints of every layout, loaded by every layout: the same bits", test_checkpoints},
        {"exports of every layout: the same bytes", test_exports},
        {"an export that fails on one stage ends on all", test_export_failures},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
