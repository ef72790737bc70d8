/* Reductions over the threads of a team (rows.h) and over partial sums of rows. The order of every sum depends on the shapes alone. */
#ifndef RA_CUDA_REDUCE_H
#define RA_CUDA_REDUCE_H
#include "rows.h"

/* Cells of shared memory that a team's reduction of M values needs. */
template <int TEAM, int M> constexpr int SCRATCH = (TEAM * M) / WARP;

/* x[m] <- sum over the team, on all its threads the same bits: a butterfly in each warp, then the warps in ascending order. All threads of the
 * block take part where a team is wider than a warp. */
template <int TEAM, int M> static __device__ __forceinline__ void team_sum(double (&x)[M], ra_shared_ptr<double> scratch)
{
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int distance = WARP / 2; distance > 0; distance /= 2) x[m] += __shfl_xor_sync(0xffffffffu, x[m], distance);
    }
    if constexpr (TEAM > WARP) {
        int warp = (int)threadIdx.x / WARP;
        __syncthreads(); /* the last reduction has been read */
        if (threadIdx.x % WARP == 0) {
            for (int m = 0; m < M; m++) scratch[m * (TEAM / WARP) + warp] = x[m];
        }
        __syncthreads();
#pragma unroll
        for (int m = 0; m < M; m++) {
            x[m] = 0;
            for (int i = 0; i < TEAM / WARP; i++) x[m] += scratch[m * (TEAM / WARP) + i];
        }
    }
}

/* The largest over the team; NaNs are left out. */
template <int TEAM> static __device__ __forceinline__ float team_max(float x, ra_shared_ptr<float> scratch)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    if constexpr (TEAM > WARP) {
        __syncthreads();
        if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
        __syncthreads();
        for (int i = 0; i < TEAM / WARP; i++) x = fmaxf(x, scratch[i]);
    }
    return x;
}

/* out[j] += sum over i of partial[i, j]: the second half of sums over rows. */
enum { FOLD_COLUMNS = 32, FOLD_SLICES = 8 };

static __global__ void __launch_bounds__(FOLD_COLUMNS *FOLD_SLICES)
    fold_kernel(int partials, int n, const float *partial, float *out)
{
    RA_SHARED(double, part, FOLD_COLUMNS *FOLD_SLICES);
    int column = (int)threadIdx.x % FOLD_COLUMNS, slice = (int)threadIdx.x / FOLD_COLUMNS;
    int j = (int)blockIdx.x * FOLD_COLUMNS + column;
    double sum = 0;
    if (j < n) {
#pragma unroll 4
        for (int i = slice; i < partials; i += FOLD_SLICES) sum += (double)partial[(int64_t)i * n + j];
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    if (slice > 0 || j >= n) return;
    for (int i = 1; i < FOLD_SLICES; i++) sum += part[i * FOLD_COLUMNS + column];
    out[j] = (float)((double)out[j] + sum);
}

static inline void launch_fold(cudaStream_t stream, int partials, int64_t n, const float *partial, float *out)
{
    RA_LAUNCH(fold_kernel, dim3((unsigned)((n + FOLD_COLUMNS - 1) / FOLD_COLUMNS)), dim3(FOLD_COLUMNS * FOLD_SLICES), 0, stream,
              partials, (int)n, partial, out);
}

#endif
