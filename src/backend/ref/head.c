/* Row operators of the fused head: softmax and forward KL over one vocabulary block after another, METHOD eq. 1-3.
 * l = softcap tanh(z / softcap), or z where there is no soft-cap. */
#include "ref.h"

#include <math.h>

static double logit(double z, double softcap)
{
    return softcap > 0 ? softcap * tanh(z / softcap) : z;
}

/* dl/dz, from l */
static double logit_slope(double l, double softcap)
{
    return softcap > 0 ? 1 - (l / softcap) * (l / softcap) : 1;
}

/* The larger of `maximum` and the block's logits. */
static double block_maximum(int64_t nv, const double *z, double softcap, double maximum)
{
    for (int64_t v = 0; v < nv; v++) {
        double l = logit(z[v], softcap);
        if (l > maximum) maximum = l;
    }
    return maximum;
}

void ra_ref_softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                           double *maximum, double *sum, double *target_logit)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        const double *row = (const double *)z + i * nv;
        double top = block_maximum(nv, row, softcap, maximum[i]);
        sum[i] *= exp(maximum[i] - top);
        maximum[i] = top;
        for (int64_t v = 0; v < nv; v++) {
            double l = logit(row[v], softcap);
            sum[i] += exp(l - top);
            if (v0 + v == target[i]) target_logit[i] = l;
        }
    }
}

void ra_ref_argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z, double *best, int32_t *token)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        const double *row = (const double *)z + i * nv;
        for (int64_t v = 0; v < nv && !isnan(best[i]); v++) {
            if (row[v] <= best[i]) continue; /* false for a NaN, which is kept */
            best[i] = row[v];
            token[i] = (int32_t)(v0 + v);
        }
    }
}

void ra_ref_softmax_grad(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                         const double *lse, const double *coefficient, void *dz)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t v = 0; v < nv; v++) {
            double l = logit(((const double *)z)[i * nv + v], softcap);
            double one = v0 + v == target[i] ? 1 : 0;
            ((double *)dz)[i * nv + v] = coefficient[i] * (one - exp(l - lse[i])) * logit_slope(l, softcap);
        }
    }
}

void ra_ref_kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, double *maximum_ref,
                      double *sum_ref, double *weighted)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        const double *row = (const double *)z + i * nv, *row_ref = (const double *)z_ref + i * nv;
        double top = block_maximum(nv, row_ref, softcap, maximum_ref[i]);
        double rescale = exp(maximum_ref[i] - top);
        maximum_ref[i] = top;
        sum_ref[i] *= rescale;
        weighted[i] *= rescale;
        for (int64_t v = 0; v < nv; v++) {
            double l = logit(row[v], softcap), l_ref = logit(row_ref[v], softcap);
            sum_ref[i] += exp(l_ref - top);
            weighted[i] += exp(l_ref - top) * (l_ref - l);
        }
    }
}

void ra_ref_kl_grad(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, const double *lse,
                    const double *lse_ref, const double *coefficient, void *dz)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t v = 0; v < nv; v++) {
            double l = logit(((const double *)z)[i * nv + v], softcap);
            double l_ref = logit(((const double *)z_ref)[i * nv + v], softcap);
            double difference = exp(l - lse[i]) - exp(l_ref - lse_ref[i]);
            ((double *)dz)[i * nv + v] = coefficient[i] * difference * logit_slope(l, softcap);
        }
    }
}
