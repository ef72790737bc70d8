/* The fused head's row operators, over one vocabulary block of logits. The updates read each logit once: every thread keeps a running maximum and sums
 * scaled to it, pieces of 16 terms in float, pieces in double (relative error of a sum: 2e-7); the team then brings them to one maximum. A NaN never
 * becomes a maximum but always reaches a sum. Bytes moved a logit, for A = bf16 (float): softmax_update and argmax_update 4, kl_update 8,
 * softmax_grad 6 (8), kl_grad 10 (12). */
#include "reduce.h"

#include <limits.h>

namespace
{

enum { AHEAD = 16 }; /* logits that a thread reads before it uses them */

template <bool CAPPED> __device__ __forceinline__ float logit(float z, float cap, float per_cap)
{
    return CAPPED ? cap * tanhf(z * per_cap) : z;
}

struct statistics {
    int n_rows, nv;
    int64_t v0;
    float cap, per_cap; /* per_cap = 1 / cap */
    const float *z, *z_ref;
    const int32_t *target;
    double *maximum, *sum, *target_logit, *weighted;
};

/* AHEAD / N chunks of a row from column j on; -inf, which adds nothing, beyond its end. */
template <bool CAPPED, int N, int TEAM>
__device__ __forceinline__ void load_logits(const statistics &p, const float *row, int j, float filler, float (&l)[AHEAD / N][N])
{
#pragma unroll
    for (int u = 0; u < AHEAD / N; u++) {
        int at = j + u * TEAM * N;
        bool inside = at < p.nv;
        if (inside) load<N>(row + at, l[u]);
#pragma unroll
        for (int k = 0; k < N; k++) l[u][k] = inside ? logit<CAPPED>(l[u][k], p.cap, p.per_cap) : filler;
    }
}

/* What exponents are taken relative to: a maximum of -inf would make NaNs of -inf - -inf where a term is merely 0. */
__device__ __forceinline__ float shift_of(float maximum)
{
    return maximum == -INFINITY ? 0.0f : maximum;
}

/* The sums of a block join the running ones, as they would had they been summed there: a row of nothing but -inf becomes NaN here. */
__device__ __forceinline__ void join(double top, double old, double block_top, double block_sum, double *sum)
{
    *sum = *sum * exp(old - top) + block_sum * exp(block_top - top);
}

/* Softmax where !KL: the logits are z. KL: the softmax is of z_ref, and the difference to z is weighted with it. */
template <bool KL, bool CAPPED, int N, int TEAM> __global__ void __launch_bounds__(BLOCK<TEAM>) update_kernel(statistics p)
{
    constexpr int CHUNKS = AHEAD / N;
    RA_SHARED(float, tops, (SCRATCH<TEAM, 1>));
    RA_SHARED(double, scratch, (SCRATCH<TEAM, 2>));
    int64_t i = team_index<TEAM>();
    if (i >= p.n_rows) return;
    int lane = team_lane<TEAM>();
    const float *row = (KL ? p.z_ref : p.z) + i * p.nv, *other = p.z + i * p.nv;
    float top = -INFINITY;
    double sum[2] = {0, 0};
    for (int j = lane * N; j < p.nv; j += AHEAD * TEAM) {
        float l[CHUNKS][N], compared[KL ? CHUNKS : 1][N], highest = top;
        load_logits<CAPPED, N, TEAM>(p, row, j, -INFINITY, l);
        if constexpr (KL) load_logits<CAPPED, N, TEAM>(p, other, j, 0.0f, compared);
#pragma unroll
        for (int u = 0; u < CHUNKS; u++) {
#pragma unroll
            for (int k = 0; k < N; k++) highest = fmaxf(highest, l[u][k]);
        }
        float shift = shift_of(highest), part = 0, difference = 0;
#pragma unroll
        for (int u = 0; u < CHUNKS; u++) {
#pragma unroll
            for (int k = 0; k < N; k++) {
                float e = expf(l[u][k] - shift);
                part += e;
                if constexpr (KL) {
                    if (j + u * TEAM * N < p.nv) difference += e * (l[u][k] - compared[u][k]);
                }
            }
        }
        if (highest > top) {
            double keep = (double)expf(top - highest);
            sum[0] *= keep;
            if (KL) sum[1] *= keep;
            top = highest;
        }
        sum[0] += (double)part;
        if (KL) sum[1] += (double)difference;
    }
    float block_top = team_max<TEAM>(top, tops);
    double keep = (double)expf(top - shift_of(block_top));
    sum[0] *= keep;
    if (KL) sum[1] *= keep;
    team_sum<TEAM>(sum, scratch);
    if (lane > 0) return;
    double old = p.maximum[i], all = (double)block_top > old ? (double)block_top : old;
    join(all, old, block_top, sum[0], p.sum + i);
    if (KL) join(all, old, block_top, sum[1], p.weighted + i);
    p.maximum[i] = all;
    if (KL) return;
    int64_t at = (int64_t)p.target[i] - p.v0;
    if (at >= 0 && at < p.nv) p.target_logit[i] = (double)logit<CAPPED>(row[at], p.cap, p.per_cap);
}

/* Is (x, i) to be chosen before (y, k)? A NaN before all numbers, then the larger, then the lower index. */
__device__ __forceinline__ bool goes_before(float x, int i, float y, int k)
{
    bool x_bad = x != x, y_bad = y != y;
    if (x_bad || y_bad) return x_bad && (!y_bad || i < k);
    return x > y || (x == y && i < k);
}

template <int N, int TEAM>
__global__ void __launch_bounds__(BLOCK<TEAM>)
    argmax_kernel(int rows, int nv, int64_t v0, const float *z, double *best, int32_t *token)
{
    RA_SHARED(float, values, (SCRATCH<TEAM, 1>));
    RA_SHARED(int, places, (SCRATCH<TEAM, 1>));
    int64_t t = team_index<TEAM>();
    if (t >= rows) return;
    const float *row = z + t * nv;
    float value = -INFINITY;
    int place = INT_MAX;
#pragma unroll 4
    for (int j = team_lane<TEAM>() * N; j < nv; j += TEAM * N) {
        float v[N];
        load<N>(row + j, v);
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (v[k] <= value || value != value) continue; /* the first NaN stays */
            value = v[k];
            place = j + k;
        }
    }
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        float v = __shfl_xor_sync(0xffffffffu, value, distance);
        int at = __shfl_xor_sync(0xffffffffu, place, distance);
        if (goes_before(v, at, value, place)) {
            value = v;
            place = at;
        }
    }
    if constexpr (TEAM > WARP) {
        if (threadIdx.x % WARP == 0) {
            values[threadIdx.x / WARP] = value;
            places[threadIdx.x / WARP] = place;
        }
        __syncthreads();
        for (int i = 0; threadIdx.x == 0 && i < TEAM / WARP; i++) {
            float v = values[i];
            int at = places[i];
            if (goes_before(v, at, value, place)) {
                value = v;
                place = at;
            }
        }
    }
    if (team_lane<TEAM>() > 0) return;
    double old = best[t];
    if (old != old || (double)value <= old) return;
    best[t] = (double)value;
    token[t] = (int32_t)(v0 + place);
}

struct gradient {
    int nv;
    int64_t v0;
    float cap, per_cap;
    const float *z, *z_ref;
    const int32_t *target;
    const double *lse, *lse_ref, *coefficient;
};

/* A double as two floats, so that l - lse is off by a float's rounding of the difference alone; an infinite one has no rest. */
struct split {
    float high, low;
    __device__ explicit split(double x) : high((float)x), low(high - high == 0.0f ? (float)(x - (double)high) : 0.0f)
    {
    }
    __device__ float below(float l) const
    {
        return l - high - low;
    }
};

/* Rows along x; along y, pieces of a row of PIECE chunks. */
enum { GRAD_BLOCK = 256, PIECE = 4 * GRAD_BLOCK };

template <class A, bool KL, bool CAPPED, int N> __global__ void __launch_bounds__(GRAD_BLOCK) grad_kernel(gradient p, A *dz)
{
    int64_t i = blockIdx.x;
    const float *row = p.z + i * p.nv, *row_ref = p.z_ref + (KL ? i * p.nv : 0);
    split lse(p.lse[i]), lse_ref(KL ? p.lse_ref[i] : 0.0);
    float c = (float)p.coefficient[i];
    int64_t target = KL ? -1 : (int64_t)p.target[i] - p.v0;
    int begin = (int)blockIdx.y * PIECE * N, end = min(p.nv - begin, PIECE * N) + begin;
#pragma unroll 2
    for (int j = begin + (int)threadIdx.x * N; j < end; j += GRAD_BLOCK * N) {
        float z[N], ref[N], d[N];
        load<N>(row + j, z);
        if constexpr (KL) load<N>(row_ref + j, ref);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float l = z[k], slope = 1.0f;
            if constexpr (CAPPED) {
                float t = tanhf(z[k] * p.per_cap);
                l = p.cap * t;
                slope = 1.0f - t * t;
            }
            float probability = expf(lse.below(l));
            if constexpr (KL) {
                d[k] = c * (probability - expf(lse_ref.below(logit<CAPPED>(ref[k], p.cap, p.per_cap)))) * slope;
            } else {
                d[k] = c * ((j + k == target ? 1.0f : 0.0f) - probability) * slope;
            }
        }
        store<N>(dz + i * p.nv + j, d);
    }
}

/* launch(integral constant true or false) */
template <class F> void with_cap(double softcap, F launch)
{
    if (softcap > 0) {
        launch(std::true_type());
    } else {
        launch(std::false_type());
    }
}

template <bool KL> void launch_update(cudaStream_t stream, statistics p, double softcap)
{
    if (p.n_rows <= 0 || p.nv <= 0) return;
    p.cap = (float)softcap;
    p.per_cap = softcap > 0 ? (float)(1 / softcap) : 0.0f;
    bool wide = fits<float, WIDE_R>(p.z, p.nv) && fits<float, WIDE_R>(p.z_ref, p.nv);
    with_cap(softcap, [&](auto capped) {
        constexpr bool CAPPED = decltype(capped)::value;
        with_team(p.nv, [&](auto team) {
            constexpr int TEAM = decltype(team)::value;
            if (wide) {
                RA_LAUNCH((update_kernel<KL, CAPPED, WIDE_R, TEAM>), team_grid<TEAM>(p.n_rows), dim3(BLOCK<TEAM>), 0, stream, p);
            } else {
                RA_LAUNCH((update_kernel<KL, CAPPED, 1, TEAM>), team_grid<TEAM>(p.n_rows), dim3(BLOCK<TEAM>), 0, stream, p);
            }
        });
    });
}

template <bool KL> void launch_gradient(cudaStream_t stream, ra_dtype a, int64_t n, gradient p, double softcap, void *dz)
{
    if (n <= 0 || p.nv <= 0) return;
    p.cap = (float)softcap;
    p.per_cap = softcap > 0 ? (float)(1 / softcap) : 0.0f;
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        bool wide = fits<float, N>(p.z, p.nv) && fits<float, N>(p.z_ref, p.nv) && fits<A, N>(dz, p.nv);
        int64_t piece = (int64_t)PIECE * (wide ? N : 1);
        dim3 grid((unsigned)n, (unsigned)((p.nv + piece - 1) / piece));
        with_cap(softcap, [&](auto capped) {
            constexpr bool CAPPED = decltype(capped)::value;
            if (wide) {
                RA_LAUNCH((grad_kernel<A, KL, CAPPED, N>), grid, dim3(GRAD_BLOCK), 0, stream, p, (A *)dz);
            } else {
                RA_LAUNCH((grad_kernel<A, KL, CAPPED, 1>), grid, dim3(GRAD_BLOCK), 0, stream, p, (A *)dz);
            }
        });
    });
}

} // namespace

void ra_cuda_softmax_update(cudaStream_t stream, ra_dtype, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                            const int32_t *target, double *maximum, double *sum, double *target_logit)
{
    statistics p = {};
    p.n_rows = (int)n;
    p.nv = (int)nv;
    p.v0 = v0;
    p.z = (const float *)z;
    p.target = target;
    p.maximum = maximum;
    p.sum = sum;
    p.target_logit = target_logit;
    launch_update<false>(stream, p, softcap);
}

void ra_cuda_argmax_update(cudaStream_t stream, ra_dtype, int64_t n, int64_t nv, int64_t v0, const void *z, double *best,
                           int32_t *token)
{
    if (n <= 0 || nv <= 0) return;
    bool wide = fits<float, WIDE_R>(z, nv);
    const float *Z = (const float *)z;
    with_team(nv, [&](auto team) {
        constexpr int TEAM = decltype(team)::value;
        if (wide) {
            RA_LAUNCH((argmax_kernel<WIDE_R, TEAM>), team_grid<TEAM>(n), dim3(BLOCK<TEAM>), 0, stream, (int)n, (int)nv, v0, Z,
                      best, token);
        } else {
            RA_LAUNCH((argmax_kernel<1, TEAM>), team_grid<TEAM>(n), dim3(BLOCK<TEAM>), 0, stream, (int)n, (int)nv, v0, Z, best,
                      token);
        }
    });
}

void ra_cuda_softmax_grad(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                          const int32_t *target, const double *lse, const double *coefficient, void *dz)
{
    gradient p = {};
    p.nv = (int)nv;
    p.v0 = v0;
    p.z = (const float *)z;
    p.target = target;
    p.lse = lse;
    p.coefficient = coefficient;
    launch_gradient<false>(stream, a, n, p, softcap, dz);
}

void ra_cuda_kl_update(cudaStream_t stream, ra_dtype, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                       double *maximum_ref, double *sum_ref, double *weighted)
{
    statistics p = {};
    p.n_rows = (int)n;
    p.nv = (int)nv;
    p.z = (const float *)z;
    p.z_ref = (const float *)z_ref;
    p.maximum = maximum_ref;
    p.sum = sum_ref;
    p.weighted = weighted;
    launch_update<true>(stream, p, softcap);
}

void ra_cuda_kl_grad(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                     const double *lse, const double *lse_ref, const double *coefficient, void *dz)
{
    gradient p = {};
    p.nv = (int)nv;
    p.z = (const float *)z;
    p.z_ref = (const float *)z_ref;
    p.lse = lse;
    p.lse_ref = lse_ref;
    p.coefficient = coefficient;
    launch_gradient<true>(stream, a, n, p, softcap, dz);
}
