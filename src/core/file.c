#include <realign/file.h>
#include <realign/log.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool ra_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool ra_file_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

ra_err ra_file_read(const char *path, ra_buf *out)
{
    FILE *file = fopen(path, "rb");
    if (!file) return ra_fail(RA_ERR_IO, "%s: %m", path);
    size_t n;
    do {
        ra_buf_reserve(out, 1 << 16);
        n = fread(out->data + out->length, 1, 1 << 16, file);
        out->length += n;
        out->data[out->length] = '\0';
    } while (n > 0);
    int bad = ferror(file), code = errno;
    fclose(file);
    errno = code;
    return bad ? ra_fail(RA_ERR_IO, "%s: read failed: %m", path) : RA_OK;
}

static ra_err write_part(const char *part, const void *bytes, size_t n)
{
    FILE *file = fopen(part, "wb");
    if (!file) return ra_fail(RA_ERR_IO, "%s: %m", part);
    bool good = fwrite(bytes, 1, n, file) == n && fflush(file) == 0 && fsync(fileno(file)) == 0;
    int code = errno;
    good = fclose(file) == 0 && good;
    if (good) return RA_OK;
    errno = code;
    ra_err err = ra_fail(RA_ERR_IO, "%s: write failed: %m", part);
    unlink(part);
    return err;
}

ra_err ra_file_write(const char *path, const void *bytes, size_t n)
{
    char *part = ra_format("%s.part", path);
    ra_err err = write_part(part, bytes, n);
    if (err == RA_OK && rename(part, path) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", part, path);
    free(part);
    return err;
}

ra_err ra_file_copy(const char *from, const char *to)
{
    ra_buf bytes = {0};
    ra_err err = ra_file_read(from, &bytes);
    if (err == RA_OK) err = ra_file_write(to, bytes.data ? bytes.data : "", bytes.length);
    ra_buf_free(&bytes);
    return err;
}

ra_err ra_dir_make(const char *path)
{
    char *copy = ra_strdup(path);
    ra_err err = RA_OK;
    for (char *p = copy + 1; err == RA_OK; p++) {
        if (*p != '/' && *p != '\0') continue;
        char end = *p;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) err = ra_fail(RA_ERR_IO, "cannot make the directory %s: %m", copy);
        *p = end;
        if (!end) break;
    }
    free(copy);
    if (err == RA_OK && !ra_file_is_dir(path)) return ra_fail(RA_ERR_IO, "%s is not a directory", path);
    return err;
}

ra_err ra_dir_try(const char *path)
{
    RA_TRY(ra_dir_make(path));
    char *probe = ra_format("%s/.probe-%d", path, (int)getpid());
    ra_err err = write_part(probe, "x", 1);
    unlink(probe);
    free(probe);
    return err;
}

char *ra_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return ra_format("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

ra_err ra_map_open(const char *path, ra_map *out)
{
    *out = (ra_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ra_fail(RA_ERR_IO, "%s: %m", path);
    struct stat info;
    ra_err err = RA_OK;
    if (fstat(fd, &info) != 0) {
        err = ra_fail(RA_ERR_IO, "%s: %m", path);
    } else if (!S_ISREG(info.st_mode)) {
        err = ra_fail(RA_ERR_IO, "%s: not a regular file", path);
    } else if (info.st_size == 0) {
        err = ra_fail(RA_ERR_FORMAT, "%s: the file is empty", path);
    } else {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            err = ra_fail(RA_ERR_IO, "%s: mmap: %m", path);
        } else {
            *out = (ra_map){data, (size_t)info.st_size};
        }
    }
    close(fd);
    return err;
}

void ra_map_close(ra_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    *map = (ra_map){0};
}

void ra_map_release_pages(const ra_map *map)
{
    if (map->data) madvise((void *)(uintptr_t)map->data, map->size, MADV_DONTNEED);
}
