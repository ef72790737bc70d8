/* Losses of METHOD section 3: values against the formulas in long double, slopes against central differences, and both where exponentials overflow. */
#include "support/support.h"

#include <realign/loss.h>

#include <math.h>
#include <string.h>

/* -log sigma(z), exact for any z. */
static long double softplus_of_minus(long double z)
{
    return z > 0.0L ? log1pl(expl(-z)) : -z + log1pl(expl(z));
}

static const double margins[] = {0.0, 1e-12, -1e-12, 0.1, -0.1, 1.7, -1.7, 12.0, -12.0, 100.0, -100.0, 1e4, -1e4};
enum { MARGINS = sizeof margins / sizeof margins[0] };
static const double betas[] = {0.01, 0.3, 1.0, 5.0};

static void formulas(void **state)
{
    (void)state;
    for (int b = 0; b < 4; b++) {
        for (int i = 0; i < MARGINS; i++) {
            double beta = betas[b], m = margins[i], loss, slope;
            long double z = (long double)beta * m;
            ra_loss_dpo(beta, m, &loss, &slope);
            check_close(loss, (double)softplus_of_minus(z), 1e-14, 1e-300, "-log sigma(beta m)");
            check_close(slope, (double)(-beta / (1.0L + expl(z))), 1e-14, 1e-300, "its slope");
            ra_loss_npo(beta, 2.0 / beta, m, &loss, &slope);
            check_close(loss, (double)(2.0L / beta * softplus_of_minus(-z)), 1e-14, 1e-300, "-s log sigma(-beta r)");
            check_close(slope, (double)(2.0L / (1.0L + expl(-z))), 1e-14, 1e-300, "its slope");
            ra_loss_ipo(beta, m, &loss, &slope);
            long double gap = m - 1.0L / (2.0L * beta);
            check_close(loss, (double)(gap * gap), 1e-13, 1e-28, "(m - 1/(2 tau))^2");
            check_close(slope, (double)(2.0L * gap), 1e-13, 1e-14, "its slope");
        }
    }
    double loss, slope;
    ra_loss_dpo(0.3, 0.0, &loss, &slope);
    check_close(loss, log(2.0), 1e-15, 0, "ln 2 at theta_ref");
    check_close(slope, -0.15, 1e-15, 0, "-beta / 2 at theta_ref");
}

static const ra_loss_kind kinds[] = {RA_LOSS_PAIR, RA_LOSS_INVERT, RA_LOSS_PUNISH, RA_LOSS_PUNISH_CORRECTED};

/* Slopes of every kind by role, against central differences; roles that the kind does not read must not matter. */
static void slopes(void **state)
{
    (void)state;
    ra_objective o = {.beta = 0.7, .tau = 0.2, .npo_scale = 1.5};
    const double at[][RA_ROLES] = {{0, 0, 0}, {0.4, -0.9, 1.3}, {-3.0, 2.0, -1.0}, {6.0, -7.0, 0.5}};
    for (int ipo = 0; ipo < 2; ipo++) {
        o.ipo = ipo;
        for (size_t k = 0; k < 4; k++) {
            for (size_t p = 0; p < 4; p++) {
                ra_loss_value v = ra_loss_pairwise(&o, kinds[k], at[p]);
                for (int role = 0; role < RA_ROLES; role++) {
                    double up[RA_ROLES], down[RA_ROLES], h = 1e-5;
                    memcpy(up, at[p], sizeof up);
                    memcpy(down, at[p], sizeof down);
                    up[role] += h;
                    down[role] -= h;
                    double slope =
                        (ra_loss_pairwise(&o, kinds[k], up).loss - ra_loss_pairwise(&o, kinds[k], down).loss) / (2.0 * h);
                    check_close(v.slope[role], slope, 1e-8, 1e-9, "slope of a role");
                    if (!(ra_loss_roles(kinds[k]) >> role & 1)) assert_true(v.slope[role] == 0.0);
                }
            }
        }
    }
}

/* The signs of METHOD section 2: what each action prefers. */
static void directions(void **state)
{
    (void)state;
    ra_objective o = {.beta = 0.3, .tau = 0.1, .npo_scale = 1.0};
    const double zero[RA_ROLES] = {0};
    double half = 0.15;
    ra_loss_value pair = ra_loss_pairwise(&o, RA_LOSS_PAIR, zero), invert = ra_loss_pairwise(&o, RA_LOSS_INVERT, zero),
                  punish = ra_loss_pairwise(&o, RA_LOSS_PUNISH, zero),
                  corrected = ra_loss_pairwise(&o, RA_LOSS_PUNISH_CORRECTED, zero);
    const struct {
        const ra_loss_value *v;
        double loss, chosen, rejected, correction;
    } want[] = {
        {&pair, 1, -half, half, 0}, {&invert, 1, half, -half, 0}, {&punish, 2, half, half, 0}, {&corrected, 1, half, 0, -half}};
    for (int i = 0; i < 4; i++) {
        check_close(want[i].v->loss, want[i].loss * log(2.0), 1e-15, 0, "loss at theta_ref");
        check_close(want[i].v->slope[RA_CHOSEN], want[i].chosen, 1e-15, 0, "slope of y_w");
        check_close(want[i].v->slope[RA_REJECTED], want[i].rejected, 1e-15, 0, "slope of y_l");
        check_close(want[i].v->slope[RA_CORRECTION], want[i].correction, 1e-15, 0, "slope of y_c");
    }
    o.ipo = true; /* eq. 1' replaces eq. 1 alone */
    check_close(ra_loss_pairwise(&o, RA_LOSS_INVERT, zero).loss, 25.0, 1e-14, 0, "IPO at theta_ref, 1 / (2 tau)^2");
    check_close(ra_loss_pairwise(&o, RA_LOSS_PAIR, zero).loss, log(2.0), 1e-15, 0, "plain pairs stay DPO");
    check_close(ra_loss_pairwise(&o, RA_LOSS_PUNISH_CORRECTED, zero).loss, log(2.0), 1e-15, 0, "corrected pairs stay DPO");
}

static void overflow(void **state)
{
    (void)state;
    ra_objective o = {.beta = 5.0, .tau = 0.1, .npo_scale = 1.0};
    for (size_t k = 0; k < 4; k++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            const double r[RA_ROLES] = {sign * 1e4, -sign * 1e4, -sign * 1e4};
            ra_loss_value v = ra_loss_pairwise(&o, kinds[k], r);
            assert_true(isfinite(v.loss) && v.loss >= 0.0 && v.loss < 3e5);
            for (int role = 0; role < RA_ROLES; role++) assert_true(isfinite(v.slope[role]) && fabs(v.slope[role]) <= 5.0);
        }
    }
    double loss, slope;
    ra_loss_dpo(0.3, NAN, &loss, &slope);
    assert_true(isnan(loss) && isnan(slope));
    ra_loss_npo(0.3, 1.0, NAN, &loss, &slope);
    assert_true(isnan(loss) && isnan(slope));
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(formulas), cmocka_unit_test(slopes), cmocka_unit_test(directions),
                                       cmocka_unit_test(overflow)};
    return cmocka_run_group_tests_name("losses", tests, NULL, NULL);
}
