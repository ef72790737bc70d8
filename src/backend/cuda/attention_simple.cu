/* Attention over a pack for any type, any head_dim up to 256 and any alignment, in plain float arithmetic: fp32 and tf32, and the shapes that
 * attention_forward.cu and attention_backward.cu leave. Tiles of 32 by 32; a warp has 8 of the 32 rows, a lane one of the 32 columns while scores are
 * made, and every 32nd element of the head while they are summed up. The rows of the gradients' tile are queries for dQ, keys for dK and dV. */
#include "attention.h"
#include "attention_number.h"
#include "kernels.h"

enum { TILE = 32, WARPS = 4, THREADS = WARPS * 32, ROWS = TILE / WARPS, CUTS = RA_ATTENTION_TILE / TILE };

/* Floats from row to row of a tile: whole float4s, an odd number of them, so that eight lanes that read one column of eight rows have all 32 banks. */
static __host__ __device__ inline int pitch_of(int head_dim)
{
    return ((head_dim + 3) / 4 | 1) * 4;
}

/* Rows [first, first + TILE) into shared memory, zeros from `end` on and behind a row. */
template <class A>
static __device__ void fetch_tile(ra_shared_ptr<float> tile, int pitch, const A *matrix, int64_t stride, int head_dim, int first,
                                  int end)
{
    for (int row = threadIdx.x / 32; row < TILE; row += WARPS) {
        for (int j = threadIdx.x % 32; j < pitch; j += 32)
            tile[row * pitch + j] = first + row < end && j < head_dim ? as_float(matrix[(first + row) * stride + j]) : 0;
    }
}

static __device__ __forceinline__ float4 four(ra_shared_ptr<float> tile, int at)
{
    return ra_shared_cast<float4>(tile, at)[0];
}

/* s[r] = x[r] . y[lane] */
static __device__ __forceinline__ void products(float (&s)[ROWS], ra_shared_ptr<float> x, ra_shared_ptr<float> y, int pitch,
                                                int head_dim)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS; r++) s[r] = 0;
    for (int j = 0; j < head_dim; j += 4) {
        float4 column = four(y, lane * pitch + j);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float4 row = four(x, r * pitch + j);
            s[r] += row.x * column.x;
            s[r] += row.y * column.y;
            s[r] += row.z * column.z;
            s[r] += row.w * column.w;
        }
    }
}

/* c[r] += sum_i p[r][i] y[i], a lane's elements */
template <int C>
static __device__ __forceinline__ void add_products(float (&c)[ROWS][C], ra_shared_ptr<float> p, ra_shared_ptr<float> y,
                                                    int pitch, int head_dim)
{
    int lane = threadIdx.x % 32;
    for (int i = 0; i < TILE; i += 4) {
        float4 weight[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) weight[r] = four(p, r * TILE + i);
#pragma unroll
        for (int j = 0; j < C; j++) {
            if (lane + 32 * j >= head_dim) continue;
            ra_shared_ptr<float> column = y + (i * pitch + lane + 32 * j);
            float y0 = column[0], y1 = column[pitch], y2 = column[2 * pitch], y3 = column[3 * pitch];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                c[r][j] += weight[r].x * y0;
                c[r][j] += weight[r].y * y1;
                c[r][j] += weight[r].z * y2;
                c[r][j] += weight[r].w * y3;
            }
        }
    }
}

template <class A, int C>
static __device__ __forceinline__ void store_rows(A *to, int64_t stride, const float (&c)[ROWS][C], const float (&factor)[ROWS],
                                                  int head_dim, int rows)
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int j = 0; j < C; j++) {
            int column = threadIdx.x % 32 + 32 * j;
            if (r < rows && column < head_dim) set_float(to + r * stride + column, c[r][j] * factor[r]);
        }
    }
}

template <int C> static __device__ __forceinline__ void clear_rows(float (&c)[ROWS][C])
{
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int j = 0; j < C; j++) c[r][j] = 0;
    }
}

static __device__ __forceinline__ float score_of(const attention_call &call, float product)
{
    float s = call.scale * product;
    return call.softcap > 0 ? call.softcap * tanhf(s / call.softcap) : s;
}

/* The block's part of a tile of the plan; empty where the tile is shorter. */
static __device__ __forceinline__ ra_attention_tile cut_of(const ra_attention_tile *tiles, int cut)
{
    ra_attention_tile tile = tiles[cut / CUTS];
    tile.row += cut % CUTS * TILE;
    tile.end = min(tile.end, tile.row + TILE);
    return tile;
}

template <class A, int C>
__global__ void __launch_bounds__(THREADS)
    simple_forward(ra_attention_plan plan, attention_call call, attention_prefix<A> prefix, const A *qkv, A *out, float *lse)
{
    RA_DYNAMIC_SHARED(float, shared);
    int head_dim = call.head_dim, pitch = pitch_of(call.head_dim), head = blockIdx.x % call.heads, kv = head / call.group;
    ra_attention_tile tile = cut_of(plan.query, blockIdx.x / call.heads);
    if (tile.row >= tile.end) return;
    ra_shared_ptr<float> q_tile = shared, k_tile = q_tile + TILE * pitch, v_tile = k_tile + TILE * pitch,
                         p_tile = v_tile + TILE * pitch;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS; /* rows of this warp */
    fetch_tile(q_tile, pitch, qkv + (int64_t)head * head_dim, call.width, head_dim, tile.row, tile.end);
    float o[ROWS][C], maximum[ROWS], sum[ROWS];
    clear_rows(o);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        maximum[r] = -INFINITY;
        sum[r] = 0;
    }
    for (key_walk<A, TILE> walk(plan, call, prefix, qkv, kv, tile); walk.live(); walk.advance()) {
        __syncthreads();
        fetch_tile(k_tile, pitch, walk.k, walk.stride(), head_dim, walk.at, walk.end);
        fetch_tile(v_tile, pitch, walk.v(), walk.stride(), head_dim, walk.at, walk.end);
        __syncthreads();
        float s[ROWS];
        products(s, q_tile + mine * pitch, k_tile, pitch, head_dim);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            attention_span seen = walk.seen_by(tile.row + mine + r);
            float score = lane >= seen.low && lane < seen.high ? score_of(call, s[r]) : -INFINITY;
            float highest = fmaxf(maximum[r], warp_maximum(score)), base = highest == -INFINITY ? 0 : highest;
            float old = expf(maximum[r] - base), p = expf(score - base);
            maximum[r] = highest;
            sum[r] = sum[r] * old + p;
            p_tile[(mine + r) * TILE + lane] = p;
#pragma unroll
            for (int j = 0; j < C; j++) o[r][j] *= old;
        }
        __syncwarp();
        add_products(o, p_tile + mine * TILE, v_tile, pitch, head_dim);
    }
    float inverse[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float total = warp_sum(sum[r]);
        int q = tile.row + mine + r;
        inverse[r] = 1 / total;
        if (lse && lane == 0 && q < tile.end) lse[(int64_t)q * call.heads + head] = maximum[r] + logf(total);
    }
    store_rows(out + ((int64_t)(tile.row + mine) * call.heads + head) * head_dim, (int64_t)call.heads * head_dim, o, inverse,
               head_dim, tile.end - tile.row - mine);
}

/* P and dS of the warp's rows and this lane's column. */
struct pair_gradients {
    float p[ROWS], ds[ROWS];
};

template <class W>
static __device__ __forceinline__ void gradients(pair_gradients &g, const attention_call &call, const W &walk, int first_row,
                                                 const float (&lse)[ROWS], const float (&delta)[ROWS], const float (&s)[ROWS],
                                                 const float (&dp)[ROWS])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        attention_span seen = walk.seen_by(first_row + r);
        float score = score_of(call, s[r]), tanh = call.softcap > 0 ? score / call.softcap : 0;
        bool sees = lane >= seen.low && lane < seen.high;
        g.p[r] = sees ? expf(score - lse[r]) : 0;
        g.ds[r] = sees ? g.p[r] * (dp[r] - delta[r]) * (1 - tanh * tanh) : 0;
    }
}

template <class A, int C>
__global__ void __launch_bounds__(THREADS) simple_query_gradient(ra_attention_plan plan, attention_call call, const A *qkv,
                                                                 const float *lse, const float *delta, const A *dout, A *dqkv)
{
    RA_DYNAMIC_SHARED(float, shared);
    int head_dim = call.head_dim, pitch = pitch_of(call.head_dim), head = blockIdx.x % call.heads, kv = head / call.group;
    ra_attention_tile tile = cut_of(plan.query, blockIdx.x / call.heads);
    if (tile.row >= tile.end) return;
    ra_shared_ptr<float> q_tile = shared, do_tile = q_tile + TILE * pitch, k_tile = do_tile + TILE * pitch,
                         v_tile = k_tile + TILE * pitch, ds_tile = v_tile + TILE * pitch;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    int64_t out_width = (int64_t)call.heads * head_dim;
    fetch_tile(q_tile, pitch, qkv + (int64_t)head * head_dim, call.width, head_dim, tile.row, tile.end);
    fetch_tile(do_tile, pitch, dout + (int64_t)head * head_dim, out_width, head_dim, tile.row, tile.end);
    float row_lse[ROWS], row_delta[ROWS], dq[ROWS][C], factor[ROWS];
    clear_rows(dq);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int64_t i = (int64_t)min(tile.row + mine + r, tile.end - 1) * call.heads + head;
        row_lse[r] = lse[i];
        row_delta[r] = delta[i];
        factor[r] = call.scale;
    }
    const attention_prefix<A> none = {NULL, 0, 0, NULL, NULL};
    for (key_walk<A, TILE> walk(plan, call, none, qkv, kv, tile); walk.live(); walk.advance()) {
        __syncthreads();
        fetch_tile(k_tile, pitch, walk.k, walk.stride(), head_dim, walk.at, walk.end);
        fetch_tile(v_tile, pitch, walk.v(), walk.stride(), head_dim, walk.at, walk.end);
        __syncthreads();
        float s[ROWS], dp[ROWS];
        products(s, q_tile + mine * pitch, k_tile, pitch, head_dim);
        products(dp, do_tile + mine * pitch, v_tile, pitch, head_dim);
        pair_gradients g;
        gradients(g, call, walk, tile.row + mine, row_lse, row_delta, s, dp);
#pragma unroll
        for (int r = 0; r < ROWS; r++) ds_tile[(mine + r) * TILE + lane] = g.ds[r];
        __syncwarp();
        add_products(dq, ds_tile + mine * TILE, k_tile, pitch, head_dim);
    }
    store_rows(dqkv + (tile.row + mine) * call.width + (int64_t)head * head_dim, call.width, dq, factor, head_dim,
               tile.end - tile.row - mine);
}

template <class A, int C>
__global__ void __launch_bounds__(THREADS) simple_key_gradient(ra_attention_plan plan, attention_call call, const A *qkv,
                                                               const float *lse, const float *delta, const A *dout, A *dqkv)
{
    RA_DYNAMIC_SHARED(float, shared);
    int head_dim = call.head_dim, pitch = pitch_of(call.head_dim), kv = blockIdx.x % call.kv_heads;
    ra_attention_tile tile = cut_of(plan.key, blockIdx.x / call.kv_heads);
    if (tile.row >= tile.end) return;
    ra_shared_ptr<float> k_tile = shared, v_tile = k_tile + TILE * pitch, q_tile = v_tile + TILE * pitch,
                         do_tile = q_tile + TILE * pitch, p_tile = do_tile + TILE * pitch, ds_tile = p_tile + TILE * TILE;
    int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * ROWS;
    int64_t out_width = (int64_t)call.heads * head_dim, k_at = (int64_t)(call.heads + kv) * head_dim,
            v_at = k_at + (int64_t)call.kv_heads * head_dim;
    fetch_tile(k_tile, pitch, qkv + k_at, call.width, head_dim, tile.row, tile.end);
    fetch_tile(v_tile, pitch, qkv + v_at, call.width, head_dim, tile.row, tile.end);
    float dk[ROWS][C], dv[ROWS][C];
    clear_rows(dk);
    clear_rows(dv);
    for (query_walk<TILE> walk(plan, call, kv, tile); walk.live(); walk.advance()) {
        __syncthreads();
        fetch_tile(q_tile, pitch, qkv + (int64_t)walk.head * head_dim, call.width, head_dim, walk.at, walk.end);
        fetch_tile(do_tile, pitch, dout + (int64_t)walk.head * head_dim, out_width, head_dim, walk.at, walk.end);
        __syncthreads();
        float s[ROWS], dp[ROWS], column_lse[ROWS], column_delta[ROWS];
        int64_t i = (int64_t)min(walk.at + lane, walk.end - 1) * call.heads + walk.head;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            column_lse[r] = lse[i];
            column_delta[r] = delta[i];
        }
        products(s, k_tile + mine * pitch, q_tile, pitch, head_dim);
        products(dp, v_tile + mine * pitch, do_tile, pitch, head_dim);
        pair_gradients g;
        gradients(g, call, walk, tile.row + mine, column_lse, column_delta, s, dp);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            p_tile[(mine + r) * TILE + lane] = g.p[r];
            ds_tile[(mine + r) * TILE + lane] = g.ds[r];
        }
        __syncwarp();
        add_products(dv, p_tile + mine * TILE, do_tile, pitch, head_dim);
        add_products(dk, ds_tile + mine * TILE, q_tile, pitch, head_dim);
    }
    float one[ROWS], scale[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        one[r] = 1;
        scale[r] = call.scale;
    }
    A *to = dqkv + (tile.row + mine) * call.width;
    store_rows(to + k_at, call.width, dk, scale, head_dim, tile.end - tile.row - mine);
    store_rows(to + v_at, call.width, dv, one, head_dim, tile.end - tile.row - mine);
}

/* ---- launchers ---- */

static int shared_bytes(int head_dim, int tiles, int squares)
{
    return TILE * (tiles * pitch_of(head_dim) + squares * TILE) * (int)sizeof(float);
}

template <class A, int C>
static void launch_forward(cudaStream_t stream, const ra_attention_plan *plan, const ra_attention *shape,
                           const ra_cached_prefix *prefix, const void *qkv, void *out, float *lse)
{
    int bytes = shared_bytes(shape->head_dim, 3, 1);
    RA_CUDA(cudaFuncSetAttribute(simple_forward<A, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    RA_LAUNCH((simple_forward<A, C>), (unsigned)plan->tiles * (unsigned)(CUTS * shape->heads), THREADS, bytes, stream, *plan,
              attention_call_of(shape), attention_prefix_of<A>(prefix), (const A *)qkv, (A *)out, lse);
}

template <class A, int C>
static void launch_gradients(cudaStream_t stream, const ra_attention_plan *plan, const ra_attention *shape, const void *qkv,
                             const float *lse, const float *delta, const void *dout, void *dqkv)
{
    attention_call call = attention_call_of(shape);
    int bytes = shared_bytes(shape->head_dim, 4, 1), key_bytes = shared_bytes(shape->head_dim, 4, 2);
    RA_CUDA(cudaFuncSetAttribute(simple_query_gradient<A, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    RA_CUDA(cudaFuncSetAttribute(simple_key_gradient<A, C>, cudaFuncAttributeMaxDynamicSharedMemorySize, key_bytes));
    RA_LAUNCH((simple_query_gradient<A, C>), (unsigned)plan->tiles * (unsigned)(CUTS * call.heads), THREADS, bytes, stream, *plan,
              call, (const A *)qkv, lse, delta, (const A *)dout, (A *)dqkv);
    RA_LAUNCH((simple_key_gradient<A, C>), (unsigned)plan->tiles * (unsigned)(CUTS * call.kv_heads), THREADS, key_bytes, stream,
              *plan, call, (const A *)qkv, lse, delta, (const A *)dout, (A *)dqkv);
}

/* Calls launch<A, C>(...) with C * 32 >= head_dim; larger heads are a mistake of the caller's that a launch of nothing reports. */
#define LAUNCH_FOR(launch, a, head_dim, ...)                                                \
    do {                                                                                    \
        bool wide = (head_dim) > 64, wider = (head_dim) > 128, bf16 = (a) == RA_DTYPE_BF16; \
        if ((head_dim) > 256) RA_CUDA(cudaErrorInvalidValue);                               \
        if (bf16 && wider)                                                                  \
            launch<__nv_bfloat16, 8>(__VA_ARGS__);                                          \
        else if (bf16 && wide)                                                              \
            launch<__nv_bfloat16, 4>(__VA_ARGS__);                                          \
        else if (bf16)                                                                      \
            launch<__nv_bfloat16, 2>(__VA_ARGS__);                                          \
        else if (wider)                                                                     \
            launch<float, 8>(__VA_ARGS__);                                                  \
        else if (wide)                                                                      \
            launch<float, 4>(__VA_ARGS__);                                                  \
        else                                                                                \
            launch<float, 2>(__VA_ARGS__);                                                  \
    } while (0)

void attention_simple(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                      const ra_cached_prefix *prefix, const void *qkv, void *out, float *lse)
{
    LAUNCH_FOR(launch_forward, a, shape->head_dim, stream, plan, shape, prefix, qkv, out, lse);
}

void attention_simple_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                           const void *qkv, const float *lse, const float *delta, const void *dout, void *dqkv)
{
    LAUNCH_FOR(launch_gradients, a, shape->head_dim, stream, plan, shape, qkv, lse, delta, dout, dqkv);
}
