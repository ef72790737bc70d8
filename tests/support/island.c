/* The reference backend on an island. Addresses it hands out lie in a range that nobody may read; the memory behind them is elsewhere, and only the operators here know where. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "island.h"

#include <realign/log.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BYTES ((size_t)8 << 30) /* of addresses; memory is taken when it is touched */

typedef struct {
    struct ra_backend_ops ops; /* first: what the backend's ops point at */
    const struct ra_backend_ops *inner;
    char *shore, *land; /* addresses as others see them; the memory */
    size_t used;
} island;

/* A pack's arrays on the island, beside those they were made from. */
typedef struct {
    ra_pack pack;
} placed_pack;

static island *island_of(const ra_backend *b)
{
    return (island *)(uintptr_t)b->ops;
}

#define INNER (island_of(b)->inner)
#define AT(p) at(b, p, #p, __func__)

static void *at(const ra_backend *b, const void *p, const char *what, const char *op)
{
    const island *i = island_of(b);
    if (!p) return NULL;
    if ((const char *)p < i->shore || (const char *)p >= i->shore + i->used)
        ra_die("%s: %s is not in the backend's memory", op, what);
    return i->land + ((const char *)p - i->shore);
}

static void check_host(const ra_backend *b, const void *p, const char *op)
{
    const island *i = island_of(b);
    if ((const char *)p >= i->shore && (const char *)p < i->shore + BYTES)
        ra_die("%s: the host's side is in the backend's memory", op);
}

/* ---- memory ---- */
static void *island_alloc(ra_backend *b, size_t bytes)
{
    island *i = island_of(b);
    void *p = i->shore + i->used;
    i->used += (bytes + 127) / 64 * 64; /* never empty */
    if (i->used > BYTES) ra_die("the island is full");
    return p;
}

/* Addresses are not handed out twice, so that what was released is never mistaken for something new. */
static void island_release(ra_backend *b, void *memory)
{
    (void)AT(memory);
}

static void island_upload(ra_backend *b, void *to, const void *host, size_t bytes)
{
    check_host(b, host, __func__);
    if (bytes) memcpy(AT(to), host, bytes);
}

static void island_download(ra_backend *b, void *host, const void *from, size_t bytes)
{
    check_host(b, host, __func__);
    if (bytes) memcpy(host, AT(from), bytes);
}

/* ---- packs ---- */
static void *copied(ra_backend *b, const void *from, size_t bytes)
{
    void *to = island_alloc(b, bytes);
    island_upload(b, to, from, bytes);
    return to;
}

static void island_release_pack(ra_backend *b, ra_pack *pack)
{
    (void)b;
    ra_free(pack->placed);
    pack->placed = NULL;
}

static void island_place_pack(ra_backend *b, ra_pack *pack)
{
    island_release_pack(b, pack);
    placed_pack *p = ra_calloc(1, sizeof *p);
    size_t rows = (size_t)pack->rows * sizeof(int32_t);
    p->pack = *pack;
    p->pack.token = copied(b, pack->token, rows);
    p->pack.position = copied(b, pack->position, rows);
    p->pack.segment = copied(b, pack->segment, (size_t)pack->segments * sizeof *pack->segment);
    p->pack.tree_begin = copied(b, pack->tree_begin, ((size_t)pack->trees + 1) * sizeof(int32_t));
    pack->placed = p;
    pack->placed_token = p->pack.token;
    pack->placed_position = p->pack.position;
}

/* The pack as operators see it; it must have been placed since it was changed. */
static ra_pack seen(ra_backend *b, const ra_pack *pack)
{
    const placed_pack *p = pack->placed;
    if (!p) ra_die("a pack was not placed");
    ra_pack s = p->pack;
    s.token = AT(s.token);
    s.position = AT(s.position);
    s.segment = AT(s.segment);
    s.tree_begin = AT(s.tree_begin);
    s.placed = NULL;
    bool same = s.rows == pack->rows && s.segments == pack->segments && s.trees == pack->trees &&
                !memcmp(s.position, pack->position, (size_t)s.rows * sizeof *s.position) &&
                !memcmp(s.segment, pack->segment, (size_t)s.segments * sizeof *s.segment) &&
                !memcmp(s.tree_begin, pack->tree_begin, ((size_t)s.trees + 1) * sizeof *s.tree_begin);
    if (!same) ra_die("a pack was changed after it was placed");
    return s;
}

static void island_attention(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, void *out, void *lse)
{
    ra_pack s = seen(b, pack);
    INNER->attention(b, &s, a, AT(qkv), AT(out), AT(lse));
}

static void island_attention_prefixed(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                                      const void *qkv, void *out)
{
    ra_pack s = seen(b, pack);
    ra_cached_prefix p = *prefix;
    p.cache = AT(p.cache);
    p.slot = AT(p.slot);
    p.length = AT(p.length);
    INNER->attention_prefixed(b, &s, a, &p, AT(qkv), AT(out));
}

static void island_attention_grad(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                                  const void *lse, const void *dout, void *dqkv)
{
    ra_pack s = seen(b, pack);
    INNER->attention_grad(b, &s, a, AT(qkv), AT(out), AT(lse), AT(dout), AT(dqkv));
}

/* ---- packed weights: there are none ---- */
static void *island_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw)
{
    (void)n, (void)k, (void)ldw;
    (void)AT(w);
    return NULL;
}

static size_t island_packed_bytes(ra_backend *b, int64_t n, int64_t k)
{
    (void)b, (void)n, (void)k;
    return 0;
}

/* ---- the others: the same with addresses translated ---- */
static void island_copy(ra_backend *b, void *to, const void *from, size_t bytes)
{
    INNER->copy(b, AT(to), AT(from), bytes);
}

static void island_zero(ra_backend *b, void *memory, size_t bytes)
{
    INNER->zero(b, AT(memory), bytes);
}

static void island_cast_to_a(ra_backend *b, int64_t n, const void *x, void *y)
{
    INNER->cast_to_a(b, n, AT(x), AT(y));
}

static void island_cast_to_r(ra_backend *b, int64_t n, const void *x, void *y)
{
    INNER->cast_to_r(b, n, AT(x), AT(y));
}

static void island_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x,
                        int64_t ldx, const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    INNER->gemm(b, tx, ty, m, n, k, AT(x), ldx, AT(y), ldy, accumulate, c_is_r, AT(c), ldc);
}

static void island_bias_add(ra_backend *b, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy)
{
    INNER->bias_add(b, rows, n, AT(bias), AT(y), ldy);
}

static void island_bias_grad(ra_backend *b, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias)
{
    INNER->bias_grad(b, rows, n, AT(dy), ldy, AT(dbias));
}

static void island_add_scaled(ra_backend *b, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx)
{
    INNER->add_scaled(b, rows, n, s, AT(y), AT(x), ldx);
}

static void island_row_dot(ra_backend *b, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y,
                           double *dot)
{
    INNER->row_dot(b, rows, n, s, AT(x), ldx, AT(y), AT(dot));
}

static void island_row_dot_vector(ra_backend *b, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v, double *dot)
{
    INNER->row_dot_vector(b, rows, n, AT(x), ldx, AT(v), AT(dot));
}

static void island_embed(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w, void *x)
{
    INNER->embed(b, rows, h, AT(token), scale, AT(w), AT(x));
}

static void island_embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx,
                              void *dw)
{
    INNER->embed_grad(b, rows, h, AT(token), scale, AT(dx), AT(dw));
}

static void island_embed_dot(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx,
                             const void *g, double *dot)
{
    INNER->embed_dot(b, rows, h, AT(token), scale, AT(dx), AT(g), AT(dot));
}

static void island_rmsnorm(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps,
                           void *y, void *rstd)
{
    INNER->rmsnorm(b, rows, h, AT(x), AT(w), plus_one, eps, AT(y), AT(rstd));
}

static void island_rmsnorm_add(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps,
                               void *sum, void *rstd)
{
    INNER->rmsnorm_add(b, rows, h, AT(x), AT(w), plus_one, eps, AT(sum), AT(rstd));
}

static void island_rmsnorm_grad(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                                const void *rstd, const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot)
{
    INNER->rmsnorm_grad(b, rows, h, AT(x), AT(w), plus_one, AT(rstd), AT(dy), accumulate, AT(dx), AT(dw), AT(g), AT(dot));
}

static void island_rope(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position, const void *cosine,
                        const void *sine, bool inverse, void *x, int64_t ldx)
{
    INNER->rope(b, rows, heads, head_dim, AT(position), AT(cosine), AT(sine), inverse, AT(x), ldx);
}

static void island_cache_store(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv, int64_t ldq,
                               const int32_t *slot, const int32_t *position, void *cache, int64_t slot_stride,
                               int64_t value_offset)
{
    INNER->cache_store(b, rows, a, AT(qkv), ldq, AT(slot), AT(position), AT(cache), slot_stride, value_offset);
}

static void island_attention_cached(ra_backend *b, int32_t rows, const ra_attention *a, const void *q, int64_t ldq,
                                    const void *cache, int64_t slot_stride, int64_t value_offset, const int32_t *slot,
                                    const int32_t *length, void *out)
{
    INNER->attention_cached(b, rows, a, AT(q), ldq, AT(cache), slot_stride, value_offset, AT(slot), AT(length), AT(out));
}

static void island_glu(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h)
{
    INNER->glu(b, rows, f, kind, AT(gate_up), AT(h));
}

static void island_glu_grad(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh,
                            void *dgate_up)
{
    INNER->glu_grad(b, rows, f, kind, AT(gate_up), AT(dh), AT(dgate_up));
}

static void island_gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y)
{
    INNER->gather_rows(b, n, h, AT(row), AT(x), AT(y));
}

static void island_scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x)
{
    INNER->scatter_add_rows(b, n, h, AT(row), AT(y), AT(x));
}

static void island_softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                                  const int32_t *target, double *maximum, double *sum, double *target_logit)
{
    INNER->softmax_update(b, n, nv, v0, softcap, AT(z), AT(target), AT(maximum), AT(sum), AT(target_logit));
}

static void island_argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z, double *best, int32_t *token)
{
    INNER->argmax_update(b, n, nv, v0, AT(z), AT(best), AT(token));
}

static void island_softmax_grad(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                                const int32_t *target, const double *lse, const double *coefficient, void *dz)
{
    INNER->softmax_grad(b, n, nv, v0, softcap, AT(z), AT(target), AT(lse), AT(coefficient), AT(dz));
}

static void island_kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                             double *maximum_ref, double *sum_ref, double *weighted)
{
    INNER->kl_update(b, n, nv, softcap, AT(z), AT(z_ref), AT(maximum_ref), AT(sum_ref), AT(weighted));
}

static void island_kl_grad(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                           const double *lse, const double *lse_ref, const double *coefficient, void *dz)
{
    INNER->kl_grad(b, n, nv, softcap, AT(z), AT(z_ref), AT(lse), AT(lse_ref), AT(coefficient), AT(dz));
}

static double island_sum_squares(ra_backend *b, int64_t n, const void *x)
{
    return INNER->sum_squares(b, n, AT(x));
}

static double island_dot(ra_backend *b, int64_t n, const void *x, const void *y)
{
    return INNER->dot(b, n, AT(x), AT(y));
}

static void island_adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w)
{
    INNER->adamw(b, n, h, AT(g), AT(m), AT(v), AT(w));
}

static void island_axpy(ra_backend *b, int64_t n, double s, const void *x, void *y)
{
    INNER->axpy(b, n, s, AT(x), AT(y));
}

ra_err island_open(ra_backend **out)
{
    static const struct ra_backend_ops ops = {
        .alloc = island_alloc,
        .release = island_release,
        .upload = island_upload,
        .download = island_download,
        .copy = island_copy,
        .zero = island_zero,
        .place_pack = island_place_pack,
        .release_pack = island_release_pack,
        .cast_to_a = island_cast_to_a,
        .cast_to_r = island_cast_to_r,
        .gemm = island_gemm,
        .pack_weights = island_pack_weights,
        .packed_bytes = island_packed_bytes,
        .bias_add = island_bias_add,
        .bias_grad = island_bias_grad,
        .add_scaled = island_add_scaled,
        .row_dot = island_row_dot,
        .row_dot_vector = island_row_dot_vector,
        .embed = island_embed,
        .embed_grad = island_embed_grad,
        .embed_dot = island_embed_dot,
        .rmsnorm = island_rmsnorm,
        .rmsnorm_add = island_rmsnorm_add,
        .rmsnorm_grad = island_rmsnorm_grad,
        .rope = island_rope,
        .attention = island_attention,
        .attention_prefixed = island_attention_prefixed,
        .attention_grad = island_attention_grad,
        .cache_store = island_cache_store,
        .attention_cached = island_attention_cached,
        .glu = island_glu,
        .glu_grad = island_glu_grad,
        .gather_rows = island_gather_rows,
        .scatter_add_rows = island_scatter_add_rows,
        .softmax_update = island_softmax_update,
        .argmax_update = island_argmax_update,
        .softmax_grad = island_softmax_grad,
        .kl_update = island_kl_update,
        .kl_grad = island_kl_grad,
        .sum_squares = island_sum_squares,
        .dot = island_dot,
        .adamw = island_adamw,
        .axpy = island_axpy,
    };
    RA_TRY(ra_backend_open("ref", "fp64", 1, out));
    island *i = ra_calloc(1, sizeof *i);
    i->ops = ops;
    i->inner = (*out)->ops;
    i->shore = mmap(NULL, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    i->land = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (i->shore == MAP_FAILED || i->land == MAP_FAILED) ra_die("no addresses for an island");
    (*out)->ops = &i->ops;
    (*out)->host = false;
    return RA_OK;
}

void island_close(ra_backend *b)
{
    island *i = island_of(b);
    b->ops = i->inner;
    b->host = true;
    munmap(i->shore, BYTES);
    munmap(i->land, BYTES);
    ra_free(i);
    ra_backend_close(b);
}
