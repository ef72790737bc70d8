/* The rows of a file, as text: the non-blank lines of JSON Lines, or the elements of one JSON array, told apart by the first character. A row is the only
 * thing that is held, whatever the file's size. */
#ifndef RA_DATA_ROWTEXT_H
#define RA_DATA_ROWTEXT_H
#include <realign/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ra_rowtext ra_rowtext;

typedef struct {
    char *text; /* not NUL-terminated; until the next call */
    size_t length;
    int64_t line;  /* of its beginning in the file, from 1 */
    bool too_long; /* longer than the limit: text is not there */
} ra_row_bytes;

/* `limit`: the longest row in bytes. A UTF-8 mark at the beginning is passed over. Errors as ra_bytes_open's. */
ra_err ra_rowtext_open(const char *path, int64_t limit, ra_rowtext **out);
/* *more is false at the end. An array that is not closed, or is followed by anything, is RA_ERR_FORMAT with file and line; else errors as ra_bytes_read's. */
ra_err ra_rowtext_next(ra_rowtext *rows, ra_row_bytes *row, bool *more);
bool ra_rowtext_is_array(const ra_rowtext *rows);
void ra_rowtext_close(ra_rowtext *rows);

#endif
