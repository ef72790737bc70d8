#include "op_run.h"

#include <realign/mem.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* fp32: a few ulps (6e-8) times the length of the sums. bf16: half an ulp of the result is 2^-8 of it; sums and statistics stay in fp32, but tensor cores
 * take P and dS of attention's gradients in bf16. */
const op_instance op_instances[] = {
    {"ref", "fp64", {0, 0, 0, 0}, 1},
    {"cpu", "fp32", {1e-5, 1e-5, 1e-5, 1e-5}, 1},
    {"cpu", "bf16", {0.0045, 1e-5, 1e-5, 1e-5}, 1},
    {"cuda", "fp32", {1e-5, 1e-5, 1e-5, 1e-5}, 1},
    {"cuda", "tf32", {2e-3, 2e-3, 1e-5, 1e-5}, 1}, /* products keep 10 bits of their operands: half an ulp is 2^-11 of each */
    {"cuda", "bf16", {0.0045, 1e-5, 1e-5, 1e-5}, 3},
};
const int op_instance_count = sizeof op_instances / sizeof op_instances[0];

bool op_wanted(const op_instance *instance, int arguments, char **argument)
{
    bool named = arguments == 0;
    for (int i = 0; i < arguments; i++) named |= strcmp(argument[i], instance->name) == 0;
    return named && ra_backend_built_in(instance->name);
}

ra_backend *op_open(const op_instance *instance, const char **why)
{
    ra_backend *b = NULL;
    ra_err err = ra_backend_open(instance->name, instance->precision, 0, &b);
    if (err != RA_OK) *why = ra_error_message();
    return b;
}

static ra_dtype type_of(const ra_backend *b, op_kind kind)
{
    return kind == OP_A ? b->a : kind == OP_R ? b->r : RA_DTYPE_F64;
}

static size_t bytes_of(ra_dtype type)
{
    return type == RA_DTYPE_F64 ? sizeof(double) : type == RA_DTYPE_F32 ? sizeof(float) : sizeof(ra_bf16);
}

static double load(ra_dtype type, const void *from, int64_t i)
{
    if (type == RA_DTYPE_F64) return ((const double *)from)[i];
    if (type == RA_DTYPE_F32) return ((const float *)from)[i];
    return ra_bf16_to_f32(((const ra_bf16 *)from)[i]);
}

static void store(ra_dtype type, void *to, int64_t i, double x)
{
    if (type == RA_DTYPE_F64) ((double *)to)[i] = x;
    if (type == RA_DTYPE_F32) ((float *)to)[i] = (float)x;
    if (type == RA_DTYPE_BF16) ((ra_bf16 *)to)[i] = ra_f32_to_bf16((float)x);
}

static double rounded(ra_dtype type, double x)
{
    double bits = 0;
    store(type, &bits, 0, x);
    return load(type, &bits, 0);
}

double op_rounded(const op_run *r, op_kind kind, double x)
{
    return rounded(type_of(r->tested, kind), x);
}

static op_buffer *new_buffer(op_run *r, const char *name, op_kind kind, int64_t n)
{
    if (r->buffers == OP_MAX_BUFFERS) {
        printf("# op_run: more than %d buffers in one case\n", OP_MAX_BUFFERS);
        abort();
    }
    op_buffer *buffer = &r->buffer[r->buffers++];
    *buffer = (op_buffer){.name = name, .kind = kind, .n = n};
    return buffer;
}

void *op_given(op_run *r, op_kind kind, int64_t n, const double *value)
{
    op_buffer *buffer = new_buffer(r, NULL, kind, n);
    ra_dtype tested = type_of(r->tested, kind), type = type_of(r->b, kind);
    size_t bytes = (size_t)n * bytes_of(type);
    void *host = ra_calloc(bytes, 1);
    for (int64_t i = 0; i < n; i++) store(type, host, i, rounded(tested, value[i]));
    if (kind == OP_HOST) {
        buffer->memory = host;
    } else {
        buffer->memory = r->b->ops->alloc(r->b, bytes);
        r->b->ops->upload(r->b, buffer->memory, host, bytes);
        ra_free(host);
    }
    return buffer->memory;
}

static void *drawn(op_run *r, op_kind kind, int64_t n, double scale)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) value[i] = scale * ra_rng_normal(&r->rng);
    void *memory = op_given(r, kind, n, value);
    ra_free(value);
    return memory;
}

void *op_a(op_run *r, int64_t n, double scale)
{
    return drawn(r, OP_A, n, scale);
}

void *op_r(op_run *r, int64_t n, double scale)
{
    return drawn(r, OP_R, n, scale);
}

double *op_double(op_run *r, int64_t n, double scale)
{
    return drawn(r, OP_DOUBLE, n, scale);
}

void *op_inout(op_run *r, const char *name, op_kind kind, int64_t n, double scale)
{
    void *memory = drawn(r, kind, n, scale);
    r->buffer[r->buffers - 1].name = name;
    return memory;
}

void *op_out(op_run *r, const char *name, op_kind kind, int64_t n)
{
    double *value = ra_calloc((size_t)n, sizeof *value);
    for (int64_t i = 0; i < n; i++) value[i] = OP_RUBBISH;
    void *memory = op_given(r, kind, n, value);
    ra_free(value);
    r->buffer[r->buffers - 1].name = name;
    return memory;
}

int32_t *op_host_indices(op_run *r, int64_t n, int64_t below, int negative)
{
    op_buffer *buffer = new_buffer(r, NULL, OP_HOST, 0);
    int32_t *index = ra_calloc((size_t)n, sizeof *index);
    for (int64_t i = 0; i < n; i++) {
        index[i] = (int32_t)ra_rng_below(&r->rng, (uint64_t)below);
        if (negative && ra_rng_below(&r->rng, (uint64_t)negative) == 0) index[i] = -1;
    }
    buffer->memory = index;
    return index;
}

int32_t *op_placed_indices(op_run *r, int64_t n, const int32_t *index)
{
    op_buffer *buffer = new_buffer(r, NULL, OP_DOUBLE, 0);
    buffer->memory = r->b->ops->alloc(r->b, (size_t)n * sizeof *index);
    r->b->ops->upload(r->b, buffer->memory, index, (size_t)n * sizeof *index);
    return buffer->memory;
}

int32_t *op_indices(op_run *r, int64_t n, int64_t below, int negative)
{
    return op_placed_indices(r, n, op_host_indices(r, n, below, negative));
}

double *op_fetched(op_run *r, int64_t n, const double *from)
{
    op_buffer *buffer = new_buffer(r, NULL, OP_HOST, 0);
    buffer->memory = ra_calloc((size_t)n, sizeof(double));
    r->b->ops->download(r->b, buffer->memory, from, (size_t)n * sizeof(double));
    return buffer->memory;
}

ra_pack op_pack(const int32_t (*forest)[2])
{
    ra_pack pack = {.segment = ra_calloc(OP_MAX_SEGMENTS, sizeof(ra_segment)),
                    .tree_begin = ra_calloc(OP_MAX_SEGMENTS + 1, sizeof(int32_t))};
    for (; forest[pack.segments][1] >= 0; pack.segments++) {
        int32_t parent = forest[pack.segments][0], length = forest[pack.segments][1];
        pack.segment[pack.segments] = (ra_segment){parent, pack.rows, pack.rows + length};
        if (parent < 0) pack.tree_begin[pack.trees++] = pack.segments;
        pack.rows += length;
    }
    pack.tree_begin[pack.trees] = pack.segments;
    pack.token = ra_calloc((size_t)pack.rows, sizeof(int32_t));
    pack.position = ra_calloc((size_t)pack.rows, sizeof(int32_t));
    int32_t next[OP_MAX_SEGMENTS] = {0}; /* the position that follows each segment */
    for (int32_t s = 0; s < pack.segments; s++) {
        const ra_segment *segment = &pack.segment[s];
        next[s] = segment->parent < 0 ? 0 : next[segment->parent];
        for (int32_t t = segment->begin; t < segment->end; t++) pack.position[t] = next[s]++;
    }
    return pack;
}

void op_pack_free(ra_pack *pack)
{
    ra_free(pack->segment);
    ra_free(pack->tree_begin);
    ra_free(pack->token);
    ra_free(pack->position);
}

void op_run_case(op_run *r, const op_case *c, ra_backend *b, const ra_backend *tested, uint64_t seed)
{
    *r = (op_run){.b = b, .tested = tested, .rng = ra_rng_make(seed, RA_STREAM_TEST)};
    c->run(r, c);
    for (int i = 0; i < r->buffers; i++) {
        op_buffer *buffer = &r->buffer[i];
        if (!buffer->name) continue;
        ra_dtype type = type_of(b, buffer->kind);
        size_t bytes = (size_t)buffer->n * bytes_of(type);
        buffer->bytes = ra_calloc(bytes, 1);
        buffer->value = ra_calloc((size_t)buffer->n, sizeof(double));
        if (buffer->kind == OP_HOST) {
            memcpy(buffer->bytes, buffer->memory, bytes);
        } else {
            b->ops->download(b, buffer->bytes, buffer->memory, bytes);
        }
        for (int64_t j = 0; j < buffer->n; j++) buffer->value[j] = load(type, buffer->bytes, j);
    }
}

void op_run_free(op_run *r)
{
    for (int i = 0; i < r->buffers; i++) {
        op_buffer *buffer = &r->buffer[i];
        if (buffer->kind == OP_HOST) {
            ra_free(buffer->memory);
        } else {
            r->b->ops->release(r->b, buffer->memory);
        }
        ra_free(buffer->bytes);
        ra_free(buffer->value);
    }
    r->buffers = 0;
}

static double rms(int64_t n, const double *x)
{
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
    return n ? sqrt(squares / (double)n) : 0;
}

int op_compare(const op_run *got, const op_run *wanted, const op_case *c, const op_instance *instance)
{
    int bad_outputs = 0;
    for (int i = 0; i < got->buffers; i++) {
        const op_buffer *g = &got->buffer[i], *w = &wanted->buffer[i];
        if (!g->name) continue;
        double tolerance = instance->tolerance[g->kind] * (c->slack > 0 ? c->slack : 1), size = rms(g->n, w->value), worst = 0;
        if (c->rounds) tolerance *= instance->rounding;
        int64_t at = -1;
        for (int64_t j = 0; j < g->n; j++) {
            double error = fabs(g->value[j] - w->value[j]), unit = fabs(w->value[j]) + size;
            double relative = error > 0 ? error / unit : error; /* a NaN stays one */
            if (relative > worst || isnan(relative)) {
                worst = relative;
                at = j;
            }
            if (isnan(worst)) break;
        }
        bool good = worst <= tolerance && isfinite(size);
        if (at >= 0) {
            printf("#   %s: worst error %.2e of tolerance %.2e%s", g->name, worst, tolerance, good ? "\n" : ", ");
            if (!good) printf("at %lld: %.9g, reference %.9g\n", (long long)at, g->value[at], w->value[at]);
        }
        bad_outputs += !good;
    }
    return bad_outputs;
}

int op_compare_bytes(const op_run *got, const op_run *again)
{
    int different = 0;
    for (int i = 0; i < got->buffers; i++) {
        const op_buffer *g = &got->buffer[i];
        if (!g->name) continue;
        if (memcmp(g->bytes, again->buffer[i].bytes, (size_t)g->n * bytes_of(type_of(got->b, g->kind))) != 0) {
            printf("#   %s: two calls differ\n", g->name);
            different++;
        }
    }
    return different;
}
