/* SentencePiece's normaliser (nmt_nfkc, identity and the rest): rules compiled into a double array, then white space. */
#include "normal.h"

#include <stdlib.h>
#include <string.h>

/* precompiled_charsmap: the double array's size in bytes, the array (little-endian units, as Darts-clone writes them), texts. */
ra_err ra_spm_normal_load_map(ra_spm_normal *p, const char *where, const uint8_t *map, size_t n)
{
    if (!n) return RA_OK;
    uint32_t size = n >= 4 ? map[0] | (uint32_t)map[1] << 8 | (uint32_t)map[2] << 16 | (uint32_t)map[3] << 24 : 0;
    bool unused;
    if (n < 8 || size < 1024 || size % 4 != 0 || size > n - 5 || map[n - 1] != 0 ||
        ra_utf8_valid(map + 4 + size, n - 4 - size, &unused) != n - 4 - size) {
        return ra_fail(RA_ERR_FORMAT, "%s: normalizer_spec.precompiled_charsmap (%zu bytes) is damaged", where, n);
    }
    p->units = size / 4;
    p->unit = ra_alloc(p->units, sizeof *p->unit);
    for (size_t i = 0; i < p->units; i++) {
        const uint8_t *s = map + 4 + 4 * i;
        p->unit[i] = s[0] | (uint32_t)s[1] << 8 | (uint32_t)s[2] << 16 | (uint32_t)s[3] << 24;
    }
    p->texts_length = n - 4 - size;
    p->texts = ra_strndup((const char *)map + 4 + size, p->texts_length);
    return RA_OK;
}

void ra_spm_normal_free(ra_spm_normal *p)
{
    ra_free(p->unit);
    free(p->texts);
    ra_added_trie_free(&p->keep);
    *p = (ra_spm_normal){0};
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The longest rule that begins at s: its length (0: none) and the text it gives. */
static size_t longest_rule(const ra_spm_normal *p, const uint8_t *s, size_t n, const char **text)
{
    if (!p->units) return 0;
    size_t at = offset_of(p->unit[0]), best = 0;
    for (size_t i = 0; i < n; i++) {
        at ^= s[i];
        if (!s[i] || at >= p->units || (p->unit[at] & ((1u << 31) | 0xFF)) != s[i]) break;
        uint32_t unit = p->unit[at];
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= p->units) break;
        size_t value = p->unit[at] & ((1u << 31) - 1);
        if (value < p->texts_length) best = i + 1, *text = p->texts + value;
    }
    return best;
}

/* What stands at s after the rules: *n_text bytes of *text for the length returned. */
static size_t next_prefix(const ra_spm_normal *p, const uint8_t *s, size_t n, const char **text, size_t *n_text)
{
    size_t length = ra_added_trie_at(&p->keep, s, n);
    if (!length) {
        length = longest_rule(p, s, n, text);
        if (length) {
            *n_text = strlen(*text);
            return length;
        }
        ra_utf8_decode(s, &length);
    }
    *text = (const char *)s, *n_text = length;
    return length;
}

static void add_space(const ra_spm_normal *p, size_t begin, size_t end, bool places, ra_mapped *out)
{
    if (p->escape) {
        ra_mapped_add(out, "\xE2\x96\x81", 3, begin, end, places);
    } else {
        ra_mapped_add(out, " ", 1, begin, end, places);
    }
}

void ra_spm_normal_apply(const ra_spm_normal *p, const uint8_t *s, size_t n, bool first, bool places, ra_mapped *out)
{
    size_t i = 0, length, k;
    const char *text;
    while (p->squeeze && i < n) { /* white space at the front */
        length = next_prefix(p, s + i, n - i, &text, &k);
        if (k != 1 || *text != ' ') break;
        i += length;
    }
    if (i == n) return;
    if (p->dummy_prefix && (first || !p->prefix_once)) add_space(p, i, i, places, out);
    bool after_space = p->squeeze;
    for (; i < n; i += length) {
        length = next_prefix(p, s + i, n - i, &text, &k);
        while (after_space && k && *text == ' ') text++, k--;
        if (!k) continue;
        bool same = text == (const char *)s + i; /* untouched: every byte keeps its own place */
        for (size_t j = 0; j < k; j++) {
            size_t begin = same ? i + j : i, end = same ? i + j + 1 : i + length;
            if (text[j] == ' ') {
                add_space(p, begin, end, places, out);
            } else {
                ra_mapped_add(out, text + j, 1, begin, end, places);
            }
        }
        after_space = p->squeeze && text[k - 1] == ' ';
    }
    size_t space = p->escape ? 3 : 1;
    while (p->squeeze && out->text.length >= space &&
           !memcmp(out->text.data + out->text.length - space, p->escape ? "\xE2\x96\x81" : " ", space)) {
        out->text.length -= space;
    }
}
