/* How far several raters (oracles, annotators) agree on the same units, each giving a category or nothing. Only whole numbers are kept while counting, so that sums
 * over ranks are exact and the statistics the same bit for bit however the units are shared.
 * Cohen (1960), A coefficient of agreement for nominal scales; Krippendorff (2004), Content analysis, ch. 11: alpha for nominal data with missing values. */
#ifndef REALIGN_AGREEMENT_H
#define REALIGN_AGREEMENT_H
#include <realign/comm.h>
#include <stdint.h>

enum { RA_MOST_RATERS = 8, RA_MOST_RATINGS = 8 };

typedef struct {
    int64_t units; /* with at least two ratings */
    int64_t pair[RA_MOST_RATERS][RA_MOST_RATERS][RA_MOST_RATINGS]
                [RA_MOST_RATINGS]; /* [i][j], i < j: units that i calls a and j calls b */
    int64_t together[RA_MOST_RATERS + 1][RA_MOST_RATINGS]
                    [RA_MOST_RATINGS]; /* [m]: ordered pairs (a, b) within units of m ratings */
} ra_agreement;

/* Not collective. One unit: rating[i] of rater i in [0, RA_MOST_RATINGS), negative where there is none. n <= RA_MOST_RATERS. */
void ra_agreement_add(ra_agreement *a, const int8_t *rating, int n);
/* Collective. Adds over ranks. */
void ra_agreement_sum(ra_agreement *a, const ra_comm *comm);

/* Not collective. Of the units that both i and j rated (i != j): how many; the share with equal ratings; Cohen's kappa. NaN where there are none, and for kappa
 * where chance alone gives full agreement (both always say the same one thing). */
int64_t ra_agreement_units(const ra_agreement *a, int i, int j);
double ra_agreement_share(const ra_agreement *a, int i, int j);
double ra_agreement_kappa(const ra_agreement *a, int i, int j);
/* Krippendorff's alpha, nominal, over all raters; units with one rating count for nothing. NaN where no unit has two ratings or all ratings are the same. */
double ra_agreement_alpha(const ra_agreement *a);

#endif
