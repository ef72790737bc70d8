#include "op_head.h"

#include <realign/mem.h>

#include <math.h>

static const void *block_of(op_run *r, const void *z, int64_t rows, int64_t vocabulary, int64_t v0, int64_t nv)
{
    void *block = op_out(r, NULL, OP_R, rows * nv);
    size_t size = r->b->r_size;
    for (int64_t i = 0; i < rows; i++) {
        r->b->ops->copy(r->b, (char *)block + (size_t)(i * nv) * size, (const char *)z + (size_t)(i * vocabulary + v0) * size,
                        (size_t)nv * size);
    }
    return block;
}

static double *filled(op_run *r, int64_t n, double value)
{
    double *x = ra_calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = value;
    double *placed = op_given(r, OP_DOUBLE, n, x);
    ra_free(x);
    return placed;
}

/* Rows of an even length hold every value twice: the first one is to be chosen. */
void run_argmax_update(op_run *r, const op_case *c)
{
    void *z = op_r(r, c->rows * c->n, 8);
    size_t half = (size_t)(c->n / 2) * r->b->r_size, size = (size_t)c->n * r->b->r_size;
    for (int64_t i = 0; c->n % 2 == 0 && i < c->rows; i++) {
        char *row = (char *)z + (size_t)i * size;
        r->b->ops->copy(r->b, row + half, row, half);
    }
    double *best = filled(r, c->rows, -INFINITY), *chosen = op_out(r, "token", OP_HOST, c->rows);
    r->buffer[r->buffers - 2].name = "best";
    int32_t *token = op_indices(r, c->rows, 1, 0), *on_host = op_host_indices(r, c->rows, 1, 0);
    for (int64_t v0 = 0; v0 < c->n; v0 += c->k) {
        int64_t nv = c->n - v0 < c->k ? c->n - v0 : c->k;
        r->b->ops->argmax_update(r->b, c->rows, nv, v0, block_of(r, z, c->rows, c->n, v0, nv), best, token);
    }
    r->b->ops->download(r->b, on_host, token, (size_t)c->rows * sizeof *token);
    for (int64_t i = 0; i < c->rows; i++) chosen[i] = on_host[i];
}

/* What is compared is what the loss reads: the log-sum-exp and the target's logit. A negative target lies in no block. */
void run_softmax_update(op_run *r, const op_case *c)
{
    const int32_t *target = op_indices(r, c->rows, c->n, 5);
    void *z = op_r(r, c->rows * c->n, 8 * op_spread(c));
    double *maximum = filled(r, c->rows, -INFINITY), *sum = filled(r, c->rows, 0);
    double *lse = op_out(r, "lse", OP_HOST, c->rows), *target_logit = op_out(r, "target_logit", OP_DOUBLE, c->rows);
    for (int64_t v0 = 0; v0 < c->n; v0 += c->k) {
        int64_t nv = c->n - v0 < c->k ? c->n - v0 : c->k;
        r->b->ops->softmax_update(r->b, c->rows, nv, v0, c->softcap, block_of(r, z, c->rows, c->n, v0, nv), target, maximum, sum,
                                  target_logit);
    }
    maximum = op_fetched(r, c->rows, maximum), sum = op_fetched(r, c->rows, sum);
    for (int64_t i = 0; i < c->rows; i++) lse[i] = maximum[i] + log(sum[i]);
}

void run_softmax_grad(op_run *r, const op_case *c)
{
    int32_t *target = op_indices(r, c->rows, 3 * c->n, 0); /* two of three outside the block [n, 2n) */
    void *z = op_r(r, c->rows * c->n, 3);
    double *lse = filled(r, c->rows, 3 + log((double)c->n)), *coefficient = op_double(r, c->rows, 1);
    r->b->ops->softmax_grad(r->b, c->rows, c->n, c->n, c->softcap, z, target, lse, coefficient,
                            op_out(r, "dz", OP_A, c->rows * c->n));
}

/* KL = weighted / sum_ref - lse_ref + lse; the first term and lse_ref are compared. */
void run_kl_update(op_run *r, const op_case *c)
{
    void *z = op_r(r, c->rows * c->n, 4 * op_spread(c)), *z_ref = op_r(r, c->rows * c->n, 4 * op_spread(c));
    double *maximum = filled(r, c->rows, -INFINITY), *sum = filled(r, c->rows, 0), *weighted = filled(r, c->rows, 0);
    double *lse_ref = op_out(r, "lse_ref", OP_HOST, c->rows), *mean = op_out(r, "mean difference", OP_HOST, c->rows);
    for (int64_t v0 = 0; v0 < c->n; v0 += c->k) {
        int64_t nv = c->n - v0 < c->k ? c->n - v0 : c->k;
        r->b->ops->kl_update(r->b, c->rows, nv, c->softcap, block_of(r, z, c->rows, c->n, v0, nv),
                             block_of(r, z_ref, c->rows, c->n, v0, nv), maximum, sum, weighted);
    }
    maximum = op_fetched(r, c->rows, maximum), sum = op_fetched(r, c->rows, sum), weighted = op_fetched(r, c->rows, weighted);
    for (int64_t i = 0; i < c->rows; i++) {
        lse_ref[i] = maximum[i] + log(sum[i]);
        mean[i] = weighted[i] / sum[i];
    }
}

void run_kl_grad(op_run *r, const op_case *c)
{
    void *z = op_r(r, c->rows * c->n, 3), *z_ref = op_r(r, c->rows * c->n, 3);
    double *lse = filled(r, c->rows, 3 + log((double)c->n)), *lse_ref = filled(r, c->rows, 4 + log((double)c->n));
    double *coefficient = op_double(r, c->rows, 1);
    r->b->ops->kl_grad(r->b, c->rows, c->n, c->softcap, z, z_ref, lse, lse_ref, coefficient,
                       op_out(r, "dz", OP_A, c->rows * c->n));
}
