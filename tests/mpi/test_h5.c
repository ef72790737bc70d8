/* HDF5 files: written by any number of ranks, read back, damaged, abandoned, refused. */
#include "support/support.h"
#include "../../src/core/h5_impl.h"
#include <realign/file.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 37, COLUMNS = 5, DEPTH = 3 };

static float value_at(int64_t row, int64_t rest)
{
    return (float)(row * 1000 + rest) * 0.25f;
}

/* Rank r's rows of n; with `lopsided`, the last rank has all of them. */
static void share(const ra_comm *world, int64_t n, bool lopsided, int64_t *first, int64_t *count)
{
    *first = lopsided ? 0 : n * world->rank / world->size;
    *count = lopsided ? (world->rank == world->size - 1 ? n : 0) : n * (world->rank + 1) / world->size - *first;
}

static ra_err write_block(ra_h5 *file, const ra_comm *world, const char *name, bool lopsided)
{
    int64_t first, count, shape[3] = {ROWS, COLUMNS, DEPTH};
    share(world, ROWS, lopsided, &first, &count);
    float data[ROWS * COLUMNS * DEPTH];
    for (int64_t i = 0; i < count * COLUMNS * DEPTH; i++) {
        data[i] = value_at(first + i / (COLUMNS * DEPTH), i % (COLUMNS * DEPTH));
    }
    return ra_h5_write(file, name, H5T_NATIVE_FLOAT, 3, shape, first, count, count ? data : NULL, "a block", "m");
}

static const char *check_block(ra_h5 *file, const char *name)
{
    float data[ROWS * COLUMNS * DEPTH];
    MPI_EXPECT_OK(ra_h5_read(file, name, H5T_NATIVE_FLOAT, 0, -1, data));
    for (int64_t r = 0; r < ROWS; r++) {
        for (int64_t c = 0; c < COLUMNS * DEPTH; c++) {
            float got = data[r * COLUMNS * DEPTH + c];
            MPI_EXPECT(got == value_at(r, c), "%s: row %d, %d: %g", name, (int)r, (int)c, (double)got);
        }
    }
    return NULL;
}

static const char *write_and_read(const ra_comm *world, const char *path, size_t piece_bytes)
{
    ra_h5 *file;
    bool again = piece_bytes > 1;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    if (piece_bytes) file->piece_bytes = piece_bytes;
    MPI_EXPECT_OK(write_block(file, world, "even", false));
    MPI_EXPECT_OK(write_block(file, world, "group/deep/lopsided", true));
    int64_t one[1] = {3}, none[2] = {0, 7};
    double whole[3] = {1.5, -2.5, 1e300};
    MPI_EXPECT_OK(ra_h5_write_all(file, "group/whole", H5T_NATIVE_DOUBLE, 1, one, world->rank ? NULL : whole, "all of it", ""));
    MPI_EXPECT_OK(ra_h5_write(file, "empty", H5T_NATIVE_INT32, 2, none, 0, 0, NULL, "no rows at all", "tokens"));
    const char *words[4] = {"", "naïve", "a longer one", "x"};
    MPI_EXPECT_OK(ra_h5_write_strings(file, "words", world->rank ? NULL : words, 4, "some words"));
    MPI_EXPECT_OK(ra_h5_write_attr_i64(file, "/", "step", world->rank ? -1 : 17));
    MPI_EXPECT_OK(ra_h5_write_attr_f64(file, "state/deep", "loss", 0.125));
    MPI_EXPECT_OK(ra_h5_write_attr_text(file, "even", "note", "§ 3"));
    MPI_EXPECT_OK(ra_h5_write_provenance(file, world, "seed: 1\n"));
    MPI_EXPECT(again || !ra_file_exists(path), "the file is there before the commit");
    MPI_EXPECT_OK(ra_h5_commit(file));

    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    if (piece_bytes) file->piece_bytes = piece_bytes;
    MPI_EXPECT_OK(ra_h5_verify_all(file));
    const char *wrong = check_block(file, "even");
    if (!wrong) wrong = check_block(file, "/group/deep/lopsided");
    if (wrong) return wrong;
    double back[3] = {0};
    MPI_EXPECT_OK(ra_h5_read(file, "group/whole", H5T_NATIVE_DOUBLE, 0, 3, back));
    MPI_EXPECT(memcmp(back, whole, sizeof back) == 0, "group/whole differs");
    float row[COLUMNS * DEPTH];
    MPI_EXPECT_OK(ra_h5_read(file, "even", H5T_NATIVE_FLOAT, 11, 1, row));
    MPI_EXPECT(row[2] == value_at(11, 2), "row 11 of 'even' differs");
    int rank;
    int64_t shape[4], n, step;
    MPI_EXPECT_OK(ra_h5_shape(file, "empty", &rank, shape));
    MPI_EXPECT(rank == 2 && shape[0] == 0 && shape[1] == 7, "the shape of 'empty' is wrong");
    char **texts, *note;
    MPI_EXPECT_OK(ra_h5_read_strings(file, "words", &texts, &n));
    MPI_EXPECT(n == 4, "%d words", (int)n);
    for (int i = 0; i < 4; i++) MPI_EXPECT(strcmp(texts[i], words[i]) == 0, "word %d is '%s'", i, texts[i]);
    free(texts);
    MPI_EXPECT_OK(ra_h5_read_strings(file, "/provenance/used_yaml", &texts, &n));
    MPI_EXPECT(n == 1 && strcmp(texts[0], "seed: 1\n") == 0, "used_yaml differs");
    free(texts);
    double loss;
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file, "/", "step", &step));
    MPI_EXPECT_OK(ra_h5_read_attr_f64(file, "state/deep", "loss", &loss));
    MPI_EXPECT_OK(ra_h5_read_attr_text(file, "even", "note", &note));
    MPI_EXPECT(step == 17 && loss == 0.125 && strcmp(note, "§ 3") == 0, "an attribute differs");
    free(note);
    MPI_EXPECT_OK(ra_h5_read_attr_text(file, "even", "unit", &note));
    MPI_EXPECT(strcmp(note, "m") == 0, "the unit is '%s'", note);
    free(note);
    MPI_EXPECT_OK(ra_h5_read_attr_i64(file, "provenance", "ranks", &n));
    MPI_EXPECT(n == world->size, "provenance says %d ranks", (int)n);
    ra_h5_close(file);
    return NULL;
}

static const char *test_round_trip(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    const char *wrong = write_and_read(world, path, 0);
    free(path);
    test_mpi_dir_remove(world, dir);
    return wrong;
}

/* Pieces smaller than the ranks' shares, and smaller than one row, as for tensors beyond 2 GiB. */
static const char *test_pieces(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    const char *wrong = NULL;
    static const size_t sizes[] = {1, sizeof(float) * DEPTH * 2, sizeof(float) * DEPTH * COLUMNS * 4};
    for (int i = 0; i < 3 && !wrong; i++) wrong = write_and_read(world, path, sizes[i]);
    free(path);
    test_mpi_dir_remove(world, dir);
    return wrong;
}

/* The same rows written by all ranks, by the last rank alone and by one process alone have one checksum. */
static const char *test_checksum_of_layout(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    ra_comm alone = {MPI_COMM_SELF, 0, 1};
    char *own = ra_format("%s/own-%d.h5", dir, world->rank);
    ra_h5 *file;
    uint64_t sum[3] = {0};
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_block(file, world, "even", false));
    MPI_EXPECT_OK(write_block(file, world, "lopsided", true));
    MPI_EXPECT_OK(ra_h5_commit(file));
    MPI_EXPECT_OK(ra_h5_create(own, NULL, &file));
    MPI_EXPECT_OK(write_block(file, &alone, "alone", false));
    MPI_EXPECT_OK(ra_h5_commit(file));
    MPI_EXPECT_OK(ra_h5_open(path, NULL, &file));
    MPI_EXPECT_OK(ra_h5_read_checksum(file, "even", &sum[0]));
    MPI_EXPECT_OK(ra_h5_read_checksum(file, "lopsided", &sum[1]));
    ra_h5_close(file);
    MPI_EXPECT_OK(ra_h5_open(own, NULL, &file));
    MPI_EXPECT_OK(ra_h5_read_checksum(file, "alone", &sum[2]));
    ra_h5_close(file);
    free(own);
    free(path);
    test_mpi_dir_remove(world, dir);
    MPI_EXPECT(sum[0] == sum[2] && sum[1] == sum[2], "checksums depend on the layout");
    return NULL;
}

static ra_err flip_byte(const char *path, off_t at)
{
    int fd = open(path, O_RDWR);
    unsigned char byte;
    if (fd < 0 || pread(fd, &byte, 1, at) != 1) return ra_fail(RA_ERR_IO, "%s: %m", path);
    byte ^= 4;
    bool good = pwrite(fd, &byte, 1, at) == 1;
    close(fd);
    return good ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", path);
}

/* Files of other programs: scalars, truth values, texts of variable length. */
static const char *test_foreign(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    if (world->rank == 0) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), scalar = H5Screate(H5S_SCALAR);
        hsize_t two[1] = {2};
        hid_t pair = H5Screate_simple(1, two, NULL), truth = H5Tenum_create(H5T_NATIVE_INT8), text = H5Tcopy(H5T_C_S1);
        int8_t no = 0, yes = 1, truths[2] = {1, 0};
        double value = 2.5;
        const char *words[2] = {"short", "somewhat longer"};
        H5Tenum_insert(truth, "FALSE", &no);
        H5Tenum_insert(truth, "TRUE", &yes);
        H5Tset_size(text, H5T_VARIABLE);
        hid_t set[3] = {H5Dcreate2(file, "scalar", H5T_NATIVE_DOUBLE, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                        H5Dcreate2(file, "truths", truth, pair, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                        H5Dcreate2(file, "words", text, pair, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)};
        H5Dwrite(set[0], H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value);
        H5Dwrite(set[1], truth, H5S_ALL, H5S_ALL, H5P_DEFAULT, truths);
        H5Dwrite(set[2], text, H5S_ALL, H5S_ALL, H5P_DEFAULT, words);
        for (int i = 0; i < 3; i++) H5Dclose(set[i]);
        H5Tclose(text);
        H5Tclose(truth);
        H5Sclose(pair);
        H5Sclose(scalar);
        H5Fclose(file);
    }
    RA_MPI(MPI_Barrier(world->comm));
    ra_h5 *file;
    double value = 0;
    int32_t truths[2] = {7, 7};
    char **words;
    int64_t n;
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    MPI_EXPECT_OK(ra_h5_read(file, "scalar", H5T_NATIVE_DOUBLE, 0, -1, &value));
    MPI_EXPECT(value == 2.5, "the scalar is %g", value);
    MPI_EXPECT_OK(ra_h5_read(file, "truths", H5T_NATIVE_INT32, 0, -1, truths));
    MPI_EXPECT(truths[0] == 1 && truths[1] == 0, "truth values %d %d", truths[0], truths[1]);
    MPI_EXPECT_OK(ra_h5_read_strings(file, "words", &words, &n));
    MPI_EXPECT(n == 2 && strcmp(words[0], "short") == 0 && strcmp(words[1], "somewhat longer") == 0, "the words differ");
    free(words);
    ra_h5_close(file);
    free(path);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *test_damage(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "damaged.h5");
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_block(file, world, "first", false));
    MPI_EXPECT_OK(write_block(file, world, "second", false));
    MPI_EXPECT_OK(ra_h5_commit(file));
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    hid_t set = H5Dopen2(ra_h5_id(file), "second", H5P_DEFAULT);
    off_t at = (off_t)H5Dget_offset(set) + 4 * 100 + 1;
    H5Dclose(set);
    ra_h5_close(file);
    ra_err flipped = ra_comm_agree(world, world->rank == 0 ? flip_byte(path, at) : RA_OK);
    MPI_EXPECT_OK(flipped);
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    MPI_EXPECT_OK(ra_h5_verify(file, "first"));
    ra_err err = ra_h5_verify_all(file);
    MPI_EXPECT(err == RA_ERR_FORMAT && strstr(ra_error_message(), "damaged.h5") && strstr(ra_error_message(), "second"),
               "a flipped bit gave: %s", err == RA_OK ? "no error" : ra_error_message());
    ra_h5_close(file);
    free(path);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

static const char *test_refusals(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_block(file, world, "group/block", false));
    MPI_EXPECT_OK(ra_h5_commit(file));
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    float data[ROWS * COLUMNS * DEPTH];
    int64_t whole[ROWS * COLUMNS * DEPTH], value;
    struct {
        ra_err err;
        char message[2048];
    } got[6];
    const char *const words[6][3] = {
        {"a.h5", "group/blokc", "block"},   {"a.h5", "group/block", "37 rows"}, {"a.h5", "group/block", "real numbers"},
        {"a.h5", "group/block", "'epoch'"}, {"a.h5", "nowhere", "group"},       {"a.h5", "group/block", "for reading"},
    };
    for (int i = 0; i < 6; i++) {
        got[i].err = i == 0   ? ra_h5_read(file, "group/blokc", H5T_NATIVE_FLOAT, 0, -1, data)
                     : i == 1 ? ra_h5_read(file, "group/block", H5T_NATIVE_FLOAT, 30, 8, data)
                     : i == 2 ? ra_h5_read(file, "group/block", H5T_NATIVE_INT64, 0, -1, whole)
                     : i == 3 ? ra_h5_read_attr_i64(file, "group/block", "epoch", &value)
                     : i == 4 ? ra_h5_verify(file, "nowhere/at/all")
                              : write_block(file, world, "group/block", false);
        snprintf(got[i].message, sizeof got[i].message, "%s", ra_error_message());
    }
    ra_h5_close(file);
    for (int i = 0; i < 6; i++) {
        MPI_EXPECT(got[i].err == (i == 5 ? RA_ERR_ARG : RA_ERR_FORMAT), "case %d: %s", i, ra_error_name(got[i].err));
        for (int w = 0; w < 3; w++) {
            MPI_EXPECT(strstr(got[i].message, words[i][w]), "case %d: '%s' lacks '%s'", i, got[i].message, words[i][w]);
        }
    }
    char *nowhere = ra_path_join(dir, "missing.h5");
    ra_err err = ra_h5_open(nowhere, world, &file);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "missing.h5"), "a missing file: %s", ra_error_message());
    if (world->rank == 0) MPI_EXPECT_OK(ra_file_write(nowhere, "not HDF5 at all", 15));
    RA_MPI(MPI_Barrier(world->comm));
    err = ra_h5_open(nowhere, world, &file);
    MPI_EXPECT(err == RA_ERR_FORMAT && strstr(ra_error_message(), "missing.h5"), "not HDF5: %s", ra_error_message());
    bool last = world->rank == world->size - 1; /* a file that one rank cannot read */
    err = ra_h5_open(last ? "/no/such/file.h5" : path, world, &file);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "/no/such/file.h5"), "one rank's file: %s", ra_error_message());
    char *folder = ra_path_join(dir, "no/such/folder/a.h5");
    err = ra_h5_create(folder, world, &file);
    MPI_EXPECT(err == RA_ERR_IO && strstr(ra_error_message(), "no/such/folder"), "no folder: %s", ra_error_message());
    free(folder);
    free(nowhere);
    free(path);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* One rank's mistake is an error on all ranks, with the rank named; the file is not kept. */
static const char *test_one_rank_fails(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5");
    ra_h5 *file;
    int last = world->size - 1;
    int64_t shape[1] = {world->size};
    double value = 1.0;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    ra_err err = ra_h5_write(file, "gap", H5T_NATIVE_DOUBLE, 1, shape, world->rank, world->rank == last ? 0 : 1, &value, "d", "");
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "'gap'"), "a gap: %s", ra_error_message());
    err = ra_h5_commit(file);
    MPI_EXPECT(err == RA_ERR_IO, "a spoilt file was committed");
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    err = ra_h5_write(file, "wild", H5T_NATIVE_DOUBLE, 1, shape, world->rank == last ? 99 : world->rank, 1, &value, "d", "");
    MPI_EXPECT(err == RA_ERR_ARG && strstr(ra_error_message(), "[99, 100)"), "rows outside: %s", ra_error_message());
    if (world->size > 1 && world->rank != last) {
        char *named = ra_format("rank %d", last);
        MPI_EXPECT(strstr(ra_error_message(), named), "the failing rank is not named: %s", ra_error_message());
        free(named);
    }
    ra_h5_close(file);
    RA_MPI(MPI_Barrier(world->comm));
    char *part = ra_format("%s.part", path);
    MPI_EXPECT(!ra_file_exists(path) && !ra_file_exists(part), "a spoilt file was left behind");
    free(part);
    free(path);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

/* An abandoned file leaves the committed one of the same name as it was. */
static const char *test_abandon(const ra_comm *world)
{
    char *dir = test_mpi_dir_make(world), *path = ra_path_join(dir, "a.h5"), *part = ra_format("%s.part", path);
    ra_h5 *file;
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_block(file, world, "kept", false));
    MPI_EXPECT_OK(ra_h5_commit(file));
    MPI_EXPECT_OK(ra_h5_create(path, world, &file));
    MPI_EXPECT_OK(write_block(file, world, "dropped", false));
    ra_h5_close(file);
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT(!ra_file_exists(part), "the abandoned part is still there");
    MPI_EXPECT_OK(ra_h5_open(path, world, &file));
    MPI_EXPECT(ra_h5_has(file, "kept") && !ra_h5_has(file, "dropped"), "the committed file was changed");
    ra_h5_close(file);
    free(part);
    free(path);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"write, commit, read back", test_round_trip},
        {"transfers in pieces", test_pieces},
        {"checksums do not depend on who writes", test_checksum_of_layout},
        {"files of other programs", test_foreign},
        {"one flipped bit is found and named", test_damage},
        {"missing and mistyped things are refused", test_refusals},
        {"a failure on one rank is everybody's", test_one_rank_fails},
        {"an abandoned file changes nothing", test_abandon},
    };
    return test_mpi_main(argc, argv, tests, (int)(sizeof tests / sizeof *tests));
}
