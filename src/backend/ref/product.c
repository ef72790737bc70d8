/* Matrix products and what goes with them: biases, scaled sums, row dots. */
#include "ref.h"

#include <realign/mem.h>

/* op(X), (rows, columns), as a dense array of its own; free with ra_free. */
static double *dense(ra_transpose transpose, int64_t rows, int64_t columns, const double *x, int64_t ldx)
{
    double *y = ra_alloc((size_t)(rows * columns), sizeof *y);
#pragma omp parallel for if (rows * columns > 100000)
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) y[i * columns + j] = transpose == RA_TRANSPOSE ? x[j * ldx + i] : x[i * ldx + j];
    }
    return y;
}

void ra_ref_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    (void)b;
    (void)c_is_r; /* A and R are the same type here */
    /* C is the sum over p of (column p of op(X)) (row p of op(Y)), taken 64 columns at a time, which stay in cache while p runs */
    enum { COLUMNS = 64 };
    double *X = dense(tx == RA_TRANSPOSE ? RA_NO_TRANSPOSE : RA_TRANSPOSE, k, m, x, ldx), *Y = dense(ty, k, n, y, ldy), *C = c;
#pragma omp parallel for if (m * n * k > 100000)
    for (int64_t from = 0; from < n; from += COLUMNS) {
        int64_t to = from + COLUMNS < n ? from + COLUMNS : n;
        for (int64_t i = 0; i < m && !accumulate; i++) {
            for (int64_t j = from; j < to; j++) C[i * ldc + j] = 0;
        }
        for (int64_t p = 0; p < k; p++) {
            for (int64_t i = 0; i < m; i++) {
                for (int64_t j = from; j < to; j++) C[i * ldc + j] += X[p * m + i] * Y[p * n + j];
            }
        }
    }
    ra_free(X);
    ra_free(Y);
}

/* Plain loops read W as it is: there is nothing to pack. */
void *ra_ref_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw)
{
    (void)b, (void)n, (void)k, (void)w, (void)ldw;
    return NULL;
}

size_t ra_ref_packed_bytes(ra_backend *b, int64_t n, int64_t k)
{
    (void)b, (void)n, (void)k;
    return 0;
}

void ra_ref_release_packed(ra_backend *b, void *packed)
{
    (void)b, (void)packed;
}

void ra_ref_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                        bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    (void)b, (void)m, (void)n, (void)k, (void)x, (void)ldx, (void)packed, (void)accumulate, (void)c_is_r, (void)c, (void)ldc;
    ra_die("ref: a product with packed weights, and nothing was packed");
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
