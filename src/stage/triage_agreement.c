/* How far the oracles of a combination agree: in words and in triage.h5. */
#include "triage.h"

#include <math.h>
#include <stdio.h>

static void add_number(ra_buf *out, const char *name, double value)
{
    if (isnan(value)) {
        ra_buf_addf(out, ", %s not defined", name);
    } else {
        ra_buf_addf(out, ", %s %.3f", name, value);
    }
}

void ra_triage_agreement_table(const ra_agreement *a, const ra_oracle *oracle, ra_buf *out)
{
    int n = ra_oracle_member_count(oracle);
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            long long units = (long long)ra_agreement_units(a, i, j);
            ra_buf_addf(out, "  agreement of %s and %s: ", ra_oracle_member_name(oracle, i), ra_oracle_member_name(oracle, j));
            if (units == 0) {
                ra_buf_adds(out, "no response was judged by both\n");
                continue;
            }
            ra_buf_addf(out, "%.1f %% of %lld responses", 100.0 * ra_agreement_share(a, i, j), units);
            add_number(out, "Cohen's kappa", ra_agreement_kappa(a, i, j));
            ra_buf_adds(out, "\n");
        }
    }
    if (n > 1 && a->units) {
        ra_buf_addf(out, "  agreement of all: %lld responses with two verdicts or more", (long long)a->units);
        add_number(out, "Krippendorff's alpha", ra_agreement_alpha(a));
        ra_buf_adds(out, "\n");
    }
}

ra_err ra_triage_agreement_write(ra_h5 *file, const ra_agreement *a, const ra_oracle *oracle)
{
    int n = ra_oracle_member_count(oracle);
    const char *names[RA_MOST_ORACLES];
    double share[RA_MOST_ORACLES * RA_MOST_ORACLES], kappa[RA_MOST_ORACLES * RA_MOST_ORACLES];
    int64_t units[RA_MOST_ORACLES * RA_MOST_ORACLES], shape[2] = {n, n};
    for (int i = 0; i < n; i++) {
        names[i] = ra_oracle_member_name(oracle, i);
        for (int j = 0; j < n; j++) {
            units[i * n + j] = i == j ? 0 : ra_agreement_units(a, i, j);
            share[i * n + j] = i == j ? 1.0 : ra_agreement_share(a, i, j);
            kappa[i * n + j] = i == j ? 1.0 : ra_agreement_kappa(a, i, j);
        }
    }
    RA_TRY(ra_h5_write_strings(file, "/agreement/oracles", names, n, "the oracles that are combined, in order"));
    RA_TRY(ra_h5_write_all(file, "/agreement/units", H5T_NATIVE_INT64, 2, shape, units, "responses that two oracles both judged",
                           "1"));
    RA_TRY(ra_h5_write_all(file, "/agreement/share", H5T_NATIVE_DOUBLE, 2, shape, share,
                           "share of these with equal verdicts; NaN where there are none", "1"));
    RA_TRY(ra_h5_write_all(file, "/agreement/kappa", H5T_NATIVE_DOUBLE, 2, shape, kappa,
                           "Cohen's kappa of two oracles; NaN where it is not defined", "1"));
    RA_TRY(ra_h5_write_attr_i64(file, "/agreement", "units", a->units));
    return ra_h5_write_attr_f64(file, "/agreement", "krippendorff_alpha", ra_agreement_alpha(a));
}
