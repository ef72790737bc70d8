/* Token ids of the real tokenizers against the vectors of the shared folder: SmolLM2 (from tokenizer.json and from GGUF),
 * Qwen2.5, Llama-3.1. */
#include <support/modelmake.h>
#include <support/support.h>

#include <jansson.h>
#include <realign/file.h>
#include <realign/tokenizer.h>
#include <stdlib.h>
#include <string.h>

static ra_tokenizer *open_shared(const char *relative)
{
    char *path = test_shared_path(relative);
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(path, &t));
    free(path);
    return t;
}

static json_t *load_shared(const char *relative)
{
    char *path = test_shared_path(relative);
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root) fail_msg("%s: %s", path, error.text);
    free(path);
    return root;
}

/* `what` names the case; the text is never printed. */
static void check_ids(const ra_tokenizer *t, const char *text, size_t n, const json_t *want, int flags, const char *what)
{
    ra_ids got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, n, flags, &got));
    for (size_t i = 0; i < json_array_size(want) || (int64_t)i < got.count; i++) {
        int64_t w = i < json_array_size(want) ? json_integer_value(json_array_get(want, i)) : -1;
        int64_t g = (int64_t)i < got.count ? got.id[i] : -1;
        if (w != g) fail_msg("%s: id %zu is %lld, not %lld", what, i, (long long)g, (long long)w);
    }
    ra_ids_free(&got);
}

static void check_decoded(const ra_tokenizer *t, const json_t *ids, bool skip_special, const char *want, const char *what)
{
    int32_t *id = calloc(json_array_size(ids) + 1, sizeof *id);
    for (size_t i = 0; i < json_array_size(ids); i++) id[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    ra_buf text = {0};
    CHECK_OK(ra_tokenizer_decode(t, id, (int64_t)json_array_size(ids), skip_special, &text));
    if (strcmp(text.data ? text.data : "", want) != 0) fail_msg("%s: the ids decode to another text", what);
    ra_buf_free(&text);
    free(id);
}

static void smollm2_goldens(const ra_tokenizer *t)
{
    json_t *golden = load_shared("data/models/smollm2/golden.json");
    size_t i;
    json_t *item;
    char what[64];
    json_array_foreach(json_object_get(golden, "texts"), i, item)
    {
        snprintf(what, sizeof what, "texts[%zu]", i);
        const json_t *text = json_object_get(item, "text");
        check_ids(t, json_string_value(text), json_string_length(text), json_object_get(item, "ids"), 0, what);
        check_ids(t, json_string_value(text), json_string_length(text), json_object_get(item, "ids"), RA_ENCODE_ADD_SPECIAL,
                  what);
    }
    json_array_foreach(json_object_get(golden, "continuations"), i, item)
    {
        snprintf(what, sizeof what, "continuations[%zu]", i);
        const json_t *text = json_object_get(item, "prompt_text");
        check_ids(t, json_string_value(text), json_string_length(text), json_object_get(item, "prompt_ids"), 0, what);
        const json_t *ids = json_object_get(item, "continuation_ids");
        check_decoded(t, ids, false, json_string_value(json_object_get(item, "continuation_text")), what);
    }
    assert_int_equal(i, 5);
    json_decref(golden);
}

static void test_smollm2_json(void **state)
{
    (void)state;
    ra_tokenizer *t = open_shared("data/models/smollm2");
    smollm2_goldens(t);
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 49152);
    assert_int_equal(ra_tokenizer_bos(t), 1);
    assert_int_equal(ra_tokenizer_eos(t), 2);
    ra_tokenizer_close(t);
}

static void test_smollm2_gguf(void **state)
{
    (void)state;
    char *path = test_demo_gguf();
    if (!path) skip();
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(path, &t));
    free(path);
    smollm2_goldens(t);
    ra_tokenizer *other = open_shared("data/models/smollm2");
    assert_string_equal(ra_tokenizer_chat_template(t), ra_tokenizer_chat_template(other));
    assert_int_equal(ra_tokenizer_bos(t), ra_tokenizer_bos(other));
    assert_int_equal(ra_tokenizer_eos(t), ra_tokenizer_eos(other));
    assert_true(ra_tokenizer_hash(t) == ra_tokenizer_hash(other)); /* the same ids for every text */
    ra_tokenizer_close(t);
    ra_tokenizer_close(other);
}

static void derived(const ra_tokenizer *t, const char *relative, const char *text_key, const char *ids_key)
{
    json_t *root = load_shared(relative);
    size_t i;
    json_t *item;
    char what[64];
    json_array_foreach(json_object_get(root, "cases"), i, item)
    {
        snprintf(what, sizeof what, "cases[%zu]", i);
        const json_t *text = json_object_get(item, text_key), *ids = json_object_get(item, ids_key);
        check_ids(t, json_string_value(text), json_string_length(text), ids, RA_ENCODE_PLAIN, what);
        check_decoded(t, ids, false, json_string_value(text), what);
    }
    assert_true(i > 100);
    json_decref(root);
}

/* .inp: texts with a separator between; .out: a line of ids each. */
static void llama_cpp(const ra_tokenizer *t, const char *relative)
{
    static const char SEPARATOR[] = "\n__ggml_vocab_test__\n";
    char *inp = ra_format("%s.inp", relative), *out = ra_format("%s.out", relative);
    char *inp_path = test_shared_path(inp), *out_path = test_shared_path(out);
    ra_buf texts = {0}, lines = {0};
    CHECK_OK(ra_file_read(inp_path, &texts));
    CHECK_OK(ra_file_read(out_path, &lines));
    char *text = texts.data, *line = lines.data;
    int n = 0;
    while (text && *line) {
        char *end = strstr(text, SEPARATOR), *stop = strchr(line, '\n'), what[64];
        if (!stop) stop = line + strlen(line);
        json_t *want = json_array();
        for (char *p = line, *after; strtol(p, &after, 10), after > p && after <= stop; p = after) {
            json_array_append_new(want, json_integer(strtol(p, NULL, 10)));
        }
        snprintf(what, sizeof what, "%s, text %d", relative + 27, n++);
        check_ids(t, text, end ? (size_t)(end - text) : strlen(text), want, 0, what);
        json_decref(want);
        text = end ? end + sizeof SEPARATOR - 1 : NULL;
        line = *stop ? stop + 1 : stop;
    }
    assert_true(!text || !*text); /* the file may end with a separator */
    assert_true(n > 40);
    ra_buf_free(&texts);
    ra_buf_free(&lines);
    free(inp), free(out), free(inp_path), free(out_path);
}

static void swift(const ra_tokenizer *t, const char *name)
{
    json_t *root = load_shared("data/tokenizers/vectors/swift-transformers/tokenizer_tests.json");
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, name), i, item)
    {
        const json_t *text = json_object_get(item, "input"),
                     *ids = json_object_get(json_object_get(item, "encoded"), "input_ids");
        char what[96];
        snprintf(what, sizeof what, "%s[%zu]", name, i);
        check_ids(t, json_string_value(text), json_string_length(text), ids, RA_ENCODE_ADD_SPECIAL, what);
        /* Their "decoded" went through transformers' clean_up_tokenization_spaces; ours is the text itself. */
        check_decoded(t, ids, true, json_string_value(text), what);
    }
    assert_true(i > 10);
    json_decref(root);
}

static void test_qwen25(void **state)
{
    (void)state;
    ra_tokenizer *t = open_shared("data/tokenizers/qwen2.5");
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 151665);
    derived(t, "data/tokenizers/vectors/derived/qwen2_A.json", "text", "ids");
    llama_cpp(t, "data/tokenizers/vectors/llama.cpp/ggml-vocab-qwen2.gguf");
    assert_int_equal(ra_tokenizer_bos(t), -1);
    assert_int_equal(ra_tokenizer_eos(t), 151645);
    ra_tokenizer_close(t);
}

static void test_llama31(void **state)
{
    (void)state;
    ra_tokenizer *t = open_shared("data/tokenizers/llama3.1");
    derived(t, "data/tokenizers/vectors/derived/llama3_A.json", "text", "ids");
    llama_cpp(t, "data/tokenizers/vectors/llama.cpp/ggml-vocab-llama-bpe.gguf");
    swift(t, "pcuenq/Llama-3.2-1B-Instruct-tokenizer");
    assert_int_equal(ra_tokenizer_bos(t), 128000);
    assert_int_equal(ra_tokenizer_eos(t), 128009);
    ra_tokenizer_close(t);
}

static void test_gemma2(void **state)
{
    (void)state;
    ra_tokenizer *t = open_shared("data/tokenizers/gemma2.hf");
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 256000);
    derived(t, "data/tokenizers/vectors/derived/gemma2_A.json", "text", "ids");
    swift(t, "pcuenq/gemma-tokenizer");
    assert_int_equal(ra_tokenizer_bos(t), 2);
    assert_int_equal(ra_tokenizer_eos(t), 1);
    ra_tokenizer_close(t);
}

/* The same vocabularies in their other forms. */
static void test_other_forms(void **state)
{
    (void)state;
    static const struct {
        const char *path, *derived, *llama_cpp, *swift;
        int32_t size, bos, eos;
    } FORMS[] = {
        {"gemma2/tokenizer.rebuilt.model", "gemma2_A", NULL, "pcuenq/gemma-tokenizer", 256000, 2, 1},
        {"qwen2", "qwen2_A", "ggml-vocab-qwen2.gguf", NULL, 151646, -1, 151645},
        {"qwen2/merges.txt", "qwen2_A", "ggml-vocab-qwen2.gguf", NULL, 151646, -1, 151645},
        {"qwen2/qwen.tiktoken", "qwen2_A", "ggml-vocab-qwen2.gguf", NULL, 151646, -1, 151645},
        {"llama3", "llama3_A", "ggml-vocab-llama-bpe.gguf", "pcuenq/Llama-3.2-1B-Instruct-tokenizer", 128256, 128000, 128001},
        {"llama3/tokenizer.model", "llama3_A", "ggml-vocab-llama-bpe.gguf", NULL, 128256, 128000, 128001},
    };
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        char *path = ra_format("data/tokenizers/%s", FORMS[i].path);
        char *vectors = ra_format("data/tokenizers/vectors/derived/%s.json", FORMS[i].derived);
        ra_tokenizer *t = open_shared(path);
        derived(t, vectors, "text", "ids");
        free(vectors);
        vectors = FORMS[i].llama_cpp ? ra_format("data/tokenizers/vectors/llama.cpp/%s", FORMS[i].llama_cpp) : NULL;
        if (vectors) llama_cpp(t, vectors);
        if (FORMS[i].swift) swift(t, FORMS[i].swift);
        assert_int_equal(ra_tokenizer_vocabulary_size(t), FORMS[i].size);
        assert_int_equal(ra_tokenizer_bos(t), FORMS[i].bos);
        assert_int_equal(ra_tokenizer_eos(t), FORMS[i].eos);
        ra_tokenizer_close(t);
        free(vectors);
        free(path);
    }
}

/* Known sharp edges of Gemma: user-defined pieces before BPE, and U+2581 itself. */
static void test_gemma2_edges(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hf, *sentencepiece;
    } EDGES[] = {
        {"hello  world", "[17534, 139, 9097]", "[17534, 139, 9097]"},
        {"<table>", "[169]", "[169]"},
        {"\xE2\x96\x81\xE2\x96\x81 x", "[139, 1141]", "[140, 235297]"},
        {"\t\t", "[255969]", "[255969]"},
        {"<0x09>", "[235322, 235276, 235297, 235276, 235315, 235313]", "[235322, 235276, 235297, 235276, 235315, 235313]"},
        {"a\xEE\x80\x80", "[235250, 240539]", "[235250, 240539]"},
    };
    ra_tokenizer *hf = open_shared("data/tokenizers/gemma2.hf"),
                 *spm = open_shared("data/tokenizers/gemma2/tokenizer.rebuilt.model");
    for (size_t i = 0; i < sizeof EDGES / sizeof *EDGES; i++) {
        json_t *a = json_loads(EDGES[i].hf, 0, NULL), *b = json_loads(EDGES[i].sentencepiece, 0, NULL);
        check_ids(hf, EDGES[i].text, strlen(EDGES[i].text), a, 0, EDGES[i].text);
        check_ids(spm, EDGES[i].text, strlen(EDGES[i].text), b, 0, EDGES[i].text);
        json_decref(a), json_decref(b);
    }
    ra_tokenizer_close(hf), ra_tokenizer_close(spm);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2_json), cmocka_unit_test(test_smollm2_gguf), cmocka_unit_test(test_qwen25),
        cmocka_unit_test(test_llama31),      cmocka_unit_test(test_gemma2),       cmocka_unit_test(test_gemma2_edges),
        cmocka_unit_test(test_other_forms),
    };
    return cmocka_run_group_tests_name("token ids against vectors", tests, NULL, NULL);
}
