#include <realign/oracle.h>

/* The verdict of all that the undecided ones cannot change; -1 where they could. */
static int outcome(ra_combine how, int yes, int no, int n)
{
    switch (how) {
    case RA_COMBINE_ALL: return no ? 0 : yes == n ? 1 : -1;
    case RA_COMBINE_ANY: return yes ? 1 : no == n ? 0 : -1;
    default: return 2 * yes > n ? 1 : 2 * no > n ? 0 : -1;
    }
}

ra_verdict ra_oracle_combine(ra_combine how, const ra_verdict *verdict, int n)
{
    int yes = 0, no = 0, first = -1;
    for (int i = 0; i < n; i++) {
        yes += verdict[i].compliant == 1;
        no += verdict[i].compliant == 0;
        if (first < 0 && verdict[i].compliant >= 0) first = i;
    }
    int result = how == RA_COMBINE_FIRST ? first >= 0 ? verdict[first].compliant : -1 : outcome(how, yes, no, n);
    for (int i = 0; i < n; i++) {
        if (verdict[i].compliant == result) return verdict[i];
    }
    return (ra_verdict){.compliant = -1, .rule = -1, .probability = 0.5f}; /* a tie of those that can tell */
}
