/* AdamW in one pass: 28 bytes moved a parameter. Coefficients are made in double and rounded once; the decay is taken from the weight as a term of the
 * update, not as a factor 1 - lr decay, which a float next to 1 would spoil. */
#include "rows.h"

namespace
{

struct adamw {
    float beta1, beta2, rest1, rest2; /* rest = 1 - beta */
    float clip, step, root, eps, decay;
    const float *g;
    float *m, *v, *w;
    template <int N> __device__ void run(int64_t i) const
    {
        float gradient[N], mean[N], square[N], weight[N];
        load<N>(g + i, gradient);
        load<N>(m + i, mean);
        load<N>(v + i, square);
        load<N>(w + i, weight);
#pragma unroll
        for (int k = 0; k < N; k++) {
            float d = clip * gradient[k];
            mean[k] = beta1 * mean[k] + rest1 * d;
            square[k] = beta2 * square[k] + rest2 * d * d;
            weight[k] -= step * mean[k] / (sqrtf(square[k]) * root + eps) + decay * weight[k];
        }
        store<N>(m + i, mean);
        store<N>(v + i, square);
        store<N>(w + i, weight);
    }
};

} // namespace

void ra_cuda_adamw(cudaStream_t stream, ra_dtype, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w)
{
    adamw op = {(float)h->beta1,
                (float)h->beta2,
                (float)(1 - h->beta1),
                (float)(1 - h->beta2),
                (float)h->gradient_scale,
                (float)(h->lr / h->correction1),
                (float)(1 / sqrt(h->correction2)),
                (float)h->eps,
                (float)(h->lr * h->weight_decay),
                (const float *)g,
                (float *)m,
                (float *)v,
                (float *)w};
    bool wide = fits<float, WIDE_R>(g, 0) && fits<float, WIDE_R>(m, 0) && fits<float, WIDE_R>(v, 0) && fits<float, WIDE_R>(w, 0);
    launch_elements<WIDE_R>(stream, n, wide, op);
}
