/* The life of an HDF5 file: made as path.part, checked, renamed; or opened for reading. */
#define _GNU_SOURCE /* fallocate */
#include "h5_impl.h"
#include <realign/file.h>
#include <realign/log.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 1 << 29,
    METADATA_BYTES = 1 << 20 /* what HDF5 may add between two reservations: headers, attributes, group tables */
};

/* ---- errors ---- */

typedef struct {
    char innermost[512], outermost[256];
} stack_text;

static herr_t keep_frame(unsigned n, const H5E_error2_t *frame, void *data)
{
    stack_text *text = data;
    const char *words = frame->desc && *frame->desc ? frame->desc : "no description";
    if (n == 0) snprintf(text->outermost, sizeof text->outermost, "%s (%s)", words, frame->func_name);
    snprintf(text->innermost, sizeof text->innermost, "%s (%s)", words, frame->func_name);
    return 0;
}

ra_err ra_h5_fail(const ra_h5 *file, ra_err code, const char *name, const char *what)
{
    stack_text text = {"", ""};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_frame, &text);
    for (char *c = text.innermost; *c; c++) {
        if (*c == '\n') *c = ' ';
    }
    ra_fail(code, "%s", what);
    if (*text.innermost) ra_fail(code, "%s: HDF5: %s", what, text.innermost);
    if (*text.outermost && strcmp(text.innermost, text.outermost) != 0) {
        ra_fail(code, "%s; in %s", ra_error_message(), text.outermost);
    }
    if (name) ra_fail_in(code, "'%s'", name);
    return ra_fail_in(code, "%s", file->part ? file->part : file->path);
}

ra_err ra_h5_agree(const ra_h5 *file, ra_err mine)
{
    return file->comm.size == 1 ? mine : ra_comm_agree(&file->comm, mine);
}

void ra_h5_bcast(const ra_h5 *file, void *bytes, int64_t n)
{
    if (file->comm.size > 1) ra_comm_bcast(&file->comm, bytes, n, 0);
}

/* ---- opening and making ---- */

static ra_h5 *new_file(const char *path, const ra_comm *comm)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* errors go into our messages, not to the screen */
    ra_h5 *file = ra_calloc(1, sizeof *file);
    file->path = ra_strdup(path);
    file->id = H5I_INVALID_HID;
    file->fd = -1;
    file->reserves = true;
    file->piece_bytes = PIECE_BYTES;
    file->comm = comm && comm->size > 1 ? *comm : (ra_comm){MPI_COMM_SELF, 0, 1};
    return file;
}

static void free_file(ra_h5 *file)
{
    if (file->fd >= 0) close(file->fd);
    free(file->path);
    free(file->part);
    ra_free(file);
}

/* Rank 0 makes the file, then every rank tries to open it by ordinary means: inside MPI-IO, a failure of one rank alone
 * would leave the others waiting. */
static ra_err try_part(ra_h5 *file)
{
    ra_err err = RA_OK;
    if (file->comm.rank == 0) {
        file->fd = open(file->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (file->fd < 0) err = ra_fail(RA_ERR_IO, "%s: cannot create: %m", file->part);
        if (err == RA_OK) err = ra_h5_reserve(file, NULL, 0, 0);
    }
    RA_TRY(ra_h5_agree(file, err));
    if (file->comm.rank != 0) {
        int fd = open(file->part, O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            err = ra_fail(RA_ERR_IO, "%s: cannot open what rank 0 created (is it on a shared file system?): %m", file->part);
        } else {
            close(fd);
        }
    }
    return ra_h5_agree(file, err);
}

/* Locks are left out: a file being made has its own name, and readers see it only when it is finished. */
static hid_t access_list(const ra_h5 *file, bool parallel)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    bool good = list >= 0 && H5Pset_file_locking(list, false, true) >= 0 && H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) >= 0 &&
                H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_V110) >= 0;
    if (good && parallel) {
        good = H5Pset_fapl_mpio(list, file->comm.comm, MPI_INFO_NULL) >= 0 && H5Pset_coll_metadata_write(list, true) >= 0 &&
               H5Pset_all_coll_metadata_ops(list, true) >= 0;
    }
    if (good) return list;
    if (list >= 0) H5Pclose(list);
    return -1;
}

ra_err ra_h5_create(const char *path, const ra_comm *comm, ra_h5 **out)
{
    *out = NULL;
    ra_h5 *file = new_file(path, comm);
    file->part = ra_format("%s.part", path);
    ra_err err = try_part(file);
    if (err == RA_OK) {
        hid_t list = access_list(file, file->comm.size > 1);
        file->id = list < 0 ? -1 : H5Fcreate(file->part, H5F_ACC_TRUNC, H5P_DEFAULT, list);
        if (file->id < 0) err = ra_h5_fail(file, RA_ERR_IO, NULL, "cannot create");
        if (list >= 0) H5Pclose(list);
        err = ra_h5_agree(file, err);
    }
    if (err == RA_OK) err = ra_h5_agree(file, ra_h5_reserve(file, NULL, 0, 0)); /* creating it gave the first one back */
    if (err != RA_OK) {
        ra_h5_close(file);
        return err;
    }
    *out = file;
    return RA_OK;
}

/* Every rank reads by itself: independent reads need no MPI-IO. */
static ra_err open_alone(ra_h5 *file, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ra_fail(RA_ERR_IO, "%s: %m", path);
    struct stat info;
    bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    close(fd);
    if (!regular) return ra_fail(RA_ERR_IO, "%s: not a regular file", path);
    hid_t list = access_list(file, false);
    file->id = list < 0 ? -1 : H5Fopen(path, H5F_ACC_RDONLY, list);
    ra_err err = file->id < 0 ? ra_h5_fail(file, RA_ERR_FORMAT, NULL, "not a readable HDF5 file") : RA_OK;
    if (list >= 0) H5Pclose(list);
    return err;
}

ra_err ra_h5_open(const char *path, const ra_comm *comm, ra_h5 **out)
{
    *out = NULL;
    ra_h5 *file = new_file(path, comm);
    ra_err err = ra_h5_agree(file, open_alone(file, path));
    if (err != RA_OK) {
        if (file->id >= 0) H5Fclose(file->id);
        free_file(file);
        return err;
    }
    *out = file;
    return RA_OK;
}

hid_t ra_h5_id(const ra_h5 *file)
{
    return file->id;
}

/* ---- space ---- */

/* 0 or the reason, an errno value. */
static int try_reserve(int fd, int64_t offset, int64_t bytes)
{
    int code;
    do {
        code = fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, bytes) == 0 ? 0 : errno;
    } while (code == EINTR);
    if (code == ENOSPC || code == EDQUOT || code == EFBIG || code == EIO) return code;
    if (code == 0) return 0;
    struct statvfs disk; /* no fallocate on this file system */
    if (fstatvfs(fd, &disk) != 0) return 0;
    return (double)disk.f_bavail * (double)disk.f_frsize < (double)bytes ? ENOSPC : 0;
}

ra_err ra_h5_reserve(const ra_h5 *file, const char *name, int64_t offset, int64_t bytes)
{
    if (file->fd < 0 || !file->reserves) return RA_OK;
    int code = try_reserve(file->fd, offset, bytes + METADATA_BYTES);
    if (code == 0) return RA_OK;
    ra_fail(RA_ERR_IO, "no space for %.1f MiB: %s", (double)(bytes + METADATA_BYTES) / (1 << 20), strerror(code));
    if (name) ra_fail_in(RA_ERR_IO, "'%s'", name);
    return ra_fail_in(RA_ERR_IO, "%s", file->part);
}

/* ---- the end ---- */

/* Drops a file being made. Its space is released first, so that HDF5 can write its last metadata even on a full disk: a
 * file that cannot be closed would trouble HDF5 until the program ends. */
static void abandon(ra_h5 *file)
{
    if (file->fd >= 0) {
        unlink(file->part);
        if (ftruncate(file->fd, 0) != 0) ra_debug("%s: cannot release its space: %m", file->part);
    }
    if (file->id >= 0) H5Fclose(file->id);
}

/* Every rank checks its share of the rows of every dataset; the sums add up to the stored checksum. */
static ra_err verify_together(ra_h5 *file)
{
    ra_buf names = {0};
    ra_err err = ra_h5_agree(file, ra_h5_list_checked(file, &names));
    for (size_t at = 0; err == RA_OK && at < names.length; at += strlen(names.data + at) + 1) {
        const char *name = names.data + at;
        int rank = 0;
        int64_t shape[4] = {0};
        uint64_t want = 0, mine = 0;
        err = ra_h5_shape(file, name, &rank, shape);
        int64_t begin = shape[0] * file->comm.rank / file->comm.size, end = shape[0] * (file->comm.rank + 1) / file->comm.size;
        if (err == RA_OK) err = ra_h5_read_checksum(file, name, &want);
        if (err == RA_OK) err = ra_h5_checksum_stored(file, name, begin, end - begin, &mine);
        err = ra_h5_agree(file, err);
        if (err != RA_OK) break;
        if (file->comm.size > 1) RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &mine, 1, MPI_UINT64_T, MPI_SUM, file->comm.comm));
        if (mine != want) {
            err = ra_fail(RA_ERR_FORMAT, "%s: '%s': read back with checksum %016llx, written with %016llx", file->path, name,
                          (unsigned long long)mine, (unsigned long long)want);
        }
    }
    ra_buf_free(&names);
    return err;
}

static ra_err check_part(const ra_h5 *file)
{
    ra_h5 *again = NULL;
    RA_TRY(ra_h5_open(file->part, file->comm.size > 1 ? &file->comm : NULL, &again));
    ra_err err = verify_together(again);
    ra_h5_close(again);
    return err;
}

/* Every rank flushes what its node still holds. */
static ra_err flush_part(const ra_h5 *file)
{
    int fd = open(file->part, O_RDWR | O_CLOEXEC);
    if (fd < 0) return ra_fail(RA_ERR_IO, "%s: %m", file->part);
    struct stat info;
    ra_err err = RA_OK;
    if (file->comm.rank == 0 &&
        (fstat(fd, &info) != 0 || ftruncate(fd, info.st_size) != 0)) { /* gives back what was reserved in excess */
        err = ra_fail(RA_ERR_IO, "%s: cannot trim: %m", file->part);
    }
    if (err == RA_OK && fsync(fd) != 0) err = ra_fail(RA_ERR_IO, "%s: fsync: %m", file->part);
    close(fd);
    return err;
}

static ra_err rename_part(const ra_h5 *file)
{
    if (rename(file->part, file->path) != 0) {
        return ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", file->part, file->path);
    }
    char *folder = ra_strdup(file->path);
    char *slash = strrchr(folder, '/');
    if (slash) *(slash == folder ? slash + 1 : slash) = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* the rename itself; some file systems refuse this on a directory, and there is nothing to be done then */
        close(fd);
    }
    free(folder);
    return RA_OK;
}

/* Metadata still sits in HDF5's cache: with its space reserved, closing cannot meet a full disk. */
static ra_err reserve_rest(ra_h5 *file)
{
    size_t cached = 0;
    if (H5Fget_mdc_size(file->id, NULL, NULL, &cached, NULL) < 0) {
        return ra_h5_fail(file, RA_ERR_IO, NULL, "cannot tell the size of its metadata");
    }
    return ra_h5_reserve(file, NULL, 0, file->data_end + (int64_t)cached);
}

ra_err ra_h5_commit(ra_h5 *file)
{
    ra_err err = RA_OK;
    if (!file->part) err = ra_fail(RA_ERR_ARG, "%s: opened for reading, cannot be committed", file->path);
    if (err == RA_OK && file->failed) err = ra_fail(RA_ERR_IO, "%s: not kept, since a write to it failed", file->part);
    if (err == RA_OK) err = ra_h5_agree(file, reserve_rest(file));
    if (err != RA_OK) {
        ra_h5_close(file);
        return err;
    }
    herr_t closed = H5Fclose(file->id);
    file->id = H5I_INVALID_HID;
    err = ra_h5_agree(file, closed < 0 ? ra_h5_fail(file, RA_ERR_IO, NULL, "cannot close") : RA_OK);
    if (err == RA_OK) err = ra_h5_agree(file, flush_part(file));
    if (err == RA_OK) err = check_part(file);
    if (err == RA_OK) err = ra_h5_agree(file, file->comm.rank == 0 ? rename_part(file) : RA_OK);
    if (err != RA_OK && file->fd >= 0) unlink(file->part);
    free_file(file);
    return err;
}

void ra_h5_close(ra_h5 *file)
{
    if (!file) return;
    if (file->part) {
        abandon(file);
    } else if (file->id >= 0) {
        H5Fclose(file->id);
    }
    free_file(file);
}
