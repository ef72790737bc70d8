/* HDF5 files on a disk too small for them: $REALIGN_SMALL_DISK, a folder with a few MiB of space (tests/cli/disk_full.sh mounts
 * it). Every failure must be clean on all ranks, and what was committed before must stay good. */
#include "support/support.h"
#include "../../src/core/h5_impl.h"
#include <realign/file.h>
#include <realign/mem.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB_OF_DOUBLES = 131072, TOO_MUCH = 64, KEPT = 1000 };

static ra_err write_rows(ra_h5 *file, const ra_comm *world, const char *name, int64_t n)
{
    int64_t first = n * world->rank / world->size, count = n * (world->rank + 1) / world->size - first, shape[1] = {n};
    double *x = ra_alloc((size_t)count, sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (double)(first + i);
    ra_err err = ra_h5_write(file, name, H5T_NATIVE_DOUBLE, 1, shape, first, count, x, "numbers", "");
    ra_free(x);
    return err;
}

/* A committed file, to be found unharmed later. */
static const char *prepare(const ra_comm *world, const char *path)
{
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_rows(file, world, "kept", KEPT));
    MPI_EXPECT_OK(ra_h5_commit(file));
    return NULL;
}

static const char *check_unharmed(const ra_comm *world, const char *path)
{
    ra_h5 *file;
    char *part = ra_format("%s.part", path);
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT(!ra_file_exists(part), "the part file was left behind");
    free(part);
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    MPI_EXPECT_OK(ra_h5_verify_all(file));
    MPI_EXPECT(ra_h5_has(file, "kept") && !ra_h5_has(file, "large"), "another file lies there");
    ra_h5_close(file);
    return NULL;
}

static char *target(void)
{
    return ra_path_join(getenv("REALIGN_SMALL_DISK"), "a.h5");
}

/* Takes what space is left, so that nothing more fits. */
static void fill_up(const ra_comm *world, const char *path)
{
    char *filler = ra_format("%s.filler", path);
    if (world->rank == 0) {
        char block[4096] = {1};
        int fd = open(filler, O_WRONLY | O_CREAT, 0666);
        while (fd >= 0 && write(fd, block, sizeof block) > 0) {
        }
        if (fd >= 0) close(fd);
    }
    free(filler);
    RA_MPI(MPI_Barrier(world->comm));
}

static void remove_filler(const ra_comm *world, const char *path)
{
    char *filler = ra_format("%s.filler", path);
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) unlink(filler);
    free(filler);
}

static const char *large_dataset(const ra_comm *world, bool reserve)
{
    char *path = target();
    const char *wrong = prepare(world, path);
    if (wrong) return wrong;
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    file->reserves = reserve;
    MPI_EXPECT_OK(write_rows(file, world, "small", KEPT));
    ra_err err = write_rows(file, world, "large", (int64_t)TOO_MUCH * MIB_OF_DOUBLES);
    MPI_EXPECT(err == RA_ERR_IO, "writing too much: %s", ra_error_name(err));
    MPI_EXPECT(strstr(ra_error_message(), "a.h5.part") && strstr(ra_error_message(), "'large'"), "the message: %s",
               ra_error_message());
    if (world->rank == 0) printf("# %s\n", ra_error_message());
    err = write_rows(file, world, "more", 10);
    MPI_EXPECT(err == RA_ERR_IO, "writing to a spoilt file: %s", ra_error_name(err));
    err = ra_h5_commit(file);
    MPI_EXPECT(err == RA_ERR_IO, "committing a spoilt file: %s", ra_error_name(err));
    wrong = check_unharmed(world, path);
    free(path);
    return wrong;
}

static const char *test_large(const ra_comm *world)
{
    return large_dataset(world, true);
}

static const char *test_large_unreserved(const ra_comm *world)
{
    return large_dataset(world, false);
}

/* The disk fills up, by somebody else's file, between the last write and the commit. */
static const char *test_full_at_commit(const ra_comm *world)
{
    char *path = target();
    const char *wrong = prepare(world, path);
    if (wrong) return wrong;
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "small-%d", i);
        MPI_EXPECT_OK(write_rows(file, world, name, 3));
    }
    fill_up(world, path);
    ra_err err = ra_h5_commit(file);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "a.h5.part"), "%s: %s", ra_error_name(err), ra_error_message());
    if (world->rank == 0) printf("# %s\n", ra_error_message());
    remove_filler(world, path);
    wrong = check_unharmed(world, path);
    free(path);
    return wrong;
}

static const char *test_full_at_create(const ra_comm *world)
{
    char *path = target();
    const char *wrong = prepare(world, path);
    if (wrong) return wrong;
    fill_up(world, path);
    ra_h5 *file;
    ra_err err = ra_h5_create(path, world, &file);
    if (err == RA_OK) {
        err = write_rows(file, world, "kept", KEPT);
        ra_err end = ra_h5_commit(file);
        if (err == RA_OK) err = end;
    }
    MPI_EXPECT(err == RA_ERR_IO, "%s", ra_error_name(err));
    if (world->rank == 0) printf("# %s\n", ra_error_message());
    remove_filler(world, path);
    wrong = check_unharmed(world, path);
    free(path);
    return wrong;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"a dataset too large for the disk", test_large},
        {"the same where space cannot be reserved", test_large_unreserved},
        {"the disk is full before the commit", test_full_at_commit},
        {"the disk is full from the start", test_full_at_create},
    };
    if (!getenv("REALIGN_SMALL_DISK")) ra_die("REALIGN_SMALL_DISK is not set; tests/cli/disk_full.sh runs this program");
    return test_mpi_main(argc, argv, tests, (int)(sizeof tests / sizeof *tests));
}
