#include "normal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

void ra_mapped_free(ra_mapped *m)
{
    ra_buf_free(&m->text);
    free(m->begin);
    free(m->end);
    *m = (ra_mapped){0};
}

static void need_places(ra_mapped *m, size_t n)
{
    if (n <= m->capacity) return;
    m->capacity = n > 2 * m->capacity ? n : 2 * m->capacity;
    m->begin = ra_realloc(m->begin, m->capacity, sizeof *m->begin);
    m->end = ra_realloc(m->end, m->capacity, sizeof *m->end);
}

void ra_mapped_add(ra_mapped *m, const void *bytes, size_t n, size_t begin, size_t end, bool places)
{
    size_t at = m->text.length;
    ra_buf_add(&m->text, bytes, n);
    if (!places) return;
    need_places(m, m->text.length);
    for (; at < m->text.length; at++) m->begin[at] = (int64_t)begin, m->end[at] = (int64_t)end;
}

void ra_mapped_copy(ra_mapped *m, const uint8_t *s, size_t from, size_t to, bool places)
{
    size_t at = m->text.length;
    ra_buf_add(&m->text, s + from, to - from);
    if (!places) return;
    need_places(m, m->text.length);
    for (size_t i = from; i < to; i++, at++) m->begin[at] = (int64_t)i, m->end[at] = (int64_t)i + 1;
}

void ra_mapped_compose(ra_mapped *m, const ra_mapped *inner)
{
    int64_t n = (int64_t)inner->text.length;
    for (size_t i = 0; i < m->text.length; i++) {
        int64_t begin = m->begin[i], end = m->end[i];
        if (end > begin) {
            m->begin[i] = inner->begin[begin], m->end[i] = inner->end[end - 1];
        } else {
            m->begin[i] = m->end[i] = begin < n ? inner->begin[begin] : n ? inner->end[n - 1] : 0;
        }
    }
}

ra_err ra_normal_add(ra_normal *p, const char *where, ra_normal_kind kind, ra_normal_step **out)
{
    if (p->n == RA_NORMAL_STEPS) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a normalizer of more than %d steps", where, RA_NORMAL_STEPS);
    }
    *out = &p->step[p->n++];
    **out = (ra_normal_step){.kind = kind};
    return RA_OK;
}

void ra_normal_free(ra_normal *p)
{
    for (int i = 0; i < p->n; i++) {
        ra_matcher_free(&p->step[i].match);
        free(p->step[i].text);
        if (p->step[i].spm) ra_spm_normal_free(p->step[i].spm);
        ra_free(p->step[i].spm);
    }
    *p = (ra_normal){0};
}

void ra_normal_work_free(ra_normal_work *w)
{
    ra_mapped_free(&w->text[0]);
    ra_mapped_free(&w->text[1]);
    free(w->form.code);
    *w = (ra_normal_work){0};
}

/* Each step below appends to an empty `out` and tells whether it changed anything; where not, `out` does not matter. */

static ra_err replace(const ra_normal_step *step, const ra_unicode *u, ra_match_work *match, const uint8_t *s, size_t n,
                      bool places, ra_mapped *out, bool *changed)
{
    ra_match_walk walk = {0};
    size_t done = 0;
    bool found;
    for (;;) {
        RA_TRY(ra_match_next(&step->match, u, match, s, n, &walk, &found));
        if (!found) break;
        *changed = true;
        ra_mapped_copy(out, s, done, walk.begin, places);
        ra_mapped_add(out, step->text, step->length, walk.begin, walk.end, places);
        done = walk.end;
        if (out->text.length > INT_MAX) return ra_fail(RA_ERR_DATA, "the normal form of a text of %zu bytes is too long", n);
    }
    if (*changed) ra_mapped_copy(out, s, done, n, places);
    return RA_OK;
}

static bool lowercase(const uint8_t *s, size_t n, bool places, ra_mapped *out)
{
    bool changed = false;
    size_t length;
    for (size_t i = 0; i < n; i += length) {
        uint8_t bytes[8];
        uint32_t c = ra_utf8_decode(s + i, &length), lower = ra_unicode_lower(c);
        if (lower == c) {
            ra_mapped_copy(out, s, i, i + length, places);
            continue;
        }
        int k = ra_utf8_encode(lower, bytes);
        if (c == 0x130) k += ra_utf8_encode(0x307, bytes + k); /* the one that becomes two: i and a dot above */
        ra_mapped_add(out, bytes, (size_t)k, i, i + length, places);
        changed = true;
    }
    return changed;
}

static bool strip(const ra_normal_step *step, const ra_unicode *u, const uint8_t *s, size_t n, bool places, ra_mapped *out)
{
    size_t begin = step->left ? ra_unicode_spaces_after(u, s, n) : 0;
    size_t end = step->right ? ra_unicode_spaces_before(u, s, n) : n;
    if (begin > end) begin = end;
    if (begin == 0 && end == n) return false;
    ra_mapped_copy(out, s, begin, end, places);
    return true;
}

static ra_err apply(const ra_normal_step *step, const ra_unicode *u, ra_match_work *match, ra_compose_work *form,
                    const uint8_t *s, size_t n, bool first, bool places, ra_mapped *out, bool *changed)
{
    switch (step->kind) {
    case RA_NORMAL_FORM: *changed = ra_form_apply(step->form, u, s, n, places, form, out); return RA_OK;
    case RA_NORMAL_LOWERCASE: *changed = lowercase(s, n, places, out); return RA_OK;
    case RA_NORMAL_REPLACE: return replace(step, u, match, s, n, places, out, changed);
    case RA_NORMAL_PREPEND:
        if (!n) return RA_OK;
        ra_mapped_add(out, step->text, step->length, 0, 0, places);
        ra_mapped_copy(out, s, 0, n, places);
        *changed = true;
        return RA_OK;
    case RA_NORMAL_STRIP: *changed = strip(step, u, s, n, places, out); return RA_OK;
    case RA_NORMAL_SPM:
        ra_spm_normal_apply(step->spm, s, n, first, places, out);
        *changed = true;
        return RA_OK;
    }
    return RA_OK;
}

ra_err ra_normal_run(const ra_normal *p, const ra_unicode *u, ra_match_work *match, ra_normal_work *w, const uint8_t *s, size_t n,
                     bool first, bool places, const ra_mapped **out)
{
    *out = NULL;
    for (int i = 0; i < p->n; i++) {
        ra_mapped *to = *out == &w->text[0] ? &w->text[1] : &w->text[0];
        bool changed = false;
        ra_buf_clear(&to->text);
        RA_TRY(apply(&p->step[i], u, match, &w->form, s, n, first, places, to, &changed));
        if (!changed) continue;
        if (*out && places) ra_mapped_compose(to, *out);
        *out = to;
        s = (const uint8_t *)(to->text.data ? to->text.data : ""), n = to->text.length;
    }
    return RA_OK;
}
