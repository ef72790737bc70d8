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
} ra_pack;

/* The rows of tree t are [ra_pack_tree_row(p, t), ra_pack_tree_row(p, t + 1)). */
static inline int32_t ra_pack_tree_row(const ra_pack *pack, int32_t tree)
{
    return tree == pack->trees ? pack->rows : pack->segment[pack->tree_begin[tree]].begin;
}

#endif
