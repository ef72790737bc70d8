/* A NaN that goes in comes out, where the engine's checks will find it, and stays in the rows it belongs to. On every backend and precision. */
#include "support/op_run.h"
#include "support/support.h"

#include <realign/mem.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 6, WIDTH = 37, BAD_ROW = 2, BAD_COLUMN = 20, HEADS = 4, KV_HEADS = 2, DIM = 8 };

typedef struct {
    ra_backend *b;
    const op_instance *instance;
    const char *why;
} subject;

/* Inputs are 1 + i / n, but for one NaN at `bad` (-1: none). */
static void *input(op_run *r, op_kind kind, int64_t n, int64_t bad)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) value[i] = i == bad ? NAN : 1 + (double)i / (double)n;
    void *memory = op_given(r, kind, n, value);
    ra_free(value);
    return memory;
}

static void on_gemm(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_A, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *y = input(r, OP_A, 9 * WIDTH, -1);
    r->b->ops->gemm(r->b, RA_NO_TRANSPOSE, RA_TRANSPOSE, ROWS, 9, WIDTH, x, WIDTH, y, WIDTH, false, true,
                    op_out(r, "C", OP_R, ROWS * 9), 9);
}

static void on_gemm_to_a(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_A, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *y = input(r, OP_A, 9 * WIDTH, -1);
    r->b->ops->gemm(r->b, RA_NO_TRANSPOSE, RA_TRANSPOSE, ROWS, 9, WIDTH, x, WIDTH, y, WIDTH, false, false,
                    op_out(r, "C", OP_A, ROWS * 9), 9);
}

static void on_cast(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_R, ROWS, BAD_ROW), *y = op_out(r, "A", OP_A, ROWS);
    r->b->ops->cast_to_a(r->b, ROWS, x, y);
    r->b->ops->cast_to_r(r->b, ROWS, y, op_out(r, "R", OP_R, ROWS));
}

static void on_rmsnorm(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *w = input(r, OP_R, WIDTH, -1),
         *y = op_out(r, "y", OP_A, ROWS * WIDTH);
    r->b->ops->rmsnorm(r->b, ROWS, WIDTH, x, w, false, 1e-5, y, op_out(r, "rstd", OP_R, ROWS));
}

static void on_rmsnorm_grad(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_R, ROWS * WIDTH, -1), *w = input(r, OP_R, WIDTH, -1), *rstd = input(r, OP_R, ROWS, -1);
    void *dy = input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *g = input(r, OP_R, WIDTH, -1);
    void *dx = op_out(r, "dx", OP_R, ROWS * WIDTH);
    r->b->ops->rmsnorm_grad(r->b, ROWS, WIDTH, x, w, false, rstd, dy, false, dx, NULL, g, op_out(r, "dot", OP_DOUBLE, ROWS));
}

static void on_row_dot(op_run *r, const op_case *c)
{
    (void)c;
    void *x = input(r, OP_A, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *y = input(r, OP_R, ROWS * WIDTH, -1);
    r->b->ops->row_dot(r->b, ROWS, WIDTH, 1, x, WIDTH, y, op_out(r, "dot", OP_DOUBLE, ROWS));
}

/* Where a running maximum begins. */
static double *infinitely_small(op_run *r)
{
    double value[ROWS];
    for (int i = 0; i < ROWS; i++) value[i] = -INFINITY;
    return op_given(r, OP_DOUBLE, ROWS, value);
}

/* Both soft-capped and not; two blocks, the NaN in the first, so that the second must not lose it. */
static void head(op_run *r, const op_case *c, const void *block, const void *clean)
{
    int32_t *target = op_indices(r, ROWS, WIDTH, 0);
    double *maximum = infinitely_small(r), *sum = op_double(r, ROWS, 0), *target_logit = op_double(r, ROWS, 0),
           *lse = op_out(r, "lse", OP_HOST, ROWS);
    r->b->ops->softmax_update(r->b, ROWS, WIDTH, 0, c->softcap, block, target, maximum, sum, target_logit);
    r->b->ops->softmax_update(r->b, ROWS, WIDTH, WIDTH, c->softcap, clean, target, maximum, sum, target_logit);
    maximum = op_fetched(r, ROWS, maximum), sum = op_fetched(r, ROWS, sum);
    for (int i = 0; i < ROWS; i++) lse[i] = maximum[i] + log(sum[i]);
}

static void on_softmax_update(op_run *r, const op_case *c)
{
    head(r, c, input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), input(r, OP_R, ROWS * WIDTH, -1));
}

/* A whole row of NaN: no maximum to be found. */
static void on_softmax_update_row(op_run *r, const op_case *c)
{
    double value[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) value[i] = i / WIDTH == BAD_ROW ? NAN : 1;
    head(r, c, op_given(r, OP_R, ROWS * WIDTH, value), input(r, OP_R, ROWS * WIDTH, -1));
}

/* The NaN is in the first block; the second must not hide it. */
static void on_argmax_update(op_run *r, const op_case *c)
{
    (void)c;
    void *bad = input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *clean = input(r, OP_R, ROWS * WIDTH, -1);
    double *best = infinitely_small(r);
    r->buffer[r->buffers - 1].name = "best";
    int32_t *token = op_indices(r, ROWS, 1, 0);
    r->b->ops->argmax_update(r->b, ROWS, WIDTH, 0, bad, best, token);
    r->b->ops->argmax_update(r->b, ROWS, WIDTH, WIDTH, clean, best, token);
}

static void kl(op_run *r, const op_case *c, const void *z, const void *z_ref, const void *clean)
{
    double *maximum = infinitely_small(r), *sum = op_double(r, ROWS, 0), *weighted = op_double(r, ROWS, 0),
           *mean = op_out(r, "KL", OP_HOST, ROWS);
    r->b->ops->kl_update(r->b, ROWS, WIDTH, c->softcap, z, z_ref, maximum, sum, weighted);
    r->b->ops->kl_update(r->b, ROWS, WIDTH, c->softcap, clean, clean, maximum, sum, weighted);
    maximum = op_fetched(r, ROWS, maximum), sum = op_fetched(r, ROWS, sum), weighted = op_fetched(r, ROWS, weighted);
    for (int i = 0; i < ROWS; i++) mean[i] = weighted[i] / sum[i] - maximum[i] - log(sum[i]);
}

static void on_kl_update(op_run *r, const op_case *c)
{
    void *bad = input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *clean = input(r, OP_R, ROWS * WIDTH, -1);
    kl(r, c, bad, clean, clean);
}

static void on_kl_update_ref(op_run *r, const op_case *c)
{
    void *bad = input(r, OP_R, ROWS * WIDTH, BAD_ROW * WIDTH + BAD_COLUMN), *clean = input(r, OP_R, ROWS * WIDTH, -1);
    kl(r, c, clean, bad, clean);
}

static void on_kl_update_ref_row(op_run *r, const op_case *c)
{
    double value[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) value[i] = i / WIDTH == BAD_ROW ? NAN : 1;
    void *clean = input(r, OP_R, ROWS * WIDTH, -1);
    kl(r, c, clean, op_given(r, OP_R, ROWS * WIDTH, value), clean);
}

/* Element by element: the NaN's own place and nothing else is asked, so only one column of each row is handed back. */
static void on_softmax_grad(op_run *r, const op_case *c)
{
    void *z = input(r, OP_R, ROWS, BAD_ROW);
    int32_t *target = op_indices(r, ROWS, 1, 0);
    double *lse = op_double(r, ROWS, 1), *coefficient = op_double(r, ROWS, 1);
    r->b->ops->softmax_grad(r->b, ROWS, 1, 0, c->softcap, z, target, lse, coefficient, op_out(r, "dz", OP_A, ROWS));
}

static void on_kl_grad(op_run *r, const op_case *c)
{
    void *z = input(r, OP_R, ROWS, -1), *z_ref = input(r, OP_R, ROWS, BAD_ROW);
    double *lse = op_double(r, ROWS, 1), *lse_ref = op_double(r, ROWS, 1), *coefficient = op_double(r, ROWS, 1);
    r->b->ops->kl_grad(r->b, ROWS, 1, c->softcap, z, z_ref, lse, lse_ref, coefficient, op_out(r, "dz", OP_A, ROWS));
}

static void on_glu(op_run *r, const op_case *c)
{
    r->b->ops->glu(r->b, ROWS, 1, c->glu, input(r, OP_A, 2 * ROWS, 2 * BAD_ROW), op_out(r, "h", OP_A, ROWS));
}

static void on_glu_grad(op_run *r, const op_case *c)
{
    void *gate_up = input(r, OP_A, 2 * ROWS, 2 * BAD_ROW), *dh = input(r, OP_A, ROWS, -1);
    r->b->ops->glu_grad(r->b, ROWS, 1, c->glu, gate_up, dh, op_out(r, "dgate_up", OP_A, 2 * ROWS));
}

/* A bad query spoils its own row and head. */
static void on_attention(op_run *r, const op_case *c)
{
    static const int32_t forest[][2] = {{-1, ROWS}, {-1, -1}};
    ra_pack pack = op_pack(forest);
    ra_attention a = {1, 1, DIM, 0.5, c->softcap, c->window};
    void *qkv = input(r, OP_A, ROWS * 3 * DIM, BAD_ROW * 3 * DIM + 5), *out = op_out(r, "out", OP_A, ROWS * DIM);
    r->b->ops->place_pack(r->b, &pack);
    r->b->ops->attention(r->b, &pack, &a, qkv, out, op_out(r, "lse", OP_R, ROWS));
    r->b->ops->release_pack(r->b, &pack);
    op_pack_free(&pack);
}

static void on_attention_prefixed(op_run *r, const op_case *c)
{
    enum { PREFIX = 3 };
    static const int32_t forest[][2] = {{-1, ROWS}, {-1, -1}}, none = 0, length = PREFIX;
    ra_pack pack = op_pack(forest);
    for (int t = 0; t < ROWS; t++) pack.position[t] += PREFIX;
    ra_attention a = {1, 1, DIM, 0.5, c->softcap, c->window};
    void *qkv = input(r, OP_A, ROWS * 3 * DIM, BAD_ROW * 3 * DIM + 5), *cache = input(r, OP_A, 2 * PREFIX * DIM, -1);
    ra_cached_prefix prefix = {cache, 2 * PREFIX * DIM, PREFIX * DIM, op_placed_indices(r, 1, &none),
                               op_placed_indices(r, 1, &length)};
    r->b->ops->place_pack(r->b, &pack);
    r->b->ops->attention_prefixed(r->b, &pack, &a, &prefix, qkv, op_out(r, "out", OP_A, ROWS * DIM));
    r->b->ops->release_pack(r->b, &pack);
    op_pack_free(&pack);
}

static void on_attention_cached(op_run *r, const op_case *c)
{
    ra_attention a = {HEADS, KV_HEADS, DIM, 0.5, c->softcap, c->window};
    int32_t slot[ROWS], length[ROWS];
    for (int i = 0; i < ROWS; i++) {
        slot[i] = i;
        length[i] = 5;
    }
    double *value = ra_calloc(ROWS * HEADS * DIM, sizeof *value);
    for (int i = 0; i < ROWS * HEADS * DIM; i++)
        value[i] = i / (HEADS * DIM) == BAD_ROW && i % DIM == 3 ? NAN : 1; /* in each head */
    void *q = op_given(r, OP_A, ROWS * HEADS * DIM, value), *cache = input(r, OP_A, ROWS * 2 * 5 * KV_HEADS * DIM, -1);
    ra_free(value);
    r->b->ops->attention_cached(r->b, ROWS, &a, q, HEADS * DIM, cache, 2 * 5 * KV_HEADS * DIM, 5 * KV_HEADS * DIM,
                                op_placed_indices(r, ROWS, slot), op_placed_indices(r, ROWS, length),
                                op_out(r, "out", OP_A, ROWS * HEADS * DIM));
}

/* Row BAD_ROW of every output must be all NaN, the others all finite. */
static const op_case cases[] = {
    {"gemm to R", on_gemm, .softcap = 0},
    {"gemm to A", on_gemm_to_a, .softcap = 0},
    {"casts", on_cast, .softcap = 0},
    {"rmsnorm", on_rmsnorm, .softcap = 0},
    {"rmsnorm_grad", on_rmsnorm_grad, .softcap = 0},
    {"row_dot", on_row_dot, .softcap = 0},
    {"argmax_update", on_argmax_update, .softcap = 0},
    {"softmax_update", on_softmax_update, .softcap = 0},
    {"softmax_update, soft-cap", on_softmax_update, .softcap = 30},
    {"softmax_update, a row", on_softmax_update_row, .softcap = 0},
    {"softmax_update, a row, soft-cap", on_softmax_update_row, .softcap = 30},
    {"kl_update", on_kl_update, .softcap = 0},
    {"kl_update, soft-cap", on_kl_update, .softcap = 30},
    {"kl_update, reference", on_kl_update_ref, .softcap = 0},
    {"kl_update, reference, soft-cap", on_kl_update_ref, .softcap = 30},
    {"kl_update, reference, a row", on_kl_update_ref_row, .softcap = 0},
    {"softmax_grad", on_softmax_grad, .softcap = 0},
    {"softmax_grad, soft-cap", on_softmax_grad, .softcap = 30},
    {"kl_grad", on_kl_grad, .softcap = 0},
    {"kl_grad, soft-cap", on_kl_grad, .softcap = 30},
    {"glu silu", on_glu, .softcap = 0},
    {"glu gelu_tanh", on_glu, .glu = RA_GLU_GELU_TANH},
    {"glu_grad silu", on_glu_grad, .softcap = 0},
    {"glu_grad gelu_tanh", on_glu_grad, .glu = RA_GLU_GELU_TANH},
    {"attention", on_attention, .softcap = 0},
    {"attention, soft-cap and window", on_attention, .softcap = 5, .window = 2},
    {"attention_prefixed", on_attention_prefixed, .softcap = 0},
    {"attention_prefixed, soft-cap and window", on_attention_prefixed, .softcap = 5, .window = 4},
    {"attention_cached", on_attention_cached, .softcap = 0},
    {"attention_cached, soft-cap and window", on_attention_cached, .softcap = 5, .window = 2},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void test_nan(void **state)
{
    const subject *s = *state;
    if (!s->b) {
        printf("# SKIP: %s %s: %s\n", s->instance->name, s->instance->precision, s->why);
        skip();
    }
    int wrong = 0;
    for (int i = 0; i < CASES; i++) {
        op_run r;
        op_run_case(&r, &cases[i], s->b, s->b, 1);
        for (int k = 0; k < r.buffers; k++) {
            const op_buffer *out = &r.buffer[k];
            if (!out->name) continue;
            for (int64_t j = 0; j < out->n; j++) {
                bool is_bad = isnan(out->value[j]), must = j / (out->n / ROWS) == BAD_ROW;
                if (must ? is_bad : isfinite(out->value[j])) continue;
                printf("# %s %s, %s: %s[%lld] is %g\n", s->instance->name, s->instance->precision, cases[i].operator, out->name,
                       (long long)j, out->value[j]);
                wrong++;
                break;
            }
        }
        op_run_free(&r);
    }
    assert_int_equal(wrong, 0);
}

/* Vectors: one NaN in a long array makes the sum one, so that gradient clipping sees it. */
static void test_sums(void **state)
{
    const subject *s = *state;
    if (!s->b) {
        printf("# SKIP: %s %s: %s\n", s->instance->name, s->instance->precision, s->why);
        skip();
    }
    op_run r = {.b = s->b, .tested = s->b};
    void *bad = input(&r, OP_R, 70001, 66000), *clean = input(&r, OP_R, 70001, -1);
    assert_true(isnan(s->b->ops->sum_squares(s->b, 70001, bad)));
    assert_true(isnan(s->b->ops->dot(s->b, 70001, clean, bad)));
    assert_true(isfinite(s->b->ops->sum_squares(s->b, 70001, clean)));
    op_run_free(&r);
}

int main(int arguments, char **argument)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    static char why[8][512], name[16][64];
    subject subjects[8];
    struct CMUnitTest tests[16];
    size_t count = 0;
    for (int i = 0; i < op_instance_count; i++) {
        subject *s = &subjects[i];
        *s = (subject){.instance = &op_instances[i], .why = why[i]};
        if (!op_wanted(s->instance, arguments - 1, argument + 1)) continue;
        const char *message = "";
        s->b = op_open(s->instance, &message);
        snprintf(why[i], sizeof why[i], "%s", message);
        for (int k = 0; k < 2; k++, count++) {
            snprintf(name[count], sizeof name[0], "%s %s: %s", s->instance->name, s->instance->precision,
                     k ? "sums" : "operators");
            tests[count] = (struct CMUnitTest){name[count], k ? test_sums : test_nan, NULL, NULL, s};
        }
    }
    int failed = _cmocka_run_group_tests("NaN in, NaN out", tests, count, NULL, NULL);
    for (int i = 0; i < op_instance_count; i++) ra_backend_close(subjects[i].b);
    return failed != 0;
}
