#include "attention_plan.h"

#include <stdlib.h>

/* Work space by segment. */
typedef struct {
    int32_t pieces, subtree; /* of its own; with those of all below it */
    int32_t next;            /* where the next child goes in preorder */
    int32_t last;            /* its last piece, or its parent's where it has no rows; -1: none */
} placing;

static size_t rounded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t image_bytes(int32_t pieces, int32_t tiles)
{
    return rounded((size_t)pieces * sizeof(ra_attention_piece)) + 2 * rounded((size_t)tiles * sizeof(ra_attention_tile));
}

size_t ra_attention_plan_bytes(int32_t rows, int32_t segments)
{
    /* a piece and a tile have a row at least */
    return image_bytes(rows, rows) + (size_t)segments * sizeof(placing);
}

size_t ra_attention_plan_image(const ra_attention_plan *plan)
{
    return image_bytes(plan->pieces, plan->tiles);
}

ra_attention_plan ra_attention_plan_at(const ra_attention_plan *plan, const void *image)
{
    const char *tiles = (const char *)image + rounded((size_t)plan->pieces * sizeof(ra_attention_piece));
    return (ra_attention_plan){plan->pieces, plan->tiles, image, (const ra_attention_tile *)tiles,
                               (const ra_attention_tile *)(tiles + rounded((size_t)plan->tiles * sizeof(ra_attention_tile)))};
}

/* The end of the piece that begins at `row`. */
static int32_t piece_end(const ra_pack *pack, int32_t row, int32_t segment_end)
{
    int32_t end = row + 1;
    while (end < segment_end && pack->position[end] == pack->position[end - 1] + 1) end++;
    return end;
}

/* How many pieces each segment has, and how many with all below it. */
static int32_t count_pieces(const ra_pack *pack, placing *at)
{
    int32_t pieces = 0;
    for (int32_t s = pack->segments - 1; s >= 0; s--) at[s] = (placing){0, 0, 0, -1};
    for (int32_t s = pack->segments - 1; s >= 0; s--) { /* children stand behind their parents */
        ra_segment segment = pack->segment[s];
        for (int32_t row = segment.begin; row < segment.end; row = piece_end(pack, row, segment.end)) at[s].pieces++;
        at[s].subtree += at[s].pieces;
        if (segment.parent >= 0) at[segment.parent].subtree += at[s].subtree;
        pieces += at[s].pieces;
    }
    return pieces;
}

static void place_piece(const ra_pack *pack, ra_attention_piece *piece, int32_t p, int32_t parent, int32_t row,
                        int32_t segment_end)
{
    ra_attention_piece *y = &piece[p];
    y->begin = y->run = row;
    y->end = piece_end(pack, row, segment_end);
    y->shift = pack->position[row] - row;
    y->up = parent;
    y->above = 0;
    if (parent < 0) return;
    const ra_attention_piece *above = &piece[parent];
    y->above = above->above + above->end - above->begin;
    if (above->end == row && above->shift == y->shift) {
        y->run = above->run;
        y->up = above->up;
    }
}

static void place_segment(const ra_pack *pack, int32_t s, int32_t tree, int32_t *root, placing *at, ra_attention_piece *piece)
{
    ra_segment segment = pack->segment[s];
    int32_t *free_place = segment.parent < 0 ? root : &at[segment.parent].next;
    int32_t first = *free_place, parent = segment.parent < 0 ? -1 : at[segment.parent].last, p = first;
    *free_place += at[s].subtree;
    for (int32_t row = segment.begin; row < segment.end; row = piece[p++].end) {
        place_piece(pack, piece, p, p > first ? p - 1 : parent, row, segment.end);
        piece[p].below = first + at[s].subtree - 1 - p;
        piece[p].tree = tree;
    }
    at[s].next = p;
    at[s].last = p > first ? p - 1 : parent;
}

static int most_work_first(const void *a, const void *b)
{
    const ra_attention_tile *x = a, *y = b;
    if (x->work != y->work) return x->work > y->work ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* Rows of all descendants. */
static int32_t rows_below(const ra_attention_piece *piece, int32_t p)
{
    int32_t rows = 0;
    for (int32_t i = p + 1; i <= p + piece[p].below; i++) rows += piece[i].end - piece[i].begin;
    return rows;
}

ra_attention_plan ra_attention_plan_build(const ra_pack *pack, void *memory)
{
    placing *at = (placing *)((char *)memory + image_bytes(pack->rows, pack->rows));
    ra_attention_plan plan = {.pieces = count_pieces(pack, at)};
    ra_attention_piece *piece = memory;
    int32_t root = 0;
    for (int32_t tree = 0; tree < pack->trees; tree++) {
        for (int32_t s = pack->tree_begin[tree]; s < pack->tree_begin[tree + 1]; s++)
            place_segment(pack, s, tree, &root, at, piece);
    }
    for (int32_t p = 0; p < plan.pieces; p++)
        plan.tiles += (piece[p].end - piece[p].begin + RA_ATTENTION_TILE - 1) / RA_ATTENTION_TILE;
    plan = ra_attention_plan_at(&plan, memory);
    ra_attention_tile *query = (ra_attention_tile *)plan.query, *key = (ra_attention_tile *)plan.key;
    for (int32_t p = 0, i = 0; p < plan.pieces; p++) {
        int32_t below = rows_below(piece, p);
        for (int32_t row = piece[p].begin; row < piece[p].end; row += RA_ATTENTION_TILE, i++) {
            int32_t end = ra_attention_smaller(row + RA_ATTENTION_TILE, piece[p].end);
            query[i] = (ra_attention_tile){row, end, p, piece[p].above + end - piece[p].begin};
            key[i] = (ra_attention_tile){row, end, p, piece[p].end - row + below};
        }
    }
    qsort(query, (size_t)plan.tiles, sizeof *query, most_work_first);
    qsort(key, (size_t)plan.tiles, sizeof *key, most_work_first);
    return plan;
}
