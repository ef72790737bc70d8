#include "unicode.h"

#include <realign/error.h>

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct {
    uint32_t first, last;
} range;

/* Letters and numbers that Unicode 16 has (the version of Hugging Face's regular expressions) and utf8proc 2.8 (Unicode 15)
 * lacks. A newer utf8proc knows them itself. */
static const range LATE_LETTERS[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85},
    {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
    {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C},
    {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED}, {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
/* Symbols that are Alphabetic, and so word characters: circled and squared Latin letters. */
static const range LETTER_SYMBOLS[] = {{0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
static const range LATE_NUMBERS[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                     {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
/* Digits asks Rust's char::is_numeric, a version further on (Unicode 17). */
static const range LATER_DIGITS[] = {{0x11DE0, 0x11DE9}, {0x16FF4, 0x16FF6}};
/* Marks (and one composition, U+11930) that came after the tables of Hugging Face's NFC: to it they are plain characters of
 * class 0. */
static const range LATE_MARKS[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},
    {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

/* Compatibility characters that came after the tables of Hugging Face's NFKC and NFKD. */
static const range LATE_COMPAT[] = {{0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},
                                    {0x10781, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
                                    {0x1E030, 0x1E06D}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};
/* Punctuation that came after the table of the Punctuation pre-tokenizer, and what was punctuation in it and is no more. */
static const range LATE_PUNCTUATION[] = {
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},     {0x1B7D, 0x1B7E},
    {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F},
    {0x1145A, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2},
    {0x11A3F, 0x11A46}, {0x11A9A, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8},
    {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E5FF, 0x1E5FF},
    {0x1E95E, 0x1E95F}};
static const range ONCE_PUNCTUATION[] = {{0x166D, 0x166D}, {0x111C9, 0x111C9}};
/* Capital letters of Unicode 16 and 17, which Rust's to_lowercase knows, with the first of their small ones. */
static const struct {
    range capital;
    uint32_t small;
} LATE_CAPITALS[] = {{{0x1C89, 0x1C89}, 0x1C8A},   {{0xA7CB, 0xA7CB}, 0x264},  {{0xA7CC, 0xA7CC}, 0xA7CD},
                     {{0xA7CE, 0xA7CE}, 0xA7CF},   {{0xA7D2, 0xA7D2}, 0xA7D3}, {{0xA7D4, 0xA7D4}, 0xA7D5},
                     {{0xA7DA, 0xA7DA}, 0xA7DB},   {{0xA7DC, 0xA7DC}, 0x19B},  {{0x10D50, 0x10D65}, 0x10D70},
                     {{0x16EA0, 0x16EB8}, 0x16EBB}};

static bool in_ranges(uint32_t c, const range *r, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c <= r[i].last) return c >= r[i].first;
    }
    return false;
}
#define IN(c, table) in_ranges(c, table, sizeof(table) / sizeof(table)[0])

static bool is_mark(utf8proc_category_t k)
{
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

static bool is_space(uint32_t c, utf8proc_category_t k)
{
    return (c >= 9 && c <= 13) || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL ||
           k == UTF8PROC_CATEGORY_ZP;
}

static bool nfc_changes(uint32_t c)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_int32_t parts[16];
    int bound = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, 16, options, &bound);
    return utf8proc_normalize_utf32(parts, n, options) != 1 || parts[0] != (utf8proc_int32_t)c;
}

uint8_t ra_unicode_class_slow(uint32_t c)
{
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    utf8proc_category_t k = (utf8proc_category_t)p->category;
    uint8_t bits = 0;
    bool letter = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
                  k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
    bool number = k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
    bool unknown = k == UTF8PROC_CATEGORY_CN;
    if (letter || (unknown && IN(c, LATE_LETTERS))) bits |= RA_CLS_LETTER;
    if (number || (unknown && IN(c, LATE_NUMBERS))) bits |= RA_CLS_NUMBER | RA_CLS_DIGIT;
    if (unknown && IN(c, LATER_DIGITS)) bits |= RA_CLS_DIGIT;
    if (is_space(c, k)) bits |= RA_CLS_SPACE;
    if (c == '\n' || c == '\r') bits |= RA_CLS_NEWLINE;
    if (is_mark(k) && IN(c, LATE_MARKS)) {
        bits |= RA_CLS_LATE;
    } else if (c >= 0x300) {
        /* Conservative: a region that NFC leaves alone is copied as it is. */
        bool jamo = c >= 0x1161 && c <= 0x11FF && c != 0x11A7; /* no trailing consonant, though utf8proc composes it away */
        if (p->combining_class || is_mark(k) || jamo) bits |= RA_CLS_JOINS;
        bool hangul_syllable = c >= 0xAC00 && c <= 0xD7A3;
        if (!hangul_syllable && p->decomp_type == 0 && p->decomp_seqindex != UINT16_MAX && nfc_changes(c)) bits |= RA_CLS_CHANGES;
    }
    return bits;
}

ra_unicode *ra_unicode_new(void)
{
    ra_unicode *u = ra_alloc(1, sizeof *u);
    for (uint32_t c = 0; c < 65536; c++) u->bmp[c] = ra_unicode_class_slow(c);
    return u;
}

int ra_utf8_encode(uint32_t c, uint8_t out[4])
{
    return (int)utf8proc_encode_char((utf8proc_int32_t)c, out);
}

/* Length of the valid sequence at s, or -(length of the maximal invalid part). n > 0 and s[0] >= 0x80. */
static int sequence(const uint8_t *s, size_t n)
{
    int need = s[0] >= 0xC2 && s[0] <= 0xDF ? 1 : (s[0] & 0xF0) == 0xE0 ? 2 : s[0] >= 0xF0 && s[0] <= 0xF4 ? 3 : 0;
    if (!need) return -1;
    uint8_t low = 0x80, high = 0xBF;
    if (s[0] == 0xE0) low = 0xA0;
    if (s[0] == 0xED) high = 0x9F;
    if (s[0] == 0xF0) low = 0x90;
    if (s[0] == 0xF4) high = 0x8F;
    for (int k = 1; k <= need; k++) {
        if ((size_t)k >= n || s[k] < low || s[k] > high) return -k;
        low = 0x80, high = 0xBF;
    }
    return need + 1;
}

size_t ra_utf8_valid(const uint8_t *s, size_t n, bool *above_latin)
{
    bool above = false;
    size_t i = 0;
    while (i < n) {
        uint64_t word;
        if (i + 8 <= n && (memcpy(&word, s + i, 8), !(word & 0x8080808080808080u))) {
            i += 8;
        } else if (s[i] < 0x80) {
            i++;
        } else {
            above |= s[i] >= 0xCC;
            int k = sequence(s + i, n - i);
            if (k < 0) break;
            i += (size_t)k;
        }
    }
    *above_latin = above;
    return i;
}

void ra_utf8_add_lossy(ra_buf *out, const uint8_t *s, size_t n)
{
    while (n) {
        bool unused;
        size_t good = ra_utf8_valid(s, n, &unused);
        ra_buf_add(out, s, good);
        s += good, n -= good;
        if (n) {
            size_t bad = (size_t)-sequence(s, n);
            ra_buf_add(out, "\xEF\xBF\xBD", 3);
            s += bad, n -= bad;
        }
    }
}

/* str.isspace() of Python: White_Space and the four separators of ASCII. */
static bool python_space(uint32_t c)
{
    return (c >= 28 && c <= 31) || is_space(c, utf8proc_category((utf8proc_int32_t)c));
}

static size_t last_char(const uint8_t *s, size_t n)
{
    size_t i = n - 1;
    while (i > 0 && (s[i] & 0xC0) == 0x80) i--;
    return i;
}

void ra_utf8_strip(const char *text, size_t n, size_t *begin, size_t *end)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t b = 0, length;
    while (b < n && python_space(ra_utf8_decode(s + b, &length))) b += length;
    while (n > b) {
        size_t i = last_char(s, n);
        if (!python_space(ra_utf8_decode(s + i, &length))) break;
        n = i;
    }
    *begin = b, *end = n;
}

static bool word_char(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || is_mark(k) || k == UTF8PROC_CATEGORY_ND ||
           k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D || IN(c, LATE_LETTERS) ||
           IN(c, LETTER_SYMBOLS);
}

bool ra_utf8_ends_with_word(const uint8_t *s, size_t n)
{
    size_t length;
    return n > 0 && word_char(ra_utf8_decode(s + last_char(s, n), &length));
}

bool ra_utf8_starts_with_word(const uint8_t *s, size_t n)
{
    size_t length;
    return n > 0 && word_char(ra_utf8_decode(s, &length));
}

size_t ra_unicode_spaces_before(const ra_unicode *u, const uint8_t *s, size_t n)
{
    size_t length;
    while (n > 0) {
        size_t i = last_char(s, n);
        if (!(ra_unicode_class(u, ra_utf8_decode(s + i, &length)) & RA_CLS_SPACE)) break;
        n = i;
    }
    return n;
}

size_t ra_unicode_spaces_after(const ra_unicode *u, const uint8_t *s, size_t n)
{
    size_t i = 0, length;
    while (i < n && (ra_unicode_class(u, ra_utf8_decode(s + i, &length)) & RA_CLS_SPACE)) i += length;
    return i;
}

uint32_t ra_unicode_lower(uint32_t c)
{
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    for (size_t i = 0; i < sizeof LATE_CAPITALS / sizeof *LATE_CAPITALS; i++) {
        range r = LATE_CAPITALS[i].capital;
        if (c >= r.first && c <= r.last) return LATE_CAPITALS[i].small + (c - r.first);
    }
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

bool ra_unicode_late_compat(uint32_t c)
{
    return IN(c, LATE_COMPAT);
}

bool ra_unicode_punctuation(uint32_t c)
{
    if (c < 0x80) return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z');
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    if (k < UTF8PROC_CATEGORY_PC || k > UTF8PROC_CATEGORY_PO) return IN(c, ONCE_PUNCTUATION);
    return !IN(c, LATE_PUNCTUATION);
}
