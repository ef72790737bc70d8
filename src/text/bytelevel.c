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
