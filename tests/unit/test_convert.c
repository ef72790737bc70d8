/* `realign convert`: adapters, types, shards, random weights, the tokenizer of a GGUF, refused requests. */
#include <realign/file.h>
#include <realign/mem.h>
#include <realign/modelfile.h>
#include <realign/tools.h>
#include <support/modelmake.h>
#include <support/support.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORDS = 12 };

static ra_err convert(const char *first, ...)
{
    char *words[MAX_WORDS];
    int n = 0;
    va_list args;
    va_start(args, first);
    for (const char *word = first; word && n < MAX_WORDS; word = va_arg(args, const char *)) words[n++] = (char *)(uintptr_t)word;
    va_end(args);
    return ra_tool_convert(n, words);
}

static double *read_tensor(const ra_modelfile *file, const char *name, int64_t *n)
{
    int index = ra_modelfile_find(file, name);
    if (index < 0) fail_msg("%s: no tensor %s", ra_modelfile_path(file), name);
    *n = ra_modelfile_info(file, index)->elements;
    double *x = ra_alloc((size_t)*n, sizeof *x);
    CHECK_OK(ra_modelfile_read(file, name, 0, *n, RA_DTYPE_F64, x));
    return x;
}

static json_t *load(const char *dir, const char *name)
{
    char *path = ra_path_join(dir, name);
    json_t *root = json_load_file(path, 0, NULL);
    if (!root) fail_msg("%s is no JSON", path);
    free(path);
    return root;
}

static void check_text(const char *dir, const char *file, const char *key, const char *value)
{
    json_t *root = load(dir, file);
    const char *found = json_string_value(json_object_get(root, key));
    if (!found || strcmp(found, value) != 0)
        fail_msg("%s/%s: %s is %s, not %s", dir, file, key, found ? found : "missing", value);
    json_decref(root);
}

/* Every tensor of the fixture's model against W + alpha/r B A worked out here, one element at a time; several shards. */
static void test_adapter(void **state)
{
    (void)state;
    char *base = test_shared_path("fixtures/llama31/reference"), *adapter = test_shared_path("fixtures/llama31/adapter");
    char *dir = test_dir_make(), *out = ra_path_join(dir, "merged");
    CHECK_OK(convert(base, out, "--adapter", adapter, "--shard-size", "60KB", NULL));
    ra_modelfile *before, *after, *lora;
    CHECK_OK(ra_modelfile_open(base, &before));
    CHECK_OK(ra_modelfile_open(out, &after));
    CHECK_OK(ra_modelfile_open(adapter, &lora));
    json_t *config = load(adapter, "adapter_config.json"), *index = load(out, "model.safetensors.index.json");
    double scale = json_number_value(json_object_get(config, "lora_alpha")) / json_number_value(json_object_get(config, "r"));
    assert_int_equal(json_object_size(json_object_get(index, "weight_map")), ra_modelfile_count(before));
    assert_int_equal(ra_modelfile_count(before), ra_modelfile_count(after));
    int changed = 0;
    for (int i = 0; i < ra_modelfile_count(before); i++) {
        const ra_tensor_info *t = ra_modelfile_info(before, i);
        int64_t n, n_after, n_a, n_b;
        double *w = read_tensor(before, t->name, &n), *got = read_tensor(after, t->name, &n_after);
        assert_int_equal(n, n_after);
        char *a_name = ra_format("base_model.model.%.*s.lora_A.weight", (int)strlen(t->name) - 7, t->name);
        char *b_name = ra_format("base_model.model.%.*s.lora_B.weight", (int)strlen(t->name) - 7, t->name);
        if (ra_modelfile_find(lora, a_name) >= 0) {
            double *a = read_tensor(lora, a_name, &n_a), *b = read_tensor(lora, b_name, &n_b);
            int64_t columns = t->shape[1], rank = n_a / columns;
            for (int64_t e = 0; e < n; e++) {
                double sum = w[e];
                for (int64_t k = 0; k < rank; k++) sum += scale * b[e / columns * rank + k] * a[k * columns + e % columns];
                if (!is_close(got[e], (double)(float)sum, 1e-7, 1e-12, t->name)) fail();
            }
            changed++;
            ra_free(a);
            ra_free(b);
        } else {
            assert_memory_equal(w, got, (size_t)n * sizeof *w);
        }
        free(a_name);
        free(b_name);
        ra_free(w);
        ra_free(got);
    }
    assert_int_equal(2 * changed, ra_modelfile_count(lora));
    /* Once more into the same place: refused, then replaced by a single file. */
    check_fails(convert(base, out, NULL), RA_ERR_ARG, out, "already there", "--overwrite", NULL);
    CHECK_OK(convert(base, out, "--overwrite", "--dtype", "bf16", NULL));
    check_text(out, "config.json", "dtype", "bfloat16");
    char *stale = ra_path_join(out, "model.safetensors.index.json");
    assert_false(ra_file_exists(stale));
    check_fails(convert(base, base, NULL), RA_ERR_ARG, "same directory", NULL);
    ra_modelfile_close(before);
    ra_modelfile_close(after);
    ra_modelfile_close(lora);
    json_decref(config);
    json_decref(index);
    free(stale);
    free(out);
    free(base);
    free(adapter);
    test_dir_remove(dir);
}

static void test_adapter_refused(void **state)
{
    (void)state;
    char *base = test_shared_path("fixtures/gemma2/reference"), *other = test_shared_path("fixtures/llama31/adapter");
    char *weights = ra_path_join(other, "adapter_model.safetensors");
    char *dir = test_dir_make(), *out = ra_path_join(dir, "out"), *copy = ra_path_join(dir, "adapter_model.safetensors");
    check_fails(convert(base, out, "--adapter", other, NULL), RA_ERR_DATA, other, "self_attn.q_proj.weight", "B A is", NULL);
    CHECK_OK(ra_file_copy(weights, copy));
    static const char *const configs[][2] = {
        {"{\"peft_type\":\"IA3\",\"lora_alpha\":1}", "IA3"},
        {"{\"peft_type\":\"LORA\"}", "lora_alpha is missing"},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":1,\"use_dora\":true}", "use_dora"},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":1,\"bias\":\"all\"}", "bias is \"all\""},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":1,\"alpha_pattern\":{\"q_proj\":3}}", "alpha_pattern"},
        {"{", "adapter_config.json:1"},
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        free(write_bytes_to(dir, "adapter_config.json", configs[i][0], strlen(configs[i][0])));
        ra_err err = convert(base, out, "--adapter", dir, NULL);
        assert_int_not_equal(err, RA_OK);
        check_fails(err, err, "adapter_config.json", configs[i][1], NULL);
    }
    assert_false(ra_file_exists(out)); /* refused before anything is written */
    free(base);
    free(other);
    free(weights);
    free(out);
    free(copy);
    test_dir_remove(dir);
}

/* Names and shapes are those of the real model of the same configuration, for every family; values depend on the seed alone. */
static void test_random(void **state)
{
    (void)state;
    static const char *const models[] = {"gemma2", "llama31", "llama32_tied", "qwen25", "qwen25_tied"};
    char *dir = test_dir_make(), *out = ra_path_join(dir, "a"), *sharded = ra_path_join(dir, "b"),
         *reseeded = ra_path_join(dir, "c");
    for (int m = 0; m < 5; m++) {
        char *relative = ra_format("fixtures/%s/policy", models[m]), *model = test_shared_path(relative),
             *config = ra_path_join(model, "config.json");
        CHECK_OK(convert("--random", config, out, "--seed", "7", "--overwrite", NULL));
        CHECK_OK(convert("--random", config, model, sharded, "--seed", "7", "--shard-size", "30KiB", "--overwrite", NULL));
        CHECK_OK(convert("--random", config, reseeded, "--seed", "8", "--dtype", "bf16", "--overwrite", NULL));
        ra_modelfile *real, *a, *b, *c;
        CHECK_OK(ra_modelfile_open(model, &real));
        CHECK_OK(ra_modelfile_open(out, &a));
        CHECK_OK(ra_modelfile_open(sharded, &b));
        CHECK_OK(ra_modelfile_open(reseeded, &c));
        assert_int_equal(ra_modelfile_count(a), ra_modelfile_count(real));
        double squares = 0.0, sum = 0.0, drawn = 0.0;
        for (int i = 0; i < ra_modelfile_count(real); i++) {
            const ra_tensor_info *t = ra_modelfile_info(real, i);
            int index = ra_modelfile_find(a, t->name);
            if (index < 0) fail_msg("%s: no tensor %s", models[m], t->name);
            assert_int_equal(ra_modelfile_info(a, index)->ndim, t->ndim);
            assert_memory_equal(ra_modelfile_info(a, index)->shape, t->shape, sizeof t->shape[0] * (size_t)t->ndim);
            int64_t n;
            double *x = read_tensor(a, t->name, &n), *y = read_tensor(b, t->name, &n), *z = read_tensor(c, t->name, &n);
            assert_memory_equal(x, y, (size_t)n * sizeof *x);
            bool norm = strstr(t->name, "norm") != NULL;
            assert_true((memcmp(x, z, (size_t)n * sizeof *x) == 0) == norm);
            for (int64_t e = 0; e < n; e++) {
                if (norm) assert_true(x[e] == (m == 0 ? 0.0 : 1.0));
                squares += norm ? 0.0 : x[e] * x[e];
                sum += norm ? 0.0 : x[e];
                drawn += !norm;
            }
            ra_free(x);
            ra_free(y);
            ra_free(z);
        }
        check_close(sqrt(squares / drawn), 0.02, 0.02, 0.0, "standard deviation of random weights");
        check_close(sum / drawn, 0.0, 0.0, 4.0 * 0.02 / sqrt(drawn), "mean of random weights");
        ra_modelfile_close(real);
        ra_modelfile_close(a);
        ra_modelfile_close(b);
        ra_modelfile_close(c);
        free(relative);
        free(model);
        free(config);
    }
    free(out);
    free(sharded);
    free(reseeded);
    test_dir_remove(dir);
}

/* A tensor of several pieces: the draws go on from one to the next. */
static void test_random_pieces(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model_type\":\"llama\",\"vocab_size\":70000,\"hidden_size\":64,\"intermediate_size\":8,\"num_hidden_layers\":1,"
        "\"num_attention_heads\":2,\"tie_word_embeddings\":true,\"torch_dtype\":\"bfloat16\"}";
    char *dir = test_dir_make(), *out = ra_path_join(dir, "out"),
         *config = write_bytes_to(dir, "config.json", text, sizeof text - 1);
    CHECK_OK(convert("--random", config, out, NULL));
    check_text(out, "config.json", "torch_dtype", "bfloat16");
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(out, &file));
    enum { PIECE = 1 << 22, N = 4096 };
    static ra_bf16 start[N], later[N];
    CHECK_OK(ra_modelfile_read(file, "model.embed_tokens.weight", 0, N, RA_DTYPE_BF16, start));
    for (int64_t first = N; first + N <= 70000 * 64; first += N) {
        CHECK_OK(ra_modelfile_read(file, "model.embed_tokens.weight", first, N, RA_DTYPE_BF16, later));
        if (memcmp(start, later, sizeof start) == 0) fail_msg("the values repeat after %lld elements", (long long)first);
    }
    assert_true(PIECE < 70000 * 64);
    ra_modelfile_close(file);
    free(out);
    free(config);
    test_dir_remove(dir);
}

static void test_requests(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    check_fails(convert(NULL), RA_ERR_ARG, "usage: realign convert", NULL);
    check_fails(convert("a", NULL), RA_ERR_ARG, "usage: realign convert", NULL);
    check_fails(convert("a", "b", "c", NULL), RA_ERR_ARG, "one path too many: c", NULL);
    check_fails(convert("a", "b", "--fast", NULL), RA_ERR_ARG, "unknown option --fast", NULL);
    check_fails(convert("a", "b", "--dtype", NULL), RA_ERR_ARG, "--dtype needs a value", NULL);
    check_fails(convert("a", "b", "--dtype", "int4", NULL), RA_ERR_ARG, "int4", "f32, bf16, f16", NULL);
    check_fails(convert("a", "b", "--shard-size", "4 bananas", NULL), RA_ERR_ARG, "4 bananas", "GiB", NULL);
    check_fails(convert("a", "b", "--shard-size", "0", NULL), RA_ERR_ARG, "positive", NULL);
    check_fails(convert("a", "b", "--seed", "-1", NULL), RA_ERR_ARG, "--seed -1", NULL);
    check_fails(convert("/nonexistent/model", dir, NULL), RA_ERR_IO, "/nonexistent/model", NULL);
    char *config = write_bytes_to(dir, "config.json", "{\"model_type\":\"mamba\"}", 22);
    check_fails(convert("--random", config, dir, NULL), RA_ERR_UNSUPPORTED, config, "mamba", "known are llama", NULL);
    free(config);
    config = write_bytes_to(dir, "config.json", "{\"model_type\":\"llama\",\"vocab_size\":1.5}", 39);
    check_fails(convert("--random", config, dir, NULL), RA_ERR_FORMAT, config, "vocab_size", NULL);
    free(config);
    test_dir_remove(dir);
}

/* A GGUF whose pre-tokenizer nobody knows: refused, unless tokenizer files come from elsewhere. */
static void test_unknown_tokenizer(void **state)
{
    (void)state;
    static const float ones[48];
    char *dir = test_dir_make(), *out = ra_path_join(dir, "out");
    gguf_maker m = {0};
    ra_buf bytes = {0};
    gguf_tiny_metadata(&m, "llama");
    gguf_text(&m, "tokenizer.ggml.model", "gpt2");
    gguf_text(&m, "tokenizer.ggml.pre", "martian");
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 6}, ones, sizeof ones);
    gguf_end(&m, 3, &bytes);
    char *path = write_bytes_to(dir, "m.gguf", bytes.data, bytes.length);
    check_fails(convert(path, out, NULL), RA_ERR_UNSUPPORTED, path, "martian", "known are smollm", "--tokenizer", NULL);
    check_fails(convert(path, out, "--tokenizer", out, NULL), RA_ERR_DATA, out, "no tokenizer files", NULL);
    CHECK_OK(convert(path, out, "--tokenizer", "none", NULL));
    check_text(out, "config.json", "model_type", "llama");
    free(path);
    free(out);
    ra_buf_free(&bytes);
    test_dir_remove(dir);
}

/* The demo model's tokenizer, made from the GGUF, is the original one to the last key; its template too. */
static void test_demo_tokenizer(void **state)
{
    (void)state;
    char *shared = test_shared_path("data/models/smollm2"), *gguf = test_demo_gguf();
    if (!gguf) {
        free(shared);
        skip();
    }
    char *dir = test_dir_make(), *out = ra_path_join(dir, "hf");
    CHECK_OK(convert(gguf, out, "--dtype", "bf16", NULL));
    json_t *made = load(out, "tokenizer.json"), *original = load(shared, "tokenizer.json");
    assert_true(json_equal(made, original));
    json_decref(made);
    json_decref(original);
    made = load(out, "tokenizer_config.json");
    original = load(shared, "tokenizer_config.json");
    static const char *const keys[] = {"chat_template",        "bos_token",       "eos_token", "pad_token", "unk_token",
                                       "added_tokens_decoder", "model_max_length"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (!json_equal(json_object_get(made, keys[i]), json_object_get(original, keys[i])))
            fail_msg("tokenizer_config.json: %s differs", keys[i]);
    }
    json_decref(made);
    json_decref(original);
    check_text(out, "config.json", "torch_dtype", "bfloat16");
    ra_modelfile *a, *b;
    CHECK_OK(ra_modelfile_open(gguf, &a));
    CHECK_OK(ra_modelfile_open(out, &b));
    assert_int_equal(ra_modelfile_count(a), ra_modelfile_count(b));
    int64_t n = 192 * 576;
    ra_bf16 *x = ra_alloc((size_t)n, 2), *y = ra_alloc((size_t)n, 2);
    CHECK_OK(ra_modelfile_read(a, "model.layers.29.self_attn.k_proj.weight", 0, n, RA_DTYPE_BF16, x));
    CHECK_OK(ra_modelfile_read(b, "model.layers.29.self_attn.k_proj.weight", 0, n, RA_DTYPE_BF16, y));
    assert_memory_equal(x, y, (size_t)n * 2);
    ra_free(x);
    ra_free(y);
    ra_modelfile_close(a);
    ra_modelfile_close(b);
    free(shared);
    free(gguf);
    free(out);
    test_dir_remove(dir);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter),        cmocka_unit_test(test_adapter_refused), cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_pieces),  cmocka_unit_test(test_requests),        cmocka_unit_test(test_unknown_tokenizer),
        cmocka_unit_test(test_demo_tokenizer),
    };
    return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
