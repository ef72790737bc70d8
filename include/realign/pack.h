/* A pack: sequences without padding. A flat token array with a forest of segments: a token attends to every token of its segment's
 * ancestors and, causally, to its own segment. A prompt is a root, its responses are branches that continue its positions. */
#ifndef REALIGN_PACK_H
#define REALIGN_PACK_H
#include <stdint.h>

typedef struct {
    int32_t parent;     /* index of an earlier segment, or -1 */
    int32_t begin, end; /* rows [begin, end) */
} ra_segment;

typedef struct {
    int32_t rows; /* tokens; also the first dimension of every activation */
    int32_t segments;
    int32_t trees;
    int32_t *token;      /* (rows) token ids */
    int32_t *position;   /* (rows) rope positions */
    ra_segment *segment; /* (segments) parents before children; the segments of a tree are consecutive, and so are its rows */
    int32_t *tree_begin; /* (trees + 1) first segment of each tree; a tree is one sample */
    void *
        placed; /* the backend's copy of these arrays where its memory is not host memory: ra_backend_ops.place_pack; NULL: none */
    const int32_t *placed_token, *placed_position; /* token and position in that copy */
} ra_pack;

/* Token ids and positions where operators may read them. */
static inline const int32_t *ra_pack_tokens(const ra_pack *pack)
{
    return pack->placed ? pack->placed_token : pack->token;
}

static inline const int32_t *ra_pack_positions(const ra_pack *pack)
{
    return pack->placed ? pack->placed_position : pack->position;
}

/* The rows of tree t are [ra_pack_tree_row(p, t), ra_pack_tree_row(p, t + 1)). */
static inline int32_t ra_pack_tree_row(const ra_pack *pack, int32_t tree)
{
    return tree == pack->trees ? pack->rows : pack->segment[pack->tree_begin[tree]].begin;
}

#endif
