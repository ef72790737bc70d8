/* bf16 products on processors for which the library has none (AVX2): operands are widened to float32, which is exact, and multiplied there; the result is rounded once, as
 * native bf16 products round it. Slower than fp32, the same accuracy as native bf16: for trying out what bf16 does to a run. */
#include "cpu.h"
#include "math.h"

#include <realign/mem.h>

struct ra_cpu_wide {
    float *operand[3]; /* x, y, result */
    size_t cells[3];
};

ra_cpu_wide *ra_cpu_wide_new(void)
{
    return ra_calloc(1, sizeof(ra_cpu_wide));
}

void ra_cpu_wide_free(ra_cpu_wide *w)
{
    if (!w) return;
    for (int i = 0; i < 3; i++) ra_free(w->operand[i]);
    ra_free(w);
}

static float *room(ra_cpu_wide *w, int which, size_t cells)
{
    if (w->cells[which] < cells) {
        ra_free(w->operand[which]);
        w->operand[which] = ra_alloc(cells, sizeof(float));
        w->cells[which] = cells;
    }
    return w->operand[which];
}

const float *ra_cpu_widen(ra_cpu_wide *w, int which, int64_t rows, int64_t n, const void *x, int64_t ldx)
{
    float *to = room(w, which, (size_t)(rows * n));
#pragma omp parallel for schedule(static) if (rows * n > 1 << 15)
    for (int64_t i = 0; i < rows; i++) {
        const ra_bf16 *from = (const ra_bf16 *)x + i * ldx;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) to[i * n + j] = cpu_load_bf16(from + j);
    }
    return to;
}

float *ra_cpu_wide_result(ra_cpu_wide *w, int64_t m, int64_t n, const void *before, int64_t ldc)
{
    return before ? (float *)ra_cpu_widen(w, 2, m, n, before, ldc) : room(w, 2, (size_t)(m * n));
}

void ra_cpu_narrow(int64_t m, int64_t n, const float *from, void *c, int64_t ldc)
{
#pragma omp parallel for schedule(static) if (m * n > 1 << 15)
    for (int64_t i = 0; i < m; i++) {
        ra_bf16 *to = (ra_bf16 *)c + i * ldc;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) cpu_store_bf16(to + j, from[i * n + j]);
    }
}
