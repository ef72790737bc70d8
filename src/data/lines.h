/* The non-blank lines of a file, plain or gzip (zlib tells them apart), through one large buffer. */
#ifndef RA_DATA_LINES_H
#define RA_DATA_LINES_H
#include <realign/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ra_lines ra_lines;

typedef struct {
    char *text; /* without the line's end; not NUL-terminated; until the next call */
    size_t length;
    int64_t number; /* in the file, from 1, blank lines counted */
    bool too_long;  /* longer than the limit: text is not there */
} ra_line;

/* Refuses directories and formats that are known not to be lines (zstd, parquet, zip ...) by their first bytes. */
ra_err ra_lines_open(const char *path, int64_t limit, ra_lines **out);
/* *more is false at the end. A read error or a damaged or cut gzip stream is RA_ERR_IO. */
ra_err ra_lines_next(ra_lines *lines, ra_line *line, bool *more);
void ra_lines_close(ra_lines *lines);

#endif
