/* Launchers of row operators against the reference, one level below the backend's table: arrays that begin off their alignment and end before a
 * guard, leading dimensions, workspaces of exactly the size asked for, and every call made several times on other schedules of the execution model,
 * with the same bits each time.
 *
 * A case is a function that draws its arrays with in() and inout() and makes one CALL; it runs once for the reference, in double, and then on the
 * device, from the same seed. */
#ifndef TESTS_CUDA_LAUNCH_H
#define TESTS_CUDA_LAUNCH_H
#include "../../src/backend/cuda/kernels.h"
#include "support/support.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { A, R, D, I } type; /* activation, float, double, int32 */

enum { MOST_ARRAYS = 12, GUARD = 64, REPEATS = 3 };

typedef struct {
    const char *name; /* NULL: an input */
    type kind;
    int64_t n;
    void *reference; /* double, or int32 */
    char *device;    /* what was allocated: GUARD bytes, `shift` elements, the array, GUARD bytes */
    double *value;   /* of the end of the run */
    unsigned char *bytes;
} array;

typedef struct {
    ra_backend *ref;
    ra_dtype a;
    bool device;
    int shift; /* elements by which arrays begin off 64 bytes; it is doubled from array to array, so that they differ */
    ra_rng rng;
    array array[MOST_ARRAYS];
    int arrays;
    char *workspace;
    size_t workspace_bytes;
} launch;

typedef struct {
    int64_t rows, n, pad;
    int shift;
} shape;

typedef struct launch_case {
    const char *name;
    void (*run)(launch *t, const struct launch_case *c, const shape *s);
    double tolerance; /* of R, double and A = float: |x - y| <= tolerance (|y| + rms); outputs in bf16 have a fixed one */
    int option;
    double spread;
} launch_case;

static inline size_t size_of(const launch *t, type kind)
{
    return kind == A ? ra_dtype_size(t->a) : kind == D ? sizeof(double) : sizeof(float);
}

static inline double as_held(const launch *t, type kind, double x)
{
    if (kind == A && t->a == RA_DTYPE_BF16) return ra_bf16_to_f32(ra_f32_to_bf16((float)x));
    return kind == D ? x : (float)x;
}

static inline void put(const launch *t, type kind, void *to, int64_t i, double x)
{
    if (kind == D) {
        ((double *)to)[i] = x;
    } else if (kind == I) {
        ((int32_t *)to)[i] = (int32_t)x;
    } else if (kind == A && t->a == RA_DTYPE_BF16) {
        ((ra_bf16 *)to)[i] = ra_f32_to_bf16((float)x);
    } else {
        ((float *)to)[i] = (float)x;
    }
}

static inline double get(const launch *t, type kind, const void *from, int64_t i)
{
    if (kind == D) return ((const double *)from)[i];
    if (kind == I) return ((const int32_t *)from)[i];
    if (kind == A && t->a == RA_DTYPE_BF16) return ra_bf16_to_f32(((const ra_bf16 *)from)[i]);
    return ((const float *)from)[i];
}

static inline void cuda(cudaError_t status)
{
    if (status == cudaSuccess) return;
    printf("# %s\n", cudaGetErrorString(status));
    abort();
}

static inline size_t lead_of(const launch *t, int index, type kind)
{
    return GUARD + (size_t)(t->shift ? t->shift << index % 3 : 0) * size_of(t, kind);
}

/* The array of these values for an operator to use, in double (int32 for I) or on the device. */
static inline void *given(launch *t, const char *name, type kind, int64_t n, const double *value)
{
    assert_true(t->arrays < MOST_ARRAYS);
    int index = t->arrays++;
    array *x = &t->array[index];
    *x = (array){.name = name, .kind = kind, .n = n};
    if (!t->device) {
        x->reference = ra_calloc((size_t)n, sizeof(double));
        for (int64_t i = 0; i < n; i++) {
            if (kind == I) {
                ((int32_t *)x->reference)[i] = (int32_t)value[i];
            } else {
                ((double *)x->reference)[i] = as_held(t, kind, value[i]);
            }
        }
        return x->reference;
    }
    size_t lead = lead_of(t, index, kind), bytes = lead + (size_t)n * size_of(t, kind) + GUARD;
    char *host = ra_calloc(bytes, 1);
    memset(host, 0xa5, bytes);
    for (int64_t i = 0; i < n; i++) put(t, kind, host + lead, i, value[i]);
    cuda(cudaMalloc((void **)&x->device, bytes));
    cuda(cudaMemcpy(x->device, host, bytes, cudaMemcpyHostToDevice));
    ra_free(host);
    return x->device + lead;
}

/* n normals times `scale` */
static inline void *inout(launch *t, const char *name, type kind, int64_t n, double scale)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) value[i] = scale * ra_rng_normal(&t->rng);
    void *x = given(t, name, kind, n, value);
    ra_free(value);
    return x;
}

static inline void *in(launch *t, type kind, int64_t n, double scale)
{
    return inout(t, NULL, kind, n, scale);
}

static inline void *filled(launch *t, const char *name, type kind, int64_t n, double x)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) value[i] = x;
    void *memory = given(t, name, kind, n, value);
    ra_free(value);
    return memory;
}

/* n indices below `below`, one in `negative` of them -1 (0: none). */
static inline void *indices(launch *t, int64_t n, int64_t below, int negative)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) {
        value[i] = (double)ra_rng_below(&t->rng, (uint64_t)below);
        if (negative && ra_rng_below(&t->rng, (uint64_t)negative) == 0) value[i] = -1;
    }
    void *memory = given(t, NULL, I, n, value);
    ra_free(value);
    return memory;
}

/* Full of NaNs, and a guard behind: what a launcher must not count on, and must not touch. */
static inline void *workspace_of(launch *t, size_t bytes)
{
    t->workspace_bytes = bytes;
    cuda(cudaMalloc((void **)&t->workspace, bytes + GUARD));
    cuda(cudaMemset(t->workspace, 0xff, bytes)); /* NaNs */
    cuda(cudaMemset(t->workspace + bytes, 0xa5, GUARD));
    return t->workspace;
}

#define CALL(op, ...)                              \
    do {                                           \
        if (t->device) {                           \
            ra_cuda_##op(NULL, t->a, __VA_ARGS__); \
        } else {                                   \
            t->ref->ops->op(t->ref, __VA_ARGS__);  \
        }                                          \
    } while (0)
/* The same for a launcher with a workspace of `size` bytes. */
#define CALL_IN(op, size, ...)                                                      \
    do {                                                                            \
        if (t->device) {                                                            \
            size_t needed = (size);                                                 \
            ra_cuda_##op(NULL, t->a, __VA_ARGS__, workspace_of(t, needed), needed); \
        } else {                                                                    \
            t->ref->ops->op(t->ref, __VA_ARGS__);                                   \
        }                                                                           \
    } while (0)

static inline bool is_guard(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0xa5) return false;
    }
    return true;
}

/* Runs the case and reads everything back; returns how many guards were overwritten. */
static inline int run_case(launch *t, const launch_case *c, const shape *s, uint64_t seed)
{
    int broken = 0;
    t->rng = ra_rng_make(seed, RA_STREAM_TEST);
    t->arrays = 0;
    t->workspace = NULL;
    c->run(t, c, s);
    for (int k = 0; k < t->arrays; k++) {
        array *x = &t->array[k];
        x->value = ra_calloc((size_t)x->n, sizeof *x->value);
        if (!t->device) {
            for (int64_t i = 0; i < x->n; i++)
                x->value[i] = x->kind == I ? ((int32_t *)x->reference)[i] : ((double *)x->reference)[i];
            continue;
        }
        size_t lead = lead_of(t, k, x->kind), own = (size_t)x->n * size_of(t, x->kind);
        x->bytes = ra_calloc(lead + own + GUARD, 1);
        cuda(cudaMemcpy(x->bytes, x->device, lead + own + GUARD, cudaMemcpyDeviceToHost));
        if (!is_guard(x->bytes, lead) || !is_guard(x->bytes + lead + own, GUARD)) {
            printf("#   array %d (%s): written outside\n", k, x->name ? x->name : "an input");
            broken++;
        }
        memmove(x->bytes, x->bytes + lead, own);
        for (int64_t i = 0; i < x->n; i++) x->value[i] = get(t, x->kind, x->bytes, i);
    }
    if (t->workspace) {
        unsigned char guard[GUARD];
        cuda(cudaMemcpy(guard, t->workspace + t->workspace_bytes, GUARD, cudaMemcpyDeviceToHost));
        if (!is_guard(guard, GUARD)) {
            printf("#   written behind the workspace\n");
            broken++;
        }
    }
    return broken;
}

static inline void free_run(launch *t)
{
    for (int k = 0; k < t->arrays; k++) {
        array *x = &t->array[k];
        if (x->device) cuda(cudaFree(x->device));
        ra_free(x->reference);
        ra_free(x->value);
        ra_free(x->bytes);
    }
    if (t->workspace) cuda(cudaFree(t->workspace));
}

/* How many outputs miss their tolerance. Non-finite values must be of the same kind on both sides; inputs must be as they were. */
static inline int compare(const launch *got, const launch *wanted, const launch_case *c)
{
    int bad = 0;
    for (int k = 0; k < got->arrays; k++) {
        const array *g = &got->array[k], *w = &wanted->array[k];
        double squares = 0, worst = 0, tolerance = g->name ? c->tolerance : 0;
        if (g->name && g->kind == A && got->a == RA_DTYPE_BF16) tolerance = 0.00391; /* 2^-8, half a unit */
        int64_t finite = 0, at = -1;
        for (int64_t i = 0; i < w->n; i++) {
            if (isfinite(w->value[i])) finite++, squares += w->value[i] * w->value[i];
        }
        double rms = finite ? sqrt(squares / (double)finite) : 0;
        for (int64_t i = 0; i < w->n; i++) {
            double x = g->value[i], y = w->value[i], error;
            if (isfinite(y)) {
                error = x == y ? 0 : g->kind == I ? INFINITY : fabs(x - y) / (fabs(y) + rms);
            } else {
                error = isnan(y) ? (isnan(x) ? 0 : INFINITY) : (x == y ? 0 : INFINITY);
            }
            if (error <= worst) continue; /* false for a NaN */
            worst = error;
            at = i;
            if (isnan(worst)) break;
        }
        if (worst <= tolerance) continue;
        printf("#   %s: error %.2e of tolerance %.2e at %lld: %.9g, reference %.9g\n", g->name ? g->name : "an input", worst,
               tolerance, (long long)at, g->value[at], w->value[at]);
        bad++;
    }
    return bad;
}

static inline int compare_bytes(const launch *x, const launch *y)
{
    int different = 0;
    for (int k = 0; k < x->arrays; k++) {
        if (memcmp(x->array[k].bytes, y->array[k].bytes, (size_t)x->array[k].n * size_of(x, x->array[k].kind)) == 0) continue;
        printf("#   %s: two calls differ\n", x->array[k].name ? x->array[k].name : "an input");
        different++;
    }
    return different;
}

/* One case on one shape, A = bf16 and float. Returns what went wrong, 0 for nothing. */
static inline int check_launch(ra_backend *ref, const launch_case *c, const shape *s, uint64_t seed)
{
    int wrong = 0;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        launch wanted = {.ref = ref, .a = bf16 ? RA_DTYPE_BF16 : RA_DTYPE_F32}, first, again;
        wanted.shift = s->shift;
        first = wanted;
        first.device = true;
        again = first;
        int bad = run_case(&wanted, c, s, seed) + run_case(&first, c, s, seed) + compare(&first, &wanted, c);
        for (int i = 1; i < REPEATS; i++) {
            bad += run_case(&again, c, s, seed) + compare_bytes(&first, &again);
            free_run(&again);
        }
        free_run(&wanted);
        free_run(&first);
        if (bad)
            printf("# %s, A = %s, rows %lld, n %lld, pad %lld, shift %d, seed %llu\n", c->name, ra_dtype_name(wanted.a),
                   (long long)s->rows, (long long)s->n, (long long)s->pad, s->shift, (unsigned long long)seed);
        wrong += bad;
    }
    return wrong;
}

#endif
