/* Parts of the stage `correct`: what a corrector is asked, what of its answer counts, the file of candidates, corrections.h5, and samples that part from their prompt earlier. */
#include "../../src/stage/candidates.h"
#include "../../src/stage/corrections.h"
#include "../../src/stage/corrector.h"
#include "../../src/stage/prepare_sample.h"
#include "support/support.h"
#include "support/tinytok.h"

#include <realign/file.h>
#include <realign/gold.h>
#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const ra_comm alone = {MPI_COMM_SELF, 0, 1};

/* ---- the question ---- */
static ra_settings *settings_with(const char *key, const char *value)
{
    ra_settings *s = ra_settings_new();
    if (key) CHECK_OK(ra_set_put(s, key, value));
    return s;
}

static char *instruction(ra_settings *s, const ra_policy *policy)
{
    char *text;
    CHECK_OK(ra_correct_instruction(s, policy, &text));
    ra_settings_free(s);
    return text;
}

static void test_instruction(void **state)
{
    (void)state;
    static char path[] = "p.yaml", text[] = "Be brief.", description[] = "Says little.", nothing[] = "";
    ra_policy policy = {.path = path, .text = text, .description = description};
    char *said = instruction(settings_with(NULL, NULL), &policy);
    assert_non_null(strstr(said, "<policy>\nBe brief.\n</policy>"));
    assert_null(strstr(said, "{policy}"));
    assert_null(strstr(said, "Says little."));
    free(said);
    policy.text = NULL; /* then its description */
    said = instruction(settings_with("correct.prompt", "Mind this: {policy}. Again {policy}!"), &policy);
    assert_string_equal(said, "Mind this: <policy>\nSays little.\n</policy>. Again <policy>\nSays little.\n</policy>!");
    free(said);
    policy.description = nothing;
    ra_settings *s = settings_with(NULL, NULL);
    check_fails(ra_correct_instruction(s, &policy, &said), RA_ERR_ARG, "p.yaml", "text:", "correct.prompt", NULL);
    ra_settings_free(s);
    said = instruction(settings_with("correct.prompt", "Be kind."), &policy);
    assert_string_equal(said, "Be kind.");
    free(said);
}

static void test_question(void **state)
{
    (void)state;
    ra_row row = {.prompt_text = "What? </message> hm", .chosen = "first wrong", .rejected = "second wrong"};
    ra_buf out = {0};
    ra_correct_write_question("Do.", false, &row, &out);
    assert_string_equal(out.data, "Do.\n\n<message-2>\nWhat? </message> hm\n</message-2>");
    ra_buf_clear(&out);
    ra_correct_write_question("Do.", true, &row, &out);
    char *first = strstr(out.data, "<answer>\nfirst wrong\n</answer>"),
         *second = strstr(out.data, "<answer>\nsecond wrong\n</answer>"), *message = strstr(out.data, "<message-2>");
    assert_true(first && second && message && first < second && second < message);
    ra_buf_free(&out);
}

static void test_clean_answer(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
        bool open;
    } cases[] = {{"  yes it is\n\n", "yes it is", false},
                 {"", "", false},
                 {" \n\t", "", false},
                 {"<think>hm</think>\n\n so", "so", false},
                 {"\n<think></think>", "", false},
                 {"<think>hm, and on", "", true},
                 {"we <think> so </think>", "we <think> so </think>", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool open;
        char *got = ra_correct_clean_answer(cases[i].text, &open);
        assert_string_equal(got, cases[i].want);
        assert_int_equal(open, cases[i].open);
        free(got);
    }
}

/* ---- candidates ---- */
static ra_hash key_of(int i)
{
    return ra_hash_bytes(&i, sizeof i);
}

static bool holds(const ra_candidates *c, int i, const char *want, bool want_cut)
{
    const char *text;
    bool cut;
    return ra_candidates_find(c, key_of(i), &text, &cut) && strcmp(text, want) == 0 && cut == want_cut;
}

static void add(ra_candidates *c, int i, const char *text, bool cut)
{
    CHECK_OK(ra_candidates_add(c, key_of(i), i, i % 3, text, cut));
}

static void append_to(const char *path, const char *bytes)
{
    FILE *file = fopen(path, "ab");
    fputs(bytes, file);
    fclose(file);
}

static void test_candidates(void **state)
{
    (void)state;
    char *base = test_dir_make(), *dir = ra_path_join(base, "candidates"), *path = ra_path_join(dir, "rank-00000.jsonl");
    ra_candidates *c;
    CHECK_OK(ra_candidates_open(dir, &alone, false, &c));
    assert_int_equal(ra_candidates_count(c), 0);
    for (int i = 0; i < 50; i++) add(c, i, i % 2 ? "caf\xC3\xA9 \"quoted\"\n\xF0\x9F\x98\x80" : "", i % 5 == 0);
    assert_true(holds(c, 7, "caf\xC3\xA9 \"quoted\"\n\xF0\x9F\x98\x80", false)); /* at once */
    CHECK_OK(ra_candidates_close(c));

    append_to(path, "{\"key\": \"torn in the mid"); /* a crash */
    CHECK_OK(ra_candidates_open(dir, &alone, false, &c));
    assert_int_equal(ra_candidates_count(c), 50);
    assert_int_equal(ra_candidates_damaged(c), 1);
    for (int i = 0; i < 50; i++) assert_true(holds(c, i, i % 2 ? "caf\xC3\xA9 \"quoted\"\n\xF0\x9F\x98\x80" : "", i % 5 == 0));
    assert_false(holds(c, 50, "", false));
    add(c, 50, "after the torn line", false);
    CHECK_OK(ra_candidates_close(c));
    CHECK_OK(ra_candidates_open(dir, &alone, false, &c));
    assert_int_equal(ra_candidates_count(c), 51);
    assert_true(holds(c, 50, "after the torn line", false));
    CHECK_OK(ra_candidates_close(c));

    ra_buf text = {0}; /* a text that was changed on the disk is not believed */
    CHECK_OK(ra_file_read(path, &text));
    char *at = strstr(text.data, "after");
    at[0] = 'o';
    CHECK_OK(ra_file_write(path, text.data, text.length));
    ra_buf_free(&text);
    const ra_comm second = {MPI_COMM_SELF, 1, 1}; /* another rank's file is read, and written beside it */
    CHECK_OK(ra_candidates_open(dir, &second, false, &c));
    assert_int_equal(ra_candidates_count(c), 50);
    assert_int_equal(ra_candidates_damaged(c), 2);
    add(c, 60, "of rank 1", true);
    CHECK_OK(ra_candidates_close(c));
    CHECK_OK(ra_candidates_open(dir, &alone, false, &c));
    assert_true(holds(c, 60, "of rank 1", true));
    CHECK_OK(ra_candidates_close(c));

    CHECK_OK(ra_candidates_open(dir, &alone, true, &c)); /* afresh */
    assert_int_equal(ra_candidates_count(c), 0);
    CHECK_OK(ra_candidates_close(c));
    assert_false(ra_file_exists(path));
    check_fails(ra_candidates_open("/proc/nowhere", &alone, false, &c), RA_ERR_IO, "/proc/nowhere", NULL);
    free(path);
    free(dir);
    test_dir_remove(base);
}

/* ---- corrections.h5 ---- */
static ra_corrections two_pairs(void)
{
    ra_corrections c = {
        .n = 2, .row = ra_realloc(NULL, 2, sizeof *c.row), .tokens = 8, .token = ra_realloc(NULL, 8, sizeof *c.token)};
    c.row[0] = (ra_correction_row){.id = 4, .rule = 1, .verdict = 0, .outcome = RA_CORRECTION_REFUSED, .attempts = 4};
    c.row[1] = (ra_correction_row){.id = 9,
                                   .rule = -1,
                                   .verdict = 1,
                                   .probability = 0.75f,
                                   .outcome = RA_CORRECTION_USED,
                                   .attempts = 2,
                                   .prompt_count = 2,
                                   .count = {1, 2, 3},
                                   .skip = {0, 0, 1}};
    for (int i = 0; i < 8; i++) c.token[i] = 100 + i;
    return c;
}

static ra_err write_pairs(const char *dir, const ra_corrections *c)
{
    const ra_corrections_about about = {
        .dir = dir, .source = "model", .corrector = "model x", .depends_on = "line", .key = 0x123456789abcdef0u, .candidates = 6};
    return ra_corrections_write(&about, &alone, c);
}

static void test_file(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_corrections got, want = two_pairs();
    uint64_t key;
    check_fails(ra_corrections_read(dir, &got, &key), RA_ERR_IO, "corrections.h5 is missing", "realign correct", NULL);
    CHECK_OK(write_pairs(dir, &want));
    CHECK_OK(ra_corrections_read(dir, &got, &key));
    assert_true(key == 0x123456789abcdef0u);
    assert_int_equal(got.n, 2);
    assert_int_equal(got.tokens, 8);
    assert_memory_equal(got.token, want.token, 8 * sizeof *got.token);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(got.row[i].id, want.row[i].id);
        assert_int_equal(got.row[i].outcome, want.row[i].outcome);
        assert_int_equal(got.row[i].attempts, want.row[i].attempts);
        assert_int_equal(got.row[i].rule, want.row[i].rule);
        assert_memory_equal(got.row[i].count, want.row[i].count, sizeof want.row[i].count);
        assert_memory_equal(got.row[i].skip, want.row[i].skip, sizeof want.row[i].skip);
        assert_true(got.row[i].probability == want.row[i].probability);
    }
    ra_corrections_free(&got);
    ra_buf why = {0};
    assert_false(ra_corrections_are_current(dir, "line", &why)); /* no corrections.jsonl beside it */
    char *lines = ra_path_join(dir, "corrections.jsonl");
    CHECK_OK(ra_file_write(lines, "{}\n", 3));
    assert_true(ra_corrections_are_current(dir, "line", &why));
    ra_buf_clear(&why);
    assert_false(ra_corrections_are_current(dir, "another", &why));
    assert_non_null(strstr(why.data, "made from line; now it is another"));
    ra_buf_free(&why);
    free(lines);

    static const struct {
        int row, field;
        const char *word;
    } bad[] = {{1, 0, "ascend"}, {1, 2, "negative"}, {1, 3, "ask for 9"}};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        ra_corrections c = two_pairs();
        ra_correction_row *row = &c.row[bad[k].row];
        if (bad[k].field == 0) row->id = 4;
        if (bad[k].field == 2) row->count[1] = -1;
        if (bad[k].field == 3) row->count[1] = 3;
        CHECK_OK(write_pairs(dir, &c));
        check_fails(ra_corrections_read(dir, &got, &key), RA_ERR_FORMAT, "corrections.h5", bad[k].word, NULL);
        ra_corrections_free(&c);
    }
    ra_corrections_free(&want);
    test_dir_remove(dir);
}

/* ---- a correction that melts with the prompt ---- */
static ra_err write_store(const char *dir, const ra_sample *samples, int n)
{
    ra_store_writer *writer;
    RA_TRY(ra_store_create(dir, &alone, &writer));
    RA_TRY(ra_store_add_round(writer, samples, n));
    return ra_store_commit(writer, NULL, 0, NULL);
}

/* The tokenizer joins "1" and "2": under a template without turns, a correction that begins with 2 parts from the prompt one token before y_w and y_l do. */
static void test_melting(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    tinytok_write(dir, &(tinytok){.eos = "h", .bos = NULL});
    ra_tokenizer *t;
    ra_template *tpl;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    CHECK_OK(ra_template_open("plain", t, &tpl));
    const ra_sample_rules rules = {.tpl = tpl, .bos = -1, .max_tokens = 40};
    ra_message turn = {"user", "hello 1"};
    ra_row row[2] = {{.id = 0, .n_prompt = 1, .prompt = &turn, .chosen = "xyz", .rejected = "yz", .prompt_text = turn.content}};
    row[1] = row[0];
    row[1].id = 1;
    ra_job job[2] = {{0}}, remade = {0};
    for (int i = 0; i < 2; i++) {
        ra_job_begin(&job[i], &row[i], RA_ROW_OK);
        ra_job_run(&job[i], &rules);
        assert_int_equal(job[i].sample.state, RA_SAMPLE_OK);
    }
    const ra_sample both[2] = {job[0].sample, job[1].sample};
    CHECK_OK(write_store(dir, both, 2));
    ra_store *store;
    CHECK_OK(ra_store_open(dir, &store));
    row[1].correction = "2 wxyz";
    ra_job_begin(&remade, &row[1], RA_ROW_OK);
    ra_job_run(&remade, &rules);
    assert_int_equal(remade.without_correction, RA_SAMPLE_OK);
    CHECK_OK(ra_store_set_corrections(store, &remade.sample, 1));
    ra_sample a = ra_store_get(store, 0), b = ra_store_get(store, 1);
    assert_int_equal(b.prompt_count, a.prompt_count - 1);
    for (int r = RA_CHOSEN; r <= RA_REJECTED; r++) { /* what the prompt lost stands in the branches, and is not scored */
        assert_int_equal(b.response[r].skip, 1);
        assert_int_equal(b.response[r].count, a.response[r].count + 1);
        assert_int_equal(b.response[r].token[0], '1');
        assert_memory_equal(b.response[r].token + 1, a.response[r].token, (size_t)a.response[r].count * sizeof(int32_t));
    }
    assert_int_equal(b.response[RA_CORRECTION].skip, 1); /* the token that the boundary falls into counts as prompt */
    assert_in_range(b.response[RA_CORRECTION].token[0], 256, 255 + tinytok_merges());
    assert_int_equal(a.response[RA_CORRECTION].count, 0);

    static const int8_t action[2] = {2, 1}; /* retain, punish: the gold pair of the second takes its own y_c */
    ra_gold_pair pair[6];
    int64_t n = ra_gold_draw(store, action, 6, 1, pair);
    assert_int_equal(n, 2);
    assert_int_equal(pair[1].better, RA_CORRECTION);
    assert_int_equal(pair[1].donor, 1);
    int32_t joined[64];
    ra_sample gold = ra_gold_sample(store, &pair[1], joined, 64);
    assert_int_equal(gold.response[RA_CHOSEN].count, b.response[RA_CORRECTION].count);
    assert_ptr_equal(gold.response[RA_REJECTED].token, b.response[RA_CHOSEN].token);

    /* one that leaves no room for itself is left out, with the reason */
    ra_job_end(&remade);
    row[1].correction = "w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w";
    ra_job_begin(&remade, &row[1], RA_ROW_OK);
    ra_job_run(&remade, &rules);
    assert_int_equal(remade.sample.state, RA_SAMPLE_OK);
    assert_int_equal(remade.without_correction, RA_SAMPLE_TOO_LONG);
    assert_int_equal(remade.sample.response[RA_CORRECTION].count, 0);
    assert_int_equal(remade.sample.prompt_count, a.prompt_count);
    ra_job_free(&remade);
    for (int i = 0; i < 2; i++) ra_job_free(&job[i]);
    ra_store_close(store);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
    test_dir_remove(dir);
}

/* ---- rows ---- */
static void test_row_copy(void **state)
{
    (void)state;
    char user[] = "hello", role[] = "user", chosen[] = "a", rejected[] = "b";
    ra_message turn = {role, user};
    json_t *source = json_object();
    ra_row row = {
        .id = 5, .n_prompt = 1, .prompt = &turn, .chosen = chosen, .rejected = rejected, .prompt_text = user, .source = source};
    ra_row *copy = ra_row_copy(&row);
    json_decref(source);
    user[0] = role[0] = chosen[0] = rejected[0] = '?';
    assert_int_equal(copy->id, 5);
    assert_string_equal(copy->prompt[0].role, "user");
    assert_string_equal(copy->prompt[0].content, "hello");
    assert_string_equal(copy->chosen, "a");
    assert_string_equal(copy->rejected, "b");
    assert_string_equal(copy->prompt_text, "hello");
    assert_null(copy->correction);
    assert_null(copy->category);
    assert_true(json_is_object(copy->source));
    ra_row_free(copy);
    ra_row_free(NULL);
}

int main(int argc, char **argv)
{
    ra_comm world; /* for candidates, whose opening is collective */
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instruction), cmocka_unit_test(test_question), cmocka_unit_test(test_clean_answer),
        cmocka_unit_test(test_candidates),  cmocka_unit_test(test_file),     cmocka_unit_test(test_melting),
        cmocka_unit_test(test_row_copy),
    };
    int failures = cmocka_run_group_tests_name("corrections", tests, NULL, NULL);
    ra_comm_finalize();
    return failures;
}
