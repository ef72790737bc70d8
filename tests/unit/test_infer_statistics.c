/* Wilson's interval, McNemar's test and the paired bootstrap, against values worked out elsewhere. */
#include "../../src/stage/statistics.h"
#include "support/support.h"

#include <math.h>

static void test_wilson(void **state)
{
    (void)state;
    /* worked out with the formula as Wilson gives it, solved for the roots of (p - x)^2 = z^2 x (1 - x) / n */
    ra_share s = ra_share_of(16, 50);
    check_close(s.share, 0.32, 1e-12, 0, "share");
    check_close(s.low, 0.20758216260656845, 1e-9, 0, "low");
    check_close(s.high, 0.45810297308144077, 1e-9, 0, "high");
    s = ra_share_of(0, 8);
    assert_true(s.low == 0.0 && s.high > 0.0 && s.high < 1.0);
    s = ra_share_of(8, 8);
    assert_true(s.high == 1.0 && s.low > 0.0);
    s = ra_share_of(0, 0);
    assert_true(isnan(s.share) && isnan(s.low) && isnan(s.high));
}

static void test_change(void **state)
{
    (void)state;
    enum { N = 60 };
    int8_t before[N], after[N];
    for (int i = 0; i < N; i++) { /* 14 improve, 4 worsen, 20 stay no, 20 stay yes, 2 undecided */
        before[i] = i < 14 ? 0 : i < 18 ? 1 : i < 38 ? 0 : i < 58 ? 1 : -1;
        after[i] = i < 14 ? 1 : i < 18 ? 0 : i < 38 ? 0 : 1;
    }
    ra_change c = ra_change_of(before, after, N, 1);
    assert_int_equal(c.n, 58);
    assert_int_equal(c.improved, 14);
    assert_int_equal(c.worsened, 4);
    check_close(c.change, 10.0 / 58.0, 1e-12, 0, "change");
    check_close(c.p, 0.0308837890625, 1e-9, 0, "McNemar's p"); /* 2 sum_{k <= 4} C(18, k) / 2^18 */
    /* the bootstrap's standard error is that of the mean difference; a percentile of 10,000 resamples is good to some 3 % of the width */
    double variance = (18.0 - 100.0 / 58.0) / 58.0 / 58.0, half = 1.96 * sqrt(variance);
    check_close(c.low, c.change - half, 0, 0.15 * half, "low");
    check_close(c.high, c.change + half, 0, 0.15 * half, "high");
    ra_change again = ra_change_of(before, after, N, 1), none = ra_change_of(before, after, 0, 1);
    assert_true(again.low == c.low && again.high == c.high);
    assert_true(isnan(none.change));
    check_close(none.p, 1.0, 0, 0, "p of nothing");
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wilson), cmocka_unit_test(test_change)};
    return cmocka_run_group_tests_name("shares and changes", tests, NULL, NULL);
}
