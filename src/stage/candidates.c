#define _GNU_SOURCE /* O_CLOEXEC */
#include "candidates.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ra_candidates {
    char *own;     /* path of this rank's file */
    int file;      /* -1: nothing was added yet */
    json_t *known; /* key in hexadecimal digits -> {"text", "cut"} */
    int64_t damaged;
    double synced_at;
};

enum { SYNC_S = 5 }; /* a crash of the machine loses no more than this */

static const char suffix[] = ".jsonl";

static bool is_ours(const char *name)
{
    size_t n = strlen(name), m = sizeof suffix - 1;
    return strncmp(name, "rank-", 5) == 0 && n > m && strcmp(name + n - m, suffix) == 0;
}

static void checksum_of(const char *key, const char *text, bool cut, char sum[17])
{
    ra_hasher *h = ra_hasher_new();
    ra_hasher_add(h, key, strlen(key) + 1);
    ra_hasher_add(h, text, strlen(text) + 1);
    ra_hasher_add(h, cut ? "1" : "0", 1);
    snprintf(sum, 17, "%016" PRIx64, ra_hasher_end(h).low);
}

/* ---- reading ---- */
static bool take_line(ra_candidates *c, const char *line, size_t n)
{
    json_t *row = json_loadb(line, n, 0, NULL);
    const char *key = json_string_value(json_object_get(row, "key")), *text = json_string_value(json_object_get(row, "text")),
               *stored = json_string_value(json_object_get(row, "sum"));
    bool sound = key && text && stored, cut = json_is_true(json_object_get(row, "cut"));
    if (sound) {
        char sum[17];
        checksum_of(key, text, cut, sum);
        sound = strcmp(sum, stored) == 0;
    }
    if (sound) json_object_set_new(c->known, key, json_pack("{s:s, s:b}", "text", text, "cut", cut));
    json_decref(row);
    return sound;
}

static ra_err read_file(ra_candidates *c, const char *path)
{
    ra_buf text = {0};
    ra_err err = ra_file_read(path, &text);
    const char *at = text.data, *end = text.data + text.length;
    while (err == RA_OK && at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (!line_end) line_end = end;
        if (line_end > at && !take_line(c, at, (size_t)(line_end - at))) c->damaged++;
        at = line_end + 1;
    }
    ra_buf_free(&text);
    return err;
}

/* Every file of the directory is read, or removed where `fresh`. */
static ra_err visit(ra_candidates *c, const char *path, bool fresh)
{
    DIR *dir = opendir(path);
    if (!dir) return errno == ENOENT ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", path);
    ra_err err = RA_OK;
    for (struct dirent *entry; err == RA_OK && (entry = readdir(dir));) {
        if (!is_ours(entry->d_name)) continue;
        char *file = ra_path_join(path, entry->d_name);
        if (!fresh) err = read_file(c, file);
        if (fresh && unlink(file) != 0 && errno != ENOENT) err = ra_fail(RA_ERR_IO, "cannot remove %s: %m", file);
        free(file);
    }
    closedir(dir);
    return err;
}

static ra_err set_up(ra_candidates *c, const char *dir, const ra_comm *comm, bool fresh)
{
    ra_err err = comm->rank == 0 ? ra_dir_try(dir) : RA_OK;
    if (err == RA_OK && fresh && comm->rank == 0) err = visit(c, dir, true);
    RA_TRY(ra_comm_agree(comm, err)); /* nobody adds before the old ones are gone */
    return ra_comm_agree(comm, fresh ? RA_OK : visit(c, dir, false));
}

ra_err ra_candidates_open(const char *dir, const ra_comm *comm, bool fresh, ra_candidates **out)
{
    ra_candidates *c = ra_calloc(1, sizeof *c);
    char *name = ra_format("rank-%05d%s", comm->rank, suffix);
    c->own = ra_path_join(dir, name);
    c->file = -1;
    c->known = json_object();
    free(name);
    ra_err err = set_up(c, dir, comm, fresh);
    *out = err == RA_OK ? c : NULL;
    if (err != RA_OK) ra_candidates_close(c);
    return err;
}

bool ra_candidates_find(const ra_candidates *c, ra_hash key, const char **text, bool *cut)
{
    char hex[33];
    ra_hash_text(key, hex);
    const json_t *known = json_object_get(c->known, hex);
    if (!known) return false;
    *text = json_string_value(json_object_get(known, "text"));
    *cut = json_is_true(json_object_get(known, "cut"));
    return true;
}

int64_t ra_candidates_count(const ra_candidates *c)
{
    return (int64_t)json_object_size(c->known);
}

int64_t ra_candidates_damaged(const ra_candidates *c)
{
    return c->damaged;
}

/* ---- writing ---- */
/* A torn last line is ended first, so that the next one stands alone. */
static ra_err open_own(ra_candidates *c)
{
    c->file = open(c->own, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (c->file < 0) return ra_fail(RA_ERR_IO, "%s: %m", c->own);
    c->synced_at = ra_now();
    char last = '\n';
    off_t size = lseek(c->file, 0, SEEK_END);
    if (size > 0 && pread(c->file, &last, 1, size - 1) != 1) return ra_fail(RA_ERR_IO, "%s: %m", c->own);
    if (last != '\n' && write(c->file, "\n", 1) != 1) return ra_fail(RA_ERR_IO, "%s: write failed: %m", c->own);
    return RA_OK;
}

static ra_err append(ra_candidates *c, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(c->file, bytes, n);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return ra_fail(RA_ERR_IO, "%s: write failed: %m", c->own);
        bytes += done;
        n -= (size_t)done;
    }
    return RA_OK;
}

ra_err ra_candidates_add(ra_candidates *c, ra_hash key, int64_t sample, int attempt, const char *text, bool cut)
{
    char hex[33], sum[17];
    if (c->file < 0) RA_TRY(open_own(c));
    ra_hash_text(key, hex);
    checksum_of(hex, text, cut, sum);
    json_t *row = json_pack("{s:s, s:I, s:i, s:b, s:s, s:s}", "key", hex, "id", (json_int_t)sample, "attempt", attempt, "cut",
                            cut, "text", text, "sum", sum);
    char *line = row ? json_dumps(row, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    json_decref(row);
    if (!line) return ra_fail(RA_ERR_DATA, "sample %lld: a correction that is not UTF-8", (long long)sample);
    ra_buf out = {0};
    ra_buf_addf(&out, "%s\n", line);
    free(line);
    json_object_set_new(c->known, hex, json_pack("{s:s, s:b}", "text", text, "cut", cut));
    ra_err err = append(c, out.data, out.length);
    ra_buf_free(&out);
    if (err == RA_OK && ra_now() - c->synced_at > SYNC_S) {
        c->synced_at = ra_now();
        if (fdatasync(c->file) != 0) err = ra_fail(RA_ERR_IO, "%s: %m", c->own);
    }
    return err;
}

ra_err ra_candidates_close(ra_candidates *c)
{
    if (!c) return RA_OK;
    ra_err err = RA_OK;
    if (c->file >= 0) {
        int failed = fdatasync(c->file), code = errno;
        if (close(c->file) != 0 && !failed) failed = 1, code = errno;
        errno = code;
        if (failed) err = ra_fail(RA_ERR_IO, "%s: %m", c->own);
    }
    json_decref(c->known);
    free(c->own);
    ra_free(c);
    return err;
}
