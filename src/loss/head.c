/* The fused head: log-probabilities, KL and their gradients block by block of the vocabulary, at response positions only; T x V logits are never stored.
 *
 *   z = n W^T,  l = cap(z),  log p(t) = l_t - lse(l)
 *   dL/dl = c (1_t - p)            for rows with coefficient c = dL / dlog p
 *   dL/dl = c (p - p_ref)          for Retain rows with c = dL / dKL  (eq. 3)
 *   dn = dz W,  dW += dz^T n,  or, contracting with the tangent G,  sum_v dz_v (G n)_v  per row
 * Logits are made twice, once for the sums and once for the gradient. */
#include <realign/loss.h>
#include <realign/mem.h>

#include <math.h>
#include <string.h>

enum { BLOCK_BYTES = 16 << 20 };

struct ra_head {
    ra_model *m;
    int32_t rows;
    int64_t block;        /* vocabulary entries at a time for `rows` rows */
    void *hx, *hn, *rstd; /* (rows, hidden) R, A; (rows) R */
    void *dhn, *dhx;      /* (rows, hidden) R */
    void *z, *z_ref, *dz; /* (rows, block) R, R, A */
    const void *ref_weight, *ref_hidden;
    double *maximum, *sum, *target_logit, *lse;         /* (rows) */
    double *ref_maximum, *ref_sum, *weighted, *lse_ref; /* (rows) */
    double *dot;                                        /* (rows) */
};

static int64_t block_for(const ra_model *m, int64_t rows)
{
    int64_t n = BLOCK_BYTES / ((rows ? rows : 1) * (int64_t)m->b->r_size) / 64 * 64;
    if (n < 512) n = 512;
    return n < m->arch.vocabulary ? n : m->arch.vocabulary;
}

ra_head *ra_head_new(ra_model *m, int32_t rows)
{
    ra_head *h = ra_calloc(1, sizeof *h);
    ra_backend *b = m->b;
    size_t n = (size_t)rows, hidden = (size_t)m->arch.hidden;
    h->m = m;
    h->rows = rows;
    /* few rows take wide blocks: the buffer must hold the larger of both shapes */
    size_t cells = (size_t)BLOCK_BYTES / b->r_size;
    if (cells < n * (size_t)block_for(m, rows)) cells = n * (size_t)block_for(m, rows);
    if (cells > n * (size_t)m->arch.vocabulary) cells = n * (size_t)m->arch.vocabulary;
    h->hx = b->ops->alloc(b, n * hidden * b->r_size);
    h->hn = b->ops->alloc(b, n * hidden * b->a_size);
    h->rstd = b->ops->alloc(b, n * b->r_size);
    h->dhn = b->ops->alloc(b, n * hidden * b->r_size);
    h->dhx = b->ops->alloc(b, n * hidden * b->r_size);
    h->z = b->ops->alloc(b, cells * b->r_size);
    h->z_ref = b->ops->alloc(b, cells * b->r_size);
    h->dz = b->ops->alloc(b, cells * b->a_size);
    double **host[] = {&h->maximum, &h->sum,      &h->target_logit, &h->lse, &h->ref_maximum,
                       &h->ref_sum, &h->weighted, &h->lse_ref,      &h->dot};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) *host[i] = ra_calloc(n, sizeof(double));
    return h;
}

void ra_head_free(ra_head *h)
{
    if (!h) return;
    ra_backend *b = h->m->b;
    void *memory[] = {h->hx, h->hn, h->rstd, h->dhn, h->dhx, h->z, h->z_ref, h->dz};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) b->ops->release(b, memory[i]);
    double *host[] = {h->maximum, h->sum, h->target_logit, h->lse, h->ref_maximum, h->ref_sum, h->weighted, h->lse_ref, h->dot};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) ra_free(host[i]);
    ra_free(h);
}

void ra_head_set_reference(ra_head *h, const void *weight, const void *hidden)
{
    h->ref_weight = weight;
    h->ref_hidden = hidden;
}

const void *ra_head_hidden(const ra_head *h)
{
    return h->hn;
}

static const void *rows_of(const void *base, int64_t row, int64_t width, size_t size)
{
    return (const char *)base + (size_t)(row * width) * size;
}

/* z = n W[v0 .. v0 + nv)^T */
static void logits(ra_head *h, const void *hidden, const void *weight, int64_t n, int64_t v0, int64_t nv, void *z)
{
    ra_backend *b = h->m->b;
    int64_t width = h->m->arch.hidden;
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, nv, width, hidden, width, rows_of(weight, v0, width, b->a_size), width,
                 false, true, z, nv);
}

static const void *head_weight(const ra_head *h)
{
    return rows_of(h->m->w_a, h->m->head, 1, h->m->b->a_size);
}

void ra_head_forward(ra_head *h, const ra_microbatch *mb, const void *last, double *logp, double *kl)
{
    ra_model *m = h->m;
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int64_t n = mb->head_rows, plain = mb->kl_first, retain = h->ref_hidden ? n - plain : 0, block = block_for(m, n);
    if (n > h->rows) ra_die("the head has buffers for %d rows, a micro-batch has %lld", h->rows, (long long)n);
    b->ops->gather_rows(b, n, a->hidden, mb->head_row, last, h->hx);
    b->ops->rmsnorm(b, n, a->hidden, h->hx, (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size, a->plus_one, a->eps,
                    h->hn, h->rstd);
    for (int64_t i = 0; i < n; i++) {
        h->maximum[i] = h->ref_maximum[i] = -INFINITY;
        h->sum[i] = h->ref_sum[i] = h->weighted[i] = h->target_logit[i] = 0.0;
    }
    for (int64_t v = 0; v < a->vocabulary; v += block) {
        int64_t nv = a->vocabulary - v < block ? a->vocabulary - v : block;
        logits(h, h->hn, head_weight(h), n, v, nv, h->z);
        b->ops->softmax_update(b, n, nv, v, a->final_softcap, h->z, mb->head_target, h->maximum, h->sum, h->target_logit);
        if (retain == 0) continue;
        logits(h, h->ref_hidden, h->ref_weight, retain, v, nv, h->z_ref);
        b->ops->kl_update(b, retain, nv, a->final_softcap, rows_of(h->z, plain, nv, b->r_size), h->z_ref, h->ref_maximum + plain,
                          h->ref_sum + plain, h->weighted + plain);
    }
    for (int64_t i = 0; i < n; i++) {
        h->lse[i] = h->maximum[i] + log(h->sum[i]);
        logp[i] = h->target_logit[i] - h->lse[i];
        if (kl) kl[i] = 0.0;
        if (!kl || i < plain || retain == 0) continue;
        h->lse_ref[i] = h->ref_maximum[i] + log(h->ref_sum[i]);
        kl[i] = h->weighted[i] / h->ref_sum[i] - h->lse_ref[i] + h->lse[i];
    }
}

void ra_head_backward(ra_head *h, const ra_microbatch *mb, const double *coefficient, void *dx, const ra_backward *mode)
{
    ra_model *m = h->m;
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int64_t n = mb->head_rows, plain = mb->kl_first, retain = h->ref_hidden ? n - plain : 0, block = block_for(m, n),
            width = a->hidden;
    bool full = m->training == RA_TRAIN_FULL;
    b->ops->zero(b, h->dhn, (size_t)(n * width) * b->r_size);
    memset(h->dot, 0, (size_t)n * sizeof *h->dot);
    for (int64_t v = 0; v < a->vocabulary; v += block) {
        int64_t nv = a->vocabulary - v < block ? a->vocabulary - v : block;
        const void *w = rows_of(head_weight(h), v, width, b->a_size);
        logits(h, h->hn, head_weight(h), n, v, nv, h->z);
        b->ops->softmax_grad(b, plain, nv, v, a->final_softcap, h->z, mb->head_target, h->lse, coefficient, h->dz);
        if (retain) {
            logits(h, h->ref_hidden, h->ref_weight, retain, v, nv, h->z_ref);
            b->ops->kl_grad(b, retain, nv, a->final_softcap, rows_of(h->z, plain, nv, b->r_size), h->z_ref, h->lse + plain,
                            h->lse_ref + plain, coefficient + plain, (char *)h->dz + (size_t)(plain * nv) * b->a_size);
        }
        int64_t used = plain + retain;
        b->ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, used, width, nv, h->dz, nv, w, width, true, true, h->dhn, width);
        if (full && mode->gradient) {
            void *dw = (char *)mode->gradient + (size_t)(m->head + v * width) * b->r_size;
            b->ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, nv, width, used, h->dz, nv, h->hn, width, true, true, dw, width);
        } else if (full) {
            logits(h, h->hn, rows_of(mode->tangent_a, m->head, 1, b->a_size), used, v, nv, h->z);
            b->ops->row_dot(b, used, nv, 1.0, h->dz, nv, h->z, h->dot);
        }
    }
    const void *gain = (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size;
    void *dgain = full && mode->gradient ? (char *)mode->gradient + (size_t)m->final_norm * b->r_size : NULL;
    const void *g = full && !mode->gradient ? (const char *)mode->tangent_r + (size_t)m->final_norm * b->r_size : NULL;
    b->ops->rmsnorm_grad(b, n, width, h->hx, gain, a->plus_one, h->rstd, h->dhn, false, h->dhx, dgain, g, h->dot);
    b->ops->zero(b, dx, (size_t)(mb->pack.rows * width) * b->r_size);
    b->ops->scatter_add_rows(b, n, width, mb->head_row, h->dhx, dx);
    for (int64_t i = 0; mode->dot && i < n; i++) mode->dot[mb->head_row[i]] += h->dot[i];
}
