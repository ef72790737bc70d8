/* Normalisers, pre-tokenizers and decoders of tokenizer.json over a small vocabulary of characters: the pieces each combination
 * gives (as Hugging Face tokenizers 0.23 gives them), and where each stands in the text, to the byte. */
#include <support/support.h>

#include <jansson.h>
#include <realign/file.h>
#include <realign/mem.h>
#include <realign/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81"

/* <unk>, ASCII from the space on, a few more; then what the merges make. */
static const char *const MORE[] = {MARK, "\xC3\xA9", "\xCC\x81", "\n"};
static const char *const MERGES[][2] = {{"a", "b"}, {MARK, "h"}, {"h", "e"}, {MARK "h", "e"}, {"l", "l"},  {"ll", "o"},
                                        {"1", "2"}, {" ", "h"},  {" ", " "}, {MARK, MARK},    {"ab", MARK}};

typedef struct {
    const char *normalizer, *pre_tokenizer, *decoder, *added, *model; /* JSON; NULL: null, or nothing */
} steps;

static const char *or_null(const char *json)
{
    return json ? json : "null";
}

static ra_err open_steps(const steps *s, ra_tokenizer **out)
{
    json_t *vocab = json_pack("{s:i}", "<unk>", 0), *merges = json_array();
    int next = 1;
    for (char c = ' '; c <= '~'; c++) json_object_set_new(vocab, (char[]){c, 0}, json_integer(next++));
    for (size_t i = 0; i < sizeof MORE / sizeof *MORE; i++) json_object_set_new(vocab, MORE[i], json_integer(next++));
    for (size_t i = 0; i < sizeof MERGES / sizeof *MERGES; i++) {
        char *both = ra_format("%s%s", MERGES[i][0], MERGES[i][1]);
        json_object_set_new(vocab, both, json_integer(next++));
        json_array_append_new(merges, json_pack("[ss]", MERGES[i][0], MERGES[i][1]));
        free(both);
    }
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        json_object_set_new(vocab, name, json_integer(next++));
    }
    char *vocab_text = json_dumps(vocab, 0), *merges_text = json_dumps(merges, 0);
    char *text =
        ra_format("{\"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, \"decoder\": %s, \"model\": {\"type\": "
                  "\"BPE\", %s \"vocab\": %s, \"merges\": %s}}",
                  s->added ? s->added : "[]", or_null(s->normalizer), or_null(s->pre_tokenizer), or_null(s->decoder),
                  s->model ? s->model : "\"unk_token\": \"<unk>\",", vocab_text, merges_text);
    char *dir = test_dir_make(), *path = ra_path_join(dir, "tokenizer.json");
    CHECK_OK(ra_file_write(path, text, strlen(text)));
    ra_err err = ra_tokenizer_open(path, out);
    free(path), free(text), free(vocab_text), free(merges_text);
    json_decref(vocab), json_decref(merges);
    test_dir_remove(dir);
    return err;
}

static ra_tokenizer *opened(steps s)
{
    ra_tokenizer *t;
    CHECK_OK(open_steps(&s, &t));
    return t;
}

/* The pieces with bars between; where there is no decoder, an id's text is its token. */
static void check_pieces(const ra_tokenizer *t, const char *text, const char *want)
{
    ra_ids ids = {0};
    ra_buf got = {0};
    CHECK_OK(ra_tokenizer_encode(t, text, strlen(text), 0, &ids));
    ra_buf_adds(&got, "");
    for (int64_t i = 0; i < ids.count; i++) {
        if (i) ra_buf_adds(&got, "|");
        CHECK_OK(ra_tokenizer_decode(t, &ids.id[i], 1, false, &got));
    }
    if (strcmp(got.data, want) != 0) fail_msg("\"%s\": \"%s\", not \"%s\"", text, got.data, want);
    ra_buf_free(&got);
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

static void test_normalisers(void **state)
{
    (void)state;
#define REPLACE_SPACE "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}"
    static const struct {
        const char *normalizer, *text, *pieces, *spans;
    } CASES[] = {
        {REPLACE_SPACE, "a he  b", "a|" MARK "he|" MARK MARK "|b", "0-1 1-4 4-6 6-7"},
        {"{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[0-9]+\"}, \"content\": \"ab\"}", "x123y", "x|ab|y", "0-1 1-4 4-5"},
        {"{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"content\": \"\"}", "a b", "ab", "0-3"},
        {"{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}", "he", MARK "he", "0-2"},
        {"{\"type\": \"Prepend\", \"prepend\": \"ab\"}", "x", "ab|x", "0-0 0-1"},
        {"{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}", " \xC2\xA0he \n", "he", "3-5"},
        {"{\"type\": \"Strip\", \"strip_left\": false, \"strip_right\": true}", " he ", " |he", "0-1 1-3"},
        {"{\"type\": \"Lowercase\"}", "HE", "he", "0-2"},
        {"{\"type\": \"Lowercase\"}", "\xC4\xB0!", "i|<unk>|!", "0-2 0-2 2-3"}, /* one character becomes two */
        {"{\"type\": \"NFD\"}", "\xC3\xA9!", "e|\xCC\x81|!", "0-2 0-2 2-3"},
        {"{\"type\": \"NFC\"}", "e\xCC\x81!", "\xC3\xA9|!", "0-3 3-4"},
        {"{\"type\": \"NFKC\"}", "\xEF\xBC\xA1\xEF\xBC\xA2\xEF\xAC\x81", "A|B|f|i", "0-3 3-6 6-9 6-9"},
        {"{\"type\": \"NFKD\"}", "\xEF\xBC\xA1\xC3\xA9", "A|e|\xCC\x81", "0-3 3-5 3-5"},
        /* one after the other: places go through all */
        {"{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}, "
         "{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}, " REPLACE_SPACE ", {\"type\": \"NFC\"}]}",
         "  he e\xCC\x81 ", MARK "he|" MARK "|\xC3\xA9", "2-4 4-5 5-8"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ra_tokenizer *t =
            opened((steps){.normalizer = CASES[i].normalizer, .model = strstr(CASES[i].normalizer, "Lower") ? NULL : ""});
        check_pieces(t, CASES[i].text, CASES[i].pieces);
        check_spans(t, CASES[i].text, CASES[i].spans);
        check_pieces(t, "", "");
        ra_tokenizer_close(t);
    }
}

#define SPLIT(pattern, behavior, invert) \
    "{\"type\": \"Split\", \"pattern\": " pattern ", \"behavior\": \"" behavior "\", \"invert\": " invert "}"

static void test_split_behaviours(void **state)
{
    (void)state;
    /* With ignore_merges a piece that is a token stays whole, so that pieces can be seen: "12", " h", "ab". */
    static const struct {
        const char *pre, *text, *pieces;
    } CASES[] = {
        {SPLIT("{\"String\": \"b\"}", "Isolated", "false"), "abab", "a|b|a|b"},
        {SPLIT("{\"String\": \"a\"}", "Removed", "false"), "1aab2", "1|b|2"},
        {SPLIT("{\"String\": \"a\"}", "Removed", "true"), "1aab2", "a|a"},
        {SPLIT("{\"String\": \"a\"}", "MergedWithPrevious", "false"), "1abab", "1|a|b|a|b"},
        {SPLIT("{\"String\": \"1\"}", "MergedWithPrevious", "false"), "a1ab12", "a|1|ab|1|2"},
        {SPLIT("{\"String\": \"1\"}", "MergedWithNext", "false"), "a12ab1", "a|12|ab|1"},
        {SPLIT("{\"String\": \"a\"}", "MergedWithNext", "false"), "xababa", "x|ab|ab|a"},
        {SPLIT("{\"Regex\": \"[ab]\"}", "Contiguous", "false"), "abhe", "ab|he"},
        {SPLIT("{\"Regex\": \"[ab]\"}", "Isolated", "false"), "abhe", "a|b|he"},
        {SPLIT("{\"Regex\": \"x*\"}", "Isolated", "false"), "ab", "a|b"}, /* an empty match cuts, too */
        {"{\"type\": \"Digits\", \"individual_digits\": true}", "12ab", "1|2|ab"},
        {"{\"type\": \"Digits\", \"individual_digits\": false}", "12ab", "12|ab"},
        {"{\"type\": \"WhitespaceSplit\"}", " he  ab", "he|ab"},
        {"{\"type\": \"Whitespace\"}", "he! !!", "he|!|!|!"},
        {"{\"type\": \"Punctuation\", \"behavior\": \"Removed\"}", "a,b", "a|b"},
        {"{\"type\": \"Punctuation\"}", "a,b", "a|,|b"},
        {"{\"type\": \"BertPreTokenizer\"}", "ab he,12", "ab|he|,|12"},
        {"{\"type\": \"CharDelimiterSplit\", \"delimiter\": \"x\"}", "axhexx", "a|he"},
        {"{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, {\"type\": \"Digits\", "
         "\"individual_digits\": true}]}",
         "12 ab", "1|2|ab"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ra_tokenizer *t = opened((steps){.pre_tokenizer = CASES[i].pre});
        check_pieces(t, CASES[i].text, CASES[i].pieces);
        ra_tokenizer_close(t);
    }
}

static void test_metaspace(void **state)
{
    (void)state;
#define METASPACE(scheme, split) \
    "{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\", \"prepend_scheme\": \"" scheme "\", \"split\": " split "}"
    static const char ADDED[] = "[{\"id\": 900, \"content\": \"<x>\", \"special\": true}]";
    static const struct {
        const char *pre, *text, *pieces, *spans;
    } CASES[] = {
        {METASPACE("always", "true"), "he he<x>he", MARK "he|" MARK "he|<x>|" MARK "he", "0-2 2-5 5-8 8-10"},
        {METASPACE("first", "true"), "he he<x>he", MARK "he|" MARK "he|<x>|he", "0-2 2-5 5-8 8-10"},
        {METASPACE("never", "true"), "he he", "he|" MARK "he", "0-2 2-5"},
        {METASPACE("always", "true"), " he", MARK "he", "0-3"},            /* there is a mark */
        {METASPACE("never", "true"), "ab he", "ab|" MARK "he", "0-2 2-5"}, /* cut before the mark */
        {METASPACE("never", "false"), "ab x", "ab" MARK "|x", "0-3 3-4"},
        {METASPACE("never", "true"), "ab x", "ab|" MARK "|x", "0-2 2-3 3-4"},
        {"{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\", \"add_prefix_space\": false}", "he", "he", "0-2"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ra_tokenizer *t = opened((steps){.pre_tokenizer = CASES[i].pre, .added = ADDED});
        check_pieces(t, CASES[i].text, CASES[i].pieces);
        check_spans(t, CASES[i].text, CASES[i].spans);
        ra_tokenizer_close(t);
    }
}

static void test_unknowns(void **state)
{
    (void)state;
    static const struct {
        const char *model, *text, *pieces, *spans;
    } CASES[] = {
        {"\"unk_token\": \"<unk>\", \"fuse_unk\": true,",
         "a\xC3\xB6\xC3\xBC"
         "b",
         "a|<unk>|b", "0-1 1-5 5-6"},
        {"\"unk_token\": \"<unk>\", \"fuse_unk\": false,",
         "a\xC3\xB6\xC3\xBC"
         "b",
         "a|<unk>|<unk>|b", "0-1 1-3 3-5 5-6"},
        {"\"unk_token\": \"<unk>\", \"byte_fallback\": true,",
         "a\xC3\xB6"
         "b",
         "a|<0xC3>|<0xB6>|b", "0-1 1-2 2-3 3-4"},
        {"",
         "a\xC3\xB6"
         "b\xC3\xB6",
         "ab", "0-4"}, /* dropped, and its neighbours meet */
        {"\"ignore_merges\": true,", "ab", "ab", "0-2"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ra_tokenizer *t = opened((steps){.model = CASES[i].model});
        check_pieces(t, CASES[i].text, CASES[i].pieces);
        check_spans(t, CASES[i].text, CASES[i].spans);
        ra_tokenizer_close(t);
    }
}

/* Added tokens that are found in the normal text have their own text normalised. */
static void test_added_normalized(void **state)
{
    (void)state;
    ra_tokenizer *t = opened((steps){
        .normalizer = "{\"type\": \"Lowercase\"}",
        .added =
            "[{\"id\": 900, \"content\": \"<X>\", \"normalized\": true}, {\"id\": 901, \"content\": \"<Y>\", \"normalized\": "
            "false}]"});
    check_pieces(t, "A<x>b<X><Y><y>", "a|<X>|b|<X>|<Y>|<|y|>");
    check_spans(t, "A<x>b", "0-1 1-4 4-5");
    ra_tokenizer_close(t);
}

static void check_decoder(const char *decoder, const char *const *tokens, const char *want)
{
    ra_tokenizer *t = opened((steps){.decoder = decoder});
    int32_t ids[16];
    int n = 0;
    for (; tokens[n]; n++) {
        ids[n] = ra_tokenizer_id(t, tokens[n]);
        assert_true(ids[n] >= 0);
    }
    ra_buf got = {0};
    CHECK_OK(ra_tokenizer_decode(t, ids, n, false, &got));
    if (strcmp(got.data, want) != 0) fail_msg("decoder %s: \"%s\", not \"%s\"", decoder ? decoder : "null", got.data, want);
    ra_buf_free(&got);
    ra_tokenizer_close(t);
}
#define TOKENS(...)       \
    (const char *const[]) \
    {                     \
        __VA_ARGS__, NULL \
    }

static void test_decoders(void **state)
{
    (void)state;
#define DECODE_MARK "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}"
#define GEMMA "{\"type\": \"Sequence\", \"decoders\": [" DECODE_MARK ", {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}"
    check_decoder(NULL, TOKENS("ab", "he"), "ab he");
    check_decoder("{\"type\": \"Fuse\"}", TOKENS("ab", MARK "he"), "ab" MARK "he");
    check_decoder(GEMMA, TOKENS(MARK "he", "<0xC3>", "<0xB6>", "a"),
                  " he\xC3\xB6"
                  "a");
    check_decoder(GEMMA, TOKENS("<0xC3>", "a", "<0xC3>", "<0xC3>"),
                  "\xEF\xBF\xBD"
                  "a\xEF\xBF\xBD\xEF\xBF\xBD");
    check_decoder("{\"type\": \"Sequence\", \"decoders\": [" DECODE_MARK
                  ", {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": "
                  "\" \", \"start\": 1, \"stop\": 0}]}",
                  TOKENS(MARK MARK, MARK "he", MARK), "  he ");
    check_decoder("{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\", \"prepend_scheme\": \"always\", \"split\": true}",
                  TOKENS(MARK "he", MARK "he", "ab" MARK), "he heab ");
    check_decoder("{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\", \"prepend_scheme\": \"never\", \"split\": true}",
                  TOKENS(MARK "he"), " he");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        steps s;
        ra_err code;
        const char *word;
    } CASES[] = {
        {{.normalizer = "{\"type\": \"Precompiled\"}"}, RA_ERR_UNSUPPORTED, "Precompiled"},
        {{.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": \"\"}"},
         RA_ERR_UNSUPPORTED,
         "regular expression"},
        {{.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"\"}"}, RA_ERR_FORMAT, "Replace"},
        {{.normalizer = "{\"type\": \"Prepend\"}"}, RA_ERR_FORMAT, "prepend"},
        {{.pre_tokenizer = SPLIT("{\"String\": \"a\"}", "Sideways", "false")}, RA_ERR_UNSUPPORTED, "Sideways"},
        {{.pre_tokenizer = SPLIT("{}", "Removed", "false")}, RA_ERR_FORMAT, "pattern"},
        {{.pre_tokenizer = METASPACE("sometimes", "true")}, RA_ERR_UNSUPPORTED, "sometimes"},
        {{.pre_tokenizer = "{\"type\": \"Metaspace\", \"replacement\": \"xy\"}"}, RA_ERR_FORMAT, "Metaspace"},
        {{.decoder = "{\"type\": \"WordPiece\"}"}, RA_ERR_UNSUPPORTED, "WordPiece"},
        {{.decoder = "{\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0}"}, RA_ERR_FORMAT, "Strip"},
        {{.model = "\"unk_token\": \"<none>\","}, RA_ERR_FORMAT, "<none>"},
        {{.model = "\"continuing_subword_prefix\": \"##\","}, RA_ERR_UNSUPPORTED, "continuing_subword_prefix"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        ra_tokenizer *t;
        check_fails(open_steps(&CASES[i].s, &t), CASES[i].code, "tokenizer.json", CASES[i].word, NULL);
        assert_null(t);
    }
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalisers), cmocka_unit_test(test_split_behaviours), cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_unknowns),    cmocka_unit_test(test_added_normalized), cmocka_unit_test(test_decoders),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("steps of tokenizers", tests, NULL, NULL);
}
