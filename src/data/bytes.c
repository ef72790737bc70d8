#include "bytes.h"

#include <realign/mem.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

enum {
    CHUNK = 1 << 18,
    LONGEST_MAGIC = 8,
    GZIP_WINDOW = 15 + 16 /* any window; with gzip headers */,
    WINDOW_LOG = 31 /* what zstd --long=31 writes */
};

typedef enum { PLAIN, GZIP, ZSTD } packing;

struct ra_bytes {
    char *path;
    packing packing;
    int fd;
    z_stream gzip;
    bool between_members, padding; /* of a gzip file */
    ZSTD_DStream *zstd;
    char *packed; /* (CHUNK) as read from the file */
    ZSTD_inBuffer in;
    size_t expected; /* what zstd still asks for; 0: between frames */
    bool in_ended;
};

static const struct {
    const char *bytes;
    size_t n;
    const char *what;
} foreign[] = {
    {"PAR1", 4, "Parquet; convert it to JSON Lines"},
    {"ARROW1", 6, "an Arrow file; convert it to JSON Lines"},
    {"PK\x03\x04", 4, "a zip archive; unpack it"},
    {"\xfd"
     "7zXZ",
     5, "xz-compressed; decompress it, or use .gz or .zst"},
    {"BZh", 3, "bzip2-compressed; decompress it, or use .gz or .zst"},
    {"\x04\x22\x4d\x18", 4, "lz4-compressed; decompress it, or use .gz or .zst"},
    {"\x89HDF", 4, "HDF5, not preference data"},
    {"\xff\xfe", 2, "UTF-16 text; convert it to UTF-8"},
    {"\xfe\xff", 2, "UTF-16 text; convert it to UTF-8"},
};

static ra_err recognise(ra_bytes *b)
{
    unsigned char first[LONGEST_MAGIC] = {0};
    ssize_t n = pread(b->fd, first, sizeof first, 0);
    if (n < 0) return ra_fail(RA_ERR_IO, "%s: %m", b->path);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if ((size_t)n < foreign[i].n || memcmp(first, foreign[i].bytes, foreign[i].n) != 0) continue;
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: the file is %s", b->path, foreign[i].what);
    }
    bool skippable =
        n >= 4 && (first[0] & 0xf0) == 0x50 && memcmp(first + 1, "\x2a\x4d\x18", 3) == 0; /* a zstd frame without data */
    if (n >= 2 && first[0] == 0x1f && first[1] == 0x8b) b->packing = GZIP;
    if (skippable || (n >= 4 && memcmp(first, "\x28\xb5\x2f\xfd", 4) == 0)) b->packing = ZSTD;
    return RA_OK;
}

ra_err ra_bytes_open(const char *path, ra_bytes **out)
{
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0) return ra_fail(RA_ERR_IO, "%s: %m", path);
    if (S_ISDIR(info.st_mode)) return ra_fail(RA_ERR_IO, "%s: a directory; expected a file", path);
    if (!S_ISREG(info.st_mode)) {
        return ra_fail(RA_ERR_IO,
                       "%s: a pipe or device; every rank and stage reads the data anew, so give a file, or - for standard input",
                       path);
    }
    ra_bytes *b = ra_calloc(1, sizeof *b);
    b->path = ra_strdup(path);
    b->fd = open(path, O_RDONLY | O_CLOEXEC);
    ra_err err = b->fd < 0 ? ra_fail(RA_ERR_IO, "%s: %m", path) : recognise(b);
    if (err == RA_OK && b->packing == GZIP) {
        b->packed = ra_alloc(CHUNK, 1);
        if (inflateInit2(&b->gzip, GZIP_WINDOW) != Z_OK) err = ra_fail(RA_ERR_IO, "%s: zlib cannot read it", path);
    } else if (err == RA_OK && b->packing == ZSTD) {
        b->zstd = ZSTD_createDStream();
        b->packed = ra_alloc(CHUNK, 1);
        if (!b->zstd || ZSTD_isError(ZSTD_DCtx_setParameter(b->zstd, ZSTD_d_windowLogMax, WINDOW_LOG)))
            err = ra_fail(RA_ERR_IO, "%s: zstd cannot read it", path);
    }
    if (err != RA_OK) {
        ra_bytes_close(b);
        return err;
    }
    *out = b;
    return RA_OK;
}

void ra_bytes_close(ra_bytes *b)
{
    if (!b) return;
    if (b->fd >= 0) close(b->fd);
    if (b->packing == GZIP) inflateEnd(&b->gzip); /* of a zeroed one: no more than an error code */
    ZSTD_freeDStream(b->zstd);
    ra_free(b->packed);
    free(b->path);
    ra_free(b);
}

static ra_err read_plain(const ra_bytes *b, char *to, size_t room, size_t *n)
{
    ssize_t got;
    do got = read(b->fd, to, room);
    while (got < 0 && errno == EINTR);
    if (got < 0) return ra_fail(RA_ERR_IO, "%s: read failed: %m", b->path);
    *n = (size_t)got;
    return RA_OK;
}

static ra_err refill(ra_bytes *b)
{
    if (b->in.pos < b->in.size || b->in_ended) return RA_OK;
    size_t got = 0;
    RA_TRY(read_plain(b, b->packed, CHUNK, &got));
    b->in = (ZSTD_inBuffer){b->packed, got, 0};
    b->in_ended = got == 0;
    return RA_OK;
}

/* After a member the next one begins, or NULs fill the file up, as block devices leave them. zlib's gzread passes over anything else in
 * silence, and so over all rows of a member whose first byte is damaged. Called with a byte at hand. */
static ra_err begin_member(ra_bytes *b)
{
    const char *next = b->packed + b->in.pos;
    if (*next == 0) {
        b->padding = true;
        b->in.pos++;
        return RA_OK;
    }
    if (b->padding || *next != '\x1f')
        return ra_fail(RA_ERR_IO, "%s: damaged gzip data: the bytes after a member are no gzip member", b->path);
    b->between_members = false;
    inflateReset(&b->gzip);
    return RA_OK;
}

static ra_err read_gzip(ra_bytes *b, char *to, size_t room, size_t *n)
{
    z_stream *z = &b->gzip;
    const uInt most = room > 1 << 30 ? 1 << 30 : (uInt)room;
    while (*n == 0) {
        RA_TRY(refill(b));
        if (b->between_members) {
            if (b->in_ended) break;
            RA_TRY(begin_member(b));
            continue;
        }
        z->next_in = (Bytef *)b->packed + b->in.pos, z->avail_in = (uInt)(b->in.size - b->in.pos);
        z->next_out = (Bytef *)to, z->avail_out = most;
        int code = inflate(z, Z_NO_FLUSH);
        b->in.pos = b->in.size - z->avail_in;
        *n = most - z->avail_out;
        b->between_members = code == Z_STREAM_END;
        bool starved = code == Z_BUF_ERROR && b->in_ended;
        if (starved || (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR))
            return ra_fail(RA_ERR_IO, "%s: damaged or incomplete gzip data (%s)", b->path,
                           starved  ? "the file ends inside a member"
                           : z->msg ? z->msg
                                    : zError(code));
    }
    return RA_OK;
}

static ra_err read_zstd(ra_bytes *b, char *to, size_t room, size_t *n)
{
    ZSTD_outBuffer out = {to, room, 0};
    while (out.pos == 0) {
        RA_TRY(refill(b));
        if (b->in_ended && b->expected == 0) break;
        size_t before = b->in.pos;
        b->expected = ZSTD_decompressStream(b->zstd, &out, &b->in);
        if (ZSTD_isError(b->expected))
            return ra_fail(RA_ERR_IO, "%s: damaged zstd data (%s)", b->path, ZSTD_getErrorName(b->expected));
        if (b->in_ended && b->expected && out.pos == 0 && b->in.pos == before)
            return ra_fail(RA_ERR_IO, "%s: incomplete zstd data: the file ends inside a frame", b->path);
    }
    *n = out.pos;
    return RA_OK;
}

ra_err ra_bytes_read(ra_bytes *b, char *to, size_t room, size_t *n)
{
    *n = 0;
    switch (b->packing) {
    case GZIP: return read_gzip(b, to, room, n);
    case ZSTD: return read_zstd(b, to, room, n);
    case PLAIN: return read_plain(b, to, room, n);
    }
    return RA_OK;
}
