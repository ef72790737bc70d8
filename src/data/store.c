/* Reading a sample store. A damaged or foreign file is refused when it is opened: later code trusts every count and id. */
#include "store_format.h"
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

struct ra_store {
    char *index_path, *tokens_path;
    int64_t n, blocks;
    ra_store_row *row; /* (n) */
    int64_t *offset;   /* (n + 1) first token of each sample */
    ra_hash *block;    /* (blocks) of the tokens of each block */
    ra_map map;
    int32_t highest;
    uint64_t hash;
    int32_t *
        *shown; /* (n) tokens of samples that are shown other than they are stored, NULL for the others; NULL: there are none */
};

const char *ra_sample_state_name(ra_sample_state state)
{
    static const char *const names[RA_SAMPLE_STATES] = {"usable",    "skipped",   "malformed", "empty",    "too long",
                                                        "identical", "duplicate", "unpaired",  "not drawn"};
    return (unsigned)state < RA_SAMPLE_STATES ? names[state] : "unknown";
}

ra_store_row ra_store_row_of(const ra_sample *sample)
{
    ra_store_row row = {.state = sample->state,
                        .cut = sample->cut,
                        .prompt_count = sample->prompt_count,
                        .origin = sample->origin,
                        .prompt_hash = sample->prompt_hash};
    for (int r = 0; r < RA_ROLES; r++) {
        row.count[r] = sample->response[r].count;
        row.skip[r] = sample->response[r].skip;
    }
    return row;
}

const char *ra_store_row_problem(const ra_store_row *row)
{
    if (row->state < 0 || row->state >= RA_SAMPLE_STATES) return "its state is not a known one";
    if (row->cut < 0 || row->prompt_count < 0 || row->origin < 0) return "a count is negative";
    for (int r = 0; r < RA_ROLES; r++) {
        if (row->count[r] < 0 || row->skip[r] < 0) return "a count is negative";
        if (row->count[r] > 0 ? row->skip[r] >= row->count[r] : row->skip[r] != 0) return "a response has nothing to score";
    }
    if (row->state != RA_SAMPLE_OK) return ra_store_row_tokens(row) ? "it is unusable, yet has tokens" : NULL;
    if (row->prompt_count == 0) return "it is usable, yet its prompt has no token";
    return row->count[RA_CHOSEN] && row->count[RA_REJECTED] ? NULL : "it is usable, yet lacks a response";
}

ra_hash ra_store_content_hash(const ra_store_row *rows, int64_t n, const ra_hash *block, int64_t blocks)
{
    ra_hasher *hasher = ra_hasher_new();
    ra_hasher_add(hasher, &n, sizeof n);
    ra_hasher_add(hasher, rows, (size_t)n * sizeof *rows);
    ra_hasher_add(hasher, block, (size_t)blocks * sizeof *block);
    return ra_hasher_end(hasher);
}

/* ---- the index ---- */

/* Reads all of a dataset whose shape must be (rows, columns), or (rows) where columns is 0. */
static ra_err read_exact(const ra_store *store, ra_h5 *file, const char *name, hid_t type, int64_t rows, int64_t columns,
                         void *data)
{
    int rank = 0;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_shape(file, name, &rank, shape));
    if (rank != (columns ? 2 : 1) || shape[0] != rows || (columns && shape[1] != columns)) {
        return ra_fail(RA_ERR_FORMAT, "%s: '%s' has %d dimensions, the first of %lld; expected %lld rows of %lld",
                       store->index_path, name, rank, (long long)shape[0], (long long)rows, (long long)(columns ? columns : 1));
    }
    return ra_h5_read(file, name, type, 0, -1, data);
}

static ra_err read_prompt_hashes(ra_store *store, ra_h5 *file)
{
    uint64_t *values = ra_alloc((size_t)store->n, sizeof *values);
    ra_err err = read_exact(store, file, "sample/prompt_hash", H5T_NATIVE_UINT64, store->n, 0, values);
    for (int64_t i = 0; err == RA_OK && i < store->n; i++) store->row[i].prompt_hash = values[i];
    ra_free(values);
    return err;
}

/* Dataset `name` into a field of the rows: `columns` int32 numbers (0: one) at byte `at` of each row. */
static ra_err read_field(const ra_store *store, ra_h5 *file, const char *name, int64_t columns, size_t at)
{
    size_t width = (size_t)(columns ? columns : 1);
    int32_t *values = ra_alloc((size_t)store->n * width, sizeof *values);
    ra_err err = read_exact(store, file, name, H5T_NATIVE_INT32, store->n, columns, values);
    for (int64_t i = 0; err == RA_OK && i < store->n; i++) {
        memcpy((char *)&store->row[i] + at, values + (size_t)i * width, width * sizeof *values);
    }
    ra_free(values);
    return err;
}

static ra_err read_index(ra_store *store, ra_h5 *file)
{
    int64_t format = 0;
    RA_TRY(ra_h5_read_attr_i64(file, "/", "store_format", &format));
    if (format != RA_STORE_FORMAT) {
        return ra_fail(RA_ERR_FORMAT, "%s: a store of format %lld; this program reads format %d: run prepare again",
                       store->index_path, (long long)format, RA_STORE_FORMAT);
    }
    RA_TRY(ra_h5_verify_all(file));
    int rank = 0;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_shape(file, "sample/state", &rank, shape));
    store->n = shape[0];
    store->blocks = (store->n + RA_STORE_BLOCK - 1) / RA_STORE_BLOCK;
    if (store->n == 0) return ra_fail(RA_ERR_FORMAT, "%s: the store has no samples", store->index_path);
    store->row = ra_calloc((size_t)store->n, sizeof *store->row);
    store->offset = ra_calloc((size_t)store->n + 1, sizeof *store->offset);
    store->block = ra_calloc((size_t)store->blocks, sizeof *store->block);
    RA_TRY(read_field(store, file, "sample/state", 0, offsetof(ra_store_row, state)));
    RA_TRY(read_field(store, file, "sample/cut", 0, offsetof(ra_store_row, cut)));
    RA_TRY(read_field(store, file, "sample/origin", 0, offsetof(ra_store_row, origin)));
    RA_TRY(read_prompt_hashes(store, file));
    RA_TRY(read_field(store, file, "sample/prompt_count", 0, offsetof(ra_store_row, prompt_count)));
    RA_TRY(read_field(store, file, "sample/response_count", RA_ROLES, offsetof(ra_store_row, count)));
    RA_TRY(read_field(store, file, "sample/response_skip", RA_ROLES, offsetof(ra_store_row, skip)));
    RA_TRY(read_exact(store, file, "block/hash", H5T_NATIVE_UINT64, store->blocks, 2, store->block));
    return read_exact(store, file, "sample/offset", H5T_NATIVE_INT64, store->n, 0, store->offset);
}

/* Ids count rows, every row is sound, and the tokens of the samples lie side by side. */
static ra_err check_index(ra_store *store, ra_h5 *file)
{
    int64_t *id = ra_alloc((size_t)store->n, sizeof *id), next = 0;
    ra_err err = read_exact(store, file, "sample/id", H5T_NATIVE_INT64, store->n, 0, id);
    for (int64_t i = 0; err == RA_OK && i < store->n; i++) {
        const char *problem = ra_store_row_problem(&store->row[i]);
        if (!problem && id[i] != i) problem = "its id is not its row number";
        if (!problem && store->offset[i] != next) problem = "its tokens do not begin where those of the sample before end";
        if (problem) err = ra_fail(RA_ERR_FORMAT, "%s: sample %lld: %s", store->index_path, (long long)i, problem);
        next += ra_store_row_tokens(&store->row[i]);
    }
    store->offset[store->n] = next;
    ra_free(id);
    return err;
}

static ra_err check_hash(ra_store *store, ra_h5 *file)
{
    char *stored = NULL, text[33];
    RA_TRY(ra_h5_read_attr_text(file, "/", "content_hash", &stored));
    ra_hash hash = ra_store_content_hash(store->row, store->n, store->block, store->blocks);
    ra_hash_text(hash, text);
    ra_err err = RA_OK;
    if (strcmp(text, stored) != 0) {
        err = ra_fail(RA_ERR_FORMAT, "%s: its content has hash %s, not %s as it says", store->index_path, text, stored);
    }
    free(stored);
    store->hash = hash.low;
    return err;
}

/* ---- the tokens ---- */

static ra_err open_tokens(ra_store *store)
{
    RA_TRY(ra_map_open(store->tokens_path, &store->map));
    int64_t wanted = store->offset[store->n] * (int64_t)sizeof(int32_t);
    if ((int64_t)store->map.size == wanted) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: %zu bytes; %s asks for %lld", store->tokens_path, store->map.size, store->index_path,
                   (long long)wanted);
}

static const int32_t *tokens_of(const ra_store *store)
{
    return (const int32_t *)(const void *)store->map.data;
}

/* Checks every `step`-th block from `first` on. */
static ra_err check_blocks(ra_store *store, int64_t first, int64_t step)
{
    for (int64_t b = first; b < store->blocks; b += step) {
        int64_t begin = b * RA_STORE_BLOCK, end = begin + RA_STORE_BLOCK < store->n ? begin + RA_STORE_BLOCK : store->n;
        const int32_t *token = tokens_of(store) + store->offset[begin];
        int64_t n = store->offset[end] - store->offset[begin];
        ra_hash hash = ra_hash_bytes(token, (size_t)n * sizeof *token);
        if (hash.high != store->block[b].high || hash.low != store->block[b].low) {
            return ra_fail(RA_ERR_FORMAT, "%s: the tokens of samples %lld to %lld do not have the hash that %s says",
                           store->tokens_path, (long long)begin, (long long)(end - 1), store->index_path);
        }
        for (int64_t i = 0; i < n; i++) {
            if (token[i] < 0) {
                return ra_fail(RA_ERR_FORMAT, "%s: token %lld is %d; ids are not negative", store->tokens_path,
                               (long long)(store->offset[begin] + i), token[i]);
            }
            if (token[i] > store->highest) store->highest = token[i];
        }
    }
    return RA_OK;
}

/* ---- opening ---- */

static ra_err open_part(const char *dir, int64_t first, int64_t step, ra_store **out)
{
    ra_store *store = ra_calloc(1, sizeof *store);
    store->index_path = ra_path_join(dir, RA_STORE_INDEX);
    store->tokens_path = ra_path_join(dir, RA_STORE_TOKENS);
    ra_h5 *file = NULL;
    ra_err err = ra_h5_open(store->index_path, NULL, &file);
    if (err == RA_OK) err = read_index(store, file);
    if (err == RA_OK) err = check_index(store, file);
    if (err == RA_OK) err = check_hash(store, file);
    ra_h5_close(file);
    if (err == RA_OK) err = open_tokens(store);
    if (err == RA_OK) err = check_blocks(store, first, step);
    *out = err == RA_OK ? store : NULL;
    if (err != RA_OK) ra_store_close(store);
    return err;
}

ra_err ra_store_open(const char *dir, ra_store **out)
{
    return open_part(dir, 0, 1, out);
}

ra_err ra_store_open_shared(const char *dir, const ra_comm *comm, ra_store **out)
{
    ra_err err = ra_comm_agree(comm, open_part(dir, comm->rank, comm->size, out));
    if (err != RA_OK) {
        ra_store_close(*out);
        *out = NULL;
        return err;
    }
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &(*out)->highest, 1, MPI_INT32_T, MPI_MAX, comm->comm));
    return RA_OK;
}

void ra_store_close(ra_store *store)
{
    if (!store) return;
    ra_map_close(&store->map);
    for (int64_t i = 0; store->shown && i < store->n; i++) ra_free(store->shown[i]);
    ra_free(store->shown);
    ra_free(store->row);
    ra_free(store->offset);
    ra_free(store->block);
    free(store->index_path);
    free(store->tokens_path);
    ra_free(store);
}

ra_err ra_store_depends_on(const char *dir, char ***lines, int64_t *n)
{
    char *path = ra_path_join(dir, RA_STORE_INDEX);
    ra_h5 *file = NULL;
    *lines = NULL;
    *n = 0;
    ra_err err = ra_h5_open(path, NULL, &file);
    if (err == RA_OK) err = ra_h5_read_strings(file, "depends_on", lines, n);
    ra_h5_close(file);
    free(path);
    return err;
}

/* ---- samples ---- */

int64_t ra_store_count(const ra_store *store)
{
    return store->n;
}

int32_t ra_store_highest_token(const ra_store *store)
{
    return store->highest;
}

uint64_t ra_store_hash(const ra_store *store)
{
    return store->hash;
}

static int64_t checked(const ra_store *store, int64_t id)
{
    if (id < 0 || id >= store->n) ra_die("%s: sample %lld of %lld", store->index_path, (long long)id, (long long)store->n);
    return id;
}

ra_sample_state ra_store_state(const ra_store *store, int64_t id)
{
    return (ra_sample_state)store->row[checked(store, id)].state;
}

int64_t ra_store_tokens(const ra_store *store, int64_t id)
{
    return ra_store_row_tokens(&store->row[checked(store, id)]);
}

ra_sample ra_store_get(const ra_store *store, int64_t id)
{
    const ra_store_row *row = &store->row[checked(store, id)];
    const int32_t *token = store->shown && store->shown[id] ? store->shown[id] : tokens_of(store) + store->offset[id];
    ra_sample sample = {.id = id,
                        .state = (ra_sample_state)row->state,
                        .cut = row->cut,
                        .origin = row->origin,
                        .prompt_hash = row->prompt_hash,
                        .prompt_count = row->prompt_count,
                        .prompt = token};
    token += row->prompt_count;
    for (int r = 0; r < RA_ROLES; r++) {
        sample.response[r].count = row->count[r];
        sample.response[r].skip = row->skip[r];
        sample.response[r].token = row->count[r] ? token : NULL;
        token += row->count[r];
    }
    return sample;
}

/* ---- corrections made after the store ---- */

static int32_t *copy_tokens(const ra_sample *sample, const ra_store_row *row)
{
    int32_t *token = ra_alloc((size_t)ra_store_row_tokens(row), sizeof *token), *at = token;
    memcpy(at, sample->prompt, (size_t)row->prompt_count * sizeof *at);
    at += row->prompt_count;
    for (int r = 0; r < RA_ROLES; r++) {
        if (row->count[r] == 0) continue;
        memcpy(at, sample->response[r].token, (size_t)row->count[r] * sizeof *at);
        at += row->count[r];
    }
    return token;
}

static ra_err show(ra_store *store, const ra_sample *sample, ra_hasher *hasher)
{
    ra_store_row row = ra_store_row_of(sample), *base = &store->row[sample->id];
    const char *problem = ra_store_row_problem(&row);
    if (!problem && (base->state != RA_SAMPLE_OK || row.state != RA_SAMPLE_OK)) problem = "it is not usable";
    if (!problem && row.count[RA_CORRECTION] == 0) problem = "it has no correction";
    if (problem) return ra_fail(RA_ERR_DATA, "%s: corrected sample %lld: %s", store->index_path, (long long)sample->id, problem);
    int64_t n = ra_store_row_tokens(&row);
    int32_t *token = store->shown[sample->id] = copy_tokens(sample, &row);
    for (int64_t i = 0; i < n; i++) {
        if (token[i] < 0) {
            return ra_fail(RA_ERR_DATA, "%s: corrected sample %lld: token %lld is %d; ids are not negative", store->index_path,
                           (long long)sample->id, (long long)i, token[i]);
        }
        if (token[i] > store->highest) store->highest = token[i];
    }
    base->cut = row.cut;
    base->prompt_count = row.prompt_count;
    memcpy(base->count, row.count, sizeof row.count);
    memcpy(base->skip, row.skip, sizeof row.skip);
    ra_hasher_add(hasher, &sample->id, sizeof sample->id);
    ra_hasher_add(hasher, base, sizeof *base);
    ra_hasher_add(hasher, token, (size_t)n * sizeof *token);
    return RA_OK;
}

ra_err ra_store_set_corrections(ra_store *store, const ra_sample *samples, int64_t n)
{
    if (store->shown) ra_die("%s: corrections were set before", store->index_path);
    store->shown = ra_calloc((size_t)store->n, sizeof *store->shown);
    ra_hasher *hasher = ra_hasher_new();
    ra_hasher_add(hasher, &store->hash, sizeof store->hash);
    ra_err err = RA_OK;
    int64_t next = 0;
    for (int64_t i = 0; i < n && err == RA_OK; i++) {
        if (samples[i].id < next || samples[i].id >= store->n) {
            err = ra_fail(RA_ERR_DATA, "%s: corrected sample %lld of %lld, in ascending order from %lld", store->index_path,
                          (long long)samples[i].id, (long long)store->n, (long long)next);
            break;
        }
        next = samples[i].id + 1;
        err = show(store, &samples[i], hasher);
    }
    for (int64_t id = 0; id < store->n && err == RA_OK; id++) {
        if (store->shown[id]) continue;
        store->row[id].count[RA_CORRECTION] = store->row[id].skip[RA_CORRECTION] = 0; /* y_c stands last: nothing else moves */
    }
    store->hash = ra_hasher_end(hasher).low;
    return err;
}
