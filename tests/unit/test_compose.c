/* The normal forms by ra_compose are those of utf8proc_map, whatever the text; a long run of marks costs no more than others. */
#include <support/support.h>

#include "../../src/text/compose.h"

#include <realign/rng.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { FORMS = 5, LONGEST = 60, TEXTS = 20000, MARKS = 200000 };
static const int FORM[FORMS] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_LUMP};

static const struct {
    int32_t first, last;
} KIND[] = {{0x20, 0x7E},       {0xA0, 0x24F},      {0x300, 0x36F},           {0x300, 0x36F},   {0x591, 0x5C7},
            {0x64B, 0x655},     {0x93C, 0x94D},     {0xF71, 0xF84},           {0x1100, 0x11FF}, {0xAC00, 0xD7A3},
            {0x1E00, 0x1FFF},   {0x2000, 0x218F},   {0x3041, 0x30FF},         {0x3099, 0x309A}, {0x3200, 0x33FF},
            {0xF900, 0xFAFF},   {0xFB00, 0xFDFF},   {0xFE20, 0xFE2F},         {0xFF01, 0xFFEE}, {0x1D15E, 0x1D1C0},
            {0x1D400, 0x1D7FF}, {0x2F800, 0x2FA1D}, {0x110000 - 99, 0x10FFFF}};

static void check_same(const uint8_t *s, size_t n, ra_compose_work *w)
{
    for (int form = 0; form < FORMS; form++) {
        utf8proc_uint8_t *want = NULL;
        utf8proc_ssize_t length = utf8proc_map(s, (utf8proc_ssize_t)n, &want, (utf8proc_option_t)FORM[form]);
        int64_t count = ra_compose(s, n, FORM[form], w);
        assert_int_equal(count < 0, length < 0);
        utf8proc_ssize_t at = 0;
        for (int64_t i = 0; i < count; i++) {
            utf8proc_uint8_t bytes[4];
            utf8proc_ssize_t size = utf8proc_encode_char(w->code[i], bytes);
            assert_true(size > 0 && size <= length - at);
            assert_memory_equal(bytes, want + at, size);
            at += size;
        }
        if (length >= 0) assert_int_equal(at, length);
        free(want);
    }
}

static void test_as_utf8proc(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(5, 0);
    ra_compose_work w = {0};
    for (int k = 0; k < TEXTS; k++) {
        uint8_t text[4 * LONGEST + 1];
        size_t n = 0, length = ra_rng_below(&rng, LONGEST);
        size_t few = 1 + ra_rng_below(&rng, 4), kinds[4]; /* of few kinds, so that runs of marks come about */
        for (size_t i = 0; i < few; i++) kinds[i] = ra_rng_below(&rng, sizeof KIND / sizeof *KIND);
        for (size_t i = 0; i < length; i++) {
            size_t kind = kinds[ra_rng_below(&rng, few)];
            int32_t c = KIND[kind].first + (int32_t)ra_rng_below(&rng, (uint64_t)(KIND[kind].last - KIND[kind].first + 1));
            n += (size_t)utf8proc_encode_char(c, text + n);
        }
        if (n > 0 && k % 16 == 0) text[ra_rng_below(&rng, n)] ^= 0x80; /* no valid UTF-8, mostly */
        check_same(text, n, &w);
    }
    free(w.code);
}

static void test_long_run(void **state)
{
    (void)state;
    ra_buf text = {0};
    ra_buf_adds(&text, "a");
    for (int i = 0; i < MARKS / 2; i++) ra_buf_adds(&text, "\xCC\x81\xCC\xA3"); /* U+0301 of class 230, U+0323 of class 220 */
    ra_compose_work w = {0};
    assert_int_equal(ra_compose((const uint8_t *)text.data, text.length, FORM[1], &w), MARKS + 1);
    assert_int_equal(w.code[0], 'a');
    for (int i = 0; i < MARKS; i++) assert_int_equal(w.code[i + 1], i < MARKS / 2 ? 0x323 : 0x301);
    assert_int_equal(ra_compose((const uint8_t *)text.data, text.length, FORM[0], &w), MARKS);
    assert_int_equal(w.code[0], 0x1EA1);
    ra_buf_free(&text);
    free(w.code);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_utf8proc), cmocka_unit_test(test_long_run)};
    return cmocka_run_group_tests_name("compose", tests, NULL, NULL);
}
