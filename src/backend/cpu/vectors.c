/* Operators of the cpu backend that touch type R (float) alone. */
#include "cpu.h"
#include "math.h"

#include <realign/mem.h>

#include <omp.h>

void *ra_cpu_alloc(ra_backend *b, size_t bytes)
{
    char *memory = ra_host_take(b, bytes);
    ra_cpu_zero(b, memory, bytes); /* touched by the threads that will use it */
    return memory;
}

enum { PIECE = 1 << 18 }; /* bytes */

void ra_cpu_copy(ra_backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
#pragma omp parallel for schedule(static) if (bytes > PIECE)
    for (size_t at = 0; at < bytes; at += PIECE)
        memcpy((char *)to + at, (const char *)from + at, bytes - at < PIECE ? bytes - at : PIECE);
}

void ra_cpu_zero(ra_backend *b, void *memory, size_t bytes)
{
    (void)b;
#pragma omp parallel for schedule(static) if (bytes > PIECE)
    for (size_t at = 0; at < bytes; at += PIECE) memset((char *)memory + at, 0, bytes - at < PIECE ? bytes - at : PIECE);
}

/* Sums go block by block into double, so that the result does not depend on the number of threads. */
enum { BLOCK = 4096, BLOCKS_AT_ONCE = 4096 };

double ra_cpu_dot(ra_backend *b, int64_t n, const void *xv, const void *yv)
{
    (void)b;
    const float *x = xv, *y = yv;
    double partial[BLOCKS_AT_ONCE], total = 0.0;
    for (int64_t at = 0; at < n; at += (int64_t)BLOCK * BLOCKS_AT_ONCE) {
        int64_t left = n - at, blocks = (left + BLOCK - 1) / BLOCK;
        if (blocks > BLOCKS_AT_ONCE) blocks = BLOCKS_AT_ONCE;
#pragma omp parallel for schedule(static) if (blocks > 16)
        for (int64_t k = 0; k < blocks; k++) {
            int64_t begin = at + k * BLOCK, end = begin + BLOCK < n ? begin + BLOCK : n;
            double sum = 0.0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = begin; i < end; i++) sum += (double)x[i] * (double)y[i];
            partial[k] = sum;
        }
        for (int64_t k = 0; k < blocks; k++) total += partial[k];
    }
    return total;
}

double ra_cpu_sum_squares(ra_backend *b, int64_t n, const void *x)
{
    return ra_cpu_dot(b, n, x, x);
}

void ra_cpu_axpy(ra_backend *b, int64_t n, double s, const void *xv, void *yv)
{
    (void)b;
    const float *x = xv, scale = (float)s;
    float *y = yv;
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
    for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

void ra_cpu_adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *gv, void *mv, void *vv, void *wv)
{
    (void)b;
    const float *g = gv;
    float *m = mv, *v = vv, *w = wv;
    float b1 = (float)h->beta1, b2 = (float)h->beta2, c1 = (float)(1.0 - h->beta1), c2 = (float)(1.0 - h->beta2),
          eps = (float)h->eps;
    float clip = (float)h->gradient_scale, decay = (float)(1.0 - h->lr * h->weight_decay);
    float step = (float)(h->lr / h->correction1), root = (float)(1.0 / sqrt(h->correction2));
#pragma omp parallel for simd schedule(static) if (n > 1 << 15)
    for (int64_t i = 0; i < n; i++) {
        float gi = g[i] * clip;
        float mi = b1 * m[i] + c1 * gi, vi = b2 * v[i] + c2 * gi * gi;
        m[i] = mi;
        v[i] = vi;
        w[i] = w[i] * decay - step * mi / (__builtin_sqrtf(vi) * root + eps);
    }
}

void ra_cpu_gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) memcpy((float *)y + i * h, (const float *)x + row[i] * h, (size_t)h * sizeof(float));
}

/* Rows repeat, so threads share the columns, not the rows: each sum runs in ascending i. */
static void add_rows(int64_t n, int64_t h, const int32_t *row, float scale, const float *y, float *x)
{
#pragma omp parallel
    {
        int64_t threads = omp_get_num_threads(), me = omp_get_thread_num();
        int64_t begin = h * me / threads, end = h * (me + 1) / threads;
        for (int64_t i = 0; i < n; i++) {
            if (row[i] < 0) continue;
            float *to = x + row[i] * h;
            const float *from = y + i * h;
            for (int64_t j = begin; j < end; j++) to[j] += scale * from[j];
        }
    }
}

void ra_cpu_scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x)
{
    (void)b;
    add_rows(n, h, row, 1.0f, y, x);
}

void ra_cpu_embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, void *dw)
{
    (void)b;
    add_rows(rows, h, token, (float)scale, dx, dw);
}

static float capped(float z, float cap)
{
    return cap > 0.0f ? cap * cpu_tanh(z / cap) : z;
}

enum { SEGMENT = 256 }; /* columns that stay in the first-level cache between the maximum and the sum */

void ra_cpu_softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *zv,
                           const int32_t *target, double *maximum, double *sum, double *target_logit)
{
    (void)b;
    float cap = (float)softcap;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *z = (const float *)zv + i * nv;
        float m = -INFINITY;
        int bad = 0; /* fmax would lose a NaN */
#pragma omp simd reduction(max : m) reduction(| : bad)
        for (int64_t j = 0; j < nv; j++) {
            m = z[j] > m ? z[j] : m;
            bad |= z[j] != z[j];
        }
        m = capped(m, cap); /* monotone */
        double old = maximum[i], top = m > old ? m : old;
        float shift = (float)top;
        double total = 0.0;
        for (int64_t at = 0; at < nv; at += SEGMENT) {
            int64_t end = at + SEGMENT < nv ? at + SEGMENT : nv;
            float part = 0.0f;
            if (cap > 0.0f) {
#pragma omp simd reduction(+ : part)
                for (int64_t j = at; j < end; j++) part += cpu_exp(cap * cpu_tanh(z[j] / cap) - shift);
            } else {
#pragma omp simd reduction(+ : part)
                for (int64_t j = at; j < end; j++) part += cpu_exp(z[j] - shift);
            }
            total += part;
        }
        double keep = old == -INFINITY ? 1.0 : exp(old - (double)shift); /* the sum is 0 before the first block, or NaN */
        sum[i] = sum[i] * keep + (bad ? (double)NAN : total);
        maximum[i] = (double)shift;
        int64_t t = target[i] - v0;
        if (t >= 0 && t < nv) target_logit[i] = (double)capped(z[t], cap);
    }
}

void ra_cpu_argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *zv, double *best, int32_t *token)
{
    (void)b;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *z = (const float *)zv + i * nv;
        float top = -INFINITY;
        int bad = 0;
#pragma omp simd reduction(max : top) reduction(| : bad)
        for (int64_t j = 0; j < nv; j++) {
            top = z[j] > top ? z[j] : top;
            bad |= z[j] != z[j];
        }
        if (isnan(best[i]) || (!bad && (double)top <= best[i])) continue;
        int64_t at = 0;
        while (bad ? z[at] == z[at] : z[at] != top) at++;
        best[i] = (double)z[at];
        token[i] = (int32_t)(v0 + at);
    }
}

void ra_cpu_kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *zv, const void *z_ref,
                      double *maximum_ref, double *sum_ref, double *weighted)
{
    (void)b;
    float cap = (float)softcap;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const float *z = (const float *)zv + i * nv, *zr = (const float *)z_ref + i * nv;
        float m = -INFINITY;
#pragma omp simd reduction(max : m)
        for (int64_t j = 0; j < nv; j++) m = zr[j] > m ? zr[j] : m;
        m = capped(m, cap);
        double old = maximum_ref[i], top = m > old ? m : old;
        float shift = (float)top;
        double total = 0.0, difference = 0.0;
        for (int64_t at = 0; at < nv; at += SEGMENT) {
            int64_t end = at + SEGMENT < nv ? at + SEGMENT : nv;
            float part = 0.0f, d = 0.0f;
            if (cap > 0.0f) {
#pragma omp simd reduction(+ : part, d)
                for (int64_t j = at; j < end; j++) {
                    float l = cap * cpu_tanh(z[j] / cap), lr = cap * cpu_tanh(zr[j] / cap), e = cpu_exp(lr - shift);
                    part += e;
                    d += e * (lr - l);
                }
            } else {
#pragma omp simd reduction(+ : part, d)
                for (int64_t j = at; j < end; j++) {
                    float e = cpu_exp(zr[j] - shift);
                    part += e;
                    d += e * (zr[j] - z[j]);
                }
            }
            total += part;
            difference += d;
        }
        double keep = old == -INFINITY ? 1.0 : exp(old - (double)shift); /* sums are 0 before the first block, or NaN */
        sum_ref[i] = sum_ref[i] * keep + total;
        weighted[i] = weighted[i] * keep + difference;
        maximum_ref[i] = (double)shift;
    }
}
