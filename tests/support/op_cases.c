#include "op_cases.h"

#include "op_attention.h"
#include "op_head.h"

#include <realign/mem.h>

#include <math.h>
#include <string.h>

/* ---- memory and casts ---- */

static void run_cast_to_a(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->n, 3);
    r->b->ops->cast_to_a(r->b, c->n, x, op_out(r, "y", OP_A, c->n));
}

static void run_cast_to_r(op_run *r, const op_case *c)
{
    void *x = op_a(r, c->n, 3);
    r->b->ops->cast_to_r(r->b, c->n, x, op_out(r, "y", OP_R, c->n));
}

/* Device to device, and back to zero in the middle. */
static void run_copy_zero(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->n, 3), *y = op_out(r, "y", OP_R, c->n);
    size_t size = r->b->r_size;
    r->b->ops->copy(r->b, y, x, (size_t)c->n * size);
    r->b->ops->zero(r->b, (char *)y + (size_t)(c->n / 3) * size, (size_t)(c->n / 3) * size);
}

/* New memory is zeroed and 64-byte aligned. */
static void run_alloc(op_run *r, const op_case *c)
{
    void *fresh = r->b->ops->alloc(r->b, (size_t)c->n * r->b->r_size), *y = op_out(r, "fresh", OP_R, c->n);
    double *misaligned = op_out(r, "misaligned", OP_HOST, 1);
    *misaligned = (double)((uintptr_t)fresh % 64);
    r->b->ops->copy(r->b, y, fresh, (size_t)c->n * r->b->r_size);
    r->b->ops->release(r->b, fresh);
}

/* ---- products ---- */

static void run_gemm(op_run *r, const op_case *c)
{
    int64_t m = c->rows, n = c->n, k = c->k;
    int64_t x_rows = c->tx == RA_TRANSPOSE ? k : m, ldx = (c->tx == RA_TRANSPOSE ? m : k) + c->pad;
    int64_t y_rows = c->ty == RA_TRANSPOSE ? n : k, ldy = (c->ty == RA_TRANSPOSE ? k : n) + c->pad, ldc = n + c->pad;
    op_kind kind = c->c_is_r ? OP_R : OP_A;
    void *x = op_a(r, x_rows * ldx, 1), *y = op_a(r, y_rows * ldy, 1);
    void *z = c->accumulate ? op_inout(r, "C", kind, m * ldc, 1) : op_out(r, "C", kind, m * ldc);
    r->b->ops->gemm(r->b, c->tx, c->ty, m, n, k, x, ldx, y, ldy, c->accumulate, c->c_is_r, z, ldc);
}

/* Packed or not, the product is that of W itself; where nothing is packed, gemm is what callers use. */
static void run_gemm_packed(op_run *r, const op_case *c)
{
    int64_t m = c->rows, n = c->n, k = c->k, ldx = k + c->pad, ldw = k + c->pad, ldc = n + c->pad;
    op_kind kind = c->c_is_r ? OP_R : OP_A;
    void *x = op_a(r, m * ldx, 1), *w = op_a(r, n * ldw, 1);
    void *z = c->accumulate ? op_inout(r, "C", kind, m * ldc, 1) : op_out(r, "C", kind, m * ldc);
    void *packed = r->b->ops->pack_weights(r->b, n, k, w, ldw);
    if (packed) {
        r->b->ops->gemm_packed(r->b, m, n, k, x, ldx, packed, c->accumulate, c->c_is_r, z, ldc);
        r->b->ops->release_packed(r->b, packed);
    } else {
        r->b->ops->gemm(r->b, RA_NO_TRANSPOSE, RA_TRANSPOSE, m, n, k, x, ldx, w, ldw, c->accumulate, c->c_is_r, z, ldc);
    }
}

static void run_bias_add(op_run *r, const op_case *c)
{
    int64_t ld = c->n + c->pad;
    void *bias = op_r(r, c->n, 1);
    r->b->ops->bias_add(r->b, c->rows, c->n, bias, op_inout(r, "Y", OP_A, c->rows * ld, 1), ld);
}

static void run_bias_grad(op_run *r, const op_case *c)
{
    int64_t ld = c->n + c->pad;
    void *dy = op_a(r, c->rows * ld, 1);
    r->b->ops->bias_grad(r->b, c->rows, c->n, dy, ld, op_inout(r, "dbias", OP_R, c->n, 1));
}

static void run_add_scaled(op_run *r, const op_case *c)
{
    int64_t ld = c->n + c->pad;
    void *y = op_r(r, c->rows * c->n, 1);
    r->b->ops->add_scaled(r->b, c->rows, c->n, -0.7, y, op_inout(r, "X", OP_A, c->rows * ld, 1), ld);
}

static void run_row_dot(op_run *r, const op_case *c)
{
    int64_t ld = c->n + c->pad;
    void *x = op_a(r, c->rows * ld, 1), *y = op_r(r, c->rows * c->n, 1);
    r->b->ops->row_dot(r->b, c->rows, c->n, 0.5, x, ld, y, op_inout(r, "dot", OP_DOUBLE, c->rows, 1));
}

static void run_row_dot_vector(op_run *r, const op_case *c)
{
    int64_t ld = c->n + c->pad;
    void *x = op_a(r, c->rows * ld, 1), *v = op_r(r, c->n, 1);
    r->b->ops->row_dot_vector(r->b, c->rows, c->n, x, ld, v, op_inout(r, "dot", OP_DOUBLE, c->rows, 1));
}

/* ---- embedding and rows; k = vocabulary ---- */

static void run_embed(op_run *r, const op_case *c)
{
    const int32_t *token = op_indices(r, c->rows, c->k, 4);
    void *w = op_a(r, c->k * c->n, 1);
    r->b->ops->embed(r->b, c->rows, c->n, token, 1.75, w, op_out(r, "x", OP_R, c->rows * c->n));
}

static void run_embed_grad(op_run *r, const op_case *c)
{
    const int32_t *token = op_indices(r, c->rows, c->k, 4);
    void *dx = op_r(r, c->rows * c->n, 1);
    r->b->ops->embed_grad(r->b, c->rows, c->n, token, 1.75, dx, op_inout(r, "dW", OP_R, c->k * c->n, 1));
}

static void run_embed_dot(op_run *r, const op_case *c)
{
    const int32_t *token = op_indices(r, c->rows, c->k, 4);
    void *dx = op_r(r, c->rows * c->n, 1), *g = op_a(r, c->k * c->n, 1);
    r->b->ops->embed_dot(r->b, c->rows, c->n, token, 1.75, dx, g, op_inout(r, "dot", OP_DOUBLE, c->rows, 1));
}

static void run_gather_rows(op_run *r, const op_case *c)
{
    const int32_t *row = op_indices(r, c->rows, c->k, 0);
    void *x = op_r(r, c->k * c->n, 1);
    r->b->ops->gather_rows(r->b, c->rows, c->n, row, x, op_out(r, "y", OP_R, c->rows * c->n));
}

static void run_scatter_add_rows(op_run *r, const op_case *c)
{
    const int32_t *row = op_indices(r, c->rows, c->k, 0);
    void *y = op_r(r, c->rows * c->n, 1);
    r->b->ops->scatter_add_rows(r->b, c->rows, c->n, row, y, op_inout(r, "x", OP_R, c->k * c->n, 1));
}

/* ---- norm ---- */

static void run_rmsnorm(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->rows * c->n, 2 * op_spread(c)), *w = op_r(r, c->n, 1), *y = op_out(r, "y", OP_A, c->rows * c->n);
    r->b->ops->rmsnorm(r->b, c->rows, c->n, x, w, c->plus_one, 1e-5, y, op_out(r, "rstd", OP_R, c->rows));
}

static void run_rmsnorm_add(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->rows * c->n, 2 * op_spread(c)), *w = op_r(r, c->n, 1),
         *sum = op_inout(r, "sum", OP_R, c->rows * c->n, 1);
    r->b->ops->rmsnorm_add(r->b, c->rows, c->n, x, w, c->plus_one, 1e-6, sum, op_out(r, "rstd", OP_R, c->rows));
}

static void run_rmsnorm_grad(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->rows * c->n, 1), *w = op_r(r, c->n, 1), *dy = op_r(r, c->rows * c->n, 1), *g = op_r(r, c->n, 1);
    double *rstd = ra_calloc((size_t)c->rows, sizeof *rstd);
    for (int64_t t = 0; t < c->rows; t++) rstd[t] = 0.5 + ra_rng_uniform(&r->rng); /* an input of its own: need not belong to x */
    void *given = op_given(r, OP_R, c->rows, rstd);
    ra_free(rstd);
    void *dx = c->accumulate ? op_inout(r, "dx", OP_R, c->rows * c->n, 1) : op_out(r, "dx", OP_R, c->rows * c->n);
    void *dw = c->no_dw ? NULL : op_inout(r, "dw", OP_R, c->n, 1);
    double *dot = c->no_g ? NULL : op_inout(r, "dot", OP_DOUBLE, c->rows, 1);
    r->b->ops->rmsnorm_grad(r->b, c->rows, c->n, x, w, c->plus_one, given, dy, c->accumulate, dx, dw, c->no_g ? NULL : g, dot);
}

/* ---- gated linear unit ---- */

static void run_glu(op_run *r, const op_case *c)
{
    void *gate_up = op_a(r, c->rows * 2 * c->n, 3 * op_spread(c));
    r->b->ops->glu(r->b, c->rows, c->n, c->glu, gate_up, op_out(r, "h", OP_A, c->rows * c->n));
}

static void run_glu_grad(op_run *r, const op_case *c)
{
    void *dh = op_a(r, c->rows * c->n, 1), *gate_up = op_inout(r, "gate_up", OP_A, c->rows * 2 * c->n, 3 * op_spread(c));
    void *dgate_up = c->in_place ? gate_up : op_out(r, "dgate_up", OP_A, c->rows * 2 * c->n);
    r->b->ops->glu_grad(r->b, c->rows, c->n, c->glu, gate_up, dh, dgate_up);
}

/* ---- optimiser and vectors ---- */

static void run_sum_squares(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->n, 1);
    double *result = op_out(r, "sum", OP_HOST, 1);
    *result = r->b->ops->sum_squares(r->b, c->n, x);
}

/* Vectors with a common part, so that the sum is not mostly cancellation. */
static void run_dot(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->n, 1), *y = op_r(r, c->n, 0.3);
    r->b->ops->axpy(r->b, c->n, 1, x, y);
    double *result = op_out(r, "dot", OP_HOST, 1);
    *result = r->b->ops->dot(r->b, c->n, x, y);
}

static void run_adamw(op_run *r, const op_case *c)
{
    ra_adamw h = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-3, .weight_decay = 0.1, .gradient_scale = 0.37};
    h.correction1 = 1 - pow(h.beta1, 3);
    h.correction2 = 1 - pow(h.beta2, 3);
    void *g = op_r(r, c->n, 0.1), *m = op_inout(r, "m", OP_R, c->n, 0.1), *w = op_inout(r, "w", OP_R, c->n, 1);
    double *squares = ra_calloc((size_t)c->n, sizeof *squares);
    for (int64_t i = 0; i < c->n; i++) squares[i] = 1e-3 * ra_rng_uniform(&r->rng);
    void *v = op_given(r, OP_R, c->n, squares);
    r->buffer[r->buffers - 1].name = "v";
    ra_free(squares);
    r->b->ops->adamw(r->b, c->n, &h, g, m, v, w);
}

static void run_axpy(op_run *r, const op_case *c)
{
    void *x = op_r(r, c->n, 1);
    r->b->ops->axpy(r->b, c->n, -0.3, x, op_inout(r, "y", OP_R, c->n, 1));
}

/* ---- the table ---- */

#define SEGMENTS(...) ((const int32_t[][2]){__VA_ARGS__, {-1, -1}})
/* (parent, length) */
#define ONE_ROW SEGMENTS({-1, 1})
#define PLAIN SEGMENTS({-1, 45})
#define PAIR SEGMENTS({-1, 19}, {0, 7}, {0, 1}, {0, 12}) /* a prompt and its responses */
#define DEEP SEGMENTS({-1, 6}, {0, 5}, {1, 9}, {2, 4}, {1, 3}, {0, 2}, {-1, 1}, {-1, 33}, {7, 40}) /* three trees; depth four */
#define EMPTY SEGMENTS({-1, 5}, {0, 0}, {0, 4}, {2, 0}, {-1, 3}) /* branches that hold nothing */
#define LONG SEGMENTS({-1, 70}, {0, 65}, {0, 130})
#define NO_ROWS SEGMENTS({-1, 0})

#define N RA_NO_TRANSPOSE
#define T RA_TRANSPOSE
#define GEMM(X, Y, M, NN, K, P)                                                  \
    {                                                                            \
        "gemm", run_gemm, .tx = X, .ty = Y, .rows = M, .n = NN, .k = K, .pad = P \
    }
#define GEMM_R(X, Y, M, NN, K, P, ADD)                                                                              \
    {                                                                                                               \
        "gemm", run_gemm, .tx = X, .ty = Y, .rows = M, .n = NN, .k = K, .pad = P, .c_is_r = true, .accumulate = ADD \
    }
#define PACKED(M, NN, K, P, TO_R, ADD)                                                                          \
    {                                                                                                           \
        "gemm_packed", run_gemm_packed, .rows = M, .n = NN, .k = K, .pad = P, .c_is_r = TO_R, .accumulate = ADD \
    }
#define ROWS(OP, R, NN, P)                          \
    {                                               \
#OP, run_##OP, .rows = R, .n = NN, .pad = P \
    }
#define INDEXED(OP, R, NN, K)                     \
    {                                             \
#OP, run_##OP, .rows = R, .n = NN, .k = K \
    }
#define VECTOR(OP, NN)         \
    {                          \
#OP, run_##OP, .n = NN \
    }
#define ROPE(R, H, D, P, INV)                                                            \
    {                                                                                    \
        "rope", run_rope, .rows = R, .heads = H, .head_dim = D, .pad = P, .inverse = INV \
    }
/* bf16: the gradient may round the softmax or its own partial sums once more */
#define ATTENTION(F, H, KV, D, CAP, W)                                                                                 \
    {"attention", run_attention, .forest = F, .heads = H, .kv_heads = KV, .head_dim = D, .softcap = CAP, .window = W}, \
    {                                                                                                                  \
        "attention_grad", run_attention_grad, .forest = F, .heads = H, .kv_heads = KV, .head_dim = D, .softcap = CAP,  \
                                              .window = W, .slack = 2, .rounds = true                                  \
    }
#define PREFIXED(F, NN, H, KV, D, CAP, W, P)                                                                           \
    {                                                                                                                  \
        "attention_prefixed", run_attention_prefixed, .forest = F, .n = NN, .heads = H, .kv_heads = KV, .head_dim = D, \
                                                      .softcap = CAP, .window = W, .pad = P                            \
    }
#define CACHED(R, NN, H, KV, D, CAP, W, P)                                                                                       \
    {                                                                                                                            \
        "attention_cached", run_attention_cached, .rows = R, .n = NN, .heads = H, .kv_heads = KV, .head_dim = D, .softcap = CAP, \
                                                  .window = W, .pad = P                                                          \
    }
#define STORED(R, NN, H, KV, D, P)                                                                              \
    {                                                                                                           \
        "cache_store", run_cache_store, .rows = R, .n = NN, .heads = H, .kv_heads = KV, .head_dim = D, .pad = P \
    }
#define HEAD(OP, R, NN, K, CAP)                                   \
    {                                                             \
#OP, run_##OP, .rows = R, .n = NN, .k = K, .softcap = CAP \
    }

const op_case op_cases[] = {
    VECTOR(alloc, 1),
    VECTOR(alloc, 100003),
    VECTOR(copy_zero, 0),
    VECTOR(copy_zero, 17),
    VECTOR(copy_zero, 300001),
    VECTOR(cast_to_a, 0),
    VECTOR(cast_to_a, 1),
    VECTOR(cast_to_a, 70001),
    VECTOR(cast_to_r, 0),
    VECTOR(cast_to_r, 1),
    VECTOR(cast_to_r, 70001),

    GEMM(N, N, 1, 1, 1, 0),
    GEMM(N, T, 1, 257, 96, 0),
    GEMM(N, T, 3, 5, 7, 2),
    GEMM(N, T, 33, 64, 48, 0),
    GEMM(N, N, 17, 33, 130, 3),
    GEMM(T, N, 9, 65, 31, 1),
    GEMM(T, T, 7, 12, 5, 0),
    GEMM(N, T, 130, 70, 200, 0),
    GEMM(N, T, 0, 5, 7, 0),
    GEMM(N, N, 5, 0, 7, 0),
    GEMM(N, T, 4, 3, 0, 1),
    GEMM_R(N, T, 1, 1000, 64, 0, false),
    GEMM_R(N, T, 5, 33, 17, 4, false),
    GEMM_R(N, N, 12, 8, 100, 0, true),
    GEMM_R(T, N, 64, 48, 33, 0, true),
    GEMM_R(T, N, 7, 9, 1, 5, true),
    GEMM_R(T, N, 7, 9, 0, 5, true),
    GEMM_R(T, T, 3, 4, 6, 1, true),

    PACKED(1, 1, 1, 0, false, false),
    PACKED(32, 96, 64, 0, true, true),
    PACKED(7, 75, 37, 5, false, false),
    PACKED(33, 960, 576, 0, false, false),
    PACKED(200, 130, 172, 3, true, true),
    PACKED(5, 300, 65, 0, true, false),
    ROWS(bias_add, 1, 1, 0),
    ROWS(bias_add, 5, 33, 3),
    ROWS(bias_add, 70, 129, 0),
    ROWS(bias_add, 0, 8, 0),
    ROWS(bias_grad, 1, 1, 0),
    ROWS(bias_grad, 5, 33, 3),
    ROWS(bias_grad, 70, 129, 0),
    ROWS(bias_grad, 0, 8, 0),
    ROWS(add_scaled, 1, 1, 0),
    ROWS(add_scaled, 5, 33, 3),
    ROWS(add_scaled, 70, 129, 0),
    ROWS(add_scaled, 0, 8, 0),
    ROWS(row_dot, 1, 1, 0),
    ROWS(row_dot, 5, 33, 3),
    ROWS(row_dot, 70, 1129, 0),
    ROWS(row_dot, 0, 8, 0),
    ROWS(row_dot_vector, 1, 1, 0),
    ROWS(row_dot_vector, 5, 33, 3),
    ROWS(row_dot_vector, 70, 1129, 0),
    ROWS(row_dot_vector, 0, 8, 0),

    INDEXED(embed, 1, 1, 1),
    INDEXED(embed, 37, 33, 9),
    INDEXED(embed, 5, 576, 50),
    INDEXED(embed, 0, 8, 3),
    INDEXED(embed_grad, 1, 1, 1),
    INDEXED(embed_grad, 37, 33, 9),
    INDEXED(embed_grad, 5, 576, 50),
    INDEXED(embed_grad, 0, 8, 3),
    INDEXED(embed_dot, 1, 1, 1),
    INDEXED(embed_dot, 37, 33, 9),
    INDEXED(embed_dot, 5, 576, 50),
    INDEXED(embed_dot, 0, 8, 3),
    INDEXED(gather_rows, 1, 1, 1),
    INDEXED(gather_rows, 37, 33, 9),
    INDEXED(gather_rows, 0, 8, 3),
    INDEXED(scatter_add_rows, 1, 1, 1),
    INDEXED(scatter_add_rows, 37, 33, 9),
    INDEXED(scatter_add_rows, 0, 8, 3),

    ROWS(rmsnorm, 1, 1, 0),
    ROWS(rmsnorm, 7, 33, 0),
    ROWS(rmsnorm, 3, 1152, 0),
    ROWS(rmsnorm, 0, 8, 0),
    {"rmsnorm", run_rmsnorm, .rows = 5, .n = 64, .plus_one = true},
    ROWS(rmsnorm_add, 1, 1, 0),
    ROWS(rmsnorm_add, 7, 33, 0),
    ROWS(rmsnorm_add, 0, 8, 0),
    {"rmsnorm_add", run_rmsnorm_add, .rows = 5, .n = 1152, .plus_one = true},
    ROWS(rmsnorm_grad, 1, 1, 0),
    ROWS(rmsnorm_grad, 7, 33, 0),
    ROWS(rmsnorm_grad, 3, 1152, 0),
    ROWS(rmsnorm_grad, 0, 8, 0),
    {"rmsnorm_grad", run_rmsnorm_grad, .rows = 6, .n = 65, .plus_one = true, .accumulate = true},
    {"rmsnorm_grad", run_rmsnorm_grad, .rows = 6, .n = 65, .no_dw = true, .accumulate = true},
    {"rmsnorm_grad", run_rmsnorm_grad, .rows = 6, .n = 65, .no_g = true},
    {"rmsnorm_grad", run_rmsnorm_grad, .rows = 6, .n = 65, .no_g = true, .no_dw = true, .plus_one = true},

    ROPE(1, 1, 8, 0, false),
    ROPE(9, 3, 16, 5, false),
    ROPE(5, 9, 64, 0, true),
    ROPE(3, 2, 128, 128, false),
    ROPE(2, 1, 256, 0, true),
    ROPE(4, 2, 6, 1, true),
    ROPE(0, 2, 8, 0, false),

    ATTENTION(ONE_ROW, 1, 1, 8, 0, 0),
    ATTENTION(PLAIN, 3, 3, 16, 0, 0),
    ATTENTION(PLAIN, 2, 1, 20, 0, 0),
    ATTENTION(PAIR, 9, 3, 64, 0, 0),
    ATTENTION(PAIR, 8, 1, 8, 30, 0),
    ATTENTION(PAIR, 2, 2, 256, 0, 5),
    ATTENTION(PAIR, 4, 2, 128, 50, 4),
    ATTENTION(DEEP, 3, 1, 16, 0, 0),
    ATTENTION(DEEP, 4, 4, 64, 2, 7),
    ATTENTION(DEEP, 6, 2, 8, 0, 1),
    ATTENTION(DEEP, 2, 1, 32, 0, 1000),
    PREFIXED(SEGMENTS({-1, 1}), 1, 1, 1, 8, 0, 0, 0),
    PREFIXED(PAIR, 40, 9, 3, 64, 0, 0, 0),
    PREFIXED(PAIR, 17, 2, 2, 256, 30, 9, 3),
    PREFIXED(DEEP, 33, 3, 1, 16, 0, 0, 0),
    PREFIXED(DEEP, 70, 4, 2, 24, 2, 12, 0),
    PREFIXED(DEEP, 5, 2, 1, 32, 0, 1000, 8),
    PREFIXED(SEGMENTS({-1, 3}, {-1, 40}, {1, 2}, {-1, 1}, {-1, 50}), 100, 6, 3, 64, 0, 20,
             0), /* trees with one prefix and with others */
    ATTENTION(EMPTY, 3, 1, 16, 0, 0),
    ATTENTION(EMPTY, 2, 2, 8, 5, 2),
    ATTENTION(LONG, 3, 1, 64, 0, 0),
    ATTENTION(LONG, 2, 1, 48, 30, 40),
    ATTENTION(NO_ROWS, 3, 1, 16, 0, 0),
    STORED(1, 1, 1, 1, 8, 0),
    STORED(7, 9, 4, 2, 16, 5),
    STORED(400, 3, 6, 3, 64, 0),
    STORED(0, 3, 2, 1, 8, 0),
    CACHED(1, 1, 1, 1, 8, 0, 0, 0),
    CACHED(5, 37, 9, 3, 64, 0, 0, 16),
    CACHED(3, 200, 8, 1, 128, 30, 0, 0),
    CACHED(4, 33, 3, 3, 256, 0, 5, 7),
    CACHED(7, 64, 4, 2, 16, 50, 1, 0),
    CACHED(2, 19, 2, 1, 20, 0, 100, 3),
    CACHED(0, 5, 2, 1, 8, 0, 0, 0),

    {"glu", run_glu, .rows = 1, .n = 1},
    {"glu", run_glu, .rows = 5, .n = 33},
    {"glu", run_glu, .rows = 9, .n = 1536},
    {"glu", run_glu, .rows = 5, .n = 33, .glu = RA_GLU_GELU_TANH},
    {"glu", run_glu, .rows = 9, .n = 1536, .glu = RA_GLU_GELU_TANH},
    {"glu", run_glu, .rows = 0, .n = 8},
    {"glu_grad", run_glu_grad, .rows = 1, .n = 1},
    {"glu_grad", run_glu_grad, .rows = 5, .n = 33, .in_place = true},
    {"glu_grad", run_glu_grad, .rows = 9, .n = 1536},
    {"glu_grad", run_glu_grad, .rows = 5, .n = 33, .glu = RA_GLU_GELU_TANH},
    {"glu_grad", run_glu_grad, .rows = 9, .n = 1536, .glu = RA_GLU_GELU_TANH, .in_place = true},
    {"glu_grad", run_glu_grad, .rows = 0, .n = 8},

    HEAD(argmax_update, 1, 1, 1, 0),
    HEAD(argmax_update, 9, 1000, 300, 0),
    HEAD(argmax_update, 5, 1003, 256, 0),
    HEAD(argmax_update, 0, 7, 3, 0),
    HEAD(softmax_update, 1, 1, 1, 0),
    HEAD(softmax_update, 13, 7, 3, 0),
    HEAD(softmax_update, 5, 1003, 256, 0),
    HEAD(softmax_update, 5, 1003, 1003, 30),
    HEAD(softmax_update, 11, 300, 100, 5),
    HEAD(softmax_update, 0, 7, 3, 0),
    HEAD(softmax_grad, 1, 1, 0, 0),
    HEAD(softmax_grad, 13, 7, 0, 0),
    HEAD(softmax_grad, 9, 1003, 0, 0),
    HEAD(softmax_grad, 13, 333, 0, 5),
    HEAD(softmax_grad, 0, 7, 0, 0),
    HEAD(kl_update, 1, 1, 1, 0),
    HEAD(kl_update, 13, 7, 3, 0),
    HEAD(kl_update, 5, 1003, 256, 0),
    HEAD(kl_update, 5, 1003, 1003, 30),
    HEAD(kl_update, 11, 300, 100, 5),
    HEAD(kl_update, 0, 7, 3, 0),
    HEAD(kl_grad, 1, 1, 0, 0),
    HEAD(kl_grad, 13, 7, 0, 0),
    HEAD(kl_grad, 9, 1003, 0, 0),
    HEAD(kl_grad, 13, 333, 0, 5),
    HEAD(kl_grad, 0, 7, 0, 0),

    /* magnitudes at which exp overflows or underflows, and squares vanish */
    {"glu", run_glu, .rows = 5, .n = 33, .spread = 60},
    {"glu", run_glu, .rows = 5, .n = 33, .spread = 60, .glu = RA_GLU_GELU_TANH},
    {"glu_grad", run_glu_grad, .rows = 5, .n = 33, .spread = 60},
    {"glu_grad", run_glu_grad, .rows = 5, .n = 33, .spread = 60, .glu = RA_GLU_GELU_TANH},
    {"rmsnorm", run_rmsnorm, .rows = 5, .n = 64, .spread = 1e-21},
    {"rmsnorm", run_rmsnorm, .rows = 5, .n = 64, .spread = 1e14},
    {"softmax_update", run_softmax_update, .rows = 7, .n = 300, .k = 64, .spread = 400},
    {"softmax_update", run_softmax_update, .rows = 7, .n = 300, .k = 64, .spread = 400, .softcap = 30},
    {"kl_update", run_kl_update, .rows = 7, .n = 300, .k = 64, .spread = 400},
    {"attention", run_attention, .forest = PAIR, .heads = 3, .kv_heads = 1, .head_dim = 64, .spread = 6, .slack = 8},
    {"attention", run_attention, .forest = PAIR, .heads = 3, .kv_heads = 1, .head_dim = 64, .spread = 6, .softcap = 50,
     .slack = 8},

    VECTOR(sum_squares, 0),
    VECTOR(sum_squares, 1),
    VECTOR(sum_squares, 4097),
    VECTOR(sum_squares, 300001),
    VECTOR(dot, 0),
    VECTOR(dot, 1),
    VECTOR(dot, 4097),
    VECTOR(dot, 300001),
    VECTOR(adamw, 0),
    VECTOR(adamw, 1),
    VECTOR(adamw, 1003),
    VECTOR(adamw, 100003),
    VECTOR(axpy, 0),
    VECTOR(axpy, 1),
    VECTOR(axpy, 1003),
    VECTOR(axpy, 100003),
};
const int op_case_count = sizeof op_cases / sizeof op_cases[0];
