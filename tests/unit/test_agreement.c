/* Agreement between raters against values worked out by hand and against Krippendorff's published example. */
#include "../support/support.h"

#include <realign/agreement.h>
#include <realign/mem.h>

#include <math.h>
#include <string.h>

static void add_many(ra_agreement *a, int x, int y, int times)
{
    const int8_t rating[2] = {(int8_t)x, (int8_t)y};
    for (int i = 0; i < times; i++) ra_agreement_add(a, rating, 2);
}

/* 50 units: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no. p_o = 35/50; p_e = (25 30 + 25 20) / 2500 = 1/2; kappa = 2/5.
 * Coincidences: 40 and 30 on the diagonal, 15 and 15 off it; n = 100, n_yes = 55; alpha = 1 - 99 30 / (2 55 45). */
static void test_two_raters(void **state)
{
    (void)state;
    ra_agreement *a = ra_calloc(1, sizeof *a);
    add_many(a, 1, 1, 20);
    add_many(a, 1, 0, 5);
    add_many(a, 0, 1, 10);
    add_many(a, 0, 0, 15);
    add_many(a, 1, -1, 7); /* nothing to compare with */
    add_many(a, -1, -1, 3);
    assert_int_equal(ra_agreement_units(a, 0, 1), 50);
    assert_int_equal(a->units, 50);
    check_close(ra_agreement_share(a, 0, 1), 0.7, 1e-15, 0, "share");
    check_close(ra_agreement_kappa(a, 0, 1), 0.4, 1e-15, 0, "kappa");
    check_close(ra_agreement_kappa(a, 1, 0), 0.4, 1e-15, 0, "kappa does not know an order");
    check_close(ra_agreement_alpha(a), 1.0 - 99.0 * 30.0 / (2.0 * 55.0 * 45.0), 1e-15, 0, "alpha");
    ra_free(a);
}

static void test_ends(void **state)
{
    (void)state;
    ra_agreement *a = ra_calloc(1, sizeof *a);
    assert_true(isnan(ra_agreement_share(a, 0, 1)) && isnan(ra_agreement_kappa(a, 0, 1)) && isnan(ra_agreement_alpha(a)));
    add_many(a, 1, 1, 4); /* one category alone: chance explains it all */
    assert_true(isnan(ra_agreement_kappa(a, 0, 1)) && isnan(ra_agreement_alpha(a)));
    check_close(ra_agreement_share(a, 0, 1), 1.0, 0, 0, "share");
    add_many(a, 0, 0, 4);
    check_close(ra_agreement_kappa(a, 0, 1), 1.0, 1e-15, 0, "full agreement");
    check_close(ra_agreement_alpha(a), 1.0, 1e-15, 0, "full agreement");
    memset(a, 0, sizeof *a);
    add_many(a, 1, 0, 4);
    add_many(a, 0, 1, 4);
    check_close(ra_agreement_kappa(a, 0, 1), -1.0, 1e-15, 0, "always the opposite");
    ra_free(a);
}

/* Krippendorff, Computing Krippendorff's alpha-reliability (2011), section C: four observers, twelve units, five values, missing data; nominal alpha 0.743. */
static void test_published_example(void **state)
{
    (void)state;
    static const int8_t by_observer[4][12] = {{1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0},
                                              {1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3},
                                              {0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0},
                                              {1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0}};
    ra_agreement *a = ra_calloc(1, sizeof *a), *parts = ra_calloc(2, sizeof *parts);
    for (int u = 0; u < 12; u++) {
        int8_t rating[4];
        for (int o = 0; o < 4; o++) rating[o] = (int8_t)(by_observer[o][u] - 1); /* 0 stands for none */
        ra_agreement_add(a, rating, 4);
        ra_agreement_add(&parts[u % 3 == 0], rating, 4);
    }
    assert_int_equal(a->units, 11); /* the last one has a single value */
    check_close(ra_agreement_alpha(a), 0.743, 0, 5e-4, "published alpha");
    /* counts add up exactly, so that any sharing of the units gives the same bits */
    for (size_t i = 0; i < sizeof *a / sizeof(int64_t); i++) ((int64_t *)&parts[0])[i] += ((int64_t *)&parts[1])[i];
    assert_memory_equal(a, &parts[0], sizeof *a);
    ra_free(parts);
    ra_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_raters), cmocka_unit_test(test_ends),
                                       cmocka_unit_test(test_published_example)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
