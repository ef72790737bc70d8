/* `realign inspect` on an HDF5 file: what it prints, and that damage is shown and is an error. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static off_t make_file(const char *path)
{
    ra_h5 *file;
    int64_t shape[2] = {3, 4}, one[1] = {2};
    float values[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    int32_t ids[2] = {5, 6};
    CHECK_OK(ra_h5_create(path, NULL, &file));
    CHECK_OK(ra_h5_write_attr_i64(file, "/", "step", 17));
    CHECK_OK(ra_h5_write_attr_text(file, "model", "family", "llama"));
    CHECK_OK(ra_h5_write(file, "model/weight", H5T_NATIVE_FLOAT, 2, shape, 0, 3, values, "a matrix", "nat"));
    CHECK_OK(ra_h5_write_all(file, "ids", H5T_NATIVE_INT32, 1, one, ids, "sample ids", ""));
    CHECK_OK(ra_h5_write_provenance(file, NULL, "seed: 1\nmodel: x\n"));
    CHECK_OK(ra_h5_commit(file));
    CHECK_OK(ra_h5_open(path, NULL, &file));
    hid_t set = H5Dopen2(ra_h5_id(file), "model/weight", H5P_DEFAULT);
    off_t offset = (off_t)H5Dget_offset(set);
    H5Dclose(set);
    ra_h5_close(file);
    return offset;
}

/* The tool's standard output, appended to `out`. */
static ra_err inspect(const char *path, const char *capture, ra_buf *out)
{
    fflush(stdout);
    int saved = dup(STDOUT_FILENO), fd = open(capture, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(saved >= 0 && fd >= 0);
    dup2(fd, STDOUT_FILENO);
    ra_err err = ra_inspect_h5(path);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(fd);
    close(saved);
    ra_buf_clear(out);
    CHECK_OK(ra_file_read(capture, out));
    return err;
}

static void check_words(const ra_buf *text, const char *const *words, int n)
{
    for (int i = 0; i < n; i++) {
        if (!strstr(text->data, words[i])) fail_msg("'%s' is missing in:\n%s", words[i], text->data);
    }
}

static void test_tree(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path = ra_path_join(dir, "a.h5"), *capture = ra_path_join(dir, "out");
    ra_buf text = {0};
    off_t offset = make_file(path);
    CHECK_OK(inspect(path, capture, &text));
    static const char *const words[] = {
        "step = 17",
        "family = \"llama\"",
        "weight: float32, 3 x 4, unit nat, checksum OK; a matrix",
        "ids: int32, 2, unit 1, checksum OK; sample ids",
        "provenance:\n",
        "version = \"",
        "    seed: 1\n    model: x\n",
        "2 datasets,",
        " 0 damaged, 0 without a checksum",
    };
    check_words(&text, words, (int)(sizeof words / sizeof *words));

    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "\x7f", 1, offset + 5), 1);
    close(fd);
    ra_err err = inspect(path, capture, &text);
    check_fails(err, RA_ERR_FORMAT, "a.h5", "1 damaged dataset", NULL);
    static const char *const damaged[] = {"weight: float32, 3 x 4, unit nat, checksum BAD", "checksum OK; sample ids",
                                          " 1 damaged"};
    check_words(&text, damaged, 3);

    CHECK_OK(ra_file_write(path, "no HDF5 at all", 14));
    check_fails(ra_inspect_h5(path), RA_ERR_FORMAT, "a.h5", "HDF5", NULL);
    ra_buf_free(&text);
    free(capture);
    free(path);
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tree)};
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("inspect_h5", tests, NULL, NULL);
}
