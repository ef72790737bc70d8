/* Chat templates: the text of each row, the response's tokens, refusals, tokens that must be there, the date. */
#include "../../src/text/template_impl.h"
#include <support/support.h>
#include <support/tinytok.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ADDED[] = "[{\"id\": 300, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 301, \"content\": "
                            "\"<|im_end|>\", \"special\": true}, "
                            "{\"id\": 302, \"content\": \"<|eot_id|>\", \"special\": true}, {\"id\": 303, \"content\": "
                            "\"<|start_header_id|>\", \"special\": true}, "
                            "{\"id\": 304, \"content\": \"<|end_header_id|>\", \"special\": true}, {\"id\": 305, \"content\": "
                            "\"<bos>\", \"special\": true}, "
                            "{\"id\": 306, \"content\": \"<eos>\", \"special\": true}, {\"id\": 307, \"content\": "
                            "\"<start_of_turn>\", \"special\": true}, "
                            "{\"id\": 308, \"content\": \"<end_of_turn>\", \"special\": true}]";
static const char ADD_BOS[] =
    "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\"}}, {\"Sequence\": {\"id\": "
    "\"A\"}}], \"special_tokens\": {\"<bos>\": {\"ids\": [305]}}}";

static ra_tokenizer *open_tiny(const char *post_processor)
{
    char *dir = test_dir_make();
    tinytok_write(dir, &(tinytok){.added = ADDED, .post_processor = post_processor, .bos = "<bos>", .eos = "<eos>"});
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    return t;
}

static void check_text(const char *name, const char *post, const ra_message *m, int n, bool prompt, const char *want,
                       const char *response)
{
    ra_tokenizer *t = open_tiny(post);
    ra_template *tpl;
    CHECK_OK(ra_template_open(name, t, &tpl));
    ra_rendered r = {0};
    CHECK_OK(ra_template_render(tpl, m, n, prompt, &r));
    assert_string_equal(r.text.data, want);
    if (response) {
        ra_buf text = {0};
        assert_true(r.response_start >= 0 && r.response_start <= r.response_end && r.response_end <= r.ids.count);
        CHECK_OK(ra_tokenizer_decode(t, r.ids.id + r.response_start, r.response_end - r.response_start, false, &text));
        assert_string_equal(text.data ? text.data : "", response);
        ra_buf_free(&text);
    } else {
        assert_int_equal(r.response_start, -1);
        assert_int_equal(r.response_end, -1);
    }
    ra_rendered_free(&r);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static const ra_message ASK = {"user", " hello\n"}, ANSWER = {"assistant", "\thello world "}, SYSTEM = {"system", " ab "};

static void test_texts(void **state)
{
    (void)state;
    const ra_message pair[] = {ASK, ANSWER}, three[] = {SYSTEM, ASK, ANSWER}, ask[] = {ASK}, more[] = {ASK, ANSWER, ASK};
    check_text("chatml", NULL, pair, 2, false,
               "<|im_start|>user\n hello\n<|im_end|>\n<|im_start|>assistant\n\thello world <|im_end|>\n",
               "\thello world <|im_end|>");
    check_text("chatml", NULL, ask, 1, true, "<|im_start|>user\n hello\n<|im_end|>\n<|im_start|>assistant\n", NULL);
    check_text("chatml", NULL, more, 3, false,
               "<|im_start|>user\n hello\n<|im_end|>\n<|im_start|>assistant\n\thello world <|im_end|>\n<|im_start|>user\n "
               "hello\n<|im_end|>\n",
               NULL);
    check_text(
        "smollm2", NULL, ask, 1, false,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n "
        "hello\n<|im_end|>\n",
        NULL);
    check_text("smollm2", NULL, three, 3, false,
               "<|im_start|>system\n ab <|im_end|>\n<|im_start|>user\n hello\n<|im_end|>\n<|im_start|>assistant\n\thello world "
               "<|im_end|>\n",
               "\thello world <|im_end|>");
    const ra_message tools[] = {ASK, {"tool", "1"}, {"tool", "2"}};
    check_text(
        "qwen2.5", NULL, tools, 3, true,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\n "
        "hello\n<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</"
        "tool_response><|im_end|>\n"
        "<|im_start|>assistant\n",
        NULL);
#define H(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define DATES "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    check_text("llama3", NULL, pair, 2, false, "<bos>" H("user") "hello<|eot_id|>" H("assistant") "hello world<|eot_id|>",
               "hello world<|eot_id|>");
    check_text("llama3.1", NULL, three, 3, true,
               "<bos>" H("system") DATES
               "ab<|eot_id|>" H("user") "hello<|eot_id|>" H("assistant") "hello world<|eot_id|>" H("assistant"),
               "hello world<|eot_id|>");
    const ra_message json[] = {ASK, {"ipython", "a\"b\n\x01"}};
    check_text("llama3.2", NULL, json, 2, false,
               "<bos>" H("system") DATES "<|eot_id|>" H("user") "hello<|eot_id|>" H("ipython") "\"a\\\"b\\n\\u0001\"<|eot_id|>",
               NULL);
    check_text("plain", NULL, pair, 2, false, " hello\n\thello world <eos>", "\thello world <eos>");
    check_text("plain", ADD_BOS, pair, 2, false, "<bos> hello\n\thello world <eos>", "\thello world <eos>");
    const ra_message own_bos[] = {{"user", "<bos>hello"}};
    check_text("plain", ADD_BOS, own_bos, 1, false, "<bos>hello", NULL); /* not twice */
}

/* What else Jinja makes of ASK and ANSWER, with and without SYSTEM; a post-processor that adds BOS changes nothing. */
static void test_texts_of_other_families(void **state)
{
    (void)state;
    const ra_message pair[] = {ASK, ANSWER}, three[] = {SYSTEM, ASK, ANSWER}, more[] = {ASK, ANSWER, ASK, ANSWER};
    check_text("gemma2", ADD_BOS, more, 4, true,
               "<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\nhello world<end_of_turn>\n"
               "<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\nhello world<end_of_turn>\n<start_of_turn>model\n",
               "hello world<end_of_turn>");
    const ra_message tool[] = {ASK, {"tool", "1 "}, ASK};
    check_text("gemma2", NULL, tool, 3, false,
               "<bos><start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>tool\n1<end_of_turn>\n<start_of_turn>user\nhello<"
               "end_of_turn>\n",
               NULL);
    check_text("llama3-open", ADD_BOS, pair, 2, false,
               "<bos>" H("user") "hello<|eot_id|>" H("assistant") "hello world<|eot_id|>" H("assistant"),
               "hello world<|eot_id|>");
    check_text("qwen-lf", NULL, three, 3, true,
               "<|im_start|>system\n ab <|im_end|>\n<|im_start|>user\n hello\n<|im_end|>\n<|im_start|>assistant\n\thello world "
               "<|im_end|>\n",
               "\thello world <|im_end|>");
    check_text("qwen-lf", NULL, &ASK, 1, false,
               "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n "
               "hello\n<|im_end|>\n<|im_start|>assistant\n",
               NULL);
    check_text("llama2", ADD_BOS, more, 4, true,
               "<bos>[INST] hello [/INST] hello world <eos><bos>[INST] hello [/INST] hello world <eos>", " hello world <eos>");
    check_text("llama2", NULL, three, 3, false, "<bos>[INST] <<SYS>>\n ab \n<</SYS>>\n\n hello [/INST] hello world <eos>",
               " hello world <eos>");
    check_text("mistral", ADD_BOS, pair, 2, false, "<bos>[INST]  hello\n [/INST]\thello world <eos>", "\thello world <eos>");
    check_text("mistral-v1", NULL, three, 3, false, "<bos> [INST]  ab \n\n hello\n [/INST] \thello world <eos>",
               " \thello world <eos>");
    check_text("zephyr", ADD_BOS, three, 3, true,
               "<|system|>\n ab <eos>\n<|user|>\n hello\n<eos>\n<|assistant|>\n\thello world <eos>\n<|assistant|>\n",
               "\thello world <eos>");
    check_text(
        "alpaca", ADD_BOS, pair, 2, false,
        "<bos>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n hello\n\n\n### Response:\n\thello world <eos>\n\n",
        "\thello world <eos>");
    check_text("alpaca", NULL, three, 2, true, " ab \n\n### Instruction:\n hello\n\n\n### Response:\n", NULL);
    const ra_message no_system[] = {{"system", ""}, ASK};
    check_text("alpaca", NULL, no_system, 2, false, "### Instruction:\n hello\n\n\n", NULL);
}

/* White space is what Python's str.strip() takes: no-break and ideographic spaces, line separators and ASCII's four separators, but no zero-width space
 * and no byte order mark. */
static void test_trimming(void **state)
{
    (void)state;
    const ra_message m[] = {{"user", "\xC2\xA0\xE3\x80\x80\x1C\x1F\xC2\x85q\xE2\x80\xA8\xE1\x9A\x80\r\n\v\f"},
                            {"assistant", "\xE2\x80\x8B a \xEF\xBB\xBF"}};
    check_text("gemma2", NULL, m, 2, false,
               "<bos><start_of_turn>user\nq<end_of_turn>\n<start_of_turn>model\n\xE2\x80\x8B a \xEF\xBB\xBF<end_of_turn>\n",
               "\xE2\x80\x8B a \xEF\xBB\xBF<end_of_turn>");
    const ra_message nothing[] = {ASK, {"assistant", " \n\xE2\x80\x83"}};
    check_text("llama3", NULL, nothing, 2, false, "<bos>" H("user") "hello<|eot_id|>" H("assistant") "<|eot_id|>", "<|eot_id|>");
}

static void test_date(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL);
    ra_template *tpl;
    ra_rendered r = {0};
    CHECK_OK(ra_template_open("llama3.2", t, &tpl));
    assert_string_equal(ra_template_date(tpl), "26 Jul 2024");
    check_fails(ra_template_set_date(tpl, "1 Jan\n2031"), RA_ERR_ARG, "template_date", "26 Jul 2024", NULL);
    CHECK_OK(ra_template_set_date(tpl, "1 Jan 2031"));
    CHECK_OK(ra_template_render(tpl, &ASK, 1, false, &r));
    assert_non_null(strstr(r.text.data, "\nToday Date: 1 Jan 2031\n\n<|eot_id|>"));
    ra_template_close(tpl);
    CHECK_OK(ra_template_open("llama3", t, &tpl));
    assert_null(ra_template_date(tpl));
    check_fails(ra_template_set_date(tpl, "1 Jan 2031"), RA_ERR_ARG, "template_date", "llama3", NULL);
    ra_template_close(tpl);
    ra_rendered_free(&r);
    ra_tokenizer_close(t);
}

/* The template's newline and the response's are one token: it counts as template, and the flag says so. */
static void test_boundary_inside_token(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL);
    ra_template *tpl;
    CHECK_OK(ra_template_open("chatml", t, &tpl));
    ra_rendered r = {0};
    const ra_message m[] = {ASK, {"assistant", "\n\nhello"}};
    CHECK_OK(ra_template_render(tpl, m, 2, false, &r));
    assert_true(r.boundary_inside_token);
    assert_int_equal(r.ids.id[r.response_start - 1], 266); /* two newlines */
    assert_int_equal(r.ids.id[r.response_end - 1], 301);
    assert_int_equal(r.response_end - r.response_start, 3);
    const ra_message plain[] = {ASK, {"assistant", "hello"}};
    CHECK_OK(ra_template_render(tpl, plain, 2, false, &r)); /* the same buffers again */
    assert_false(r.boundary_inside_token);
    assert_int_equal(r.response_end - r.response_start, 2);
    const ra_message empty[] = {ASK, {"assistant", ""}};
    CHECK_OK(ra_template_render(tpl, empty, 2, false, &r));
    assert_int_equal(r.response_end - r.response_start, 1); /* the closing token is left */
    ra_rendered_free(&r);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void test_refusals(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL);
    ra_template *tpl;
    ra_rendered r = {0};
    CHECK_OK(ra_template_open("qwen2.5", t, &tpl));
    const ra_message critic[] = {ASK, {"critic", "x"}}, nothing[] = {{"user", NULL}}, bad[] = {{"user", "\xFF"}};
    check_fails(ra_template_render(tpl, critic, 2, false, &r), RA_ERR_DATA, "message 2", "critic", "assistant", NULL);
    check_fails(ra_template_render(tpl, critic, 0, false, &r), RA_ERR_DATA, "message", NULL);
    check_fails(ra_template_render(tpl, nothing, 1, false, &r), RA_ERR_DATA, "message 1", NULL);
    check_fails(ra_template_render(tpl, bad, 1, false, &r), RA_ERR_DATA, "UTF-8", NULL);
    const int32_t *stop;
    assert_int_equal(ra_template_stop_ids(tpl, &stop), 2);
    assert_int_equal(stop[0], 301);
    assert_int_equal(stop[1], 306);
    ra_rendered_free(&r);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void refuses(const ra_tokenizer *t, const char *name, const ra_message *m, int n, const char *number, const char *words)
{
    ra_template *tpl;
    ra_rendered r = {0};
    CHECK_OK(ra_template_open(name, t, &tpl));
    check_fails(ra_template_render(tpl, m, n, false, &r), RA_ERR_DATA, number, words, name, NULL);
    ra_rendered_free(&r);
    ra_template_close(tpl);
}

/* The words that the originals raise; and the roles that they pass by. */
static void test_refused_roles(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL);
    const ra_message system[] = {SYSTEM, ASK, ANSWER}, twice[] = {ASK, ANSWER, ANSWER, ASK}, critic[] = {ASK, {"critic", "x"}};
    refuses(t, "gemma2", system, 3, "message 1", "System role not supported");
    refuses(t, "gemma2", twice, 4, "message 3", "Conversation roles must alternate user/assistant/user/assistant/...");
    refuses(t, "gemma2", &ANSWER, 1, "message 1", "must alternate");
    refuses(t, "llama2", twice, 4, "message 3", "must alternate");
    refuses(t, "llama2", critic, 2, "message 2", "critic");
    refuses(t, "mistral", system, 3, "message 1", "must alternate");
    refuses(t, "mistral", critic, 2, "message 2", "Only user and assistant roles are supported!");
    refuses(t, "mistral-v1", twice, 4, "message 3", "After the optional system message");
    refuses(t, "zephyr", critic, 2, "message 2", "critic");
    refuses(t, "qwen-lf", critic, 2, "message 2", "critic");
    refuses(t, "alpaca", critic, 2, "message 2", "critic");
    refuses(t, "plain", critic, 2, "message 2", "critic");
    ra_tokenizer_close(t);
}

/* A base model's tokenizer: what it would take apart is named, and what can be used instead. */
static void test_missing_tokens(void **state)
{
    (void)state;
    static const char HALF[] = "[{\"id\": 300, \"content\": \"<|im_end|>\", \"special\": true}, {\"id\": 301, \"content\": "
                               "\"<end_of_turn>\", \"special\": true}]";
    char *dir = test_dir_make();
    ra_tokenizer *t;
    ra_template *tpl;
    const int32_t *stop;
    tinytok_write(dir, &(tinytok){.added = HALF});
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    check_fails(ra_template_open("chatml", t, &tpl), RA_ERR_ARG, "chatml", "<|im_start|>", "12 tokens", "plain", "alpaca", NULL);
    check_fails(ra_template_open("gemma2", t, &tpl), RA_ERR_ARG, "gemma2", "<start_of_turn>", "plain", NULL);
    check_fails(ra_template_open("llama3.1", t, &tpl), RA_ERR_ARG, "llama3.1", "<|start_header_id|>", NULL);
    check_fails(ra_template_open("zephyr", t, &tpl), RA_ERR_ARG, "zephyr", "eos_token", NULL);
    check_fails(ra_template_open("llama2", t, &tpl), RA_ERR_ARG, "llama2", "eos_token", NULL);
    CHECK_OK(ra_template_open("plain", t, &tpl)); /* no EOS: nothing closes an answer */
    assert_int_equal(ra_template_stop_ids(tpl, &stop), 0);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void test_rows(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL);
    int32_t n = ra_tokenizer_vocabulary_size(t);
    CHECK_OK(ra_tokenizer_check_rows(t, n, "m"));
    CHECK_OK(ra_tokenizer_check_rows(t, n + 399, "m"));
    check_fails(ra_tokenizer_check_rows(t, n - 1, "models/m"), RA_ERR_DATA, "308", "308 rows", "models/m", NULL);
    ra_tokenizer_close(t);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),         cmocka_unit_test(test_texts_of_other_families), cmocka_unit_test(test_trimming),
        cmocka_unit_test(test_date),          cmocka_unit_test(test_boundary_inside_token),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refused_roles), cmocka_unit_test(test_missing_tokens),          cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests_name("chat templates", tests, NULL, NULL);
}
