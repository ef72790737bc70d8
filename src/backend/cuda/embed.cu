/* The embedding. Bytes moved an element, for A = bf16 (float): embed 6 (8), embed_dot 6 (8), embed_grad 4 and 8 an element of a distinct token. */
#include "reduce.h"

namespace
{

template <class A> struct embed {
    const int32_t *token;
    float scale;
    const A *w;
    float *x;
    int64_t h;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        float v[N] = {0};
        int64_t id = token[t];
        if (id >= 0) {
            load<N>(w + id * h + j, v);
#pragma unroll
            for (int k = 0; k < N; k++) v[k] *= scale;
        }
        store<N>(x + t * h + j, v);
    }
};

template <class A, int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>)
    embed_dot_kernel(int64_t rows, int h, const int32_t *token, double scale, const float *dx, const A *g, double *dot)
{
    RA_SHARED(double, scratch, (SCRATCH<TEAM, 1>));
    int64_t t = team_index<TEAM>();
    if (t >= rows || token[t] < 0) return;
    const A *of_token = g + (int64_t)token[t] * h;
    double sum[1] = {0};
    for (int j = team_lane<TEAM>() * N; j < h; j += TEAM * N) {
        float a[N], b[N];
        load<N>(of_token + j, a);
        load<N>(dx + t * h + j, b);
#pragma unroll
        for (int k = 0; k < N; k++) sum[0] += (double)a[k] * (double)b[k];
    }
    team_sum<TEAM>(sum, scratch);
    if (team_lane<TEAM>() == 0) dot[t] += scale * sum[0];
}

} // namespace

void ra_cuda_embed(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w,
                   void *x)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        launch_rows<WIDE_R>(stream, rows, h, fits<A, WIDE_R>(w, h) && fits<float, WIDE_R>(x, h),
                            embed<A>{token, (float)scale, (const A *)w, (float *)x, h});
    });
}

size_t ra_cuda_embed_grad_workspace(int64_t rows, int64_t h)
{
    return ra_cuda_scatter_add_rows_workspace(rows, h);
}

void ra_cuda_embed_grad(cudaStream_t stream, ra_dtype, int64_t rows, int64_t h, const int32_t *token, double scale,
                        const void *dx, void *dw, void *workspace, size_t bytes)
{
    ra_cuda_add_rows(stream, rows, h, token, (float)scale, (const float *)dx, (float *)dw, workspace, bytes);
}

void ra_cuda_embed_dot(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const int32_t *token, double scale,
                       const void *dx, const void *g, double *dot)
{
    if (rows <= 0 || h <= 0) return;
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        bool wide = fits<A, N>(g, h) && fits<float, N>(dx, h);
        with_team(h, [&](auto team) {
            constexpr int TEAM = decltype(team)::value;
            if (wide) {
                RA_LAUNCH((embed_dot_kernel<A, N, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)h,
                          token, scale, (const float *)dx, (const A *)g, dot);
            } else {
                RA_LAUNCH((embed_dot_kernel<A, 1, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)h,
                          token, scale, (const float *)dx, (const A *)g, dot);
            }
        });
    });
}
