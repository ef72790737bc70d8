/* Matrix products and what goes with them: biases, scaled sums, row dots. */
#include "ref.h"

void ra_ref_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    (void)b;
    (void)c_is_r; /* A and R are the same type here */
    const double *X = x, *Y = y;
    double *C = c;
    /* op(X)[i, p] = X[i xi + p xp], op(Y)[p, j] = Y[p yp + j yj] */
    int64_t xi = tx == RA_TRANSPOSE ? 1 : ldx, xp = tx == RA_TRANSPOSE ? ldx : 1;
    int64_t yp = ty == RA_TRANSPOSE ? 1 : ldy, yj = ty == RA_TRANSPOSE ? ldy : 1;
#pragma omp parallel for collapse(2) if (m * n * k > 100000)
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += X[i * xi + p * xp] * Y[p * yp + j * yj];
            C[i * ldc + j] = accumulate ? C[i * ldc + j] + sum : sum;
        }
    }
}

void ra_ref_bias_add(ra_backend *b, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy)
{
    (void)b;
    const double *B = bias;
    double *Y = y;
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t j = 0; j < n; j++) Y[t * ldy + j] += B[j];
    }
}

void ra_ref_bias_grad(ra_backend *b, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias)
{
    (void)b;
    const double *dY = dy;
    double *dB = dbias;
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t j = 0; j < n; j++) dB[j] += dY[t * ldy + j];
    }
}

void ra_ref_add_scaled(ra_backend *b, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx)
{
    (void)b;
    const double *Y = y;
    double *X = x;
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t j = 0; j < n; j++) X[t * ldx + j] += s * Y[t * n + j];
    }
}

void ra_ref_row_dot(ra_backend *b, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y, double *dot)
{
    (void)b;
    const double *X = x, *Y = y;
    for (int64_t t = 0; t < rows; t++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += X[t * ldx + j] * Y[t * n + j];
        dot[t] += s * sum;
    }
}

void ra_ref_row_dot_vector(ra_backend *b, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v, double *dot)
{
    (void)b;
    const double *X = x, *V = v;
    for (int64_t t = 0; t < rows; t++) {
        double sum = 0;
        for (int64_t j = 0; j < n; j++) sum += X[t * ldx + j] * V[j];
        dot[t] += sum;
    }
}
