/* The gated linear unit, h = act(gate) up, computed in float; act is silu or gelu's tanh form.
 * Bytes moved an element of h, for A = bf16 (float): glu 6 (12), glu_grad 10 (20). */
#include "rows.h"

namespace
{

__device__ __forceinline__ float logistic(float g)
{
    return 1.0f / (1.0f + expf(-g));
}

/* act(g), and act'(g) where it is asked for */
template <bool SLOPE> __device__ __forceinline__ float activation(ra_glu kind, float g, float *slope)
{
    if (kind == RA_GLU_SILU) {
        float s = logistic(g);
        if (SLOPE) *slope = s * (1.0f + g * (1.0f - s));
        return g * s;
    }
    const float root = 0.7978845608028654f, cubic = 0.044715f; /* sqrt(2 / pi) */
    float t = tanhf(root * (g + cubic * g * g * g));
    if (SLOPE) { /* the square is kept finite: at 1e20 it meets 1 - t^2 = 0 */
        float du = root * (1.0f + 3.0f * cubic * fminf(g * g, 1e30f));
        *slope = 0.5f * (1.0f + t) + 0.5f * g * (1.0f - t * t) * du;
    }
    return 0.5f * g * (1.0f + t);
}

template <class A> struct glu {
    const A *gate_up;
    A *h;
    int64_t f;
    ra_glu kind;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        float gate[N], up[N];
        load<N>(gate_up + t * 2 * f + j, gate);
        load<N>(gate_up + t * 2 * f + f + j, up);
#pragma unroll
        for (int k = 0; k < N; k++) up[k] *= activation<false>(kind, gate[k], nullptr);
        store<N>(h + t * f + j, up);
    }
};

/* A thread reads all that it overwrites first: dgate_up may be gate_up. */
template <class A> struct glu_grad {
    const A *gate_up, *dh;
    A *dgate_up;
    int64_t f;
    ra_glu kind;
    template <int N> __device__ void run(int64_t t, int j) const
    {
        float gate[N], up[N], d[N];
        load<N>(gate_up + t * 2 * f + j, gate);
        load<N>(gate_up + t * 2 * f + f + j, up);
        load<N>(dh + t * f + j, d);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float slope, act = activation<true>(kind, gate[k], &slope);
            gate[k] = d[k] * up[k] * slope;
            up[k] = d[k] * act;
        }
        store<N>(dgate_up + t * 2 * f + j, gate);
        store<N>(dgate_up + t * 2 * f + f + j, up);
    }
};

} // namespace

void ra_cuda_glu(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        launch_rows<N>(stream, rows, f, fits<A, N>(gate_up, f) && fits<A, N>(h, f), glu<A>{(const A *)gate_up, (A *)h, f, kind});
    });
}

void ra_cuda_glu_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh,
                      void *dgate_up)
{
    with_type(a, [&](auto type) {
        using A = decltype(type);
        constexpr int N = WIDE<A>;
        launch_rows<N>(stream, rows, f, fits<A, N>(gate_up, f) && fits<A, N>(dh, f) && fits<A, N>(dgate_up, f),
                       glu_grad<A>{(const A *)gate_up, (const A *)dh, (A *)dgate_up, f, kind});
    });
}
