#include "tok.h"

#include <stdlib.h>
#include <string.h>

ra_err ra_decoder_add(ra_decoder *d, const char *where, ra_decode_kind kind, ra_decode_step **out)
{
    if (d->n == RA_DECODE_STEPS)
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: a decoder of more than %d steps", where, RA_DECODE_STEPS);
    *out = &d->step[d->n++];
    **out = (ra_decode_step){.kind = kind};
    return RA_OK;
}

void ra_decoder_free(ra_decoder *d)
{
    for (int i = 0; i < d->n; i++) {
        ra_matcher_free(&d->step[i].match);
        free(d->step[i].text);
    }
    *d = (ra_decoder){0};
}

static void end_text(ra_texts *t)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 256;
        t->end = ra_realloc(t->end, t->capacity, sizeof *t->end);
    }
    t->end[t->n++] = t->bytes.length;
}

void ra_texts_add(ra_texts *t, const void *bytes, size_t n)
{
    ra_buf_add(&t->bytes, bytes, n);
    end_text(t);
}

void ra_texts_free(ra_texts *t)
{
    ra_buf_free(&t->bytes);
    free(t->end);
    *t = (ra_texts){0};
}

static const char *text_at(const ra_texts *t, size_t i, size_t *n)
{
    size_t begin = i ? t->end[i - 1] : 0;
    *n = t->end[i] - begin;
    return t->bytes.data + begin;
}

static void byte_level(const ra_texts *from, ra_texts *to)
{
    ra_buf bytes = {0};
    for (size_t i = 0; i < from->n; i++) {
        size_t n;
        const char *text = text_at(from, i, &n);
        if (!ra_bytelevel_decode(text, n, &bytes)) ra_buf_add(&bytes, text, n);
    }
    ra_utf8_add_lossy(&to->bytes, (const uint8_t *)bytes.data, bytes.length);
    end_text(to);
    ra_buf_free(&bytes);
}

static ra_err replace(const ra_decode_step *step, const ra_unicode *u, ra_match_work *w, const ra_texts *from, ra_texts *to)
{
    for (size_t i = 0; i < from->n; i++) {
        size_t n, done = 0;
        const char *text = text_at(from, i, &n);
        ra_match_walk walk = {0};
        for (bool found;; done = walk.end) {
            RA_TRY(ra_match_next(&step->match, u, w, (const uint8_t *)text, n, &walk, &found));
            if (!found) break;
            ra_buf_add(&to->bytes, text + done, walk.begin - done);
            ra_buf_add(&to->bytes, step->text, step->length);
        }
        ra_texts_add(to, text + done, n - done);
    }
    return RA_OK;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of <0x..>, -1 for another text. */
static int byte_of(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]); /* Rust reads a sign there, too */
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static void end_bytes(ra_buf *run, bool whole, ra_texts *to)
{
    const uint8_t *s = (const uint8_t *)run->data;
    bool unused;
    if (!run->length) return;
    if (whole && ra_utf8_valid(s, run->length, &unused) == run->length) {
        ra_texts_add(to, s, run->length);
    } else if (whole) {
        for (size_t i = 0; i < run->length; i++) ra_texts_add(to, "\xEF\xBF\xBD", 3);
    } else { /* a character, or one bad byte, after the other */
        for (size_t i = 0; i < run->length;) {
            size_t k = 1;
            while (k < 4 && i + k < run->length && (s[i + k] & 0xC0) == 0x80) k++;
            while (k > 1 && ra_utf8_valid(s + i, k, &unused) != k) k--;
            if (k == 1 && s[i] >= 0x80) {
                ra_texts_add(to, "\xEF\xBF\xBD", 3);
            } else {
                ra_texts_add(to, s + i, k);
            }
            i += k;
        }
    }
    ra_buf_clear(run);
}

static void bytes(const ra_texts *from, bool whole, ra_texts *to)
{
    ra_buf run = {0};
    for (size_t i = 0; i < from->n; i++) {
        size_t n;
        const char *text = text_at(from, i, &n);
        int byte = byte_of(text, n);
        char c = (char)byte;
        if (byte >= 0) {
            ra_buf_add(&run, &c, 1);
        } else {
            end_bytes(&run, whole, to);
            ra_texts_add(to, text, n);
        }
    }
    end_bytes(&run, whole, to);
    ra_buf_free(&run);
}

static void strip(const ra_decode_step *step, const ra_texts *from, ra_texts *to)
{
    for (size_t i = 0; i < from->n; i++) {
        size_t n, k = step->length;
        const char *text = text_at(from, i, &n);
        for (int64_t left = step->start; left > 0 && n >= k && !memcmp(text, step->text, k); left--) text += k, n -= k;
        for (int64_t left = step->stop; left > 0 && n >= k && !memcmp(text + n - k, step->text, k); left--) n -= k;
        ra_texts_add(to, text, n);
    }
}

static void first_mark(const ra_decode_step *step, const ra_texts *from, ra_texts *to)
{
    bool front = true;
    for (size_t i = 0; i < from->n; i++) {
        size_t n, k = step->length;
        const char *text = text_at(from, i, &n);
        bool mark = front && n >= k && !memcmp(text, step->text, k);
        if (mark) text += k, n -= k;
        front = front && !n && (step->again || !mark);
        ra_texts_add(to, text, n);
    }
}

static void metaspace(const ra_decode_step *step, const ra_texts *from, ra_texts *to)
{
    for (size_t i = 0; i < from->n; i++) {
        size_t n, k = step->length;
        const char *text = text_at(from, i, &n);
        for (size_t p = 0; p < n;) {
            bool mark = n - p >= k && !memcmp(text + p, step->text, k);
            if (mark && !(i == 0 && step->prepended)) ra_buf_add(&to->bytes, " ", 1); /* in the first text, all of them go */
            if (!mark) ra_buf_add(&to->bytes, text + p, 1);
            p += mark ? k : 1;
        }
        end_text(to);
    }
}

static ra_err apply(const ra_decode_step *step, const ra_unicode *u, ra_match_work *w, const ra_texts *from, ra_texts *to)
{
    switch (step->kind) {
    case RA_DECODE_BYTE_LEVEL: byte_level(from, to); break;
    case RA_DECODE_REPLACE: return replace(step, u, w, from, to);
    case RA_DECODE_BYTE_FALLBACK: bytes(from, true, to); break;
    case RA_DECODE_BYTE_PIECES: bytes(from, false, to); break;
    case RA_DECODE_FUSE: ra_texts_add(to, from->bytes.data, from->bytes.length); break;
    case RA_DECODE_STRIP: strip(step, from, to); break;
    case RA_DECODE_FIRST_MARK: first_mark(step, from, to); break;
    case RA_DECODE_METASPACE: metaspace(step, from, to); break;
    }
    return RA_OK;
}

ra_err ra_decoder_run(const ra_decoder *d, const ra_unicode *u, ra_texts *texts, ra_buf *out)
{
    ra_match_work w = {0};
    ra_texts other = {0};
    ra_err err = RA_OK;
    for (int i = 0; i < d->n && err == RA_OK; i++) {
        ra_buf_clear(&other.bytes);
        other.n = 0;
        err = apply(&d->step[i], u, &w, texts, &other);
        ra_texts swap = *texts;
        *texts = other, other = swap;
    }
    if (err == RA_OK && d->spaced) {
        for (size_t i = 0, n; i < texts->n; i++) {
            const char *text = text_at(texts, i, &n);
            if (i) ra_buf_add(out, " ", 1);
            ra_utf8_add_lossy(out, (const uint8_t *)text, n);
        }
    } else if (err == RA_OK) {
        ra_utf8_add_lossy(out, (const uint8_t *)texts->bytes.data, texts->bytes.length);
    }
    ra_texts_free(&other);
    ra_match_work_free(&w);
    return err;
}
