/* The byte-level alphabet of GPT-2: printable bytes stand for themselves, the other 68 for U+0100 and up, in order. */
#include "tok.h"

static int byte_of(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    int k = (int)c - 0x100;
    if (k < 33) return k;             /* 00 to 20 */
    if (k < 67) return k - 33 + 0x7F; /* 7F to A0 */
    return 0xAD;
}

bool ra_bytelevel_decode(const char *text, size_t n, ra_buf *out)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t start = out->length, length;
    for (size_t i = 0; i < n; i += length) {
        int byte = byte_of(ra_utf8_decode(s + i, &length));
        if (byte < 0) {
            out->length = start;
            return false;
        }
        char c = (char)byte;
        ra_buf_add(out, &c, 1);
    }
    return true;
}

void ra_bytelevel_encode(const void *bytes, size_t n, ra_buf *out)
{
    const uint8_t *s = bytes;
    for (size_t i = 0; i < n; i++) {
        uint8_t text[4], b = s[i];
        uint32_t c = b <= 0x20 ? 0x100u + b : b >= 0x7F && b <= 0xA0 ? 0x100u + 33 + (b - 0x7F) : b == 0xAD ? 0x143 : b;
        ra_buf_add(out, text, (size_t)ra_utf8_encode(c, text));
    }
}

void ra_tok_add_byte_level(ra_tokenizer *t, int32_t id, const char *text, size_t n)
{
    ra_buf bytes = {0};
    if (ra_bytelevel_decode(text, n, &bytes)) {
        ra_bpe_add_token(&t->bpe, id, RA_TOKEN_NORMAL, bytes.data, bytes.length);
    } else { /* cannot come out of BPE: an added token, or unreachable */
        ra_bpe_add_token(&t->bpe, id, RA_TOKEN_HIDDEN, text, n);
    }
    ra_buf_free(&bytes);
}

bool ra_tok_add_byte_level_merge(ra_tokenizer *t, uint32_t rank, const char *left, size_t n_left, const char *right,
                                 size_t n_right)
{
    ra_buf both = {0};
    bool good = ra_bytelevel_decode(left, n_left, &both);
    size_t at = both.length;
    good = good && ra_bytelevel_decode(right, n_right, &both) &&
           ra_bpe_add_merge(&t->bpe, rank, both.data, at, both.data + at, both.length - at);
    ra_buf_free(&both);
    return good;
}
