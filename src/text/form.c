/* The Unicode normal forms. Only regions that may change go through utf8proc, so that everything else keeps its own place. */
#include "normal.h"

#include <utf8proc.h>

static utf8proc_option_t options_of(ra_unicode_form form)
{
    utf8proc_option_t options = UTF8PROC_STABLE;
    options |= form == RA_NFC || form == RA_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    return form == RA_NFKC || form == RA_NFKD ? options | UTF8PROC_COMPAT : options;
}

/* What the form does with a character, as bits of ra_unicode_class. */
static uint8_t class_in(ra_unicode_form form, const ra_unicode *u, uint32_t c)
{
    if (c < 0x80) return 0;
    uint8_t class = ra_unicode_class(u, c);
    if (form == RA_NFC || (class & RA_CLS_LATE)) return class;
    class &= RA_CLS_JOINS;
    utf8proc_int32_t parts[32];
    int bound = 0;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form != RA_NFD) {
        if (ra_unicode_late_compat(c)) return RA_CLS_LATE;
        options |= UTF8PROC_COMPAT;
    }
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32, options, &bound);
    if (n == 1 && parts[0] == (utf8proc_int32_t)c) return class;
    if (n > 0) class |= ra_unicode_class(u, (uint32_t)parts[0]) & RA_CLS_JOINS;
    return class | RA_CLS_CHANGES;
}

static size_t last_char(const uint8_t *s, size_t n)
{
    size_t i = n - 1;
    while (i > 0 && (s[i] & 0xC0) == 0x80) i--;
    return i;
}

/* Appends s[done, from) and the form of the region [from, to). What stays the same at both its ends keeps its own place; between,
 * every byte stands for the whole changed part. Returns whether anything changed; where not, nothing is written. */
static bool normalise_region(ra_unicode_form form, ra_compose_work *w, const uint8_t *s, size_t done, size_t from, size_t to,
                             bool places, ra_mapped *out)
{
    size_t count = (size_t)ra_compose(s + from, to - from, (int)options_of(form), w); /* s is valid */
    size_t same = 0, at = from, length;
    while (same < count && at < to && ra_utf8_decode(s + at, &length) == (uint32_t)w->code[same]) same++, at += length;
    if (same == count && at == to) return false;
    size_t tail = to, last = count;
    while (last > same && tail > at) {
        size_t before = last_char(s, tail);
        if (before < at || ra_utf8_decode(s + before, &length) != (uint32_t)w->code[last - 1]) break;
        tail = before, last--;
    }
    ra_mapped_copy(out, s, done, at, places);
    for (size_t i = same; i < last; i++) {
        uint8_t bytes[4];
        ra_mapped_add(out, bytes, (size_t)ra_utf8_encode((uint32_t)w->code[i], bytes), at, tail, places);
    }
    ra_mapped_copy(out, s, tail, to, places);
    return true;
}

bool ra_form_apply(ra_unicode_form form, const ra_unicode *u, const uint8_t *s, size_t n, bool places, ra_compose_work *w,
                   ra_mapped *out)
{
    bool above, changed = false, has_previous = false;
    if (form == RA_NFC && (ra_utf8_valid(s, n, &above), !above)) return false;
    size_t done = 0, previous = 0, i = 0, length; /* s[0, done) is written out once `changed` */
    while (i < n) {
        uint8_t class = s[i] < 0x80 ? (length = 1, 0) : class_in(form, u, ra_utf8_decode(s + i, &length));
        if (!(class & (RA_CLS_JOINS | RA_CLS_CHANGES))) {
            previous = i, has_previous = !(class & RA_CLS_LATE);
            i += length;
            continue;
        }
        size_t from = has_previous && (class & RA_CLS_JOINS) ? previous : i, to = i + length;
        while (to < n && (class_in(form, u, ra_utf8_decode(s + to, &length)) & RA_CLS_JOINS)) to += length;
        if (!changed) ra_buf_clear(&out->text);
        if (normalise_region(form, w, s, done, from, to, places, out)) changed = true, done = to;
        i = to, has_previous = false;
    }
    if (changed) ra_mapped_copy(out, s, done, n, places);
    return changed;
}
