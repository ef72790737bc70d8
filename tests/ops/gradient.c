/* Every gradient operator of the reference against central differences of its forward operator: L = sum_i c[i] y[i] with random c, or the loss
 * the operator belongs to. Prints the relative norm of the difference and the cosine. The other backends agree with the reference (agree.c). */
#include "support/op_run.h"

#include <realign/mem.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SEED = 77, VOCABULARY = 11 };
static const double tolerance = 1e-7; /* relative norm; central differences with step 1e-5 in double leave about 1e-9 */

/* Whatever a forward operator needs, for one loss; arrays are of the reference: doubles on the host. */
typedef struct {
    ra_backend *b;
    int64_t rows, n;
    double *x, *w, *y, *rstd; /* inputs, outputs */
    double *c;                /* dL/dy */
    bool plus_one;
    ra_glu glu;
    ra_pack pack;
    ra_attention a;
    double *lse;
    double softcap;
    const int32_t *index;
    double *z_ref, *lse_ref;
} problem;

typedef double (*loss_of)(problem *p);

static double *normals(ra_rng *rng, int64_t n, double scale)
{
    double *x = ra_calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = scale * ra_rng_normal(rng);
    return x;
}

static double *zeros(int64_t n)
{
    return ra_calloc((size_t)n, sizeof(double));
}

static double inner(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* `gradient` of `loss` with respect to the n values at x, which lie in p. */
static void check_gradient(const char *what, loss_of loss, problem *p, double *x, int64_t n, const double *gradient)
{
    double difference = 0, norm = 0, norm_gradient = 0, product = 0;
    for (int64_t i = 0; i < n; i++) {
        double at = x[i], step = 1e-5 * fmax(1, fabs(at));
        x[i] = at + step;
        double above = loss(p);
        x[i] = at - step;
        double below = loss(p);
        x[i] = at;
        double slope = (above - below) / (2 * step);
        difference += (slope - gradient[i]) * (slope - gradient[i]);
        norm += slope * slope;
        norm_gradient += gradient[i] * gradient[i];
        product += slope * gradient[i];
    }
    double relative = sqrt(difference / norm), cosine = product / sqrt(norm * norm_gradient);
    printf("# %s: relative norm %.1e of %.0e, 1 - cosine %.1e, seed %d\n", what, relative, tolerance, 1 - cosine, SEED);
    assert_true(relative <= tolerance); /* false for a NaN */
    assert_true(cosine > 1 - 1e-10);
}

static void check_same(const char *what, double got, double wanted)
{
    double error = fabs(got - wanted) / fabs(wanted);
    printf("# %s: %.15g, %.15g, relative error %.1e of 1e-12\n", what, got, wanted, error);
    assert_true(error <= 1e-12);
}

static ra_backend *open_ref(void)
{
    ra_backend *b = NULL;
    if (ra_backend_open("ref", "fp64", 0, &b) != RA_OK) fail_msg("%s", ra_error_message());
    return b;
}

/* ---- products: Y = X W^T, dX = dY W, dW += dY^T X ---- */

enum { OUTPUTS = 4 };

static double linear_loss(problem *p)
{
    p->b->ops->gemm(p->b, RA_NO_TRANSPOSE, RA_TRANSPOSE, p->rows, OUTPUTS, p->n, p->x, p->n, p->w, p->n, false, false, p->y,
                    OUTPUTS);
    return inner(p->rows * OUTPUTS, p->c, p->y);
}

static void test_gemm(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    problem p = {.b = open_ref(), .rows = 5, .n = 7};
    p.x = normals(&rng, 5 * 7, 1), p.w = normals(&rng, OUTPUTS * 7, 1), p.c = normals(&rng, 5 * OUTPUTS, 1),
    p.y = zeros(5 * OUTPUTS);
    double *dx = zeros(5 * 7), *dw = zeros(OUTPUTS * 7);
    p.b->ops->gemm(p.b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, 5, 7, OUTPUTS, p.c, OUTPUTS, p.w, 7, false, false, dx, 7);
    p.b->ops->gemm(p.b, RA_TRANSPOSE, RA_NO_TRANSPOSE, OUTPUTS, 7, 5, p.c, OUTPUTS, p.x, 7, true, true, dw, 7);
    check_gradient("gemm dX", linear_loss, &p, p.x, 5 * 7, dx);
    check_gradient("gemm dW", linear_loss, &p, p.w, OUTPUTS * 7, dw);
    double *owned[] = {p.x, p.w, p.c, p.y, dx, dw};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static double bias_loss(problem *p)
{
    memcpy(p->y, p->x, (size_t)(p->rows * p->n) * sizeof(double));
    p->b->ops->bias_add(p->b, p->rows, p->n, p->w, p->y, p->n);
    return inner(p->rows * p->n, p->c, p->y);
}

static void test_bias(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    problem p = {.b = open_ref(), .rows = 5, .n = 7};
    p.x = normals(&rng, 35, 1), p.w = normals(&rng, 7, 1), p.c = normals(&rng, 35, 1), p.y = zeros(35);
    double *dbias = zeros(7), *g = normals(&rng, 7, 1), *dot = zeros(5), along_g = 0;
    p.b->ops->bias_grad(p.b, 5, 7, p.c, 7, dbias);
    check_gradient("bias_grad", bias_loss, &p, p.w, 7, dbias);
    p.b->ops->row_dot_vector(p.b, 5, 7, p.c, 7, g, dot);
    for (int t = 0; t < 5; t++) along_g += dot[t];
    check_same("row_dot_vector, sum over rows, and <dbias, g>", along_g, inner(7, dbias, g));
    double *owned[] = {p.x, p.w, p.c, p.y, dbias, g, dot};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

/* <dL/dX', Y> s, with X' = X + s Y, is the derivative along s: what add_scaled adds, row_dot measures. */
static void test_add_scaled_row_dot(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    ra_backend *b = open_ref();
    double *x = normals(&rng, 35, 1), *y = normals(&rng, 35, 1), *c = normals(&rng, 35, 1), *dot = zeros(5), total = 0;
    double before = inner(35, c, x);
    b->ops->add_scaled(b, 5, 7, 0.25, y, x, 7);
    b->ops->row_dot(b, 5, 7, 0.25, c, 7, y, dot);
    for (int t = 0; t < 5; t++) total += dot[t];
    check_same("add_scaled and row_dot", total, inner(35, c, x) - before);
    double *owned[] = {x, y, c, dot};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(b);
}

/* ---- embedding and rows ---- */

static double embed_loss(problem *p)
{
    p->b->ops->embed(p->b, p->rows, p->n, p->index, 1.5, p->w, p->y);
    return inner(p->rows * p->n, p->c, p->y);
}

static void test_embed(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    const int32_t token[6] = {3, 0, 3, -1, 10, 3};
    problem p = {.b = open_ref(), .rows = 6, .n = 5, .index = token};
    p.w = normals(&rng, VOCABULARY * 5, 1), p.c = normals(&rng, 30, 1), p.y = zeros(30);
    double *dw = zeros(VOCABULARY * 5), *g = normals(&rng, VOCABULARY * 5, 1), *dot = zeros(6), along_g = 0;
    p.b->ops->embed_grad(p.b, 6, 5, token, 1.5, p.c, dw);
    check_gradient("embed_grad", embed_loss, &p, p.w, VOCABULARY * 5, dw);
    p.b->ops->embed_dot(p.b, 6, 5, token, 1.5, p.c, g, dot);
    for (int t = 0; t < 6; t++) along_g += dot[t];
    check_same("embed_dot, sum over rows, and <dW, G>", along_g, inner(VOCABULARY * 5, dw, g));
    double *owned[] = {p.w, p.c, p.y, dw, g, dot};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static double gather_loss(problem *p)
{
    p->b->ops->gather_rows(p->b, p->rows, p->n, p->index, p->x, p->y);
    return inner(p->rows * p->n, p->c, p->y);
}

static void test_gather(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    const int32_t row[6] = {2, 4, 4, 0, 2, 2};
    problem p = {.b = open_ref(), .rows = 6, .n = 5, .index = row};
    p.x = normals(&rng, 5 * 5, 1), p.c = normals(&rng, 30, 1), p.y = zeros(30);
    double *dx = zeros(5 * 5);
    p.b->ops->scatter_add_rows(p.b, 6, 5, row, p.c, dx);
    check_gradient("scatter_add_rows of gather_rows", gather_loss, &p, p.x, 5 * 5, dx);
    double *owned[] = {p.x, p.c, p.y, dx};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

/* ---- norm ---- */

static double rmsnorm_loss(problem *p)
{
    p->b->ops->rmsnorm(p->b, p->rows, p->n, p->x, p->w, p->plus_one, 1e-2, p->y, p->rstd);
    return inner(p->rows * p->n, p->c, p->y);
}

static double rmsnorm_add_loss(problem *p)
{
    memset(p->y, 0, (size_t)(p->rows * p->n) * sizeof(double));
    p->b->ops->rmsnorm_add(p->b, p->rows, p->n, p->x, p->w, p->plus_one, 1e-2, p->y, p->rstd);
    return inner(p->rows * p->n, p->c, p->y);
}

static void check_rmsnorm(bool plus_one, bool accumulate, loss_of loss)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    problem p = {.b = open_ref(), .rows = 4, .n = 9, .plus_one = plus_one};
    p.x = normals(&rng, 36, 0.3), p.w = normals(&rng, 9, 1), p.c = normals(&rng, 36, 1), p.y = zeros(36), p.rstd = zeros(4);
    double *dx = normals(&rng, 36, 1), *dw = zeros(9), *g = normals(&rng, 9, 1), *dot = zeros(4), *before = zeros(36),
           along_g = 0;
    memcpy(before, dx, 36 * sizeof(double));
    loss(&p); /* sets rstd */
    p.b->ops->rmsnorm_grad(p.b, 4, 9, p.x, p.w, plus_one, p.rstd, p.c, accumulate, dx, dw, g, dot);
    for (int i = 0; i < 36 && accumulate; i++) dx[i] -= before[i];
    check_gradient("rmsnorm_grad dx", loss, &p, p.x, 36, dx);
    check_gradient("rmsnorm_grad dw", loss, &p, p.w, 9, dw);
    for (int t = 0; t < 4; t++) along_g += dot[t];
    check_same("rmsnorm_grad dot, sum over rows, and <dw, g>", along_g, inner(9, dw, g));
    double *owned[] = {p.x, p.w, p.c, p.y, p.rstd, dx, dw, g, dot, before};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    check_rmsnorm(false, false, rmsnorm_loss);
    check_rmsnorm(true, true, rmsnorm_loss);
    check_rmsnorm(true, false, rmsnorm_add_loss);
}

/* ---- rope and attention ---- */

enum { ROPE_HEADS = 2, ROPE_DIM = 6, ROPE_ROWS = 4 };

static double rope_loss(problem *p)
{
    memcpy(p->y, p->x, (size_t)(ROPE_ROWS * p->n) * sizeof(double));
    p->b->ops->rope(p->b, ROPE_ROWS, ROPE_HEADS, ROPE_DIM, p->index, p->w, p->w + 5 * ROPE_DIM / 2, false, p->y, p->n);
    return inner(ROPE_ROWS * p->n, p->c, p->y);
}

static void test_rope(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    const int32_t position[ROPE_ROWS] = {0, 4, 1, 4};
    problem p = {.b = open_ref(), .n = ROPE_HEADS * ROPE_DIM, .index = position};
    int64_t n = ROPE_ROWS * p.n;
    p.x = normals(&rng, n, 1), p.w = normals(&rng, 5 * ROPE_DIM, 1), p.c = normals(&rng, n, 1), p.y = zeros(n);
    double *dx = zeros(n);
    memcpy(dx, p.c, (size_t)n * sizeof(double));
    p.b->ops->rope(p.b, ROPE_ROWS, ROPE_HEADS, ROPE_DIM, position, p.w, p.w + 5 * ROPE_DIM / 2, true, dx, p.n);
    check_gradient("rope, inverse", rope_loss, &p, p.x, n, dx);
    double *owned[] = {p.x, p.w, p.c, p.y, dx};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static double attention_loss(problem *p)
{
    p->b->ops->attention(p->b, &p->pack, &p->a, p->x, p->y, p->lse);
    return inner(p->rows * p->n, p->c, p->y);
}

static void check_attention(const char *what, const int32_t (*forest)[2], ra_attention a)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    problem p = {.b = open_ref(), .n = (int64_t)a.heads * a.head_dim, .a = a, .pack = op_pack(forest)};
    p.rows = p.pack.rows;
    int64_t n = p.rows * (a.heads + 2 * a.kv_heads) * a.head_dim;
    p.x = normals(&rng, n, 1), p.c = normals(&rng, p.rows * p.n, 1), p.y = zeros(p.rows * p.n), p.lse = zeros(p.rows * a.heads);
    double *dx = normals(&rng, n, 1); /* overwritten */
    attention_loss(&p);
    p.b->ops->attention_grad(p.b, &p.pack, &p.a, p.x, p.y, p.lse, p.c, dx);
    check_gradient(what, attention_loss, &p, p.x, n, dx);
    double *owned[] = {p.x, p.c, p.y, p.lse, dx};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    op_pack_free(&p.pack);
    ra_backend_close(p.b);
}

static void test_attention(void **state)
{
    (void)state;
    static const int32_t row[][2] = {{-1, 1}, {-1, 3}, {-1, -1}}, pair[][2] = {{-1, 5}, {0, 3}, {0, 1}, {0, 4}, {-1, -1}};
    static const int32_t deep[][2] = {{-1, 3}, {0, 2}, {1, 3}, {2, 2}, {0, 0}, {0, 1}, {-1, 2}, {6, 3}, {-1, -1}};
    check_attention("attention_grad, two trees", row, (ra_attention){2, 2, 4, 0.5, 0, 0});
    check_attention("attention_grad, prompt and responses, groups of 3", pair, (ra_attention){6, 2, 4, 0.5, 0, 0});
    check_attention("attention_grad, soft-cap", pair, (ra_attention){4, 1, 6, 0.6, 1.5, 0});
    check_attention("attention_grad, depth four", deep, (ra_attention){3, 1, 4, 0.5, 0, 0});
    check_attention("attention_grad, depth four, soft-cap, window", deep, (ra_attention){4, 2, 4, 0.5, 2, 3});
}

/* ---- gated linear unit ---- */

static double glu_loss(problem *p)
{
    p->b->ops->glu(p->b, p->rows, p->n, p->glu, p->x, p->y);
    return inner(p->rows * p->n, p->c, p->y);
}

static void check_glu(const char *what, ra_glu kind)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    problem p = {.b = open_ref(), .rows = 4, .n = 9, .glu = kind};
    p.x = normals(&rng, 72, 1.5), p.c = normals(&rng, 36, 1), p.y = zeros(36);
    double *dx = zeros(72);
    p.b->ops->glu_grad(p.b, 4, 9, kind, p.x, p.c, dx);
    check_gradient(what, glu_loss, &p, p.x, 72, dx);
    double *owned[] = {p.x, p.c, p.y, dx};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static void test_glu(void **state)
{
    (void)state;
    check_glu("glu_grad silu", RA_GLU_SILU);
    check_glu("glu_grad gelu_tanh", RA_GLU_GELU_TANH);
}

/* ---- head rows: all of the vocabulary is one block here; agree.c has several ---- */

/* log-sum-exp of each row of l(z), through softmax_update */
static void row_lse(problem *p, const double *z, double *lse, double *target_logit)
{
    double *sum = zeros(p->rows);
    for (int64_t i = 0; i < p->rows; i++) lse[i] = -INFINITY;
    p->b->ops->softmax_update(p->b, p->rows, p->n, 0, p->softcap, z, p->index, lse, sum, target_logit);
    for (int64_t i = 0; i < p->rows; i++) lse[i] += log(sum[i]);
    ra_free(sum);
}

/* sum_i c[i] log p(target[i]) */
static double log_prob_loss(problem *p)
{
    row_lse(p, p->x, p->lse, p->y);
    double loss = 0;
    for (int64_t i = 0; i < p->rows; i++) loss += p->c[i] * (p->y[i] - p->lse[i]);
    return loss;
}

/* sum_i c[i] KL(p_ref || p) */
static double kl_loss(problem *p)
{
    double *maximum = zeros(p->rows), *sum = zeros(p->rows), *weighted = zeros(p->rows), loss = 0;
    for (int64_t i = 0; i < p->rows; i++) maximum[i] = -INFINITY;
    row_lse(p, p->x, p->lse, p->y);
    p->b->ops->kl_update(p->b, p->rows, p->n, p->softcap, p->x, p->z_ref, maximum, sum, weighted);
    for (int64_t i = 0; i < p->rows; i++) loss += p->c[i] * (weighted[i] / sum[i] - maximum[i] - log(sum[i]) + p->lse[i]);
    ra_free(maximum);
    ra_free(sum);
    ra_free(weighted);
    return loss;
}

static void check_head(double softcap)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    const int32_t target[3] = {0, 10, 4};
    problem p = {.b = open_ref(), .rows = 3, .n = VOCABULARY, .softcap = softcap, .index = target};
    int64_t n = 3 * VOCABULARY;
    p.x = normals(&rng, n, 2), p.z_ref = normals(&rng, n, 2), p.c = normals(&rng, 3, 1), p.y = zeros(3), p.lse = zeros(3),
    p.lse_ref = zeros(3);
    double *dz = zeros(n);
    log_prob_loss(&p);
    p.b->ops->softmax_grad(p.b, 3, VOCABULARY, 0, softcap, p.x, target, p.lse, p.c, dz);
    check_gradient(softcap > 0 ? "softmax_grad, soft-cap" : "softmax_grad", log_prob_loss, &p, p.x, n, dz);
    row_lse(&p, p.x, p.lse, p.y); /* the differences above left that of a shifted x */
    row_lse(&p, p.z_ref, p.lse_ref, p.y);
    p.b->ops->kl_grad(p.b, 3, VOCABULARY, softcap, p.x, p.z_ref, p.lse, p.lse_ref, p.c, dz);
    check_gradient(softcap > 0 ? "kl_grad, soft-cap" : "kl_grad", kl_loss, &p, p.x, n, dz);
    double *owned[] = {p.x, p.z_ref, p.c, p.y, p.lse, p.lse_ref, dz};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) ra_free(owned[i]);
    ra_backend_close(p.b);
}

static void test_head(void **state)
{
    (void)state;
    check_head(0);
    check_head(3);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),  cmocka_unit_test(test_bias),      cmocka_unit_test(test_add_scaled_row_dot),
        cmocka_unit_test(test_embed), cmocka_unit_test(test_gather),    cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),  cmocka_unit_test(test_attention), cmocka_unit_test(test_glu),
        cmocka_unit_test(test_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
