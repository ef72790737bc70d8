/* What the attention kernels share: the constants of a call, and the walks over the tiles of keys or queries that a tile has to look at. */
#ifndef RA_BACKEND_CUDA_ATTENTION_H
#define RA_BACKEND_CUDA_ATTENTION_H
#include "attention_plan.h"
#include "kernel.h"

#include <realign/backend.h>

#define RA_LOG2E 1.4426950408889634f
#define RA_LN2 0.6931471805599453f

/* By value to the kernels. */
struct attention_call {
    int heads, kv_heads, group, head_dim, window;
    int64_t width; /* of a row of qkv */
    float scale, softcap;
};

static inline attention_call attention_call_of(const ra_attention *a)
{
    return {a->heads,
            a->kv_heads,
            a->heads / a->kv_heads,
            a->head_dim,
            a->window,
            (int64_t)(a->heads + 2 * a->kv_heads) * a->head_dim,
            (float)a->scale,
            (float)(a->softcap > 0 ? a->softcap : 0)};
}

/* ra_cached_prefix; cache == NULL: none. */
template <class A> struct attention_prefix {
    const A *cache;
    int64_t slot_stride, value_offset;
    const int32_t *slot, *length;
};

template <class A> static inline attention_prefix<A> attention_prefix_of(const ra_cached_prefix *prefix)
{
    if (!prefix) return {NULL, 0, 0, NULL, NULL};
    return {(const A *)prefix->cache, prefix->slot_stride, prefix->value_offset, prefix->slot, prefix->length};
}

/* Columns [low, high) that a row of a tile sees, counted from the first column of the tile on the other side. */
struct attention_span {
    int low, high;
};

/* A tile of queries over its keys: the prefix in the cache, the tile's own run, then its other ancestors, STEP keys at a time. The head's keys and
 * values of row r of the range are at k + r * stride and v + r * stride. */
template <class A, int STEP> struct key_walk {
    const A *k, *v;
    int64_t stride;
    int at, end; /* this tile: rows [at, min(at + STEP, end)) of the range; at == end: there is none */
    int shift;   /* position(q) - position(k) = q - k + shift */
    bool causal;
    int next;

    const ra_attention_piece *piece;
    const A *pack_k, *pack_v;
    int64_t pack_stride;
    int own, row, last, window;

    __device__ key_walk(const ra_attention_plan &plan, const attention_call &call, const attention_prefix<A> &prefix, const A *qkv,
                        int kv, int tile_piece, int tile_row, int tile_end)
        : causal(false), next(tile_piece), piece(plan.piece), pack_stride(call.width), own(tile_piece), row(tile_row), last(tile_end),
          window(call.window)
    {
        pack_k = qkv + (int64_t)(call.heads + kv) * call.head_dim;
        pack_v = pack_k + (int64_t)call.kv_heads * call.head_dim;
        at = end = shift = 0;
        k = pack_k;
        v = pack_v;
        stride = pack_stride;
        if (prefix.cache) {
            int tree = piece[own].tree;
            k = prefix.cache + prefix.slot[tree] * prefix.slot_stride + (int64_t)kv * call.head_dim;
            v = k + prefix.value_offset;
            stride = (int64_t)call.kv_heads * call.head_dim;
            shift = piece[own].shift;
            end = prefix.length[tree];
            if (window) at = max(0, row + shift - window + 1);
        }
        open();
    }
    __device__ bool live() const { return at < end; }
    __device__ void advance()
    {
        at += STEP;
        open();
    }
    __device__ attention_span seen_by(int q) const
    {
        return {window ? q + shift - window + 1 - at : -1, (causal ? min(end, q + 1) : end) - at};
    }

  private:
    /* To the next range that is not empty, where this one is done. */
    __device__ void open()
    {
        while (at >= end && next >= 0) {
            ra_attention_range range = ra_attention_keys(piece, own, next, row, last, window);
            k = pack_k;
            v = pack_v;
            stride = pack_stride;
            at = range.begin;
            end = range.end;
            shift = range.shift;
            next = range.next;
            causal = true;
        }
        if (at >= end) at = end;
    }
};

/* A tile of keys over the queries that see it, once for each head of its group. */
template <int STEP> struct query_walk {
    int head;
    int at, end, shift, next;

    const ra_attention_piece *piece;
    int own, row, last, window, last_head;

    __device__ query_walk(const ra_attention_plan &plan, const attention_call &call, int kv, int tile_piece, int tile_row, int tile_end)
        : head(kv * call.group), at(0), end(0), shift(0), next(tile_piece), piece(plan.piece), own(tile_piece), row(tile_row),
          last(tile_end), window(call.window), last_head((kv + 1) * call.group - 1)
    {
        open();
    }
    __device__ bool live() const { return at < end; }
    __device__ void advance()
    {
        at += STEP;
        open();
    }
    __device__ attention_span seen_by(int k) const
    {
        return {k - at, (window ? min(end, k + window - shift) : end) - at};
    }

  private:
    __device__ void open()
    {
        while (at >= end) {
            if (next < 0) {
                if (head == last_head) break;
                head++;
                next = own;
            }
            ra_attention_range range = ra_attention_queries(piece, own, next, row, last, window);
            at = range.begin;
            end = range.end;
            shift = range.shift;
            next = range.next;
        }
        if (at >= end) at = end;
    }
};

/* Whether the rows [first, last] see no column of a tile of `columns`, or all of them: both bounds rise with the row. */
template <class W> static __device__ __forceinline__ bool attention_none(const W &walk, int first, int last, int columns)
{
    return walk.seen_by(last).high <= 0 || walk.seen_by(first).low >= columns;
}

template <class W> static __device__ __forceinline__ bool attention_all(const W &walk, int first, int last, int columns)
{
    return walk.seen_by(first).high >= columns && walk.seen_by(last).low <= 0;
}

/* Whether attention_forward.cu and attention_backward.cu take heads of this size. */
bool attention_has_tiles(ra_dtype a, int head_dim);

/* attention_simple.cu: any head_dim up to 256, any type. */
void attention_simple(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                      const ra_cached_prefix *prefix, const void *qkv, void *out, float *lse);
void attention_simple_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape, const void *qkv,
                           const float *lse, const float *delta, const void *dout, void *dqkv);

#endif
