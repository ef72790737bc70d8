/* Attention of one new token a sequence to its cache, and storing into it. Reading the cache is all the work: a block takes CHUNK keys of one key head for
 * all query heads that share it, LANES lanes a key with 16 bytes each. Chunks lie at fixed keys and are added up in their order, so that a row's
 * bits depend on its own sequence alone. */
#include "attention.h"
#include "attention_number.h"
#include "kernels.h"

enum { CHUNK = 256, WARPS = 4, THREADS = WARPS * 32, UNROLL = 4 };

/* VEC neighbouring elements as they are read. */
template <class A, int VEC> struct packet {
    A x;
    __device__ __forceinline__ void read(const A *from)
    {
        x = *from;
    }
    __device__ __forceinline__ float at(int) const
    {
        return as_float(x);
    }
};
template <> struct packet<float, 4> {
    float4 x;
    __device__ __forceinline__ void read(const float *from)
    {
        x = *(const float4 *)from;
    }
    __device__ __forceinline__ float at(int i) const
    {
        return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
    }
};
template <> struct packet<__nv_bfloat16, 8> {
    uint4 x;
    __device__ __forceinline__ void read(const __nv_bfloat16 *from)
    {
        x = *(const uint4 *)from;
    }
    __device__ __forceinline__ float at(int i) const
    {
        uint32_t pair = i / 2 == 0 ? x.x : i / 2 == 1 ? x.y : i / 2 == 2 ? x.z : x.w;
        return __uint_as_float(i % 2 ? pair & 0xffff0000u : pair << 16);
    }
};

struct cache_of {
    int64_t ldq, slot_stride, value_offset;
    const int32_t *slot, *length;
};

/* First key that a sequence's new token sees. */
static __device__ __forceinline__ int first_seen(const attention_call &call, int length)
{
    return call.window && length > call.window ? length - call.window : 0;
}

/* Softmax over some of the keys: maximum, sum, and the values' sum, of one query head. Adding another part rescales both to the larger maximum. */
static __device__ __forceinline__ void rescale(float &maximum, float other, float &mine, float &theirs)
{
    float highest = fmaxf(maximum, other), base = highest == -INFINITY ? 0 : highest;
    mine = expf(maximum - base);
    theirs = expf(other - base);
    maximum = highest;
}

/* GROUP query heads at a time. A lane has N packets of a key: elements (i * LANES + its number) * VEC onwards. */
template <class A, int VEC, int LANES, int N, int GROUP>
__global__ void __launch_bounds__(THREADS)
    cached_kernel(attention_call call, cache_of c, const A *q, const A *cache, A *out, float *space, int parts, int chunks)
{
    enum { KEYS = 32 / LANES, STEP = WARPS * KEYS * UNROLL };
    RA_SHARED(float, sums, WARPS *GROUP * 256);
    RA_SHARED(float, weights, WARPS *GROUP * 2); /* maximum, sum */
    int head_dim = call.head_dim, part = blockIdx.x % parts, kv = blockIdx.x / parts % call.kv_heads;
    int64_t row = blockIdx.x / parts / call.kv_heads;
    int first_head = kv * call.group + part * GROUP, heads = min((int)GROUP, call.group - part * GROUP);
    int length = c.length[row], chunk = blockIdx.y;
    int begin = max(chunk * CHUNK, first_seen(call, length)), end = min((chunk + 1) * CHUNK, length);
    if (begin >= end) { /* the whole block */
        if (length <= 0 && chunks == 1)
            for (int i = threadIdx.x; i < heads * head_dim; i += THREADS)
                set_float(out + (row * call.heads + first_head) * head_dim + i, 0);
        return;
    }
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = lane % LANES * VEC;
    int64_t width = (int64_t)call.kv_heads * head_dim;
    const A *k = cache + c.slot[row] * c.slot_stride + (int64_t)kv * head_dim;

    float query[GROUP][N][VEC], o[GROUP][N][VEC], maximum[GROUP], sum[GROUP];
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
        maximum[h] = -INFINITY;
        sum[h] = 0;
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                int element = n * LANES * VEC + mine + i;
                query[h][n][i] =
                    h < heads && element < head_dim ? as_float(q[row * c.ldq + (first_head + h) * head_dim + element]) : 0;
                o[h][n][i] = 0;
            }
        }
    }
    for (int at = begin; at < end; at += STEP) {
        packet<A, VEC> key[UNROLL][N], value[UNROLL][N];
        float s[UNROLL][GROUP];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            int j = min(at + (u * WARPS + warp) * KEYS + lane / LANES, end - 1);
#pragma unroll
            for (int n = 0; n < N; n++) {
                int element = n * LANES * VEC + mine;
                if (element >= head_dim) element = 0;
                key[u][n].read(k + j * width + element);
                value[u][n].read(k + j * width + c.value_offset + element);
            }
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            bool sees = at + (u * WARPS + warp) * KEYS + lane / LANES < end;
#pragma unroll
            for (int h = 0; h < GROUP; h++) {
                float x = 0;
#pragma unroll
                for (int n = 0; n < N; n++) {
#pragma unroll
                    for (int i = 0; i < VEC; i++) x += query[h][n][i] * key[u][n].at(i);
                }
#pragma unroll
                for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
                x *= call.scale;
                if (call.softcap > 0) x = call.softcap * tanhf(x / call.softcap);
                s[u][h] = sees ? x : -INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < GROUP; h++) {
            float highest = s[0][h];
#pragma unroll
            for (int u = 1; u < UNROLL; u++) highest = fmaxf(highest, s[u][h]);
            float old, unused;
            rescale(maximum[h], highest, old, unused);
            float base = maximum[h] == -INFINITY ? 0 : maximum[h];
            sum[h] *= old;
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int i = 0; i < VEC; i++) o[h][n][i] *= old;
            }
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                float p = expf(s[u][h] - base);
                sum[h] += p;
#pragma unroll
                for (int n = 0; n < N; n++) {
#pragma unroll
                    for (int i = 0; i < VEC; i++) o[h][n][i] += p * value[u][n].at(i);
                }
            }
        }
    }
    /* the keys of a warp, then the warps */
#pragma unroll
    for (int h = 0; h < GROUP; h++) {
#pragma unroll
        for (int step = LANES; step < 32; step *= 2) {
            float mine_by, theirs_by, other = __shfl_xor_sync(0xffffffffu, maximum[h], step);
            rescale(maximum[h], other, mine_by, theirs_by);
            sum[h] = sum[h] * mine_by + __shfl_xor_sync(0xffffffffu, sum[h], step) * theirs_by;
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int i = 0; i < VEC; i++)
                    o[h][n][i] = o[h][n][i] * mine_by + __shfl_xor_sync(0xffffffffu, o[h][n][i], step) * theirs_by;
            }
        }
        if (lane == 0) {
            weights[(warp * GROUP + h) * 2] = maximum[h];
            weights[(warp * GROUP + h) * 2 + 1] = sum[h];
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < VEC; i++) {
                int element = n * LANES * VEC + mine + i;
                if (lane < LANES && element < head_dim) sums[(warp * GROUP + h) * 256 + element] = o[h][n][i];
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * head_dim; i += THREADS) {
        int h = i / head_dim, element = i % head_dim;
        float most = -INFINITY, total = 0, y = 0;
        for (int w = 0; w < WARPS; w++) {
            float mine_by, theirs_by;
            rescale(most, weights[(w * GROUP + h) * 2], mine_by, theirs_by);
            total = total * mine_by + weights[(w * GROUP + h) * 2 + 1] * theirs_by;
            y = y * mine_by + sums[(w * GROUP + h) * 256 + element] * theirs_by;
        }
        int64_t head = row * call.heads + first_head + h;
        if (chunks == 1) {
            set_float(out + head * head_dim + element, y / total);
            continue;
        }
        float *to = space + (head * chunks + chunk) * (head_dim + 2);
        to[2 + element] = y;
        if (element == 0) {
            to[0] = most;
            to[1] = total;
        }
    }
}

/* The chunks of one head of a row in their order; zeros where the row sees no key. */
template <class A> __global__ void add_chunks(attention_call call, const int32_t *length, const float *space, A *out, int chunks)
{
    int64_t head = blockIdx.x;
    int keys = length[head / call.heads], first = first_seen(call, keys) / CHUNK, last = keys > 0 ? (keys - 1) / CHUNK : -1;
    const float *from = space + head * chunks * (call.head_dim + 2);
    for (int element = threadIdx.x; element < call.head_dim; element += blockDim.x) {
        float most = -INFINITY, total = 0, y = 0;
        for (int i = first; i <= last; i++) {
            const float *chunk = from + (int64_t)i * (call.head_dim + 2);
            float mine_by, theirs_by;
            rescale(most, chunk[0], mine_by, theirs_by);
            total = total * mine_by + chunk[1] * theirs_by;
            y = y * mine_by + chunk[2 + element] * theirs_by;
        }
        set_float(out + head * call.head_dim + element, keys > 0 ? y / total : 0);
    }
}

/* Row blockIdx.x: its keys and values, n elements of type T each. */
template <class T>
__global__ void store_kernel(int64_t n, const T *k, int64_t ldq, const int32_t *slot, const int32_t *position, T *cache,
                             int64_t slot_stride, int64_t value_offset)
{
    int64_t row = blockIdx.x;
    if (slot[row] < 0) return;
    const T *from = k + row * ldq;
    T *to = cache + slot[row] * slot_stride + position[row] * n;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        to[i] = from[i];
        to[value_offset + i] = from[n + i];
    }
}

/* ---- launchers ---- */

static int chunks_of(const ra_attention *shape, int64_t value_offset)
{
    int64_t positions = value_offset / ((int64_t)shape->kv_heads * shape->head_dim);
    return positions <= CHUNK ? 1 : (int)((positions + CHUNK - 1) / CHUNK);
}

size_t ra_cuda_attention_cached_workspace(int32_t rows, const ra_attention *shape, int64_t value_offset)
{
    int chunks = chunks_of(shape, value_offset);
    return chunks <= 1 ? 0 : (size_t)rows * (size_t)shape->heads * (size_t)chunks * (size_t)(shape->head_dim + 2) * sizeof(float);
}

struct cached_arguments {
    cudaStream_t stream;
    int32_t rows;
    const ra_attention *shape;
    cache_of cache;
    const void *q, *memory;
    void *out;
    float *space;
    int chunks;
};

template <class A, int VEC, int LANES, int N, int GROUP> static void launch(const cached_arguments &x)
{
    attention_call call = attention_call_of(x.shape);
    int parts = (call.group + GROUP - 1) / GROUP;
    dim3 grid((unsigned)x.rows * (unsigned)(call.kv_heads * parts), (unsigned)x.chunks);
    RA_LAUNCH((cached_kernel<A, VEC, LANES, N, GROUP>), grid, THREADS, 0, x.stream, call, x.cache, (const A *)x.q,
              (const A *)x.memory, (A *)x.out, x.space, parts, x.chunks);
    if (x.chunks > 1)
        RA_LAUNCH((add_chunks<A>), (unsigned)x.rows * (unsigned)call.heads, 64, 0, x.stream, call, x.cache.length, x.space,
                  (A *)x.out, x.chunks);
}

template <class A, int VEC, int LANES, int N> static void launch_group(const cached_arguments &x)
{
    int group = x.shape->heads / x.shape->kv_heads;
    if (group == 1)
        launch<A, VEC, LANES, N, 1>(x);
    else if (group <= 4)
        launch<A, VEC, LANES, N, 4>(x);
    else
        launch<A, VEC, LANES, N, 8>(x);
}

static bool in_packets(const void *memory, int64_t packet, int64_t head_dim, int64_t slot_stride, int64_t value_offset)
{
    return (uintptr_t)memory % 16 == 0 && head_dim % packet == 0 && slot_stride % packet == 0 && value_offset % packet == 0;
}

void ra_cuda_attention_cached(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *q,
                              int64_t ldq, const void *cache, int64_t slot_stride, int64_t value_offset, const int32_t *slot,
                              const int32_t *length, void *out, void *workspace, size_t bytes)
{
    if (rows == 0) return;
    ra_cuda_check_workspace("attention_cached", bytes, ra_cuda_attention_cached_workspace(rows, shape, value_offset));
    bool bf16 = a == RA_DTYPE_BF16;
    int d = shape->head_dim, packet = bf16 ? 8 : 4;
    if (d > 256) RA_CUDA(cudaErrorInvalidValue);
    cached_arguments x = {stream,
                          rows,
                          shape,
                          {ldq, slot_stride, value_offset, slot, length},
                          q,
                          cache,
                          out,
                          (float *)workspace,
                          chunks_of(shape, value_offset)};
    bool whole = in_packets(cache, packet, d, slot_stride, value_offset);
    if (bf16 && !whole)
        launch_group<__nv_bfloat16, 1, 32, 8>(x);
    else if (bf16 && d > 128)
        launch_group<__nv_bfloat16, 8, 32, 1>(x);
    else if (bf16 && d > 64)
        launch_group<__nv_bfloat16, 8, 16, 1>(x);
    else if (bf16)
        launch_group<__nv_bfloat16, 8, 8, 1>(x);
    else if (!whole)
        launch_group<float, 1, 32, 8>(x);
    else if (d > 128)
        launch_group<float, 4, 32, 2>(x);
    else if (d > 64)
        launch_group<float, 4, 32, 1>(x);
    else
        launch_group<float, 4, 16, 1>(x);
}

template <class T>
static void store(cudaStream_t stream, int32_t rows, int64_t n, int64_t size, const void *k, int64_t ldq, const int32_t *slot,
                  const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset)
{
    int64_t per = (int64_t)sizeof(T) / size; /* elements */
    RA_LAUNCH((store_kernel<T>), (unsigned)rows, 128, 0, stream, n / per, (const T *)k, ldq / per, slot, position, (T *)cache,
              slot_stride / per, value_offset / per);
}

void ra_cuda_cache_store(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *qkv, int64_t ldq,
                         const int32_t *slot, const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset)
{
    if (rows == 0) return;
    bool bf16 = a == RA_DTYPE_BF16;
    int64_t size = bf16 ? 2 : 4, n = (int64_t)shape->kv_heads * shape->head_dim, packet = 16 / size;
    const char *k = (const char *)qkv + (int64_t)shape->heads * shape->head_dim * size;
    if (in_packets(cache, packet, n, slot_stride, value_offset) && (uintptr_t)k % 16 == 0 && ldq % packet == 0)
        store<uint4>(stream, rows, n, size, k, ldq, slot, position, cache, slot_stride, value_offset);
    else if (bf16)
        store<__nv_bfloat16>(stream, rows, n, size, k, ldq, slot, position, cache, slot_stride, value_offset);
    else
        store<float>(stream, rows, n, size, k, ldq, slot, position, cache, slot_stride, value_offset);
}
