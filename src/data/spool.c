/* Standard input as data: written down once by rank 0, as it came, beside its checksum. */
#include "files.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/prefdata.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

typedef struct {
    char *data, *part, *sum;
} spool;

/* Copies standard input to `part`. *bytes 0: there was nothing. */
static ra_err copy_input(const spool *s, int64_t *bytes, char sum[33])
{
    *bytes = 0;
    int fd = open(s->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return ra_fail(RA_ERR_IO, "%s: cannot open for writing: %m", s->part);
    ra_hasher *hasher = ra_hasher_new();
    char *chunk = ra_alloc(CHUNK, 1);
    ra_err err = RA_OK;
    while (err == RA_OK) {
        ssize_t n = read(STDIN_FILENO, chunk, CHUNK), done = 0;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EBADF) err = ra_fail(RA_ERR_IO, "standard input: %m"); /* EBADF: closed, so empty */
        if (n <= 0) break;
        ra_hasher_add(hasher, chunk, (size_t)n);
        *bytes += n;
        while (done < n && err == RA_OK) {
            ssize_t m = write(fd, chunk + done, (size_t)(n - done));
            if (m < 0 && errno != EINTR) err = ra_fail(RA_ERR_IO, "%s: cannot write: %m", s->part);
            if (m > 0) done += m;
        }
    }
    if (err == RA_OK && fsync(fd) != 0) err = ra_fail(RA_ERR_IO, "%s: cannot flush: %m", s->part);
    if (close(fd) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "%s: %m", s->part);
    ra_free(chunk);
    ra_hash_text(ra_hasher_end(hasher), sum);
    return err;
}

/* Is there a spool that holds what its checksum says? */
static ra_err check_old(const spool *s, char sum[33])
{
    if (!ra_file_exists(s->data) || !ra_file_exists(s->sum)) {
        return ra_fail(RA_ERR_DATA, "data.path: - : nothing came on standard input, and %s is not there from an earlier stage",
                       s->data);
    }
    ra_buf stored = {0};
    ra_hash hash = {0};
    ra_err err = ra_file_read(s->sum, &stored);
    if (err == RA_OK) err = ra_hash_file(s->data, &hash);
    ra_hash_text(hash, sum);
    if (err == RA_OK && (stored.length < 32 || memcmp(stored.data, sum, 32) != 0)) {
        err = ra_fail(RA_ERR_FORMAT, "%s: its content does not have the checksum in %s; give the data on standard input again",
                      s->data, s->sum);
    }
    ra_buf_free(&stored);
    return err;
}

static ra_err replace(const spool *s, const char *sum)
{
    if (unlink(s->sum) != 0 && errno != ENOENT) return ra_fail(RA_ERR_IO, "%s: cannot remove: %m", s->sum);
    if (rename(s->part, s->data) != 0) return ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", s->part, s->data);
    char *line = ra_format("%s\n", sum);
    ra_err err = ra_file_write(s->sum, line, strlen(line));
    free(line);
    return err;
}

/* Rank 0. */
static ra_err write_down(const char *dir)
{
    RA_TRY(ra_dir_make(dir));
    spool s = {ra_path_join(dir, RA_STDIN_FILE), ra_path_join(dir, RA_STDIN_FILE ".part"),
               ra_path_join(dir, RA_STDIN_FILE ".xxh3")};
    char sum[33] = "", old[33] = "";
    int64_t bytes = 0;
    ra_err err = isatty(STDIN_FILENO) ? RA_OK : copy_input(&s, &bytes, sum); /* a terminal has nobody who types data */
    if (err == RA_OK && bytes == 0) {
        err = check_old(&s, old);
        if (err == RA_OK) ra_info("data: standard input is empty: reading %s again", s.data);
    } else if (err == RA_OK && (check_old(&s, old) != RA_OK || strcmp(old, sum) != 0)) {
        err = replace(&s, sum);
        if (err == RA_OK) ra_info("data: standard input (%lld bytes) is kept in %s", (long long)bytes, s.data);
    } /* else the same again: the old file stays, and what was made from it is up to date */
    unlink(s.part);
    free(s.data);
    free(s.part);
    free(s.sum);
    return err;
}

ra_err ra_prefdata_spool(const ra_settings *s, const ra_comm *comm)
{
    const char *const *paths;
    int n = ra_set_list(s, "data.path", &paths);
    for (int i = 0; i < n; i++) {
        if (strcmp(paths[i], "-") == 0)
            return ra_comm_agree(comm, comm->rank == 0 ? write_down(ra_set_text(s, "run.dir")) : RA_OK);
    }
    return RA_OK;
}
