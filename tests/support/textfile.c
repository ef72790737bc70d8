#define _GNU_SOURCE /* nftw */
#include "textfile.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char folder[256];

char *textfile_path(const char *name)
{
    if (!*folder) {
        const char *base = getenv("TMPDIR");
        snprintf(folder, sizeof folder, "%s/realign-test-XXXXXX", base && *base ? base : "/tmp");
        if (!mkdtemp(folder)) {
            perror(folder);
            exit(1);
        }
    }
    return ra_path_join(folder, name);
}

char *textfile_write(const char *name, const void *bytes, size_t n)
{
    char *path = textfile_path(name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

char *textfile_write_text(const char *name, const char *text)
{
    size_t n = 0;
    while (text[n]) n++;
    return textfile_write(name, text, n);
}

char *textfile_write_gz(const char *name, const void *bytes, size_t n)
{
    char *path = textfile_path(name);
    gzFile file = gzopen(path, "wb1");
    if (!file || (n && gzwrite(file, bytes, (unsigned)n) != (int)n) || gzclose(file) != Z_OK) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
    return path;
}

char *textfile_write_zst(const char *name, const void *bytes, size_t n)
{
    size_t room = ZSTD_compressBound(n);
    char *packed = ra_alloc(room, 1);
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1); /* as the command line tool does */
    size_t length = ZSTD_compress2(context, packed, room, bytes, n);
    ZSTD_freeCCtx(context);
    if (ZSTD_isError(length)) {
        fprintf(stderr, "cannot pack %s\n", name);
        exit(1);
    }
    char *path = textfile_write(name, packed, length);
    ra_free(packed);
    return path;
}

char *textfile_shared(const char *name)
{
    const char *base = getenv("REALIGN_SHARED");
    char *path = ra_path_join(base && *base ? base : "../shared", name);
    if (ra_file_exists(path)) return path;
    fprintf(stderr, "# SKIP: %s is absent (REALIGN_SHARED names the shared folder)\n", path);
    free(path);
    return NULL;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

int textfile_cleanup(void **state)
{
    (void)state;
    if (*folder) nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    *folder = '\0';
    return 0;
}
