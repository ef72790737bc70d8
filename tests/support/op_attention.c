/* Operator cases of rope, attention over packs and the KV cache. */
#include "op_attention.h"
#include <realign/mem.h>
#include <math.h>
#include <string.h>

/* ---- rope and attention ---- */

void run_rope(op_run *r, const op_case *c)
{
    enum { POSITIONS = 100 };
    int64_t ld = (int64_t)c->heads * c->head_dim + c->pad, half = c->head_dim / 2;
    const int32_t *position = op_indices(r, c->rows, POSITIONS, 0);
    void *cosine = op_r(r, POSITIONS * half, 1), *sine = op_r(r, POSITIONS * half, 1);
    r->b->ops->rope(r->b, c->rows, c->heads, c->head_dim, position, cosine, sine, c->inverse,
                    op_inout(r, "x", OP_A, c->rows * ld, 1), ld);
}

static ra_attention attention_of(const op_case *c)
{
    return (ra_attention){c->heads, c->kv_heads, c->head_dim, 1 / sqrt(c->head_dim), c->softcap, c->window};
}

void run_attention(op_run *r, const op_case *c)
{
    ra_pack pack = op_pack(c->forest);
    ra_attention a = attention_of(c);
    int64_t rows = pack.rows, width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim;
    void *qkv = op_a(r, rows * width, 1.5 * op_spread(c)), *out = op_out(r, "out", OP_A, rows * c->heads * c->head_dim);
    r->b->ops->place_pack(r->b, &pack);
    r->b->ops->attention(r->b, &pack, &a, qkv, out, op_out(r, "lse", OP_R, rows * c->heads));
    r->b->ops->release_pack(r->b, &pack);
    op_pack_free(&pack);
}

/* n = positions of a slot. Two slots. First and last tree share a whole slot, as does the second of four; one in the middle has no prefix. */
void run_attention_prefixed(op_run *r, const op_case *c)
{
    ra_pack pack = op_pack(c->forest);
    ra_attention a = attention_of(c);
    int64_t rows = pack.rows, width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim,
            value_offset = c->n * c->kv_heads * c->head_dim, slot_stride = 2 * value_offset + c->pad;
    int32_t *slot = op_host_indices(r, pack.trees, 2, 0), *length = op_host_indices(r, pack.trees, c->n, 0);
    length[pack.trees / 2] = 0;
    for (int32_t tree = 0; tree < pack.trees; tree++) {
        if (tree > 0 && tree < pack.trees - 1 && (tree != 1 || pack.trees < 4)) continue;
        slot[tree] = slot[0];
        length[tree] = (int32_t)c->n;
    }
    for (int32_t tree = 0; tree < pack.trees; tree++) {
        for (int32_t t = ra_pack_tree_row(&pack, tree); t < ra_pack_tree_row(&pack, tree + 1); t++)
            pack.position[t] += length[tree];
    }
    void *qkv = op_a(r, rows * width, 1.5 * op_spread(c)), *cache = op_a(r, 2 * slot_stride, 1.5);
    ra_cached_prefix prefix = {cache, slot_stride, value_offset, op_placed_indices(r, pack.trees, slot),
                               op_placed_indices(r, pack.trees, length)};
    r->b->ops->place_pack(r->b, &pack);
    r->b->ops->attention_prefixed(r->b, &pack, &a, &prefix, qkv, op_out(r, "out", OP_A, rows * c->heads * c->head_dim));
    r->b->ops->release_pack(r->b, &pack);
    op_pack_free(&pack);
}

/* `out` and `lse` are inputs: those of the reference, so that only the gradient's own error shows. */
void run_attention_grad(op_run *r, const op_case *c)
{
    ra_pack pack = op_pack(c->forest);
    ra_attention a = attention_of(c);
    int64_t rows = pack.rows, width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim,
            out_width = (int64_t)c->heads * c->head_dim;
    double *qkv = ra_calloc((size_t)(rows * width), sizeof *qkv);
    double *out = ra_calloc((size_t)(rows * out_width), sizeof *out), *lse = ra_calloc((size_t)(rows * c->heads), sizeof *lse);
    for (int64_t i = 0; i < rows * width; i++) qkv[i] = op_rounded(r, OP_A, 1.5 * op_spread(c) * ra_rng_normal(&r->rng));
    ra_backend *ref = NULL;
    if (ra_backend_open("ref", "fp64", 0, &ref) != RA_OK) ra_die("%s", ra_error_message());
    ref->ops->attention(ref, &pack, &a, qkv, out, lse);
    ra_backend_close(ref);
    void *qkv_given = op_given(r, OP_A, rows * width, qkv), *out_given = op_given(r, OP_A, rows * out_width, out);
    void *lse_given = op_given(r, OP_R, rows * c->heads, lse), *dout = op_a(r, rows * out_width, 1);
    r->b->ops->place_pack(r->b, &pack);
    r->b->ops->attention_grad(r->b, &pack, &a, qkv_given, out_given, lse_given, dout, op_out(r, "dqkv", OP_A, rows * width));
    r->b->ops->release_pack(r->b, &pack);
    ra_free(qkv);
    ra_free(out);
    ra_free(lse);
    op_pack_free(&pack);
}

/* n = longest cache; slots are handed out backwards and one stays free. */
void run_attention_cached(op_run *r, const op_case *c)
{
    ra_attention a = attention_of(c);
    int64_t width = (int64_t)c->kv_heads * c->head_dim, value_offset = c->n * width, slot_stride = 2 * c->n * width + c->pad;
    int64_t ldq = (int64_t)c->heads * c->head_dim + c->pad;
    int32_t *slot = op_host_indices(r, c->rows, 1, 0), *length = op_host_indices(r, c->rows, c->n, 0);
    for (int64_t i = 0; i < c->rows; i++) {
        slot[i] = (int32_t)(c->rows - i);
        length[i] += 1;
    }
    void *q = op_a(r, c->rows * ldq, 1.5 * op_spread(c)), *cache = op_a(r, (c->rows + 1) * slot_stride, 1.5);
    r->b->ops->attention_cached(r->b, (int32_t)c->rows, &a, q, ldq, cache, slot_stride, value_offset,
                                op_placed_indices(r, c->rows, slot), op_placed_indices(r, c->rows, length),
                                op_out(r, "out", OP_A, c->rows * c->heads * c->head_dim));
}

/* One row in four is passed over; what no row goes to must stay as it was. n = positions of a slot. */
void run_cache_store(op_run *r, const op_case *c)
{
    ra_attention a = attention_of(c);
    int64_t width = (int64_t)c->kv_heads * c->head_dim, value_offset = c->n * width, slot_stride = 2 * c->n * width + c->pad;
    int64_t ldq = (c->heads + 2 * (int64_t)c->kv_heads) * c->head_dim + c->pad;
    int32_t *slot = op_host_indices(r, c->rows, 1, 4), *position = op_indices(r, c->rows, c->n, 0);
    for (int64_t i = 0; i < c->rows; i++) {
        if (slot[i] >= 0) slot[i] = (int32_t)(c->rows - i);
    }
    void *qkv = op_a(r, c->rows * ldq, 1.5);
    r->b->ops->cache_store(r->b, (int32_t)c->rows, &a, qkv, ldq, op_placed_indices(r, c->rows, slot), position,
                           op_inout(r, "cache", OP_A, (c->rows + 1) * slot_stride, 1.5), slot_stride, value_offset);
}
