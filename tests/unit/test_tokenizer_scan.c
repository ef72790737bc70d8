/* The hand-written scanners cut random texts exactly as PCRE2 cuts them by the same regular expressions; UTF-8, stripping
 * and NFC beside utf8proc's own. */
#include "../../src/text/pretok.h"
#include <support/support.h>

#include <realign/rng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct {
    ra_words words;
    const uint8_t *text;
    int64_t *end;
    int n;
} cuts;

static ra_err note_word(ra_words *sink, const uint8_t *word, size_t n)
{
    cuts *c = (cuts *)sink;
    c->end[c->n++] = word + n - c->text;
    return RA_OK;
}

static int cut(const ra_pretok *p, const ra_unicode *u, ra_pretok_work *w, const ra_buf *text, int64_t *end)
{
    cuts c = {.words.word = note_word, .text = (const uint8_t *)text->data, .end = end};
    CHECK_OK(ra_pretok_run(p, u, w, c.text, text->length, true, &c.words));
    return c.n;
}

/* A character both sides know alike: assigned in Unicode 14 (PCRE2's tables may be older than the scanners'). */
static uint32_t any_character(ra_rng *rng)
{
    for (;;) {
        uint32_t c = (uint32_t)ra_rng_below(rng, ra_rng_below(rng, 4) ? 0x3000 : 0x1F000);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
        bool surrogate = c >= 0xD800 && c < 0xE000, young = (c >= 0xC00 && c < 0xE00) || c > 0xFFFF || c == 0x180E;
        if (!surrogate && !young && k != UTF8PROC_CATEGORY_CN) return c;
    }
}

static void random_text(ra_rng *rng, ra_buf *text)
{
    static const char *const BITS[] = {" ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "\t",
                                       "a",
                                       "Hello",
                                       "'s",
                                       "'LL",
                                       "'ve",
                                       "'x",
                                       "'\xC5\xBF",
                                       "12345",
                                       "7",
                                       "...",
                                       "!?",
                                       "\xC2\xA0",
                                       "\xE3\x80\x80",
                                       "\xC3\xA9",
                                       "\xE6\xBC\xA2\xE5\xAD\x97",
                                       "\xF0\x9F\x98\x80",
                                       "\xC2\xBD",
                                       "\xD9\xA3",
                                       "\xE2\x80\xA8",
                                       "_",
                                       "'",
                                       "e\xCC\x81"};
    ra_buf_clear(text);
    ra_buf_adds(text, "");
    for (int n = (int)ra_rng_below(rng, 12); n >= 0; n--) {
        uint8_t bytes[4];
        if (ra_rng_below(rng, 4)) {
            ra_buf_adds(text, BITS[ra_rng_below(rng, sizeof BITS / sizeof *BITS)]);
        } else {
            ra_buf_add(text, bytes, (size_t)ra_utf8_encode(any_character(rng), bytes));
        }
    }
}

static void test_scanners(void **state)
{
    (void)state;
    static const char *const PATTERNS[] = {RA_PATTERN_GPT2, RA_PATTERN_LLAMA3, RA_PATTERN_QWEN2};
    enum { SEED = 2024, TEXTS = 20000 };
    print_message("# seed %d, %d texts a pattern\n", SEED, TEXTS);
    ra_unicode *u = ra_unicode_new();
    for (int k = 0; k < 3; k++) {
        ra_pretok scanner = {0}, library = {0};
        CHECK_OK(ra_pretok_add_split(&scanner, "test", PATTERNS[k], false));
        CHECK_OK(ra_pretok_add_split(&library, "test", PATTERNS[k], true));
        assert_non_null(scanner.step[0].scan);
        assert_non_null(library.step[0].match.code);
        ra_pretok_work w = {0};
        ra_buf text = {0};
        ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
        int64_t a[1024], b[1024];
        for (int i = 0; i < TEXTS; i++) {
            random_text(&rng, &text);
            int n = cut(&scanner, u, &w, &text, a), m = cut(&library, u, &w, &text, b);
            if (n != m || memcmp(a, b, (size_t)n * sizeof *a) != 0) fail_msg("pattern %d, text %d is cut in another way", k, i);
        }
        ra_pretok_free(&scanner), ra_pretok_free(&library);
        ra_pretok_work_free(&w);
        ra_buf_free(&text);
    }
    ra_free(u);
}

/* NFC against utf8proc's own over the whole text, and places that cover the text in order. */
static void test_nfc(void **state)
{
    (void)state;
    static const uint32_t MARKS[] = {0x301,  0x323,  0x327,  0x334,  0x345, 0x93C,  0x9BE,  0xBBE, 0x1161,
                                     0x11A8, 0x1100, 0x3099, 0x212B, 0x958, 0xF900, 0xAC00, 'e'};
    ra_unicode *u = ra_unicode_new();
    ra_rng rng = ra_rng_make(7, RA_STREAM_TEST);
    ra_mapped nfc = {0};
    ra_compose_work form = {0};
    ra_buf text = {0};
    for (int i = 0; i < 20000; i++) {
        ra_buf_clear(&text);
        for (int n = 1 + (int)ra_rng_below(&rng, 8); n > 0; n--) {
            uint8_t bytes[4];
            uint32_t c = ra_rng_below(&rng, 2) ? MARKS[ra_rng_below(&rng, sizeof MARKS / sizeof *MARKS)] : any_character(&rng);
            if (ra_unicode_class(u, c) & RA_CLS_LATE || !c) c = 'x';
            ra_buf_add(&text, bytes, (size_t)ra_utf8_encode(c, bytes));
        }
        char *want = (char *)utf8proc_NFC((const utf8proc_uint8_t *)text.data);
        bool changed = ra_form_apply(RA_NFC, u, (const uint8_t *)text.data, text.length, true, &form, &nfc);
        assert_int_equal(changed, strcmp(want, text.data) != 0);
        if (changed) {
            assert_string_equal(nfc.text.data, want);
            int64_t begin = 0, end = 0;
            for (size_t k = 0; k < nfc.text.length; k++) {
                assert_true(nfc.begin[k] >= begin && nfc.begin[k] <= end && nfc.end[k] >= end);
                begin = nfc.begin[k], end = nfc.end[k];
            }
            assert_int_equal(end, text.length);
        }
        free(want);
    }
    ra_mapped_free(&nfc);
    free(form.code);
    ra_buf_free(&text);
    ra_free(u);
}

static void test_utf8(void **state)
{
    (void)state;
    bool above;
    for (uint32_t c = 0; c < 0x110000; c++) {
        uint8_t bytes[4];
        if (c >= 0xD800 && c < 0xE000) continue;
        size_t n = (size_t)ra_utf8_encode(c, bytes), length;
        if (ra_utf8_valid(bytes, n, &above) != n || above != (c >= 0x300) || ra_utf8_decode(bytes, &length) != c || length != n) {
            fail_msg("U+%04X does not survive", c);
        }
    }
    size_t begin, end;
    ra_utf8_strip("\xE3\x80\x80\x1C\n a b\xC2\x85\t", 12, &begin, &end);
    assert_int_equal(begin, 6);
    assert_int_equal(end, 9);
    ra_utf8_strip(" \n", 2, &begin, &end);
    assert_int_equal(begin, end);
    ra_buf out = {0};
    ra_utf8_add_lossy(&out,
                      (const uint8_t *)"a\xF0\x9F\x98"
                                       "b\xFF\xE2\x28",
                      8);
    assert_string_equal(out.data, "a\xEF\xBF\xBD"
                                  "b\xEF\xBF\xBD\xEF\xBF\xBD(");
    ra_buf_free(&out);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scanners), cmocka_unit_test(test_nfc), cmocka_unit_test(test_utf8)};
    return cmocka_run_group_tests_name("scanners", tests, NULL, NULL);
}
