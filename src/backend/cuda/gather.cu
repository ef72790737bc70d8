/* Rows picked by an index. gather_rows moves 8 bytes an element, scatter_add_rows 4 and 8 an element of a distinct row.
 *
 * Rows with one target are added in ascending order, without atomics: each index finds its place in the stable sorted order by counting the indices
 * that go before it, and one team then adds up each run of equal ones. Counting compares every pair once, in shared memory: rows^2 comparisons,
 * by an H100's instruction rate 0.4 ms at 65,536 rows and 20 us at 8,192, which occupy 32 of its processors. A run's rows are added one after the other by a single team, which
 * pays a memory latency for RUN_AHEAD of them. */
#include "rows.h"

namespace
{

enum { ORDER_BLOCK = 256, RUN_AHEAD = 4 };

struct gather {
    const int32_t *row;
    const float *x;
    float *y;
    int64_t h;
    template <int N> __device__ void run(int64_t i, int j) const
    {
        float v[N];
        load<N>(x + row[i] * h + j, v);
        store<N>(y + i * h + j, v);
    }
};

/* order[k], sorted[k]: the k-th index in ascending order of (row[i], i), and its row */
__global__ void __launch_bounds__(ORDER_BLOCK) order_kernel(int n, const int32_t *row, int32_t *order, int32_t *sorted)
{
    RA_SHARED(int32_t, tile, ORDER_BLOCK);
    int lane = (int)threadIdx.x, i = (int)blockIdx.x * ORDER_BLOCK + lane;
    int32_t mine = i < n ? row[i] : 0;
    int before = 0;
    for (int base = 0; base < n; base += ORDER_BLOCK) {
        __syncthreads();
        if (base + lane < n) tile[lane] = row[base + lane];
        __syncthreads();
        int length = min(n - base, (int)ORDER_BLOCK);
        if (base + ORDER_BLOCK <= (int)blockIdx.x * ORDER_BLOCK) { /* all of them stand before i */
#pragma unroll 8
            for (int k = 0; k < ORDER_BLOCK; k++) before += tile[k] <= mine;
        } else {
            for (int k = 0; k < length; k++) {
                int32_t theirs = tile[k];
                before += theirs < mine || (theirs == mine && base + k < i);
            }
        }
    }
    if (i >= n) return;
    order[before] = i;
    sorted[before] = mine;
}

/* Team k adds up the run that begins at place k, if one does. */
template <int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>)
    add_runs_kernel(int n, int h, const int32_t *order, const int32_t *sorted, float scale, const float *y, float *x)
{
    int k = (int)team_index<TEAM>();
    if (k >= n) return;
    int32_t target = sorted[k];
    if (target < 0 || (k > 0 && sorted[k - 1] == target)) return;
    int end = k + 1;
    while (end < n && sorted[end] == target) end++;
    for (int j = team_lane<TEAM>() * N; j < h; j += TEAM * N) {
        float *to = x + (int64_t)target * h + j, sum[N];
        load<N>(to, sum);
        int i = k;
        for (; i + RUN_AHEAD <= end; i += RUN_AHEAD) {
            float v[RUN_AHEAD][N];
#pragma unroll
            for (int r = 0; r < RUN_AHEAD; r++) load<N>(y + (int64_t)order[i + r] * h + j, v[r]);
#pragma unroll
            for (int r = 0; r < RUN_AHEAD; r++) {
#pragma unroll
                for (int c = 0; c < N; c++) sum[c] += scale * v[r][c];
            }
        }
        for (; i < end; i++) {
            float v[N];
            load<N>(y + (int64_t)order[i] * h + j, v);
#pragma unroll
            for (int c = 0; c < N; c++) sum[c] += scale * v[c];
        }
        store<N>(to, sum);
    }
}

} // namespace

void ra_cuda_gather_rows(cudaStream_t stream, ra_dtype, int64_t n, int64_t h, const int32_t *row, const void *x, void *y)
{
    launch_rows<WIDE_R>(stream, n, h, fits<float, WIDE_R>(x, h) && fits<float, WIDE_R>(y, h),
                        gather{row, (const float *)x, (float *)y, h});
}

size_t ra_cuda_scatter_add_rows_workspace(int64_t n, int64_t h)
{
    (void)h;
    return 2 * (size_t)n * sizeof(int32_t);
}

void ra_cuda_add_rows(cudaStream_t stream, int64_t n, int64_t h, const int32_t *row, float scale, const float *y, float *x,
                      void *workspace, size_t bytes)
{
    if (n <= 0 || h <= 0) return;
    ra_cuda_check_workspace("sums of rows by index", bytes, ra_cuda_scatter_add_rows_workspace(n, h));
    int32_t *order = (int32_t *)workspace, *sorted = order + n;
    RA_LAUNCH(order_kernel, dim3((unsigned)((n + ORDER_BLOCK - 1) / ORDER_BLOCK)), dim3(ORDER_BLOCK), 0, stream, (int)n, row,
              order, sorted);
    bool wide = fits<float, WIDE_R>(x, h) && fits<float, WIDE_R>(y, h);
    with_team(h, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        if (wide) {
            RA_LAUNCH((add_runs_kernel<WIDE_R, TEAM>), team_grid<TEAM>(n), dim3(BLOCK<TEAM>), 0, stream, (int)n, (int)h,
                      (const int32_t *)order, (const int32_t *)sorted, scale, y, x);
        } else {
            RA_LAUNCH((add_runs_kernel<1, TEAM>), team_grid<TEAM>(n), dim3(BLOCK<TEAM>), 0, stream, (int)n, (int)h,
                      (const int32_t *)order, (const int32_t *)sorted, scale, y, x);
        }
    });
}

void ra_cuda_scatter_add_rows(cudaStream_t stream, ra_dtype, int64_t n, int64_t h, const int32_t *row, const void *y, void *x,
                              void *workspace, size_t bytes)
{
    ra_cuda_add_rows(stream, n, h, row, 1.0f, (const float *)y, (float *)x, workspace, bytes);
}
