/* Tokenizers on a small vocabulary whose ids can be told by hand: merges, added tokens, offsets, NFC, dropped bytes,
 * refusals, threads. */
#include <support/support.h>
#include <support/tinytok.h>

#include <realign/file.h>
#include <realign/rng.h>
#include <realign/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ra_tokenizer *open_tiny(const tinytok *spec)
{
    char *dir = test_dir_make();
    tinytok_write(dir, spec);
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(dir, &t));
    test_dir_remove(dir);
    return t;
}

static void refused(const tinytok *spec, ra_err code, const char *word)
{
    char *dir = test_dir_make();
    tinytok_write(dir, spec);
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open(dir, &t), code, "tokenizer.json", word, NULL);
    assert_null(t);
    test_dir_remove(dir);
}

/* `want`: ids; a character's id is its byte, merge k is 256 + k. */
#define CHECK_IDS(t, text, flags, ...) \
    check_ids(t, text, flags, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check_ids(const ra_tokenizer *t, const char *text, int flags, const int32_t *want, size_t n)
{
    ra_ids got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), flags, &got));
    for (size_t i = 0; i < n && (int64_t)i < got.count; i++) {
        if (got.id[i] != want[i]) fail_msg("\"%s\": id %zu is %d, not %d", text, i, got.id[i], want[i]);
    }
    assert_int_equal(got.count, n);
    ra_ids_free(&got);
}

#define CHECK_SPANS(t, text, ...) \
    check_spans(t, text, (const int64_t[][2]){__VA_ARGS__}, sizeof((const int64_t[][2]){__VA_ARGS__}) / sizeof(int64_t[2]))

static void check_spans(const ra_tokenizer *t, const char *text, const int64_t (*want)[2], size_t n)
{
    ra_ids got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), RA_ENCODE_OFFSETS, &got));
    assert_int_equal(got.count, n);
    for (size_t i = 0; i < n; i++) {
        if (got.begin[i] != want[i][0] || got.end[i] != want[i][1]) {
            fail_msg("\"%s\": token %zu spans %lld to %lld, not %lld to %lld", text, i, (long long)got.begin[i],
                     (long long)got.end[i], (long long)want[i][0], (long long)want[i][1]);
        }
    }
    ra_ids_free(&got);
}

static void test_merges(void **state)
{
    (void)state;
    for (int pairs = 0; pairs < 2; pairs++) {
        ra_tokenizer *t = open_tiny(&(tinytok){.merge_pairs = pairs});
        CHECK_IDS(t, "hello world", 0, 259, 265);
        CHECK_IDS(t, " hello", 0, 260);
        CHECK_IDS(t, "it's", 0, 'i', 't', 280);
        CHECK_IDS(t, "aab", 0, 'a', 268); /* "ab" ranks before "aa" */
        CHECK_IDS(t, "aaa", 0, 271, 'a'); /* of equal ranks the left one */
        CHECK_IDS(t, "ababba", 0, 274);
        assert_int_equal(ra_tokenizer_vocabulary_size(t), 256 + tinytok_merges());
        assert_int_equal(ra_tokenizer_id(t, "\xC4\xA0hello"), 260);
        assert_int_equal(ra_tokenizer_id(t, "nope"), -1);
        assert_int_equal(ra_tokenizer_bos(t), -1);
        CHECK_SPANS(t, "hello world", {0, 5}, {5, 11});
        CHECK_SPANS(t, "\xC3\xA9x\xE2\x82\xAC", {0, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 6});
        ra_tokenizer_close(t);
    }
    ra_tokenizer *t = open_tiny(&(tinytok){.model_extra = "\"ignore_merges\": true,"});
    CHECK_IDS(t, "aab", 0, 273); /* a token as a whole */
    ra_tokenizer_close(t);
}

static void test_hash(void **state)
{
    (void)state;
    ra_tokenizer *a = open_tiny(&(tinytok){0}), *b = open_tiny(&(tinytok){.merge_pairs = true});
    ra_tokenizer *c = open_tiny(&(tinytok){.normalizer = "{\"type\": \"NFC\"}"});
    assert_true(ra_tokenizer_hash(a) == ra_tokenizer_hash(b));
    assert_true(ra_tokenizer_hash(a) != ra_tokenizer_hash(c));
    ra_tokenizer_close(a), ra_tokenizer_close(b), ra_tokenizer_close(c);
}

/* The textbook algorithm: of all pairs the lowest rank, leftmost; again until there is none. */
static int naive(const char *word, int n, int32_t *id)
{
    char *piece[4096];
    for (int i = 0; i < n; i++) piece[i] = ra_strndup(word + i, 1);
    for (;;) {
        int best = tinytok_merges(), at = -1;
        for (int i = 0; i + 1 < n; i++) {
            for (int k = 0; k < best; k++) {
                const char *left, *right;
                tinytok_merge(k, &left, &right);
                if (!strcmp(piece[i], left) && !strcmp(piece[i + 1], right)) best = k, at = i;
            }
        }
        if (at < 0) break;
        char *both = ra_format("%s%s", piece[at], piece[at + 1]);
        free(piece[at]), free(piece[at + 1]);
        piece[at] = both;
        memmove(piece + at + 1, piece + at + 2, (size_t)(n - at - 2) * sizeof *piece);
        n--;
    }
    for (int i = 0; i < n; i++) {
        id[i] = (unsigned char)piece[i][0];
        for (int k = 0; k < tinytok_merges() && piece[i][1]; k++) {
            const char *left, *right;
            tinytok_merge(k, &left, &right);
            char *both = ra_format("%s%s", left, right);
            if (!strcmp(both, piece[i])) id[i] = 256 + k;
            free(both);
        }
        free(piece[i]);
    }
    return n;
}

/* Words of all lengths (cached, short, long) against the textbook. */
static void test_word_lengths(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){0});
    ra_rng rng = ra_rng_make(11, RA_STREAM_TEST);
    for (int round = 0; round < 600; round++) {
        char word[513];
        int n = 1 + (int)ra_rng_below(&rng, round % 3 ? 60 : 512);
        for (int i = 0; i < n; i++) word[i] = "aabbhelo"[ra_rng_below(&rng, round % 2 ? 3 : 8)];
        word[n] = '\0';
        int32_t want[512];
        int count = naive(word, n, want);
        check_ids(t, word, 0, want, (size_t)count);
        check_ids(t, word, 0, want, (size_t)count); /* from the cache */
    }
    ra_tokenizer_close(t);
}

static const char ADDED[] =
    "[{\"id\": 300, \"content\": \"<s>\", \"special\": true}, {\"id\": 301, \"content\": \"<user>\", \"special\": false, "
    "\"normalized\": false}, {\"id\": 302, \"content\": \"<sp>\", \"special\": true, \"lstrip\": true, \"rstrip\": true}, "
    "{\"id\": 303, \"content\": \"word\", \"special\": false, \"single_word\": true}, "
    "{\"id\": 304, \"content\": \"<s><s>\", \"special\": true}]";

static void test_added_tokens(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){.added = ADDED, .bos = "<s>", .eos = "<sp>"});
    CHECK_IDS(t, "hello<s> hello", 0, 259, 300, 260);
    CHECK_IDS(t, "<s><s><s>", 0, 304, 300); /* longest first */
    CHECK_IDS(t, "<s", 0, '<', 's');
    CHECK_IDS(t, "hello<s>", RA_ENCODE_PLAIN, 259, '<', 's', '>');
    CHECK_IDS(t, "<user><s>", RA_ENCODE_PLAIN, 301, '<', 's', '>'); /* not special: still a token */
    CHECK_IDS(t, "hello \n<sp>  \nhello", 0, 259, 302, 259);
    CHECK_SPANS(t, "hello \n<sp>  \nhello", {0, 5}, {5, 14}, {14, 19});
    CHECK_IDS(t, "word", 0, 303);
    CHECK_IDS(t, "sword", 0, 's', 'w', 262, 'd');
    CHECK_IDS(t, "word_", 0, 'w', 262, 'd', '_');
    CHECK_IDS(t, "(word)", 0, '(', 303, ')');
    assert_int_equal(ra_tokenizer_bos(t), 300);
    assert_int_equal(ra_tokenizer_eos(t), 302);
    assert_int_equal(ra_tokenizer_id(t, "<user>"), 301);
    assert_int_equal(ra_tokenizer_vocabulary_size(t), 305);

    ra_buf text = {0};
    CHECK_OK(ra_tokenizer_decode(t, (const int32_t[]){300, 260, 301, 299, 100000}, 5, false, &text));
    assert_string_equal(text.data, "<s> hello<user>");
    ra_buf_clear(&text);
    CHECK_OK(ra_tokenizer_decode(t, (const int32_t[]){300, 260, 301}, 3, true, &text));
    assert_string_equal(text.data, " hello<user>");
    ra_buf_clear(&text);
    CHECK_OK(ra_tokenizer_decode(t, (const int32_t[]){0xE2, 0x82, 'a', 0xC3, 0xA9}, 5, true, &text));
    assert_string_equal(text.data, "\xEF\xBF\xBD"
                                   "a\xC3\xA9");
    check_fails(ra_tokenizer_decode(t, (const int32_t[]){1, -1}, 2, true, &text), RA_ERR_DATA, "-1", "position 1", NULL);
    ra_buf_free(&text);
    ra_tokenizer_close(t);
}

static void test_add_special(void **state)
{
    (void)state;
    const char *post =
        "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": \"TemplateProcessing\", \"single\": "
        "[{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
        "{\"SpecialToken\": {\"id\": \"<sp>\", \"type_id\": 0}}], \"special_tokens\": {\"<s>\": {\"ids\": [300]}, "
        "\"<sp>\": {\"ids\": [302]}}}]}";
    ra_tokenizer *t = open_tiny(&(tinytok){.added = ADDED, .post_processor = post});
    CHECK_IDS(t, "hello", RA_ENCODE_ADD_SPECIAL, 300, 259, 302);
    CHECK_IDS(t, "", RA_ENCODE_ADD_SPECIAL, 300, 302);
    CHECK_IDS(t, "hello", 0, 259);
    ra_ids ids = {0};
    CHECK_OK(ra_tokenizer_encode(t, "hello", 5, RA_ENCODE_ADD_SPECIAL | RA_ENCODE_OFFSETS, &ids));
    assert_int_equal(ids.end[0], 0);
    assert_int_equal(ids.begin[2], 5);
    ra_ids_free(&ids);
    ra_tokenizer_close(t);
}

static void test_other_frames(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(
        &(tinytok){.added = ADDED,
                   .post_processor = "{\"type\": \"RobertaProcessing\", \"cls\": [\"<s>\", 300], \"sep\": [\"<sp>\", 302]}"});
    CHECK_IDS(t, "hello", RA_ENCODE_ADD_SPECIAL, 300, 259, 302);
    ra_tokenizer_close(t);
    refused(&(tinytok){.post_processor = "{\"type\": \"BertProcessing\", \"cls\": [\"<s>\"], \"sep\": [\"<sp>\", 302]}"},
            RA_ERR_FORMAT, "post_processor");
}

static void test_digits_and_prefix_space(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){
        .pre_tokenizer = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, "
                         "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}"});
    CHECK_IDS(t, "12a", 0, '1', '2', 'a');
    ra_tokenizer_close(t);
    t = open_tiny(&(tinytok){0});
    CHECK_IDS(t, "12a", 0, 267, 'a');
    ra_tokenizer_close(t);
    t = open_tiny(&(tinytok){.pre_tokenizer = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}"});
    CHECK_IDS(t, "hello hello", 0, 260, 260);
    CHECK_SPANS(t, "hello hello", {0, 5}, {5, 11});
    CHECK_IDS(t, " hello", 0, 260);
    CHECK_SPANS(t, "(", {0, 0}, {0, 1}); /* the space in front is nowhere in the text */
    ra_tokenizer_close(t);
    t = open_tiny(&(tinytok){.pre_tokenizer =
                                 "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"String\": "
                                 "\"ll\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", "
                                 "\"add_prefix_space\": false, \"use_regex\": false}]}"});
    CHECK_IDS(t, "hello", 0, 256, 257, 'o');
    ra_tokenizer_close(t);
}

static void test_nfc(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){.normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}"});
    CHECK_IDS(t, "e\xCC\x81 he", 0, 276, ' ', 256);
    CHECK_SPANS(t, "e\xCC\x81 he", {0, 3}, {3, 4}, {4, 6});
    CHECK_SPANS(t, "he e\xCC\x81", {0, 2}, {2, 6});
    CHECK_IDS(t, "\xE2\x84\xAB", 0, 0xC3, 0x85); /* ANGSTROM SIGN becomes A WITH RING */
    CHECK_SPANS(t, "\xE2\x84\xAB", {0, 3}, {0, 3});
    CHECK_SPANS(t, "\xC3\xA9\xC3\xA9", {0, 2}, {2, 4}); /* nothing to do */
    ra_tokenizer_close(t);
    t = open_tiny(&(tinytok){0});
    CHECK_IDS(t, "e\xCC\x81", 0, 'e', 0xCC, 0x81);
    ra_tokenizer_close(t);
}

static void test_missing_byte(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){.missing_byte = 'x'});
    CHECK_IDS(t, "xhexlloxx", 0, 259); /* dropped, and its neighbours meet, as in Hugging Face */
    CHECK_SPANS(t, "xhexlloxx", {1, 7});
    check_ids(t, "xx", 0, NULL, 0);
    ra_tokenizer_close(t);
}

static void test_invalid_utf8(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){0});
    static const struct {
        const char *text;
        const char *offset;
    } BAD[] = {{"hello \xFF", "byte 6"},       {"\xC3", "byte 0"},  {"ab\xC0\x80", "byte 2"},       {"\xED\xA0\x80", "byte 0"},
               {"12345678\xE2\x82", "byte 8"}, {"a\x80", "byte 1"}, {"\xF4\x90\x80\x80", "byte 0"}, {"\xE0\x80\x80", "byte 0"}};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        ra_ids ids = {0};
        check_fails(ra_tokenizer_encode(t, BAD[i].text, strlen(BAD[i].text), 0, &ids), RA_ERR_DATA, "not UTF-8", BAD[i].offset,
                    NULL);
        assert_int_equal(ids.count, 0);
        ra_ids_free(&ids);
    }
    check_ids(t, "", 0, NULL, 0);
    ra_ids ids = {0};
    CHECK_OK(ra_tokenizer_encode(t, "a\0b", 3, 0, &ids)); /* NUL is a character like any other */
    assert_int_equal(ids.count, 3);
    ra_ids_free(&ids);
    ra_tokenizer_close(t);
}

static void test_refusals(void **state)
{
    (void)state;
    refused(&(tinytok){.type = "WordPiece"}, RA_ERR_UNSUPPORTED, "WordPiece");
    refused(&(tinytok){.type = "Unigram"}, RA_ERR_UNSUPPORTED, "Unigram");
    refused(&(tinytok){.type = "WordLevel"}, RA_ERR_UNSUPPORTED, "WordLevel");
    refused(&(tinytok){.normalizer = "{\"type\": \"BertNormalizer\"}"}, RA_ERR_UNSUPPORTED, "BertNormalizer");
    refused(&(tinytok){.pre_tokenizer = "{\"type\": \"UnicodeScripts\"}"}, RA_ERR_UNSUPPORTED, "UnicodeScripts");
    refused(&(tinytok){.decoder = "{\"type\": \"CTC\"}"}, RA_ERR_UNSUPPORTED, "CTC");
    refused(&(tinytok){.post_processor = "{\"type\": \"Unheard\"}"}, RA_ERR_UNSUPPORTED, "Unheard");
    refused(&(tinytok){.model_extra = "\"byte_fallback\": true,", .missing_byte = 'x'}, RA_ERR_UNSUPPORTED, "byte_fallback");
    refused(&(tinytok){.model_extra = "\"end_of_word_suffix\": \"</w>\","}, RA_ERR_UNSUPPORTED, "end_of_word_suffix");
    refused(&(tinytok){.pre_tokenizer =
                           "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, "
                           "\"behavior\": \"Isolated\"}, {\"type\": \"ByteLevel\"}]}"},
            RA_ERR_UNSUPPORTED, "regular expression");
    refused(&(tinytok){.added = "[{\"id\": -1, \"content\": \"<x>\"}]"}, RA_ERR_FORMAT, "added_tokens[0]");
    refused(&(tinytok){.added = "[{\"id\": 99999999, \"content\": \"<x>\"}]"}, RA_ERR_FORMAT, "added_tokens[0]");
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open("/nonexistent", &t), RA_ERR_IO, "/nonexistent", NULL);
    char *dir = test_dir_make();
    check_fails(ra_tokenizer_open(dir, &t), RA_ERR_IO, dir, "tokenizer.json", NULL);
    test_dir_remove(dir);
}

static void broken_file(const char *text, const char *word)
{
    char *dir = test_dir_make(), *path = ra_path_join(dir, "tokenizer.json");
    CHECK_OK(ra_file_write(path, text, strlen(text)));
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open(path, &t), RA_ERR_FORMAT, path, word, NULL);
    free(path);
    test_dir_remove(dir);
}

static void test_broken_files(void **state)
{
    (void)state;
    broken_file("{", "line 1");
    broken_file("[]", "not an object");
    broken_file("{\"model\": 3}", "no model");
#define AROUND "{\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", "
    broken_file(AROUND "\"vocab\": {}, \"merges\": []}}", "model.vocab");
    broken_file(AROUND "\"vocab\": {\"a\": 0}}}", "model.merges");
    broken_file(AROUND "\"vocab\": {\"a\": \"0\"}, \"merges\": []}}", "\"a\"");
    broken_file(AROUND "\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "\"b\"");
    broken_file(AROUND "\"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}}", "merges[0]");
    broken_file(AROUND "\"vocab\": {\"a\": 0, \"aa\": 1}, \"merges\": [\"a a\", \"a\"]}}", "merges[1]");
    broken_file(AROUND "\"vocab\": {\"a\": 0, \"aa\": 1}, \"merges\": [[\"a\", 1]]}}", "merges[0]");
}

static char *write_gguf(const char *dir, const char *model, const char *pre, bool merges)
{
    ra_buf bytes = {0};
    tinytok_gguf(&bytes, model, pre, merges);
    char *path = ra_path_join(dir, "tiny.gguf");
    CHECK_OK(ra_file_write(path, bytes.data, bytes.length));
    ra_buf_free(&bytes);
    return path;
}

static void refused_gguf(const char *model, const char *pre, bool merges, ra_err code, const char *word)
{
    char *dir = test_dir_make(), *path = write_gguf(dir, model, pre, merges);
    ra_tokenizer *t;
    check_fails(ra_tokenizer_open(path, &t), code, "tiny.gguf", word, NULL);
    free(path);
    test_dir_remove(dir);
}

/* The same vocabulary in both files: the same hash, so the same ids for every text. */
static void test_gguf(void **state)
{
    (void)state;
    static const struct {
        const char *pre, *pre_tokenizer;
    } SAME[] = {{"gpt-2", NULL},
                {"smollm",
                 "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": "
                 "\"ByteLevel\", \"add_prefix_space\": false}]}"}};
    const char *added =
        "[{\"id\": 281, \"content\": \"<s>\", \"special\": true}, {\"id\": 282, \"content\": \"<user>\", \"normalized\": false}]";
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) {
        char *dir = test_dir_make(), *path = write_gguf(dir, "gpt2", SAME[i].pre, true);
        ra_tokenizer *t, *json = open_tiny(&(tinytok){.added = added, .pre_tokenizer = SAME[i].pre_tokenizer});
        CHECK_OK(ra_tokenizer_open(path, &t));
        CHECK_IDS(t, "hello<s> world<user>", 0, 259, 281, 265, 282);
        CHECK_IDS(t, "hello", RA_ENCODE_ADD_SPECIAL, 259);
        assert_int_equal(ra_tokenizer_bos(t), 281);
        assert_int_equal(ra_tokenizer_eos(t), -1);
        assert_true(ra_tokenizer_hash(t) == ra_tokenizer_hash(json));
        ra_tokenizer_close(t), ra_tokenizer_close(json);
        free(path);
        test_dir_remove(dir);
    }
    char *dir = test_dir_make(), *path = write_gguf(dir, "gpt2", "llama-bpe", true);
    ra_tokenizer *t;
    CHECK_OK(ra_tokenizer_open(path, &t));
    CHECK_IDS(t, "aab", RA_ENCODE_ADD_SPECIAL, 281, 273); /* whole words first, and a BOS */
    ra_tokenizer_close(t);
    free(path);
    path = write_gguf(dir, "gpt2", NULL, true);
    CHECK_OK(ra_tokenizer_open(path, &t));
    CHECK_IDS(t, "hello world", 0, 259, 265);
    ra_tokenizer_close(t);
    free(path);
    test_dir_remove(dir);
    refused_gguf("bert", NULL, true, RA_ERR_UNSUPPORTED, "\"bert\"");
    refused_gguf("llama", NULL, true, RA_ERR_FORMAT, "tokenizer.ggml.scores");
    refused_gguf("gpt2", "poro-chat", true, RA_ERR_UNSUPPORTED, "poro-chat");
    refused_gguf("gpt2", "gpt-2", false, RA_ERR_FORMAT, "tokenizer.ggml.merges");
}

/* Many threads on one tokenizer give what one gives. */
static void test_threads(void **state)
{
    (void)state;
    ra_tokenizer *t = open_tiny(&(tinytok){.normalizer = "{\"type\": \"NFC\"}", .added = ADDED});
    enum { TEXTS = 400 };
    uint64_t one[TEXTS], many[TEXTS];
    for (int pass = 0; pass < 2; pass++) {
        uint64_t *sums = pass ? many : one;
#pragma omp parallel for num_threads(pass ? 8 : 1) schedule(dynamic, 1)
        for (int i = 0; i < TEXTS; i++) {
            ra_rng rng = ra_rng_make(3, 100 + (uint64_t)i);
            ra_buf text = {0};
            while (text.length < 300) {
                static const char *const BITS[] = {"hello", " world", "ab", "e\xCC\x81", "<s>", "12", " ", "aabba"};
                ra_buf_adds(&text, BITS[ra_rng_below(&rng, 8)]);
            }
            ra_ids ids = {0};
            sums[i] = ra_tokenizer_encode(t, text.data, text.length, RA_ENCODE_OFFSETS, &ids) != RA_OK;
            for (int64_t k = 0; k < ids.count; k++) sums[i] = sums[i] * 31 + (uint64_t)ids.id[k] * 7 + (uint64_t)ids.begin[k];
            ra_ids_free(&ids);
            ra_buf_free(&text);
        }
    }
    assert_memory_equal(one, many, sizeof one);
    ra_tokenizer_close(t);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_word_lengths),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_add_special),
        cmocka_unit_test(test_other_frames),
        cmocka_unit_test(test_digits_and_prefix_space),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_missing_byte),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
