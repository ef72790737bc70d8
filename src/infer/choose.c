#include "choose.h"

#include <realign/mem.h>

#include <math.h>

enum { GREEDY_BLOCK = 8192 }; /* vocabulary entries: a block of 32 rows is 1 MiB */

struct ra_chooser {
    ra_model *m;
    int64_t blocks;
    void **packed; /* (blocks) of the head, or NULL entries */
    ra_sampling sampling;
    int32_t rows;
    int64_t block;        /* vocabulary entries at a time; all of them where tokens are drawn */
    void *hx, *hn, *rstd; /* (rows, hidden) R, A; (rows) R */
    void *z;              /* (rows, block) R */
    double *best;         /* (rows) */
    void *host;           /* drawn: (rows, V) R; */
    double *logits, *p;   /* drawn: (rows, V) */
    int32_t *order;       /* drawn: (rows, V) */
};

static const void *head_rows(const ra_model *m, int64_t v0)
{
    return (const char *)m->w_a + (size_t)(m->head + v0 * m->arch.hidden) * m->b->a_size;
}

static int64_t block_rows(const ra_chooser *c, int64_t v0)
{
    int64_t left = c->m->arch.vocabulary - v0;
    return left < c->block ? left : c->block;
}

static void pack_head(ra_chooser *c)
{
    ra_backend *b = c->m->b;
    int64_t width = c->m->arch.hidden;
    c->blocks = (c->m->arch.vocabulary + c->block - 1) / c->block;
    c->packed = ra_calloc((size_t)c->blocks, sizeof *c->packed);
    for (int64_t i = 0; i < c->blocks; i++)
        c->packed[i] = b->ops->pack_weights(b, block_rows(c, i * c->block), width, head_rows(c->m, i * c->block), width);
}

ra_chooser *ra_chooser_new(ra_model *m, int32_t rows, const ra_sampling *sampling)
{
    ra_chooser *c = ra_calloc(1, sizeof *c);
    ra_backend *b = m->b;
    size_t n = (size_t)rows, hidden = (size_t)m->arch.hidden, vocabulary = (size_t)m->arch.vocabulary;
    c->m = m;
    c->sampling = *sampling;
    c->rows = rows;
    bool drawn = sampling->temperature > 0.0;
    c->block = drawn || vocabulary < GREEDY_BLOCK ? (int64_t)vocabulary : GREEDY_BLOCK;
    c->hx = b->ops->alloc(b, n * hidden * b->r_size);
    c->hn = b->ops->alloc(b, n * hidden * b->a_size);
    c->rstd = b->ops->alloc(b, n * b->r_size);
    c->z = b->ops->alloc(b, n * (size_t)c->block * b->r_size);
    c->best = ra_calloc(n, sizeof *c->best);
    pack_head(c);
    if (!drawn) return c;
    c->host = ra_alloc(n * vocabulary, b->r_size);
    c->logits = ra_alloc(n * vocabulary, sizeof *c->logits);
    c->p = ra_alloc(n * vocabulary, sizeof *c->p);
    c->order = ra_alloc(n * vocabulary, sizeof *c->order);
    return c;
}

void ra_chooser_free(ra_chooser *c)
{
    if (!c) return;
    ra_backend *b = c->m->b;
    void *memory[] = {c->hx, c->hn, c->rstd, c->z};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) b->ops->release(b, memory[i]);
    for (int64_t i = 0; i < c->blocks; i++) {
        if (c->packed[i]) b->ops->release_packed(b, c->packed[i]);
    }
    void *host[] = {c->packed, c->best, c->host, c->logits, c->p, c->order};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) ra_free(host[i]);
    ra_free(c);
}

/* z = n W[v0 .. v0 + nv)^T, a whole block */
static void product(ra_chooser *c, int32_t n, int64_t v0)
{
    ra_backend *b = c->m->b;
    int64_t width = c->m->arch.hidden, nv = block_rows(c, v0);
    const void *packed = c->packed[v0 / c->block];
    if (packed) {
        b->ops->gemm_packed(b, n, nv, width, c->hn, width, packed, false, true, c->z, nv);
    } else {
        b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, nv, width, c->hn, width, head_rows(c->m, v0), width, false, true, c->z,
                     nv);
    }
}

/* Soft-caps are monotone: the largest raw product is the largest logit. */
static void choose_largest(ra_chooser *c, int32_t n, int32_t *token)
{
    int64_t vocabulary = c->m->arch.vocabulary;
    for (int32_t i = 0; i < n; i++) {
        c->best[i] = -INFINITY;
        token[i] = -1;
    }
    for (int64_t v0 = 0; v0 < vocabulary; v0 += c->block) {
        product(c, n, v0);
        c->m->b->ops->argmax_update(c->m->b, n, block_rows(c, v0), v0, c->z, c->best, token);
    }
    for (int32_t i = 0; i < n; i++) {
        if (isnan(c->best[i])) token[i] = -1;
    }
}

static void draw(ra_chooser *c, int32_t n, const int64_t *id, const int32_t *step, int32_t *token)
{
    ra_backend *b = c->m->b;
    int64_t vocabulary = c->m->arch.vocabulary;
    double cap = c->m->arch.final_softcap;
    product(c, n, 0);
    b->ops->download(b, c->host, c->z, (size_t)(n * vocabulary) * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, c->logits, b->r, c->host, n * vocabulary);
#pragma omp parallel for schedule(dynamic)
    for (int32_t i = 0; i < n; i++) {
        double *l = c->logits + i * vocabulary;
        for (int64_t v = 0; cap > 0.0 && v < vocabulary; v++) l[v] = cap * tanh(l[v] / cap);
        ra_rng rng = ra_sampling_rng(&c->sampling, id[i], step[i]);
        token[i] = ra_sample_token(&c->sampling, vocabulary, l, &rng, c->p + i * vocabulary, c->order + i * vocabulary);
    }
}

void ra_chooser_choose(ra_chooser *c, int32_t n, const int32_t *row, const void *last, const int64_t *id, const int32_t *step,
                       int32_t *token)
{
    ra_model *m = c->m;
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    b->ops->gather_rows(b, n, a->hidden, row, last, c->hx);
    b->ops->rmsnorm(b, n, a->hidden, c->hx, (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size, a->plus_one, a->eps,
                    c->hn, c->rstd);
    if (c->sampling.temperature > 0.0) {
        draw(c, n, id, step, token);
    } else {
        choose_largest(c, n, token);
    }
}
