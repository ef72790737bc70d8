/* Attention over a pack in bf16 on tensor cores, for heads of 64, 128 and 256: a block takes 128 queries of one head, which stay in shared memory, and
 * walks over the tiles of their keys with a running maximum and sum of the softmax (Dao, "FlashAttention-2", 2023). Values are copied in while the
 * scores are made, the next keys while the values are summed. A warp passes over tiles that none of its rows sees. Everything else goes to
 * attention_simple.cu. */
#include "attention_tiles.h"
#include "kernels.h"

typedef __nv_bfloat16 bf16;

/* Rows of a block: WARPS * STRIPS * 16; registers hold STRIPS * 16 rows of sums in D columns a warp. */
template <int D, int WARPS, int STRIPS, int KEYS> struct forward_tiles {
    enum { ROWS = WARPS * STRIPS * 16, THREADS = WARPS * 32, SHARED_BYTES = (ROWS + 2 * KEYS) * D * 2 };
    static_assert((int)ROWS == (int)RA_ATTENTION_TILE, "a block takes a whole tile of the plan");
};

/* Running maximum, in units of log 2, and this lane's part of the sum, of rows g and g + 8. */
struct running_softmax {
    float maximum[2], sum[2];
};

/* Scores to exp(score - maximum); the sums so far follow the maximum where it rises. */
template <int N, int D>
static __device__ __forceinline__ void update_softmax(float (&s)[N][4], running_softmax &running, float (&o)[D][4])
{
#pragma unroll
    for (int high = 0; high < 2; high++) {
        float maximum = running.maximum[high];
#pragma unroll
        for (int n = 0; n < N; n++) maximum = fmaxf(maximum, fmaxf(s[n][2 * high], s[n][2 * high + 1]));
        maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
        maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
        float base = maximum == -INFINITY ? 0 : maximum; /* no key seen yet */
        float old = mma_exp2(running.maximum[high] - base), sum = running.sum[high] * old;
        running.maximum[high] = maximum;
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 2 * high; i < 2 * high + 2; i++) {
                s[n][i] = mma_exp2(s[n][i] - base);
                sum += s[n][i];
            }
        }
        running.sum[high] = sum;
#pragma unroll
        for (int n = 0; n < D; n++) {
            o[n][2 * high] *= old;
            o[n][2 * high + 1] *= old;
        }
    }
}

template <int D, int WARPS, int STRIPS, int KEYS, int BLOCKS /* at a time on a multiprocessor, as registers go */>
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    forward_kernel(ra_attention_plan plan, attention_call call, attention_prefix<bf16> prefix, const bf16 *qkv, bf16 *out,
                   float *lse)
{
    typedef forward_tiles<D, WARPS, STRIPS, KEYS> T;
    RA_DYNAMIC_SHARED(bf16, shared);
    ra_shared_ptr<bf16> q_tile = shared, k_tile = shared + T::ROWS * D, v_tile = k_tile + KEYS * D;
    int head = blockIdx.x % call.heads, kv = head / call.group;
    ra_attention_tile tile = plan.query[blockIdx.x / call.heads];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first = tile.row + warp * STRIPS * 16, last = min(first + STRIPS * 16, tile.end) - 1; /* this warp's rows */

    key_walk<bf16, KEYS> walk(plan, call, prefix, qkv, kv, tile);
    tile_fetch<D, T::ROWS, T::THREADS>(q_tile, qkv + (int64_t)head * D, call.width, tile.row, tile.end);
    tile_fetch<D, KEYS, T::THREADS>(k_tile, walk.k, walk.stride(), walk.at, walk.end);
    mma_copy_commit();
    ra_shared_ptr<bf16> own_q = q_tile + warp * STRIPS * 16 * D;
    float o[STRIPS][D / 8][4];
    running_softmax running[STRIPS];
#pragma unroll
    for (int s = 0; s < STRIPS; s++) running[s] = {{-INFINITY, -INFINITY}, {0, 0}};
    clear_sums(o);
    while (walk.live()) {
        bool seen = first <= last && !attention_none(walk, first, last, KEYS);
        uint32_t p[STRIPS][KEYS / 16][4];
        mma_copy_wait();
        __syncthreads(); /* the keys are here, and every warp has left the values */
        tile_fetch<D, KEYS, T::THREADS>(v_tile, walk.v(), walk.stride(), walk.at, walk.end);
        mma_copy_commit();
        if (seen) {
            float scores[STRIPS][KEYS / 8][4];
            clear_sums(scores);
            tile_product_rows<D, STRIPS, KEYS>(scores, own_q, k_tile);
            bool masked = !attention_all(walk, first, last, KEYS);
#pragma unroll
            for (int s = 0; s < STRIPS; s++) {
                scale_scores(scores[s], call);
                if (masked) mask_scores(scores[s], walk, first + 16 * s, 0);
                update_softmax(scores[s], running[s], o[s]);
                tile_round<KEYS>(p[s], scores[s]);
            }
        }
        walk.advance();
        mma_copy_wait();
        __syncthreads(); /* the values are here, and every warp has left the keys */
        if (walk.live()) {
            tile_fetch<D, KEYS, T::THREADS>(k_tile, walk.k, walk.stride(), walk.at, walk.end);
            mma_copy_commit();
        }
        if (seen) tile_product_add<D, STRIPS, KEYS>(o, p, v_tile);
    }

#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
        float inverse[2];
        int row = first + 16 * s;
#pragma unroll
        for (int high = 0; high < 2; high++) {
            float sum = running[s].sum[high];
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            inverse[high] = 1 / sum;
            int q = row + lane / 4 + 8 * high;
            if (lse && lane % 4 == 0 && q < tile.end)
                lse[(int64_t)q * call.heads + head] = running[s].maximum[high] * RA_LN2 + logf(sum);
        }
        tile_store<D>(o[s], inverse, own_q + 16 * s * D, out + ((int64_t)row * call.heads + head) * D, (int64_t)call.heads * D,
                      tile.end - row);
    }
}

template <int D, int WARPS, int STRIPS, int KEYS, int BLOCKS>
static void launch(cudaStream_t stream, const ra_attention_plan *plan, const attention_call &call,
                   const attention_prefix<bf16> &prefix, const bf16 *qkv, bf16 *out, float *lse)
{
    typedef forward_tiles<D, WARPS, STRIPS, KEYS> T;
    RA_CUDA(cudaFuncSetAttribute(forward_kernel<D, WARPS, STRIPS, KEYS, BLOCKS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 T::SHARED_BYTES));
    RA_LAUNCH((forward_kernel<D, WARPS, STRIPS, KEYS, BLOCKS>), (unsigned)plan->tiles * (unsigned)call.heads, T::THREADS,
              T::SHARED_BYTES, stream, *plan, call, prefix, qkv, out, lse);
}

bool attention_has_tiles(ra_dtype a, int head_dim)
{
    return a == RA_DTYPE_BF16 && (head_dim == 64 || head_dim == 128 || head_dim == 256);
}

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

void ra_cuda_attention(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                       const ra_cached_prefix *prefix, const void *qkv, void *out, void *lse)
{
    if (plan->tiles == 0) return;
    bool aligned_prefix = !prefix || (aligned(prefix->cache) && prefix->slot_stride % 8 == 0 && prefix->value_offset % 8 == 0);
    if (!attention_has_tiles(a, shape->head_dim) || !aligned(qkv) || !aligned(out) || !aligned_prefix) {
        attention_simple(stream, a, plan, shape, prefix, qkv, out, (float *)lse);
        return;
    }
    attention_call call = attention_call_of(shape);
    attention_prefix<bf16> given = attention_prefix_of<bf16>(prefix);
    switch (shape->head_dim) {
    case 64: launch<64, 4, 2, 64, 2>(stream, plan, call, given, (const bf16 *)qkv, (bf16 *)out, (float *)lse); break;
    case 128: launch<128, 4, 2, 64, 2>(stream, plan, call, given, (const bf16 *)qkv, (bf16 *)out, (float *)lse); break;
    case 256: launch<256, 8, 1, 64, 1>(stream, plan, call, given, (const bf16 *)qkv, (bf16 *)out, (float *)lse); break;
    }
}
