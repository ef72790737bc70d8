/* Rows picked by an index: the embedding and the gather and scatter of positions. */
#include "ref.h"

void ra_ref_embed(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w, void *x)
{
    (void)b;
    const double *W = w;
    double *X = x;
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t j = 0; j < h; j++) X[t * h + j] = token[t] < 0 ? 0 : scale * W[token[t] * h + j];
    }
}

void ra_ref_embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, void *dw)
{
    (void)b;
    const double *dX = dx;
    double *dW = dw;
    for (int64_t t = 0; t < rows; t++) {
        if (token[t] < 0) continue;
        for (int64_t j = 0; j < h; j++) dW[token[t] * h + j] += scale * dX[t * h + j];
    }
}

void ra_ref_embed_dot(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, const void *g,
                      double *dot)
{
    (void)b;
    const double *dX = dx, *G = g;
    for (int64_t t = 0; t < rows; t++) {
        if (token[t] < 0) continue;
        double sum = 0;
        for (int64_t j = 0; j < h; j++) sum += dX[t * h + j] * G[token[t] * h + j];
        dot[t] += scale * sum;
    }
}

void ra_ref_gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y)
{
    (void)b;
    const double *X = x;
    double *Y = y;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < h; j++) Y[i * h + j] = X[row[i] * h + j];
    }
}

void ra_ref_scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x)
{
    (void)b;
    const double *Y = y;
    double *X = x;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < h; j++) X[row[i] * h + j] += Y[i * h + j];
    }
}
