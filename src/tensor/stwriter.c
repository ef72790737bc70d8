/* Writing safetensors: the header is known once every tensor is declared, so data can stream behind it. */
#include "stored.h"

#include <realign/mem.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ra_stwriter {
    char *path, *part;
    FILE *file;
    json_t *header;
    ra_stored_list declared;
    uint64_t bytes; /* of all declared tensors */
    int next;       /* the tensor whose data comes next */
    int64_t done;   /* elements of it already written */
    bool header_written;
};

ra_err ra_stwriter_open(const char *path, ra_stwriter **out)
{
    ra_stwriter *w = ra_calloc(1, sizeof *w);
    w->path = ra_strdup(path);
    w->part = ra_format("%s.part", path);
    w->header = json_object();
    json_object_set_new(w->header, "__metadata__", json_pack("{s:s}", "format", "pt"));
    w->file = fopen(w->part, "wb");
    if (!w->file) {
        ra_err err = ra_fail(RA_ERR_IO, "%s: %s", w->part, strerror(errno));
        ra_stwriter_abort(w);
        return err;
    }
    *out = w;
    return RA_OK;
}

ra_err ra_stwriter_declare(ra_stwriter *w, const char *name, ra_dtype dtype, int ndim, const int64_t *shape)
{
    if (w->header_written) return ra_fail(RA_ERR_ARG, "%s: tensor %s is declared after the first data", w->path, name);
    if (json_object_get(w->header, name)) return ra_fail(RA_ERR_ARG, "%s: tensor %s is declared twice", w->path, name);
    if (ndim < 0 || ndim > 4)
        return ra_fail(RA_ERR_ARG, "%s: tensor %s: %d dimensions, 0 to 4 can be written", w->path, name, ndim);
    ra_stored *t = ra_stored_add(&w->declared, name, strlen(name));
    uint64_t end;
    if (!ra_stored_shape(t, ra_encoding_of_safetensors(ra_dtype_name(dtype)), ndim, shape) ||
        __builtin_add_overflow(w->bytes, t->bytes, &end) || end > INT64_MAX) {
        w->declared.count--;
        free((char *)(uintptr_t)t->info.name);
        free((char *)(uintptr_t)t->name_in_file);
        return ra_fail(RA_ERR_ARG, "%s: tensor %s: its shape is negative or overflows", w->path, name);
    }
    json_t *sizes = json_array();
    for (int d = 0; d < ndim; d++) json_array_append_new(sizes, json_integer(shape[d]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", ra_dtype_name(dtype), "shape", sizes, "data_offsets",
                              (json_int_t)w->bytes, (json_int_t)end);
    if (!entry || json_object_set_new(w->header, name, entry) != 0) {
        return ra_fail(RA_ERR_ARG, "%s: tensor name %s is not UTF-8", w->path, name);
    }
    w->bytes = end;
    return RA_OK;
}

static ra_err write_bytes(ra_stwriter *w, const char *what, const void *bytes, size_t n)
{
    if (fwrite(bytes, 1, n, w->file) == n) return RA_OK;
    return ra_fail(RA_ERR_IO, "%s: %s: write failed: %s", w->part, what, strerror(errno));
}

static ra_err write_header(ra_stwriter *w)
{
    w->header_written = true;
    char *text = json_dumps(w->header, JSON_COMPACT);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8; /* spaces, so that the data is 8-byte aligned */
    uint64_t n = padded;
    ra_err err = write_bytes(w, "header", &n, sizeof n);
    if (err == RA_OK) err = write_bytes(w, "header", text, length);
    if (err == RA_OK) err = write_bytes(w, "header", "       ", padded - length);
    free(text);
    return err;
}

static ra_err write_converted(ra_stwriter *w, const char *name, ra_dtype to, ra_dtype from, const void *data, int64_t n)
{
    enum { CHUNK = 1 << 20 };
    void *converted = ra_alloc(CHUNK, ra_dtype_size(to));
    ra_err err = RA_OK;
    for (int64_t done = 0; done < n && err == RA_OK; done += CHUNK) {
        int64_t count = n - done < CHUNK ? n - done : CHUNK;
        ra_dtype_convert(to, converted, from, (const uint8_t *)data + (size_t)done * ra_dtype_size(from), count);
        err = write_bytes(w, name, converted, (size_t)count * ra_dtype_size(to));
    }
    ra_free(converted);
    return err;
}

ra_err ra_stwriter_put_part(ra_stwriter *w, const char *name, ra_dtype from, const void *data, int64_t count)
{
    if (!w->header_written) RA_TRY(write_header(w));
    if (w->next == w->declared.count || strcmp(w->declared.item[w->next].info.name, name) != 0) {
        return ra_fail(RA_ERR_ARG, "%s: tensor %s was put, %s is next", w->path, name,
                       w->next == w->declared.count ? "none" : w->declared.item[w->next].info.name);
    }
    const ra_stored *t = &w->declared.item[w->next];
    if (count < 0 || count > t->info.elements - w->done) {
        return ra_fail(RA_ERR_ARG, "%s: tensor %s: %lld elements were put where %lld are missing", w->path, name,
                       (long long)count, (long long)(t->info.elements - w->done));
    }
    ra_dtype to = (ra_dtype)t->encoding->plain;
    if (to == from) {
        RA_TRY(write_bytes(w, name, data, (size_t)count * ra_dtype_size(to)));
    } else {
        RA_TRY(write_converted(w, name, to, from, data, count));
    }
    w->done += count;
    if (w->done == t->info.elements) {
        w->next++;
        w->done = 0;
    }
    return RA_OK;
}

ra_err ra_stwriter_put(ra_stwriter *w, const char *name, ra_dtype from, const void *data)
{
    bool known = w->next < w->declared.count && strcmp(w->declared.item[w->next].info.name, name) == 0;
    return ra_stwriter_put_part(w, name, from, data, known ? w->declared.item[w->next].info.elements : 0);
}

/* The finished .part, read again: every declared tensor with its type, shape and place. */
static ra_err verify(const ra_stwriter *w)
{
    ra_map map;
    ra_stored_list found = {0};
    RA_TRY(ra_map_open(w->part, &map));
    ra_err err = ra_safetensors_parse(w->part, &map, &found);
    if (err == RA_OK && found.count != w->declared.count) {
        err = ra_fail(RA_ERR_IO, "%s: %d tensors were written, %d are found", w->part, w->declared.count, found.count);
    }
    for (int i = 0; i < found.count && err == RA_OK; i++) {
        const ra_stored *a = &found.item[i], *b = &w->declared.item[i];
        if (strcmp(a->info.name, b->info.name) != 0 || a->encoding != b->encoding || a->bytes != b->bytes) {
            err = ra_fail(RA_ERR_IO, "%s: tensor %s is found where %s was written", w->part, a->info.name, b->info.name);
        }
    }
    ra_stored_free(&found);
    ra_map_close(&map);
    return err;
}

/* The rename itself must survive a power cut. */
static void flush_directory(const char *path)
{
    char *copy = ra_strdup(path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(copy);
}

ra_err ra_stwriter_finish(ra_stwriter *w)
{
    ra_err err = w->header_written ? RA_OK : write_header(w);
    if (err == RA_OK && w->next != w->declared.count) {
        err = ra_fail(RA_ERR_ARG, "%s: tensor %s was declared and never put, or not to its end", w->path,
                      w->declared.item[w->next].info.name);
    }
    if (err == RA_OK && (fflush(w->file) != 0 || fsync(fileno(w->file)) != 0)) {
        err = ra_fail(RA_ERR_IO, "%s: write failed: %s", w->part, strerror(errno));
    }
    if (fclose(w->file) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "%s: write failed: %s", w->part, strerror(errno));
    w->file = NULL;
    if (err == RA_OK) err = verify(w);
    if (err == RA_OK && rename(w->part, w->path) != 0) {
        err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %s", w->part, w->path, strerror(errno));
    }
    if (err == RA_OK) {
        flush_directory(w->path);
        free(w->part);
        w->part = NULL; /* nothing to remove */
    }
    ra_stwriter_abort(w);
    return err;
}

void ra_stwriter_abort(ra_stwriter *w)
{
    if (!w) return;
    if (w->file) fclose(w->file);
    if (w->part) unlink(w->part);
    json_decref(w->header);
    ra_stored_free(&w->declared);
    free(w->path);
    free(w->part);
    ra_free(w);
}
