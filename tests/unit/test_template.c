/* Chat templates: the text of each row, recognition by the Jinja text, the response's tokens, refusals; and the
 * conversations of the shared folder. */
#include "../../src/text/template_impl.h"
#include <support/support.h>
#include <support/tinytok.h>

#include <jansson.h>
#include <realign/file.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHATML_LOOP                                                                                            \
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if " \
    "add_generation_prompt %}"                                                                                 \
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
#define WITH_SYSTEM(text)                                                                                               \
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" text \
    "<|im_end|>\n' }}{% endif %}" CHATML_LOOP
static const char CHATML[] = "{% for message in messages %}" CHATML_LOOP;
static const char SMOLLM2[] = WITH_SYSTEM("You are a helpful AI assistant named SmolLM, trained by Hugging Face");

static const char ADDED[] = "[{\"id\": 300, \"content\": \"<|im_start|>\", \"special\": true}, {\"id\": 301, \"content\": "
                            "\"<|im_end|>\", \"special\": true}, "
                            "{\"id\": 302, \"content\": \"<|eot_id|>\", \"special\": true}, {\"id\": 303, \"content\": "
                            "\"<|start_header_id|>\", \"special\": true}, "
                            "{\"id\": 304, \"content\": \"<|end_header_id|>\", \"special\": true}, {\"id\": 305, \"content\": "
                            "\"<bos>\", \"special\": true}, "
                            "{\"id\": 306, \"content\": \"<eos>\", \"special\": true}]";
static const char ADD_BOS[] =
    "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<bos>\"}}, {\"Sequence\": {\"id\": "
    "\"A\"}}], \"special_tokens\": {\"<bos>\": {\"ids\": [305]}}}";

static ra_tokenizer *open_tiny(const char *jinja, const char *post_processor)
{
    char *dir = test_dir_make();
    tinytok_write(
        dir,
        &(tinytok){.added = ADDED, .post_processor = post_processor, .chat_template = jinja, .bos = "<bos>", .eos = "<eos>"});
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    return t;
}

static const char *auto_name(const char *jinja, char **system)
{
    ra_tokenizer *t = open_tiny(jinja, NULL);
    ra_template *tpl;
    CHECK_OK(ra_template_open("auto", t, &tpl));
    const ra_template_row *row = ra_template_row_find(ra_template_name(tpl));
    if (system) *system = tpl->system ? ra_strdup(tpl->system) : NULL;
    ra_template_close(tpl);
    ra_tokenizer_close(t);
    return row->name;
}

static void not_recognised(const char *jinja)
{
    ra_tokenizer *t = open_tiny(jinja, NULL);
    ra_template *tpl;
    check_fails(ra_template_open("auto", t, &tpl), RA_ERR_UNSUPPORTED, "template:", "chatml", "llama3.1", "plain", NULL);
    assert_null(tpl);
    ra_tokenizer_close(t);
}

static void test_recognition(void **state)
{
    (void)state;
    assert_string_equal(auto_name(CHATML, NULL), "chatml");
    assert_string_equal(auto_name(SMOLLM2, NULL), "smollm2");
    assert_string_equal(auto_name(WITH_SYSTEM("You are a helpful assistant."), NULL), "qwen2");
    char *system;
    assert_string_equal(auto_name(WITH_SYSTEM("It\\'s a\\nshort one."), &system), "chatml");
    assert_string_equal(system, "It's a\nshort one.");
    free(system);
    /* white space, quotes, subscripts, comments and the escape for a newline do not matter */
    assert_string_equal(
        auto_name("{#- a comment -#}\n{%- for message in messages -%}\n    {{- \"<|im_start|>\" + message.role + '\\n' +\n"
                  "       message.content + '<|im_end|>' + '\\n' }}\n{%- endfor -%}\n{%- if add_generation_prompt %}\n"
                  "    {{- '<|im_start|>assistant\\n' }}\n{%- endif -%}\n",
                  NULL),
        "chatml");
    /* what shows does */
    not_recognised("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                   "'<|im_end|>'}}{% endfor %}");
    not_recognised("{% for message in messages %} {{'x'}}" CHATML_LOOP);
    not_recognised("text {% for message in messages %}" CHATML_LOOP);
    not_recognised("{{'x'}}\n{% for message in messages %}" CHATML_LOOP);
    not_recognised(
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\n{% "
        "endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"); /* a newline after a value is rendered */
    not_recognised("{% for message in messages %}  " CHATML_LOOP);
    assert_string_equal(auto_name("{% for message in messages %}\n" CHATML_LOOP "\n", NULL),
                        "chatml"); /* after a block it is not */
    not_recognised("{{");
    not_recognised("{% '");
    not_recognised("");
    ra_tokenizer *t = open_tiny(NULL, NULL);
    ra_template *tpl;
    check_fails(ra_template_open("auto", t, &tpl), RA_ERR_UNSUPPORTED, "no chat template", "template:", "plain", NULL);
    check_fails(ra_template_open("chatlm", t, &tpl), RA_ERR_ARG, "chatlm", "chatml", NULL);
    ra_tokenizer_close(t);
}

static void check_text(const char *name, const char *post, const ra_message *m, int n, bool prompt, const char *want,
                       const char *response)
{
    ra_tokenizer *t = open_tiny(NULL, post);
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

/* The template's newline and the response's are one token: it counts as template, and the flag says so. */
static void test_boundary_inside_token(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(NULL, NULL);
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
    ra_tokenizer *t = open_tiny(NULL, NULL);
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
    char *dir = test_dir_make();
    tinytok_write(dir, &(tinytok){0});
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    check_fails(ra_template_open("chatml", t, &tpl), RA_ERR_ARG, "chatml", "<|im_end|>", NULL);
    CHECK_OK(ra_template_open("plain", t, &tpl)); /* no EOS: nothing closes an answer */
    assert_int_equal(ra_template_stop_ids(tpl, &stop), 0);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
}

static void golden_case(const ra_template *tpl, const json_t *item, const char *family)
{
    const json_t *list = json_object_get(item, "messages"), *want = json_object_get(item, "ids");
    const char *name = json_string_value(json_object_get(item, "name"));
    ra_message m[32];
    size_t n = json_array_size(list), i;
    json_t *value;
    assert_true(n <= 32);
    json_array_foreach(list, i, value)
    {
        m[i] =
            (ra_message){json_string_value(json_object_get(value, "role")), json_string_value(json_object_get(value, "content"))};
    }
    ra_rendered r = {0};
    CHECK_OK(ra_template_render(tpl, m, (int)n, json_is_true(json_object_get(item, "add_generation_prompt")), &r));
    if (strcmp(r.text.data, json_string_value(json_object_get(item, "text"))) != 0)
        fail_msg("%s, %s: another text", family, name);
    bool same = (size_t)r.ids.count == json_array_size(want);
    json_array_foreach(want, i, value) same = same && r.ids.id[i] == json_integer_value(value);
    if (!same) fail_msg("%s, %s: other ids", family, name);
    /* A token across the boundary counts as template. */
    const json_t *start = json_object_get(item, "response_token_start"), *across = json_object_get(item, "straddling_token");
    bool inside = json_is_integer(across);
    int64_t first = start ? json_integer_value(start) : -1;
    int64_t end = start ? json_integer_value(json_object_get(item, "response_token_end")) : -1;
    if (r.response_start != first || r.response_end != end || r.boundary_inside_token != inside) {
        fail_msg("%s, %s: response at tokens %lld to %lld, not %lld to %lld", family, name, (long long)r.response_start,
                 (long long)r.response_end, (long long)first, (long long)end);
    }
    ra_rendered_free(&r);
}

static void test_golden_conversations(void **state)
{
    (void)state;
    char *path = test_shared_path("data/tokenizers/vectors/chat_golden.json");
    json_t *root = json_load_file(path, 0, NULL);
    free(path);
    assert_non_null(root);
    static const char *const FAMILIES[] = {"qwen2.5", "llama3.1"};
    for (int f = 0; f < 2; f++) {
        const json_t *family = json_object_get(json_object_get(root, "families"), FAMILIES[f]);
        char *relative = ra_format("data/%s", json_string_value(json_object_get(family, "tokenizer")));
        path = test_shared_path(relative);
        ra_tokenizer *t;
        ra_template *tpl;
        CHECK_OK(ra_tokenizer_open(path, &t));
        CHECK_OK(ra_template_open("auto", t, &tpl));
        assert_string_equal(ra_template_name(tpl), FAMILIES[f]);
        const int32_t *stop;
        assert_true(ra_template_stop_ids(tpl, &stop) >= 1);
        assert_int_equal(stop[0], json_integer_value(json_object_get(family, "end_of_turn_id")));
        size_t i;
        json_t *item;
        json_array_foreach(json_object_get(family, "cases"), i, item) golden_case(tpl, item, FAMILIES[f]);
        assert_true(i >= 10);
        ra_template_close(tpl);
        ra_tokenizer_close(t);
        free(path), free(relative);
    }
    json_decref(root);
}

static void test_shared_templates(void **state)
{
    (void)state;
    static const struct {
        const char *file, *row;
    } FILES[] = {{"Qwen-Qwen2.5-7B-Instruct", "qwen2.5"},
                 {"meta-llama-Llama-3.1-8B-Instruct", "llama3.1"},
                 {"meta-llama-Llama-3.2-3B-Instruct", "llama3.2"},
                 {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", NULL}};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        char *relative = ra_format("data/tokenizers/templates/%s.jinja", FILES[i].file), *path = test_shared_path(relative),
             *system;
        ra_buf text = {0};
        CHECK_OK(ra_file_read(path, &text));
        uint64_t fingerprint;
        const ra_template_row *row = ra_template_recognise(text.data, &fingerprint, &system);
        assert_true(FILES[i].row ? row && !strcmp(row->name, FILES[i].row) : !row);
        ra_buf_free(&text);
        free(relative), free(path), free(system);
    }
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recognition),           cmocka_unit_test(test_texts),
        cmocka_unit_test(test_boundary_inside_token), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_golden_conversations),  cmocka_unit_test(test_shared_templates),
    };
    return cmocka_run_group_tests_name("chat templates", tests, NULL, NULL);
}
