#include "statistics.h"

#include <realign/mem.h>
#include <realign/report.h>
#include <realign/rng.h>

#include <math.h>
#include <stdlib.h>

enum { RESAMPLES = 10000 };

ra_share ra_share_of(int64_t yes, int64_t n)
{
    ra_interval i = ra_interval_share(yes, n);
    return (ra_share){.n = n, .yes = yes, .share = i.value, .low = i.low, .high = i.high};
}

/* Two-sided: twice the lower tail of Binomial(b + c, 1/2) at min(b, c). */
static double mcnemar(int64_t b, int64_t c)
{
    int64_t n = b + c, least = b < c ? b : c;
    double tail = 0.0;
    for (int64_t k = 0; k <= least; k++)
        tail += exp(lgamma((double)n + 1.0) - lgamma((double)k + 1.0) - lgamma((double)(n - k) + 1.0) - (double)n * log(2.0));
    return 2.0 * tail > 1.0 ? 1.0 : 2.0 * tail;
}

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Linear between order statistics. */
static double percentile(const double *sorted, int n, double share)
{
    double at = share * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

ra_change ra_change_of(const int8_t *before, const int8_t *after, int64_t n, uint64_t seed)
{
    ra_change out = {0};
    int8_t *difference = ra_alloc((size_t)n + 1, 1);
    for (int64_t i = 0; i < n; i++) {
        if (before[i] < 0 || after[i] < 0) continue;
        difference[out.n++] = (int8_t)(after[i] - before[i]);
        out.improved += after[i] > before[i];
        out.worsened += after[i] < before[i];
    }
    out.p = mcnemar(out.improved, out.worsened);
    out.change = out.low = out.high = NAN;
    if (out.n > 0) {
        out.change = (double)(out.improved - out.worsened) / (double)out.n;
        double *mean = ra_alloc(RESAMPLES, sizeof *mean);
        ra_rng rng = ra_rng_make(seed, (uint64_t)RA_STREAM_BOOTSTRAP << 32);
        for (int r = 0; r < RESAMPLES; r++) {
            int64_t sum = 0;
            for (int64_t i = 0; i < out.n; i++) sum += difference[ra_rng_below(&rng, (uint64_t)out.n)];
            mean[r] = (double)sum / (double)out.n;
        }
        qsort(mean, RESAMPLES, sizeof *mean, ascending);
        out.low = percentile(mean, RESAMPLES, 0.025);
        out.high = percentile(mean, RESAMPLES, 0.975);
        ra_free(mean);
    }
    ra_free(difference);
    return out;
}
