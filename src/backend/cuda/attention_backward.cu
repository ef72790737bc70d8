/* Gradients of attention in bf16 on tensor cores, for heads of 64, 128 and 256, without atomics and so the same bits each time. Two kernels make the
 * scores S = Q K^T and dP = dO V^T again: one takes a tile of queries over its keys for dQ, one a tile of keys over all queries that see it, head by
 * head of its group, for dK and dV. With P = exp(S - lse) and D = rowsum(dO o O):  dS = P (dP - D) cap'(S),  dQ = scale dS K,  dK = scale dS^T Q,
 * dV = P^T dO. In both, scores come out of a product in the layout in which the next takes them. */
#include "attention_number.h"
#include "attention_tiles.h"
#include "kernels.h"

typedef __nv_bfloat16 bf16;

/* ds = P (dP - D) cap' into dp and P into s, from scores in units of log 2 and dP: what does not see becomes 0. row_lse and row_delta give the two
 * constants, lse in units of log 2, of element i of column block n. */
template <int N, class W, class L>
static __device__ __forceinline__ void score_gradients(float (&s)[N][4], float (&dp)[N][4], const attention_call &call,
                                                       const W &walk, bool masked, int first_row, int first_column,
                                                       const L &constants)
{
    float slope = call.softcap > 0 ? 1 / (call.softcap * RA_LOG2E) : 0;
    attention_span seen[2] = {{0, 0}, {0, 0}};
    int lane = mma_lane();
    if (masked) {
        seen[0] = walk.seen_by(first_row + lane / 4);
        seen[1] = walk.seen_by(first_row + lane / 4 + 8);
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 lse_delta = constants.of(n, i);
            float tanh = s[n][i] * slope, p = mma_exp2(s[n][i] - lse_delta.x),
                  ds = p * (dp[n][i] - lse_delta.y) * (1 - tanh * tanh);
            int column = first_column + 8 * n + 2 * (lane % 4) + i % 2;
            bool sees = !masked || (column >= seen[i / 2].low && column < seen[i / 2].high);
            s[n][i] = sees ? p : 0;
            dp[n][i] = sees ? ds : 0;
        }
    }
}

/* lse and D side by side in shared memory, of a strip's rows or of the columns. */
struct row_constants {
    ra_shared_ptr<float2> first;
    __device__ __forceinline__ float2 of(int, int i) const
    {
        return first[mma_lane() / 4 + 8 * (i / 2)];
    }
};

struct column_constants {
    ra_shared_ptr<float2> first;
    __device__ __forceinline__ float2 of(int n, int i) const
    {
        return first[8 * n + 2 * (mma_lane() % 4) + i % 2];
    }
};

/* {lse in units of log 2, D} of a head's rows from `first` on, one a thread. */
static __device__ __forceinline__ void fetch_constants(ra_shared_ptr<float2> to, int rows, const attention_call &call, int head,
                                                       const float *lse, const float *delta, int first, int end)
{
    int row = threadIdx.x;
    if (row >= rows) return;
    int64_t i = (int64_t)(first + row) * call.heads + head;
    to[row] = first + row < end ? make_float2(lse[i] * RA_LOG2E, delta[i]) : make_float2(0, 0);
}

/* ---- dQ ---- */

enum { STAGES = 2 }; /* one is worked on while the other is copied in */

template <int D, int WARPS, int STRIPS, int KEYS> struct query_tiles {
    enum {
        ROWS = WARPS * STRIPS * 16,
        THREADS = WARPS * 32,
        STAGE = 2 * KEYS * D,
        CONSTANTS = 2 * ROWS * D + STAGES * STAGE, /* where they begin */
        SHARED_BYTES = CONSTANTS * 2 + ROWS * 8
    };
    static_assert((int)ROWS == (int)RA_ATTENTION_TILE && (int)ROWS <= (int)THREADS, "a block takes a whole tile of the plan");
};

template <int D, int KEYS, int THREADS>
static __device__ __forceinline__ void fetch_keys(ra_shared_ptr<bf16> stage, const key_walk<bf16, KEYS> &walk)
{
    tile_fetch<D, KEYS, THREADS>(stage, walk.k, walk.stride(), walk.at, walk.end);
    tile_fetch<D, KEYS, THREADS>(stage + KEYS * D, walk.v(), walk.stride(), walk.at, walk.end);
    mma_copy_commit();
}

template <int D, int WARPS, int STRIPS, int KEYS, int BLOCKS>
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    query_gradient(ra_attention_plan plan, attention_call call, const bf16 *qkv, const float *lse, const float *delta,
                   const bf16 *dout, bf16 *dqkv)
{
    typedef query_tiles<D, WARPS, STRIPS, KEYS> T;
    RA_DYNAMIC_SHARED(bf16, shared);
    ra_shared_ptr<bf16> q_tile = shared, do_tile = shared + T::ROWS * D, stages = do_tile + T::ROWS * D;
    ra_shared_ptr<float2> constants = ra_shared_cast<float2>(shared, T::CONSTANTS);
    int head = blockIdx.x % call.heads, kv = head / call.group;
    ra_attention_tile tile = plan.query[blockIdx.x / call.heads];
    int warp = threadIdx.x / 32;
    int first = tile.row + warp * STRIPS * 16;

    const attention_prefix<bf16> none = {NULL, 0, 0, NULL, NULL};
    key_walk<bf16, KEYS> walk(plan, call, none, qkv, kv, tile);
    tile_fetch<D, T::ROWS, T::THREADS>(q_tile, qkv + (int64_t)head * D, call.width, tile.row, tile.end);
    tile_fetch<D, T::ROWS, T::THREADS>(do_tile, dout + (int64_t)head * D, (int64_t)call.heads * D, tile.row, tile.end);
    fetch_keys<D, KEYS, T::THREADS>(stages, walk);
    fetch_constants(constants, T::ROWS, call, head, lse, delta, tile.row, tile.end);
    ra_shared_ptr<bf16> own_q = q_tile + warp * STRIPS * 16 * D, own_do = do_tile + warp * STRIPS * 16 * D;
    float dq[STRIPS][D / 8][4];
    clear_sums(dq);
    int stage = 0;
    while (walk.live()) {
        key_walk<bf16, KEYS> now = walk;
        ra_shared_ptr<bf16> k_tile = stages + stage * T::STAGE, v_tile = k_tile + KEYS * D;
        walk.advance();
        mma_copy_wait();
        __syncthreads(); /* this stage is here, and every warp has left the other */
        stage = (stage + 1) % STAGES;
        if (walk.live()) fetch_keys<D, KEYS, T::THREADS>(stages + stage * T::STAGE, walk);
        int last = min(first + STRIPS * 16, tile.end) - 1;
        if (first > last || attention_none(now, first, last, KEYS)) continue;
        float s[STRIPS][KEYS / 8][4], dp[STRIPS][KEYS / 8][4];
        uint32_t ds[STRIPS][KEYS / 16][4];
        clear_sums(s);
        clear_sums(dp);
        tile_product_rows<D, STRIPS, KEYS>(s, own_q, k_tile);
        tile_product_rows<D, STRIPS, KEYS>(dp, own_do, v_tile);
        bool masked = !attention_all(now, first, last, KEYS);
#pragma unroll
        for (int i = 0; i < STRIPS; i++) {
            row_constants of_rows = {constants + (warp * STRIPS + i) * 16};
            scale_scores(s[i], call);
            score_gradients(s[i], dp[i], call, now, masked, first + 16 * i, 0, of_rows);
            tile_round<KEYS>(ds[i], dp[i]);
        }
        tile_product_add<D, STRIPS, KEYS>(dq, ds, k_tile);
    }
    const float scale[2] = {call.scale, call.scale};
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
        int row = first + 16 * s;
        tile_store<D>(dq[s], scale, own_q + 16 * s * D, dqkv + row * call.width + (int64_t)head * D, call.width, tile.end - row);
    }
}

/* ---- dK and dV ---- */

enum { DV = 1, DK = 2 };

/* SPLIT = 2: two warps share 16 keys and each takes half of the queries; their sums are added at the end. */
template <int D, int WARPS, int SPLIT, int STRIPS, int QUERIES> struct key_tiles {
    enum {
        GROUPS = WARPS / SPLIT,
        KEYS = GROUPS * STRIPS * 16,
        CUTS = RA_ATTENTION_TILE / KEYS, /* blocks that share a tile of the plan */
        THREADS = WARPS * 32,
        COLUMNS = QUERIES / SPLIT, /* of a warp */
        STAGE = 2 * QUERIES * D,
        CONSTANTS = 2 * KEYS * D + STAGES * STAGE, /* where they begin */
        SHARED_BYTES = CONSTANTS * 2 + STAGES * QUERIES * 8
    };
    static_assert(SPLIT == 1 || GROUPS * STRIPS * 16 * D * 4 <= CONSTANTS * 2, "room for one warp's sums of each pair");
};

template <int D, int WARPS, int SPLIT, int STRIPS, int QUERIES>
static __device__ __forceinline__ void fetch_queries(ra_shared_ptr<bf16> shared, int stage, const query_walk<QUERIES> &walk,
                                                     const attention_call &call, const bf16 *qkv, const float *lse,
                                                     const float *delta, const bf16 *dout)
{
    typedef key_tiles<D, WARPS, SPLIT, STRIPS, QUERIES> T;
    ra_shared_ptr<bf16> q_tile = shared + 2 * T::KEYS * D + stage * T::STAGE;
    tile_fetch<D, QUERIES, T::THREADS>(q_tile, qkv + (int64_t)walk.head * D, call.width, walk.at, walk.end);
    tile_fetch<D, QUERIES, T::THREADS>(q_tile + QUERIES * D, dout + (int64_t)walk.head * D, (int64_t)call.heads * D, walk.at,
                                       walk.end);
    mma_copy_commit();
    fetch_constants(ra_shared_cast<float2>(shared, T::CONSTANTS) + stage * QUERIES, QUERIES, call, walk.head, lse, delta, walk.at,
                    walk.end);
}

/* Adds what the second warp of each pair has summed to the first one's. */
template <int D, int WARPS, int STRIPS>
static __device__ __forceinline__ void add_halves(float (&c)[STRIPS][D / 8][4], ra_shared_ptr<bf16> shared)
{
    int pair = threadIdx.x / 32 % (WARPS / 2), lane = threadIdx.x % 32;
    bool second = threadIdx.x / 32 >= WARPS / 2;
    ra_shared_ptr<float4> sums = ra_shared_cast<float4>(shared, 0) + (pair * STRIPS * (D / 8) * 32 + lane);
    __syncthreads();
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (second) sums[(s * (D / 8) + n) * 32] = make_float4(c[s][n][0], c[s][n][1], c[s][n][2], c[s][n][3]);
        }
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            if (second) continue;
            float4 other = sums[(s * (D / 8) + n) * 32];
            c[s][n][0] += other.x;
            c[s][n][1] += other.y;
            c[s][n][2] += other.z;
            c[s][n][3] += other.w;
        }
    }
    __syncthreads();
}

template <int D, int WARPS, int SPLIT, int STRIPS, int QUERIES, int PARTS, int BLOCKS>
__global__ void __launch_bounds__(WARPS * 32, BLOCKS)
    key_gradient(ra_attention_plan plan, attention_call call, const bf16 *qkv, const float *lse, const float *delta,
                 const bf16 *dout, bf16 *dqkv)
{
    typedef key_tiles<D, WARPS, SPLIT, STRIPS, QUERIES> T;
    RA_DYNAMIC_SHARED(bf16, shared);
    int kv = blockIdx.x % call.kv_heads, part = blockIdx.x / call.kv_heads;
    ra_attention_tile tile = plan.key[part / T::CUTS];
    tile.row += part % T::CUTS * T::KEYS;
    if (tile.row >= tile.end) return;
    tile.end = min(tile.end, tile.row + T::KEYS);
    int warp = threadIdx.x / 32, group = warp % T::GROUPS, half = warp / T::GROUPS;
    int first = tile.row + group * STRIPS * 16, last = min(first + STRIPS * 16, tile.end) - 1;
    int64_t k_at = (int64_t)(call.heads + kv) * D, v_at = k_at + (int64_t)call.kv_heads * D;

    query_walk<QUERIES> walk(plan, call, kv, tile);
    tile_fetch<D, T::KEYS, T::THREADS>(shared, qkv + k_at, call.width, tile.row, tile.end);
    if (PARTS & DK) tile_fetch<D, T::KEYS, T::THREADS>(shared + T::KEYS * D, qkv + v_at, call.width, tile.row, tile.end);
    fetch_queries<D, WARPS, SPLIT, STRIPS, QUERIES>(shared, 0, walk, call, qkv, lse, delta, dout);
    ra_shared_ptr<bf16> own_k = shared + group * STRIPS * 16 * D, own_v = own_k + T::KEYS * D;
    float dk[STRIPS][D / 8][4], dv[STRIPS][D / 8][4];
    clear_sums(dk);
    clear_sums(dv);
    int stage = 0;
    while (walk.live()) {
        query_walk<QUERIES> now = walk;
        ra_shared_ptr<bf16> q_tile = shared + 2 * T::KEYS * D + stage * T::STAGE + half * T::COLUMNS * D,
                            do_tile = q_tile + QUERIES * D;
        column_constants constants = {ra_shared_cast<float2>(shared, T::CONSTANTS) + (stage * QUERIES + half * T::COLUMNS)};
        walk.advance();
        mma_copy_wait();
        __syncthreads(); /* this stage is here, and every warp has left the other */
        stage = (stage + 1) % STAGES;
        if (walk.live()) fetch_queries<D, WARPS, SPLIT, STRIPS, QUERIES>(shared, stage, walk, call, qkv, lse, delta, dout);
        if (first > last || attention_none(now, first, last, QUERIES)) continue;
        float s[STRIPS][T::COLUMNS / 8][4], dp[STRIPS][T::COLUMNS / 8][4];
        uint32_t rounded[STRIPS][T::COLUMNS / 16][4];
        clear_sums(s);
        clear_sums(dp);
        tile_product_rows<D, STRIPS, T::COLUMNS>(s, own_k, q_tile);
        if (PARTS & DK) tile_product_rows<D, STRIPS, T::COLUMNS>(dp, own_v, do_tile);
        bool masked = !attention_all(now, first, last, QUERIES);
#pragma unroll
        for (int i = 0; i < STRIPS; i++) {
            scale_scores(s[i], call);
            score_gradients(s[i], dp[i], call, now, masked, first + 16 * i, half * T::COLUMNS, constants);
            tile_round<T::COLUMNS>(rounded[i], s[i]);
        }
        if (PARTS & DV) tile_product_add<D, STRIPS, T::COLUMNS>(dv, rounded, do_tile);
#pragma unroll
        for (int i = 0; i < STRIPS; i++) tile_round<T::COLUMNS>(rounded[i], dp[i]);
        if (PARTS & DK) tile_product_add<D, STRIPS, T::COLUMNS>(dk, rounded, q_tile);
    }
    if (SPLIT == 2 && (PARTS & DV)) add_halves<D, WARPS, STRIPS>(dv, shared);
    if (SPLIT == 2 && (PARTS & DK)) add_halves<D, WARPS, STRIPS>(dk, shared);
    if (half > 0) return;
    const float one[2] = {1, 1}, scale[2] = {call.scale, call.scale};
#pragma unroll
    for (int s = 0; s < STRIPS; s++) {
        int row = first + 16 * s;
        ra_shared_ptr<bf16> place = own_k + 16 * s * D;
        bf16 *to = dqkv + row * call.width;
        if (PARTS & DV) tile_store<D>(dv[s], one, place, to + v_at, call.width, tile.end - row);
        if (PARTS & DK) tile_store<D>(dk[s], scale, place, to + k_at, call.width, tile.end - row);
    }
}

/* ---- D = rowsum(dO o O): a warp for a head of a row ---- */

template <class A> __global__ void row_products(int64_t n, int head_dim, const A *out, const A *dout, float *delta)
{
    int64_t i = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (i >= n) return; /* whole warps */
    float sum = 0;
    for (int j = threadIdx.x % 32; j < head_dim; j += 32)
        sum += as_float(out[i * head_dim + j]) * as_float(dout[i * head_dim + j]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[i] = sum;
}

/* ---- launchers ---- */

template <int D, int WARPS, int STRIPS, int KEYS, int BLOCKS>
static void launch_queries(cudaStream_t stream, const ra_attention_plan *plan, const attention_call &call, const bf16 *qkv,
                           const float *lse, const float *delta, const bf16 *dout, bf16 *dqkv)
{
    typedef query_tiles<D, WARPS, STRIPS, KEYS> T;
    RA_CUDA(cudaFuncSetAttribute(query_gradient<D, WARPS, STRIPS, KEYS, BLOCKS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 T::SHARED_BYTES));
    RA_LAUNCH((query_gradient<D, WARPS, STRIPS, KEYS, BLOCKS>), (unsigned)plan->tiles * (unsigned)call.heads, T::THREADS,
              T::SHARED_BYTES, stream, *plan, call, qkv, lse, delta, dout, dqkv);
}

template <int D, int WARPS, int SPLIT, int STRIPS, int QUERIES, int PARTS, int BLOCKS>
static void launch_keys(cudaStream_t stream, const ra_attention_plan *plan, const attention_call &call, const bf16 *qkv,
                        const float *lse, const float *delta, const bf16 *dout, bf16 *dqkv)
{
    typedef key_tiles<D, WARPS, SPLIT, STRIPS, QUERIES> T;
    RA_CUDA(cudaFuncSetAttribute(key_gradient<D, WARPS, SPLIT, STRIPS, QUERIES, PARTS, BLOCKS>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, T::SHARED_BYTES));
    RA_LAUNCH((key_gradient<D, WARPS, SPLIT, STRIPS, QUERIES, PARTS, BLOCKS>),
              (unsigned)plan->tiles * (unsigned)(T::CUTS * call.kv_heads), T::THREADS, T::SHARED_BYTES, stream, *plan, call, qkv,
              lse, delta, dout, dqkv);
}

size_t ra_cuda_attention_grad_workspace(int32_t rows, const ra_attention *shape)
{
    return (size_t)rows * (size_t)shape->heads * sizeof(float);
}

static bool aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

void ra_cuda_attention_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, int32_t rows,
                            const ra_attention *shape, const void *qkv, const void *out, const void *lse, const void *dout,
                            void *dqkv, void *workspace, size_t bytes)
{
    if (plan->tiles == 0) return;
    ra_cuda_check_workspace("attention_grad", bytes, ra_cuda_attention_grad_workspace(rows, shape));
    enum { WARPS = 8 };
    int64_t n = (int64_t)rows * shape->heads;
    unsigned blocks = (unsigned)((n + WARPS - 1) / WARPS);
    float *delta = (float *)workspace;
    const float *l = (const float *)lse;
    if (a == RA_DTYPE_BF16)
        RA_LAUNCH((row_products<bf16>), blocks, WARPS * 32, 0, stream, n, shape->head_dim, (const bf16 *)out, (const bf16 *)dout,
                  delta);
    else
        RA_LAUNCH((row_products<float>), blocks, WARPS * 32, 0, stream, n, shape->head_dim, (const float *)out,
                  (const float *)dout, delta);
    if (!attention_has_tiles(a, shape->head_dim) || !aligned(qkv) || !aligned(dout) || !aligned(dqkv)) {
        attention_simple_grad(stream, a, plan, shape, qkv, l, delta, dout, dqkv);
        return;
    }
    attention_call call = attention_call_of(shape);
    const bf16 *x = (const bf16 *)qkv, *dy = (const bf16 *)dout;
    bf16 *dx = (bf16 *)dqkv;
    switch (shape->head_dim) {
    case 64:
        launch_queries<64, 4, 2, 32, 2>(stream, plan, call, x, l, delta, dy, dx);
        launch_keys<64, 4, 1, 1, 32, DK | DV, 3>(stream, plan, call, x, l, delta, dy, dx);
        break;
    case 128:
        launch_queries<128, 4, 2, 32, 2>(stream, plan, call, x, l, delta, dy, dx);
        launch_keys<128, 4, 1, 1, 32, DK | DV, 2>(stream, plan, call, x, l, delta, dy, dx);
        break;
    case 256: /* dK and dV of 16 keys do not fit into a warp's registers together */
        launch_queries<256, 8, 1, 16, 1>(stream, plan, call, x, l, delta, dy, dx);
        launch_keys<256, 8, 2, 1, 32, DV, 1>(stream, plan, call, x, l, delta, dy, dx);
        launch_keys<256, 8, 2, 1, 32, DK, 1>(stream, plan, call, x, l, delta, dy, dx);
        break;
    }
}
