/* Tokenizers in their other files: SentencePiece models, GGUF's "llama" type, tiktoken's base64, vocab.json with merges.txt; what
 * lies beside them; and the work that a text without spaces costs. */
#include "../../src/text/tok.h"
#include <support/modelmake.h>
#include <support/support.h>
#include <support/tinyspm.h>
#include <support/tinytok.h>

#include <realign/file.h>
#include <realign/hfdir.h>
#include <realign/rng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81"

static void put(const char *dir, const char *name, const char *text)
{
    free(write_bytes_to(dir, name, text, strlen(text)));
}

/* Opens a model made from `spec`, with `config` as tokenizer_config.json beside it, or NULL. */
static ra_tokenizer *open_spm(tinyspm spec, const char *config)
{
    char *dir = test_dir_make();
    ra_buf bytes = {0};
    tinyspm_model(&bytes, &spec);
    char *path = write_bytes_to(dir, "tokenizer.model", bytes.data, bytes.length);
    if (config) put(dir, "tokenizer_config.json", config);
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(config ? dir : path, &t));
    ra_buf_free(&bytes);
    free(path);
    test_dir_remove(dir);
    return t;
}

/* `want`: pieces with bars between. */
static void check_pieces(const ra_tokenizer *t, const tinyspm *spec, const char *text, int flags, const char *want)
{
    ra_ids ids = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), flags, &ids));
    int64_t i = 0;
    char *copy = ra_strdup(want), *rest = copy;
    for (char *piece; *want && (piece = strsep(&rest, "|")); i++) {
        int32_t id = tinyspm_id(spec, piece);
        if (i >= ids.count || ids.id[i] != id) {
            fail_msg("\"%s\": id %lld is %d, not %d (%s)", text, (long long)i, i < ids.count ? ids.id[i] : -1, id, piece);
        }
    }
    if (i != ids.count) fail_msg("\"%s\": %lld ids, not %lld", text, (long long)ids.count, (long long)i);
    free(copy);
    ra_ids_free(&ids);
}

static void check_spans(const ra_tokenizer *t, const char *text, const char *want)
{
    ra_ids ids = {0};
    ra_buf got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), RA_ENCODE_OFFSETS, &ids));
    ra_buf_adds(&got, "");
    for (int64_t i = 0; i < ids.count; i++) {
        ra_buf_addf(&got, "%s%lld-%lld", i ? " " : "", (long long)ids.begin[i], (long long)ids.end[i]);
    }
    if (strcmp(got.data, want) != 0) fail_msg("\"%s\": spans \"%s\", not \"%s\"", text, got.data, want);
    ra_buf_free(&got);
    ra_ids_free(&ids);
}

static void check_text(const ra_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, const char *want)
{
    ra_buf got = {0};
    CHECK_OK(ra_tokenizer_decode(t, ids, n, skip_special, &got));
    assert_string_equal(got.data ? got.data : "", want);
    ra_buf_free(&got);
}

static void test_sentencepiece(void **state)
{
    (void)state;
    tinyspm plain = {0}, dummy = {.dummy_prefix = true}, squeeze = {.dummy_prefix = true, .squeeze = true};
    ra_tokenizer *t = open_spm(plain, NULL);
    static const char *const CASES[][2] = {
        {"hello he", "hello|" MARK "he"},
        {"elo", "e|lo"},
        {"llol", "llo|l"}, /* the better score first: "ll" before "lo" */
        {"aba", "aba"},
        {"abab", "ab|ab"},             /* equal scores: the left one */
        {"baba", "ba|ba"},             /* and again */
        {"a  b", "a|" MARK MARK "|b"}, /* user-defined pieces first */
        {"a   b", "a|" MARK MARK "|" MARK "|b"},
        {MARK "he", MARK "he"}, /* the mark itself is a space */
        {"zq", "z|q"},          /* unused: taken apart again */
        {"zqa", "zqa"},         /* but merges go through it */
        {"wa", "wa"},           /* "w" alone is no piece, and yet it merges */
        {"w", "<0x77>"},
        {"\xC3\xB6", "<0xC3>|<0xB6>"},
        {"a<t>b", "a|<t>|b"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) check_pieces(t, &plain, CASES[i][0], 0, CASES[i][1]);
    check_spans(t, "hello he", "0-5 5-8");
    check_spans(t, "a  b", "0-1 1-3 3-4");
    check_spans(t, "a\xC3\xB6w", "0-1 1-2 2-3 3-4");
    /* Without a configuration, control pieces are special, and a text begins with <s>. */
    check_pieces(t, &plain, "<s>a", 0, "<s>|a");
    check_pieces(t, &plain, "<s>", RA_ENCODE_PLAIN, "<0x3C>|<0x73>|<0x3E>");
    check_pieces(t, &plain, "a", RA_ENCODE_ADD_SPECIAL, "<s>|a");
    assert_int_equal(ra_tokenizer_bos(t), 1);
    assert_int_equal(ra_tokenizer_eos(t), 2);
    assert_int_equal(ra_tokenizer_id(t, "wa"), tinyspm_id(&plain, "wa"));
    assert_int_equal(ra_tokenizer_id(t, "w"), -1);
    ra_tokenizer_close(t);

    t = open_spm(dummy, NULL);
    check_pieces(t, &dummy, "hello he", 0, MARK "hello|" MARK "he");
    check_spans(t, "hello he", "0-5 5-8");
    check_pieces(t, &dummy, "q", 0, MARK "|q");
    check_spans(t, "q", "0-0 0-1");
    check_pieces(t, &dummy, "he<s>he", 0, MARK "he|<s>|" MARK "he"); /* every stretch between special tokens */
    check_text(t, (const int32_t[]){tinyspm_id(&dummy, MARK "he"), tinyspm_id(&dummy, MARK "he")}, 2, false, "he he");
    check_text(t, (const int32_t[]){tinyspm_id(&dummy, MARK), tinyspm_id(&dummy, MARK "he")}, 2, false, " he");
    ra_tokenizer_close(t);

    t = open_spm(squeeze, NULL);
    check_pieces(t, &squeeze, "  he  a ", 0, MARK "he|" MARK "|a");
    check_spans(t, "  he  a ", "2-4 4-5 6-7");
    int32_t mark = tinyspm_id(&squeeze, MARK), he = tinyspm_id(&squeeze, MARK "he");
    check_text(t, (const int32_t[]){he, he}, 2, false, "he he");
    check_text(t, (const int32_t[]){mark, he}, 2, false, "he"); /* nothing stood before it */
    check_pieces(t, &squeeze, "   ", 0, "");
    ra_tokenizer_close(t);

    tinyspm fused = {.no_bytes = true};
    t = open_spm(fused, NULL);
    check_pieces(t, &fused, "a\xC3\xB6\xC3\xBCwb", 0, "a|<unk>|b"); /* a run is one <unk> */
    check_spans(t, "a\xC3\xB6\xC3\xBCwb", "0-1 1-6 6-7");
    ra_tokenizer_close(t);
}

static void test_sentencepiece_decoding(void **state)
{
    (void)state;
    tinyspm plain = {0};
    ra_tokenizer *t = open_spm(plain, NULL);
    int32_t c3 = tinyspm_id(&plain, "<0xC3>"), b6 = tinyspm_id(&plain, "<0xB6>"), a = tinyspm_id(&plain, "a");
    check_text(t, (const int32_t[]){1, c3, b6, a, c3, c3, b6}, 7, true,
               "\xC3\xB6"
               "a\xEF\xBF\xBD\xC3\xB6");
    check_text(t, (const int32_t[]){1, 4, a}, 3, false, "<s>  a");
    ra_tokenizer_close(t);
}

static void test_config_beside(void **state)
{
    (void)state;
    tinyspm dummy = {.dummy_prefix = true};
    ra_tokenizer *t = open_spm(
        dummy,
        "{\"add_bos_token\": false, \"add_eos_token\": true, \"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"<end>\"}, "
        "\"legacy\": false, \"chat_template\": \"T\", \"model_max_length\": 1000000000000000019884624838656, "
        "\"added_tokens_decoder\": {\"1\": {\"content\": \"<s>\", \"special\": true}, \"3\": {\"content\": \"<t>\", "
        "\"special\": true}, \"4\": {\"content\": \"" MARK MARK "\", \"special\": false}, \"900\": {\"content\": \"<end>\", "
        "\"special\": true}}}");
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 901);
    assert_int_equal(ra_tokenizer_eos(t), 900);
    assert_string_equal(ra_tokenizer_chat_template(t), "T");
    check_pieces(t, &dummy, "he<s>he", 0, MARK "he|<s>|he"); /* the dummy prefix at the start only */
    check_pieces(t, &dummy, "<t>", 0, "<t>");
    check_pieces(t, &dummy, "a<t>", RA_ENCODE_PLAIN, MARK "|a|<0x3C>|<0x74>|<0x3E>"); /* special now, so it can be plain text */
    check_pieces(t, &dummy, "a  b", 0, MARK "|a|" MARK MARK "|b");
    check_pieces(t, &dummy, "</s>", 0, MARK "|<0x3C>|<0x2F>|<0x73>|<0x3E>"); /* not listed */
    ra_ids ids = {0};
    CHECK_OK(ra_tokenizer_encode(t, "he", 2, RA_ENCODE_ADD_SPECIAL, &ids));
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.id[1], 900);
    ra_ids_free(&ids);
    ra_tokenizer_close(t);
}

/* A charsmap with three rules: A to a, the ligature fi to f and i, and a tab to a space, as a double array by hand. */
static void make_map(ra_buf *out)
{
    enum { UNITS = 512 };
    uint32_t unit[UNITS] = {0};
    /* Node offsets: the root's children lie at byte ^ 256; a child's own offset goes by XOR from where it lies. */
#define OFFSET(from, to) ((uint32_t)((from) ^ (to)) << 10)
    unit[0] = OFFSET(0, 256);
    unit[256 ^ 'A'] = OFFSET(256 ^ 'A', 16) | 1u << 8 | 'A', unit[16] = 1u << 31 | 0;
    unit[256 ^ '\t'] = OFFSET(256 ^ '\t', 17) | 1u << 8 | '\t', unit[17] = 1u << 31 | 2;
    unit[256 ^ 0xEF] = OFFSET(256 ^ 0xEF, 0x300 & 511) | 0xEF; /* its child lies at 0xAC ^ 0x100 */
    unit[256 ^ 0xAC] = OFFSET(256 ^ 0xAC, 32) | 0xAC;
    unit[32 ^ 0x81] = OFFSET(32 ^ 0x81, 18) | 1u << 8 | 0x81, unit[18] = 1u << 31 | 4;
    uint32_t bytes = sizeof unit;
    ra_buf_add(out, &bytes, 4);
    ra_buf_add(out, unit, sizeof unit);
    ra_buf_add(out, "a\0 \0fi", 7);
}

static void test_charsmap(void **state)
{
    (void)state;
    ra_buf map = {0};
    make_map(&map);
    tinyspm spec = {.map = map.data, .map_length = (uint32_t)map.length};
    ra_tokenizer *t = open_spm(spec, NULL);
    check_pieces(t, &spec, "Ab\the", 0, "ab|" MARK "he");
    check_spans(t, "Ab\the", "0-2 2-5");
    check_pieces(t, &spec,
                 "\xEF\xAC\x81"
                 "b",
                 0, "fi|b");
    check_spans(t,
                "\xEF\xAC\x81"
                "b",
                "0-3 3-4");
    ra_tokenizer_close(t);
    ra_buf_free(&map);
}

static void refused_bytes(const char *name, const void *bytes, size_t n, ra_err code, const char *word)
{
    char *dir = test_dir_make(), *path = write_bytes_to(dir, name, bytes, n);
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open(path, &t), code, path, word, NULL);
    assert_null(t);
    free(path);
    test_dir_remove(dir);
}

static void refused_spm(tinyspm spec, ra_err code, const char *word)
{
    ra_buf bytes = {0};
    tinyspm_model(&bytes, &spec);
    refused_bytes("tokenizer.model", bytes.data, bytes.length, code, word);
    ra_buf_free(&bytes);
}

static void test_sentencepiece_refusals(void **state)
{
    (void)state;
    refused_spm((tinyspm){.model_type = 1}, RA_ERR_UNSUPPORTED, "Unigram");
    refused_spm((tinyspm){.model_type = 3}, RA_ERR_UNSUPPORTED, "Word");
    refused_spm((tinyspm){.suffix = true}, RA_ERR_UNSUPPORTED, "treat_whitespace_as_suffix");
    refused_spm((tinyspm){.unknown_pieces = 1}, RA_ERR_FORMAT, "unknown");
    refused_spm((tinyspm){.map = "\x00\x04\x00\x00junk", .map_length = 8}, RA_ERR_FORMAT, "precompiled_charsmap");
    ra_buf bytes = {0};
    tinyspm_model(&bytes, &(tinyspm){0});
    refused_bytes("tokenizer.model", bytes.data, bytes.length / 2, RA_ERR_FORMAT, "damaged");
    refused_bytes("tokenizer.model", bytes.data, 100, RA_ERR_FORMAT, "damaged");
    ra_buf_free(&bytes);
    refused_bytes("tokenizer.model", "what is this\n", 13, RA_ERR_FORMAT, "not a tokenizer");
    refused_bytes("tokenizer.model",
                  "\n\x03"
                  "abc",
                  5, RA_ERR_FORMAT, "damaged");
}

static void test_gguf(void **state)
{
    (void)state;
    tinyspm dummy = {.dummy_prefix = true};
    char *dir = test_dir_make();
    ra_buf bytes = {0};
    tinyspm_gguf(&bytes, &dummy, true);
    char *path = write_bytes_to(dir, "spm.gguf", bytes.data, bytes.length);
    ra_tokenizer *t, *model = open_spm(dummy, NULL);
    CHECK_OK(ra_tokenizer_open(path, &t));
    check_pieces(t, &dummy, "hello  he<t>", 0, MARK "hello|" MARK MARK "|he|<t>");
    check_pieces(t, &dummy, "a", RA_ENCODE_ADD_SPECIAL, "<s>|" MARK "|a");
    assert_int_equal(ra_tokenizer_eos(t), 2);
    assert_true(ra_tokenizer_hash(t) == ra_tokenizer_hash(model)); /* the same ids for every text */
    ra_tokenizer_close(model);
    /* and written as a directory, once more */
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    CHECK_OK(ra_hf_gguf_tokenizer(file, dir));
    ra_modelfile_close(file);
    CHECK_OK(ra_tokenizer_open(dir, &model));
    assert_true(ra_tokenizer_hash(t) == ra_tokenizer_hash(model));
    assert_int_equal(ra_tokenizer_bos(model), 1);
    ra_tokenizer_close(t), ra_tokenizer_close(model);
    free(path);
    ra_buf_clear(&bytes);
    tinyspm_gguf(&bytes, &dummy, false);
    refused_bytes("bare.gguf", bytes.data, bytes.length, RA_ERR_FORMAT, "tokenizer.ggml.scores");
    ra_buf_free(&bytes);
    test_dir_remove(dir);
}

static void check_ids(const ra_tokenizer *t, const char *text, int flags, const int32_t *want, int64_t n)
{
    ra_ids got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), flags, &got));
    for (int64_t i = 0; i < n && i < got.count; i++) {
        if (got.id[i] != want[i]) fail_msg("\"%s\": id %lld is %d, not %d", text, (long long)i, got.id[i], want[i]);
    }
    assert_int_equal(got.count, n);
    ra_ids_free(&got);
}
#define CHECK_IDS(t, text, flags, ...) \
    check_ids(t, text, flags, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void test_tiktoken(void **state)
{
    (void)state;
    ra_buf bytes = {0};
    tinytok_tiktoken(&bytes);
    refused_bytes("x.tiktoken", bytes.data, bytes.length, RA_ERR_UNSUPPORTED, "281 tokens"); /* of which family? */
    char *dir = test_dir_make();
    free(write_bytes_to(dir, "tokenizer.model", bytes.data, bytes.length));
    put(dir, "config.json", "{\"model_type\": \"llama\"}");
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    CHECK_IDS(t, "hello world", 0, 259, 265);
    CHECK_IDS(t, "aab", 0, 273);
    CHECK_IDS(t, "aabx", 0, 273, 'x'); /* any two tokens merge whose union is one: a, ab */
    CHECK_IDS(t, "llo", 0, 257, 'o');
    CHECK_IDS(t, "1234", 0, 267, '3', '4');
    CHECK_IDS(t, "e\xCC\x81", 0, 'e', 0xCC, 0x81);
    /* Llama 3's special tokens behind the vocabulary, and its BOS */
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 281 + 256);
    assert_int_equal(ra_tokenizer_id(t, "<|eot_id|>"), 281 + 9);
    assert_int_equal(ra_tokenizer_id(t, "<|reserved_special_token_247|>"), 281 + 255);
    CHECK_IDS(t, "hello<|eot_id|>", RA_ENCODE_ADD_SPECIAL, 281, 259, 290);
    ra_tokenizer_close(t);
    /* Qwen by its class; the listed tokens, and no others; NFC */
    put(dir, "config.json", "{}");
    put(dir, "tokenizer_config.json",
        "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"eos_token\": \"<end>\", \"added_tokens_decoder\": {\"300\": {\"content\": "
        "\"<end>\", \"special\": true}}}");
    CHECK_OK(ra_tokenizer_open(dir, &t));
    CHECK_IDS(t, "e\xCC\x81<end>", RA_ENCODE_ADD_SPECIAL, 276, 300);
    CHECK_IDS(t, "12", 0, '1', '2');
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 301);
    assert_int_equal(ra_tokenizer_eos(t), 300);
    ra_tokenizer_close(t);
    test_dir_remove(dir);
    static const struct {
        const char *text, *word;
    } BAD[] = {{"IQ== 0\nIg== x\n", "line 2"}, {"IQ== 0\nIg=? 1\n", "line 2"}, {"IQ== 0\nIg== 0\n", "rank 0"},
               {"IQ== 0\n\nIg==\n", "line 3"}, {"IQ== 0\n 1\n", "line 2"},     {"IQ== 0\nIg== 99999999\n", "line 2"}};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        refused_bytes("x.tiktoken", BAD[i].text, strlen(BAD[i].text), RA_ERR_FORMAT, BAD[i].word);
    }
    ra_buf_free(&bytes);
}

static void test_vocab_merges(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *text = tinytok_json(&(tinytok){0});
    json_t *root = json_loads(text, 0, NULL), *model = json_object_get(root, "model"), *item;
    char *vocab = json_dumps(json_object_get(model, "vocab"), 0);
    ra_buf merges = {0};
    ra_buf_adds(&merges, "#version: 0.2\n");
    size_t i;
    json_array_foreach(json_object_get(model, "merges"), i, item) ra_buf_addf(&merges, "%s\r\n", json_string_value(item));
    put(dir, "vocab.json", vocab);
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open(dir, &t), RA_ERR_IO, dir, "merges.txt", NULL);
    put(dir, "merges.txt", merges.data);
    check_fails(ra_tokenizer_open(dir, &t), RA_ERR_UNSUPPORTED, "vocab.json", "tokenizer_class", NULL);
    put(dir, "tokenizer_config.json", "{\"tokenizer_class\": \"GPT2Tokenizer\"}");
    put(dir, "added_tokens.json", "{\"<user>\": 290}");
    CHECK_OK(ra_tokenizer_open(dir, &t));
    CHECK_IDS(t, "hello world", 0, 259, 265);
    CHECK_IDS(t, "aab<user>", 0, 'a', 268, 290); /* merges count, words do not */
    ra_tokenizer_close(t);
    put(dir, "merges.txt", "#version: 0.2\nh e\nh x\n");
    check_fails(ra_tokenizer_open(dir, &t), RA_ERR_FORMAT, "merges.txt", "line 3", NULL);
    put(dir, "added_tokens.json", "{\"<user>\": -1}");
    put(dir, "merges.txt", "");
    check_fails(ra_tokenizer_open(dir, &t), RA_ERR_FORMAT, "added_tokens.json", NULL);
    ra_buf_free(&merges);
    free(vocab), free(text);
    json_decref(root);
    test_dir_remove(dir);
}

/* One word of n characters without a boundary: the heap takes at most three entries a character, each of log n steps. */
static void test_long_word(void **state)
{
    (void)state;
    tinyspm plain = {0};
    ra_tokenizer *t = open_spm(plain, NULL);
    for (size_t n = 1 << 14; n <= 1 << 20; n <<= 3) {
        char *text = ra_realloc(NULL, n, 1);
        /* two words that no boundary cuts */
        for (size_t i = 0; i < n; i++) text[i] = i < n / 2 ? 'l' : "ab"[i & 1];
        ra_tok_work *w = ra_tok_take_work(t);
        int64_t before = w->bpe.pushes;
        ra_tok_return_work(t, w);
        ra_ids ids = {0};
        CHECK_OK(ra_tokenizer_encode(t, text, n, 0, &ids));
        w = ra_tok_take_work(t);
        int64_t pushes = w->bpe.pushes - before;
        ra_tok_return_work(t, w);
        print_message("# %zu characters: %lld heap entries\n", n, (long long)pushes);
        assert_true(pushes > 0 && pushes <= 3 * (int64_t)n);
        ra_buf back = {0}; /* and nothing is lost */
        CHECK_OK(ra_tokenizer_decode(t, ids.id, ids.count, false, &back));
        assert_int_equal(back.length, n);
        assert_memory_equal(back.data, text, n);
        ra_buf_free(&back);
        ra_ids_free(&ids);
        free(text);
    }
    ra_tokenizer_close(t);
}

/* Parts of a word are encoded apart where no merge crosses; the result is that of the whole, which the textbook gives. */
static void test_parts(void **state)
{
    (void)state;
    tinyspm plain = {0};
    ra_tokenizer *t = open_spm(plain, NULL);
    const ra_bpe *b = &t->bpe;
    assert_int_equal(ra_bpe_part(b, (const uint8_t *)"hello" MARK "he", 11), 5); /* nothing ends in o and a mark */
    assert_int_equal(ra_bpe_part(b, (const uint8_t *)"\xC3\xB6\xC3\xBC", 4), 4); /* unknown runs stay together */
    ra_rng rng = ra_rng_make(6, RA_STREAM_TEST);
    for (int round = 0; round < 2000; round++) {
        static const char *const BITS[] = {"h", "e", "l", "o", "a", "b", MARK, "w", "z", "q", "\xC3\xA9", "\xC3\xB6"};
        ra_buf text = {0};
        for (int n = 1 + (int)ra_rng_below(&rng, 70); n > 0; n--) ra_buf_adds(&text, BITS[ra_rng_below(&rng, 12)]);
        ra_bpe_work whole = {0}, parts = {0};
        const uint8_t *s = (const uint8_t *)text.data;
        const int32_t *ids, *some;
        size_t count = ra_bpe_word(b, &whole, s, text.length, &ids), done = 0;
        for (size_t at = 0, n; at < text.length; at += n) {
            n = ra_bpe_part(b, s + at, text.length - at);
            size_t k = ra_bpe_word(b, &parts, s + at, n, &some);
            assert_true(done + k <= count);
            assert_memory_equal(some, ids + done, k * sizeof *ids);
            done += k;
        }
        assert_int_equal(done, count);
        ra_bpe_work_free(&whole), ra_bpe_work_free(&parts);
        ra_buf_free(&text);
    }
    ra_tokenizer_close(t);
}

/* Many merges over few letters, against the textbook: the lowest rank, the leftmost of equals, one merge at a time. */
static void test_long_merges(void **state)
{
    (void)state;
    enum { SEED = 17, LETTERS = 4, MOST = 300 };
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    print_message("# seed %d\n", SEED);
    for (int round = 0; round < 60; round++) {
        ra_bpe b = {.unknown = -1};
        char text[64][17];
        int n = LETTERS;
        for (int i = 0; i < LETTERS; i++) snprintf(text[i], sizeof text[i], "%c", 'a' + i);
        while (n < 64) { /* every token the union of two before it */
            int left = (int)ra_rng_below(&rng, (uint64_t)n), right = (int)ra_rng_below(&rng, (uint64_t)n);
            char *both = ra_format("%.8s%.8s", text[left], text[right]);
            memcpy(text[n], both, strlen(both) + 1);
            free(both);
            bool known = false;
            for (int i = 0; i < n; i++) known |= !strcmp(text[i], text[n]);
            n += !known;
        }
        uint32_t rank[64];
        for (int i = 0; i < n; i++) {
            ra_bpe_add_token(&b, i, RA_TOKEN_NORMAL, text[i], strlen(text[i]));
            rank[i] = (uint32_t)ra_rng_below(&rng, 40); /* equal ranks, too */
        }
        ra_bpe_index(&b);
        ra_bpe_add_all_merges(&b, rank);
        ra_bpe_finish(&b);
        ra_bpe_work w = {0};
        for (int k = 0; k < 20; k++) {
            uint8_t word[MOST];
            int32_t want[MOST];
            const int32_t *got;
            size_t length = 1 + (size_t)ra_rng_below(&rng, MOST), count = length;
            for (size_t i = 0; i < length; i++)
                want[i] = (int32_t)ra_rng_below(&rng, LETTERS), word[i] = (uint8_t)('a' + want[i]);
            for (;;) {
                size_t best = count;
                for (size_t i = 0; i + 1 < count; i++) {
                    uint32_t r = ra_bpe_pair_of(&b, want[i], want[i + 1])->rank;
                    if (r != ~0u && (best == count || r < ra_bpe_pair_of(&b, want[best], want[best + 1])->rank)) best = i;
                }
                if (best == count) break;
                want[best] = ra_bpe_pair_of(&b, want[best], want[best + 1])->id;
                memmove(want + best + 1, want + best + 2, (count-- - best - 2) * sizeof *want);
            }
            assert_int_equal(ra_bpe_word(&b, &w, word, length, &got), count);
            assert_memory_equal(got, want, count * sizeof *want);
        }
        ra_bpe_work_free(&w);
        ra_bpe_free(&b);
    }
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_sentencepiece_decoding),
        cmocka_unit_test(test_config_beside),
        cmocka_unit_test(test_charsmap),
        cmocka_unit_test(test_sentencepiece_refusals),
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_tiktoken),
        cmocka_unit_test(test_vocab_merges),
        cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_long_merges),
    };
    return cmocka_run_group_tests_name("files of tokenizers", tests, NULL, NULL);
}
