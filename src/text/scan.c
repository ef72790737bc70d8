#include "scan.h"

#include <string.h>

enum { LNS = RA_CLS_LETTER | RA_CLS_NUMBER | RA_CLS_SPACE };

static inline uint8_t class_at(const ra_unicode *u, const uint8_t *s, size_t i, size_t *length)
{
    if (s[i] < 0x80) return *length = 1, u->bmp[s[i]];
    return ra_unicode_class(u, ra_utf8_decode(s + i, length));
}

/* The end of the run of characters whose class has (c & mask) != 0 == wanted. */
static inline size_t run(const ra_unicode *u, const uint8_t *s, size_t n, size_t i, int mask, bool wanted)
{
    size_t length;
    while (i < n && ((class_at(u, s, i, &length) & mask) != 0) == wanted) i += length;
    return i;
}

/* \s+(?!\S)|\s+ at white space: the run without its last character, which goes with the word after it; all of it at the end. */
static inline size_t spaces(const uint8_t *s, size_t n, size_t i, size_t run_end)
{
    if (run_end == n) return n;
    size_t last = run_end - 1;
    while ((s[last] & 0xC0) == 0x80) last--;
    return last > i ? last : run_end;
}

/* Length of 's 't 're 've 'm 'll 'd at s[i], 0 where there is none. `fold`: any case, and U+017F as an s. */
static inline size_t contraction(const uint8_t *s, size_t n, size_t i, bool fold)
{
    if (s[i] != '\'' || i + 1 >= n) return 0;
    uint8_t bit = fold ? 0x20 : 0, a = s[i + 1] | bit, b = i + 2 < n ? s[i + 2] | bit : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' || a == 'v') && b == 'e') return 3;
    if (a == 'l' && b == 'l') return 3;
    if (fold && s[i + 1] == 0xC5 && i + 2 < n && s[i + 2] == 0xBF) return 3;
    return 0;
}

static size_t scan_gpt2(const ra_unicode *u, const uint8_t *s, size_t n, size_t i)
{
    size_t k = contraction(s, n, i, false);
    if (k) return i + k;
    size_t length, j = s[i] == ' ' && i + 1 < n ? i + 1 : i;
    uint8_t class = class_at(u, s, j, &length);
    if (class & RA_CLS_LETTER) return run(u, s, n, j + length, RA_CLS_LETTER, true);
    if (class & RA_CLS_NUMBER) return run(u, s, n, j + length, RA_CLS_NUMBER, true);
    if (!(class & RA_CLS_SPACE)) return run(u, s, n, j + length, LNS, false);
    return spaces(s, n, i, run(u, s, n, i, RA_CLS_SPACE, true));
}

/* Llama-3 (numbers of up to three digits) and Qwen2 (single digits). */
static inline size_t scan_cl100k(const ra_unicode *u, const uint8_t *s, size_t n, size_t i, int digits)
{
    size_t k = contraction(s, n, i, true);
    if (k) return i + k;
    size_t length, next_length;
    uint8_t class = class_at(u, s, i, &length);
    if (class & RA_CLS_LETTER) return run(u, s, n, i + length, RA_CLS_LETTER, true);
    if (class & RA_CLS_NUMBER) {
        for (k = i + length; --digits > 0 && k < n && (class_at(u, s, k, &length) & RA_CLS_NUMBER);) k += length;
        return k;
    }
    uint8_t next = i + length < n ? class_at(u, s, i + length, &next_length) : RA_CLS_SPACE;
    if (!(class & RA_CLS_NEWLINE) && (next & RA_CLS_LETTER)) {
        return run(u, s, n, i + length + next_length, RA_CLS_LETTER, true);
    }
    if (!(class & RA_CLS_SPACE) || (s[i] == ' ' && !(next & LNS))) {
        k = run(u, s, n, i + length, LNS, false);
        return run(u, s, n, k, RA_CLS_NEWLINE, true);
    }
    size_t end = run(u, s, n, i, RA_CLS_SPACE, true);
    for (k = end; k > i; k--) {
        if (s[k - 1] == '\n' || s[k - 1] == '\r') return k;
    }
    return spaces(s, n, i, end);
}

static size_t scan_llama3(const ra_unicode *u, const uint8_t *s, size_t n, size_t i)
{
    return scan_cl100k(u, s, n, i, 3);
}

static size_t scan_qwen2(const ra_unicode *u, const uint8_t *s, size_t n, size_t i)
{
    return scan_cl100k(u, s, n, i, 1);
}

ra_scan ra_scan_for(const char *pattern)
{
    if (!strcmp(pattern, RA_PATTERN_GPT2)) return scan_gpt2;
    if (!strcmp(pattern, RA_PATTERN_LLAMA3)) return scan_llama3;
    if (!strcmp(pattern, RA_PATTERN_QWEN2)) return scan_qwen2;
    return NULL;
}
