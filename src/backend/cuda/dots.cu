/* Scalar products, of rows into dot[t] and of whole vectors. Products and sums are in double throughout: a product of floats is exact there, so the
 * error is that of adding (n / 512 + 20) numbers in double, 1e-14 of the sum of magnitudes; the conversions stay under the memory's pace on sm_80
 * and sm_90. Bytes moved an element, for A = bf16 (float): row_dot 6 (8), row_dot_vector 2 (4), sum_squares 4, dot 8. */
#include "reduce.h"

namespace
{

/* Vectors: this many blocks on every device, so that the same sums come out of each; then one block adds up what they left. */
enum { PARTS = 1024, PART_BLOCK = 256 };

template <class A, int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>)
    row_dot_kernel(int64_t rows, int n, double s, const A *x, int64_t ldx, const float *y, int64_t ldy, double *dot)
{
    RA_SHARED(double, scratch, (SCRATCH<TEAM, 1>));
    int64_t t = team_index<TEAM>();
    if (t >= rows) return;
    double sum[1] = {0};
    for (int j = team_lane<TEAM>() * N; j < n; j += TEAM * N) {
        float a[N], b[N];
        load<N>(x + t * ldx + j, a);
        load<N>(y + t * ldy + j, b);
#pragma unroll
        for (int k = 0; k < N; k++) sum[0] += (double)a[k] * (double)b[k];
    }
    team_sum<TEAM>(sum, scratch);
    if (team_lane<TEAM>() == 0) dot[t] += s * sum[0];
}

/* ldy = 0: one vector for all rows */
void launch_row_dot(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y,
                    int64_t ldy, double *dot)
{
    if (rows <= 0 || n <= 0) return;
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        bool wide = n % N == 0 && fits<A, N>(x, ldx) && fits<float, N>(y, ldy);
        with_team(n, [&](auto team) {
            constexpr int TEAM = decltype(team)::value;
            if (wide) {
                RA_LAUNCH((row_dot_kernel<A, N, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)n, s,
                          (const A *)x, ldx, (const float *)y, ldy, dot);
            } else {
                RA_LAUNCH((row_dot_kernel<A, 1, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)n, s,
                          (const A *)x, ldx, (const float *)y, ldy, dot);
            }
        });
    });
}

/* x and y may be the same. */
template <int N> __global__ void __launch_bounds__(PART_BLOCK) dot_kernel(int64_t n, const float *x, const float *y, double *part)
{
    RA_SHARED(double, scratch, (SCRATCH<PART_BLOCK, 1>));
    double sum[1] = {0};
    int64_t stride = (int64_t)gridDim.x * PART_BLOCK * N;
#pragma unroll 4
    for (int64_t i = ((int64_t)blockIdx.x * PART_BLOCK + threadIdx.x) * N; i < n; i += stride) {
        if (i + N <= n) {
            float a[N], b[N];
            load<N>(x + i, a);
            load<N>(y + i, b);
#pragma unroll
            for (int k = 0; k < N; k++) sum[0] += (double)a[k] * (double)b[k];
        } else {
            for (int64_t k = i; k < n; k++) sum[0] += (double)x[k] * (double)y[k];
        }
    }
    team_sum<PART_BLOCK>(sum, scratch);
    if (threadIdx.x == 0) part[blockIdx.x] = sum[0];
}

__global__ void __launch_bounds__(PART_BLOCK) add_parts_kernel(int parts, const double *part, double *result)
{
    RA_SHARED(double, scratch, (SCRATCH<PART_BLOCK, 1>));
    double sum[1] = {0};
    for (int i = (int)threadIdx.x; i < parts; i += PART_BLOCK) sum[0] += part[i];
    team_sum<PART_BLOCK>(sum, scratch);
    if (threadIdx.x == 0) *result = sum[0];
}

int parts_of(int64_t n)
{
    int64_t each = (int64_t)PART_BLOCK * WIDE_R, parts = (n + each - 1) / each;
    return parts < PARTS ? (int)parts : (int)PARTS;
}

} // namespace

void ra_cuda_row_dot(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, double s, const void *x, int64_t ldx,
                     const void *y, double *dot)
{
    launch_row_dot(stream, a, rows, n, s, x, ldx, y, n, dot);
}

void ra_cuda_row_dot_vector(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v,
                            double *dot)
{
    launch_row_dot(stream, a, rows, n, 1.0, x, ldx, v, 0, dot);
}

size_t ra_cuda_dot_workspace(int64_t n)
{
    return (size_t)parts_of(n) * sizeof(double);
}

size_t ra_cuda_sum_squares_workspace(int64_t n)
{
    return ra_cuda_dot_workspace(n);
}

void ra_cuda_dot(cudaStream_t stream, ra_dtype, int64_t n, const void *x, const void *y, double *result, void *workspace,
                 size_t bytes)
{
    ra_cuda_check_workspace("dot", bytes, ra_cuda_dot_workspace(n));
    double *part = (double *)workspace;
    const float *X = (const float *)x, *Y = (const float *)y;
    int parts = parts_of(n);
    if (parts > 0) {
        if (fits<float, WIDE_R>(x, 0) && fits<float, WIDE_R>(y, 0)) {
            RA_LAUNCH((dot_kernel<WIDE_R>), dim3((unsigned)parts), dim3(PART_BLOCK), 0, stream, n, X, Y, part);
        } else {
            RA_LAUNCH((dot_kernel<1>), dim3((unsigned)parts), dim3(PART_BLOCK), 0, stream, n, X, Y, part);
        }
    }
    RA_LAUNCH(add_parts_kernel, dim3(1), dim3(PART_BLOCK), 0, stream, parts, (const double *)part, result);
}

void ra_cuda_sum_squares(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, double *result, void *workspace, size_t bytes)
{
    ra_cuda_dot(stream, a, n, x, x, result, workspace, bytes);
}
