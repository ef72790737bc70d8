/* The gold batch (METHOD section 4, Algorithm 2): how many pairs of each set, whose responses, drawn from the seed alone. */
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/file.h>
#include <realign/gold.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 330, MOST = 400, INVERT = 0, PUNISH, RETAIN };

typedef struct {
    char *dir;
    ra_store *store;
    int8_t action[SAMPLES];
    int64_t count[3];
} fixture;

static int set_up(void **state)
{
    static fixture f;
    f = (fixture){.dir = test_dir_make()};
    char *config = ra_path_join(f.dir, "config.json");
    CHECK_OK(ra_file_write(config, "{\"vocab_size\": 50}", 18));
    free(config);
    tiny_run run = {.model = f.dir, .samples = SAMPLES, .seed = 3};
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    CHECK_OK(tiny_run_make(&self, f.dir, &run));
    CHECK_OK(ra_store_open(f.dir, &f.store));
    for (int i = 0; i < SAMPLES; i++) {
        f.action[i] = ra_store_state(f.store, i) == RA_SAMPLE_OK ? tiny_run_action(&run, i) : -1;
        if (f.action[i] >= 0) f.count[f.action[i]]++;
    }
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    ra_store_close(f->store);
    test_dir_remove(f->dir);
    return 0;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Every pair says what the new policy wants: y- is refused or less wanted, y+ complies. Counts pairs by set. */
static void check_pairs(const fixture *f, const int8_t *action, const ra_gold_pair *pair, int64_t n, int64_t drawn[3])
{
    char seen[SAMPLES] = {0};
    memset(drawn, 0, 3 * sizeof *drawn);
    for (int64_t i = 0; i < n; i++) {
        const ra_gold_pair *p = &pair[i];
        ra_sample s = ra_store_get(f->store, p->sample);
        int a = action[p->sample];
        assert_true(a >= INVERT && a <= RETAIN && !seen[p->sample]);
        seen[p->sample] = 1;
        drawn[a]++;
        if (a == RETAIN) assert_true(p->worse == RA_REJECTED && p->better == RA_CHOSEN && p->donor == p->sample);
        if (a == INVERT) assert_true(p->worse == RA_CHOSEN && p->better == RA_REJECTED && p->donor == p->sample);
        if (a != PUNISH) continue;
        assert_int_equal(p->worse, RA_CHOSEN);
        if (s.response[RA_CORRECTION].count > 0) {
            assert_true(p->donor == p->sample && p->better == RA_CORRECTION);
        } else {
            assert_true((action[p->donor] == RETAIN && p->better == RA_CHOSEN) ||
                        (action[p->donor] == INVERT && p->better == RA_REJECTED));
        }
    }
}

static void sizes(void **state)
{
    fixture *f = *state;
    static const int64_t asked[] = {1, 2, 3, 4, 9, 64, 100, 299, 330, MOST};
    ra_gold_pair pair[MOST];
    for (int missing = -1; missing < 3; missing++) { /* all sets; without Invert; without Punish; without Retain */
        int8_t action[SAMPLES];
        int64_t have[3];
        for (int i = 0; i < SAMPLES; i++) action[i] = f->action[i] == missing ? -1 : f->action[i];
        for (int a = 0; a < 3; a++) have[a] = a == missing ? 0 : f->count[a];
        for (size_t k = 0; k < sizeof asked / sizeof asked[0]; k++) {
            int64_t n = ra_gold_draw(f->store, action, asked[k], 7, pair), drawn[3];
            check_pairs(f, action, pair, n, drawn);
            int64_t retain = smaller(have[RETAIN], asked[k] / 3), invert = smaller(have[INVERT], asked[k] / 3);
            assert_int_equal(drawn[RETAIN], retain);
            assert_int_equal(drawn[INVERT], invert);
            assert_int_equal(drawn[PUNISH], smaller(have[PUNISH], asked[k] - retain - invert));
            assert_int_equal(n, drawn[0] + drawn[1] + drawn[2]);
        }
    }
}

/* Punish alone: those with a correction have their own, the others have no donor and drop out. */
static void no_donor(void **state)
{
    fixture *f = *state;
    int8_t action[SAMPLES];
    int64_t corrected = 0;
    ra_gold_pair pair[MOST];
    for (int i = 0; i < SAMPLES; i++) {
        action[i] = f->action[i] == PUNISH ? PUNISH : -1;
        corrected += action[i] == PUNISH && ra_store_get(f->store, i).response[RA_CORRECTION].count > 0;
    }
    int64_t n = ra_gold_draw(f->store, action, MOST, 7, pair);
    assert_true(corrected > 5);
    assert_int_equal(n, corrected);
    for (int64_t i = 0; i < n; i++) assert_int_equal(pair[i].better, RA_CORRECTION);
}

static void seeds(void **state)
{
    fixture *f = *state;
    ra_gold_pair a[60], b[60], c[60];
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    memset(c, 0, sizeof c);
    assert_int_equal(ra_gold_draw(f->store, f->action, 60, 11, a), 60);
    assert_int_equal(ra_gold_draw(f->store, f->action, 60, 11, b), 60);
    assert_int_equal(ra_gold_draw(f->store, f->action, 60, 12, c), 60);
    int same = 0;
    for (int i = 0; i < 60; i++) {
        assert_true(a[i].sample == b[i].sample && a[i].donor == b[i].donor && a[i].worse == b[i].worse &&
                    a[i].better == b[i].better);
        same += a[i].sample == c[i].sample;
    }
    assert_true(same < 20);
}

/* Over many seeds, donors come from both sets, each response about as often as the others. */
static void donors_are_uniform(void **state)
{
    fixture *f = *state;
    ra_gold_pair pair[30];
    int64_t uses[SAMPLES] = {0}, total = 0, donors = f->count[RETAIN] + f->count[INVERT];
    for (uint64_t seed = 0; seed < 2000; seed++) {
        int64_t n = ra_gold_draw(f->store, f->action, 30, seed, pair);
        for (int64_t i = 0; i < n; i++) {
            if (f->action[pair[i].sample] != PUNISH || pair[i].better == RA_CORRECTION) continue;
            uses[pair[i].donor]++;
            total++;
        }
    }
    double mean = (double)total / (double)donors, chi2 = 0.0;
    for (int i = 0; i < SAMPLES; i++) {
        if (f->action[i] == RETAIN || f->action[i] == INVERT) chi2 += ((double)uses[i] - mean) * ((double)uses[i] - mean) / mean;
    }
    /* chi-square of `donors` - 1 degrees: mean donors - 1, variance twice that; within 5 standard deviations */
    check_close(chi2, (double)donors - 1.0, 0.0, 5.0 * __builtin_sqrt(2.0 * (double)donors), "chi-square of donors");
}

/* The pair as a sample: y+ as y_w, y- as y_l; a donor's response behind another prompt keeps what of that prompt stands in the branch. */
static void as_samples(void **state)
{
    fixture *f = *state;
    ra_gold_pair pair[MOST];
    int32_t joined[128];
    int64_t n = ra_gold_draw(f->store, f->action, MOST, 5, pair);
    int spliced = 0;
    for (int64_t i = 0; i < n; i++) {
        const ra_gold_pair *p = &pair[i];
        ra_sample own = ra_store_get(f->store, p->sample), donor = ra_store_get(f->store, p->donor),
                  s = ra_gold_sample(f->store, p, joined, 128);
        assert_int_equal(s.prompt_count, own.prompt_count);
        assert_ptr_equal(s.prompt, own.prompt);
        assert_ptr_equal(s.response[RA_REJECTED].token, own.response[p->worse].token);
        assert_int_equal(s.response[RA_REJECTED].skip, own.response[p->worse].skip);
        assert_int_equal(s.response[RA_CORRECTION].count, 0);
        int32_t skip = s.response[RA_CHOSEN].skip, from = donor.response[p->better].skip,
                scored = donor.response[p->better].count - from;
        assert_int_equal(s.response[RA_CHOSEN].count - skip, scored);
        assert_memory_equal(s.response[RA_CHOSEN].token + skip, donor.response[p->better].token + from,
                            (size_t)scored * sizeof(int32_t));
        if (p->donor == p->sample) continue;
        assert_int_equal(skip, own.response[p->worse].skip);
        assert_memory_equal(s.response[RA_CHOSEN].token, own.response[p->worse].token, (size_t)skip * sizeof(int32_t));
        spliced += skip > 0;
    }
    assert_true(spliced > 0);
}

int main(int argc, char **argv)
{
    ra_comm world;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(no_donor), cmocka_unit_test(seeds),
                                       cmocka_unit_test(donors_are_uniform), cmocka_unit_test(as_samples)};
    int failed = cmocka_run_group_tests_name("gold", tests, set_up, tear_down);
    ra_comm_finalize();
    return failed;
}
