/* What the oracle does around its kinds: combinations, the cache, questions asked twice, thresholds, noise, what cannot be judged. */
#include "../support/support.h"

#include <realign/mem.h>
#include <realign/rng.h>
#include <support/oraclemake.h>
#include <support/textfile.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 2000 };

static char *policy, *cache, *text[N];
static ra_oracle_item items[N];
static ra_verdict first[N], second[N];

static int make(void **state)
{
    (void)state;
    policy = textfile_write_text("policy.yaml",
                                 "name: p\ntext: Is it so?\nrules:\n  - {name: short, require: {characters: {max: 6}}}\n");
    cache = test_dir_make();
    for (int i = 0; i < N; i++) {
        text[i] = ra_format("item %d", i);
        items[i] = (ra_oracle_item){.prompt = "q", .response = text[i], .response_index = -1};
    }
    return 0;
}

static int clear(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) free(text[i]);
    free(policy);
    test_dir_remove(cache);
    return 0;
}

/* How many verdicts differ. */
static int differ(void)
{
    int n = 0;
    for (int i = 0; i < N; i++) {
        n += first[i].compliant != second[i].compliant || first[i].rule != second[i].rule ||
             first[i].probability != second[i].probability || first[i].margin != second[i].margin;
    }
    return n;
}

static int64_t would_ask(ra_oracle *o, int n)
{
    ra_oracle_plan plan = {0};
    ra_oracle_plan_add(o, items, n, &plan);
    return ra_oracle_plan_questions(&plan);
}

static ra_oracle *open_one(test_costly *costly, const char *where)
{
    ra_oracle *o = NULL;
    ra_oracle_member m = test_costly_open(costly, "judge");
    CHECK_OK(test_oracle_of(policy, &m, 1, RA_COMBINE_ALL, where, &o));
    return o;
}

/* Every verdict of up to three oracles; `rules` of the table: what the undecided ones could still change is undecided. */
static void test_truth_tables(void **state)
{
    (void)state;
    for (int n = 1; n <= 3; n++) {
        for (int code = 0; code < (n == 1 ? 3 : n == 2 ? 9 : 27); code++) {
            ra_verdict v[4];
            int yes = 0, no = 0, unknown = 0, lead = -1;
            for (int i = 0, rest = code; i < n; i++, rest /= 3) {
                v[i] = (ra_verdict){(int8_t)(rest % 3 - 1), (int16_t)(10 + i), 0.1f * (float)i, 0.0f};
                yes += v[i].compliant == 1;
                no += v[i].compliant == 0;
                unknown += v[i].compliant < 0;
                if (lead < 0 && v[i].compliant >= 0) lead = v[i].compliant;
            }
            /* the outcome with every unknown one taken as no, and as yes */
            int all[2] = {yes == n, yes + unknown == n}, any[2] = {yes > 0, yes + unknown > 0},
                more[2] = {2 * yes > n, 2 * (yes + unknown) > n}, less[2] = {2 * (no + unknown) > n, 2 * no > n};
            int majority = more[0] == more[1] && less[0] == less[1] && more[0] != less[0] ? more[0] : -1;
            assert_int_equal(ra_oracle_combine(RA_COMBINE_ALL, v, n).compliant, all[0] == all[1] ? all[0] : -1);
            assert_int_equal(ra_oracle_combine(RA_COMBINE_ANY, v, n).compliant, any[0] == any[1] ? any[0] : -1);
            assert_int_equal(ra_oracle_combine(RA_COMBINE_MAJORITY, v, n).compliant, majority);
            assert_int_equal(ra_oracle_combine(RA_COMBINE_FIRST, v, n).compliant, lead);
        }
    }
    const ra_verdict two[2] = {{1, -1, 0.9f, 2.0f}, {0, 4, 0.2f, -1.0f}};
    ra_verdict all = ra_oracle_combine(RA_COMBINE_ALL, two, 2), any = ra_oracle_combine(RA_COMBINE_ANY, two, 2);
    assert_true(all.compliant == 0 && all.rule == 4 && all.margin == -1.0f); /* of the one that decides */
    assert_true(any.compliant == 1 && any.rule == -1 && any.margin == 2.0f);
    assert_int_equal(ra_oracle_combine(RA_COMBINE_MAJORITY, two, 2).compliant, -1); /* a tie */
}

static void test_a_second_run_asks_nothing(void **state)
{
    (void)state;
    test_costly one = {.salt = 1}, two = {.salt = 1}, other = {.salt = 2};
    ra_oracle *o = open_one(&one, cache);
    assert_int_equal(would_ask(o, N), N);
    CHECK_OK(ra_oracle_judge(o, items, N, first));
    assert_int_equal(would_ask(o, N), 0);
    assert_int_equal(one.asked, N);
    for (int i = 0; i < N; i++) {
        float p;
        assert_int_equal(first[i].compliant, test_costly_verdict(&one, text[i], &p));
        assert_true(first[i].probability == p && first[i].rule == -1);
    }
    CHECK_OK(ra_oracle_judge(o, items, N, second));
    assert_int_equal(one.asked, N); /* nor in the same run */
    CHECK_OK(ra_oracle_close(o));
    o = open_one(&two, cache);
    CHECK_OK(ra_oracle_judge(o, items, N, second));
    assert_int_equal(differ(), 0);
    assert_int_equal(two.asked, 0);
    assert_int_equal(ra_oracle_counted(o)->known, N);
    CHECK_OK(ra_oracle_close(o));
    o = open_one(&other, cache); /* another identity knows nothing of it */
    CHECK_OK(ra_oracle_judge(o, items, 10, second));
    assert_int_equal(other.asked, 10);
    CHECK_OK(ra_oracle_close(o));
}

/* Everything that a verdict may depend on is part of the question. */
static void test_what_is_another_question(void **state)
{
    (void)state;
    test_costly costly = {.salt = 1};
    ra_oracle *o = open_one(&costly, cache);
    const ra_message turns[3] = {{"user", "p"}, {"assistant", "r"}, {"user", "q"}}, alone = {"user", "q"};
    const ra_oracle_item base = items[0];
    ra_oracle_item of[6] = {base, base, base, base, base, base};
    of[1].prompt = "q ";
    of[2].response = "item 0 ";
    of[3].category = "law";
    of[4].turns = turns, of[4].n_turns = 3;
    of[5].turns = &alone, of[5].n_turns = 1; /* the same as the first */
    CHECK_OK(ra_oracle_judge(o, of, 6, first));
    assert_int_equal(costly.asked, 5);
    assert_int_equal(ra_oracle_counted(o)->known, 1);
    CHECK_OK(ra_oracle_close(o));
    char *text_of_judges = textfile_write_text("other.yaml", "name: p\ntext: Is it otherwise?\n");
    ra_oracle_member m = test_costly_open(&costly, "judge");
    CHECK_OK(test_oracle_of(text_of_judges, &m, 1, RA_COMBINE_ALL, cache, &o));
    ra_oracle_plan plan = {0};
    ra_oracle_plan_add(o, of, 6, &plan); /* another policy text */
    assert_int_equal(plan.questions[0], 5);
    assert_int_equal(plan.bytes[0], 7 + 8 + 8 + 7 + 9); /* responses with their prompts */
    CHECK_OK(ra_oracle_close(o));
    free(text_of_judges);
}

static void test_an_error_keeps_what_was_heard(void **state)
{
    (void)state;
    test_costly broken = {.salt = 1, .fail_after = 700}, whole = {.salt = 1};
    ra_oracle *o = open_one(&broken, cache);
    check_fails(ra_oracle_judge(o, items, N, first), RA_ERR_IO, "the far end went away", NULL);
    ra_oracle_close(o);
    o = open_one(&whole, cache);
    CHECK_OK(ra_oracle_judge(o, items, N, second));
    assert_int_equal(whole.asked, N - 700);
    CHECK_OK(ra_oracle_close(o));
}

/* What could not be judged is never kept, so that it is asked again. */
static void test_undecided_is_not_kept(void **state)
{
    (void)state;
    test_costly mute = {.salt = 1, .mute = "7"}, again = {.salt = 1};
    ra_oracle *o = open_one(&mute, cache);
    CHECK_OK(ra_oracle_judge(o, items, 100, first));
    assert_int_equal(ra_oracle_counted(o)->undecided, 19);
    assert_int_equal(first[7].compliant, -1);
    assert_string_equal(ra_oracle_problem(o), "the answer was neither yes nor no");
    CHECK_OK(ra_oracle_judge(o, items, 100, first));
    assert_int_equal(mute.asked, 119);
    CHECK_OK(ra_oracle_close(o));
    o = open_one(&again, cache);
    CHECK_OK(ra_oracle_judge(o, items, 100, first));
    assert_int_equal(again.asked, 19);
    CHECK_OK(ra_oracle_close(o));
}

static void test_threshold(void **state)
{
    (void)state;
    test_costly costly = {.salt = 1};
    int64_t before = 0;
    for (int k = 1; k <= 9; k += 4) {
        ra_oracle *o = NULL;
        ra_oracle_member m = test_costly_open(&costly, "judge");
        m.threshold = 0.1 * k;
        CHECK_OK(test_oracle_of(policy, &m, 1, RA_COMBINE_ALL, cache, &o));
        CHECK_OK(ra_oracle_judge(o, items, N, first));
        for (int i = 0; i < N; i++) assert_int_equal(first[i].compliant, first[i].probability >= m.threshold);
        int64_t yes = ra_oracle_counted(o)->compliant;
        assert_true(k == 1 || yes < before);
        assert_true(ra_oracle_has_probability(o));
        before = yes;
        CHECK_OK(ra_oracle_close(o));
    }
    assert_int_equal(costly.asked, N); /* another threshold asks nothing */
}

static void test_noise(void **state)
{
    (void)state;
    test_costly costly = {.salt = 1};
    ra_oracle *o = open_one(&costly, cache);
    uint64_t clean_hash = ra_oracle_hash(o);
    ra_oracle_set_noise(o, 0.1, 5);
    assert_true(ra_oracle_hash(o) != clean_hash);
    CHECK_OK(ra_oracle_judge(o, items, N, first));
    int flipped = 0;
    for (int i = 0; i < N; i++) {
        float p;
        flipped += first[i].compliant != test_costly_verdict(&costly, text[i], &p);
        assert_true(first[i].probability == p); /* as the kind said */
    }
    assert_int_equal(ra_oracle_counted(o)->flipped, flipped);
    assert_true(fabs(flipped - 0.1 * N) < 5.0 * sqrt(0.09 * N));
    CHECK_OK(ra_oracle_close(o));

    /* one at a time and backwards, out of the cache: the same ones; the cache itself is clean */
    o = open_one(&costly, cache);
    ra_oracle_set_noise(o, 0.1, 5);
    for (int i = N - 1; i >= 0; i--) CHECK_OK(ra_oracle_judge(o, &items[i], 1, &second[i]));
    assert_int_equal(differ(), 0);
    ra_oracle_set_noise(o, 0.1, 6);
    CHECK_OK(ra_oracle_judge(o, items, N, second));
    assert_true(differ() > N / 20); /* another seed */
    ra_oracle_set_noise(o, 0.0, 5);
    CHECK_OK(ra_oracle_judge(o, items, N, second));
    for (int i = 0; i < N; i++) assert_int_equal(second[i].compliant, second[i].probability >= 0.5f);
    assert_int_equal(costly.asked, N);
    CHECK_OK(ra_oracle_close(o));
}

static void test_combination(void **state)
{
    (void)state;
    test_costly a = {.salt = 1, .mute = "13"}, b = {.salt = 2};
    ra_oracle_member m[2] = {test_costly_open(&a, "judge"), test_costly_open(&b, "http")};
    ra_oracle *o = NULL;
    CHECK_OK(test_oracle_of(policy, m, 2, RA_COMBINE_ALL, cache, &o));
    assert_string_equal(ra_oracle_kind(o), "all(judge, http)");
    CHECK_OK(ra_oracle_judge(o, items, N, first));
    int same = 0, both = 0;
    for (int i = 0; i < N; i++) {
        float p;
        int x = strstr(text[i], "13") ? -1 : test_costly_verdict(&a, text[i], &p), y = test_costly_verdict(&b, text[i], &p);
        assert_int_equal(first[i].compliant, x == 0 || y == 0 ? 0 : x < 0 ? -1 : 1);
        both += x >= 0;
        same += x == y;
    }
    assert_int_equal(ra_agreement_units(ra_oracle_agreement(o), 0, 1), both);
    check_close(ra_agreement_share(ra_oracle_agreement(o), 0, 1), (double)same / both, 1e-12, 0, "agreement");
    CHECK_OK(ra_oracle_close(o));

    /* in turn: the second is asked about what the first cannot tell, and about nothing else */
    a = (test_costly){.salt = 1, .mute = "13"}, b = (test_costly){.salt = 3};
    m[0] = test_costly_open(&a, "judge"), m[1] = test_costly_open(&b, "http");
    CHECK_OK(test_oracle_of(policy, m, 2, RA_COMBINE_FIRST, NULL, &o));
    CHECK_OK(ra_oracle_judge(o, items, N, first));
    assert_int_equal(a.asked, N);
    assert_int_equal(b.asked, N - both);
    assert_int_equal(ra_oracle_counted(o)->undecided, 0);
    CHECK_OK(ra_oracle_close(o));
}

/* Rules and a judge over one policy file: names of rules say whose they are. */
static void test_rules_and_a_judge(void **state)
{
    (void)state;
    test_costly a = {.salt = 1};
    ra_policy *read = NULL;
    ra_oracle *o = NULL;
    ra_oracle_member m[2];
    CHECK_OK(ra_policy_read(policy, &read));
    CHECK_OK(ra_rules_open(read, &m[0]));
    m[1] = test_costly_open(&a, "judge");
    CHECK_OK(ra_oracle_new(read, m, 2, RA_COMBINE_ALL, NULL, &o));
    CHECK_OK(ra_oracle_judge(o, items, 100, first));
    assert_int_equal(ra_oracle_rule_count(o), 1);
    assert_string_equal(ra_oracle_rule_name(o, 0), "rules: short");
    assert_int_equal(ra_oracle_batch(o), 64); /* the costly one's wish */
    for (int i = 0; i < 100; i++) {
        float p;
        int judged = test_costly_verdict(&a, text[i], &p);
        assert_int_equal(first[i].compliant, i < 10 && judged);
        assert_int_equal(first[i].rule, i < 10 ? -1 : 0);
    }
    CHECK_OK(ra_oracle_close(o));
}

/* ---- kinds that break the contract ---- */
static int mischief;

static ra_err misbehave(void *state, const ra_oracle_item *item, int n, ra_verdict_sink sink, void *context)
{
    (void)state, (void)item;
    ra_verdict yes = {1, -1, mischief == 3 ? NAN : 0.9f, 0.0f};
    for (int i = 0; i < n; i++) {
        if (mischief == 0 && i == 3) continue;
        sink(context, mischief == 1 && i == 3 ? n : i, &yes);
        if (mischief == 2) sink(context, i, &yes);
    }
    return RA_OK;
}

static ra_err too_much(void *state, int64_t questions, int64_t bytes)
{
    (void)state;
    return questions > 5 ? ra_fail(RA_ERR_DATA, "%d questions of %d bytes are over the budget", (int)questions, (int)bytes)
                         : RA_OK;
}

static const char *nothing(const void *state)
{
    (void)state;
    return "";
}

static void forget(void *state)
{
    (void)state;
}

static void test_broken_kinds(void **state)
{
    (void)state;
    static const ra_oracle_ops ops = {"exec", true, true, 8, misbehave, nothing, forget, too_much, NULL};
    static const char *const messages[] = {"left 1 of 10 questions without an answer", "a question that was not put", "or twice"};
    for (mischief = 0; mischief < 4; mischief++) {
        ra_oracle_member m = {.ops = &ops, .identity = ra_strdup("x"), .threshold = 0.5};
        ra_oracle *o = NULL;
        CHECK_OK(test_oracle_of(policy, &m, 1, RA_COMBINE_ALL, NULL, &o));
        ra_oracle_plan plan = {0};
        ra_oracle_plan_add(o, items, 5, &plan);
        CHECK_OK(ra_oracle_announce(o, &plan));
        ra_oracle_plan_add(o, items + 5, 5, &plan);
        check_fails(ra_oracle_announce(o, &plan), RA_ERR_DATA, "10 questions of 70 bytes are over the budget", NULL);
        ra_err err = ra_oracle_judge(o, items, 10, first);
        if (mischief < 3) {
            check_fails(err, RA_ERR_NUMERIC, messages[mischief], NULL);
        } else {
            assert_int_equal(err, RA_OK); /* a probability that is no number is no verdict */
            assert_int_equal(first[0].compliant, -1);
        }
        CHECK_OK(ra_oracle_close(o));
    }
}

static void test_an_unusable_cache(void **state)
{
    (void)state;
    test_costly costly = {.salt = 1};
    ra_oracle *o = NULL;
    ra_oracle_member m = test_costly_open(&costly, "judge");
    check_fails(test_oracle_of(policy, &m, 1, RA_COMBINE_ALL, "/proc/nowhere", &o), RA_ERR_IO, "oracle.cache", "/proc/nowhere",
                NULL);
    assert_null(o);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, make, clear)
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_truth_tables),
                                       CASE(test_a_second_run_asks_nothing),
                                       CASE(test_what_is_another_question),
                                       CASE(test_an_error_keeps_what_was_heard),
                                       CASE(test_undecided_is_not_kept),
                                       CASE(test_threshold),
                                       CASE(test_noise),
                                       CASE(test_combination),
                                       CASE(test_rules_and_a_judge),
                                       CASE(test_broken_kinds),
                                       CASE(test_an_unusable_cache)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, textfile_cleanup);
}
