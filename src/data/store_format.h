/* What the two files of a store hold: shared by its reader and its writer. */
#ifndef RA_DATA_STORE_FORMAT_H
#define RA_DATA_STORE_FORMAT_H
#include <realign/hash.h>
#include <realign/store.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tokens.bin is little-endian and mapped as it is");

enum { RA_STORE_FORMAT = 2 }; /* raised whenever older files can no longer be read */

#define RA_STORE_INDEX "store.h5"
#define RA_STORE_TOKENS "tokens.bin"

/* A row of the index. The tokens of a sample lie side by side: prompt, then the branches in the order of the roles. */
typedef struct {
    int32_t state, cut, prompt_count, origin;
    int32_t count[RA_ROLES], skip[RA_ROLES];
    uint64_t prompt_hash;
} ra_store_row;
_Static_assert(sizeof(ra_store_row) == 48, "rows are hashed and sent as bytes: there must be no gap in them");

static inline int64_t ra_store_row_tokens(const ra_store_row *row)
{
    int64_t n = row->prompt_count;
    for (int r = 0; r < RA_ROLES; r++) n += row->count[r];
    return n;
}

/* The row of a sample; its tokens lie elsewhere. */
ra_store_row ra_store_row_of(const ra_sample *sample);
/* What is wrong with a row, NULL when it is sound; static. */
const char *ra_store_row_problem(const ra_store_row *row);
/* The hash of content: rows (n), then the hashes of the token blocks in order. */
ra_hash ra_store_content_hash(const ra_store_row *rows, int64_t n, const ra_hash *block, int64_t blocks);

#endif
