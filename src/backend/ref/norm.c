/* RMSNorm: y[j] = x[j] rstd G[j], rstd = 1 / sqrt(mean(x^2) + eps), G = w or 1 + w. */
#include "ref.h"

#include <math.h>

static double reciprocal_rms(int64_t h, const double *x, double eps)
{
    double squares = 0;
    for (int64_t j = 0; j < h; j++) squares += x[j] * x[j];
    return 1 / sqrt(squares / (double)h + eps);
}

static double gain(const double *w, bool plus_one, int64_t j)
{
    return plus_one ? 1 + w[j] : w[j];
}

void ra_ref_rmsnorm(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps, void *y,
                    void *rstd)
{
    (void)b;
    const double *X = x;
    double *Y = y, *R = rstd;
    for (int64_t t = 0; t < rows; t++) {
        R[t] = reciprocal_rms(h, X + t * h, eps);
        for (int64_t j = 0; j < h; j++) Y[t * h + j] = X[t * h + j] * R[t] * gain(w, plus_one, j);
    }
}

void ra_ref_rmsnorm_add(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps,
                        void *sum, void *rstd)
{
    (void)b;
    const double *X = x;
    double *S = sum, *R = rstd;
    for (int64_t t = 0; t < rows; t++) {
        R[t] = reciprocal_rms(h, X + t * h, eps);
        for (int64_t j = 0; j < h; j++) S[t * h + j] += X[t * h + j] * R[t] * gain(w, plus_one, j);
    }
}

/* dx[j] = rstd dy[j] G[j] - x[j] rstd^3 / h sum_i dy[i] G[i] x[i];  dw[j] = sum_t dy[j] x[j] rstd */
void ra_ref_rmsnorm_grad(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, const void *rstd,
                         const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot)
{
    (void)b;
    const double *X = x, *R = rstd, *dY = dy, *G = g;
    double *dX = dx, *dW = dw;
    for (int64_t t = 0; t < rows; t++) {
        double r = R[t], along_x = 0, tangent = 0;
        for (int64_t j = 0; j < h; j++) {
            double x_j = X[t * h + j], dy_j = dY[t * h + j];
            along_x += dy_j * gain(w, plus_one, j) * x_j;
            if (dW) dW[j] += dy_j * x_j * r;
            if (G) tangent += dy_j * x_j * r * G[j];
        }
        if (G) dot[t] += tangent;
        for (int64_t j = 0; j < h; j++) {
            double d = r * dY[t * h + j] * gain(w, plus_one, j) - X[t * h + j] * r * r * r * along_x / (double)h;
            dX[t * h + j] = accumulate ? dX[t * h + j] + d : d;
        }
    }
}
