/* Writing a sample store in rounds. A rank holds one block of tokens; rank 0 also the integer rows of the index. Where a block's tokens go follows from
 * the block number and the totals before it alone, so the files do not depend on the rank count. */
#include "store_format.h"
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ra_store_writer {
    ra_comm comm;
    char *index_path, *tokens_path, *part;
    int fd;
    bool ended;        /* a short block was seen: no more may follow */
    int64_t next_id;   /* first id of the next round */
    int64_t tokens;    /* written by all ranks so far */
    int32_t *token;    /* this rank's block */
    int64_t capacity;  /* of `token` */
    ra_store_row *row; /* rank 0: (next_id) */
    ra_hash *block;    /* rank 0: (blocks) */
    int64_t blocks, row_capacity, block_capacity;
    const char *const *sources; /* (n_sources) borrowed */
    int64_t n_sources;
};

/* What every rank must know of every block of a round. */
typedef struct {
    int64_t samples, tokens;
    ra_hash hash;
} block_summary;

static void free_writer(ra_store_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->index_path);
    free(w->tokens_path);
    free(w->part);
    free(w->token);
    free(w->row);
    free(w->block);
    ra_free(w);
}

ra_err ra_store_create(const char *dir, const ra_comm *comm, ra_store_writer **out)
{
    ra_store_writer *w = ra_calloc(1, sizeof *w);
    w->comm = *comm;
    w->index_path = ra_path_join(dir, RA_STORE_INDEX);
    w->tokens_path = ra_path_join(dir, RA_STORE_TOKENS);
    w->part = ra_format("%s.part", w->tokens_path);
    w->fd = -1;
    *out = NULL;
    ra_err err = RA_OK;
    for (int turn = 0; turn < 2 && err == RA_OK; turn++) { /* rank 0 makes the file, then the others open it */
        if ((comm->rank == 0) == (turn == 0)) {
            w->fd = open(w->part, O_WRONLY | O_CLOEXEC | (turn == 0 ? O_CREAT | O_TRUNC : 0), 0666);
            if (w->fd < 0) err = ra_fail(RA_ERR_IO, "%s: cannot open for writing: %m", w->part);
        }
        err = ra_comm_agree(comm, err);
    }
    if (err != RA_OK) {
        ra_store_abandon(w);
        return err;
    }
    *out = w;
    return RA_OK;
}

void ra_store_abandon(ra_store_writer *w)
{
    if (!w) return;
    if (w->comm.rank == 0 && w->fd >= 0) unlink(w->part);
    RA_MPI(MPI_Barrier(w->comm.comm)); /* gone for every rank */
    free_writer(w);
}

void ra_store_note_sources(ra_store_writer *w, const char *const *lines, int64_t n)
{
    w->sources = lines;
    w->n_sources = n;
}

/* ---- a round ---- */

static void append(ra_store_writer *w, int64_t *n, const int32_t *token, int32_t count)
{
    if (count == 0) return;
    memcpy(w->token + *n, token, (size_t)count * sizeof *token);
    *n += count;
}

/* Rows and tokens of this rank's block, the tokens side by side in w->token. */
static ra_err pack_block(ra_store_writer *w, const ra_sample *samples, int n, ra_store_row *rows, int64_t *tokens)
{
    int64_t first = w->next_id + (int64_t)w->comm.rank * RA_STORE_BLOCK, total = 0;
    *tokens = 0;
    if (n < 0 || n > RA_STORE_BLOCK) return ra_fail(RA_ERR_ARG, "%s: a block of %d samples", w->part, n);
    for (int i = 0; i < n; i++) {
        rows[i] = ra_store_row_of(&samples[i]);
        const char *problem = ra_store_row_problem(&rows[i]);
        if (!problem && samples[i].id != first + i) problem = "it is not the next one of its block";
        if (problem) return ra_fail(RA_ERR_ARG, "%s: sample %lld: %s", w->part, (long long)samples[i].id, problem);
        total += ra_store_row_tokens(&rows[i]);
    }
    if (total > w->capacity) {
        w->capacity = total + total / 4;
        w->token = ra_realloc(w->token, (size_t)w->capacity, sizeof *w->token);
    }
    for (int i = 0; i < n; i++) {
        append(w, tokens, samples[i].prompt, samples[i].prompt_count);
        for (int r = 0; r < RA_ROLES; r++) append(w, tokens, samples[i].response[r].token, samples[i].response[r].count);
    }
    return RA_OK;
}

static ra_err write_at(const ra_store_writer *w, int64_t token_offset, int64_t tokens)
{
    const char *from = (const char *)w->token;
    int64_t left = tokens * (int64_t)sizeof *w->token, at = token_offset * (int64_t)sizeof *w->token;
    while (left > 0) {
        ssize_t n = pwrite(w->fd, from, (size_t)left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return ra_fail(RA_ERR_IO, "%s: cannot write %lld bytes at %lld: %m", w->part, (long long)left, (long long)at);
        from += n, left -= n, at += n;
    }
    return RA_OK;
}

/* Rank 0 appends the rows of all ranks, and the blocks' hashes, in order. */
static void gather_rows(ra_store_writer *w, const block_summary *all, const ra_store_row *rows, int64_t round_samples)
{
    enum { WORDS = sizeof(ra_store_row) / sizeof(int32_t) };
    int size = w->comm.size, *counts = NULL, *begins = NULL;
    ra_store_row *to = NULL;
    if (w->comm.rank == 0) {
        counts = ra_alloc((size_t)size, sizeof *counts);
        begins = ra_alloc((size_t)size, sizeof *begins);
        for (int r = 0, at = 0; r < size; at += counts[r++]) {
            counts[r] = (int)all[r].samples * WORDS;
            begins[r] = at;
        }
        if (w->next_id + round_samples > w->row_capacity) {
            w->row_capacity = (w->next_id + round_samples) * 3 / 2;
            w->row = ra_realloc(w->row, (size_t)w->row_capacity, sizeof *w->row);
        }
        if (w->blocks + size > w->block_capacity) {
            w->block_capacity = (w->blocks + size) * 3 / 2;
            w->block = ra_realloc(w->block, (size_t)w->block_capacity, sizeof *w->block);
        }
        to = w->row + w->next_id;
        for (int r = 0; r < size && all[r].samples > 0; r++) w->block[w->blocks++] = all[r].hash;
    }
    RA_MPI(
        MPI_Gatherv(rows, (int)all[w->comm.rank].samples * WORDS, MPI_INT32_T, to, counts, begins, MPI_INT32_T, 0, w->comm.comm));
    ra_free(counts);
    ra_free(begins);
}

ra_err ra_store_add_round(ra_store_writer *w, const ra_sample *samples, int n)
{
    ra_store_row rows[RA_STORE_BLOCK];
    block_summary mine = {.samples = n};
    RA_TRY(ra_comm_agree(&w->comm, pack_block(w, samples, n, rows, &mine.tokens)));
    mine.hash = ra_hash_bytes(mine.tokens ? w->token : NULL, (size_t)mine.tokens * sizeof *w->token);

    block_summary *all = ra_alloc((size_t)w->comm.size, sizeof *all);
    RA_MPI(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, w->comm.comm));
    int64_t before = w->tokens, round_samples = 0;
    ra_err err = RA_OK;
    for (int r = 0; r < w->comm.size; r++) {
        if (all[r].samples > 0 && w->ended) err = ra_fail(RA_ERR_ARG, "%s: a block follows one that is not full", w->part);
        if (all[r].samples < RA_STORE_BLOCK) w->ended = true;
        if (r < w->comm.rank) before += all[r].tokens;
        w->tokens += all[r].tokens;
        round_samples += all[r].samples;
    }
    if (err == RA_OK) { /* the same decision on every rank */
        gather_rows(w, all, rows, round_samples);
        w->next_id += round_samples;
        err = ra_comm_agree(&w->comm, write_at(w, before, mine.tokens));
    }
    ra_free(all);
    return err;
}

/* ---- the end ---- */

/* One dataset from a field of the rows: `columns` int32 numbers (0: one) at byte `at` of each row. */
static ra_err write_field(const ra_store_writer *w, ra_h5 *file, const char *name, int64_t columns, size_t at,
                          const char *description, const char *unit)
{
    size_t width = (size_t)(columns ? columns : 1);
    int32_t *values = ra_alloc((size_t)w->next_id * width, sizeof *values);
    for (int64_t i = 0; i < w->next_id; i++) {
        memcpy(values + (size_t)i * width, (const char *)&w->row[i] + at, width * sizeof *values);
    }
    int64_t shape[2] = {w->next_id, columns};
    ra_err err = ra_h5_write_all(file, name, H5T_NATIVE_INT32, columns ? 2 : 1, shape, values, description, unit);
    ra_free(values);
    return err;
}

static ra_err write_prompt_hashes(const ra_store_writer *w, ra_h5 *file)
{
    uint64_t *values = ra_alloc((size_t)w->next_id, sizeof *values);
    for (int64_t i = 0; i < w->next_id; i++) values[i] = w->row[i].prompt_hash;
    int64_t shape[1] = {w->next_id};
    ra_err err =
        ra_h5_write_all(file, "sample/prompt_hash", H5T_NATIVE_UINT64, 1, shape, values,
                        "64-bit hash of the prompt without regard to case and white space: data.held_out is drawn by it", "");
    ra_free(values);
    return err;
}

static ra_err write_positions(const ra_store_writer *w, ra_h5 *file)
{
    int64_t *values = ra_alloc((size_t)w->next_id, sizeof *values), shape[1] = {w->next_id}, next = 0;
    for (int64_t i = 0; i < w->next_id; i++) values[i] = i;
    ra_err err = ra_h5_write_all(file, "sample/id", H5T_NATIVE_INT64, 1, shape, values,
                                 "global sample id: the row number in the preference data, from 0", "");
    for (int64_t i = 0; i < w->next_id; i++) {
        values[i] = next;
        next += ra_store_row_tokens(&w->row[i]);
    }
    if (err == RA_OK) {
        err = ra_h5_write_all(file, "sample/offset", H5T_NATIVE_INT64, 1, shape, values,
                              "first token of the sample in tokens.bin; prompt, y_w, y_l and y_c lie side by side", "tokens");
    }
    ra_free(values);
    return err;
}

static ra_err write_index(const ra_store_writer *w, ra_h5 *file, const char *const *depends_on, int64_t n, const char *used_yaml)
{
    RA_TRY(write_positions(w, file));
    RA_TRY(write_field(
        w, file, "sample/state", 0, offsetof(ra_store_row, state),
        "0 usable, 1 skipped, 2 malformed, 3 empty, 4 too long, 5 identical responses, 6 duplicate, 7 unpaired, 8 not drawn",
        ""));
    RA_TRY(write_field(w, file, "sample/cut", 0, offsetof(ra_store_row, cut), "tokens that data.truncate took away", "tokens"));
    RA_TRY(write_field(w, file, "sample/origin", 0, offsetof(ra_store_row, origin),
                       "the entry of data.path the row comes from, from 0", ""));
    RA_TRY(write_prompt_hashes(w, file));
    RA_TRY(write_field(w, file, "sample/prompt_count", 0, offsetof(ra_store_row, prompt_count),
                       "tokens that all responses of the sample have in common", "tokens"));
    RA_TRY(write_field(w, file, "sample/response_count", RA_ROLES, offsetof(ra_store_row, count),
                       "tokens of the branches y_w, y_l, y_c; 0: there is no such response", "tokens"));
    RA_TRY(write_field(w, file, "sample/response_skip", RA_ROLES, offsetof(ra_store_row, skip),
                       "leading tokens of each branch that belong to the prompt and are never scored", "tokens"));
    int64_t shape[2] = {w->blocks, 2};
    RA_TRY(ra_h5_write_all(file, "block/hash", H5T_NATIVE_UINT64, 2, shape, w->block,
                           "128-bit XXH3 (high, low) of the tokens of each block of 256 samples", ""));
    RA_TRY(ra_h5_write_strings(file, "depends_on", depends_on, n, "what the store was made from, key=value"));
    if (w->n_sources)
        RA_TRY(
            ra_h5_write_strings(file, "sources", w->sources, w->n_sources, "entries of data.path and what became of their rows"));
    char text[33];
    ra_hash_text(ra_store_content_hash(w->row, w->next_id, w->block, w->blocks), text);
    RA_TRY(ra_h5_write_attr_text(file, "/", "content_hash", text));
    ra_hasher *hasher = ra_hasher_new();
    for (int64_t i = 0; i < n; i++) ra_hasher_add(hasher, depends_on[i], strlen(depends_on[i]) + 1);
    ra_hash_text(ra_hasher_end(hasher), text);
    RA_TRY(ra_h5_write_attr_text(file, "/", "depends_on_hash", text));
    RA_TRY(ra_h5_write_attr_i64(file, "/", "store_format", RA_STORE_FORMAT));
    return ra_h5_write_provenance(file, &w->comm, used_yaml);
}

/* Every rank flushes what it wrote; on some file systems only the writer can. */
static ra_err flush_tokens(ra_store_writer *w)
{
    int failed = fsync(w->fd), code = errno;
    if (close(w->fd) != 0 && !failed) failed = 1, code = errno;
    w->fd = -1;
    errno = code;
    return failed ? ra_fail(RA_ERR_IO, "%s: cannot flush: %m", w->part) : RA_OK;
}

/* Rank 0. The old index goes first: it must not stand beside new tokens. */
static ra_err finish(ra_store_writer *w, const char *const *depends_on, int64_t n, const char *used_yaml)
{
    struct stat info;
    int64_t wanted = w->tokens * (int64_t)sizeof *w->token;
    if (stat(w->part, &info) != 0) return ra_fail(RA_ERR_IO, "%s: %m", w->part);
    if ((int64_t)info.st_size != wanted) {
        return ra_fail(RA_ERR_IO, "%s: %lld bytes reached the disk of %lld that were written", w->part, (long long)info.st_size,
                       (long long)wanted);
    }
    ra_h5 *file;
    RA_TRY(ra_h5_create(w->index_path, NULL, &file));
    ra_err err = write_index(w, file, depends_on, n, used_yaml);
    if (err == RA_OK && unlink(w->index_path) != 0 && errno != ENOENT) {
        err = ra_fail(RA_ERR_IO, "cannot remove the old %s: %m", w->index_path);
    }
    if (err == RA_OK && rename(w->part, w->tokens_path) != 0) {
        err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", w->part, w->tokens_path);
    }
    if (err == RA_OK) return ra_h5_commit(file);
    ra_h5_close(file);
    return err;
}

ra_err ra_store_commit(ra_store_writer *w, const char *const *depends_on, int64_t n, const char *used_yaml)
{
    ra_err err = w->tokens > 0 ? RA_OK : ra_fail(RA_ERR_DATA, "%s: there is no usable sample to store", w->part);
    if (err == RA_OK) err = ra_comm_agree(&w->comm, flush_tokens(w));
    if (err == RA_OK) err = ra_comm_agree(&w->comm, w->comm.rank == 0 ? finish(w, depends_on, n, used_yaml) : RA_OK);
    if (err != RA_OK) {
        if (w->comm.rank == 0) unlink(w->part);
        RA_MPI(MPI_Barrier(w->comm.comm)); /* gone for every rank */
    }
    free_writer(w);
    return err;
}
