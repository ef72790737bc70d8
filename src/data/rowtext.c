#include "rowtext.h"
#include "bytes.h"

#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 1 << 20 };

struct ra_rowtext {
    char *path;
    ra_bytes *bytes;
    char *buffer;
    size_t capacity, begin, end, scanned; /* [begin, end) is unread text, of which [begin, scanned) was looked at */
    int64_t line, limit;                  /* line: of `begin` while a row begins, of `scanned` inside an array's element */
    bool at_end, is_array, array_closed, too_long;
    int depth; /* of brackets, inside the element */
    bool in_string, escaped;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static ra_err fill(ra_rowtext *rows)
{
    while (rows->end < rows->capacity && !rows->at_end) {
        size_t n;
        RA_TRY(ra_bytes_read(rows->bytes, rows->buffer + rows->end, rows->capacity - rows->end, &n));
        rows->at_end = n == 0;
        rows->end += n;
    }
    return RA_OK;
}

/* More text behind `scanned`. The row at `begin` moves to the front, or the buffer doubles; a row beyond the limit is dropped as it comes. */
static ra_err more_text(ra_rowtext *rows)
{
    if (rows->end == rows->capacity) {
        if (rows->begin > 0) {
            memmove(rows->buffer, rows->buffer + rows->begin, rows->end - rows->begin);
            rows->end -= rows->begin;
            rows->scanned -= rows->begin;
            rows->begin = 0;
        } else if ((int64_t)rows->capacity > rows->limit) {
            rows->too_long = true;
            rows->end = rows->scanned = 0;
        } else {
            rows->capacity *= 2;
            rows->buffer = ra_realloc(rows->buffer, rows->capacity, 1);
        }
    }
    return fill(rows);
}

/* Passes over white space; *found is false at the end of the file. */
static ra_err skip_space(ra_rowtext *rows, bool *found)
{
    for (;;) {
        while (rows->begin < rows->end && is_space(rows->buffer[rows->begin])) rows->line += rows->buffer[rows->begin++] == '\n';
        rows->scanned = rows->begin;
        *found = rows->begin < rows->end;
        if (*found || rows->at_end) return RA_OK;
        RA_TRY(more_text(rows));
    }
}

ra_err ra_rowtext_open(const char *path, int64_t limit, ra_rowtext **out)
{
    *out = NULL;
    ra_bytes *bytes;
    RA_TRY(ra_bytes_open(path, &bytes));
    ra_rowtext *rows = ra_calloc(1, sizeof *rows);
    *rows = (ra_rowtext){.path = ra_strdup(path), .bytes = bytes, .limit = limit, .capacity = FIRST_CAPACITY, .line = 1};
    rows->buffer = ra_realloc(NULL, rows->capacity, 1);
    bool found = false;
    ra_err err = fill(rows);
    if (err == RA_OK && rows->end >= 3 && memcmp(rows->buffer, "\xef\xbb\xbf", 3) == 0) rows->begin = rows->scanned = 3;
    if (err == RA_OK) err = skip_space(rows, &found);
    if (err != RA_OK) {
        ra_rowtext_close(rows);
        return err;
    }
    if (found && rows->buffer[rows->begin] == '[') {
        rows->is_array = true;
        rows->scanned = ++rows->begin;
    }
    *out = rows;
    return RA_OK;
}

void ra_rowtext_close(ra_rowtext *rows)
{
    if (!rows) return;
    ra_bytes_close(rows->bytes);
    free(rows->buffer);
    free(rows->path);
    ra_free(rows);
}

bool ra_rowtext_is_array(const ra_rowtext *rows)
{
    return rows->is_array;
}

static void give(ra_rowtext *rows, size_t stop, int64_t line, ra_row_bytes *row)
{
    *row = (ra_row_bytes){.text = rows->buffer + rows->begin, .length = stop - rows->begin, .line = line};
    row->too_long = rows->too_long || (int64_t)row->length > rows->limit;
    rows->begin = rows->scanned = stop;
    rows->too_long = false;
}

static ra_err next_line(ra_rowtext *rows, ra_row_bytes *row, bool *more)
{
    RA_TRY(skip_space(rows, more));
    if (!*more) return RA_OK;
    for (;;) {
        char *newline = memchr(rows->buffer + rows->scanned, '\n', rows->end - rows->scanned);
        rows->scanned = newline ? (size_t)(newline - rows->buffer) : rows->end;
        if (newline || rows->at_end) break;
        RA_TRY(more_text(rows));
    }
    give(rows, rows->scanned, rows->line, row); /* the line's end is white space for the next call */
    return RA_OK;
}

/* The first `c` of text[i, end), or end. *at is what an earlier call for the same text said: a string full of escapes is not searched again for each. */
static size_t find(const char *text, size_t i, size_t end, char c, size_t *at)
{
    if (*at >= i && *at <= end) return *at;
    const char *found = memchr(text + i, c, end - i);
    return *at = found ? (size_t)(found - text) : end;
}

/* Passes over the inside of a string, from text[i]; returns where it stopped: behind the closing quote, or at the end of the text. */
static size_t pass_string(ra_rowtext *rows, size_t i)
{
    const char *text = rows->buffer;
    size_t end = rows->end, quote = SIZE_MAX, backslash = SIZE_MAX, begin = i;
    while (i < end && rows->in_string) {
        if (rows->escaped) {
            rows->escaped = false;
            i++;
            continue;
        }
        find(text, i, end, '"', &quote);
        find(text, i, end, '\\', &backslash);
        rows->escaped = backslash < quote;
        rows->in_string = rows->escaped || quote == end;
        i = rows->escaped ? backslash + 1 : quote == end ? end : quote + 1;
    }
    for (const char *at = text + begin; (at = memchr(at, '\n', (size_t)(text + i - at))); at++)
        rows->line++; /* not JSON, but a line */
    return i;
}

/* Looks at text up to the comma or bracket that ends the element. */
static bool find_element_end(ra_rowtext *rows)
{
    const char *text = rows->buffer;
    size_t i = rows->scanned, end = rows->end;
    while (i < end) {
        if (rows->in_string) {
            i = pass_string(rows, i);
            continue;
        }
        char c = text[i];
        if ((c == ',' || c == ']') && rows->depth == 0) {
            rows->scanned = i;
            return true;
        }
        rows->in_string = c == '"';
        rows->depth += c == '{' || c == '[';
        rows->depth -= (c == '}' || c == ']') && rows->depth > 0;
        rows->line += c == '\n';
        i++;
    }
    rows->scanned = end;
    return false;
}

static ra_err close_array(ra_rowtext *rows)
{
    bool found;
    rows->array_closed = true;
    rows->scanned = ++rows->begin;
    RA_TRY(skip_space(rows, &found));
    if (!found) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s:%lld: text follows the JSON array; expected one array, or JSON Lines (one object a line)",
                   rows->path, (long long)rows->line);
}

static ra_err next_element(ra_rowtext *rows, ra_row_bytes *row, bool *more)
{
    *more = false;
    if (rows->array_closed) return RA_OK;
    bool found;
    RA_TRY(skip_space(rows, &found));
    int64_t line = rows->line;
    if (found && rows->buffer[rows->begin] == ']') return close_array(rows);
    rows->depth = 0;
    rows->in_string = rows->escaped = false;
    while (found && !find_element_end(rows)) {
        found = !rows->at_end;
        if (found) RA_TRY(more_text(rows));
    }
    if (!found) {
        return ra_fail(RA_ERR_FORMAT, "%s:%lld: the JSON array is not closed: the file ends inside the element that begins here",
                       rows->path, (long long)line);
    }
    give(rows, rows->scanned, line, row);
    *more = true;
    if (rows->buffer[rows->begin] == ',') rows->scanned = ++rows->begin;
    return RA_OK;
}

ra_err ra_rowtext_next(ra_rowtext *rows, ra_row_bytes *row, bool *more)
{
    return rows->is_array ? next_element(rows, row, more) : next_line(rows, row, more);
}
