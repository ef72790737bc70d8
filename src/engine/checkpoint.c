/* Writing and loading the training state. The file holds the vectors of the whole network; every rank writes and reads an even range of them, so that the file passes through the ranks
 * once in either direction, and ranges and what each rank of the layout holds are exchanged in memory. */
#include "checkpoint_files.h"
#include "redistribute.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 16 }; /* layouts are padded to, and ranges cut at, multiples of it */

/* The three vectors of the state. */
enum { MASTER, ADAM_M, ADAM_V, VECTORS };
static const struct {
    const char *name, *description;
} vectors[VECTORS] = {
    {"master", "trainable parameters in the canonical order of /tensor, padding included"},
    {"adam_m", "AdamW's running mean of the gradient, same order"},
    {"adam_v", "AdamW's running mean of the squared gradient, same order"},
};

typedef struct {
    const ra_grid *grid;
    ra_model *m;
    ra_optimiser *o;
    hid_t type;               /* of R */
    ra_model *whole;          /* all layers, shapes alone */
    int64_t size;             /* of their trainable vector */
    int64_t first, rows;      /* this rank's range of it, in rows of COLUMNS */
    ra_pieces held[VECTORS];  /* what this rank has, all of which a load fills */
    ra_pieces owned[VECTORS]; /* its part of that which is written: each element of the whole network is one rank's */
    char *staging;            /* host memory for the range; NULL where all of them lie in place */
} transfer;

static transfer transfer_begin(const ra_grid *grid, ra_model *m, ra_optimiser *o)
{
    ra_backend *b = m->b;
    const ra_comm *world = &grid->world, *data = &grid->data;
    const ra_layout *l = ra_model_trainable(m);
    transfer t = {.grid = grid, .m = m, .o = o, .type = b->r == RA_DTYPE_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT};
    t.whole = ra_whole_network(m);
    t.size = ra_model_trainable(t.whole)->size;
    t.first = ra_comm_range_begin(world, t.size, world->rank) / COLUMNS;
    t.rows = ra_comm_range_begin(world, t.size, world->rank + 1) / COLUMNS - t.first;
    int64_t begin = ra_comm_range_begin(data, l->size, data->rank), end = ra_comm_range_begin(data, l->size, data->rank + 1);
    for (int v = 0; v < VECTORS; v++) {
        int64_t from = 0, to = l->size;
        char *memory = v == MASTER ? ra_model_masters(m) : ra_optimiser_moment(o, v - ADAM_M);
        if (v != MASTER) ra_optimiser_range(o, &from, &to);
        t.held[v] = ra_pieces_of(l, b, memory, from, to, true);
        t.owned[v] = ra_pieces_of(l, b, memory + (size_t)(begin - from) * b->r_size, begin, end, false);
        bool in_place = ra_range_in_place(world, b, t.size, &t.owned[v]) && ra_range_in_place(world, b, t.size, &t.held[v]);
        if (!in_place && !t.staging) t.staging = ra_alloc((size_t)(t.rows * COLUMNS), b->r_size);
    }
    return t;
}

static void transfer_end(transfer *t)
{
    ra_model_close(t->whole);
    ra_free(t->staging);
}

/* Host memory for this rank's range of a vector of which it has `own`. */
static void *range_of(const transfer *t, const ra_pieces *own)
{
    void *place = ra_range_in_place(&t->grid->world, t->m->b, t->size, own);
    return place ? place : t->staging;
}

/* ---- writing ---- */

static ra_err write_vectors(const transfer *t, ra_h5 *file)
{
    int64_t shape[2] = {t->size / COLUMNS, COLUMNS};
    for (int v = 0; v < VECTORS; v++) {
        void *range = range_of(t, &t->owned[v]);
        ra_gather_range(&t->grid->world, t->m->b, t->size, &t->owned[v], range);
        RA_TRY(ra_h5_write(file, vectors[v].name, t->type, 2, shape, t->first, t->rows, range, vectors[v].description, "1"));
    }
    return RA_OK;
}

static ra_err write_table(const ra_layout *l, ra_h5 *file)
{
    const char **names = ra_alloc((size_t)l->count, sizeof *names);
    int64_t *offsets = ra_alloc((size_t)l->count, sizeof *offsets), *shapes = ra_calloc((size_t)l->count * 2, sizeof *shapes);
    for (int i = 0; i < l->count; i++) {
        const ra_param *p = &l->param[i];
        names[i] = p->name;
        offsets[i] = p->offset;
        for (int d = 0; d < p->ndim; d++) shapes[2 * i + d] = p->shape[d];
    }
    int64_t shape[2] = {l->count, 2};
    ra_err err = ra_h5_write_strings(file, "tensor/name", names, l->count, "logical tensors, in the order of their offsets");
    if (err == RA_OK) {
        err = ra_h5_write_all(file, "tensor/offset", H5T_NATIVE_INT64, 1, shape, offsets,
                              "place of the tensor's first element in the flat vectors", "elements");
    }
    if (err == RA_OK) {
        err = ra_h5_write_all(file, "tensor/shape", H5T_NATIVE_INT64, 2, shape, shapes, "rows and columns; 0 columns: a vector",
                              "elements");
    }
    ra_free(shapes);
    ra_free(offsets);
    ra_free(names);
    return err;
}

static ra_err write_state(const transfer *t, const ra_train_state *state, ra_h5 *file)
{
    RA_TRY(ra_h5_write_attr_i64(file, "/", "step", state->step));
    RA_TRY(ra_h5_write_attr_i64(file, "/", "epoch", state->epoch));
    RA_TRY(ra_h5_write_attr_i64(file, "/", "next", state->next));
    RA_TRY(ra_h5_write_attr_f64(file, "/", "best", state->best));
    RA_TRY(ra_h5_write_attr_i64(file, "/", "key", (int64_t)state->key));
    RA_TRY(ra_h5_write_attr_i64(file, "/", "optimiser_steps", ra_optimiser_steps(t->o)));
    return ra_h5_write_attr_text(file, "/", "trained", t->m->training == RA_TRAIN_ADAPTER ? "adapter" : "full");
}

static ra_err write_file(const transfer *t, const ra_checkpoint_policy *policy, const ra_train_state *state, const char *path)
{
    ra_h5 *file;
    RA_TRY(ra_h5_create(path, &t->grid->world, &file));
    ra_err err = write_state(t, state, file);
    if (err == RA_OK) err = write_table(ra_model_trainable(t->whole), file);
    if (err == RA_OK) err = write_vectors(t, file);
    if (err == RA_OK) err = ra_h5_write_provenance(file, &t->grid->world, policy->used_yaml);
    if (err == RA_OK) return ra_h5_commit(file);
    ra_h5_close(file);
    return err;
}

ra_err ra_checkpoint_write(const ra_grid *grid, const ra_checkpoint_policy *policy, ra_model *m, ra_optimiser *o,
                           const ra_train_state *state)
{
    const ra_comm *world = &grid->world;
    RA_TRY(ra_comm_agree(world, world->rank == 0 ? ra_checkpoint_prepare(policy->dir) : RA_OK));
    char *path = ra_checkpoint_path(policy->dir, state->step);
    transfer t = transfer_begin(grid, m, o);
    ra_err err = write_file(&t, policy, state, path);
    transfer_end(&t);
    free(path);
    if (err == RA_OK) err = ra_comm_agree(world, world->rank == 0 ? ra_checkpoint_settle(policy, state) : RA_OK);
    return err == RA_OK ? RA_OK : ra_fail_in(err, "checkpoint of step %lld", (long long)state->step);
}

/* ---- loading ---- */

/* Whether the file holds this run's state at all: RA_ERR_ARG where it is another's. */
static ra_err read_state(const transfer *t, const char *path, uint64_t key, ra_h5 *file, ra_train_state *state, int64_t *steps)
{
    int64_t stored;
    RA_TRY(ra_h5_read_attr_i64(file, "/", "step", &state->step));
    RA_TRY(ra_h5_read_attr_i64(file, "/", "epoch", &state->epoch));
    RA_TRY(ra_h5_read_attr_i64(file, "/", "next", &state->next));
    RA_TRY(ra_h5_read_attr_f64(file, "/", "best", &state->best));
    RA_TRY(ra_h5_read_attr_i64(file, "/", "optimiser_steps", steps));
    RA_TRY(ra_h5_read_attr_i64(file, "/", "key", &stored));
    state->key = (uint64_t)stored;
    if (state->key != key) {
        return ra_fail(
            RA_ERR_ARG,
            "%s: made from other data, another model or other settings (key %016llx, this run's is %016llx): resume with "
            "those it was made with (/provenance/used_yaml), or start in another run directory",
            path, (unsigned long long)state->key, (unsigned long long)key);
    }
    hid_t set = H5Dopen2(ra_h5_id(file), "master", H5P_DEFAULT), type = set < 0 ? -1 : H5Dget_type(set);
    size_t bytes = type < 0 ? 0 : H5Tget_size(type);
    if (type >= 0) H5Tclose(type);
    if (set >= 0) H5Dclose(set);
    if (bytes == 0) return ra_fail(RA_ERR_FORMAT, "%s: no readable dataset 'master'", path);
    if (bytes == t->m->b->r_size) return RA_OK;
    return ra_fail(RA_ERR_ARG, "%s: its masters have %zu bits, this run's have %zu: resume with the same backend and precision",
                   path, 8 * bytes, 8 * t->m->b->r_size);
}

static ra_err compare_table(const ra_layout *l, const char *path, char *const *names, const int64_t *offsets,
                            const int64_t *shapes, int64_t n)
{
    for (int i = 0; i < l->count && i < n; i++) {
        const ra_param *p = &l->param[i];
        int64_t columns = p->ndim == 2 ? p->shape[1] : 0;
        if (strcmp(names[i], p->name) == 0 && offsets[i] == p->offset && shapes[2 * i] == p->shape[0] &&
            shapes[2 * i + 1] == columns) {
            continue;
        }
        return ra_fail(RA_ERR_ARG, "%s: tensor %d is %s (%lld, %lld); this run's model has %s (%lld, %lld)", path, i, names[i],
                       (long long)shapes[2 * i], (long long)shapes[2 * i + 1], p->name, (long long)p->shape[0],
                       (long long)columns);
    }
    if (n == l->count) return RA_OK;
    return ra_fail(RA_ERR_ARG, "%s: it holds %lld tensors, this run trains %d", path, (long long)n, l->count);
}

/* Small, and needed by every rank: each reads and verifies it. */
static ra_err check_table(const ra_layout *l, const char *path, ra_h5 *file)
{
    static const char *const parts[] = {"tensor/name", "tensor/offset", "tensor/shape"};
    for (int i = 0; i < 3; i++) RA_TRY(ra_h5_verify(file, parts[i]));
    char **names;
    int64_t n, shape[2][4];
    int rank[2];
    RA_TRY(ra_h5_read_strings(file, parts[0], &names, &n));
    int64_t *offsets = ra_alloc((size_t)n + 1, sizeof *offsets), *shapes = ra_alloc((size_t)n * 2 + 1, sizeof *shapes);
    ra_err err = RA_OK;
    for (int i = 0; i < 2 && err == RA_OK; i++) err = ra_h5_shape(file, parts[i + 1], &rank[i], shape[i]);
    if (err == RA_OK && (rank[0] != 1 || rank[1] != 2 || shape[0][0] != n || shape[1][0] != n || shape[1][1] != 2)) {
        err = ra_fail(RA_ERR_FORMAT, "%s: '%s' and '%s' do not have a row for each of %lld tensors", path, parts[1], parts[2],
                      (long long)n);
    }
    if (err == RA_OK) err = ra_h5_read(file, parts[1], H5T_NATIVE_INT64, 0, n, offsets);
    if (err == RA_OK) err = ra_h5_read(file, parts[2], H5T_NATIVE_INT64, 0, n, shapes);
    if (err == RA_OK) err = compare_table(l, path, names, offsets, shapes, n);
    ra_free(shapes);
    ra_free(offsets);
    free(names);
    return err;
}

static ra_err check_size(const transfer *t, const char *path, ra_h5 *file)
{
    for (int v = 0; v < VECTORS; v++) {
        int rank;
        int64_t shape[4];
        RA_TRY(ra_h5_shape(file, vectors[v].name, &rank, shape));
        if (rank == 2 && shape[0] == t->size / COLUMNS && shape[1] == COLUMNS) continue;
        return ra_fail(RA_ERR_FORMAT, "%s: '%s' does not have the shape (%lld, %d)", path, vectors[v].name,
                       (long long)(t->size / COLUMNS), COLUMNS);
    }
    return RA_OK;
}

static ra_err read_vectors(const transfer *t, ra_h5 *file)
{
    for (int v = 0; v < VECTORS; v++) {
        void *range = range_of(t, &t->held[v]);
        RA_TRY(ra_h5_read_checked(file, vectors[v].name, t->type, t->first, t->rows, range));
        ra_scatter_range(&t->grid->world, t->m->b, t->size, &t->held[v], range);
    }
    return RA_OK;
}

static ra_err load_file(const transfer *t, const char *path, uint64_t key, ra_train_state *state)
{
    const ra_comm *world = &t->grid->world;
    ra_h5 *file;
    RA_TRY(ra_h5_open(path, world, &file));
    int64_t steps = 0;
    ra_err err = read_state(t, path, key, file, state, &steps);
    if (err == RA_OK) err = check_table(ra_model_trainable(t->whole), path, file);
    if (err == RA_OK) err = check_size(t, path, file);
    err = ra_comm_agree(world, err);
    if (err == RA_OK) err = read_vectors(t, file);
    ra_h5_close(file);
    if (err != RA_OK) return err;
    ra_model_refresh(t->m);
    ra_optimiser_set_steps(t->o, steps);
    return RA_OK;
}

/* Rank 0 looks; all ranks try the same files in the same order: by step, and best.h5 (whose step file may be gone) last. */
static ra_err list_candidates(const ra_comm *world, const char *dir, int64_t **steps, int64_t *n, int *best)
{
    *steps = NULL;
    *n = 0;
    *best = 0;
    ra_err err = RA_OK;
    if (world->rank == 0) {
        err = ra_checkpoint_list(dir, steps, n);
        char *path = ra_checkpoint_best_path(dir);
        *best = ra_file_exists(path);
        free(path);
    }
    RA_TRY(ra_comm_agree(world, err));
    ra_comm_bcast(world, n, sizeof *n, 0);
    ra_comm_bcast(world, best, sizeof *best, 0);
    if (world->rank != 0) *steps = ra_realloc(NULL, (size_t)*n + 1, sizeof **steps);
    if (*n) ra_comm_bcast(world, *steps, *n * (int64_t)sizeof **steps, 0);
    return RA_OK;
}

ra_err ra_checkpoint_load(const ra_grid *grid, const char *dir, uint64_t key, ra_model *m, ra_optimiser *o, ra_train_state *state,
                          bool *found)
{
    const ra_comm *world = &grid->world;
    int64_t *steps, n;
    int best;
    *found = false;
    RA_TRY(list_candidates(world, dir, &steps, &n, &best));
    transfer t = transfer_begin(grid, m, o);
    ra_err err = RA_OK;
    for (int64_t i = 0; i < n + best && !*found; i++) {
        char *path = i < n ? ra_checkpoint_path(dir, steps[i]) : ra_checkpoint_best_path(dir);
        err = load_file(&t, path, key, state);
        *found = err == RA_OK;
        if (err != RA_OK && err != RA_ERR_ARG && world->rank == 0) ra_warn("checkpoint not used: %s", ra_error_message());
        if (*found) ra_info("resuming at step %lld from %s", (long long)state->step, path);
        free(path);
        if (err == RA_ERR_ARG) break;
    }
    transfer_end(&t);
    free(steps);
    if (err == RA_OK || err == RA_ERR_ARG) return err;
    return ra_fail_in(err, "%s: none of its %lld checkpoints can be used; remove them to start anew, the last says", dir,
                      (long long)(n + best));
}
