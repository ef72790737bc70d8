/* The sample store: tokenised preference samples on disk, in global order, read by id. `store.h5` is the index (one integer row a sample, with provenance and
 * what the store depends on), `tokens.bin` the token ids (int32, little-endian), memory-mapped by readers, so that no rank holds what it does not use.
 * Both are the same, byte for byte but for the provenance, on every rank count. */
#ifndef REALIGN_STORE_H
#define REALIGN_STORE_H
#include <realign/comm.h>
#include <realign/error.h>
#include <stdint.h>

typedef enum { RA_CHOSEN, RA_REJECTED, RA_CORRECTION, RA_ROLES } ra_role; /* y_w, y_l, y_c */

/* Why a sample cannot be used. */
typedef enum {
    RA_SAMPLE_OK,
    RA_SAMPLE_SKIPPED,
    RA_SAMPLE_MALFORMED,
    RA_SAMPLE_EMPTY,
    RA_SAMPLE_TOO_LONG,
    RA_SAMPLE_IDENTICAL, /* both responses are the same text */
    RA_SAMPLE_DUPLICATE, /* prompt and responses of an earlier row */
    RA_SAMPLE_UNPAIRED,  /* a single labelled response */
    RA_SAMPLE_NOT_DRAWN, /* left out by data.weights */
    RA_SAMPLE_STATES
} ra_sample_state;
const char *ra_sample_state_name(ra_sample_state state); /* "usable", "skipped", ... */

/* A sample: ids common to all its responses (template and prompt; the longest common prefix of the renderings, at most up to the first response token), then a branch per response.
 * `skip`: leading tokens of the branch that still belong to the prompt (where a boundary falls inside a token of another response): they are input, never scored.
 * The last token of a branch is the turn's closing token, unless data.truncate: right cut it off. An unusable sample has no tokens; a usable one has at
 * least one prompt token, y_w and y_l, and in each branch a token to score (count > skip). */
typedef struct {
    int64_t id;
    ra_sample_state state;
    int32_t cut;          /* tokens that data.truncate took away, of the prompt or of all responses together */
    int32_t origin;       /* the entry of data.path it comes from */
    uint64_t prompt_hash; /* what data.held_out is drawn by; 0 where the row has no prompt */
    int32_t prompt_count;
    const int32_t *prompt;
    struct {
        int32_t count, skip; /* count 0: there is no such response */
        const int32_t *token;
    } response[RA_ROLES];
} ra_sample;

/* ---- reading ---- */

typedef struct ra_store ra_store;
/* Not collective. Opens dir/store.h5 and dir/tokens.bin and checks everything: checksums and bounds of the index, sizes, the hash of every block of
 * tokens, ids that are not negative. RA_ERR_IO, RA_ERR_FORMAT name the file and what is wrong. */
ra_err ra_store_open(const char *dir, ra_store **out);
/* Collective. The same, but each rank checks its share of the token blocks; all succeed or all fail. */
ra_err ra_store_open_shared(const char *dir, const ra_comm *comm, ra_store **out);
void ra_store_close(ra_store *store);
int64_t ra_store_count(const ra_store *store);             /* N, unusable samples included: id = row */
ra_sample ra_store_get(const ra_store *store, int64_t id); /* pointers are valid while the store is open */
ra_sample_state ra_store_state(const ra_store *store, int64_t id);
/* Tokens of a sample when its prompt is computed once, the closing tokens included. */
int64_t ra_store_tokens(const ra_store *store, int64_t id);
int32_t ra_store_highest_token(const ra_store *store); /* the model's vocabulary must hold it */
uint64_t ra_store_hash(const ra_store *store);         /* of content: index and tokens */
/* Not collective. Corrections that were made after the store, or checked since: samples[0..n), ascending in id and each with a y_c, are shown from here on as they are given -
 * prompt and all branches, for another response may part from the prompt earlier - and no other sample has a y_c any more, whatever the store holds. Copies them; hash, highest
 * token and the counts of tokens follow. Once a store. RA_ERR_DATA names a sample that does not fit the store. */
ra_err ra_store_set_corrections(ra_store *store, const ra_sample *samples, int64_t n);
/* Not collective. The lines "key=value" the store in `dir` was made from; *lines is one block, free with free. */
ra_err ra_store_depends_on(const char *dir, char ***lines, int64_t *n);

/* ---- writing, in rounds ---- */

enum { RA_STORE_BLOCK = 256 }; /* samples; block b belongs to rank b mod ranks */

typedef struct ra_store_writer ra_store_writer;
/* Collective. Makes dir/tokens.bin.part. */
ra_err ra_store_create(const char *dir, const ra_comm *comm, ra_store_writer **out);
/* Collective. One round: this rank's block of n <= RA_STORE_BLOCK samples, block `round * ranks + rank`, ids ascending. Only the very last block of the
 * data may be short; ranks without a block pass 0. Samples are copied; each rank writes its own tokens. */
ra_err ra_store_add_round(ra_store_writer *writer, const ra_sample *samples, int n);
/* Not collective. Lines about where the samples come from, rank 0's, written as the dataset `sources`; they must live until the store is committed. */
void ra_store_note_sources(ra_store_writer *writer, const char *const *lines, int64_t n);
/* Collective. Finishes both files: tokens.bin is flushed and renamed first, store.h5 last, so that an index is only ever there with its tokens.
 * `depends_on`: rank 0's lines. `used_yaml` may be NULL. Frees `writer` in every case. */
ra_err ra_store_commit(ra_store_writer *writer, const char *const *depends_on, int64_t n, const char *used_yaml);
/* Collective. Drops what was written. NULL is allowed. */
void ra_store_abandon(ra_store_writer *writer);

#endif
