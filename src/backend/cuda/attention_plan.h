/* What the attention kernels read of a pack: its segments cut into pieces, and tiles of rows in the order they are worked on.
 *
 * A piece is a longest stretch of rows of one segment whose positions rise by one: nearly always the segment itself. A row sees its own piece up to
 * itself and all rows of the piece's ancestors. Pieces stand in preorder, so that a piece's descendants follow it, whatever the order of the
 * segments; rows of a parent directly before those of its child, at positions that run on, are one run of keys with them. Tiles never cross a
 * piece: what a tile does depends on its own tree alone, and a row's bits on nothing else in the pack.
 * The functions below are those of the kernels and run on the host too, where the tests count every pair with them. */
#ifndef RA_BACKEND_CUDA_ATTENTION_PLAN_H
#define RA_BACKEND_CUDA_ATTENTION_PLAN_H
#include <realign/pack.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RA_PLAN_FUNCTION static __host__ __device__ inline
#else
#define RA_PLAN_FUNCTION static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_ATTENTION_TILE = 128 }; /* rows; kernels with smaller tiles cut them */

typedef struct {
    int32_t begin, end; /* rows */
    int32_t run;        /* rows [run, begin) are ancestors too */
    int32_t up;         /* nearest ancestor before `run`, or -1 */
    int32_t below;      /* the next `below` pieces are its descendants */
    int32_t shift;      /* position - row */
    int32_t tree;
    int32_t above; /* rows of all its ancestors */
} ra_attention_piece;

typedef struct {
    int32_t row, end; /* rows, at most RA_ATTENTION_TILE, of one piece */
    int32_t piece;
    int32_t work; /* keys that its last row sees, or rows that see its first key */
} ra_attention_tile;

/* Counts, and pointers into one image in host or device memory. */
typedef struct {
    int32_t pieces, tiles;
    const ra_attention_piece *piece; /* (pieces) */
    const ra_attention_tile *query;  /* (tiles) most keys first */
    const ra_attention_tile *key;    /* (tiles) the same tiles, most queries first */
} ra_attention_plan;

/* Host bytes that building takes at most for a pack of so many rows and segments; no image is larger. */
size_t ra_attention_plan_bytes(int32_t rows, int32_t segments);
/* Fills `memory` (64-byte aligned) with the image, which begins there, and work space behind it. Positions are read from the host's arrays. */
ra_attention_plan ra_attention_plan_build(const ra_pack *pack, void *memory);
size_t ra_attention_plan_image(const ra_attention_plan *plan); /* bytes of the image */
/* The plan of a copy of its image. */
ra_attention_plan ra_attention_plan_at(const ra_attention_plan *plan, const void *image);

/* Rows on the other side of a tile. Of queries q and keys k, one in the tile and one in the range, q sees k iff k <= q and q - k + shift < window. */
typedef struct {
    int32_t begin, end;
    int32_t shift; /* position(q) - position(k) = q - k + shift */
    int32_t next;  /* the piece of the next range; none: -1 */
} ra_attention_range;

RA_PLAN_FUNCTION int32_t ra_attention_larger(int32_t x, int32_t y)
{
    return x > y ? x : y;
}

RA_PLAN_FUNCTION int32_t ra_attention_smaller(int32_t x, int32_t y)
{
    return x < y ? x : y;
}

/* Keys for the queries [row, end) of piece p, a range at a time, the first with next = p. A range may be empty where a window (0: none) passes it over. */
RA_PLAN_FUNCTION ra_attention_range ra_attention_keys(const ra_attention_piece *piece, int32_t p, int32_t next, int32_t row,
                                                      int32_t end, int32_t window)
{
    ra_attention_piece at = piece[next];
    ra_attention_range range = {at.run, next == p ? end : at.end, piece[p].shift - at.shift, at.up};
    if (window) range.begin = ra_attention_larger(range.begin, row + range.shift - window + 1);
    return range;
}

/* Queries for the keys [row, end) of piece p, the same way. */
RA_PLAN_FUNCTION ra_attention_range ra_attention_queries(const ra_attention_piece *piece, int32_t p, int32_t next, int32_t row,
                                                         int32_t end, int32_t window)
{
    int32_t last = p + piece[p].below;
    ra_attention_range range = {next == p ? row : piece[next].begin, piece[next].end, piece[next].shift - piece[p].shift, -1};
    int32_t after = next + 1;
    while (after <= last && piece[after].begin == range.end && (!window || piece[after].shift == piece[next].shift))
        range.end = piece[after++].end;
    if (after <= last) range.next = after;
    if (window) range.end = ra_attention_smaller(range.end, end - 1 + window - range.shift);
    return range;
}

#ifdef __cplusplus
}
#endif
#endif
