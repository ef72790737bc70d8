/* The sample store: what is written is read back; damaged, cut and mixed files are refused with their names. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/store.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SAMPLES = 2 * RA_STORE_BLOCK + 37, MOST_TOKENS = 64 };

static const ra_comm *alone(void)
{
    static ra_comm comm;
    comm = (ra_comm){MPI_COMM_SELF, 0, 1};
    return &comm;
}

/* Sample `id`: lengths and tokens follow from the id; every seventh is unusable, every third has a correction. */
static ra_sample make_sample(int64_t id, int32_t token[MOST_TOKENS])
{
    ra_sample sample = {.id = id};
    if (id % 7 == 3) {
        sample.state = (ra_sample_state)(1 + id % (RA_SAMPLE_STATES - 1));
        return sample;
    }
    for (int i = 0; i < MOST_TOKENS; i++) token[i] = (int32_t)((id * 131 + i * 17) % 50000);
    sample.cut = id % 5 == 0 ? (int32_t)(id % 11) : 0;
    sample.prompt_count = 1 + (int32_t)(id % 13);
    sample.prompt = token;
    token += sample.prompt_count;
    for (int r = 0; r < RA_ROLES; r++) {
        if (r == RA_CORRECTION && id % 3) continue;
        sample.response[r].count = 2 + (int32_t)((id + r) % 9);
        sample.response[r].skip = (id + r) % 4 == 0;
        sample.response[r].token = token;
        token += sample.response[r].count;
    }
    return sample;
}

/* Writes `n` samples; `change`: this sample's first token becomes `token`. */
static ra_err write_store(const char *dir, int64_t n, int64_t change, int32_t token)
{
    ra_store_writer *writer;
    RA_TRY(ra_store_create(dir, alone(), &writer));
    for (int64_t first = 0; first < n; first += RA_STORE_BLOCK) {
        static int32_t tokens[RA_STORE_BLOCK][MOST_TOKENS];
        ra_sample samples[RA_STORE_BLOCK];
        int count = 0;
        for (; count < RA_STORE_BLOCK && first + count < n; count++) {
            samples[count] = make_sample(first + count, tokens[count]);
            if (first + count == change) tokens[count][0] = token;
        }
        ra_err err = ra_store_add_round(writer, samples, count);
        if (err != RA_OK) {
            ra_store_abandon(writer);
            return err;
        }
    }
    static const char *const from[] = {"data.path=rows.jsonl", "data.max_tokens=256"};
    return ra_store_commit(writer, from, 2, "run: test\n");
}

static char *new_store(void)
{
    char *dir = test_dir_make();
    CHECK_OK(write_store(dir, SAMPLES, -1, 0));
    return dir;
}

static void check_sample(const ra_sample *got, const ra_sample *want)
{
    assert_int_equal(got->id, want->id);
    assert_int_equal(got->state, want->state);
    assert_int_equal(got->cut, want->cut);
    assert_int_equal(got->prompt_count, want->prompt_count);
    if (want->prompt_count) assert_memory_equal(got->prompt, want->prompt, (size_t)want->prompt_count * sizeof(int32_t));
    for (int r = 0; r < RA_ROLES; r++) {
        assert_int_equal(got->response[r].count, want->response[r].count);
        assert_int_equal(got->response[r].skip, want->response[r].skip);
        if (!want->response[r].count) continue;
        assert_memory_equal(got->response[r].token, want->response[r].token, (size_t)want->response[r].count * sizeof(int32_t));
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    char *dir = new_store();
    ra_store *store;
    CHECK_OK(ra_store_open(dir, &store));
    assert_int_equal(ra_store_count(store), SAMPLES);
    int32_t token[MOST_TOKENS], highest = 0;
    for (int64_t id = SAMPLES - 1; id >= 0; id--) {
        ra_sample want = make_sample(id, token), got = ra_store_get(store, id);
        check_sample(&got, &want);
        int64_t n = want.prompt_count;
        for (int r = 0; r < RA_ROLES; r++) n += want.response[r].count;
        assert_int_equal(ra_store_tokens(store, id), n);
        assert_int_equal(ra_store_state(store, id), want.state);
        for (int64_t i = 0; i < n; i++) highest = token[i] > highest ? token[i] : highest;
    }
    assert_int_equal(ra_store_highest_token(store), highest);
    uint64_t hash = ra_store_hash(store);
    ra_store_close(store);

    CHECK_OK(ra_store_open_shared(dir, alone(), &store));
    assert_true(ra_store_hash(store) == hash);
    ra_store_close(store);
    char **lines;
    int64_t n;
    CHECK_OK(ra_store_depends_on(dir, &lines, &n));
    assert_int_equal(n, 2);
    assert_string_equal(lines[1], "data.max_tokens=256");
    free(lines);

    CHECK_OK(write_store(dir, SAMPLES, 5, 4)); /* over the old one */
    CHECK_OK(ra_store_open(dir, &store));
    assert_false(ra_store_hash(store) == hash);
    ra_store_close(store);
    char *part = ra_path_join(dir, "tokens.bin.part");
    assert_false(ra_file_exists(part));
    free(part);
    test_dir_remove(dir);
}

static void flip_byte(const char *dir, const char *name, int64_t at)
{
    char *path = ra_path_join(dir, name);
    int fd = open(path, O_RDWR);
    unsigned char byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    free(path);
}

static int64_t file_size(const char *dir, const char *name)
{
    char *path = ra_path_join(dir, name);
    ra_map map;
    CHECK_OK(ra_map_open(path, &map));
    int64_t size = (int64_t)map.size;
    ra_map_close(&map);
    free(path);
    return size;
}

static void resize(const char *dir, const char *name, int64_t size)
{
    char *path = ra_path_join(dir, name);
    assert_int_equal(truncate(path, size), 0);
    free(path);
}

static void test_damaged_tokens(void **state)
{
    (void)state;
    char *dir = new_store();
    ra_store *store = NULL;
    int64_t size = file_size(dir, "tokens.bin");
    flip_byte(dir, "tokens.bin", size - 4); /* the last block */
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "samples 512 to 548", "hash", NULL);
    assert_null(store);
    check_fails(ra_store_open_shared(dir, alone(), &store), RA_ERR_FORMAT, "tokens.bin", NULL);
    flip_byte(dir, "tokens.bin", size - 4);
    CHECK_OK(ra_store_open(dir, &store));
    ra_store_close(store);

    resize(dir, "tokens.bin", size - 4);
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "bytes", NULL);
    resize(dir, "tokens.bin", size + 4);
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "bytes", NULL);
    resize(dir, "tokens.bin", 0);
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "empty", NULL);
    char *path = ra_path_join(dir, "tokens.bin");
    unlink(path);
    free(path);
    check_fails(ra_store_open(dir, &store), RA_ERR_IO, "tokens.bin", NULL);
    test_dir_remove(dir);
}

static void test_negative_token(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    CHECK_OK(write_store(dir, SAMPLES, 300, -5));
    ra_store *store;
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "is -5", NULL);
    test_dir_remove(dir);
}

/* Two sound stores of one size: the index of the first does not open the tokens of the second. */
static void test_mixed_files(void **state)
{
    (void)state;
    char *dir = new_store(), *other = test_dir_make();
    CHECK_OK(write_store(other, SAMPLES, 18, 1));
    char *from = ra_path_join(other, "tokens.bin"), *to = ra_path_join(dir, "tokens.bin");
    CHECK_OK(ra_file_copy(from, to));
    ra_store *store;
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "tokens.bin", "samples 0 to 255", NULL);
    free(from);
    free(to);
    test_dir_remove(dir);
    test_dir_remove(other);
}

static int64_t data_offset(const char *dir, const char *dataset)
{
    char *path = ra_path_join(dir, "store.h5");
    ra_h5 *file;
    CHECK_OK(ra_h5_open(path, NULL, &file));
    hid_t set = H5Dopen2(ra_h5_id(file), dataset, H5P_DEFAULT);
    int64_t at = (int64_t)H5Dget_offset(set);
    H5Dclose(set);
    ra_h5_close(file);
    free(path);
    return at;
}

static void test_damaged_index(void **state)
{
    (void)state;
    static const char *const datasets[] = {
        "sample/id",     "sample/state",          "sample/cut",           "sample/prompt_count",
        "sample/offset", "sample/response_count", "sample/response_skip", "block/hash"};
    char *dir = new_store();
    ra_store *store;
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++) {
        int64_t at = data_offset(dir, datasets[i]) + 33;
        flip_byte(dir, "store.h5", at);
        check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "store.h5", datasets[i], NULL);
        flip_byte(dir, "store.h5", at);
    }
    CHECK_OK(ra_store_open(dir, &store));
    ra_store_close(store);
    resize(dir, "store.h5", file_size(dir, "store.h5") / 2);
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "store.h5", NULL);
    char *path = ra_path_join(dir, "store.h5");
    CHECK_OK(ra_file_write(path, "not HDF5", 8));
    check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "store.h5", NULL);
    unlink(path);
    check_fails(ra_store_open(dir, &store), RA_ERR_IO, "store.h5", NULL);
    free(path);
    test_dir_remove(dir);
}

/* An index whose checksums are right but whose content is not: every rule of the rows is looked at. */
static void test_unsound_index(void **state)
{
    (void)state;
    static const struct {
        const char *dataset;
        int64_t index;
        int32_t value;
        const char *words;
    } cases[] = {
        {"sample/state", 4, 9, "state"},           {"sample/state", 4, 1, "unusable"},
        {"sample/state", 3, 0, "no token"},        {"sample/prompt_count", 4, -1, "negative"},
        {"sample/prompt_count", 4, 0, "no token"}, {"sample/prompt_count", 4, 400, "begin"},
        {"sample/response_count", 12, 0, "score"}, {"sample/response_skip", 12, 30, "score"},
        {"sample/cut", 4, -2, "negative"},         {"sample/cut", 4, 3, "hash"},
    };
    char *dir = new_store(), *path = ra_path_join(dir, "store.h5");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_OK(write_store(dir, SAMPLES, -1, 0));
        hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, cases[i].dataset, H5P_DEFAULT);
        int32_t values[SAMPLES * RA_ROLES];
        assert_true(H5Dread(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
        values[cases[i].index] = cases[i].value;
        assert_true(H5Dwrite(set, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
        H5Adelete(set, "checksum");
        H5Dclose(set);
        H5Fclose(file);
        ra_store *store;
        check_fails(ra_store_open(dir, &store), RA_ERR_FORMAT, "store.h5", cases[i].words, NULL);
    }
    free(path);
    test_dir_remove(dir);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_store_writer *writer;
    int32_t token[2][MOST_TOKENS];
    ra_sample samples[2] = {make_sample(0, token[0]), make_sample(1, token[1])};
    CHECK_OK(ra_store_create(dir, alone(), &writer));
    samples[1].id = 5;
    check_fails(ra_store_add_round(writer, samples, 2), RA_ERR_ARG, "sample 5", "next", NULL);
    samples[1].id = 1;
    samples[1].response[RA_CHOSEN].skip = samples[1].response[RA_CHOSEN].count;
    check_fails(ra_store_add_round(writer, samples, 2), RA_ERR_ARG, "sample 1", "score", NULL);
    CHECK_OK(ra_store_add_round(writer, samples, 1));
    samples[0].id = 1; /* after a short block */
    check_fails(ra_store_add_round(writer, samples, 1), RA_ERR_ARG, "not full", NULL);
    ra_store_abandon(writer);

    CHECK_OK(ra_store_create(dir, alone(), &writer));
    check_fails(ra_store_commit(writer, NULL, 0, NULL), RA_ERR_DATA, "no usable sample", NULL);
    char *part = ra_path_join(dir, "tokens.bin.part"), *index = ra_path_join(dir, "store.h5");
    assert_false(ra_file_exists(part));
    assert_false(ra_file_exists(index));
    free(part);
    free(index);
    char *missing = ra_path_join(dir, "not/there");
    check_fails(ra_store_create(missing, alone(), &writer), RA_ERR_IO, "not/there/tokens.bin.part", NULL);
    free(missing);
    test_dir_remove(dir);
}

/* ---- corrections made after the store ---- */

/* Sample `id` re-made with a correction that parts from the prompt one token earlier, where it has two. */
static ra_sample corrected(const ra_store *store, int64_t id, int32_t token[2 * MOST_TOKENS])
{
    ra_sample s = ra_store_get(store, id);
    int32_t back = s.prompt_count > 1;
    ra_sample out = {.id = id, .prompt_count = s.prompt_count - back, .prompt = token};
    int32_t last = s.prompt[s.prompt_count - 1];
    memcpy(token, s.prompt, (size_t)out.prompt_count * sizeof *token);
    token += out.prompt_count;
    for (int r = 0; r < RA_ROLES; r++) {
        out.response[r].token = token;
        if (back) *token++ = r == RA_CORRECTION ? 60000 : last;
        int32_t n = r == RA_CORRECTION ? 3 : s.response[r].count;
        for (int32_t i = 0; i < n; i++) *token++ = r == RA_CORRECTION ? 61000 + i : s.response[r].token[i];
        out.response[r].count = n + back;
        out.response[r].skip = (r == RA_CORRECTION ? 0 : s.response[r].skip) + back;
    }
    return out;
}

static void test_corrections(void **state)
{
    (void)state;
    char *dir = new_store();
    static const int64_t ids[] = {0, 12, RA_STORE_BLOCK + 5, SAMPLES - 1};
    enum { N = sizeof ids / sizeof *ids };
    ra_store *store, *plain;
    CHECK_OK(ra_store_open(dir, &store));
    CHECK_OK(ra_store_open(dir, &plain));
    static int32_t token[N][2 * MOST_TOKENS];
    ra_sample sample[N];
    for (int i = 0; i < N; i++) sample[i] = corrected(plain, ids[i], token[i]);
    uint64_t before = ra_store_hash(store);
    CHECK_OK(ra_store_set_corrections(store, sample, N));
    assert_true(ra_store_hash(store) != before);
    assert_int_equal(ra_store_highest_token(store), 61002);
    int next = 0, masked = 0;
    for (int64_t id = 0; id < SAMPLES; id++) {
        ra_sample got = ra_store_get(store, id), want = ra_store_get(plain, id);
        if (next < N && ids[next] == id) {
            want = sample[next++];
            assert_int_equal(ra_store_tokens(store, id),
                             want.prompt_count + want.response[0].count + want.response[1].count + want.response[2].count);
            assert_true(got.prompt != want.prompt); /* copied */
        } else {
            masked += want.response[RA_CORRECTION].count > 0;
            memset(&want.response[RA_CORRECTION], 0, sizeof want.response[RA_CORRECTION]);
        }
        check_sample(&got, &want);
    }
    assert_true(masked > 100);
    ra_store_close(store);

    /* the hash tells corrections apart, and none from the store's own */
    uint64_t hash[3];
    for (int k = 0; k < 3; k++) {
        CHECK_OK(ra_store_open(dir, &store));
        if (k == 2) token[0][0]++;
        CHECK_OK(ra_store_set_corrections(store, sample, k == 0 ? 0 : N));
        hash[k] = ra_store_hash(store);
        ra_store_close(store);
    }
    assert_true(hash[0] != hash[1] && hash[1] != hash[2] && hash[0] != before);
    token[0][0]--;

    /* what does not fit the store is refused */
    static const struct {
        int64_t id;
        int32_t correction, first;
        const char *word;
    } bad[] = {{SAMPLES, 4, 1, "ascending"},
               {3, 4, 1, "not usable"},
               {12, 0, 1, "no correction"},
               {12, 4, -1, "not negative"},
               {-1, 4, 1, "ascending"}};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        CHECK_OK(ra_store_open(dir, &store));
        int32_t of[] = {bad[k].first, 2, 3, 4, 5, 6, 7};
        ra_sample s = {.id = bad[k].id,
                       .prompt_count = 1,
                       .prompt = of,
                       .response = {{1, 0, of + 1}, {1, 0, of + 2}, {bad[k].correction, 0, of + 3}}};
        check_fails(ra_store_set_corrections(store, &s, 1), RA_ERR_DATA, "corrected sample", bad[k].word, NULL);
        ra_store_close(store);
    }
    CHECK_OK(ra_store_open(dir, &store));
    ra_sample twice[2] = {sample[1], sample[1]};
    check_fails(ra_store_set_corrections(store, twice, 2), RA_ERR_DATA, "ascending", NULL);
    ra_store_close(store);
    ra_store_close(plain);
    test_dir_remove(dir);
}

int main(int argc, char **argv)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    ra_comm world;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_damaged_tokens), cmocka_unit_test(test_negative_token),
        cmocka_unit_test(test_mixed_files),    cmocka_unit_test(test_damaged_index),  cmocka_unit_test(test_unsound_index),
        cmocka_unit_test(test_writer_refuses), cmocka_unit_test(test_corrections),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    ra_comm_finalize();
    return failed;
}
