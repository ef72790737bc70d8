#include "pretok.h"

#include <stdlib.h>
#include <string.h>

ra_err ra_pretok_add(ra_pretok *p, const char *where, ra_step_kind kind, ra_step **out)
{
    if (p->n == RA_STEPS) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a pre-tokenizer of more than %d steps", where, RA_STEPS);
    }
    *out = &p->step[p->n++];
    **out = (ra_step){.kind = kind};
    return RA_OK;
}

ra_err ra_pretok_add_split(ra_pretok *p, const char *where, const char *pattern, bool library)
{
    ra_step *step = NULL;
    RA_TRY(ra_pretok_add(p, where, RA_STEP_SPLIT, &step));
    step->scan = library ? NULL : ra_scan_for(pattern);
    if (!step->scan) return ra_matcher_regex(&step->match, where, pattern);
    ra_matcher_literal(&step->match, pattern, strlen(pattern));
    return RA_OK;
}

void ra_pretok_free(ra_pretok *p)
{
    for (int i = 0; i < p->n; i++) ra_matcher_free(&p->step[i].match);
    *p = (ra_pretok){0};
}

void ra_pretok_work_free(ra_pretok_work *w)
{
    ra_match_work_free(&w->match);
    for (int i = 0; i < RA_STEPS; i++) ra_mapped_free(&w->changed[i]);
}

int64_t ra_words_begin(const ra_words *sink, const uint8_t *p)
{
    int64_t at = p - sink->window;
    const ra_mapped *m = sink->mapped;
    if (!m) return at;
    return (size_t)at < m->text.length ? m->begin[at] : m->end[at - 1];
}

int64_t ra_words_end(const ra_words *sink, const uint8_t *p)
{
    int64_t at = p - sink->window;
    return sink->mapped && at > 0 ? sink->mapped->end[at - 1] : at;
}

typedef struct {
    const ra_pretok *p;
    const ra_unicode *u;
    ra_pretok_work *work;
    ra_words *sink;
    bool first;
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

/* The pieces between cuts: one is held back until it is known whether the next joins it. */
typedef struct {
    const run *r;
    int next; /* the step that pieces go to */
    ra_behaviour behaviour;
    bool invert, held, held_match;
    const uint8_t *s;
    size_t begin, end;
} gatherer;

static ra_err let_go(gatherer *g)
{
    if (!g->held || g->begin == g->end) return RA_OK;
    return run_from(g->r, g->next, g->s + g->begin, g->end - g->begin);
}

static ra_err gather(gatherer *g, size_t begin, size_t end, bool match)
{
    match = match != g->invert;
    bool join = false;
    switch (g->behaviour) {
    case RA_SPLIT_ISOLATED: break;
    case RA_SPLIT_REMOVED:
        if (match) return RA_OK;
        break;
    case RA_SPLIT_WITH_PREVIOUS: join = match && !g->held_match; break;
    case RA_SPLIT_WITH_NEXT: join = !match && g->held_match; break;
    case RA_SPLIT_CONTIGUOUS: join = match == g->held_match; break;
    }
    if (g->held && join) {
        g->end = end;
    } else {
        RA_TRY(let_go(g));
        g->held = true, g->begin = begin, g->end = end;
    }
    g->held_match = match;
    return RA_OK;
}

static ra_err split_by_match(const run *r, int k, const uint8_t *s, size_t n)
{
    const ra_step *step = &r->p->step[k];
    gatherer g = {.r = r, .next = k + 1, .behaviour = step->behaviour, .invert = step->invert, .s = s};
    ra_match_walk walk = {0};
    size_t done = 0;
    for (bool found;; done = walk.end) {
        RA_TRY(ra_match_next(&step->match, r->u, &r->work->match, s, n, &walk, &found));
        if (!found) break;
        if (walk.begin != done) RA_TRY(gather(&g, done, walk.begin, false));
        RA_TRY(gather(&g, walk.begin, walk.end, true));
    }
    if (done < n) RA_TRY(gather(&g, done, n, false));
    return let_go(&g);
}

/* Goes on with a text made from the piece s; what `made` maps to lies in the window's text so far. */
static ra_err run_changed(const run *r, int k, ra_mapped *made, const uint8_t *s)
{
    ra_words *sink = r->sink;
    const uint8_t *window = sink->window;
    const ra_mapped *mapped = sink->mapped;
    if (sink->places) {
        int64_t at = s - window;
        for (size_t i = 0; i < made->text.length; i++) made->begin[i] += at, made->end[i] += at;
        if (mapped) ra_mapped_compose(made, mapped);
    }
    sink->window = (const uint8_t *)made->text.data;
    sink->mapped = made;
    ra_err err = run_from(r, k + 1, sink->window, made->text.length);
    sink->window = window, sink->mapped = mapped;
    return err;
}

static ra_err prefix_space(const run *r, int k, const uint8_t *s, size_t n)
{
    if (s[0] == ' ') return run_from(r, k + 1, s, n);
    ra_mapped *made = &r->work->changed[k];
    ra_buf_clear(&made->text);
    ra_mapped_add(made, " ", 1, 0, 0, r->sink->places);
    ra_mapped_copy(made, s, 0, n, r->sink->places);
    return run_changed(r, k, made, s);
}

static ra_err metaspace(const run *r, int k, const uint8_t *s, size_t n)
{
    const ra_step *step = &r->p->step[k];
    ra_mapped *made = &r->work->changed[k];
    bool places = r->sink->places,
         marked = s[0] == ' ' || (n >= (size_t)step->mark_length && !memcmp(s, step->mark, (size_t)step->mark_length));
    bool wanted =
        step->prepend == RA_PREPEND_ALWAYS || (step->prepend == RA_PREPEND_FIRST && r->first && !ra_words_begin(r->sink, s));
    ra_buf_clear(&made->text);
    if (wanted && !marked) ra_mapped_add(made, step->mark, (size_t)step->mark_length, 0, 0, places);
    size_t done = 0;
    for (const uint8_t *space; done < n && (space = memchr(s + done, ' ', n - done));) {
        size_t at = (size_t)(space - s);
        ra_mapped_copy(made, s, done, at, places);
        ra_mapped_add(made, step->mark, (size_t)step->mark_length, at, at + 1, places);
        done = at + 1;
    }
    ra_mapped_copy(made, s, done, n, places);
    return run_changed(r, k, made, s);
}

static ra_err run_from(const run *r, int k, const uint8_t *s, size_t n)
{
    if (k == r->p->n) return r->sink->word(r->sink, s, n);
    const ra_step *step = &r->p->step[k];
    switch (step->kind) {
    case RA_STEP_SPLIT: return step->scan ? split_by_scan(r, k, s, n) : split_by_match(r, k, s, n);
    case RA_STEP_PREFIX_SPACE: return prefix_space(r, k, s, n);
    case RA_STEP_METASPACE: return metaspace(r, k, s, n);
    }
    return RA_OK;
}

ra_err ra_pretok_run(const ra_pretok *p, const ra_unicode *u, ra_pretok_work *w, const uint8_t *s, size_t n, bool first,
                     ra_words *sink)
{
    run r = {p, u, w, sink, first};
    sink->window = s, sink->mapped = NULL;
    return n ? run_from(&r, 0, s, n) : RA_OK;
}
