#define _GNU_SOURCE /* memmem */
#include "match.h"

#include <stdlib.h>
#include <string.h>

/* The pattern as PCRE2 must read it to mean what it means to Hugging Face: \s and \S without U+180E, which PCRE2 counts as
 * white space. Inside [...] a \S stays as it is. Free with free. */
static char *translate(const char *pattern)
{
    static const char SPACE[] = "\\t-\\r\\x{85}\\p{Z}";
    ra_buf out = {0};
    bool in_class = false;
    ra_buf_adds(&out, "");
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && (p[1] == 's' || (p[1] == 'S' && !in_class))) {
            ra_buf_addf(&out, in_class ? "%s%s" : "[%s%s]", p[1] == 'S' ? "^" : "", SPACE);
            p++;
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
