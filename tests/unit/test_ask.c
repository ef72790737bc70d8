/* Sequences that go on from a kept root give the numbers of plain whole sequences: the same model, computed by the scorer without any sharing. On every family of the shared
 * fixtures, sliding windows shorter than the root and soft-caps included. */
#include "../../src/infer/ask.h"
#include "support/support.h"
#include <realign/infer.h>
#include <realign/mem.h>
#include <realign/modelfile.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOT = 40, N = 14, LONGEST = 200, ANSWERS = 5, SEED = 71 };

static const char *const models[] = {"fixtures/llama31/policy", "fixtures/qwen25/policy", "fixtures/gemma2/policy",
                                     "fixtures/llama32_tied/policy"};

static const struct {
    const char *backend, *precision;
    double tolerance;
} instances[] = {{"ref", "fp64", 1e-9}, {"cpu", "fp32", 1e-4}};

typedef struct {
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    int32_t root[ROOT], answer[ANSWERS];
    struct {
        int32_t token[LONGEST], count, branch;
    } sequence[N];
} problem;

static void draw(ra_rng *rng, int32_t vocabulary, int32_t *token, int32_t n)
{
    for (int32_t i = 0; i < n; i++) token[i] = (int32_t)ra_rng_below(rng, (uint64_t)vocabulary);
}

/* Pairs with one stem, a neighbour with another one as long, replies of 1 to 100 tokens, sequences that leave the root early or at once, that are no longer than it, and one without a stem. */
static void make(problem *p)
{
    static const struct {
        int32_t root, stem, own,
            like; /* tokens of the root, then of a stem (that of sequence `like`, or its own where -1), then its own */
    } shape[N] = {{ROOT, 12, 30, -1},    {ROOT, 12, 1, 0},  {ROOT, 50, 100, -1}, {ROOT, 50, 60, 2}, {ROOT, 50, 7, -1},
                  {ROOT, 0, 9, -1},      {ROOT, 0, 20, -1}, {ROOT, 0, 0, -1},    {ROOT, 1, 33, -1}, {ROOT, 1, 2, 8},
                  {ROOT - 3, 20, 5, -1}, {17, 3, 40, -1},   {0, 5, 60, -1},      {0, 0, 1, -1}};
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    int32_t vocabulary = p->m->arch.vocabulary;
    draw(&rng, vocabulary, p->root, ROOT);
    draw(&rng, vocabulary, p->answer, ANSWERS);
    for (int i = 0; i < N; i++) {
        int32_t *token = p->sequence[i].token, root = shape[i].root, stem = shape[i].stem, own = shape[i].own;
        memcpy(token, p->root, (size_t)root * sizeof *token);
        draw(&rng, vocabulary, token + root, stem + own);
        if (root < ROOT && stem + own) token[root] = (p->root[root] + 1) % vocabulary;
        if (shape[i].like >= 0) memcpy(token, p->sequence[shape[i].like].token, (size_t)(root + stem) * sizeof *token);
        p->sequence[i].count = root + stem + own;
        p->sequence[i].branch = root + stem;
    }
}

static void open_problem(problem *p, const char *model, const char *backend, const char *precision)
{
    char *path = test_shared_path(model);
    CHECK_OK(ra_backend_open(backend, precision, 0, &p->b));
    CHECK_OK(ra_modelfile_open(path, &p->file));
    CHECK_OK(ra_model_open(p->b, p->file, RA_FROZEN, NULL, 0, NULL, &p->m));
    free(path);
    make(p);
}

static void close_problem(problem *p)
{
    ra_model_close(p->m);
    ra_modelfile_close(p->file);
    ra_backend_close(p->b);
}

typedef struct {
    double logit[N][ANSWERS], lse[N];
    int times[N];
} answers;

static ra_err keep(void *context, int64_t id, const double *logit, double lse)
{
    answers *a = context;
    memcpy(a->logit[id], logit, sizeof a->logit[id]);
    a->lse[id] = lse;
    a->times[id]++;
    return RA_OK;
}

/* Asks `n` of the sequences in the given order; returns the rows computed. */
static int64_t ask(problem *p, int32_t rows, int32_t root_count, const int *order, int n, answers *out)
{
    ra_asker *a = ra_asker_new(p->m, NULL, rows, p->root, root_count, p->answer, ANSWERS, keep, out);
    for (int i = 0; i < n; i++) {
        int k = order[i];
        CHECK_OK(ra_asker_add(a, k, p->sequence[k].token, p->sequence[k].count, p->sequence[k].branch));
    }
    CHECK_OK(ra_asker_flush(a));
    int64_t computed = ra_asker_counts(a)->rows;
    ra_asker_free(a);
    return computed;
}

static const int forward[N] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
                 backward[N] = {13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
                 apart[N] = {3, 0, 13, 2, 9, 5, 1, 4, 12, 8, 6, 10, 7, 11};

/* log p(answer | sequence) by scoring the sequence with the answer behind it, whole and alone. */
static double plain(problem *p, ra_scorer *s, int i, int k)
{
    int32_t ids[LONGEST + 1], n = p->sequence[i].count;
    double logprob;
    memcpy(ids, p->sequence[i].token, (size_t)n * sizeof *ids);
    ids[n] = p->answer[k];
    ra_scored q = {.id = i, .token = ids, .count = n + 1, .first = n, .logprob = &logprob};
    CHECK_OK(ra_scorer_run(s, &q, 1));
    return logprob;
}

static void test_against_whole_sequences(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof models / sizeof *models; f++) {
        for (size_t k = 0; k < sizeof instances / sizeof *instances; k++) {
            problem p;
            open_problem(&p, models[f], instances[k].backend, instances[k].precision);
            ra_scorer *s = ra_scorer_new(p.m, NULL, 256);
            answers a = {0};
            int64_t rows = ask(&p, 128, ROOT, forward, N, &a), given = 0;
            double worst = 0.0;
            for (int i = 0; i < N; i++) {
                given += p.sequence[i].count;
                assert_int_equal(a.times[i], 1);
                for (int j = 0; j < ANSWERS; j++) {
                    double want = plain(&p, s, i, j), got = a.logit[i][j] - a.lse[i];
                    check_close(got, want, 0, instances[k].tolerance, "log-probability of an answer");
                    worst = fmax(worst, fabs(got - want));
                }
            }
            printf("# %s, %s %s, seed %d: worst error %.2g, tolerance %g; %lld of %lld rows computed\n", models[f],
                   instances[k].backend, instances[k].precision, SEED, worst, instances[k].tolerance, (long long)rows,
                   (long long)given);
            /* shared with the root: 40 of nine sequences, all but the last of one, 37 and 17; stems: 12 and 1. Those of 50 are not: 50 + 100 fills a pack of 128 rows,
             * and the third is another one of the same length. */
            assert_int_equal(rows, given - (9 * ROOT + ROOT - 1 + 37 + 17 + 12 + 1) + ROOT);
            ra_scorer_free(s);
            close_problem(&p);
        }
    }
}

static void compare(const answers *got, const answers *first, int i, bool exact)
{
    assert_int_equal(got->times[i], 1);
    if (exact) {
        assert_memory_equal(got->logit[i], first->logit[i], sizeof got->logit[i]);
        assert_memory_equal(&got->lse[i], &first->lse[i], sizeof got->lse[i]);
    }
    for (int j = 0; j < ANSWERS; j++)
        check_close(got->logit[i][j] - got->lse[i], first->logit[i][j] - first->lse[i], 0, 1e-5, "log-probability beside others");
}

/* In any order, in packs of any size, three at a time, and each alone. */
static void check_independence(problem *p, bool exact)
{
    static const int32_t rows[] = {64, 4096, 1, 200};
    answers first = {0};
    ask(p, 300, ROOT, forward, N, &first);
    for (int v = 0; v < 4; v++) {
        answers other = {0};
        ask(p, rows[v], ROOT, v % 2 ? backward : apart, N, &other);
        for (int i = 0; i < N; i++) compare(&other, &first, i, exact);
    }
    answers alone = {0}, few = {0};
    for (int i = 0; i < N; i++) ask(p, 128, ROOT, forward + i, 1, &alone);
    for (int i = 0; i + 3 <= N; i += 3) ask(p, 128, ROOT, forward + i, 3, &few);
    for (int i = 0; i < N; i++) compare(&alone, &first, i, exact);
    for (int i = 0; i < N / 3 * 3; i++) compare(&few, &first, i, exact);
}

static void test_independence(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof models / sizeof *models; f++) {
        for (size_t k = 0; k < sizeof instances / sizeof *instances; k++) {
            problem p;
            open_problem(&p, models[f], instances[k].backend, instances[k].precision);
            check_independence(&p, false);
            close_problem(&p);
        }
    }
}

/* Bitwise, where rows of the backend's products do not depend on how many they are. */
static void test_bitwise(void **state)
{
    const char *backend = *state;
    bool left_out = false;
    for (size_t f = 0; f < sizeof models / sizeof *models; f++) {
        problem p;
        open_problem(&p, models[f], backend, strcmp(backend, "ref") ? "fp32" : "fp64");
        if (p.b->row_independent) {
            check_independence(&p, true);
        } else {
            left_out = true;
        }
        close_problem(&p);
    }
    if (left_out) {
        printf("# SKIP: products of backend %s depend on the number of rows on this processor\n", backend);
        skip();
    }
}

/* A root of another length changes what is shared, not what comes out. */
static void test_root_length(void **state)
{
    (void)state;
    problem p;
    open_problem(&p, models[2], "ref", "fp64");
    answers whole = {0}, part = {0}, none = {0};
    int64_t most = ask(&p, 500, 0, forward, N, &none), some = ask(&p, 500, 9, forward, N, &part),
            least = ask(&p, 500, ROOT, forward, N, &whole);
    assert_true(least < some && some < most);
    for (int i = 0; i < N; i++) {
        check_close(part.lse[i], whole.lse[i], 0, 1e-9, "lse with a part of the root");
        check_close(none.lse[i], whole.lse[i], 0, 1e-9, "lse without a root");
    }
    close_problem(&p);
}

static ra_err refuse(void *context, int64_t id, const double *logit, double lse)
{
    (void)context, (void)logit, (void)lse;
    return id == 1 ? ra_fail(RA_ERR_NUMERIC, "refused %lld", (long long)id) : RA_OK;
}

static void test_refusals(void **state)
{
    (void)state;
    problem p;
    open_problem(&p, models[0], "cpu", "fp32");
    ra_asker *a = ra_asker_new(p.m, NULL, 64, p.root, ROOT, p.answer, ANSWERS, refuse, NULL);
    int32_t ids[1000] = {1, 2, -3};
    check_fails(ra_asker_add(a, 0, ids, 0, 0), RA_ERR_DATA, "empty", NULL);
    check_fails(ra_asker_add(a, 0, ids, 3, 0), RA_ERR_DATA, "index 2", "vocabulary", NULL);
    check_fails(ra_asker_add(a, 0, ids, p.m->rope_positions + 1, 0), RA_ERR_DATA, "positions", NULL);
    ids[2] = 3;
    CHECK_OK(ra_asker_add(a, 1, ids, 3, 1));
    check_fails(ra_asker_flush(a), RA_ERR_NUMERIC, "refused 1", NULL);
    CHECK_OK(ra_asker_add(a, 1, ids, 3, 1));
    CHECK_OK(ra_asker_end(a)); /* nothing is asked twice, and what was forgotten never */
    CHECK_OK(ra_asker_add(a, 2, ids, 3, 7));
    CHECK_OK(ra_asker_flush(a));
    ra_asker_free(a);
    close_problem(&p);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    static char ref[] = "ref", cpu[] = "cpu";
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_whole_sequences),
                                       cmocka_unit_test(test_independence),
                                       {"bitwise the same beside others, ref", test_bitwise, NULL, NULL, ref},
                                       {"bitwise the same beside others, cpu", test_bitwise, NULL, NULL, cpu},
                                       cmocka_unit_test(test_root_length),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests_name("answers after a shared root", tests, NULL, NULL);
}
