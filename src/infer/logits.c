#include "logits.h"

#include <realign/mem.h>

struct ra_logits {
    ra_model *m;
    int64_t block, blocks;
    int32_t n;            /* rows taken */
    void **packed;        /* (blocks) of the head, or NULL entries */
    void *hx, *hn, *rstd; /* (rows, hidden) R, A; (rows) R */
    void *z;              /* (rows, block) R */
    int32_t *row;         /* (rows) backend memory */
};

static const void *head_rows(const ra_model *m, int64_t v0)
{
    return (const char *)m->w_a + (size_t)(m->head + v0 * m->arch.hidden) * m->b->a_size;
}

static int64_t block_rows(const ra_logits *l, int64_t v0)
{
    int64_t left = l->m->arch.vocabulary - v0;
    return left < l->block ? left : l->block;
}

ra_logits *ra_logits_new(ra_model *m, int32_t rows, int64_t block, bool pack)
{
    ra_logits *l = ra_calloc(1, sizeof *l);
    ra_backend *b = m->b;
    size_t n = (size_t)rows, hidden = (size_t)m->arch.hidden;
    l->m = m;
    l->block = block < m->arch.vocabulary ? block : m->arch.vocabulary;
    l->blocks = (m->arch.vocabulary + l->block - 1) / l->block;
    l->hx = b->ops->alloc(b, n * hidden * b->r_size);
    l->hn = b->ops->alloc(b, n * hidden * b->a_size);
    l->rstd = b->ops->alloc(b, n * b->r_size);
    l->z = b->ops->alloc(b, n * (size_t)l->block * b->r_size);
    l->row = b->ops->alloc(b, n * sizeof *l->row);
    l->packed = ra_calloc((size_t)l->blocks, sizeof *l->packed);
    for (int64_t i = 0; pack && i < l->blocks; i++) {
        l->packed[i] =
            b->ops->pack_weights(b, block_rows(l, i * l->block), m->arch.hidden, head_rows(m, i * l->block), m->arch.hidden);
    }
    return l;
}

void ra_logits_free(ra_logits *l)
{
    if (!l) return;
    ra_backend *b = l->m->b;
    void *memory[] = {l->hx, l->hn, l->rstd, l->z, l->row};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) b->ops->release(b, memory[i]);
    for (int64_t i = 0; i < l->blocks; i++) {
        if (l->packed[i]) b->ops->release_packed(b, l->packed[i]);
    }
    ra_free(l->packed);
    ra_free(l);
}

void ra_logits_take(ra_logits *l, int32_t n, const int32_t *row, const void *last)
{
    const ra_model *m = l->m;
    ra_backend *b = m->b;
    l->n = n;
    b->ops->upload(b, l->row, row, (size_t)n * sizeof *row);
    b->ops->gather_rows(b, n, m->arch.hidden, l->row, last, l->hx);
    b->ops->rmsnorm(b, n, m->arch.hidden, l->hx, (const char *)m->vectors + (size_t)m->final_norm_v * b->r_size, m->arch.plus_one,
                    m->arch.eps, l->hn, l->rstd);
}

const void *ra_logits_states(const ra_logits *l)
{
    return l->hn;
}

void *ra_logits_block(ra_logits *l, int64_t v0, int64_t *nv)
{
    ra_backend *b = l->m->b;
    int64_t width = l->m->arch.hidden;
    const void *packed = l->packed[v0 / l->block];
    *nv = block_rows(l, v0);
    if (packed) {
        b->ops->gemm_packed(b, l->n, *nv, width, l->hn, width, packed, false, true, l->z, *nv);
    } else {
        b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, l->n, *nv, width, l->hn, width, head_rows(l->m, v0), width, false, true,
                     l->z, *nv);
    }
    return l->z;
}
