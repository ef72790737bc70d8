/* RMSNorm. Squares are summed in double, scalar products of rows too, four at a time in float before. Bytes moved an element, for A = bf16 (float): rmsnorm 6 (8), rmsnorm_add 12,
 * rmsnorm_grad 12, and 4 more where it accumulates; with dw, 8 more for each of the partial sums, of which there is at most one for 8 rows.
 * rmsnorm keeps 16 values a thread in registers (rows up to 8,192 columns), what is beyond is read again; rmsnorm_grad reads its rows twice, the
 * second time from the first-level cache. */
#include "reduce.h"

namespace
{

template <int N> __device__ __forceinline__ double squares(const float (&x)[N])
{
    double sum = 0;
#pragma unroll
    for (int k = 0; k < N; k++) sum += (double)x[k] * (double)x[k];
    return sum;
}

/* y = x rstd gain, or y += where ADD */
template <class Y, bool ADD, int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>)
    norm_kernel(int64_t rows, int h, const float *x, const float *w, float one, double per_column, double eps, Y *y, float *rstd)
{
    constexpr int KEPT = 16 / N;
    RA_SHARED(double, scratch, (SCRATCH<TEAM, 1>));
    int64_t t = team_index<TEAM>();
    if (t >= rows) return;
    const float *row = x + t * h;
    Y *to = y + t * h;
    int lane = team_lane<TEAM>();
    float kept[KEPT][N];
    double sum[1] = {0};
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int j = (k * TEAM + lane) * N;
        if (j >= h) continue;
        load<N>(row + j, kept[k]);
        sum[0] += squares(kept[k]);
    }
    for (int j = (KEPT * TEAM + lane) * N; j < h; j += TEAM * N) {
        float v[N];
        load<N>(row + j, v);
        sum[0] += squares(v);
    }
    team_sum<TEAM>(sum, scratch);
    float r = 1.0f / sqrtf((float)(sum[0] * per_column + eps));
    if (lane == 0) rstd[t] = r;
    auto finish = [&](int j, float(&v)[N]) {
        float gain[N], old[N] = {0};
        load<N>(w + j, gain);
        if (ADD) load<N>(to + j, old);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = old[k] + v[k] * r * (gain[k] + one);
        store<N>(to + j, v);
    };
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        int j = (k * TEAM + lane) * N;
        if (j < h) finish(j, kept[k]);
    }
    for (int j = (KEPT * TEAM + lane) * N; j < h; j += TEAM * N) {
        float v[N];
        load<N>(row + j, v);
        finish(j, v);
    }
}

template <class Y, bool ADD>
void launch_norm(cudaStream_t stream, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps, void *y,
                 void *rstd)
{
    if (rows <= 0 || h <= 0) return;
    constexpr int N = WIDE<Y>;
    bool wide = fits<float, N>(x, h) && fits<float, N>(w, h) && fits<Y, N>(y, h);
    const float *X = (const float *)x, *W = (const float *)w;
    float one = plus_one ? 1.0f : 0.0f, *R = (float *)rstd;
    double per_column = 1.0 / (double)h;
    with_team(h, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        if (wide) {
            RA_LAUNCH((norm_kernel<Y, ADD, N, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)h, X, W,
                      one, per_column, eps, (Y *)y, R);
        } else {
            RA_LAUNCH((norm_kernel<Y, ADD, 1, TEAM>), team_grid<TEAM>(rows), dim3(BLOCK<TEAM>), 0, stream, rows, (int)h, X, W,
                      one, per_column, eps, (Y *)y, R);
        }
    });
}

enum { NORM_GRAD_THREADS = 1024 }; /* of a processor: at 64 registers each */

struct norm_grad {
    int64_t rows;
    int h, teams;
    const float *x, *w;
    float one;
    double per_column;
    const float *rstd, *dy;
    bool accumulate;
    float *dx, *partial; /* partial: (teams, h), sums of dy x rstd */
    const float *g;
    double *dot;
};

/* With u = dy gain:  dx = rstd (u - x rstd^2 mean(u x)).  Team k takes rows k, k + teams, ...; where DW it sums its part of dw, 16 columns a thread in
 * registers and columns beyond in its row of the workspace. */
template <bool DW, int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>, NORM_GRAD_THREADS / BLOCK<TEAM>) norm_grad_kernel(norm_grad p)
{
    constexpr int KEPT = 16 / N;
    RA_SHARED(double, scratch, (SCRATCH<TEAM, 2>));
    int64_t team = team_index<TEAM>();
    if (team >= p.teams) return;
    int lane = team_lane<TEAM>();
    float dw[DW ? KEPT : 1][N];
#pragma unroll
    for (int k = 0; DW && k < KEPT; k++) {
#pragma unroll
        for (int c = 0; c < N; c++) dw[k][c] = 0;
    }
    for (int64_t t = team; t < p.rows; t += p.teams) {
        const float *x = p.x + t * p.h, *dy = p.dy + t * p.h;
        float *dx = p.dx + t * p.h, r = p.rstd[t];
        double sum[2] = {0, 0}; /* u.x, dy.(x g) */
        for (int j = lane * N; j < p.h; j += TEAM * N) {
            float xv[N], dv[N], gain[N], gv[N] = {0}, along_x = 0, along_g = 0; /* N terms in float, their sums in double */
            load<N>(x + j, xv);
            load<N>(dy + j, dv);
            load<N>(p.w + j, gain);
            if (p.g) load<N>(p.g + j, gv);
#pragma unroll
            for (int k = 0; k < N; k++) {
                float product = dv[k] * xv[k];
                along_x += product * (gain[k] + p.one);
                along_g += product * gv[k];
            }
            sum[0] += (double)along_x;
            sum[1] += (double)along_g;
        }
        team_sum<TEAM>(sum, scratch);
        if (p.g && lane == 0) p.dot[t] += (double)r * sum[1];
        float along = (float)((double)r * (double)r * sum[0] * p.per_column);
        auto finish = [&](int j, float(&normed)[N]) {
            float xv[N], dv[N], gain[N], old[N] = {0};
            load<N>(x + j, xv);
            load<N>(dy + j, dv);
            load<N>(p.w + j, gain);
            if (p.accumulate) load<N>(dx + j, old);
#pragma unroll
            for (int k = 0; k < N; k++) {
                normed[k] = dv[k] * xv[k] * r;
                old[k] += r * (dv[k] * (gain[k] + p.one) - xv[k] * along);
            }
            store<N>(dx + j, old);
        };
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            int j = (k * TEAM + lane) * N;
            if (j >= p.h) continue;
            float normed[N];
            finish(j, normed);
#pragma unroll
            for (int c = 0; DW && c < N; c++) dw[k][c] += normed[c];
        }
        for (int j = (KEPT * TEAM + lane) * N; j < p.h; j += TEAM * N) {
            float normed[N], old[N] = {0};
            finish(j, normed);
            if (!DW) continue;
            if (t > team) load<N>(p.partial + team * p.h + j, old);
#pragma unroll
            for (int c = 0; c < N; c++) old[c] += normed[c];
            store<N>(p.partial + team * p.h + j, old);
        }
    }
#pragma unroll
    for (int k = 0; DW && k < KEPT; k++) {
        int j = (k * TEAM + lane) * N;
        if (j < p.h) store<N>(p.partial + team * p.h + j, dw[k]);
    }
}

/* Teams that sum dw: two blocks for each of an H100's 132 processors, with less columns more rows at once, and 8 rows for each at least. */
template <int TEAM> int64_t teams_of(int64_t rows)
{
    constexpr int64_t MOST = 264 * (MOST_TEAM / TEAM);
    int64_t teams = (rows + 7) / 8;
    return teams < MOST ? teams : MOST;
}

} // namespace

void ra_cuda_rmsnorm(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                     double eps, void *y, void *rstd)
{
    with_type(a, [&](auto type) { launch_norm<decltype(type), false>(stream, rows, h, x, w, plus_one, eps, y, rstd); });
}

void ra_cuda_rmsnorm_add(cudaStream_t stream, ra_dtype, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                         double eps, void *sum, void *rstd)
{
    launch_norm<float, true>(stream, rows, h, x, w, plus_one, eps, sum, rstd);
}

size_t ra_cuda_rmsnorm_grad_workspace(int64_t rows, int64_t h)
{
    size_t bytes = 0;
    with_team(h, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        bytes = (size_t)teams_of<TEAM>(rows) * (size_t)h * sizeof(float);
    });
    return bytes;
}

void ra_cuda_rmsnorm_grad(cudaStream_t stream, ra_dtype, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                          const void *rstd, const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot,
                          void *workspace, size_t bytes)
{
    if (rows <= 0 || h <= 0) return;
    if (dw) ra_cuda_check_workspace("rmsnorm_grad", bytes, ra_cuda_rmsnorm_grad_workspace(rows, h));
    constexpr int N = WIDE_R;
    bool wide = fits<float, N>(x, h) && fits<float, N>(w, h) && fits<float, N>(dy, h) && fits<float, N>(dx, h) &&
                fits<float, N>(g, h) && (!dw || fits<float, N>(workspace, h));
    norm_grad p = {};
    p.rows = rows;
    p.h = (int)h;
    p.x = (const float *)x;
    p.w = (const float *)w;
    p.one = plus_one ? 1.0f : 0.0f;
    p.per_column = 1.0 / (double)h;
    p.rstd = (const float *)rstd;
    p.dy = (const float *)dy;
    p.accumulate = accumulate;
    p.dx = (float *)dx;
    p.partial = (float *)workspace;
    p.g = (const float *)g;
    p.dot = dot;
    with_team(h, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        p.teams = (int)(dw ? teams_of<TEAM>(rows) : rows);
        dim3 grid = team_grid<TEAM>(p.teams), block(BLOCK<TEAM>);
        if (dw && wide) {
            RA_LAUNCH((norm_grad_kernel<true, N, TEAM>), grid, block, 0, stream, p);
        } else if (dw) {
            RA_LAUNCH((norm_grad_kernel<true, 1, TEAM>), grid, block, 0, stream, p);
        } else if (wide) {
            RA_LAUNCH((norm_grad_kernel<false, N, TEAM>), grid, block, 0, stream, p);
        } else {
            RA_LAUNCH((norm_grad_kernel<false, 1, TEAM>), grid, block, 0, stream, p);
        }
    });
    if (dw) launch_fold(stream, p.teams, h, p.partial, (float *)dw);
}
