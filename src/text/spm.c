#include "spm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of a piece <0x..>, -1 for another text. */
static int byte_of(const ra_piece *p)
{
    if (p->length != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') return -1;
    int high = hex_digit(p->text[3]), low = hex_digit(p->text[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static bool is_special(const ra_tokenizer *t, int32_t id)
{
    for (int32_t i = 0; i < t->n_added; i++) {
        if (t->added[i].id == id && t->added[i].special) return true;
    }
    return false;
}

static ra_err add_piece(ra_tokenizer *t, const char *path, int32_t id, const ra_piece *p)
{
    bool unused;
    ra_bpe *b = &t->bpe;
    if (!p->length || isnan(p->score) || ra_utf8_valid((const uint8_t *)p->text, p->length, &unused) != p->length) {
        return ra_fail(RA_ERR_FORMAT, "%s: piece %d is empty, not UTF-8, or has no score", path, id);
    }
    ra_token_kind kind = RA_TOKEN_HIDDEN;
    int byte;
    switch (p->type) {
    case RA_PIECE_NORMAL: kind = RA_TOKEN_NORMAL; break;
    case RA_PIECE_UNUSED: kind = RA_TOKEN_UNUSED; break;
    case RA_PIECE_CONTROL: break;
    case RA_PIECE_UNKNOWN:
        if (b->unknown >= 0) return ra_fail(RA_ERR_FORMAT, "%s: pieces %d and %d are both the unknown one", path, b->unknown, id);
        b->unknown = id;
        break;
    case RA_PIECE_USER_DEFINED:
        kind = RA_TOKEN_NORMAL;
        ra_tok_add(t, (ra_added){.id = id,
                                 .text = (char *)(uintptr_t)p->text,
                                 .length = p->length,
                                 .special = is_special(t, id),
                                 .normalized = true,
                                 .piece = true});
        break;
    case RA_PIECE_BYTE:
        byte = byte_of(p);
        if (byte < 0) return ra_fail(RA_ERR_FORMAT, "%s: piece %d is of the byte type, but no <0x00> to <0xFF>", path, id);
        b->byte_token[byte] = id;
        break;
    default: return ra_fail(RA_ERR_UNSUPPORTED, "%s: piece %d has type %d; known are 1 to 6", path, id, p->type);
    }
    ra_bpe_add_token(b, id, kind, p->text, p->length);
    return RA_OK;
}

typedef struct {
    float score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return x > y ? -1 : x < y;
}

/* The better the score the lower the rank; equal scores share one. */
static uint32_t *ranks_of(const ra_spm *spm, int32_t tokens)
{
    scored *order = ra_alloc((size_t)spm->n, sizeof *order);
    uint32_t *rank = ra_calloc((size_t)tokens, sizeof *rank), next = 0;
    for (int32_t id = 0; id < spm->n; id++) order[id] = (scored){spm->piece[id].score, id};
    qsort(order, (size_t)spm->n, sizeof *order, by_score);
    for (int32_t i = 0; i < spm->n; i++) {
        if (i && order[i].score < order[i - 1].score) next++;
        rank[order[i].id] = next;
    }
    ra_free(order);
    return rank;
}

static ra_err add_normaliser(ra_tokenizer *t, const char *path, const ra_spm *spm)
{
    ra_normal_step *step;
    RA_TRY(ra_normal_add(&t->normal, path, RA_NORMAL_SPM, &step));
    ra_spm_normal *p = step->spm = ra_calloc(1, sizeof *p);
    p->dummy_prefix = spm->dummy_prefix, p->squeeze = spm->squeeze, p->escape = spm->escape;
    p->prefix_once = spm->prefix_once;
    for (int32_t id = 0; id < spm->n; id++) {
        const ra_piece *piece = &spm->piece[id];
        if (piece->type == RA_PIECE_USER_DEFINED) ra_added_trie_add(&p->keep, piece->text, piece->length, id);
    }
    return ra_spm_normal_load_map(p, path, spm->map, spm->map_length);
}

static ra_err add_decoder(ra_tokenizer *t, const char *path, const ra_spm *spm)
{
    ra_decode_step *step;
    if (spm->dummy_prefix || spm->squeeze) {
        RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_FIRST_MARK, &step));
        step->text = ra_strdup("\xE2\x96\x81"), step->length = 3;
        step->again = spm->squeeze;
    }
    RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_REPLACE, &step));
    ra_matcher_literal(&step->match, "\xE2\x96\x81", 3);
    step->text = ra_strdup(" "), step->length = 1;
    RA_TRY(ra_decoder_add(&t->decoder, path, RA_DECODE_BYTE_PIECES, &step));
    return ra_decoder_add(&t->decoder, path, RA_DECODE_FUSE, &step);
}

ra_err ra_spm_fill(ra_tokenizer *t, const char *path, const ra_spm *spm)
{
    ra_bpe *b = &t->bpe;
    b->chars = b->fuse_unknown = b->late_unknown = true;
    b->byte_fallback = spm->byte_fallback;
    memset(b->byte_token, 0xFF, sizeof b->byte_token);
    for (int32_t id = 0; id < spm->n; id++) RA_TRY(add_piece(t, path, id, &spm->piece[id]));
    if (t->size < spm->n) t->size = spm->n;
    if (b->unknown < 0 && spm->unknown < spm->n) b->unknown = spm->unknown;
    if (b->unknown < 0) return ra_fail(RA_ERR_FORMAT, "%s: no piece is of the unknown type", path);
    for (int c = 0; c < 256 && spm->byte_fallback; c++) {
        if (b->byte_token[c] < 0) return ra_fail(RA_ERR_FORMAT, "%s: byte fallback without a piece <0x%02X>", path, (unsigned)c);
    }
    ra_bpe_add_parts(b, t->size);
    ra_bpe_index(b);
    uint32_t *rank = ranks_of(spm, b->tokens);
    ra_bpe_add_all_merges(b, rank);
    ra_free(rank);
    RA_TRY(add_normaliser(t, path, spm));
    return add_decoder(t, path, spm);
}
