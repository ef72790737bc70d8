#include "choose.h"

#include "logits.h"

#include <realign/mem.h>

#include <math.h>

enum { GREEDY_BLOCK = 8192 }; /* vocabulary entries: a block of 32 rows is 1 MiB */

struct ra_chooser {
    ra_model *m;
    ra_sampling sampling;
    ra_logits *logits;              /* by blocks; the whole vocabulary at once where tokens are drawn */
    double *best;                   /* greedy: (rows) */
    void *best_there, *token_there; /* greedy: (rows) double, int32; backend memory */
    void *host;                     /* drawn: (rows, V) R; */
    double *logit, *p;              /* drawn: (rows, V) */
    int32_t *order;                 /* drawn: (rows, V) */
};

ra_chooser *ra_chooser_new(ra_model *m, int32_t rows, const ra_sampling *sampling)
{
    ra_chooser *c = ra_calloc(1, sizeof *c);
    size_t n = (size_t)rows, vocabulary = (size_t)m->arch.vocabulary;
    bool drawn = sampling->temperature > 0.0;
    c->m = m;
    c->sampling = *sampling;
    c->logits = ra_logits_new(m, rows, drawn ? m->arch.vocabulary : GREEDY_BLOCK, true);
    if (!drawn) {
        c->best = ra_calloc(n, sizeof *c->best);
        c->best_there = m->b->ops->alloc(m->b, n * sizeof(double));
        c->token_there = m->b->ops->alloc(m->b, n * sizeof(int32_t));
        return c;
    }
    c->host = ra_alloc(n * vocabulary, m->b->r_size);
    c->logit = ra_alloc(n * vocabulary, sizeof *c->logit);
    c->p = ra_alloc(n * vocabulary, sizeof *c->p);
    c->order = ra_alloc(n * vocabulary, sizeof *c->order);
    return c;
}

void ra_chooser_free(ra_chooser *c)
{
    if (!c) return;
    ra_backend *b = c->m->b;
    ra_logits_free(c->logits);
    if (c->best_there) b->ops->release(b, c->best_there);
    if (c->token_there) b->ops->release(b, c->token_there);
    void *host[] = {c->best, c->host, c->logit, c->p, c->order};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) ra_free(host[i]);
    ra_free(c);
}

/* Soft-caps are monotone: the largest raw product is the largest logit. */
static void choose_largest(ra_chooser *c, int32_t n, int32_t *token)
{
    ra_backend *b = c->m->b;
    size_t best_bytes = (size_t)n * sizeof(double), token_bytes = (size_t)n * sizeof(int32_t);
    for (int32_t i = 0; i < n; i++) {
        c->best[i] = -INFINITY;
        token[i] = -1;
    }
    b->ops->upload(b, c->best_there, c->best, best_bytes);
    b->ops->upload(b, c->token_there, token, token_bytes);
    for (int64_t v0 = 0, nv; v0 < c->m->arch.vocabulary; v0 += nv) {
        const void *z = ra_logits_block(c->logits, v0, &nv);
        b->ops->argmax_update(b, n, nv, v0, z, c->best_there, c->token_there);
    }
    b->ops->download(b, c->best, c->best_there, best_bytes);
    b->ops->download(b, token, c->token_there, token_bytes);
    for (int32_t i = 0; i < n; i++) {
        if (isnan(c->best[i])) token[i] = -1;
    }
}

static void draw(ra_chooser *c, int32_t n, const int64_t *id, const int32_t *step, int32_t *token)
{
    ra_backend *b = c->m->b;
    int64_t vocabulary;
    double cap = c->m->arch.final_softcap;
    const void *z = ra_logits_block(c->logits, 0, &vocabulary);
    b->ops->download(b, c->host, z, (size_t)(n * vocabulary) * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, c->logit, b->r, c->host, n * vocabulary);
#pragma omp parallel for schedule(dynamic)
    for (int32_t i = 0; i < n; i++) {
        double *l = c->logit + i * vocabulary;
        for (int64_t v = 0; cap > 0.0 && v < vocabulary; v++) l[v] = cap * tanh(l[v] / cap);
        ra_rng rng = ra_sampling_rng(&c->sampling, id[i], step[i]);
        token[i] = ra_sample_token(&c->sampling, vocabulary, l, &rng, c->p + i * vocabulary, c->order + i * vocabulary);
    }
}

void ra_chooser_choose(ra_chooser *c, int32_t n, const int32_t *row, const void *last, const int64_t *id, const int32_t *step,
                       int32_t *token)
{
    ra_logits_take(c->logits, n, row, last);
    if (c->sampling.temperature > 0.0) {
        draw(c, n, id, step, token);
    } else {
        choose_largest(c, n, token);
    }
}
