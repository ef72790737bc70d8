#include "export_dir.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Removes a directory of plain files; one without is well. */
static ra_err remove_flat(const char *dir)
{
    DIR *folder = opendir(dir);
    if (!folder) return errno == ENOENT ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", dir);
    ra_err err = RA_OK;
    for (const struct dirent *entry; err == RA_OK && (entry = readdir(folder));) {
        if (is_dot(entry->d_name)) continue;
        char *path = ra_path_join(dir, entry->d_name);
        if (unlink(path) != 0) err = ra_fail(RA_ERR_IO, "%s: cannot be removed: %m", path);
        free(path);
    }
    closedir(folder);
    if (err == RA_OK && rmdir(dir) != 0) err = ra_fail(RA_ERR_IO, "%s: cannot be removed: %m", dir);
    return err;
}

/* An export of ours may be replaced; so may an empty directory. */
static ra_err check_replaceable(const char *dir)
{
    static const char *const marks[] = {"config.json", "adapter_config.json"};
    if (!ra_file_exists(dir)) return RA_OK;
    DIR *folder = opendir(dir);
    if (!folder) return ra_fail(RA_ERR_IO, "%s: %m", dir);
    bool empty = true, ours = false;
    for (const struct dirent *entry; (entry = readdir(folder));) {
        if (is_dot(entry->d_name)) continue;
        empty = false;
        for (int i = 0; i < 2; i++) ours |= strcmp(entry->d_name, marks[i]) == 0;
    }
    closedir(folder);
    if (empty || ours) return RA_OK;
    return ra_fail(RA_ERR_ARG,
                   "%s: holds other files than an exported model (config.json or adapter_config.json); it is not replaced", dir);
}

ra_err ra_export_dir_begin(const char *dir, char **part)
{
    *part = NULL;
    RA_TRY(check_replaceable(dir));
    *part = ra_format("%s.part", dir);
    RA_TRY(remove_flat(*part));
    return ra_dir_make(*part);
}

static void flush_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd); /* some file systems refuse this on a directory; there is nothing to be done then */
    close(fd);
}

/* The directory before is moved aside first, so that at any moment one of the two is whole. */
static ra_err replace(const char *dir, const char *part)
{
    char *old = ra_format("%s.old", dir), *copy = ra_strdup(dir);
    bool there = ra_file_exists(dir);
    ra_err err = remove_flat(old);
    flush_dir(part);
    if (err == RA_OK && there && rename(dir, old) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", dir, old);
    if (err == RA_OK && rename(part, dir) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", part, dir);
    flush_dir(dirname(copy));
    if (err == RA_OK && there) err = remove_flat(old);
    free(copy);
    free(old);
    return err;
}

ra_err ra_export_dir_end(const char *dir, char *part, ra_err err)
{
    if (!part) return err;
    if (err == RA_OK) {
        err = replace(dir, part);
    } else {
        char *why = ra_strdup(ra_error_message()); /* which a failing removal would replace */
        if (remove_flat(part) != RA_OK)
            ra_fail(err, "%s (and %s)", why, ra_error_message());
        else
            ra_fail(err, "%s", why);
        free(why);
    }
    free(part);
    return err;
}
