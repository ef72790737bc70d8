#include "lines.h"

#include <realign/mem.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { FIRST_CAPACITY = 1 << 20 };

struct ra_lines {
    char *path;
    gzFile file;
    char *buffer;
    size_t capacity, begin, end, scanned; /* [begin, end) is unread text; [begin, scanned) holds no line end */
    int64_t number, limit;
    bool at_end;
};

static const struct {
    const char *bytes;
    size_t n;
    const char *what;
} foreign[] = {
    {"\x28\xb5\x2f\xfd", 4, "zstd-compressed; decompress it, or use .gz"},
    {"PAR1", 4, "Parquet; convert it to JSON Lines"},
    {"PK\x03\x04", 4, "a zip archive; unpack it"},
    {"\xfd"
     "7zXZ",
     5, "xz-compressed; decompress it, or use .gz"},
    {"BZh", 3, "bzip2-compressed; decompress it, or use .gz"},
    {"\x89HDF", 4, "HDF5, not preference data"},
    {"\xff\xfe", 2, "UTF-16 text; convert it to UTF-8"},
    {"\xfe\xff", 2, "UTF-16 text; convert it to UTF-8"},
};

/* Reads until the buffer is full or the file ends. */
static ra_err fill(ra_lines *lines)
{
    while (lines->end < lines->capacity && !lines->at_end) {
        size_t room = lines->capacity - lines->end;
        int n = gzread(lines->file, lines->buffer + lines->end, room > INT_MAX / 2 ? INT_MAX / 2 : (unsigned)room);
        int code = Z_OK;
        const char *text = gzerror(lines->file, &code);
        if (n < 0 || (code != Z_OK && code != Z_STREAM_END)) {
            if (code == Z_ERRNO)
                return ra_fail(RA_ERR_IO, "%s: read failed after line %lld: %m", lines->path, (long long)lines->number);
            return ra_fail(RA_ERR_IO, "%s: damaged or incomplete gzip data after line %lld (%s)", lines->path,
                           (long long)lines->number, text);
        }
        if (n == 0) lines->at_end = true;
        lines->end += (size_t)n;
    }
    return RA_OK;
}

ra_err ra_lines_open(const char *path, int64_t limit, ra_lines **out)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0) return ra_fail(RA_ERR_IO, "%s: %m", path);
    if (S_ISDIR(info.st_mode)) return ra_fail(RA_ERR_IO, "%s: a directory; give JSON Lines files (.jsonl or .jsonl.gz)", path);
    if (!S_ISREG(info.st_mode)) {
        return ra_fail(RA_ERR_IO, "%s: a pipe or device; every rank and stage reads the data anew, so give a file", path);
    }
    errno = 0;
    gzFile file = gzopen(path, "rbe");
    if (!file) return ra_fail(RA_ERR_IO, "%s: %m", path);
    gzbuffer(file, 1 << 18);
    ra_lines *lines = ra_calloc(1, sizeof *lines);
    *lines = (ra_lines){.path = ra_strdup(path), .file = file, .limit = limit, .capacity = FIRST_CAPACITY};
    lines->buffer = ra_realloc(NULL, lines->capacity, 1);
    ra_err err = fill(lines);
    for (size_t i = 0; err == RA_OK && i < sizeof foreign / sizeof *foreign; i++) {
        if (lines->end >= foreign[i].n && memcmp(lines->buffer, foreign[i].bytes, foreign[i].n) == 0) {
            err = ra_fail(RA_ERR_UNSUPPORTED, "%s: the file is %s", path, foreign[i].what);
        }
    }
    if (err != RA_OK) {
        ra_lines_close(lines);
        return err;
    }
    if (lines->end >= 3 && memcmp(lines->buffer, "\xef\xbb\xbf", 3) == 0) lines->begin = lines->scanned = 3; /* UTF-8 mark */
    *out = lines;
    return RA_OK;
}

void ra_lines_close(ra_lines *lines)
{
    if (!lines) return;
    gzclose_r(lines->file);
    free(lines->buffer);
    free(lines->path);
    ra_free(lines);
}

/* Makes room for more of the line at `begin`: moves it to the front, or doubles the buffer up to the limit. False: the line is too long. */
static bool make_room(ra_lines *lines)
{
    if (lines->begin > 0) {
        memmove(lines->buffer, lines->buffer + lines->begin, lines->end - lines->begin);
        lines->end -= lines->begin;
        lines->scanned -= lines->begin;
        lines->begin = 0;
        return true;
    }
    if ((int64_t)lines->capacity > lines->limit) return false;
    lines->capacity *= 2;
    lines->buffer = ra_realloc(lines->buffer, lines->capacity, 1);
    return true;
}

/* One line with its end found: [begin, stop). *too_long where it did not fit. */
static ra_err find_end(ra_lines *lines, size_t *stop, bool *too_long, bool *more)
{
    *too_long = false;
    for (;;) {
        char *newline = memchr(lines->buffer + lines->scanned, '\n', lines->end - lines->scanned);
        if (newline || (lines->at_end && lines->end > lines->begin)) {
            *stop = newline ? (size_t)(newline - lines->buffer) : lines->end;
            *more = true;
            return RA_OK;
        }
        lines->scanned = lines->end;
        if (lines->at_end) {
            *more = *too_long; /* the rest of a long last line was thrown away */
            *stop = lines->end;
            return RA_OK;
        }
        if (lines->end == lines->capacity && !make_room(lines)) {
            *too_long = true;
            lines->begin = lines->end = lines->scanned = 0;
        }
        RA_TRY(fill(lines));
    }
}

static bool is_blank(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r')) i++;
    return i == n;
}

ra_err ra_lines_next(ra_lines *lines, ra_line *line, bool *more)
{
    for (;;) {
        size_t stop;
        bool too_long;
        RA_TRY(find_end(lines, &stop, &too_long, more));
        if (!*more) return RA_OK;
        *line = (ra_line){.text = lines->buffer + lines->begin, .length = stop - lines->begin, .number = ++lines->number};
        line->too_long = too_long || (int64_t)line->length > lines->limit;
        lines->begin = lines->scanned = stop < lines->end ? stop + 1 : stop;
        if (line->too_long || !is_blank(line->text, line->length)) return RA_OK;
    }
}
