/* Adds up what the ranks of a reduce-scatter give, in ascending rank order: 4 bytes moved an element and rank, and 4 for the result. */
#include "rows.h"

namespace
{

struct sum_parts {
    int parts, mine; /* part `mine` is values itself */
    const float *part;
    int64_t stride;
    float *values;
    template <int N> __device__ void run(int64_t i) const
    {
        float own[N];
        double sum[N] = {0};
        load<N>(values + i, own);
        for (int r = 0; r < parts; r++) {
            float v[N];
            if (r != mine) load<N>(part + (r < mine ? r : r - 1) * stride + i, v);
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += (double)(r == mine ? own[k] : v[k]);
        }
#pragma unroll
        for (int k = 0; k < N; k++) own[k] = (float)sum[k];
        store<N>(values + i, own);
    }
};

} // namespace

void ra_cuda_sum_parts(cudaStream_t stream, int64_t n, int parts, int mine, const float *part, int64_t stride, float *values)
{
    bool wide = fits<float, WIDE_R>(part, stride) && fits<float, WIDE_R>(values, 0);
    launch_elements<WIDE_R>(stream, n, wide, sum_parts{parts, mine, part, stride, values});
}
