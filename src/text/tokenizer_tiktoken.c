/* tiktoken's files: a line per token, base64 of its bytes and its rank, which is its id. What cuts the text and which special tokens
 * there are is not in them: it follows from the family. */
#include "families.h"

#include <realign/file.h>
#include <stdlib.h>
#include <string.h>

static int digit64(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes base64 with its padding; false where it is none, or empty. */
static bool decode64(const uint8_t *s, size_t n, ra_buf *out)
{
    ra_buf_clear(out);
    if (!n || n % 4) return false;
    size_t pad = (s[n - 1] == '=') + (size_t)(s[n - 2] == '=' && s[n - 1] == '=');
    for (size_t i = 0; i < n; i += 4) {
        uint32_t bits = 0;
        int bytes = i + 4 == n ? 3 - (int)pad : 3;
        for (int k = 0; k < 4; k++) {
            int digit = k > bytes ? 0 : digit64(s[i + (size_t)k]);
            if (digit < 0) return false;
            bits = bits << 6 | (uint32_t)digit;
        }
        char three[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        ra_buf_add(out, three, (size_t)bytes);
    }
    return out->length > 0;
}

typedef struct {
    const uint8_t *at, *end;
    int64_t line; /* the one read last, from 1 */
} lines;

/* The next line that is not empty. False at the end; *rank is -1 where the line is no base64 with a number. */
static bool next_line(lines *l, ra_buf *bytes, int64_t *rank)
{
    while (l->at < l->end) {
        const uint8_t *s = l->at, *stop = memchr(s, '\n', (size_t)(l->end - s));
        if (!stop) stop = l->end;
        l->at = stop < l->end ? stop + 1 : stop;
        l->line++;
        if (stop > s && stop[-1] == '\r') stop--;
        if (stop == s) continue;
        const uint8_t *space = memchr(s, ' ', (size_t)(stop - s));
        *rank = -1;
        if (!space || stop - space < 2 || stop - space > 9 || !decode64(s, (size_t)(space - s), bytes)) return true;
        int64_t value = 0;
        for (const uint8_t *p = space + 1; p < stop; p++) {
            if (*p < '0' || *p > '9') return true;
            value = 10 * value + *p - '0';
        }
        *rank = value;
        return true;
    }
    return false;
}

bool ra_tok_looks_tiktoken(const uint8_t *bytes, size_t n)
{
    lines l = {bytes, bytes + n, 0};
    ra_buf token = {0};
    int64_t rank;
    bool yes = next_line(&l, &token, &rank) && rank >= 0;
    ra_buf_free(&token);
    return yes;
}

static ra_err read_ranks(ra_tokenizer *t, const char *path, const ra_map *map)
{
    lines l = {map->data, map->data + map->size, 0};
    ra_buf token = {0};
    int64_t rank;
    ra_err err = RA_OK;
    while (err == RA_OK && next_line(&l, &token, &rank)) {
        if (rank < 0 || rank > RA_TOK_MAX_ID) {
            err = ra_fail(RA_ERR_FORMAT, "%s: line %lld must be base64, a space and a rank from 0 to %d", path, (long long)l.line,
                          RA_TOK_MAX_ID);
        } else if (ra_bpe_has(&t->bpe, (int32_t)rank)) {
            err = ra_fail(RA_ERR_FORMAT, "%s: line %lld: rank %lld occurred before", path, (long long)l.line, (long long)rank);
        } else {
            ra_bpe_add_token(&t->bpe, (int32_t)rank, RA_TOKEN_NORMAL, token.data, token.length);
        }
    }
    ra_buf_free(&token);
    return err;
}

static ra_err fill(ra_tokenizer *t, const char *path, const char *dir, const ra_map *map)
{
    ra_bpe *b = &t->bpe;
    RA_TRY(read_ranks(t, path, map));
    const ra_family *family;
    RA_TRY(ra_family_find(path, dir, b->tokens, &family));
    RA_TRY(ra_family_fill_steps(t, path, family));
    b->ignore_merges = true;
    ra_bpe_index(b);
    for (int c = 0; c < 256; c++) {
        if (b->unit_id[c] < 0) return ra_fail(RA_ERR_FORMAT, "%s: no line for the byte 0x%02X", path, (unsigned)c);
    }
    uint32_t *rank = ra_alloc((size_t)b->tokens, sizeof *rank);
    for (int32_t id = 0; id < b->tokens; id++) rank[id] = (uint32_t)id;
    ra_bpe_add_all_merges(b, rank);
    ra_free(rank);
    t->size = b->tokens;
    return ra_family_fill_specials(t, dir, family);
}

ra_err ra_tok_load_tiktoken(ra_tokenizer *t, const char *path)
{
    ra_map map;
    RA_TRY(ra_map_open(path, &map));
    char *dir = ra_tok_dir_of(path);
    ra_err err = fill(t, path, dir, &map);
    free(dir);
    ra_map_close(&map);
    return err;
}
