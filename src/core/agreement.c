#include <realign/agreement.h>

#include <math.h>

void ra_agreement_add(ra_agreement *a, const int8_t *rating, int n)
{
    int64_t count[RA_MOST_RATINGS] = {0};
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (rating[i] < 0) continue;
        count[rating[i]]++;
        m++;
        for (int j = i + 1; j < n; j++) {
            if (rating[j] >= 0) a->pair[i][j][rating[i]][rating[j]]++;
        }
    }
    if (m < 2) return;
    a->units++;
    for (int c = 0; c < RA_MOST_RATINGS; c++) {
        for (int k = 0; k < RA_MOST_RATINGS; k++) a->together[m][c][k] += count[c] * (count[k] - (c == k));
    }
}

void ra_agreement_sum(ra_agreement *a, const ra_comm *comm)
{
    ra_comm_sum_i64(comm, &a->units, sizeof *a / sizeof(int64_t));
}

/* Row sums, column sums, the diagonal and the number of units of a table of two raters. */
typedef struct {
    int64_t row[RA_MOST_RATINGS], column[RA_MOST_RATINGS], same, all;
} margins;

static margins margins_of(const ra_agreement *a, int i, int j)
{
    margins m = {0};
    const int64_t(*table)[RA_MOST_RATINGS] = a->pair[i < j ? i : j][i < j ? j : i];
    for (int c = 0; c < RA_MOST_RATINGS; c++) {
        for (int k = 0; k < RA_MOST_RATINGS; k++) {
            m.row[c] += table[c][k];
            m.column[k] += table[c][k];
            m.all += table[c][k];
        }
        m.same += table[c][c];
    }
    return m;
}

int64_t ra_agreement_units(const ra_agreement *a, int i, int j)
{
    return margins_of(a, i, j).all;
}

double ra_agreement_share(const ra_agreement *a, int i, int j)
{
    margins m = margins_of(a, i, j);
    return m.all ? (double)m.same / (double)m.all : NAN;
}

double ra_agreement_kappa(const ra_agreement *a, int i, int j)
{
    margins m = margins_of(a, i, j);
    double n = (double)m.all, by_chance = 0.0;
    for (int c = 0; c < RA_MOST_RATINGS; c++) by_chance += (double)m.row[c] * (double)m.column[c];
    double rest = n * n - by_chance; /* n^2 (1 - p_e) */
    return rest > 0.0 ? (n * (double)m.same - by_chance) / rest : NAN;
}

double ra_agreement_alpha(const ra_agreement *a)
{
    double of[RA_MOST_RATINGS] = {0}, n = 0.0, observed = 0.0, expected = 0.0;
    for (int c = 0; c < RA_MOST_RATINGS; c++) {
        for (int k = 0; k < RA_MOST_RATINGS; k++) {
            double coincidences = 0.0;
            for (int m = 2; m <= RA_MOST_RATERS; m++) coincidences += (double)a->together[m][c][k] / (m - 1);
            of[c] += coincidences;
            if (c != k) observed += coincidences;
        }
        n += of[c];
    }
    for (int c = 0; c < RA_MOST_RATINGS; c++) expected += of[c] * (n - of[c]);
    return expected > 0.0 ? 1.0 - (n - 1.0) * observed / expected : NAN;
}
