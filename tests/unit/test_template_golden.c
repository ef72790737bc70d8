/* The conversations of chat_golden.json: texts, ids and response spans as transformers makes them, and what it refuses. */
#include <support/support.h>
#include <support/tinytok.h>

#include <jansson.h>
#include <realign/tokenizer.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 };

static json_t *load_family(const char *name, json_t **root)
{
    char *path = test_shared_path("data/tokenizers/vectors/chat_golden.json");
    *root = json_load_file(path, 0, NULL);
    free(path);
    assert_non_null(*root);
    json_t *family = json_object_get(json_object_get(*root, "families"), name);
    assert_true(json_array_size(json_object_get(family, "cases")) >= 10);
    return family;
}

static int read_messages(const json_t *item, ra_message *m)
{
    const json_t *list = json_object_get(item, "messages");
    size_t i;
    json_t *value;
    assert_true(json_array_size(list) <= MOST);
    json_array_foreach(list, i, value)
    {
        m[i] =
            (ra_message){json_string_value(json_object_get(value, "role")), json_string_value(json_object_get(value, "content"))};
    }
    return (int)json_array_size(list);
}

/* The text alone, or the refusal; *refused counts. */
static void check_text(const ra_template *tpl, const json_t *item, ra_rendered *r, int *refused)
{
    ra_message m[MOST];
    int n = read_messages(item, m);
    const char *name = json_string_value(json_object_get(item, "name")),
               *error = json_string_value(json_object_get(item, "error"));
    ra_err err = ra_template_render(tpl, m, n, json_is_true(json_object_get(item, "add_generation_prompt")), r);
    if (error) {
        check_fails(err, RA_ERR_DATA, error, NULL);
        ++*refused;
        return;
    }
    check_ok(err, name);
    if (strcmp(r->text.data, json_string_value(json_object_get(item, "text"))) != 0) fail_msg("%s: another text", name);
}

static int64_t integer_or(const json_t *item, const char *key, int64_t otherwise)
{
    const json_t *value = json_object_get(item, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

/* A token across the boundary counts as template. */
static void check_ids(const json_t *item, const ra_rendered *r)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *want = json_object_get(item, "ids");
    bool same = (size_t)r->ids.count == json_array_size(want);
    for (size_t i = 0; same && i < json_array_size(want); i++) same = r->ids.id[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: other ids", name);
    int64_t start = integer_or(item, "response_token_start", -1), end = integer_or(item, "response_token_end", -1),
            across = integer_or(item, "straddling_token", -1);
    if (r->response_start != start || r->response_end != end || r->boundary_inside_token != (across >= 0)) {
        fail_msg("%s: response at tokens %lld to %lld, not %lld to %lld", name, (long long)r->response_start,
                 (long long)r->response_end, (long long)start, (long long)end);
    }
    if (across >= 0) assert_int_equal(across, start - 1);
}

/* ids and spans, with the family's tokenizer and the template it carries. */
static void check_family(const char *name, int refusals)
{
    json_t *root, *family = load_family(name, &root), *item;
    char *relative = ra_format("data/%s", json_string_value(json_object_get(family, "tokenizer"))),
         *path = test_shared_path(relative);
    ra_tokenizer *t;
    ra_template *tpl;
    ra_rendered r = {0};
    const int32_t *stop;
    size_t i;
    int refused = 0;
    CHECK_OK(ra_tokenizer_open(path, &t));
    CHECK_OK(ra_template_open("auto", t, &tpl));
    assert_string_equal(ra_template_name(tpl), name);
    assert_true(ra_template_stop_ids(tpl, &stop) >= 1);
    assert_int_equal(stop[0], json_integer_value(json_object_get(family, "end_of_turn_id")));
    json_array_foreach(json_object_get(family, "cases"), i, item)
    {
        check_text(tpl, item, &r, &refused);
        if (!json_object_get(item, "error")) check_ids(item, &r);
    }
    assert_int_equal(refused, refusals);
    ra_rendered_free(&r);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
    json_decref(root);
    free(path), free(relative);
}

static void test_qwen25(void **state)
{
    (void)state;
    check_family("qwen2.5", 0);
}

static void test_llama31(void **state)
{
    (void)state;
    check_family("llama3.1", 0);
}

static void test_gemma2(void **state)
{
    (void)state;
    check_family("gemma2", 2);
}

/* Texts and refusals need no vocabulary: here with a small one that has the family's special tokens. */
static void check_texts(const char *name, const char *added, const char *bos, int refusals)
{
    json_t *root, *family = load_family(name, &root), *item;
    char *dir = test_dir_make();
    ra_tokenizer *t;
    ra_template *tpl;
    ra_rendered r = {0};
    size_t i;
    int refused = 0;
    tinytok_write(dir, &(tinytok){.added = added, .bos = bos});
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    CHECK_OK(ra_template_open(name, t, &tpl));
    json_array_foreach(json_object_get(family, "cases"), i, item) check_text(tpl, item, &r, &refused);
    assert_int_equal(refused, refusals);
    ra_rendered_free(&r);
    ra_template_close(tpl);
    ra_tokenizer_close(t);
    json_decref(root);
}

#define TOKEN(id, text) "{\"id\": " #id ", \"content\": \"" text "\", \"special\": true}"

static void test_texts(void **state)
{
    (void)state;
    check_texts("qwen2.5", "[" TOKEN(300, "<|im_start|>") ", " TOKEN(301, "<|im_end|>") "]", NULL, 0);
    check_texts("llama3.1",
                "[" TOKEN(300, "<|start_header_id|>") ", " TOKEN(301, "<|end_header_id|>") ", " TOKEN(
                    302, "<|eot_id|>") ", " TOKEN(303, "<|begin_of_text|>") "]",
                "<|begin_of_text|>", 0);
    check_texts("gemma2", "[" TOKEN(300, "<start_of_turn>") ", " TOKEN(301, "<end_of_turn>") ", " TOKEN(302, "<bos>") "]",
                "<bos>", 2);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_qwen25),
        cmocka_unit_test(test_llama31),
        cmocka_unit_test(test_gemma2),
    };
    return cmocka_run_group_tests_name("golden conversations", tests, NULL, NULL);
}
