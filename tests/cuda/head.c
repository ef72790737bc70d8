/* The launchers of the fused head's row operators: blocks around the widths of teams and chunks, with and without a soft-cap, infinities and NaNs, ties. */
#include "launch.h"

static const shape shapes[] = {
    {1, 1, 0, 0},    {9, 3, 0, 0},    {8, 31, 0, 1},   {9, 33, 0, 0},   {40, 64, 0, 0},  {11, 127, 0, 0}, {9, 1000, 0, 0},
    {9, 1000, 0, 1}, {8, 1003, 0, 0}, {8, 4096, 0, 0}, {3, 4103, 0, 0}, {2, 9000, 0, 0}, {0, 8, 0, 0},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

enum { CAPPED = 1, ODD = 2, REFERENCE = 4 }; /* ODD: rows with values that are not finite; REFERENCE: in z_ref */

static double cap(const launch_case *c)
{
    return c->option & CAPPED ? 5 : 0;
}

/* Logits of (rows, n); where `odd`, row i % 8 = 1: a NaN, 2: all -inf, 3: some -inf, 4: one inf, 5: all NaN, 6: -inf and a NaN. */
static void *logits(launch *t, const shape *s, double spread, bool odd)
{
    int64_t n = s->n;
    double *value = ra_calloc((size_t)(s->rows * n), sizeof *value);
    for (int64_t i = 0; i < s->rows * n; i++) {
        int64_t row = i / n % 8, column = i % n, place = (7 * row + 11) % n;
        value[i] = spread * ra_rng_normal(&t->rng);
        if (!odd) continue;
        if (row == 1 && column == place) value[i] = NAN;
        if (row == 2) value[i] = -INFINITY;
        if (row == 3 && column % 3 == 1) value[i] = -INFINITY;
        if (row == 4 && column == place) value[i] = INFINITY;
        if (row == 5) value[i] = NAN;
        if (row == 6) value[i] = column == place ? NAN : -INFINITY;
    }
    void *z = given(t, NULL, R, s->rows * n, value);
    ra_free(value);
    return z;
}

static double spread_of(const launch_case *c)
{
    return c->spread > 0 ? c->spread : 4;
}

/* The odd block comes first, so that a second one must keep what it left. */
static void softmax_update(launch *t, const launch_case *c, const shape *s)
{
    void *target = indices(t, s->rows, 3 * s->n, 5), *z = logits(t, s, spread_of(c), c->option & ODD),
         *next = logits(t, s, spread_of(c), false);
    double *maximum = filled(t, "maximum", D, s->rows, -INFINITY), *sum = filled(t, "sum", D, s->rows, 0);
    double *target_logit = filled(t, "target_logit", D, s->rows, 7);
    CALL(softmax_update, s->rows, s->n, s->n, cap(c), z, target, maximum, sum, target_logit);
    CALL(softmax_update, s->rows, s->n, 2 * s->n, cap(c), next, target, maximum, sum, target_logit);
}

/* One block alone: what the odd rows leave before a finite one follows. */
static void softmax_update_once(launch *t, const launch_case *c, const shape *s)
{
    void *target = indices(t, s->rows, s->n, 0), *z = logits(t, s, spread_of(c), true);
    double *maximum = filled(t, "maximum", D, s->rows, -INFINITY), *sum = filled(t, "sum", D, s->rows, 0);
    double *target_logit = filled(t, "target_logit", D, s->rows, 7);
    CALL(softmax_update, s->rows, s->n, 0, cap(c), z, target, maximum, sum, target_logit);
}

static void kl_update(launch *t, const launch_case *c, const shape *s)
{
    bool odd = c->option & ODD, in_reference = c->option & REFERENCE;
    void *z = logits(t, s, spread_of(c), odd && !in_reference), *z_ref = logits(t, s, spread_of(c), odd && in_reference);
    void *next = logits(t, s, spread_of(c), false), *next_ref = logits(t, s, spread_of(c), false);
    double *maximum = filled(t, "maximum", D, s->rows, -INFINITY), *sum = filled(t, "sum", D, s->rows, 0);
    double *weighted = filled(t, "weighted", D, s->rows, 0);
    CALL(kl_update, s->rows, s->n, cap(c), z, z_ref, maximum, sum, weighted);
    CALL(kl_update, s->rows, s->n, cap(c), next, next_ref, maximum, sum, weighted);
}

/* Whole numbers, so that the largest stands in several places. */
static void argmax_update(launch *t, const launch_case *c, const shape *s)
{
    double *value[2];
    for (int block = 0; block < 2; block++) {
        value[block] = ra_calloc((size_t)(s->rows * s->n), sizeof(double));
        for (int64_t i = 0; i < s->rows * s->n; i++) {
            int64_t row = i / s->n % 8;
            value[block][i] = floor(3 * ra_rng_normal(&t->rng));
            if (!(c->option & ODD)) continue;
            if (row == 1 && block == 0 && i % 5 == 3) value[block][i] = NAN;
            if (row == 2 && block == 1 && i % s->n == s->n - 1) value[block][i] = NAN;
            if (row == 3) value[block][i] = -INFINITY;
            if (row == 4 && block == 0) value[block][i] = -INFINITY;
            if (row == 5 && i % 7 == 2) value[block][i] = INFINITY;
            if (row == 6) value[block][i] = NAN;
        }
    }
    void *z = given(t, NULL, R, s->rows * s->n, value[0]), *next = given(t, NULL, R, s->rows * s->n, value[1]);
    ra_free(value[0]);
    ra_free(value[1]);
    double *best = filled(t, "best", D, s->rows, -INFINITY);
    int32_t *token = filled(t, "token", I, s->rows, -1);
    CALL(argmax_update, s->rows, s->n, 0, z, best, token);
    CALL(argmax_update, s->rows, s->n, s->n, next, best, token);
}

/* The normalisers of other logits than these: what is asked is the arithmetic. Two of three targets lie outside the block; an odd row's normaliser is odd too. */
static void softmax_grad(launch *t, const launch_case *c, const shape *s)
{
    void *target = indices(t, s->rows, 3 * s->n, 0), *z = logits(t, s, spread_of(c), c->option & ODD);
    double *lse = filled(t, NULL, D, s->rows, 30.123456789), *coefficient = in(t, D, s->rows, 1);
    void *dz = filled(t, "dz", A, s->rows * s->n, 7);
    CALL(softmax_grad, s->rows, s->n, s->n, cap(c), z, target, lse, coefficient, dz);
}

static void softmax_grad_infinite(launch *t, const launch_case *c, const shape *s)
{
    void *target = indices(t, s->rows, s->n, 0), *z = logits(t, s, spread_of(c), false);
    double *lse = filled(t, NULL, D, s->rows, c->option & REFERENCE ? -INFINITY : INFINITY), *coefficient = in(t, D, s->rows, 1);
    CALL(softmax_grad, s->rows, s->n, 0, cap(c), z, target, lse, coefficient, filled(t, "dz", A, s->rows * s->n, 7));
}

static void kl_grad(launch *t, const launch_case *c, const shape *s)
{
    bool odd = c->option & ODD, in_reference = c->option & REFERENCE;
    void *z = logits(t, s, spread_of(c), odd && !in_reference), *z_ref = logits(t, s, spread_of(c), odd && in_reference);
    double *lse = filled(t, NULL, D, s->rows, 12.3456789), *lse_ref = filled(t, NULL, D, s->rows, 13.456789);
    double *coefficient = in(t, D, s->rows, 1);
    CALL(kl_grad, s->rows, s->n, cap(c), z, z_ref, lse, lse_ref, coefficient, filled(t, "dz", A, s->rows * s->n, 7));
}

/* softmax_grad: exponents near -30, which floats hold to 1e-6. Under a soft-cap a rounding of the maximum, 5e-7 of a logit of 5, moves the sum that is relative to it. */
static const launch_case cases[] = {
    {"softmax_update", softmax_update, 5e-7, 0, 0},
    {"softmax_update, soft-cap", softmax_update, 2e-6, CAPPED, 0},
    {"softmax_update, odd rows", softmax_update, 5e-7, ODD, 0},
    {"softmax_update, odd rows, soft-cap", softmax_update, 2e-6, ODD | CAPPED, 0},
    {"softmax_update, odd rows, one block", softmax_update_once, 5e-7, 0, 0},
    {"softmax_update, odd rows, one block, soft-cap", softmax_update_once, 2e-6, CAPPED, 0},
    {"softmax_update, far apart", softmax_update, 1e-6, 0, 400},
    {"softmax_update, far apart, soft-cap", softmax_update, 2e-6, CAPPED, 400},
    {"kl_update", kl_update, 1e-6, 0, 0},
    {"kl_update, soft-cap", kl_update, 3e-6, CAPPED, 0},
    {"kl_update, odd rows", kl_update, 1e-6, ODD, 0},
    {"kl_update, odd rows, soft-cap", kl_update, 3e-6, ODD | CAPPED, 0},
    {"kl_update, odd rows of the reference", kl_update, 1e-6, ODD | REFERENCE, 0},
    {"kl_update, odd rows of the reference, soft-cap", kl_update, 3e-6, ODD | REFERENCE | CAPPED, 0},
    {"argmax_update", argmax_update, 0, 0, 0},
    {"argmax_update, odd rows", argmax_update, 0, ODD, 0},
    {"softmax_grad", softmax_grad, 2e-6, 0, 0},
    {"softmax_grad, soft-cap", softmax_grad, 3e-6, CAPPED, 0},
    {"softmax_grad, odd rows", softmax_grad, 2e-6, ODD, 0},
    {"softmax_grad, a normaliser of infinity", softmax_grad_infinite, 1e-6, 0, 0},
    {"softmax_grad, a normaliser of -infinity", softmax_grad_infinite, 1e-6, REFERENCE, 0},
    {"kl_grad", kl_grad, 1e-6, 0, 0},
    {"kl_grad, soft-cap", kl_grad, 3e-6, CAPPED, 0},
    {"kl_grad, odd rows", kl_grad, 1e-6, ODD, 0},
    {"kl_grad, odd rows of the reference", kl_grad, 1e-6, ODD | REFERENCE, 0},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static ra_backend *ref;

static void agrees(void **state)
{
    const launch_case *c = *state;
    int wrong = 0;
    for (int i = 0; i < SHAPES; i++)
        wrong += check_launch(ref, c, &shapes[i], 1700 + (uint64_t)(c - cases) * SHAPES + (uint64_t)i);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_backend_open("ref", "fp64", 0, &ref) != RA_OK) return 1;
    struct CMUnitTest tests[CASES];
    for (int i = 0; i < CASES; i++) tests[i] = (struct CMUnitTest){cases[i].name, agrees, NULL, NULL, (void *)&cases[i]};
    int failed = _cmocka_run_group_tests("launchers of the head's operators", tests, CASES, NULL, NULL);
    ra_backend_close(ref);
    return failed != 0;
}
