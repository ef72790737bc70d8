/* Matrix products by oneDNN. A primitive is made once per shape and kept: making one costs about half a millisecond. */
#include "cpu.h"

#include <realign/error.h>
#include <realign/mem.h>

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2
#error "src/backend/cpu/products.c is written for the C interface of oneDNN 2.x"
#endif

#define DNNL(call) check((call), #call, __LINE__)
static void check(dnnl_status_t status, const char *call, int line)
{
    if (status != dnnl_success) ra_die("products.c:%d: %s: oneDNN status %d", line, call, (int)status);
}

typedef struct {
    int64_t m, n, k, ldx, ldy, ldc;
    uint64_t layout; /* of packed weights; 0: they are not packed */
    int8_t tx, ty, accumulate, c_is_r, a_is_bf16, used;
} shape_key;

typedef struct {
    shape_key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, y, c;
} product;

enum { SLOTS = 4096, MOST = 2048 };

struct ra_cpu_products {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    product slot[SLOTS];
    int count;
};

const char *ra_cpu_products_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

ra_err ra_cpu_products_open(ra_cpu_products **out)
{
    ra_cpu_products *p = ra_calloc(1, sizeof *p);
    if (dnnl_engine_create(&p->engine, dnnl_cpu, 0) != dnnl_success) {
        ra_free(p);
        return ra_fail(RA_ERR_UNSUPPORTED, "oneDNN has no CPU engine here");
    }
    DNNL(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
    *out = p;
    return RA_OK;
}

static void forget(product *e)
{
    dnnl_primitive_destroy(e->primitive);
    dnnl_memory_destroy(e->x);
    dnnl_memory_destroy(e->y);
    dnnl_memory_destroy(e->c);
    memset(e, 0, sizeof *e);
}

static void forget_all(ra_cpu_products *p)
{
    for (int i = 0; i < SLOTS; i++) {
        if (p->slot[i].key.used) forget(&p->slot[i]);
    }
    p->count = 0;
}

void ra_cpu_products_close(ra_cpu_products *p)
{
    if (!p) return;
    forget_all(p);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
    ra_free(p);
}

static void describe(dnnl_memory_desc_t *md, dnnl_data_type_t type, int64_t rows, int64_t columns, bool transposed, int64_t ld)
{
    dnnl_dims_t dims = {rows, columns}, strides = {transposed ? 1 : ld, transposed ? ld : 1};
    DNNL(dnnl_memory_desc_init_by_strides(md, 2, dims, type, strides));
}

/* The order oneDNN prefers for W^T in a product with PACKED_FOR rows. It is asked for with one number of rows alone, so that a packed copy serves any. */
enum { PACKED_FOR = 32 };

static void describe_packed(ra_cpu_products *p, dnnl_data_type_t a, int64_t n, int64_t k, dnnl_memory_desc_t *packed)
{
    dnnl_memory_desc_t x, y, c;
    dnnl_dims_t y_dims = {k, n};
    describe(&x, a, PACKED_FOR, k, false, k);
    describe(&c, dnnl_f32, PACKED_FOR, n, false, n);
    DNNL(dnnl_memory_desc_init_by_tag(&y, 2, y_dims, a, dnnl_format_tag_any));
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    DNNL(dnnl_matmul_desc_init(&desc, &x, &y, NULL, &c));
    DNNL(dnnl_primitive_desc_create(&pd, &desc, NULL, p->engine, NULL));
    *packed = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    DNNL(dnnl_primitive_desc_destroy(pd));
}

static void make(ra_cpu_products *p, const shape_key *key, const dnnl_memory_desc_t *packed, product *e)
{
    dnnl_data_type_t a = key->a_is_bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t x, y, c;
    describe(&x, a, key->m, key->k, key->tx, key->ldx);
    if (packed) {
        y = *packed;
    } else {
        describe(&y, a, key->k, key->n, key->ty, key->ldy);
    }
    describe(&c, key->c_is_r ? dnnl_f32 : a, key->m, key->n, false, key->ldc);
    dnnl_matmul_desc_t desc;
    DNNL(dnnl_matmul_desc_init(&desc, &x, &y, NULL, &c));
    dnnl_primitive_attr_t attr;
    DNNL(dnnl_primitive_attr_create(&attr));
    if (key->accumulate) {
        dnnl_post_ops_t post;
        DNNL(dnnl_post_ops_create(&post));
        DNNL(dnnl_post_ops_append_sum(post, 1.0f));
        DNNL(dnnl_primitive_attr_set_post_ops(attr, post));
        DNNL(dnnl_post_ops_destroy(post));
    }
    dnnl_primitive_desc_t pd;
    DNNL(dnnl_primitive_desc_create(&pd, &desc, attr, p->engine, NULL));
    DNNL(dnnl_primitive_create(&e->primitive, pd));
    DNNL(dnnl_primitive_desc_destroy(pd));
    DNNL(dnnl_primitive_attr_destroy(attr));
    DNNL(dnnl_memory_create(&e->x, &x, p->engine, DNNL_MEMORY_NONE));
    DNNL(dnnl_memory_create(&e->y, &y, p->engine, DNNL_MEMORY_NONE));
    DNNL(dnnl_memory_create(&e->c, &c, p->engine, DNNL_MEMORY_NONE));
    e->key = *key;
}

bool ra_cpu_products_have_bf16(const ra_cpu_products *p)
{
    dnnl_memory_desc_t x, y, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd;
    describe(&x, dnnl_bf16, 16, 16, false, 16);
    describe(&y, dnnl_bf16, 16, 16, true, 16);
    describe(&c, dnnl_f32, 16, 16, false, 16);
    DNNL(dnnl_matmul_desc_init(&desc, &x, &y, NULL, &c));
    if (dnnl_primitive_desc_create(&pd, &desc, NULL, p->engine, NULL) != dnnl_success) return false;
    DNNL(dnnl_primitive_desc_destroy(pd));
    return true;
}

/* FNV-1a */
static uint64_t hash_bytes(const void *data, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    return h;
}

/* packed: the layout of packed weights, or NULL */
static product *find(ra_cpu_products *p, const shape_key *key, const dnnl_memory_desc_t *packed)
{
    uint64_t h = hash_bytes(key, sizeof *key);
    for (uint64_t i = h;; i++) {
        product *e = &p->slot[i % SLOTS];
        if (!e->key.used) {
            if (p->count == MOST) {
                forget_all(p);
                e = &p->slot[h % SLOTS];
            }
            p->count++;
            make(p, key, packed, e);
            return e;
        }
        if (memcmp(&e->key, key, sizeof *key) == 0) return e;
    }
}

static void execute(product *e, dnnl_stream_t stream, const void *x, const void *y, void *c)
{
    DNNL(dnnl_memory_set_data_handle(e->x, (void *)(uintptr_t)x));
    DNNL(dnnl_memory_set_data_handle(e->y, (void *)(uintptr_t)y));
    DNNL(dnnl_memory_set_data_handle(e->c, c));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->x}, {DNNL_ARG_WEIGHTS, e->y}, {DNNL_ARG_DST, e->c}};
    DNNL(dnnl_primitive_execute(e->primitive, stream, 3, args));
    DNNL(dnnl_stream_wait(stream));
}

static void set_zero(int64_t m, int64_t n, size_t size, void *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++) memset((char *)c + (size_t)(i * ldc) * size, 0, (size_t)n * size);
}

static void multiply(ra_cpu_products *p, bool bf16, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k,
                     const void *x, int64_t ldx, const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    if (m == 0 || n == 0) return;
    if (k == 0) {
        if (!accumulate) set_zero(m, n, c_is_r || !bf16 ? sizeof(float) : sizeof(ra_bf16), c, ldc);
        return;
    }
    shape_key key;
    memset(&key, 0, sizeof key); /* padding too: keys are compared as bytes */
    key.m = m, key.n = n, key.k = k, key.ldx = ldx, key.ldy = ldy, key.ldc = ldc;
    key.tx = tx == RA_TRANSPOSE, key.ty = ty == RA_TRANSPOSE, key.accumulate = accumulate, key.c_is_r = c_is_r;
    key.a_is_bf16 = bf16, key.used = 1;
    execute(find(p, &key, NULL), p->stream, x, y, c);
}

void ra_cpu_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    ra_cpu_state *s = b->state;
    if (!s->wide) {
        multiply(s->products, b->a == RA_DTYPE_BF16, tx, ty, m, n, k, x, ldx, y, ldy, accumulate, c_is_r, c, ldc);
        return;
    }
    const float *wide_x = ra_cpu_widen(s->wide, 0, tx == RA_TRANSPOSE ? k : m, tx == RA_TRANSPOSE ? m : k, x, ldx);
    const float *wide_y = ra_cpu_widen(s->wide, 1, ty == RA_TRANSPOSE ? n : k, ty == RA_TRANSPOSE ? k : n, y, ldy);
    float *to = c_is_r ? c : ra_cpu_wide_result(s->wide, m, n, accumulate ? c : NULL, ldc);
    multiply(s->products, false, tx, ty, m, n, k, wide_x, tx == RA_TRANSPOSE ? m : k, wide_y, ty == RA_TRANSPOSE ? k : n,
             accumulate, true, to, c_is_r ? ldc : n);
    if (!c_is_r) ra_cpu_narrow(m, n, to, c, ldc);
}

bool ra_cpu_products_rows_independent(ra_backend *b)
{
    enum { WIDTH = 576, ROWS = 192 };
    static const int64_t fewer[] = {1, 2, 7, 48, 101};
    size_t cells = (size_t)ROWS * WIDTH;
    char *x = ra_calloc(cells, b->a_size), *y = ra_calloc((size_t)WIDTH * WIDTH, b->a_size);
    float *all = ra_calloc(cells, sizeof *all), *some = ra_calloc(cells, sizeof *some),
          *wide = ra_calloc(cells + WIDTH * WIDTH, sizeof *wide);
    for (size_t i = 0; i < cells + WIDTH * WIDTH; i++) wide[i] = (float)((i * 2654435761u >> 7) % 8191) / 4096.0f - 1.0f;
    b->ops->cast_to_a(b, (int64_t)cells, wide, x);
    b->ops->cast_to_a(b, (int64_t)WIDTH * WIDTH, wide + cells, y);
    bool same = true;
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, ROWS, WIDTH, WIDTH, x, WIDTH, y, WIDTH, false, true, all, WIDTH);
    for (size_t f = 0; f < sizeof fewer / sizeof *fewer && same; f++) {
        int64_t first = ROWS - fewer[f];
        b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, fewer[f], WIDTH, WIDTH, x + (size_t)(first * WIDTH) * b->a_size, WIDTH, y,
                     WIDTH, false, true, some, WIDTH);
        same = memcmp(some, all + first * WIDTH, (size_t)(fewer[f] * WIDTH) * sizeof *some) == 0;
    }
    void *memory[] = {x, y, all, some, wide};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) ra_free(memory[i]);
    return same;
}

/* What the library multiplies. */
static dnnl_data_type_t type_of(const ra_backend *b)
{
    return b->a == RA_DTYPE_BF16 && !((const ra_cpu_state *)b->state)->wide ? dnnl_bf16 : dnnl_f32;
}

/* oneDNN chooses the order by the number of threads too: what it chose stays with the copy. */
typedef struct {
    dnnl_memory_desc_t layout;
    uint64_t hash; /* of the layout, not 0 */
    void *data;
} packed_weights;

size_t ra_cpu_packed_bytes(ra_backend *b, int64_t n, int64_t k)
{
    dnnl_memory_desc_t packed;
    describe_packed(((ra_cpu_state *)b->state)->products, type_of(b), n, k, &packed);
    return dnnl_memory_desc_get_size(&packed);
}

void *ra_cpu_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw)
{
    ra_cpu_state *s = b->state;
    ra_cpu_products *p = s->products;
    if (s->wide) w = ra_cpu_widen(s->wide, 1, n, k, w, ldw), ldw = k;
    dnnl_memory_desc_t plain, packed;
    describe(&plain, type_of(b), k, n, true, ldw);
    describe_packed(p, type_of(b), n, k, &packed);
    packed_weights *out = ra_alloc(1, sizeof *out);
    *out = (packed_weights){.layout = packed,
                            .hash = hash_bytes(&packed.format_desc.blocking, sizeof packed.format_desc.blocking) | 1,
                            .data = ra_cpu_alloc(b, dnnl_memory_desc_get_size(&packed))};
    dnnl_memory_t from, to;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t reorder;
    DNNL(dnnl_memory_create(&from, &plain, p->engine, (void *)(uintptr_t)w));
    DNNL(dnnl_memory_create(&to, &packed, p->engine, out->data));
    DNNL(dnnl_reorder_primitive_desc_create(&pd, &plain, p->engine, &packed, p->engine, NULL));
    DNNL(dnnl_primitive_create(&reorder, pd));
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    DNNL(dnnl_primitive_execute(reorder, p->stream, 2, args));
    DNNL(dnnl_stream_wait(p->stream));
    DNNL(dnnl_primitive_destroy(reorder));
    DNNL(dnnl_primitive_desc_destroy(pd));
    DNNL(dnnl_memory_destroy(from));
    DNNL(dnnl_memory_destroy(to));
    return out;
}

void ra_cpu_release_packed(ra_backend *b, void *packed)
{
    ra_host_release(b, ((packed_weights *)packed)->data);
    ra_free(packed);
}

void ra_cpu_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                        bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    if (m == 0) return;
    ra_cpu_state *s = b->state;
    const packed_weights *w = packed;
    void *to = c;
    shape_key key;
    memset(&key, 0, sizeof key);
    key.m = m, key.n = n, key.k = k, key.ldx = ldx, key.ldc = ldc, key.layout = w->hash;
    key.accumulate = accumulate, key.c_is_r = c_is_r, key.a_is_bf16 = type_of(b) == dnnl_bf16, key.used = 1;
    if (s->wide) {
        x = ra_cpu_widen(s->wide, 0, m, k, x, ldx);
        key.ldx = k, key.c_is_r = true;
        if (!c_is_r) to = ra_cpu_wide_result(s->wide, m, n, accumulate ? c : NULL, ldc), key.ldc = n;
    }
    execute(find(s->products, &key, &w->layout), s->products->stream, x, w->data, to);
    if (to != c) ra_cpu_narrow(m, n, to, c, ldc);
}
