/* Casts and sums element by element, and biases. All are bound by memory; bytes moved an element, for A = bf16 (float):
 *   cast_to_a 6 (8), cast_to_r 6 (8), axpy 12, add_scaled 8 (12), bias_add 4 (8), bias_grad 2 (4) and 4 / (rows of a slice) twice. */
#include "reduce.h"

namespace
{

template <class A> struct cast_to_a {
    const float *x;
    A *y;
    template <int N> __device__ void run(int64_t i) const
    {
        float v[N];
        load<N>(x + i, v);
        store<N>(y + i, v);
    }
};

template <class A> struct cast_to_r {
    const A *x;
    float *y;
    template <int N> __device__ void run(int64_t i) const
    {
        float v[N];
        load<N>(x + i, v);
        store<N>(y + i, v);
    }
};

struct axpy {
    float s;
    const float *x;
    float *y;
    template <int N> __device__ void run(int64_t i) const
    {
        float a[N], b[N];
        load<N>(x + i, a);
        load<N>(y + i, b);
#pragma unroll
        for (int k = 0; k < N; k++) b[k] += s * a[k];
        store<N>(y + i, b);
    }
};

template <class A> struct add_scaled {
    float s;
    const float *y;
    A *x;
    int64_t n, ldx;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        float a[N], b[N];
        load<N>(y + t * n + j, a);
        load<N>(x + t * ldx + j, b);
#pragma unroll
        for (int k = 0; k < N; k++) b[k] += s * a[k];
        store<N>(x + t * ldx + j, b);
    }
};

template <class A> struct bias_add {
    const float *bias;
    A *y;
    int64_t ldy;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        float a[N], b[N];
        load<N>(bias + j, a);
        load<N>(y + t * ldy + j, b);
#pragma unroll
        for (int k = 0; k < N; k++) b[k] += a[k];
        store<N>(y + t * ldy + j, b);
    }
};

/* Slices of rows are summed in registers, slice by slice into the workspace, and then folded. */
enum { SLICE_BLOCK = 128, MOST_SLICES = 256, LEAST_ROWS = 8 };

int slices_of(int64_t rows)
{
    int64_t slices = (rows + LEAST_ROWS - 1) / LEAST_ROWS;
    return slices < MOST_SLICES ? (int)slices : (int)MOST_SLICES;
}

template <class A, int N>
__global__ void __launch_bounds__(SLICE_BLOCK) column_sums_kernel(int64_t rows, int n, const A *dy, int64_t ldy, float *partial)
{
    int j = ((int)blockIdx.x * SLICE_BLOCK + (int)threadIdx.x) * N;
    if (j >= n) return;
    int64_t begin = rows * blockIdx.y / gridDim.y, end = rows * (blockIdx.y + 1) / gridDim.y;
    float sum[N] = {0};
#pragma unroll 4
    for (int64_t t = begin; t < end; t++) {
        float v[N];
        load<N>(dy + t * ldy + j, v);
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] += v[k];
    }
    store<N>(partial + (int64_t)blockIdx.y * n + j, sum);
}

} // namespace

void ra_cuda_cast_to_a(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, void *y)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        launch_elements<N>(stream, n, fits<float, N>(x, 0) && fits<A, N>(y, 0), cast_to_a<A>{(const float *)x, (A *)y});
    });
}

void ra_cuda_cast_to_r(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, void *y)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        launch_elements<WIDE_R>(stream, n, fits<A, WIDE_R>(x, 0) && fits<float, WIDE_R>(y, 0),
                                cast_to_r<A>{(const A *)x, (float *)y});
    });
}

void ra_cuda_axpy(cudaStream_t stream, ra_dtype, int64_t n, double s, const void *x, void *y)
{
    launch_elements<WIDE_R>(stream, n, fits<float, WIDE_R>(x, 0) && fits<float, WIDE_R>(y, 0),
                            axpy{(float)s, (const float *)x, (float *)y});
}

void ra_cuda_add_scaled(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        launch_rows<N>(stream, rows, n, n % N == 0 && fits<float, N>(y, n) && fits<A, N>(x, ldx),
                       add_scaled<A>{(float)s, (const float *)y, (A *)x, n, ldx});
    });
}

void ra_cuda_bias_add(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        launch_rows<N>(stream, rows, n, fits<float, N>(bias, n) && fits<A, N>(y, ldy),
                       bias_add<A>{(const float *)bias, (A *)y, ldy});
    });
}

size_t ra_cuda_bias_grad_workspace(int64_t rows, int64_t n)
{
    return (size_t)slices_of(rows) * (size_t)n * sizeof(float);
}

void ra_cuda_bias_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias,
                       void *workspace, size_t bytes)
{
    if (rows <= 0 || n <= 0) return;
    ra_cuda_check_workspace("bias_grad", bytes, ra_cuda_bias_grad_workspace(rows, n));
    float *partial = (float *)workspace;
    int slices = slices_of(rows);
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        bool wide = n % N == 0 && fits<A, N>(dy, ldy) && fits<float, N>(partial, 0);
        int64_t chunks = wide ? n / N : n;
        dim3 grid((unsigned)((chunks + SLICE_BLOCK - 1) / SLICE_BLOCK), (unsigned)slices);
        if (wide) {
            RA_LAUNCH((column_sums_kernel<A, N>), grid, dim3(SLICE_BLOCK), 0, stream, rows, (int)n, (const A *)dy, ldy, partial);
        } else {
            RA_LAUNCH((column_sums_kernel<A, 1>), grid, dim3(SLICE_BLOCK), 0, stream, rows, (int)n, (const A *)dy, ldy, partial);
        }
    });
    launch_fold(stream, slices, n, partial, (float *)dbias);
}
