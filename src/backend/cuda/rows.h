/* What the row operators share: chunks of N elements moved at once, teams of threads that own a row, and the choice among a kernel's instances.
 *
 * N is WIDE<A> = 16 / sizeof(A) where a kernel stores type A and 4 where it stores R: stores are 16 bytes a thread and leave no gaps; N = 1 where a
 * pointer, a row length or a leading dimension rules that out. TEAM threads own a row of n columns: 32 up to 512 columns, 128 up to 2,048, 512 beyond,
 * so that a thread holds 16 values of rows up to 8,192 columns in registers. Rows run along the grid's x, which takes 2^31 - 1 blocks. */
#ifndef RA_CUDA_ROWS_H
#define RA_CUDA_ROWS_H
#include "kernel.h"
#include "kernels.h"

#include <type_traits>

template <class A> constexpr int WIDE = 16 / (int)sizeof(A);
enum { WARP = 32, WIDE_R = 4, MOST_TEAM = 512 };
enum { ELEMENT_BLOCK = 256, CHUNKS_EACH = 4 }; /* of kernels over flat arrays */

/* Threads of a block: a team of one warp shares its block with three others. */
template <int TEAM> constexpr int BLOCK = TEAM < 128 ? 128 : TEAM;

/* ---- chunks: one access of up to 16 bytes, two for 8 floats ---- */

template <class T, int N> struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) chunk {
    T v[N];
};
template <int N>
using bf16_pairs = chunk<unsigned, N / 2>; /* plain words: structs of __nv_bfloat162 are moved 4 bytes at a time */

template <int N> static __device__ __forceinline__ void load(const float *from, float (&x)[N])
{
    chunk<float, N> c = *(const chunk<float, N> *)from;
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = c.v[i];
}

template <int N> static __device__ __forceinline__ void load(const __nv_bfloat16 *from, float (&x)[N])
{
    if constexpr (N == 1) {
        x[0] = __bfloat162float(*from);
    } else {
        bf16_pairs<N> c = *(const bf16_pairs<N> *)from;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            x[2 * i] = __uint_as_float(c.v[i] << 16);
            x[2 * i + 1] = __uint_as_float(c.v[i] & 0xffff0000u);
        }
    }
}

template <int N> static __device__ __forceinline__ void store(float *to, const float (&x)[N])
{
    chunk<float, N> c;
#pragma unroll
    for (int i = 0; i < N; i++) c.v[i] = x[i];
    *(chunk<float, N> *)to = c;
}

template <int N> static __device__ __forceinline__ void store(__nv_bfloat16 *to, const float (&x)[N])
{
    if constexpr (N == 1) {
        *to = __float2bfloat16_rn(x[0]);
    } else {
        bf16_pairs<N> c;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
            memcpy(&c.v[i], &pair, sizeof pair);
        }
        *(bf16_pairs<N> *)to = c;
    }
}

/* May chunks of N elements of T be moved at `p` and at every multiple of `stride` elements from it? */
template <class T, int N> static inline bool fits(const void *p, int64_t stride)
{
    return (uintptr_t)p % alignof(chunk<T, N>) == 0 && stride % N == 0;
}

/* ---- flat arrays: op.run<N>(i) for chunks of N elements at i that cover [0, n) ---- */

template <int N, class OP> static __global__ void __launch_bounds__(ELEMENT_BLOCK) elements_kernel(int64_t n, OP op)
{
    int64_t begin = (int64_t)blockIdx.x * (ELEMENT_BLOCK * CHUNKS_EACH * N) + (int64_t)threadIdx.x * N;
#pragma unroll
    for (int k = 0; k < CHUNKS_EACH; k++) {
        int64_t i = begin + k * (ELEMENT_BLOCK * N);
        if (i + N <= n) {
            op.template run<N>(i);
        } else {
            for (; i < n; i++) op.template run<1>(i);
        }
    }
}

template <int N, class OP> static void launch_elements(cudaStream_t stream, int64_t n, bool wide, OP op)
{
    if (n <= 0) return;
    int64_t each = (int64_t)ELEMENT_BLOCK * CHUNKS_EACH * (wide ? N : 1), blocks = (n + each - 1) / each;
    if (wide) {
        RA_LAUNCH((elements_kernel<N, OP>), dim3((unsigned)blocks), dim3(ELEMENT_BLOCK), 0, stream, n, op);
    } else {
        RA_LAUNCH((elements_kernel<1, OP>), dim3((unsigned)blocks), dim3(ELEMENT_BLOCK), 0, stream, n, op);
    }
}

/* ---- rows ---- */

template <int TEAM> static __device__ __forceinline__ int64_t team_index()
{
    return (int64_t)blockIdx.x * (BLOCK<TEAM> / TEAM) + threadIdx.x / TEAM;
}

template <int TEAM> static __device__ __forceinline__ int team_lane()
{
    return (int)threadIdx.x % TEAM;
}

/* Blocks for so many teams. */
template <int TEAM> static inline dim3 team_grid(int64_t teams)
{
    return dim3((unsigned)((teams + BLOCK<TEAM> / TEAM - 1) / (BLOCK<TEAM> / TEAM)));
}

/* launch(integral constant TEAM) for rows of n columns. */
template <class F> static inline void with_team(int64_t n, F launch)
{
    if (n <= 512) {
        launch(std::integral_constant<int, WARP>());
    } else if (n <= 2048) {
        launch(std::integral_constant<int, 128>());
    } else {
        launch(std::integral_constant<int, MOST_TEAM>());
    }
}

/* launch(a value of type A) */
template <class F> static inline void with_type(ra_dtype a, F launch)
{
    if (a == RA_DTYPE_BF16) {
        launch(__nv_bfloat16());
    } else {
        launch(0.0f);
    }
}

/* op.run<N>(t, j) for chunks of N columns at j that cover row t. */
template <int N, int TEAM, class OP> static __global__ void __launch_bounds__(BLOCK<TEAM>) rows_kernel(int64_t rows, int n, OP op)
{
    int64_t t = team_index<TEAM>();
    if (t >= rows) return;
    for (int j = team_lane<TEAM>() * N; j < n; j += TEAM * N) op.template run<N>(t, j);
}

template <int N, class OP> static void launch_rows(cudaStream_t stream, int64_t rows, int64_t n, bool wide, OP op)
{
    if (rows <= 0 || n <= 0) return;
    with_team(n, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        if (wide) {
            RA_LAUNCH((rows_kernel<N, TEAM, OP>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)n, op);
        } else {
            RA_LAUNCH((rows_kernel<1, TEAM, OP>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)n, op);
        }
    });
}

/* x[row[i]] += scale y[i], ascending i, negative rows passed over; workspace as scatter_add_rows. gather.cu's. */
void ra_cuda_add_rows(cudaStream_t stream, int64_t n, int64_t h, const int32_t *row, float scale, const float *y, float *x,
                      void *workspace, size_t bytes);

#endif
