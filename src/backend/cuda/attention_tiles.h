/* Scores of a strip of 16 rows in registers, as mma.h leaves them: what the tensor-core kernels do to them. */
#ifndef RA_BACKEND_CUDA_ATTENTION_TILES_H
#define RA_BACKEND_CUDA_ATTENTION_TILES_H
#include "attention.h"
#include "mma.h"

template <int N, int M> static __device__ __forceinline__ void clear_sums(float (&c)[N][M][4])
{
#pragma unroll
    for (int s = 0; s < N; s++) {
#pragma unroll
        for (int n = 0; n < M; n++) c[s][n][0] = c[s][n][1] = c[s][n][2] = c[s][n][3] = 0;
    }
}

/* Raw products to scores in units of log 2. */
template <int N> static __device__ __forceinline__ void scale_scores(float (&s)[N][4], const attention_call &call)
{
    if (call.softcap > 0) {
        float in = call.scale * 2 * RA_LOG2E / call.softcap, out = call.softcap * RA_LOG2E;
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s[n][i] = out * (1 - __fdividef(2, 1 + mma_exp2(s[n][i] * in))); /* tanh */
        }
        return;
    }
    float scale = call.scale * RA_LOG2E;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) s[n][i] *= scale;
    }
}

/* -inf where rows g and g + 8 do not see; column 0 of s is `first_column` of the tile. */
template <int N, class W>
static __device__ __forceinline__ void mask_scores(float (&s)[N][4], const W &walk, int first_row, int first_column)
{
    int lane = mma_lane();
    attention_span seen[2] = {walk.seen_by(first_row + lane / 4), walk.seen_by(first_row + lane / 4 + 8)};
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = first_column + 8 * n + 2 * (lane % 4) + i % 2;
            if (column < seen[i / 2].low || column >= seen[i / 2].high) s[n][i] = -INFINITY;
        }
    }
}

#endif
