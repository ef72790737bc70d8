/* GGUF: block formats against the reference package, metadata of every type, names and layout of each family, config.json,
 * broken files, and the real model against its checksums. */
#include <realign/file.h>
#include <realign/modelfile.h>
#include <support/modelmake.h>
#include <support/quant_vectors.h>
#include <support/sha256.h>
#include <support/support.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static ra_err open_made(const char *dir, gguf_maker *m, uint32_t version, char **path, ra_modelfile **file)
{
    ra_buf bytes = {0};
    gguf_end(m, version, &bytes);
    *path = write_bytes_to(dir, "m.gguf", bytes.data, bytes.length);
    ra_buf_free(&bytes);
    *file = NULL;
    return ra_modelfile_open(*path, file);
}

static void test_block_formats(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    for (size_t v = 0; v < sizeof quant_vectors / sizeof quant_vectors[0]; v++) {
        gguf_maker m = {0};
        gguf_text(&m, "general.architecture", "qwen2");
        uint64_t shape[2] = {(uint64_t)quant_vectors[v].elements / 2, 2};
        gguf_tensor(&m, "output.weight", quant_vectors[v].ggml_type, 2, shape, quant_vectors[v].block,
                    (size_t)quant_vectors[v].bytes);
        char *path;
        ra_modelfile *file;
        CHECK_OK(open_made(dir, &m, 3, &path, &file));
        assert_string_equal(ra_modelfile_info(file, 0)->stored, quant_vectors[v].name);
        uint32_t got[512];
        int n = quant_vectors[v].elements;
        CHECK_OK(ra_modelfile_read(file, "lm_head.weight", 0, n, RA_DTYPE_F32, got));
        for (int i = 0; i < n; i++) {
            if (got[i] != quant_vectors[v].bits[i])
                fail_msg("%s element %d: %08x, not %08x", quant_vectors[v].name, i, got[i], quant_vectors[v].bits[i]);
        }
        CHECK_OK(ra_modelfile_read(file, "lm_head.weight", 5, n - 12, RA_DTYPE_F32, got)); /* begins and ends inside blocks */
        assert_memory_equal(got, quant_vectors[v].bits + 5, (size_t)(n - 12) * 4);
        ra_modelfile_close(file);
        free(path);
    }
    test_dir_remove(dir);
}

/* Reads that begin anywhere and pass over many blocks, into every type, are slices of the whole. */
static void test_long_reads(void **state)
{
    (void)state;
    enum { ROWS = 60 };
    char *dir = test_dir_make(), *path;
    for (size_t v = 0; v < sizeof quant_vectors / sizeof quant_vectors[0]; v++) {
        int width = quant_vectors[v].elements, n = ROWS * width;
        gguf_maker m = {0};
        ra_buf rows = {0};
        for (int r = 0; r < ROWS; r++) ra_buf_add(&rows, quant_vectors[v].block, (size_t)quant_vectors[v].bytes);
        gguf_text(&m, "general.architecture", "qwen2");
        gguf_tensor(&m, "output.weight", quant_vectors[v].ggml_type, 2, (uint64_t[]){(uint64_t)width, ROWS}, rows.data,
                    rows.length);
        ra_modelfile *file;
        CHECK_OK(open_made(dir, &m, 3, &path, &file));
        uint32_t *part = ra_alloc((size_t)n, 4);
        ra_bf16 *half = ra_alloc((size_t)n, 2);
        for (int first = 0; first < n; first += 1 + n / 13) {
            int count = n - first - (n - first) / 7;
            CHECK_OK(ra_modelfile_read(file, "lm_head.weight", first, count, RA_DTYPE_F32, part));
            CHECK_OK(ra_modelfile_read(file, "lm_head.weight", first, count, RA_DTYPE_BF16, half));
            for (int i = 0; i < count; i++) {
                float x;
                memcpy(&x, &part[i], 4);
                assert_int_equal(part[i], quant_vectors[v].bits[(first + i) % width]);
                assert_int_equal(half[i], ra_f32_to_bf16(x));
            }
        }
        ra_free(part);
        ra_free(half);
        ra_buf_free(&rows);
        ra_modelfile_close(file);
        free(path);
    }
    test_dir_remove(dir);
}

static void test_metadata_of_every_type(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_maker m = {0};
        gguf_text(&m, "general.architecture", "llama");
        gguf_raw(&m, "u8", 0, &(uint8_t){200}, 1);
        gguf_raw(&m, "i8", 1, &(int8_t){-100}, 1);
        gguf_raw(&m, "u16", 2, &(uint16_t){60000}, 2);
        gguf_raw(&m, "i16", 3, &(int16_t){-30000}, 2);
        gguf_raw(&m, "u32", 4, &(uint32_t){4000000000u}, 4);
        gguf_raw(&m, "i32", 5, &(int32_t){-2000000000}, 4);
        gguf_raw(&m, "f32", 6, &(float){0.1f}, 4);
        gguf_raw(&m, "bool", 7, &(uint8_t){1}, 1);
        gguf_raw(&m, "u64", 10, &(uint64_t){1ull << 62}, 8);
        gguf_raw(&m, "i64", 11, &(int64_t){-(1ll << 62)}, 8);
        gguf_raw(&m, "f64", 12, &(double){0.1}, 8);
        gguf_raw(&m, "too_big", 10, &(uint64_t){1ull << 63}, 8);
        static const struct __attribute__((packed)) {
            uint32_t type;
            uint64_t n;
            int32_t x[3];
        } numbers = {5, 3, {7, -8, 9}};
        gguf_raw(&m, "numbers", 9, &numbers, sizeof numbers);
        static const struct __attribute__((packed)) {
            uint32_t type;
            uint64_t n, n0;
            char s0[2];
            uint64_t n1;
            char s1[3];
        } words = {8, 2, 2, {'a', 'b'}, 3, {'x', 0, 'z'}};
        gguf_raw(&m, "words", 9, &words, sizeof words);
        static const struct __attribute__((packed)) {
            uint32_t type;
            uint64_t n;
            uint32_t inner;
            uint64_t n0;
            uint8_t x;
        } nested = {9, 1, 0, 1, 5};
        gguf_raw(&m, "nested", 9, &nested, sizeof nested);
        char *path;
        ra_modelfile *file;
        CHECK_OK(open_made(dir, &m, version, &path, &file)); /* no tensors: a vocabulary alone is a good file */
        const ra_gguf *g = ra_modelfile_gguf(file);
        static const struct {
            const char *key;
            int64_t value;
        } integers[] = {{"u8", 200},          {"i8", -100}, {"u16", 60000},     {"i16", -30000},      {"u32", 4000000000ll},
                        {"i32", -2000000000}, {"bool", 1},  {"u64", 1ll << 62}, {"i64", -(1ll << 62)}};
        int64_t i, n, *list;
        for (size_t k = 0; k < sizeof integers / sizeof integers[0]; k++) {
            assert_true(ra_gguf_i64(g, integers[k].key, &i));
            assert_true(i == integers[k].value);
        }
        assert_false(ra_gguf_i64(g, "f32", &i));
        assert_false(ra_gguf_i64(g, "too_big", &i));
        assert_false(ra_gguf_i64(g, "numbers", &i));
        assert_false(ra_gguf_i64(g, "missing", &i));
        double x, *reals;
        assert_true(ra_gguf_f64(g, "f64", &x) && x == 0.1);
        assert_true(ra_gguf_f64(g, "f32", &x) && x == (double)0.1f);
        assert_true(ra_gguf_f64(g, "i8", &x) && x == -100.0);
        assert_false(ra_gguf_f64(g, "general.architecture", &x));
        ra_str text, *texts;
        assert_true(ra_gguf_text(g, "general.architecture", &text) && text.length == 5 && memcmp(text.data, "llama", 5) == 0);
        assert_false(ra_gguf_text(g, "words", &text));
        assert_true(ra_gguf_count(g, "words", &n) && n == 2);
        assert_false(ra_gguf_count(g, "u8", &n));
        assert_true(ra_gguf_text_array(g, "words", &texts, &n) && n == 2);
        assert_true(texts[1].length == 3 && memcmp(texts[1].data, "x\0z", 3) == 0);
        free(texts);
        assert_false(ra_gguf_text_array(g, "numbers", &texts, &n));
        assert_true(ra_gguf_i64_array(g, "numbers", &list, &n) && n == 3 && list[1] == -8);
        free(list);
        assert_true(ra_gguf_f64_array(g, "numbers", &reals, &n) && reals[2] == 9.0);
        free(reals);
        assert_false(ra_gguf_i64_array(g, "words", &list, &n));
        assert_false(ra_gguf_i64_array(g, "nested", &list, &n));
        ra_modelfile_close(file);
        free(path);
    }
    test_dir_remove(dir);
}

static void ramp(float *x, int n)
{
    for (int i = 0; i < n; i++) x[i] = (float)i;
}

static void test_llama_rows_and_names(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path;
    float x[128];
    ramp(x, 128);
    gguf_maker m = {.alignment = 64};
    gguf_tiny_metadata(&m, "llama");
    gguf_u32(&m, "general.alignment", 64);
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 6}, x, 48 * 4);
    gguf_tensor(&m, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){8, 8}, x, 64 * 4); /* 2 heads of 4 rows */
    gguf_tensor(&m, "blk.0.attn_k.weight", 0, 2, (uint64_t[]){8, 4}, x, 32 * 4);
    gguf_tensor(&m, "blk.0.attn_q.bias", 0, 1, (uint64_t[]){8}, x, 8 * 4);
    gguf_tensor(&m, "blk.0.ffn_norm.weight", 0, 1, (uint64_t[]){8}, x, 8 * 4);
    ra_modelfile *file;
    CHECK_OK(open_made(dir, &m, 3, &path, &file));
    float got[64];
    CHECK_OK(ra_modelfile_read(file, "model.layers.0.self_attn.q_proj.weight", 0, 64, RA_DTYPE_F32, got));
    static const int order[8] = {0, 2, 1, 3, 4, 6, 5, 7}; /* stored row of each Hugging Face row */
    for (int r = 0; r < 8; r++) {
        for (int c = 0; c < 8; c++) assert_true(got[8 * r + c] == (float)(8 * order[r] + c));
    }
    double part[5];
    CHECK_OK(
        ra_modelfile_read(file, "model.layers.0.self_attn.q_proj.weight", 6, 5, RA_DTYPE_F64, part)); /* across rows 0 and 1 */
    assert_true(part[0] == 6.0 && part[1] == 7.0 && part[2] == 16.0 && part[4] == 18.0);
    CHECK_OK(ra_modelfile_read(file, "model.layers.0.self_attn.q_proj.bias", 0, 8, RA_DTYPE_F32, got));
    for (int r = 0; r < 8; r++) assert_true(got[r] == (float)order[r]);
    CHECK_OK(ra_modelfile_read(file, "model.layers.0.self_attn.k_proj.weight", 8, 1, RA_DTYPE_F32, got));
    assert_true(got[0] == 16.0f);
    assert_true(ra_modelfile_find(file, "model.layers.0.post_attention_layernorm.weight") >= 0);
    ra_modelfile_close(file);
    free(path);
    test_dir_remove(dir);
}

static json_t *config_of(const ra_modelfile *file)
{
    char *text;
    CHECK_OK(ra_modelfile_config_json(file, &text));
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    free(text);
    return config;
}

static void check_number(const json_t *config, const char *key, double value)
{
    check_close(json_number_value(json_object_get(config, key)), value, 1e-7, 0.0, key);
}

static void test_gemma2(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path;
    float x[64];
    ramp(x, 64);
    gguf_maker m = {0};
    gguf_tiny_metadata(&m, "gemma2");
    gguf_f32(&m, "gemma2.attn_logit_softcapping", 40.0f);
    gguf_u32(&m, "gemma2.attention.sliding_window", 16);
    gguf_u32(&m, "tokenizer.ggml.bos_token_id", 2);
    gguf_tensor(&m, "token_embd.weight", 0, 2, (uint64_t[]){8, 7}, x, 56 * 4); /* a row more than the metadata says */
    gguf_tensor(&m, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){8, 8}, x, 64 * 4);
    gguf_tensor(&m, "blk.0.post_attention_norm.weight", 0, 1, (uint64_t[]){8}, x, 32);
    gguf_tensor(&m, "blk.0.ffn_norm.weight", 0, 1, (uint64_t[]){8}, x, 32);
    gguf_tensor(&m, "blk.0.post_ffw_norm.weight", 0, 1, (uint64_t[]){8}, x, 32);
    ra_modelfile *file;
    CHECK_OK(open_made(dir, &m, 3, &path, &file));
    static const char *const norms[] = {"post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"};
    float got[8];
    for (int i = 0; i < 3; i++) {
        char *name = ra_format("model.layers.0.%s.weight", norms[i]);
        CHECK_OK(ra_modelfile_read(file, name, 2, 3, RA_DTYPE_F32, got)); /* stored 1 + w */
        assert_true(got[0] == 1.0f && got[2] == 3.0f);
        free(name);
    }
    CHECK_OK(ra_modelfile_read(file, "model.layers.0.self_attn.q_proj.weight", 8, 1, RA_DTYPE_F32, got));
    assert_true(got[0] == 8.0f); /* rows as they are */
    json_t *config = config_of(file);
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "gemma2");
    check_number(config, "attn_logit_softcapping", 40.0);
    check_number(config, "final_logit_softcapping", 30.0);
    check_number(config, "sliding_window", 16);
    check_number(config, "query_pre_attn_scalar", 4);
    check_number(config, "vocab_size", 7);
    check_number(config, "bos_token_id", 2);
    assert_true(json_is_null(json_object_get(config, "eos_token_id")));
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    json_decref(config);
    ra_modelfile_close(file);
    free(path);
    test_dir_remove(dir);
}

/* The rope divisors of Llama 3's rule, as llama.cpp's converter writes them. */
static void llama3_divisors(float out[32], double theta, double factor, double high, double context)
{
    for (int i = 0; i < 32; i++) {
        double wavelength = 2.0 * M_PI * pow(theta, 2.0 * i / 64.0), smooth = (context / wavelength - 1.0) / (high - 1.0);
        double f = wavelength < context / high ? 1.0 : wavelength > context ? factor : 1.0 / ((1.0 - smooth) / factor + smooth);
        out[i] = (float)f;
    }
}

static void test_rope_scaling(void **state)
{
    (void)state;
    static const struct {
        double factor, high, context, theta;
    } rules[] = {
        {8, 4, 8192, 5e5}, {32, 4, 8192, 5e5}, {4, 8, 2048, 5e5}, {8, 4, 100, 1e13}}; /* the last blends one frequency only */
    char *dir = test_dir_make(), *path;
    ra_modelfile *file;
    for (int broken = 0; broken < 2; broken++) {
        for (int r = 0; r < 4; r++) {
            gguf_maker m = {0};
            gguf_text(&m, "general.architecture", "llama");
            static const char *const keys[] = {"block_count", "context_length", "embedding_length", "feed_forward_length",
                                               "attention.head_count"};
            static const uint32_t values[] = {1, 131072, 128, 256, 2};
            for (int k = 0; k < 5; k++) {
                char *key = ra_format("llama.%s", keys[k]);
                gguf_u32(&m, key, values[k]);
                free(key);
            }
            gguf_f32(&m, "llama.rope.freq_base", (float)rules[r].theta);
            float divisors[32];
            llama3_divisors(divisors, (double)(float)rules[r].theta, rules[r].factor, rules[r].high, rules[r].context);
            if (broken) divisors[3] *= 1.3f;
            gguf_tensor(&m, "rope_freqs.weight", 0, 1, (uint64_t[]){32}, divisors, sizeof divisors);
            CHECK_OK(open_made(dir, &m, 3, &path, &file));
            assert_int_equal(ra_modelfile_count(file), 0); /* part of the configuration, not a weight */
            if (broken) {
                char *json;
                check_fails(ra_modelfile_config_json(file, &json), RA_ERR_UNSUPPORTED, path, "rope_freqs.weight", NULL);
            } else {
                json_t *config = config_of(file);
                const json_t *scaling = json_object_get(config, "rope_scaling");
                assert_string_equal(json_string_value(json_object_get(scaling, "rope_type")), "llama3");
                check_number(scaling, "factor", rules[r].factor);
                check_number(scaling, "low_freq_factor", 1.0);
                check_number(scaling, "high_freq_factor", rules[r].high);
                check_number(scaling, "original_max_position_embeddings", rules[r].context);
                json_decref(config);
            }
            ra_modelfile_close(file);
            free(path);
        }
    }
    test_dir_remove(dir);
}

static void make_bad(gguf_maker *m, int which)
{
    static const float x[64];
    uint64_t eight = 8;
    if (which != 12) gguf_tiny_metadata(m, "llama");
    switch (which) {
    case 0: gguf_tensor(m, "blk.0.attn_rot.weight", 0, 1, &eight, x, 32); break;
    case 1: gguf_tensor(m, "output_norm.weight", 0, 1, (uint64_t[]){32}, x, 32); break;
    case 2: gguf_tensor_at(m, "output_norm.weight", 0, 1, &eight, 64); break;
    case 3: gguf_tensor(m, "a.weight", 0, 1, &eight, x, 64), gguf_tensor_at(m, "output_norm.weight", 0, 1, &eight, 0); break;
    case 4:
        gguf_tensor(m, "output_norm.weight", 0, 1, &eight, x, 64), gguf_tensor(m, "output_norm.weight", 0, 1, &eight, x, 32);
        break;
    case 5: gguf_tensor_at(m, "output_norm.weight", 0, 1, &eight, 12); break;
    case 6: gguf_tensor(m, "output_norm.weight", 21, 1, &eight, x, 32); break;
    case 7: gguf_tensor(m, "output_norm.weight", 2, 1, (uint64_t[]){40}, x, 32); break;
    case 8: gguf_tensor(m, "output_norm.weight", 0, 2, (uint64_t[]){1ull << 40, 1ull << 40}, x, 32); break;
    case 9: gguf_tensor(m, "blk.0.attn_q.weight", 0, 2, (uint64_t[]){8, 6}, x, 192); break;
    case 10: gguf_u32(m, "general.alignment", 24); break;
    case 11: gguf_u32(m, "llama.context_length", 3); break;
    case 12: gguf_text(m, "general.architecture", "mamba"); break;
    case 13: gguf_raw(m, "odd", 77, "", 1); break;
    case 14: gguf_raw(m, "list", 9, "\4\0\0\0\377\377\377\377\377\377\377\377", 12); break;
    case 15: m->tensor_count = 1ull << 60; break;
    case 16: m->pair_count = 1ull << 60; break;
    case 17: gguf_tensor(m, "output_norm.weight", 0, 1, (uint64_t[]){1ull << 63}, x, 32); break;
    case 18: gguf_tensor(m, "blk.007.attn_norm.weight", 0, 1, &eight, x, 32); break;
    case 19: m->tensor_count = 1; break;
    default: gguf_u32(m, "split.count", 3); break;
    }
}

static void test_broken_files(void **state)
{
    (void)state;
    static const struct {
        ra_err code;
        const char *tensor, *what;
    } expected[] = {
        {RA_ERR_UNSUPPORTED, "tensor blk.0.attn_rot.weight", "no such tensor"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "truncated"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "truncated"},
        {RA_ERR_FORMAT, "a.weight", "overlaps"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "occurs twice"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "alignment"},
        {RA_ERR_UNSUPPORTED, "tensor output_norm.weight", "ggml type 21"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "whole blocks of 32 Q4_0"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "overflows"},
        {RA_ERR_FORMAT, "tensor blk.0.attn_q.weight", "(6, 8)"},
        {RA_ERR_FORMAT, "metadata general.alignment", "power of two"},
        {RA_ERR_FORMAT, "metadata llama.context_length", "twice"},
        {RA_ERR_UNSUPPORTED, "mamba", "known are llama, qwen2 and gemma2"},
        {RA_ERR_FORMAT, "metadata odd", "unknown type"},
        {RA_ERR_FORMAT, "metadata list", "does not fit"},
        {RA_ERR_FORMAT, "tensors", "cannot fit"},
        {RA_ERR_FORMAT, "metadata", "cannot fit"},
        {RA_ERR_FORMAT, "tensor output_norm.weight", "negative"},
        {RA_ERR_UNSUPPORTED, "tensor blk.007.attn_norm.weight", "no such tensor"},
        {RA_ERR_FORMAT, "tensors", "cannot fit"},
        {RA_ERR_UNSUPPORTED, "split.count", "one of 3 pieces"},
    };
    char *dir = test_dir_make(), *path;
    ra_modelfile *file;
    for (int i = 0; i < (int)(sizeof expected / sizeof expected[0]); i++) {
        gguf_maker m = {0};
        make_bad(&m, i);
        ra_err err = open_made(dir, &m, 3, &path, &file);
        check_fails(err, expected[i].code, path, expected[i].tensor, expected[i].what, NULL);
        assert_null(file);
        free(path);
    }
    static const struct {
        uint32_t version;
        const char *what;
    } versions[] = {{1, "version 1"}, {4, "version 4"}, {3u << 24, "big-endian"}};
    for (int i = 0; i < 3; i++) {
        gguf_maker m = {0};
        gguf_tiny_metadata(&m, "llama");
        ra_err err = open_made(dir, &m, versions[i].version, &path, &file);
        check_fails(err, RA_ERR_UNSUPPORTED, path, versions[i].what, NULL);
        free(path);
    }
    /* Cut off at every length: an error that names the file, whatever was lost. */
    gguf_maker m = {0};
    ra_buf bytes = {0};
    static const float x[8];
    gguf_tiny_metadata(&m, "llama");
    gguf_tensor(&m, "output_norm.weight", 0, 1, (uint64_t[]){8}, x, 32);
    gguf_end(&m, 3, &bytes);
    for (size_t n = 1; n < bytes.length; n++) {
        path = write_bytes_to(dir, "cut.gguf", bytes.data, n);
        ra_err err = ra_modelfile_open(path, &file);
        check_fails(err, RA_ERR_FORMAT, path, NULL);
        free(path);
    }
    ra_buf_free(&bytes);
    test_dir_remove(dir);
}

static void test_config_needs_sizes(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path, *json;
    ra_modelfile *file;
    gguf_maker m = {0};
    gguf_text(&m, "general.architecture", "qwen2");
    gguf_u32(&m, "qwen2.block_count", 0);
    CHECK_OK(open_made(dir, &m, 3, &path, &file));
    check_fails(ra_modelfile_config_json(file, &json), RA_ERR_FORMAT, path, "qwen2.block_count is 0", NULL);
    ra_modelfile_close(file);
    free(path);
    gguf_maker n = {0};
    gguf_text(&n, "general.architecture", "qwen2");
    CHECK_OK(open_made(dir, &n, 3, &path, &file));
    check_fails(ra_modelfile_config_json(file, &json), RA_ERR_FORMAT, path, "qwen2.block_count is missing", NULL);
    ra_modelfile_close(file);
    free(path);
    test_dir_remove(dir);
}

static json_t *load_shared(const char *relative)
{
    char *path = test_shared_path(relative);
    json_t *root = json_load_file(path, 0, NULL);
    if (!root) fail_msg("%s is not JSON", path);
    free(path);
    return root;
}

/* The demo model and the shared JSON beside it; skips, and leaves nothing behind, where either is missing. */
static char *demo_gguf(const char *relative, json_t **golden)
{
    *golden = load_shared(relative);
    char *path = test_demo_gguf();
    if (path) return path;
    json_decref(*golden);
    skip();
    return NULL;
}

static void test_demo_tensors(void **state)
{
    (void)state;
    json_t *golden;
    char *path = demo_gguf("data/models/smollm2/golden.json", &golden);
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    const char *name;
    json_t *entry;
    int checked = 0;
    json_object_foreach(json_object_get(golden, "tensor_sha256"), name, entry)
    {
        if (!json_is_object(entry)) continue;
        int index = ra_modelfile_find(file, name);
        if (index < 0) fail_msg("no tensor %s", name);
        const ra_tensor_info *info = ra_modelfile_info(file, index);
        for (int d = 0; d < info->ndim; d++) {
            assert_int_equal(info->shape[d], json_integer_value(json_array_get(json_object_get(entry, "shape"), (size_t)d)));
        }
        float *values = ra_alloc((size_t)info->elements, sizeof *values);
        CHECK_OK(ra_modelfile_read(file, name, 0, info->elements, RA_DTYPE_F32, values));
        char sum[65];
        sha256_text(values, (size_t)info->elements * sizeof *values, sum);
        if (strcmp(sum, json_string_value(json_object_get(entry, "sha256"))) != 0) fail_msg("%s: sha256 is %s", name, sum);
        ra_free(values);
        checked++;
    }
    assert_true(checked >= 8);
    ra_modelfile_close(file);
    json_decref(golden);
    free(path);
}

static void test_demo_config(void **state)
{
    (void)state;
    json_t *expected;
    char *path = demo_gguf("data/models/smollm2/config.json", &expected);
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    json_t *config = config_of(file), *value;
    const char *key;
    json_object_foreach(config, key, value)
    {
        const json_t *other = json_object_get(expected, strcmp(key, "torch_dtype") == 0 ? "dtype" : key);
        if (!json_equal(value, other)) fail_msg("config.json: %s differs", key);
    }
    assert_true(json_object_size(config) >= 20);
    json_decref(config);
    json_decref(expected);
    ra_modelfile_close(file);
    free(path);
}

static void test_sha256(void **state)
{
    (void)state;
    char text[65];
    sha256_text("abc", 3, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, text);
    assert_string_equal(text, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_block_formats),
        cmocka_unit_test(test_long_reads),
        cmocka_unit_test(test_metadata_of_every_type),
        cmocka_unit_test(test_llama_rows_and_names),
        cmocka_unit_test(test_gemma2),
        cmocka_unit_test(test_rope_scaling),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_config_needs_sizes),
        cmocka_unit_test(test_demo_tensors),
        cmocka_unit_test(test_demo_config),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
