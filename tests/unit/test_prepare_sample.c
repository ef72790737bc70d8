/* From renderings to a sample: the shared prompt, boundaries inside tokens, empty responses, truncation. Token ids are made up: 1 is BOS, 2 closes a turn. */
#include "support/support.h"
#include "../../src/stage/prepare_sample.h"

#include <string.h>

enum { BOS = 1, END = 2 };

static ra_branch branch_of(const int32_t *id, int64_t start, int64_t end)
{
    return (ra_branch){id, start, end, end > start && id[end - 1] == END, false};
}

static ra_job split(const ra_branch branch[RA_ROLES], int64_t max_tokens, ra_truncate truncate)
{
    ra_sample_rules rules = {.bos = BOS, .max_tokens = max_tokens, .truncate = truncate};
    ra_job job = {.id = 7};
    ra_sample_split(branch, &rules, &job);
    assert_int_equal(job.sample.id, 7);
    return job;
}

static void check_ids(const int32_t *got, int64_t n, const int32_t *want, int64_t n_want)
{
    assert_int_equal(n, n_want);
    assert_memory_equal(got, want, (size_t)n * sizeof *want);
}
#define IDS(...) (const int32_t[]){__VA_ARGS__}, (int64_t)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static const int32_t chosen[] = {BOS, 10, 11, 12, 20, 21, 22, END, 99};
static const int32_t rejected[] = {BOS, 10, 11, 12, 20, 31, END, 99};

/* Responses that begin alike share no response token; what follows the closing token is not kept. */
static void test_prompt_ends_at_the_response(void **state)
{
    (void)state;
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(rejected, 4, 7)};
    ra_job job = split(b, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    assert_int_equal(job.sample.cut, 0);
    check_ids(job.sample.prompt, job.sample.prompt_count, IDS(BOS, 10, 11, 12));
    check_ids(job.sample.response[RA_CHOSEN].token, job.sample.response[RA_CHOSEN].count, IDS(20, 21, 22, END));
    check_ids(job.sample.response[RA_REJECTED].token, job.sample.response[RA_REJECTED].count, IDS(20, 31, END));
    assert_int_equal(job.sample.response[RA_CHOSEN].skip, 0);
    assert_int_equal(job.sample.response[RA_REJECTED].skip, 0);
    assert_int_equal(job.sample.response[RA_CORRECTION].count, 0);
}

/* The prompt's last token melts into the rejected response: it stays in the chosen branch as input that is not scored. */
static void test_boundary_inside_a_token(void **state)
{
    (void)state;
    static const int32_t melted[] = {BOS, 10, 11, 77, 31, END};
    static const int32_t correction[] = {BOS, 10, 11, 12, 40, END};
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(melted, 3, 6), branch_of(correction, 4, 6)};
    ra_job job = split(b, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    check_ids(job.sample.prompt, job.sample.prompt_count, IDS(BOS, 10, 11));
    check_ids(job.sample.response[RA_CHOSEN].token, job.sample.response[RA_CHOSEN].count, IDS(12, 20, 21, 22, END));
    check_ids(job.sample.response[RA_REJECTED].token, job.sample.response[RA_REJECTED].count, IDS(77, 31, END));
    check_ids(job.sample.response[RA_CORRECTION].token, job.sample.response[RA_CORRECTION].count, IDS(12, 40, END));
    assert_int_equal(job.sample.response[RA_CHOSEN].skip, 1);
    assert_int_equal(job.sample.response[RA_REJECTED].skip, 0);
    assert_int_equal(job.sample.response[RA_CORRECTION].skip, 1);
}

/* Renderings that differ before the boundary (a token merged further left): the prompt ends where they part. */
static void test_prompts_that_part_early(void **state)
{
    (void)state;
    static const int32_t other[] = {BOS, 10, 50, 12, 31, END};
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(other, 4, 6)};
    ra_job job = split(b, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.prompt_count, 2);
    assert_int_equal(job.sample.response[RA_CHOSEN].skip, 2);
    assert_int_equal(job.sample.response[RA_REJECTED].skip, 2);
    check_ids(job.sample.response[RA_REJECTED].token, job.sample.response[RA_REJECTED].count, IDS(50, 12, 31, END));
}

/* The same ids, one token of which counts as response in one rendering alone: it is in no prompt. */
static void test_first_response_start_bounds_the_prompt(void **state)
{
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        ra_branch b[RA_ROLES] = {branch_of(chosen, turn ? 3 : 4, 8), branch_of(chosen, turn ? 4 : 3, 8)};
        ra_job job = split(b, 100, RA_TRUNCATE_DROP);
        assert_int_equal(job.sample.prompt_count, 3);
        assert_int_equal(job.sample.response[RA_CHOSEN].skip, turn ? 0 : 1);
        assert_int_equal(job.sample.response[RA_REJECTED].skip, turn ? 1 : 0);
    }
}

static void test_identical_responses(void **state)
{
    (void)state;
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(chosen, 4, 8)};
    ra_job job = split(b, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.prompt_count, 4);
    assert_int_equal(job.sample.response[RA_REJECTED].count, 4);
}

static void test_nothing_to_score_is_empty(void **state)
{
    (void)state;
    static const int32_t bare[] = {BOS, 10, 11, 12, END};
    ra_branch closing_alone[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(bare, 4, 5)};
    ra_job job = split(closing_alone, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_EMPTY);
    assert_int_equal(job.sample.prompt_count, 0);
    assert_non_null(strstr(job.why, "rejected"));

    ra_branch no_token[RA_ROLES] = {branch_of(chosen, 4, 4), branch_of(rejected, 4, 7)};
    job = split(no_token, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_EMPTY);
    assert_non_null(strstr(job.why, "chosen"));

    ra_branch one_token_without_end[RA_ROLES] = {branch_of(chosen, 4, 5), branch_of(rejected, 4, 7)};
    job = split(one_token_without_end, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);

    ra_branch no_prompt[RA_ROLES] = {branch_of(chosen + 4, 0, 4), branch_of(rejected + 4, 0, 3)};
    job = split(no_prompt, 100, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_EMPTY);
    assert_non_null(strstr(job.why, "prompt"));
}

/* 8 tokens: prompt 4, chosen 4, rejected 3. */
static void test_truncation(void **state)
{
    (void)state;
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(rejected, 4, 7)};
    assert_int_equal(split(b, 8, RA_TRUNCATE_DROP).sample.state, RA_SAMPLE_OK);
    ra_job job = split(b, 7, RA_TRUNCATE_DROP);
    assert_int_equal(job.sample.state, RA_SAMPLE_TOO_LONG);
    assert_int_equal(job.sample.prompt_count + job.sample.response[RA_CHOSEN].count, 0);
    assert_non_null(strstr(job.why, "8 tokens"));

    job = split(b, 5, RA_TRUNCATE_KEEP);
    assert_true(job.over_long && job.sample.state == RA_SAMPLE_OK && job.sample.cut == 0);
    assert_int_equal(job.sample.prompt_count + job.sample.response[RA_CHOSEN].count, 8);
    assert_false(split(b, 8, RA_TRUNCATE_KEEP).over_long);

    job = split(b, 6, RA_TRUNCATE_LEFT);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    assert_int_equal(job.sample.cut, 2);
    check_ids(job.sample.prompt, job.sample.prompt_count, IDS(BOS, 12));
    assert_int_equal(job.sample.response[RA_CHOSEN].count, 4);
    ra_job_free(&job);
    assert_int_equal(split(b, 5, RA_TRUNCATE_LEFT).sample.state, RA_SAMPLE_TOO_LONG);

    job = split(b, 6, RA_TRUNCATE_RIGHT);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    assert_int_equal(job.sample.cut, 3);
    assert_int_equal(job.sample.prompt_count, 4);
    check_ids(job.sample.response[RA_CHOSEN].token, job.sample.response[RA_CHOSEN].count, IDS(20, 21));
    check_ids(job.sample.response[RA_REJECTED].token, job.sample.response[RA_REJECTED].count, IDS(20, 31));
    assert_int_equal(split(b, 5, RA_TRUNCATE_RIGHT).sample.state, RA_SAMPLE_OK);
    assert_int_equal(split(b, 4, RA_TRUNCATE_RIGHT).sample.state, RA_SAMPLE_TOO_LONG);
    assert_int_equal(split(b, 3, RA_TRUNCATE_RIGHT).sample.state, RA_SAMPLE_TOO_LONG);
}

/* Without a BOS in front, the left end goes whole. */
static void test_left_without_bos(void **state)
{
    (void)state;
    ra_branch b[RA_ROLES] = {branch_of(chosen + 1, 3, 7), branch_of(rejected + 1, 3, 6)};
    ra_job job = split(b, 5, RA_TRUNCATE_LEFT);
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    assert_null(job.kept_prompt);
    check_ids(job.sample.prompt, job.sample.prompt_count, IDS(12));
    assert_int_equal(split(b, 4, RA_TRUNCATE_LEFT).sample.state, RA_SAMPLE_TOO_LONG);
}

/* A cut never leaves a branch of prompt tokens alone. */
static void test_right_keeps_a_scored_token(void **state)
{
    (void)state;
    static const int32_t melted[] = {BOS, 10, 77, 31, END};
    ra_branch b[RA_ROLES] = {branch_of(chosen, 4, 8), branch_of(melted, 2, 5)};
    ra_job job = split(b, 5, RA_TRUNCATE_RIGHT); /* prompt 2, room 3, chosen skips 2 */
    assert_int_equal(job.sample.state, RA_SAMPLE_OK);
    assert_int_equal(job.sample.response[RA_CHOSEN].count, 3);
    assert_int_equal(job.sample.response[RA_CHOSEN].skip, 2);
    assert_int_equal(split(b, 4, RA_TRUNCATE_RIGHT).sample.state, RA_SAMPLE_TOO_LONG);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_ends_at_the_response),
        cmocka_unit_test(test_boundary_inside_a_token),
        cmocka_unit_test(test_prompts_that_part_early),
        cmocka_unit_test(test_identical_responses),
        cmocka_unit_test(test_first_response_start_bounds_the_prompt),
        cmocka_unit_test(test_nothing_to_score_is_empty),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_left_without_bos),
        cmocka_unit_test(test_right_keeps_a_scored_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
