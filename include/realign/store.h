/* The sample store: tokenised preference samples on disk, in global order, read by id. `store.h5` is the index (one integer row a sample, with provenance and
 * the keys it depends on), `tokens.bin` the token ids (int32, little-endian), memory-mapped by readers, so that no rank holds what it does not use. */
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
    RA_SAMPLE_STATES
} ra_sample_state;

/* A sample: ids common to all its responses (template and prompt; the longest common prefix of the renderings, at most up to the first response token), then a branch per response.
 * `skip`: leading tokens of the branch that still belong to the prompt (where a boundary falls inside a token of another response): they are input, never scored.
 * The last token of a branch is the turn's closing token. */
typedef struct {
    int64_t id;
    ra_sample_state state;
    int32_t prompt_count;
    const int32_t *prompt;
    struct {
        int32_t count, skip; /* count 0: there is no such response */
        const int32_t *token;
    } response[RA_ROLES];
} ra_sample;

typedef struct ra_store ra_store;
/* Not collective. Opens dir/store.h5 and dir/tokens.bin; checks sizes and checksums of the index. */
ra_err ra_store_open(const char *dir, ra_store **out);
void ra_store_close(ra_store *store);
int64_t ra_store_count(const ra_store *store);             /* N, unusable samples included: id = row */
ra_sample ra_store_get(const ra_store *store, int64_t id); /* pointers are valid while the store is open */
ra_sample_state ra_store_state(const ra_store *store, int64_t id);
/* Tokens of a sample when its prompt is computed once, the closing tokens included. */
int64_t ra_store_tokens(const ra_store *store, int64_t id);
uint64_t ra_store_hash(const ra_store *store); /* of content: index and tokens */

#endif
