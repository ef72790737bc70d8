/* Text to ids and back. Stages: added tokens on the raw text, NFC, added tokens on the normal text, pre-tokenizer, BPE. */
#include "tok.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_words words; /* first: the pre-tokenizer's view of this */
    const ra_tokenizer *t;
    ra_tok_work *work;
    ra_ids *out;
    int flags;
    int64_t segment_at; /* offset in the whole text of the segment between added tokens */
    int64_t piece_at;   /* offset in the segment's normal text of the piece being cut */
    bool changed;       /* the segment's normal text is work->nfc, with its own places */
} encoder;

static void reserve(ra_ids *ids, size_t more, bool offsets)
{
    int64_t need = ids->count + (int64_t)more;
    if (need > ids->capacity) {
        ids->capacity = need > 2 * ids->capacity ? need + 16 : 2 * ids->capacity;
        ids->id = ra_realloc(ids->id, (size_t)ids->capacity, sizeof *ids->id);
        if (ids->begin) ids->begin = ra_realloc(ids->begin, (size_t)ids->capacity, sizeof *ids->begin);
        if (ids->end) ids->end = ra_realloc(ids->end, (size_t)ids->capacity, sizeof *ids->end);
    }
    if (offsets && !ids->begin) {
        ids->begin = ra_realloc(NULL, (size_t)ids->capacity, sizeof *ids->begin);
        ids->end = ra_realloc(NULL, (size_t)ids->capacity, sizeof *ids->end);
    }
}

static void add_id(encoder *e, int32_t id, int64_t begin, int64_t end)
{
    bool offsets = e->flags & RA_ENCODE_OFFSETS;
    reserve(e->out, 1, offsets);
    if (offsets) e->out->begin[e->out->count] = begin, e->out->end[e->out->count] = end;
    e->out->id[e->out->count++] = id;
}

/* Offset in the normal text of a place in the current window. */
static int64_t normal_place(const encoder *e, const uint8_t *p)
{
    int64_t place = p - e->words.window - e->words.lead;
    return (place > 0 ? place : 0) + e->words.at + e->piece_at;
}

static int64_t original_begin(const encoder *e, int64_t normal)
{
    if (e->changed)
        normal = (size_t)normal < e->work->nfc.text.length ? e->work->nfc.begin[normal] : e->work->nfc.end[normal - 1];
    return e->segment_at + normal;
}

static int64_t original_end(const encoder *e, int64_t normal)
{
    if (e->changed && normal > 0) normal = e->work->nfc.end[normal - 1];
    return e->segment_at + normal;
}

/* The spans of a word's ids: each takes its token's bytes, passing over bytes that have no token and were dropped. */
static void word_offsets(encoder *e, const uint8_t *word, const int32_t *ids, size_t count, int64_t first)
{
    const ra_bpe *b = &e->t->bpe;
    const uint8_t *p = word;
    for (size_t i = 0; i < count; i++) {
        while (b->byte_id[*p] < 0) p++;
        const uint8_t *begin = p;
        if (ids[i] == b->unknown && b->byte_id[*p] == b->unknown) {
            p++;
        } else {
            for (int32_t left = b->length[ids[i]]; left > 0; p++) left -= b->byte_id[*p] >= 0;
        }
        e->out->begin[first + (int64_t)i] = original_begin(e, normal_place(e, begin));
        e->out->end[first + (int64_t)i] = original_end(e, normal_place(e, p));
    }
}

static ra_err encode_word(ra_words *words, const uint8_t *word, size_t n)
{
    encoder *e = (encoder *)words;
    const int32_t *ids;
    size_t count = ra_bpe_word(&e->t->bpe, &e->work->bpe, word, n, &ids);
    bool offsets = e->flags & RA_ENCODE_OFFSETS;
    reserve(e->out, count, offsets);
    int64_t first = e->out->count;
    for (size_t i = 0; i < count; i++) e->out->id[first + (int64_t)i] = ids[i];
    if (offsets) word_offsets(e, word, ids, count, first);
    e->out->count += (int64_t)count;
    return RA_OK;
}

static ra_err encode_piece(encoder *e, const uint8_t *s, size_t n, size_t at)
{
    e->piece_at = (int64_t)at;
    return ra_pretok_run(&e->t->pretok, e->t->unicode, &e->work->pretok, s, n, &e->words);
}

static size_t spaces_before(const ra_unicode *u, const uint8_t *s, size_t n)
{
    while (n > 0) {
        size_t i = n - 1, length;
        while (i > 0 && (s[i] & 0xC0) == 0x80) i--;
        if (!(ra_unicode_class(u, ra_utf8_decode(s + i, &length)) & RA_CLS_SPACE)) break;
        n = i;
    }
    return n;
}

static size_t spaces_after(const ra_unicode *u, const uint8_t *s, size_t n)
{
    size_t i = 0, length;
    while (i < n && (ra_unicode_class(u, ra_utf8_decode(s + i, &length)) & RA_CLS_SPACE)) i += length;
    return i;
}

/* A match widened over the white space it asks for; false where it does not count. `done`: the text before is used up. */
static bool accept(const encoder *e, const uint8_t *s, size_t n, size_t done, ra_added_match *m)
{
    const ra_added *a = &e->t->added[m->index];
    if ((e->flags & RA_ENCODE_PLAIN) && a->special) return false;
    if (a->single_word && (ra_utf8_ends_with_word(s, m->begin) || ra_utf8_starts_with_word(s + m->end, n - m->end))) return false;
    if (a->lstrip) {
        size_t begin = spaces_before(e->t->unicode, s, m->begin);
        m->begin = begin > done ? begin : done;
    }
    if (a->rstrip) m->end += spaces_after(e->t->unicode, s + m->end, n - m->end);
    return true;
}

typedef ra_err (*between)(encoder *e, const uint8_t *s, size_t n, size_t at);

/* Cuts s at the added tokens of one trie; what lies between goes to `rest`. place() gives a span of s in the whole text. */
static ra_err cut(encoder *e, const ra_added_trie *trie, const uint8_t *s, size_t n, between rest, bool normal)
{
    size_t done = 0, from = 0;
    ra_added_match m;
    while (ra_added_trie_next(trie, s, n, from, &m)) {
        from = m.end;
        if (!accept(e, s, n, done, &m)) continue;
        if (m.begin > done) RA_TRY(rest(e, s + done, m.begin - done, done));
        int64_t begin = normal ? original_begin(e, (int64_t)m.begin) : (int64_t)m.begin;
        int64_t end = normal ? original_end(e, (int64_t)m.end) : (int64_t)m.end;
        add_id(e, e->t->added[m.index].id, begin, end);
        done = m.end;
    }
    return done < n ? rest(e, s + done, n - done, done) : RA_OK;
}

static ra_err encode_segment(encoder *e, const uint8_t *s, size_t n, size_t at)
{
    e->segment_at = (int64_t)at;
    e->changed = false;
    bool above;
    if (e->t->nfc && (ra_utf8_valid(s, n, &above), above)) {
        e->changed = ra_nfc_apply(e->t->unicode, s, n, e->flags & RA_ENCODE_OFFSETS, &e->work->nfc);
        if (e->changed) s = (const uint8_t *)e->work->nfc.text.data, n = e->work->nfc.text.length;
    }
    return cut(e, &e->t->on_normal, s, n, encode_piece, true);
}

ra_err ra_tokenizer_encode(const ra_tokenizer *t, const char *text, size_t length, int flags, ra_ids *out)
{
    bool unused;
    const uint8_t *s = (const uint8_t *)text;
    size_t good = ra_utf8_valid(s, length, &unused);
    if (good < length) return ra_fail(RA_ERR_DATA, "the text is not UTF-8: byte %zu is 0x%02X", good, s[good]);
    if (length > INT_MAX / 2) {
        return ra_fail(RA_ERR_DATA, "a text of %zu bytes is too long to tokenise in one piece; at most %d", length, INT_MAX / 2);
    }
    encoder e = {.words.word = encode_word, .t = t, .work = ra_tok_take_work(t), .out = out, .flags = flags};
    int64_t before = out->count;
    if (flags & RA_ENCODE_ADD_SPECIAL) {
        for (int i = 0; i < t->n_prefix; i++) add_id(&e, t->prefix[i], 0, 0);
    }
    ra_err err = cut(&e, &t->raw, s, length, encode_segment, false);
    if (flags & RA_ENCODE_ADD_SPECIAL) {
        for (int i = 0; i < t->n_suffix; i++) add_id(&e, t->suffix[i], (int64_t)length, (int64_t)length);
    }
    ra_tok_return_work(t, e.work);
    if (err != RA_OK) out->count = before;
    return err;
}

ra_err ra_tokenizer_decode(const ra_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, ra_buf *out)
{
    ra_buf bytes = {0};
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0) {
            ra_buf_free(&bytes);
            return ra_fail(RA_ERR_DATA, "id %d at position %lld is negative", ids[i], (long long)i);
        }
        if (ids[i] >= t->size) continue; /* rows beyond the vocabulary have no text */
        int32_t added = t->added_of[ids[i]];
        if (added >= 0) {
            const ra_added *a = &t->added[added];
            if (skip_special && a->special) continue;
            /* The ByteLevel decoder takes added tokens for byte-level text too, where they can be read so. */
            if (!ra_bytelevel_decode(a->text, a->length, &bytes)) ra_buf_add(&bytes, a->text, a->length);
        } else if (ids[i] < t->bpe.tokens && t->bpe.start[ids[i]] >= 0) {
            ra_buf_add(&bytes, t->bpe.bytes.data + t->bpe.start[ids[i]], (size_t)t->bpe.length[ids[i]]);
        }
    }
    ra_utf8_add_lossy(out, (const uint8_t *)bytes.data, bytes.length);
    ra_buf_free(&bytes);
    return RA_OK;
}
