/* Shares and paired changes with their uncertainty. */
#ifndef RA_STAGE_STATISTICS_H
#define RA_STAGE_STATISTICS_H
#include <stdint.h>

typedef struct {
    int64_t n, yes;
    double share, low, high; /* Wilson's 95 % interval; NaN where n is 0 */
} ra_share;
ra_share ra_share_of(int64_t yes, int64_t n);

/* Change of a yes/no outcome on the same items. */
typedef struct {
    int64_t n, improved, worsened; /* items judged both times; no -> yes; yes -> no */
    double change, low, high;      /* mean difference; 95 % percentiles of a paired bootstrap */
    double p;                      /* McNemar's exact two-sided test */
} ra_change;
/* before, after: (n) 1, 0, or -1 (the item is left out). */
ra_change ra_change_of(const int8_t *before, const int8_t *after, int64_t n, uint64_t seed);

#endif
