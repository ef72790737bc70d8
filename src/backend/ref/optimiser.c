/* Vectors and AdamW (Loshchilov and Hutter, 2019: decay decoupled from the gradient). */
#include "ref.h"

#include <math.h>

double ra_ref_sum_squares(ra_backend *b, int64_t n, const void *x)
{
    return ra_ref_dot(b, n, x, x);
}

double ra_ref_dot(ra_backend *b, int64_t n, const void *x, const void *y)
{
    (void)b;
    const double *X = x, *Y = y;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += X[i] * Y[i];
    return sum;
}

void ra_ref_adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w)
{
    (void)b;
    double *M = m, *V = v, *W = w;
    for (int64_t i = 0; i < n; i++) {
        double gradient = h->gradient_scale * ((const double *)g)[i];
        M[i] = h->beta1 * M[i] + (1 - h->beta1) * gradient;
        V[i] = h->beta2 * V[i] + (1 - h->beta2) * gradient * gradient;
        double mean = M[i] / h->correction1, variance = V[i] / h->correction2;
        W[i] -= h->lr * (mean / (sqrt(variance) + h->eps) + h->weight_decay * W[i]);
    }
}

void ra_ref_axpy(ra_backend *b, int64_t n, double s, const void *x, void *y)
{
    (void)b;
    const double *X = x;
    double *Y = y;
    for (int64_t i = 0; i < n; i++) Y[i] += s * X[i];
}
