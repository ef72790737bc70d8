/* What tells prompts and rows apart. The prompt's hash is taken of a form that does not see case, compatibility of composed characters or how white space is
 * laid out, so that a prompt that was copied with other line ends does not end up on both sides of the held-out split. */
#include "../text/compose.h"
#include "schema.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { SEPARATOR = 0x1f };

static bool is_ascii(const unsigned char *text, size_t n)
{
    unsigned char all = 0;
    for (size_t i = 0; i < n; i++) all |= text[i];
    return all < 0x80;
}

/* Lower case and single blanks; at the ends none. */
static void add_ascii(ra_buf *out, const char *text, size_t n)
{
    ra_buf_reserve(out, n + 1);
    char *to = out->data + out->length, *begin = to;
    bool blank = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == ' ' || (c >= '\t' && c <= '\r')) {
            blank = to > begin;
            continue;
        }
        if (blank) *to++ = ' ';
        blank = false;
        *to++ = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    out->length += (size_t)(to - begin);
}

/* Case-folded, composed, with every kind of blank as U+0020; then as above. */
static void add_normalised(ra_buf *out, const char *text)
{
    size_t n = strlen(text);
    if (is_ascii((const unsigned char *)text, n)) {
        add_ascii(out, text, n);
        return;
    }
    ra_compose_work work = {0};
    int64_t count =
        ra_compose((const uint8_t *)text, n, UTF8PROC_CASEFOLD | UTF8PROC_COMPOSE | UTF8PROC_STABLE | UTF8PROC_LUMP, &work);
    if (count < 0) {
        ra_buf_add(out, text, n);
    } else {
        ra_buf folded = {0};
        ra_buf_reserve(&folded, 4 * (size_t)count);
        for (int64_t i = 0; i < count; i++)
            folded.length += (size_t)utf8proc_encode_char(work.code[i], (utf8proc_uint8_t *)folded.data + folded.length);
        add_ascii(out, folded.data, folded.length);
        ra_buf_free(&folded);
    }
    free(work.code);
}

static void add_exact(ra_buf *out, const char *text)
{
    ra_buf_add(out, text ? text : "", text ? strlen(text) + 1 : 1);
}

void ra_row_make_hashes(ra_row *row, ra_buf *scratch)
{
    const char separator = SEPARATOR;
    ra_buf_clear(scratch);
    for (int i = 0; i < row->n_prompt; i++) {
        ra_buf_add(scratch, row->prompt[i].role, strlen(row->prompt[i].role));
        ra_buf_add(scratch, &separator, 1);
        add_normalised(scratch, row->prompt[i].content);
        ra_buf_add(scratch, &separator, 1);
    }
    row->prompt_hash = ra_hash_bytes(scratch->data, scratch->length).low;
    ra_buf_clear(scratch);
    for (int i = 0; i < row->n_prompt; i++) {
        add_exact(scratch, row->prompt[i].role);
        add_exact(scratch, row->prompt[i].content);
    }
    add_exact(scratch, row->chosen);
    add_exact(scratch, row->rejected);
    row->hash = ra_hash_bytes(scratch->data, scratch->length);
}
