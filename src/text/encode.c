/* Text to ids and back. Stages: added tokens on the raw text, normaliser, added tokens on the normal text, pre-tokenizer, BPE. */
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
    int64_t segment_at;      /* offset in the whole text of the segment between added tokens */
    int64_t piece_at;        /* offset in the segment's normal text of the piece being cut */
    const ra_mapped *normal; /* the segment's normal text with its places; NULL: the segment itself */
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

/* Places in the segment's normal text, as a beginning and as an end, to offsets in the whole text. */
static int64_t original_begin(const encoder *e, int64_t normal)
{
    const ra_mapped *m = e->normal;
    if (m) normal = (size_t)normal < m->text.length ? m->begin[normal] : normal > 0 ? m->end[normal - 1] : 0;
    return e->segment_at + normal;
}

static int64_t original_end(const encoder *e, int64_t normal)
{
    if (e->normal && normal > 0) normal = e->normal->end[normal - 1];
    return e->segment_at + normal;
}

static void word_offsets(encoder *e, const uint8_t *word, size_t n, const int32_t *ids, size_t count)
{
    int64_t *begins = e->out->begin + e->out->count, *ends = e->out->end + e->out->count;
    size_t at = 0, begin, end;
    for (size_t i = 0; i < count; i++) {
        ra_bpe_next_span(&e->t->bpe, word, n, ids[i], &at, &begin, &end);
        begins[i] = original_begin(e, ra_words_begin(&e->words, word + begin) + e->piece_at);
        ends[i] = original_end(e, ra_words_end(&e->words, word + end) + e->piece_at);
        if (ends[i] < begins[i]) ends[i] = begins[i];
    }
}

static ra_err encode_word(ra_words *words, const uint8_t *word, size_t n)
{
    encoder *e = (encoder *)words;
    bool offsets = e->flags & RA_ENCODE_OFFSETS;
    for (size_t part; n; word += part, n -= part) {
        const int32_t *ids;
        part = e->t->bpe.chars ? ra_bpe_part(&e->t->bpe, word, n) : n;
        size_t count = ra_bpe_word(&e->t->bpe, &e->work->bpe, word, part, &ids);
        reserve(e->out, count, offsets);
        for (size_t i = 0; i < count; i++) e->out->id[e->out->count + (int64_t)i] = ids[i];
        if (offsets) word_offsets(e, word, part, ids, count);
        e->out->count += (int64_t)count;
    }
    return RA_OK;
}

static ra_err encode_piece(encoder *e, const uint8_t *s, size_t n, size_t at)
{
    e->piece_at = (int64_t)at;
    bool first = e->t->need_places && original_begin(e, e->piece_at) == 0;
    return ra_pretok_run(&e->t->pretok, e->t->unicode, &e->work->pretok, s, n, first, &e->words);
}

/* A match widened over the white space it asks for; false where it does not count. `done`: the text before is used up. */
static bool accept(const encoder *e, const uint8_t *s, size_t n, size_t done, ra_added_match *m)
{
    const ra_added *a = &e->t->added[m->index];
    if ((e->flags & RA_ENCODE_PLAIN) && a->special) return false;
    if (a->single_word && (ra_utf8_ends_with_word(s, m->begin) || ra_utf8_starts_with_word(s + m->end, n - m->end))) return false;
    if (a->lstrip) {
        size_t begin = ra_unicode_spaces_before(e->t->unicode, s, m->begin);
        m->begin = begin > done ? begin : done;
    }
    if (a->rstrip) m->end += ra_unicode_spaces_after(e->t->unicode, s + m->end, n - m->end);
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
        if (normal && !e->words.places) { /* nobody asks where it is */
            add_id(e, e->t->added[m.index].id, 0, 0);
        } else {
            int64_t begin = normal ? original_begin(e, (int64_t)m.begin) : (int64_t)m.begin;
            int64_t end = normal ? original_end(e, (int64_t)m.end) : (int64_t)m.end;
            add_id(e, e->t->added[m.index].id, begin, end);
        }
        done = m.end;
    }
    return done < n ? rest(e, s + done, n - done, done) : RA_OK;
}

static ra_err encode_segment(encoder *e, const uint8_t *s, size_t n, size_t at)
{
    const ra_tokenizer *t = e->t;
    e->segment_at = (int64_t)at;
    RA_TRY(ra_normal_run(&t->normal, t->unicode, &e->work->pretok.match, &e->work->normal, s, n, at == 0, e->words.places,
                         &e->normal));
    if (e->normal) s = (const uint8_t *)e->normal->text.data, n = e->normal->text.length;
    return cut(e, &t->on_normal, s, n, encode_piece, true);
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
    e.words.places = t->need_places || (flags & RA_ENCODE_OFFSETS);
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

/* The text of a token as its vocabulary writes it. False: there is none. */
static bool token_text(const ra_tokenizer *t, int32_t id, ra_buf *scratch, const char **text, size_t *n)
{
    int32_t added = t->added_of[id];
    if (added >= 0) {
        *text = t->added[added].text, *n = t->added[added].length;
        return true;
    }
    if (!ra_bpe_has(&t->bpe, id)) return false;
    *text = t->bpe.bytes.data + t->bpe.start[id], *n = (size_t)t->bpe.length[id];
    if (t->byte_level && t->bpe.kind[id] != RA_TOKEN_HIDDEN) {
        ra_buf_clear(scratch);
        ra_bytelevel_encode(*text, *n, scratch);
        *text = scratch->data, *n = scratch->length;
    }
    return true;
}

/* The usual byte-level decoder, without the way through GPT-2's alphabet. */
static void decode_bytes(const ra_tokenizer *t, int32_t id, ra_buf *bytes)
{
    int32_t added = t->added_of[id];
    if (added >= 0) {
        const ra_added *a = &t->added[added];
        /* Added tokens are taken for byte-level text too, where they can be read so. */
        if (!ra_bytelevel_decode(a->text, a->length, bytes)) ra_buf_add(bytes, a->text, a->length);
    } else if (ra_bpe_has(&t->bpe, id)) {
        ra_buf_add(bytes, t->bpe.bytes.data + t->bpe.start[id], (size_t)t->bpe.length[id]);
    }
}

ra_err ra_tokenizer_decode(const ra_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, ra_buf *out)
{
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0) return ra_fail(RA_ERR_DATA, "id %d at position %lld is negative", ids[i], (long long)i);
    }
    bool direct = t->byte_level && t->decoder.n == 1 && t->decoder.step[0].kind == RA_DECODE_BYTE_LEVEL;
    ra_texts texts = {0};
    ra_buf scratch = {0};
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= t->size) continue; /* rows beyond the vocabulary have no text */
        int32_t added = t->added_of[ids[i]];
        if (skip_special && added >= 0 && t->added[added].special) continue;
        const char *text;
        size_t length;
        if (direct) {
            decode_bytes(t, ids[i], &scratch);
        } else if (token_text(t, ids[i], &scratch, &text, &length)) {
            ra_texts_add(&texts, text, length);
        }
    }
    ra_err err = RA_OK;
    if (direct) {
        ra_utf8_add_lossy(out, (const uint8_t *)scratch.data, scratch.length);
    } else {
        err = ra_decoder_run(&t->decoder, t->unicode, &texts, out);
    }
    ra_texts_free(&texts);
    ra_buf_free(&scratch);
    return err;
}
