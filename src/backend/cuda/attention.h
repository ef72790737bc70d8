/* What the attention kernels share: the constants of a call, and the walks over the tiles of keys or queries that a tile has to look at. */
#ifndef RA_BACKEND_CUDA_ATTENTION_H
#define RA_BACKEND_CUDA_ATTENTION_H
#include "attention_plan.h"
#include "kernel.h"

extern "C" {
#include <realign/backend.h>
}

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

/* A tile of queries over its keys: the prefix in the cache, the tile's own run, then its other ancestors, STEP keys at a time. Holds as little as it
 * can, as it lives in registers beside the sums. */
template <class A, int STEP> struct key_walk {
    const A *k;  /* row 0 of the range, of this head */
    int at, end; /* this tile: rows [at, min(at + STEP, end)) of the range; at == end: there is none */

    __device__ key_walk(const ra_attention_plan &in_plan, const attention_call &of_call, const attention_prefix<A> &with_prefix,
                        const A *const &of_qkv, int of_kv, const ra_attention_tile &of_tile)
        : k(of_qkv), at(0), end(0), plan(in_plan), call(of_call), prefix(with_prefix), qkv(of_qkv), tile(of_tile), kv(of_kv),
          shift(0), next(of_tile.piece), in_pack(!with_prefix.cache)
    {
        if (in_pack) {
            k = keys_in_pack();
        } else {
            const ra_attention_piece &own = plan.piece[tile.piece];
            k = prefix.cache + prefix.slot[own.tree] * prefix.slot_stride + (int64_t)kv * call.head_dim;
            shift = own.shift;
            end = prefix.length[own.tree];
            if (call.window) at = max(0, tile.row + shift - call.window + 1);
        }
        open();
    }
    __device__ bool live() const
    {
        return at < end;
    }
    __device__ void advance()
    {
        at += STEP;
        open();
    }
    /* Elements between the rows of the range, and from a row's key to its value. */
    __device__ int64_t stride() const
    {
        return in_pack ? call.width : (int64_t)call.kv_heads * call.head_dim;
    }
    __device__ const A *v() const
    {
        return k + (in_pack ? (int64_t)call.kv_heads * call.head_dim : prefix.value_offset);
    }
    __device__ attention_span seen_by(int q) const
    {
        return {call.window ? q + shift - call.window + 1 - at : -1, (in_pack ? min(end, q + 1) : end) - at};
    }

  private:
    const ra_attention_plan &plan;
    const attention_call &call;
    const attention_prefix<A> &prefix;
    const A *const &qkv;
    const ra_attention_tile &tile;
    int kv, shift, next; /* position(q) - position(k) = q - k + shift; the piece of the next range */
    bool in_pack;        /* no longer in the prefix, all of which is seen */

    __device__ const A *keys_in_pack() const
    {
        return qkv + (int64_t)(call.heads + kv) * call.head_dim;
    }
    /* To the next range that is not empty, where this one is done. */
    __device__ void open()
    {
        while (at >= end && next >= 0) {
            ra_attention_range range = ra_attention_keys(plan.piece, tile.piece, next, tile.row, tile.end, call.window);
            at = range.begin;
            end = range.end;
            shift = range.shift;
            next = range.next;
            if (!in_pack) k = keys_in_pack();
            in_pack = true;
        }
        at = min(at, end);
    }
};

/* A tile of keys over the queries that see it, once for each head of its group. */
template <int STEP> struct query_walk {
    int head;
    int at, end;

    __device__ query_walk(const ra_attention_plan &in_plan, const attention_call &of_call, int kv,
                          const ra_attention_tile &of_tile)
        : head(kv * of_call.group), at(0), end(0), plan(in_plan), call(of_call), tile(of_tile),
          last_head(head + of_call.group - 1), shift(0), next(of_tile.piece)
    {
        open();
    }
    __device__ bool live() const
    {
        return at < end;
    }
    __device__ void advance()
    {
        at += STEP;
        open();
    }
    __device__ attention_span seen_by(int k) const
    {
        return {k - at, (call.window ? min(end, k + call.window - shift) : end) - at};
    }

  private:
    const ra_attention_plan &plan;
    const attention_call &call;
    const ra_attention_tile &tile;
    int last_head, shift, next;

    __device__ void open()
    {
        while (at >= end && (next >= 0 || head < last_head)) {
            if (next < 0) {
                head++;
                next = tile.piece;
            }
            ra_attention_range range = ra_attention_queries(plan.piece, tile.piece, next, tile.row, tile.end, call.window);
            at = range.begin;
            end = range.end;
            shift = range.shift;
            next = range.next;
        }
        at = min(at, end);
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
void attention_simple_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                           const void *qkv, const float *lse, const float *delta, const void *dout, void *dqkv);

#endif
