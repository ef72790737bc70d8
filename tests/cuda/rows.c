/* The row operators' launchers on the shapes that break things: single columns, row lengths around a warp and around the chunks, teams of every width,
 * rows beyond what registers hold, leading dimensions, pointers off their alignment. */
#include "launch.h"

/* Of every width of team (32 up to 512 columns, 128 up to 2,048, 512), with 16-byte accesses and without, more rows than a block has teams. */
static const shape shapes[] = {
    {1, 1, 0, 0},    {2, 3, 0, 0},    {5, 31, 3, 1},    {7, 33, 0, 0},    {9, 127, 1, 0},  {37, 64, 0, 0},
    {4, 1000, 0, 0}, {4, 1000, 8, 0}, {3, 1000, 0, 1},  {3, 1000, 12, 0}, {2, 2048, 0, 0}, {3, 2056, 0, 0},
    {2, 4099, 0, 0}, {2, 8200, 0, 0}, {1, 16404, 4, 0}, {300, 8, 0, 0},   {300, 40, 0, 2}, {0, 8, 0, 0},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* ---- flat arrays ---- */

static void cast_to_a(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t n = s->rows * s->n;
    void *x = in(t, R, n, 3), *y = filled(t, "y", A, n, 7);
    CALL(cast_to_a, n, x, y);
}

static void cast_to_r(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t n = s->rows * s->n;
    void *x = in(t, A, n, 3), *y = filled(t, "y", R, n, 7);
    CALL(cast_to_r, n, x, y);
}

static void axpy(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t n = s->rows * s->n;
    void *x = in(t, R, n, 1), *y = inout(t, "y", R, n, 1);
    CALL(axpy, n, -0.375, x, y);
}

/* A rate and a decay whose product vanishes beside 1 in float. */
static void adamw(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t n = s->rows * s->n;
    ra_adamw h = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
    h.correction1 = 1 - 0.9 * 0.9;
    h.correction2 = 1 - 0.999 * 0.999;
    h.gradient_scale = 0.7;
    double *squares = ra_calloc((size_t)n, sizeof *squares);
    for (int64_t i = 0; i < n; i++) squares[i] = 1e-3 * ra_rng_uniform(&t->rng);
    void *g = in(t, R, n, 0.1), *m = inout(t, "m", R, n, 0.01), *v = given(t, "v", R, n, squares), *w = inout(t, "w", R, n, 1);
    ra_free(squares);
    CALL(adamw, n, &h, g, m, v, w);
}

static void vector_dot(launch *t, const launch_case *c, const shape *s)
{
    int64_t n = s->rows * s->n;
    void *x = in(t, R, n, 1), *y = c->option ? x : in(t, R, n, 1);
    double *result = filled(t, "result", D, 1, 7);
    if (!t->device) {
        *result = c->option ? t->ref->ops->sum_squares(t->ref, n, x) : t->ref->ops->dot(t->ref, n, x, y);
    } else if (c->option) {
        size_t bytes = ra_cuda_sum_squares_workspace(n);
        ra_cuda_sum_squares(NULL, t->a, n, x, result, workspace_of(t, bytes), bytes);
    } else {
        size_t bytes = ra_cuda_dot_workspace(n);
        ra_cuda_dot(NULL, t->a, n, x, y, result, workspace_of(t, bytes), bytes);
    }
}

/* ---- rows ---- */

static void bias_add(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t ld = s->n + s->pad;
    void *bias = in(t, R, s->n, 1), *y = inout(t, "y", A, s->rows * ld, 1);
    CALL(bias_add, s->rows, s->n, bias, y, ld);
}

static void bias_grad(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t ld = s->n + s->pad;
    void *dy = in(t, A, s->rows * ld, 1), *dbias = inout(t, "dbias", R, s->n, 1);
    CALL_IN(bias_grad, ra_cuda_bias_grad_workspace(s->rows, s->n), s->rows, s->n, dy, ld, dbias);
}

static void add_scaled(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t ld = s->n + s->pad;
    void *y = in(t, R, s->rows * s->n, 1), *x = inout(t, "x", A, s->rows * ld, 1);
    CALL(add_scaled, s->rows, s->n, 0.25, y, x, ld);
}

static void row_dot(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t ld = s->n + s->pad;
    void *x = in(t, A, s->rows * ld, 1), *y = in(t, R, s->rows * s->n, 1);
    double *dot = inout(t, "dot", D, s->rows, 1);
    CALL(row_dot, s->rows, s->n, -1.5, x, ld, y, dot);
}

static void row_dot_vector(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    int64_t ld = s->n + s->pad;
    void *x = in(t, A, s->rows * ld, 1), *v = in(t, R, s->n, 1);
    double *dot = inout(t, "dot", D, s->rows, 1);
    CALL(row_dot_vector, s->rows, s->n, x, ld, v, dot);
}

/* ---- by index ---- */

enum { TABLE = 11 };

static void embed(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    void *token = indices(t, s->rows, TABLE, 4), *w = in(t, A, TABLE * s->n, 1), *x = filled(t, "x", R, s->rows * s->n, 7);
    CALL(embed, s->rows, s->n, token, 1.25, w, x);
}

static void embed_grad(launch *t, const launch_case *c, const shape *s)
{
    void *token = indices(t, s->rows, c->option, 4), *dx = in(t, R, s->rows * s->n, 1),
         *dw = inout(t, "dw", R, c->option * s->n, 1);
    CALL_IN(embed_grad, ra_cuda_embed_grad_workspace(s->rows, s->n), s->rows, s->n, token, 1.25, dx, dw);
}

static void embed_dot(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    void *token = indices(t, s->rows, TABLE, 4), *dx = in(t, R, s->rows * s->n, 1), *g = in(t, A, TABLE * s->n, 1);
    double *dot = inout(t, "dot", D, s->rows, 1);
    CALL(embed_dot, s->rows, s->n, token, 1.25, dx, g, dot);
}

static void gather_rows(launch *t, const launch_case *c, const shape *s)
{
    (void)c;
    void *row = indices(t, s->rows, TABLE, 0), *x = in(t, R, TABLE * s->n, 1), *y = filled(t, "y", R, s->rows * s->n, 7);
    CALL(gather_rows, s->rows, s->n, row, x, y);
}

static void scatter_add_rows(launch *t, const launch_case *c, const shape *s)
{
    void *row = indices(t, s->rows, c->option, 0), *y = in(t, R, s->rows * s->n, 1), *x = inout(t, "x", R, c->option * s->n, 1);
    CALL_IN(scatter_add_rows, ra_cuda_scatter_add_rows_workspace(s->rows, s->n), s->rows, s->n, row, y, x);
}

/* ---- norm, rope, gated unit ---- */

static void rmsnorm(launch *t, const launch_case *c, const shape *s)
{
    double spread = c->spread > 0 ? c->spread : 1;
    void *x = in(t, R, s->rows * s->n, spread), *w = in(t, R, s->n, 1), *y = filled(t, "y", A, s->rows * s->n, 7);
    CALL(rmsnorm, s->rows, s->n, x, w, c->option, 1e-5, y, filled(t, "rstd", R, s->rows, 7));
}

static void rmsnorm_add(launch *t, const launch_case *c, const shape *s)
{
    void *x = in(t, R, s->rows * s->n, 1), *w = in(t, R, s->n, 1), *sum = inout(t, "sum", R, s->rows * s->n, 1);
    CALL(rmsnorm_add, s->rows, s->n, x, w, c->option, 1e-5, sum, filled(t, "rstd", R, s->rows, 7));
}

enum { WITH_DW = 1, WITH_G = 2, ACCUMULATE = 4, PLUS_ONE = 8 };

static void rmsnorm_grad(launch *t, const launch_case *c, const shape *s)
{
    void *x = in(t, R, s->rows * s->n, 1), *w = in(t, R, s->n, 1), *dy = in(t, R, s->rows * s->n, 1);
    void *rstd = filled(t, NULL, R, s->rows, 0.8), *dx = inout(t, "dx", R, s->rows * s->n, 1);
    void *dw = c->option & WITH_DW ? inout(t, "dw", R, s->n, 1) : NULL, *g = c->option & WITH_G ? in(t, R, s->n, 1) : NULL;
    double *dot = g ? inout(t, "dot", D, s->rows, 1) : NULL;
    size_t bytes = dw ? ra_cuda_rmsnorm_grad_workspace(s->rows, s->n) : 0;
    CALL_IN(rmsnorm_grad, bytes, s->rows, s->n, x, w, (c->option & PLUS_ONE) != 0, rstd, dy, (c->option & ACCUMULATE) != 0, dx,
            dw, g, dot);
}

/* The shape's columns are split into heads of `option`. */
static void rope(launch *t, const launch_case *c, const shape *s)
{
    enum { POSITIONS = 40 };
    int32_t heads = (int32_t)(s->n / c->option), half = c->option / 2;
    int64_t ld = heads * c->option + s->pad;
    double *cosine = ra_calloc((size_t)POSITIONS * (size_t)half, sizeof(double)),
           *sine = ra_calloc((size_t)POSITIONS * (size_t)half, sizeof(double));
    for (int i = 0; i < POSITIONS * half; i++) {
        double angle = (double)(i / half) * pow(1e4, -(double)(i % half) / half);
        cosine[i] = cos(angle);
        sine[i] = sin(angle);
    }
    void *position = indices(t, s->rows, POSITIONS, 0), *of_cosine = given(t, NULL, R, POSITIONS * half, cosine),
         *of_sine = given(t, NULL, R, POSITIONS * half, sine), *x = inout(t, "x", A, s->rows * ld, 1);
    ra_free(cosine);
    ra_free(sine);
    CALL(rope, s->rows, heads, c->option, position, of_cosine, of_sine, c->spread > 0, x, ld);
}

enum { GELU = 1, IN_PLACE = 2 };

static void glu(launch *t, const launch_case *c, const shape *s)
{
    void *gate_up = in(t, A, 2 * s->rows * s->n, c->spread > 0 ? c->spread : 1), *h = filled(t, "h", A, s->rows * s->n, 7);
    CALL(glu, s->rows, s->n, c->option & GELU ? RA_GLU_GELU_TANH : RA_GLU_SILU, gate_up, h);
}

static void glu_grad(launch *t, const launch_case *c, const shape *s)
{
    bool in_place = c->option & IN_PLACE;
    void *gate_up = inout(t, in_place ? "dgate_up" : NULL, A, 2 * s->rows * s->n, c->spread > 0 ? c->spread : 1);
    void *dh = in(t, A, s->rows * s->n, 1), *dgate_up = in_place ? gate_up : filled(t, "dgate_up", A, 2 * s->rows * s->n, 7);
    CALL(glu_grad, s->rows, s->n, c->option & GELU ? RA_GLU_GELU_TANH : RA_GLU_SILU, gate_up, dh, dgate_up);
}

/* 5e-7: a few roundings of single terms; 1e-12: sums in double of exact products. */
static const launch_case cases[] = {
    {"cast_to_a", cast_to_a, 0, 0, 0},
    {"cast_to_r", cast_to_r, 0, 0, 0},
    {"axpy", axpy, 2e-7, 0, 0},
    {"adamw", adamw, 1e-6, 0, 0},
    {"dot", vector_dot, 1e-12, 0, 0},
    {"sum_squares", vector_dot, 1e-12, 1, 0},
    {"bias_add", bias_add, 2e-7, 0, 0},
    {"bias_grad", bias_grad, 5e-7, 0, 0},
    {"add_scaled", add_scaled, 2e-7, 0, 0},
    {"row_dot", row_dot, 1e-12, 0, 0},
    {"row_dot_vector", row_dot_vector, 1e-12, 0, 0},
    {"embed", embed, 2e-7, 0, 0},
    {"embed_grad", embed_grad, 2e-6, TABLE, 0},
    {"embed_grad to two rows", embed_grad, 2e-6, 2, 0},
    {"embed_dot", embed_dot, 1e-12, 0, 0},
    {"gather_rows", gather_rows, 0, 0, 0},
    {"scatter_add_rows", scatter_add_rows, 2e-6, TABLE, 0},
    {"scatter_add_rows to one row", scatter_add_rows, 2e-6, 1, 0},
    {"scatter_add_rows, seldom a row twice", scatter_add_rows, 1e-6, 97, 0},
    {"rmsnorm", rmsnorm, 5e-7, 0, 0},
    {"rmsnorm, 1 + w", rmsnorm, 5e-7, 1, 0},
    {"rmsnorm of tiny rows", rmsnorm, 5e-7, 0, 1e-21},
    {"rmsnorm of huge rows", rmsnorm, 5e-7, 0, 1e18},
    {"rmsnorm_add", rmsnorm_add, 5e-7, 0, 0},
    {"rmsnorm_add, 1 + w", rmsnorm_add, 5e-7, 1, 0},
    {"rmsnorm_grad", rmsnorm_grad, 1e-6, 0, 0},
    {"rmsnorm_grad, dw", rmsnorm_grad, 1e-6, WITH_DW, 0},
    {"rmsnorm_grad, tangent", rmsnorm_grad, 1e-6, WITH_G | ACCUMULATE | PLUS_ONE, 0},
    {"rmsnorm_grad, all", rmsnorm_grad, 1e-6, WITH_DW | WITH_G | ACCUMULATE, 0},
    {"rope, heads of 64", rope, 2e-7, 64, 0},
    {"rope, heads of 64, inverse", rope, 2e-7, 64, 1},
    {"rope, heads of 128", rope, 2e-7, 128, 0},
    {"rope, heads of 6", rope, 2e-7, 6, 0},
    {"rope, heads of 8", rope, 2e-7, 8, 1},
    {"glu silu", glu, 5e-7, 0, 0},
    {"glu gelu_tanh", glu, 1e-6, GELU, 0},
    {"glu silu, large", glu, 5e-7, 0, 60},
    {"glu gelu_tanh, large", glu, 1e-6, GELU, 60},
    {"glu_grad silu", glu_grad, 1e-6, 0, 0},
    {"glu_grad silu in place", glu_grad, 1e-6, IN_PLACE, 0},
    {"glu_grad gelu_tanh", glu_grad, 1e-6, GELU, 0},
    {"glu_grad gelu_tanh in place", glu_grad, 1e-6, GELU | IN_PLACE, 0},
    {"glu_grad gelu_tanh, beyond the square of a float", glu_grad, 1e-6, GELU, 1e20},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static ra_backend *ref;

static void agrees(void **state)
{
    const launch_case *c = *state;
    int wrong = 0;
    for (int i = 0; i < SHAPES; i++)
        wrong += check_launch(ref, c, &shapes[i], 2026 + (uint64_t)(c - cases) * SHAPES + (uint64_t)i);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_backend_open("ref", "fp64", 0, &ref) != RA_OK) return 1;
    struct CMUnitTest tests[CASES];
    for (int i = 0; i < CASES; i++) tests[i] = (struct CMUnitTest){cases[i].name, agrees, NULL, NULL, (void *)&cases[i]};
    int failed = _cmocka_run_group_tests("launchers of row operators", tests, CASES, NULL, NULL);
    ra_backend_close(ref);
    return failed != 0;
}
