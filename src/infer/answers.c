#include "answers.h"

#include "logits.h"

#include <realign/mem.h>

#include <math.h>
#include <string.h>

enum { HEAD_ROWS = 64, HEAD_BLOCK = 8192 }; /* sequences and vocabulary entries of a product with the head: 2 MiB of logits */

struct ra_answer_reader {
    ra_model *m;
    int32_t answers;
    ra_logits *logits;
    void *head;                                          /* (answers, hidden) A: their rows of the head */
    void *z;                                             /* (HEAD_ROWS, answers) R */
    double *maximum_there, *sum_there, *no_target_logit; /* (HEAD_ROWS) backend memory */
    int32_t *no_target;                                  /* (HEAD_ROWS) -1; backend memory */
    void *host;                                          /* z in host memory */
    double *logit, *maximum, *sum;                       /* (HEAD_ROWS, answers), (HEAD_ROWS) host memory */
};

ra_answer_reader *ra_answer_reader_new(ra_model *m, const int32_t *answer, int32_t answers)
{
    ra_answer_reader *r = ra_calloc(1, sizeof *r);
    ra_backend *b = m->b;
    size_t n = (size_t)HEAD_ROWS * (size_t)answers, width = (size_t)m->arch.hidden * b->a_size;
    int32_t none[HEAD_ROWS];
    r->m = m;
    r->answers = answers;
    r->logits = ra_logits_new(m, HEAD_ROWS, HEAD_BLOCK, false);
    r->head = b->ops->alloc(b, (size_t)answers * width);
    for (int32_t i = 0; i < answers; i++) {
        b->ops->copy(b, (char *)r->head + (size_t)i * width,
                     (const char *)m->w_a + (size_t)m->head * b->a_size + (size_t)answer[i] * width, width);
    }
    r->z = b->ops->alloc(b, n * b->r_size);
    double **column[] = {&r->maximum_there, &r->sum_there, &r->no_target_logit};
    for (size_t i = 0; i < sizeof column / sizeof column[0]; i++) *column[i] = b->ops->alloc(b, HEAD_ROWS * sizeof(double));
    for (int32_t i = 0; i < HEAD_ROWS; i++) none[i] = -1;
    r->no_target = b->ops->alloc(b, sizeof none);
    b->ops->upload(b, r->no_target, none, sizeof none);
    r->host = ra_alloc(n, b->r_size);
    r->logit = ra_alloc(n, sizeof *r->logit);
    r->maximum = ra_alloc(HEAD_ROWS, sizeof *r->maximum);
    r->sum = ra_alloc(HEAD_ROWS, sizeof *r->sum);
    return r;
}

void ra_answer_reader_free(ra_answer_reader *r)
{
    if (!r) return;
    ra_backend *b = r->m->b;
    ra_logits_free(r->logits);
    void *there[] = {r->head, r->z, r->maximum_there, r->sum_there, r->no_target_logit, r->no_target};
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++) b->ops->release(b, there[i]);
    void *here[] = {r->host, r->logit, r->maximum, r->sum};
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++) ra_free(here[i]);
    ra_free(r);
}

/* At most HEAD_ROWS of them. */
static void read_some(ra_answer_reader *r, int32_t n, const int32_t *row, const void *last, double *found)
{
    ra_backend *b = r->m->b;
    int64_t width = r->m->arch.hidden;
    double cap = r->m->arch.final_softcap;
    size_t column = (size_t)n * sizeof(double);
    ra_logits_take(r->logits, n, row, last);
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, r->answers, width, ra_logits_states(r->logits), width, r->head, width,
                 false, true, r->z, r->answers);
    b->ops->download(b, r->host, r->z, (size_t)n * (size_t)r->answers * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, r->logit, b->r, r->host, (int64_t)n * r->answers);
    for (int32_t i = 0; cap > 0.0 && i < n * r->answers; i++) r->logit[i] = cap * tanh(r->logit[i] / cap);
    for (int32_t i = 0; i < n; i++) {
        r->maximum[i] = -INFINITY;
        r->sum[i] = 0.0;
    }
    b->ops->upload(b, r->maximum_there, r->maximum, column);
    b->ops->upload(b, r->sum_there, r->sum, column);
    for (int64_t v0 = 0, nv; v0 < r->m->arch.vocabulary; v0 += nv) {
        const void *z = ra_logits_block(r->logits, v0, &nv);
        b->ops->softmax_update(b, n, nv, v0, cap, z, r->no_target, r->maximum_there, r->sum_there, r->no_target_logit);
    }
    b->ops->download(b, r->maximum, r->maximum_there, column);
    b->ops->download(b, r->sum, r->sum_there, column);
    for (int32_t i = 0; i < n; i++, found += r->answers + 1) {
        memcpy(found, r->logit + (size_t)i * (size_t)r->answers, (size_t)r->answers * sizeof *found);
        found[r->answers] = r->maximum[i] + log(r->sum[i]);
    }
}

void ra_answer_reader_read(ra_answer_reader *r, int32_t n, const int32_t *row, const void *last, double *found)
{
    for (int32_t i = 0; i < n; i += HEAD_ROWS)
        read_some(r, n - i < HEAD_ROWS ? n - i : HEAD_ROWS, row + i, last, found + (size_t)i * (size_t)(r->answers + 1));
}
