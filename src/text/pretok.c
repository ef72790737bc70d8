#include "pretok.h"

#include <stdlib.h>

ra_err ra_pretok_add(ra_pretok *p, const char *where, ra_step_kind kind)
{
    if (p->n == RA_STEPS) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a pre-tokenizer of more than %d steps", where, RA_STEPS);
    }
    p->step[p->n++] = (ra_step){.kind = kind};
    return RA_OK;
}

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

ra_err ra_pretok_add_split(ra_pretok *p, const char *where, const char *pattern, bool library)
{
    RA_TRY(ra_pretok_add(p, where, RA_STEP_SPLIT));
    ra_step *step = &p->step[p->n - 1];
    step->pattern = ra_strdup(pattern);
    step->scan = library ? NULL : ra_scan_for(pattern);
    if (step->scan) return RA_OK;
    /* Hugging Face compiles with Oniguruma's Ruby syntax, where ^ and $ know lines. */
    int code;
    PCRE2_SIZE at;
    char *translated = translate(pattern);
    step->code = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    free(translated);
    if (!step->code) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: the regular expression \"%s\" cannot be compiled at character %zu: %s", where,
                       pattern, (size_t)at, (char *)text);
    }
    pcre2_jit_compile(step->code, PCRE2_JIT_COMPLETE); /* without JIT, pcre2_match interprets */
    return RA_OK;
}

void ra_pretok_free(ra_pretok *p)
{
    for (int i = 0; i < p->n; i++) {
        pcre2_code_free(p->step[i].code);
        free(p->step[i].pattern);
    }
    *p = (ra_pretok){0};
}

void ra_pretok_work_free(ra_pretok_work *w)
{
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    ra_buf_free(&w->prefixed);
    *w = (ra_pretok_work){0};
}

typedef struct {
    const ra_pretok *p;
    const ra_unicode *u;
    ra_pretok_work *work;
    ra_words *sink;
} run;

static ra_err run_from(const run *r, int k, const uint8_t *s, size_t n);

static ra_err split_by_scan(const run *r, int k, const uint8_t *s, size_t n)
{
    const ra_step *step = &r->p->step[k];
    bool last = k + 1 == r->p->n;
    for (size_t i = 0; i < n;) {
        size_t end = step->scan(r->u, s, n, i);
        if (last) {
            RA_TRY(r->sink->word(r->sink, s + i, end - i));
        } else {
            RA_TRY(run_from(r, k + 1, s + i, end - i));
        }
        i = end;
    }
    return RA_OK;
}

static int match_at(const run *r, const ra_step *step, const uint8_t *s, size_t n, size_t i)
{
    ra_pretok_work *w = r->work;
    if (!w->match) {
        w->match = pcre2_match_data_create(1, NULL);
        w->context = pcre2_match_context_create(NULL);
        w->stack = pcre2_jit_stack_create(32 << 10, 16 << 20, NULL);
        if (!w->match || !w->context || !w->stack) ra_die("out of memory for regular expressions");
        pcre2_jit_stack_assign(w->context, NULL, w->stack);
    }
    int rc = pcre2_match(step->code, s, n, i, PCRE2_NO_UTF_CHECK, w->match, w->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(step->code, s, n, i, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->match, w->context);
    }
    return rc;
}

static ra_err split_by_library(const run *r, int k, const uint8_t *s, size_t n)
{
    const ra_step *step = &r->p->step[k];
    size_t done = 0, from = 0; /* s[0, done) went out as pieces */
    while (from < n) {
        int rc = match_at(r, step, s, n, from);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR text[160];
            pcre2_get_error_message(rc, text, sizeof text);
            return ra_fail(RA_ERR_DATA, "the pre-tokenizer's regular expression gave up on a text of %zu bytes: %s", n,
                           (char *)text);
        }
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(r->work->match);
        size_t begin = span[0], end = span[1];
        if (begin > done && !step->drop_gaps) RA_TRY(run_from(r, k + 1, s + done, begin - done));
        if (end > begin && !step->drop_matches) RA_TRY(run_from(r, k + 1, s + begin, end - begin));
        done = from = end;
        if (begin == end) { /* an empty match cuts there; the next is looked for a character on */
            size_t length;
            if (begin >= n) break;
            ra_utf8_decode(s + begin, &length);
            from = begin + length;
        }
    }
    if (done < n && !step->drop_gaps) RA_TRY(run_from(r, k + 1, s + done, n - done));
    return RA_OK;
}

static ra_err split_digits(const run *r, int k, const uint8_t *s, size_t n)
{
    bool each = r->p->step[k].kind == RA_STEP_DIGITS, was_digit = false;
    size_t done = 0, length;
    for (size_t i = 0; i < n; i += length) {
        uint8_t class = s[i] < 0x80 ? (length = 1, r->u->bmp[s[i]]) : ra_unicode_class(r->u, ra_utf8_decode(s + i, &length));
        bool digit = class & RA_CLS_DIGIT;
        if (i > done && (digit != was_digit || (digit && each))) {
            RA_TRY(run_from(r, k + 1, s + done, i - done));
            done = i;
        }
        was_digit = digit;
    }
    return done < n ? run_from(r, k + 1, s + done, n - done) : RA_OK;
}

static ra_err prefix_space(const run *r, int k, const uint8_t *s, size_t n)
{
    if (s[0] == ' ') return run_from(r, k + 1, s, n);
    ra_words *sink = r->sink;
    const uint8_t *window = sink->window;
    int64_t at = sink->at;
    ra_buf_clear(&r->work->prefixed);
    ra_buf_add(&r->work->prefixed, " ", 1);
    ra_buf_add(&r->work->prefixed, s, n);
    sink->at += s - window;
    sink->window = (const uint8_t *)r->work->prefixed.data;
    sink->lead = 1;
    ra_err err = run_from(r, k + 1, sink->window, n + 1);
    sink->window = window, sink->at = at, sink->lead = 0;
    return err;
}

static ra_err run_from(const run *r, int k, const uint8_t *s, size_t n)
{
    if (k == r->p->n) return r->sink->word(r->sink, s, n);
    const ra_step *step = &r->p->step[k];
    switch (step->kind) {
    case RA_STEP_SPLIT: return step->scan ? split_by_scan(r, k, s, n) : split_by_library(r, k, s, n);
    case RA_STEP_DIGITS:
    case RA_STEP_DIGIT_RUNS: return split_digits(r, k, s, n);
    case RA_STEP_PREFIX_SPACE: return prefix_space(r, k, s, n);
    }
    return RA_OK;
}

ra_err ra_pretok_run(const ra_pretok *p, const ra_unicode *u, ra_pretok_work *w, const uint8_t *s, size_t n, ra_words *sink)
{
    run r = {p, u, w, sink};
    sink->window = s, sink->at = 0, sink->lead = 0;
    return n ? run_from(&r, 0, s, n) : RA_OK;
}
