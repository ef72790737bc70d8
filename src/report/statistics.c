/* Shares and correlation. */
#include <realign/report.h>

#include <math.h>

static const double Z95 = 1.959963984540054; /* 97.5 % quantile of the normal distribution */

/* (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) */
ra_interval ra_interval_share(int64_t yes, int64_t n)
{
    if (n <= 0) return (ra_interval){NAN, NAN, NAN};
    double count = (double)n, p = (double)yes / count, z2 = Z95 * Z95 / count;
    double middle = (p + z2 / 2.0) / (1.0 + z2), half = Z95 / (1.0 + z2) * sqrt(p * (1.0 - p) / count + z2 / (4.0 * count));
    return (ra_interval){p, yes == 0 ? 0.0 : fmax(0.0, middle - half), yes == n ? 1.0 : fmin(1.0, middle + half)};
}

double ra_correlation(const double *x, const double *y, int64_t n)
{
    double mx = 0.0, my = 0.0, sxx = 0.0, syy = 0.0, sxy = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) { /* means and co-moments updated value by value: no cancellation */
        if (!isfinite(x[i]) || !isfinite(y[i])) continue;
        count++;
        double dx = x[i] - mx, dy = y[i] - my;
        mx += dx / (double)count;
        my += dy / (double)count;
        sxx += dx * (x[i] - mx);
        syy += dy * (y[i] - my);
        sxy += dx * (y[i] - my);
    }
    return count >= 3 && sxx > 0.0 && syy > 0.0 ? sxy / sqrt(sxx * syy) : NAN;
}
