#define _GNU_SOURCE /* qsort_r */
/* Drawing a token: softmax at a temperature, cut to the nucleus (top-p), inverted at a uniform number. */
#include <realign/infer.h>

#include <math.h>
#include <stdlib.h>

ra_rng ra_sampling_rng(const ra_sampling *s, int64_t id, int32_t step)
{
    ra_rng rng = ra_rng_make(s->seed, (uint64_t)RA_STREAM_SAMPLE << 56 | (uint64_t)id);
    rng.counter = (uint64_t)step;
    return rng;
}

static int descending(const void *x, const void *y, void *probability)
{
    const double *p = probability;
    int32_t i = *(const int32_t *)x, j = *(const int32_t *)y;
    return p[i] != p[j] ? (p[i] < p[j] ? 1 : -1) : (i > j) - (i < j);
}

/* First entry of `order` (or of 0, 1, 2 ... where NULL) at which the running sum passes `target`; rounding may leave the sum below it: then the last with any probability. */
static int32_t invert(int64_t n, const double *p, const int32_t *order, double target)
{
    double sum = 0.0;
    int32_t last = -1;
    for (int64_t i = 0; i < n; i++) {
        int32_t token = order ? order[i] : (int32_t)i;
        if (p[token] > 0.0) last = token;
        sum += p[token];
        if (sum > target) return token;
    }
    return last;
}

int32_t ra_sample_token(const ra_sampling *s, int64_t n, const double *logits, ra_rng *rng, double *p, int32_t *order)
{
    double top = -INFINITY, total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i])) return -1;
        if (logits[i] > top) top = logits[i];
    }
    if (isinf(top)) return -1;
    for (int64_t i = 0; i < n; i++) {
        p[i] = (double)expf((float)((logits[i] - top) / s->temperature));
        total += p[i];
    }
    double u = ra_rng_uniform(rng);
    if (s->top_p >= 1.0) return invert(n, p, NULL, u * total);
    /* a token below this cannot belong to the nucleus: all such together weigh less than what the nucleus may leave out */
    double least = (1.0 - s->top_p) * total / (double)n;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (p[i] >= least) order[kept++] = (int32_t)i;
    }
    qsort_r(order, (size_t)kept, sizeof *order, descending, p);
    double nucleus = 0.0;
    int64_t size = 0;
    while (size < kept && nucleus < s->top_p * total) nucleus += p[order[size++]];
    return invert(size, p, order, u * nucleus);
}
