/* Unicode as Hugging Face tokenizers see it: character classes (Unicode 16, as their regular expressions), UTF-8, and NFC. */
#ifndef REALIGN_TEXT_UNICODE_H
#define REALIGN_TEXT_UNICODE_H
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    RA_CLS_LETTER = 1,   /* \p{L} */
    RA_CLS_NUMBER = 2,   /* \p{N} */
    RA_CLS_SPACE = 4,    /* \s */
    RA_CLS_NEWLINE = 8,  /* [\r\n] */
    RA_CLS_DIGIT = 16,   /* what the Digits pre-tokenizer isolates */
    RA_CLS_JOINS = 32,   /* NFC may move this character or join it to the one before */
    RA_CLS_CHANGES = 64, /* NFC makes something else of this character alone */
    RA_CLS_LATE = 128    /* younger than Hugging Face's NFC tables: NFC passes it by and nothing moves across it */
};

/* Classes of the basic plane; the rest is computed when met. */
typedef struct {
    uint8_t bmp[65536];
} ra_unicode;

ra_unicode *ra_unicode_new(void); /* free with ra_free */
uint8_t ra_unicode_class_slow(uint32_t c);

static inline uint8_t ra_unicode_class(const ra_unicode *u, uint32_t c)
{
    return c < 65536 ? u->bmp[c] : ra_unicode_class_slow(c);
}

/* The character at s[0] of valid UTF-8, and its length in bytes. */
static inline uint32_t ra_utf8_decode(const uint8_t *s, size_t *length)
{
    if (s[0] < 0x80) return *length = 1, s[0];
    if (s[0] < 0xE0) return *length = 2, (uint32_t)(s[0] & 31) << 6 | (s[1] & 63);
    if (s[0] < 0xF0) return *length = 3, (uint32_t)(s[0] & 15) << 12 | (uint32_t)(s[1] & 63) << 6 | (s[2] & 63);
    return *length = 4,
           (uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 | (uint32_t)(s[2] & 63) << 6 | (uint32_t)(s[3] & 63);
}
int ra_utf8_encode(uint32_t c, uint8_t out[4]);

/* Length of the valid UTF-8 at the front of s: n where all is valid, else the offset of the first bad byte. *above_latin is set
 * where a character from U+0300 on was met: below it NFC changes nothing. */
size_t ra_utf8_valid(const uint8_t *s, size_t n, bool *above_latin);
/* Appends `s` with U+FFFD in place of every maximal invalid part. */
void ra_utf8_add_lossy(ra_buf *out, const uint8_t *s, size_t n);

/* str.strip() of Python: the trimmed span of valid UTF-8. */
void ra_utf8_strip(const char *s, size_t n, size_t *begin, size_t *end);
/* Is the last character before s + n, or the first at s, a word character (\w)? */
bool ra_utf8_ends_with_word(const uint8_t *s, size_t n);
bool ra_utf8_starts_with_word(const uint8_t *s, size_t n);

/* The end of s without the white space it ends with, and the length of the white space it begins with. */
size_t ra_unicode_spaces_before(const ra_unicode *u, const uint8_t *s, size_t n);
size_t ra_unicode_spaces_after(const ra_unicode *u, const uint8_t *s, size_t n);

uint32_t ra_unicode_lower(uint32_t c); /* one code point; U+0130 gives the first of its two */
bool ra_unicode_punctuation(uint32_t c);
bool ra_unicode_late_compat(uint32_t c); /* NFKC and NFKD of Hugging Face leave it alone */

#endif
