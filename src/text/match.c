#define _GNU_SOURCE /* memmem */
#include "match.h"

#include <stdlib.h>
#include <string.h>

/* Letters, digits and marks of Unicode 15 and 16, which Hugging Face's Oniguruma knows and an older PCRE2 does not. */
#define LATE_LETTERS                                                                                           \
    "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}\\x{10D4A}-\\x{10D65}"      \
    "\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}" \
    "\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}"  \
    "\\x{11F12}-\\x{11F33}\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"           \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}\\x{1E030}-\\x{1E06D}"            \
    "\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define LATE_DIGITS                                                                                             \
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}" \
    "\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
#define LATE_MARKS                                                                                                \
    "\\x{897}\\x{CF3}\\x{ECE}\\x{10D69}-\\x{10D6D}\\x{10EFC}-\\x{10EFF}\\x{11241}\\x{113B8}-\\x{113C0}\\x{113C2}" \
    "\\x{113C5}\\x{113C7}-\\x{113CA}\\x{113CC}-\\x{113D0}\\x{113D2}\\x{113E1}-\\x{113E2}\\x{11F00}-\\x{11F01}"    \
    "\\x{11F03}\\x{11F34}-\\x{11F3A}\\x{11F3E}-\\x{11F42}\\x{11F5A}\\x{13440}\\x{13447}-\\x{13455}"               \
    "\\x{1611E}-\\x{1612F}\\x{1E08F}\\x{1E4EC}-\\x{1E4EF}\\x{1E5EE}-\\x{1E5EF}"

/* What to write in a class for an escape, so that PCRE2 means by it what Oniguruma does: its own tables may be older, it counts
 * U+180E as white space, and its \w is narrower. */
static const struct {
    const char *escape, *members;
} CLASSES[] = {
    {"s", "\\t-\\r\\x{85}\\p{Z}"},
    {"p{L}", "\\p{L}" LATE_LETTERS},
    {"pL", "\\p{L}" LATE_LETTERS},
    {"p{N}", "\\p{N}" LATE_DIGITS "\\x{1D2C0}-\\x{1D2D3}"},
    {"pN", "\\p{N}" LATE_DIGITS "\\x{1D2C0}-\\x{1D2D3}"},
    {"p{Nd}", "\\p{Nd}" LATE_DIGITS},
    {"d", "\\p{Nd}" LATE_DIGITS},
    {"p{M}", "\\p{M}" LATE_MARKS},
    {"w", "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{"
          "1F189}" LATE_LETTERS LATE_DIGITS LATE_MARKS},
};

/* Length of the escape behind a backslash that names a class (its capital: everything else), 0 for another one. */
static size_t class_escape(const char *p, bool *negated, const char **members)
{
    for (size_t i = 0; i < sizeof CLASSES / sizeof *CLASSES; i++) {
        const char *escape = CLASSES[i].escape;
        size_t n = strlen(escape);
        if ((p[0] | 0x20) != escape[0] || strncmp(p + 1, escape + 1, n - 1) != 0) continue;
        *negated = p[0] != escape[0], *members = CLASSES[i].members;
        return n;
    }
    return 0;
}

/* The pattern as PCRE2 must read it. Inside [...] a negated class stays as it is. Free with free. */
static char *translate(const char *pattern)
{
    ra_buf out = {0};
    bool in_class = false, negated;
    const char *members;
    ra_buf_adds(&out, "");
    for (const char *p = pattern; *p; p++) {
        size_t n = *p == '\\' ? class_escape(p + 1, &negated, &members) : 0;
        if (n && !(in_class && negated)) {
            /* Outside of [...], \w knows Latin-1's other numbers as well: superscripts and fractions. */
            const char *more = !in_class && (p[1] | 0x20) == 'w' ? "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" : "";
            ra_buf_addf(&out, in_class ? "%s%s%s" : "[%s%s%s]", negated ? "^" : "", members, more);
            p += n;
            continue;
        }
        if (*p == '\\' && p[1])
            ra_buf_add(&out, p++, 1);
        else if (*p == '[')
            in_class = true;
        else if (*p == ']')
            in_class = false;
        ra_buf_add(&out, p, 1);
    }
    return out.data;
}

ra_err ra_matcher_regex(ra_matcher *m, const char *where, const char *pattern)
{
    *m = (ra_matcher){.kind = RA_MATCH_REGEX, .text = ra_strdup(pattern), .length = strlen(pattern)};
    /* Hugging Face compiles with Oniguruma's Ruby syntax, where ^ and $ know lines. */
    int code;
    PCRE2_SIZE at;
    char *translated = translate(pattern);
    m->code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    free(translated);
    if (!m->code) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: the regular expression \"%s\" cannot be compiled at character %zu: %s", where,
                       pattern, (size_t)at, (char *)text);
    }
    pcre2_jit_compile(m->code, PCRE2_JIT_COMPLETE); /* without JIT, pcre2_match interprets */
    return RA_OK;
}

void ra_matcher_literal(ra_matcher *m, const char *text, size_t n)
{
    *m = (ra_matcher){.kind = RA_MATCH_LITERAL, .text = ra_strndup(text, n), .length = n};
}

void ra_matcher_free(ra_matcher *m)
{
    pcre2_code_free(m->code);
    free(m->text);
    *m = (ra_matcher){0};
}

void ra_match_work_free(ra_match_work *w)
{
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    *w = (ra_match_work){0};
}

static int match_at(const ra_matcher *m, ra_match_work *w, const uint8_t *s, size_t n, size_t i)
{
    if (!w->match) {
        w->match = pcre2_match_data_create(1, NULL);
        w->context = pcre2_match_context_create(NULL);
        w->stack = pcre2_jit_stack_create(32 << 10, 16 << 20, NULL);
        if (!w->match || !w->context || !w->stack) ra_die("out of memory for regular expressions");
        pcre2_jit_stack_assign(w->context, NULL, w->stack);
    }
    int rc = pcre2_match(m->code, s, n, i, PCRE2_NO_UTF_CHECK, w->match, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(m->code, s, n, i, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match, w->context);
    }
    return rc;
}

/* As the find_iter of Hugging Face's binding to Oniguruma. */
static ra_err next_regex(const ra_matcher *m, ra_match_work *w, const uint8_t *s, size_t n, ra_match_walk *walk, bool *found)
{
    while (walk->from <= n) {
        int rc = match_at(m, w, s, n, walk->from);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR text[160];
            pcre2_get_error_message(rc, text, sizeof text);
            return ra_fail(RA_ERR_DATA, "the regular expression \"%s\" gave up on a text of %zu bytes: %s", m->text, n,
                           (char *)text);
        }
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);
        if (span[0] == span[1] && walk->matched && walk->last_end == span[1]) {
            size_t length = 1;
            if (walk->from < n) ra_utf8_decode(s + walk->from, &length);
            walk->from += length;
            continue;
        }
        walk->begin = span[0], walk->end = walk->from = walk->last_end = span[1];
        walk->matched = *found = true;
        return RA_OK;
    }
    *found = false;
    return RA_OK;
}

static uint8_t class_bits(ra_match_kind kind)
{
    return kind == RA_MATCH_SPACE ? RA_CLS_SPACE : kind == RA_MATCH_DIGIT ? RA_CLS_DIGIT : 0;
}

ra_err ra_match_next(const ra_matcher *m, const ra_unicode *u, ra_match_work *w, const uint8_t *s, size_t n, ra_match_walk *walk,
                     bool *found)
{
    if (m->kind == RA_MATCH_REGEX) return next_regex(m, w, s, n, walk, found);
    *found = false;
    if (m->kind == RA_MATCH_LITERAL) {
        const uint8_t *hit = NULL;
        if (walk->from < n) {
            hit = m->length == 1 ? memchr(s + walk->from, m->text[0], n - walk->from)
                                 : memmem(s + walk->from, n - walk->from, m->text, m->length);
        }
        if (!hit) return RA_OK;
        walk->begin = (size_t)(hit - s), walk->end = walk->from = walk->begin + m->length;
        *found = true;
        return RA_OK;
    }
    uint8_t bits = class_bits(m->kind);
    size_t length;
    for (size_t i = walk->from; i < n; i += length) {
        uint32_t c = ra_utf8_decode(s + i, &length);
        if (bits ? !(ra_unicode_class(u, c) & bits) : !ra_unicode_punctuation(c)) continue;
        walk->begin = i, walk->end = walk->from = i + length;
        *found = true;
        return RA_OK;
    }
    return RA_OK;
}
