/* METHOD section 8, traps 1 and 2, on random rows through real templates: prompt and branch are, id by id, the whole rendering up to the response's end; a
 * prompt that is to be answered has the ids that training saw; responses that trimming empties are counted. */
#include "../../src/stage/prepare_sample.h"
#include "../../src/text/template_impl.h"
#include "../../src/text/unicode.h"
#include <support/support.h>
#include <support/tinytok.h>

#include <realign/rng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SEED = 11;

#define TOKEN(id, text) "{\"id\": " #id ", \"content\": \"" text "\", \"special\": true}"
static const char ADDED[] = "[" TOKEN(300, "<|im_start|>") ", " TOKEN(301, "<|im_end|>") ", " TOKEN(302, "<|eot_id|>") ", " TOKEN(
    303,
    "<|start_header_"
    "id|>") ", " TOKEN(304,
                       "<|end_header_id|>") ", " TOKEN(305,
                                                       "<bos>") ", " TOKEN(306,
                                                                           "<eos>") ", " TOKEN(307,
                                                                                               "<start_of_turn>") ", " TOKEN(308,
                                                                                                                             "<en"
                                                                                                                             "d_"
                                                                                                                             "of_"
                                                                                                                             "tur"
                                                                                                                             "n>") "]";

/* White space of every kind before, after and in the middle; merges of tinytok; text of special tokens; digits and contractions. */
static void random_text(ra_rng *rng, ra_buf *out)
{
    static const char *const BITS[] = {"hello",
                                       " world",
                                       "\n",
                                       "\n\n",
                                       " ",
                                       "  ",
                                       "\t",
                                       "\xC2\xA0",
                                       "\xE3\x80\x80",
                                       "\xE2\x80\xA8",
                                       "\r\n",
                                       "ab",
                                       "12",
                                       "345",
                                       "'s",
                                       "I'",
                                       "m",
                                       ".",
                                       "\xC3\xA9",
                                       "e\xCC\x81",
                                       "\xF0\x9F\x98\x80",
                                       "\xE2\x80\x8B",
                                       "<|im_end|>",
                                       "<end_of_turn>",
                                       "<|eot_id|>",
                                       "<eos>",
                                       "{{ x }}",
                                       "!",
                                       "aabba",
                                       "\x1F"};
    ra_buf_adds(out, "");
    for (int n = (int)ra_rng_below(rng, 7); n > 0; n--) ra_buf_adds(out, BITS[ra_rng_below(rng, sizeof BITS / sizeof *BITS)]);
}

typedef struct {
    const ra_template *tpl;
    ra_sample_rules rules;
    bool own; /* template and tokenizer belong together */
    int64_t ok, empty, inside, parted;
} tally;

/* Prompt and branch of one response against its rendering. */
static void check_branch(const ra_job *job, int role)
{
    const ra_rendered *whole = &job->rendered[role];
    const ra_sample *s = &job->sample;
    assert_int_equal(s->prompt_count + s->response[role].count, whole->response_end);
    assert_int_equal(s->prompt_count + s->response[role].skip, whole->response_start);
    assert_memory_equal(s->prompt, whole->ids.id, (size_t)s->prompt_count * sizeof(int32_t));
    assert_memory_equal(s->response[role].token, whole->ids.id + s->prompt_count,
                        (size_t)s->response[role].count * sizeof(int32_t));
    assert_true(s->response[role].skip < s->response[role].count);
}

/* The same conversation to be answered: where no token lies across the boundary, the ids are those before the response. (Not with any pre-tokenizer: GPT-2's
 * takes two newlines apart before a word, and not at the end of a text.) */
static void check_generation_prompt(tally *t, const ra_job *job, int role)
{
    const ra_rendered *whole = &job->rendered[role];
    ra_rendered open = {0};
    CHECK_OK(ra_template_render(t->tpl, job->message, job->n_prompt, true, &open));
    if (!whole->boundary_inside_token) {
        assert_int_equal(open.ids.count, whole->response_start);
        assert_memory_equal(open.ids.id, whole->ids.id, (size_t)open.ids.count * sizeof(int32_t));
    }
    ra_rendered_free(&open);
}

static bool is_blank(const ra_template *tpl, const char *text)
{
    size_t begin = 0, end = strlen(text);
    if (tpl->row->trims) ra_utf8_strip(text, end, &begin, &end);
    return begin == end;
}

static void one_row(tally *t, ra_rng *rng, int64_t id, ra_job *job)
{
    ra_buf text[6] = {0};
    for (int i = 0; i < 6; i++) random_text(rng, &text[i]);
    ra_message prompt[] = {{"user", text[0].data}, {"assistant", text[1].data}, {"user", text[2].data}};
    int first = ra_rng_below(rng, 2) ? 0 : 2;
    ra_row row = {.id = id,
                  .n_prompt = 3 - first,
                  .prompt = prompt + first,
                  .chosen = text[3].data,
                  .rejected = text[4].data,
                  .correction = ra_rng_below(rng, 2) ? text[5].data : NULL};
    ra_job_begin(job, &row, RA_ROW_OK);
    ra_job_run(job, &t->rules);
    check_ok(job->err, job->why);
    bool blank = is_blank(t->tpl, row.chosen) || is_blank(t->tpl, row.rejected),
         no_correction = row.correction && is_blank(t->tpl, row.correction);
    if (job->sample.state == RA_SAMPLE_OK) {
        assert_false(blank);
        t->ok++;
        /* a blank correction costs itself alone; trimmed ones are lost in no other way */
        if (no_correction) assert_int_equal(job->without_correction, RA_SAMPLE_EMPTY);
        if (t->tpl->row->trims && !no_correction) assert_int_equal(job->without_correction, RA_SAMPLE_OK);
        for (int r = 0; r < RA_ROLES; r++) {
            if (!job->response[r] || (r == RA_CORRECTION && job->without_correction != RA_SAMPLE_OK)) continue;
            check_branch(job, r);
            if (t->own) check_generation_prompt(t, job, r);
            t->inside += job->rendered[r].boundary_inside_token;
            t->parted += job->sample.response[r].skip > 0;
        }
    } else {
        /* What is not blank can still melt into the prompt's last token; trimmed responses cannot. */
        assert_int_equal(job->sample.state, RA_SAMPLE_EMPTY);
        if (t->tpl->row->trims && !blank) fail_msg("row %lld: empty, though none of its responses is blank", (long long)id);
        t->empty++;
    }
    ra_job_end(job);
    for (int i = 0; i < 6; i++) ra_buf_free(&text[i]);
}

static tally many_rows(const ra_template *tpl, const ra_tokenizer *t, bool own, int64_t rows)
{
    tally sums = {.tpl = tpl,
                  .own = own,
                  .rules = {.tpl = tpl, .bos = ra_tokenizer_bos(t), .max_tokens = 100000, .truncate = RA_TRUNCATE_DROP}};
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    ra_job job = {0};
    for (int64_t i = 0; i < rows; i++) one_row(&sums, &rng, i, &job);
    ra_job_free(&job);
    print_message("# %s: seed %llu, %lld rows: %lld samples, %lld empty, %lld boundaries inside a token, %lld branches that "
                  "begin with prompt tokens\n",
                  ra_template_name(tpl), (unsigned long long)SEED, (long long)rows, (long long)sums.ok, (long long)sums.empty,
                  (long long)sums.inside, (long long)sums.parted);
    assert_true(sums.ok > rows / 4 && sums.empty > rows / 100);
    return sums;
}

static void test_every_template(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_tokenizer *t;
    tinytok_write(dir, &(tinytok){.added = ADDED, .bos = "<bos>", .eos = "<eos>"});
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    for (int i = 0; i < RA_TEMPLATE_ROW_COUNT; i++) {
        ra_template *tpl;
        if (!strcmp(RA_TEMPLATE_ROWS[i].name, "plain")) continue; /* an empty prompt leaves nothing: below */
        CHECK_OK(ra_template_open(RA_TEMPLATE_ROWS[i].name, t, &tpl));
        tally sums = many_rows(tpl, t, false, 400);
        /* Trimmed contents cannot melt with the newline before them. */
        if (RA_TEMPLATE_ROWS[i].trims) assert_int_equal(sums.inside, 0);
        if (!strcmp(RA_TEMPLATE_ROWS[i].name, "chatml")) assert_true(sums.inside > 0 && sums.parted > 0);
        ra_template_close(tpl);
    }
    ra_tokenizer_close(t);
}

static void with_family(const char *relative, const char *name)
{
    char *path = test_shared_path(relative);
    ra_tokenizer *t;
    ra_template *tpl;
    ra_err err = ra_tokenizer_open(path, &t);
    free(path);
    CHECK_OK(err);
    CHECK_OK(ra_template_open("auto", t, &tpl));
    assert_string_equal(ra_template_name(tpl), name);
    tally sums = many_rows(tpl, t, true, 400);
    if (tpl->row->trims) assert_int_equal(sums.inside + sums.parted, 0);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void test_qwen25(void **state)
{
    (void)state;
    with_family("data/tokenizers/qwen2.5", "qwen2.5");
}

static void test_llama31(void **state)
{
    (void)state;
    with_family("data/tokenizers/llama3.1", "llama3.1");
}

static void test_gemma2(void **state)
{
    (void)state;
    with_family("data/tokenizers/gemma2.hf", "gemma2");
}

/* A row that the template refuses is skipped, with the template's words; one whose response is white space is empty. */
static void test_states(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_tokenizer *t;
    ra_template *tpl;
    tinytok_write(dir, &(tinytok){.added = ADDED, .bos = "<bos>", .eos = "<eos>"});
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    static const struct {
        const char *name, *rejected;
        bool system;
        ra_sample_state want;
        const char *why;
    } CASES[] = {{"gemma2", "no", true, RA_SAMPLE_SKIPPED, "System role not supported"},
                 {"gemma2", " \n\xE3\x80\x80", false, RA_SAMPLE_EMPTY, "rejected"},
                 {"llama3.1", "\n", true, RA_SAMPLE_EMPTY, "rejected"},
                 {"llama2", " \t ", false, RA_SAMPLE_EMPTY, "rejected"},
                 {"chatml", "  ", true, RA_SAMPLE_OK, ""},
                 {"chatml", "\n", true, RA_SAMPLE_EMPTY, "rejected"}, /* one token with the template's newline */
                 {"plain", "no", true, RA_SAMPLE_OK, ""}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        CHECK_OK(ra_template_open(CASES[i].name, t, &tpl));
        ra_sample_rules rules = {.tpl = tpl, .bos = -1, .max_tokens = 1000, .truncate = RA_TRUNCATE_DROP};
        ra_message prompt[] = {{"system", "Be kind."}, {"user", "hello"}};
        int first = CASES[i].system ? 0 : 1;
        ra_row row = {.n_prompt = 2 - first, .prompt = prompt + first, .chosen = "yes", .rejected = CASES[i].rejected};
        ra_job job = {0};
        ra_job_begin(&job, &row, RA_ROW_OK);
        ra_job_run(&job, &rules);
        assert_int_equal(job.err, RA_OK);
        if (job.sample.state != CASES[i].want)
            fail_msg("case %zu (%s): state %d: %s", i, CASES[i].name, (int)job.sample.state, job.why);
        assert_non_null(strstr(job.why, CASES[i].why));
        ra_job_end(&job);
        ra_job_free(&job);
        ra_template_close(tpl);
    }
    ra_tokenizer_close(t);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_template), cmocka_unit_test(test_states), cmocka_unit_test(test_qwen25),
        cmocka_unit_test(test_llama31),        cmocka_unit_test(test_gemma2),
    };
    return cmocka_run_group_tests_name("samples from templates", tests, NULL, NULL);
}
