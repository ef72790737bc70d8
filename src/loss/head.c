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

/* Of logits at a time: what a processor's cache holds, or enough that a product fills a GPU (doc/performance.md). */
static int64_t block_bytes(const ra_model *m)
{
    return (m->b->host ? 16 : 128) << 20;
}

/* One number a head row, in backend memory. */
enum { MAXIMUM, SUM, TARGET_LOGIT, LSE, REF_MAXIMUM, REF_SUM, WEIGHTED, LSE_REF, COEFFICIENT, DOT, COLUMNS };

struct ra_head {
    ra_model *m;
    int32_t rows, used;   /* room; head rows of the last forward */
    void *block;          /* all of the following */
    void *hx, *hn, *rstd; /* (rows, hidden) R, A; (rows) R */
    void *dhn, *dhx;      /* (rows, hidden) R */
    void *z, *z_ref, *dz; /* (rows, vocabulary block) R, R, A */
    double *column[COLUMNS];
    int32_t *row, *target;
    const void *ref_weight, *ref_hidden;
    double *host[COLUMNS]; /* the same in host memory */
};

static int64_t block_for(const ra_model *m, int64_t rows)
{
    int64_t n = block_bytes(m) / ((rows ? rows : 1) * (int64_t)m->b->r_size) / 64 * 64;
    if (n < 512) n = 512;
    return n < m->arch.vocabulary ? n : m->arch.vocabulary;
}

/* Elements of a block of logits. Few rows take wide blocks: the buffer must hold the larger of both shapes. */
static size_t cells_of(const ra_model *m, int32_t rows)
{
    size_t n = (size_t)rows, cells = (size_t)block_bytes(m) / m->b->r_size;
    if (cells < n * (size_t)block_for(m, rows)) cells = n * (size_t)block_for(m, rows);
    return cells > n * (size_t)m->arch.vocabulary ? n * (size_t)m->arch.vocabulary : cells;
}

/* Places the buffers from `base` on; returns what they take. */
static size_t carve(ra_head *h, char *base)
{
    const ra_model *m = h->m;
    size_t n = (size_t)h->rows, states = n * (size_t)m->arch.hidden, cells = cells_of(m, h->rows), as = m->b->a_size,
           rs = m->b->r_size, used = 0;
    const struct {
        void **place;
        size_t bytes;
    } part[] = {{&h->hx, states * rs},
                {&h->hn, states * as},
                {&h->rstd, n * rs},
                {&h->dhn, states * rs},
                {&h->dhx, states * rs},
                {&h->z, cells * rs},
                {&h->z_ref, cells * rs},
                {&h->dz, cells * as},
                {(void **)&h->row, n * sizeof *h->row},
                {(void **)&h->target, n * sizeof *h->target}};
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        *part[i].place = base + used;
        used += (part[i].bytes + 63) / 64 * 64;
    }
    for (int c = 0; c < COLUMNS; c++) {
        h->column[c] = (double *)(void *)(base + used);
        used += (n * sizeof(double) + 63) / 64 * 64;
    }
    return used;
}

size_t ra_head_bytes(const ra_model *m, int32_t rows)
{
    ra_head h = {.m = (ra_model *)(uintptr_t)m, .rows = rows};
    char here;
    return carve(&h, &here);
}

ra_head *ra_head_new(ra_model *m, int32_t rows)
{
    ra_head *h = ra_calloc(1, sizeof *h);
    h->m = m;
    h->rows = rows;
    h->block = m->b->ops->alloc(m->b, ra_head_bytes(m, rows));
    carve(h, h->block);
    for (int c = 0; c < COLUMNS; c++) h->host[c] = ra_calloc((size_t)rows, sizeof(double));
    return h;
}

void ra_head_free(ra_head *h)
{
    if (!h) return;
    h->m->b->ops->release(h->m->b, h->block);
    for (int c = 0; c < COLUMNS; c++) ra_free(h->host[c]);
    ra_free(h);
}

/* The first n numbers of a column, from and to host memory. */
static void put(ra_head *h, int column, int64_t n)
{
    h->m->b->ops->upload(h->m->b, h->column[column], h->host[column], (size_t)n * sizeof(double));
}

static void take(ra_head *h, int column, int64_t n)
{
    h->m->b->ops->download(h->m->b, h->host[column], h->column[column], (size_t)n * sizeof(double));
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

static void begin_sums(ra_head *h, int64_t n)
{
    static const int sums[] = {MAXIMUM, SUM, TARGET_LOGIT, REF_MAXIMUM, REF_SUM, WEIGHTED};
    for (size_t c = 0; c < sizeof sums / sizeof sums[0]; c++) {
        bool maximum = sums[c] == MAXIMUM || sums[c] == REF_MAXIMUM;
        for (int64_t i = 0; i < n; i++) h->host[sums[c]][i] = maximum ? -INFINITY : 0.0;
        put(h, sums[c], n);
    }
}

/* log p and KL from the running sums of all blocks. */
static void end_sums(ra_head *h, int64_t n, int64_t plain, int64_t retain, double *logp, double *kl)
{
    double **v = h->host;
    static const int own[] = {MAXIMUM, SUM, TARGET_LOGIT}, reference[] = {REF_MAXIMUM, REF_SUM, WEIGHTED};
    for (int c = 0; c < 3; c++) take(h, own[c], n);
    for (int c = 0; c < 3 && retain; c++) take(h, reference[c], n);
    for (int64_t i = 0; i < n; i++) {
        v[LSE][i] = v[MAXIMUM][i] + log(v[SUM][i]);
        logp[i] = v[TARGET_LOGIT][i] - v[LSE][i];
        if (kl) kl[i] = 0.0;
        if (!kl || i < plain || retain == 0) continue;
        v[LSE_REF][i] = v[REF_MAXIMUM][i] + log(v[REF_SUM][i]);
        kl[i] = v[WEIGHTED][i] / v[REF_SUM][i] - v[LSE_REF][i] + v[LSE][i];
    }
    put(h, LSE, n);
    if (retain) put(h, LSE_REF, n);
}

void ra_head_forward(ra_head *h, const ra_microbatch *mb, const void *last, double *logp, double *kl)
{
    ra_model *m = h->m;
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int64_t n = mb->head_rows, plain = mb->kl_first, retain = h->ref_hidden ? n - plain : 0, block = block_for(m, n);
    if (n > h->rows) ra_die("the head has buffers for %d rows, a micro-batch has %lld", h->rows, (long long)n);
    h->used = (int32_t)n;
    b->ops->upload(b, h->row, mb->head_row, (size_t)n * sizeof *h->row);
    b->ops->upload(b, h->target, mb->head_target, (size_t)n * sizeof *h->target);
    b->ops->gather_rows(b, n, a->hidden, h->row, last, h->hx);
    b->ops->rmsnorm(b, n, a->hidden, h->hx, (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size, a->plus_one, a->eps,
                    h->hn, h->rstd);
    begin_sums(h, n);
    for (int64_t v = 0; v < a->vocabulary; v += block) {
        int64_t nv = a->vocabulary - v < block ? a->vocabulary - v : block;
        logits(h, h->hn, head_weight(h), n, v, nv, h->z);
        b->ops->softmax_update(b, n, nv, v, a->final_softcap, h->z, h->target, h->column[MAXIMUM], h->column[SUM],
                               h->column[TARGET_LOGIT]);
        if (retain == 0) continue;
        logits(h, h->ref_hidden, h->ref_weight, retain, v, nv, h->z_ref);
        b->ops->kl_update(b, retain, nv, a->final_softcap, rows_of(h->z, plain, nv, b->r_size), h->z_ref,
                          h->column[REF_MAXIMUM] + plain, h->column[REF_SUM] + plain, h->column[WEIGHTED] + plain);
    }
    end_sums(h, n, plain, retain, logp, kl);
}

void ra_head_backward(ra_head *h, const ra_microbatch *mb, const double *coefficient, void *dx, const ra_backward *mode)
{
    ra_model *m = h->m;
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int64_t n = mb->head_rows, plain = mb->kl_first, retain = h->ref_hidden ? n - plain : 0, block = block_for(m, n),
            width = a->hidden;
    bool full = m->training == RA_TRAIN_FULL;
    const double *lse = h->column[LSE], *slope = h->column[COEFFICIENT];
    double *dot = h->column[DOT];
    b->ops->upload(b, h->column[COEFFICIENT], coefficient, (size_t)n * sizeof *coefficient);
    b->ops->zero(b, h->dhn, (size_t)(n * width) * b->r_size);
    b->ops->zero(b, dot, (size_t)n * sizeof *dot);
    for (int64_t v = 0; v < a->vocabulary; v += block) {
        int64_t nv = a->vocabulary - v < block ? a->vocabulary - v : block;
        const void *w = rows_of(head_weight(h), v, width, b->a_size);
        logits(h, h->hn, head_weight(h), n, v, nv, h->z);
        b->ops->softmax_grad(b, plain, nv, v, a->final_softcap, h->z, h->target, lse, slope, h->dz);
        if (retain) {
            logits(h, h->ref_hidden, h->ref_weight, retain, v, nv, h->z_ref);
            b->ops->kl_grad(b, retain, nv, a->final_softcap, rows_of(h->z, plain, nv, b->r_size), h->z_ref, lse + plain,
                            h->column[LSE_REF] + plain, slope + plain, (char *)h->dz + (size_t)(plain * nv) * b->a_size);
        }
        int64_t used = plain + retain;
        b->ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, used, width, nv, h->dz, nv, w, width, true, true, h->dhn, width);
        if (full && mode->gradient) {
            void *dw = (char *)mode->gradient + (size_t)(m->head + v * width) * b->r_size;
            b->ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, nv, width, used, h->dz, nv, h->hn, width, true, true, dw, width);
        } else if (full) {
            logits(h, h->hn, rows_of(mode->tangent_a, m->head, 1, b->a_size), used, v, nv, h->z);
            b->ops->row_dot(b, used, nv, 1.0, h->dz, nv, h->z, dot);
        }
    }
    const void *gain = (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size;
    void *dgain = full && mode->gradient ? (char *)mode->gradient + (size_t)m->final_norm * b->r_size : NULL;
    const void *g = full && !mode->gradient ? (const char *)mode->tangent_r + (size_t)m->final_norm * b->r_size : NULL;
    b->ops->rmsnorm_grad(b, n, width, h->hx, gain, a->plus_one, h->rstd, h->dhn, false, h->dhx, dgain, g, dot);
    b->ops->zero(b, dx, (size_t)(mb->pack.rows * width) * b->r_size);
    b->ops->scatter_add_rows(b, n, width, h->row, h->dhx, dx);
}

const double *ra_head_dot(ra_head *h)
{
    take(h, DOT, h->used);
    return h->host[DOT];
}
