/* safetensors: reading, every malformed header, shards by index, files over 4 GiB, the writer. */
#include <realign/file.h>
#include <realign/modelfile.h>
#include <support/modelmake.h>
#include <support/support.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *header;
    size_t data;
    ra_err code;
    const char *tensor, *what; /* words the message must have */
} bad_case;

#define ENTRY(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static const bad_case bad[] = {
    {"", 0, RA_ERR_FORMAT, "header", "not valid JSON"},
    {"{", 0, RA_ERR_FORMAT, "header", "not valid JSON"},
    {"{} x", 0, RA_ERR_FORMAT, "header", "not valid JSON"},
    {"[1]", 0, RA_ERR_FORMAT, "header", "not a JSON object"},
    {"{\"w\":3}", 4, RA_ERR_FORMAT, "tensor w", "header entry must be"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, RA_ERR_FORMAT, "tensor w", "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, RA_ERR_FORMAT, "tensor w", "data_offsets"},
    {"{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, RA_ERR_FORMAT, "tensor w", "data_offsets"},
    {"{\"w\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, RA_ERR_FORMAT, "tensor w", "dtype"},
    {"{" ENTRY("w", "F31", "[1]", "0", "4") "}", 4, RA_ERR_FORMAT, "tensor w", "unknown dtype \"F31\"; readable are"},
    {"{" ENTRY("w", "F32", "[-1]", "0", "4") "}", 4, RA_ERR_FORMAT, "tensor w", "shape[0]"},
    {"{" ENTRY("w", "F32", "[1.5]", "0", "4") "}", 4, RA_ERR_FORMAT, "tensor w", "shape[0]"},
    {"{" ENTRY("w", "F32", "[1,1,1,1,1]", "0", "4") "}", 4, RA_ERR_UNSUPPORTED, "tensor w", "5 dimensions"},
    {"{" ENTRY("w", "F32", "[4294967296,4294967296]", "0", "4") "}", 4, RA_ERR_FORMAT, "tensor w", "overflows"},
    {"{" ENTRY("w", "F32", "[4611686018427387904]", "0", "4") "}", 4, RA_ERR_FORMAT, "tensor w", "overflows"},
    {"{" ENTRY("w", "F32", "[99999999999999999999]", "0", "4") "}", 4, RA_ERR_FORMAT, "header", "not valid JSON"},
    {"{" ENTRY("w", "F32", "[1]", "-4", "0") "}", 4, RA_ERR_FORMAT, "tensor w", "not a range"},
    {"{" ENTRY("w", "F32", "[1]", "4", "0") "}", 4, RA_ERR_FORMAT, "tensor w", "not a range"},
    {"{" ENTRY("w", "F32", "[2]", "0", "8") "}", 4, RA_ERR_FORMAT, "tensor w", "truncated"},
    {"{" ENTRY("w", "F32", "[2]", "4", "12") "}", 8, RA_ERR_FORMAT, "tensor w", "only 8 bytes"},
    {"{" ENTRY("w", "F32", "[3]", "0", "8") "}", 8, RA_ERR_FORMAT, "tensor w", "8 bytes of data, but F32 (3) takes 12"},
    {"{" ENTRY("w", "BF16", "[2,3]", "0", "8") "}", 8, RA_ERR_FORMAT, "tensor w", "BF16 (2, 3) takes 12"},
    {"{" ENTRY("a", "F32", "[2]", "0", "8") "," ENTRY("w", "F32", "[2]", "4", "12") "}", 12, RA_ERR_FORMAT, "tensor w",
     "overlaps tensor a"},
    {"{" ENTRY("a", "F32", "[1]", "0", "4") "," ENTRY("w", "F32", "[1]", "8", "12") "}", 12, RA_ERR_FORMAT, "tensor w",
     "hole of 4 bytes"},
    {"{" ENTRY("w", "F32", "[1]", "4", "8") "}", 8, RA_ERR_FORMAT, "tensor w", "hole of 4 bytes"},
    {"{" ENTRY("w", "F32", "[1]", "0", "4") "}", 9, RA_ERR_FORMAT, "w", "5 bytes follow the last tensor"},
    {"{}", 3, RA_ERR_FORMAT, "", "3 bytes follow the last tensor"},
    {"{" ENTRY("w", "F32", "[1]", "0", "4") "," ENTRY("w", "F32", "[1]", "4", "8") "}", 8, RA_ERR_FORMAT, "\"w\"", "duplicate"},
};

static void test_malformed_headers(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ra_buf bytes = {0};
        make_safetensors(&bytes, bad[i].header, bad[i].data);
        char *path = write_bytes_to(dir, "bad.safetensors", bytes.data, bytes.length);
        ra_modelfile *file = NULL;
        check_fails(ra_modelfile_open(path, &file), bad[i].code, path, bad[i].tensor, bad[i].what, NULL);
        assert_null(file);
        free(path);
        ra_buf_free(&bytes);
    }
    test_dir_remove(dir);
}

static void test_not_a_model_at_all(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_modelfile *file = NULL;
    char *path = write_bytes_to(dir, "empty", "", 0);
    check_fails(ra_modelfile_open(path, &file), RA_ERR_FORMAT, path, "empty", NULL);
    free(path);
    path = write_bytes_to(dir, "short", "abc", 3);
    check_fails(ra_modelfile_open(path, &file), RA_ERR_FORMAT, path, "too short", NULL);
    free(path);
    path = write_bytes_to(dir, "long", "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    check_fails(ra_modelfile_open(path, &file), RA_ERR_FORMAT, path, "the file has 10", NULL);
    free(path);
    path = ra_path_join(dir, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    check_fails(ra_modelfile_open(path, &file), RA_ERR_IO, path, "not a regular file", NULL);
    free(path);
    path = ra_path_join(dir, "absent");
    check_fails(ra_modelfile_open(path, &file), RA_ERR_IO, path, "No such file", NULL);
    free(path);
    check_fails(ra_modelfile_open(dir, &file), RA_ERR_IO, dir, "no model.safetensors", NULL);
    assert_null(file);
    test_dir_remove(dir);
}

static void test_reads_values(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_buf bytes = {0};
    /* The odd header length leaves every tensor unaligned. */
    make_safetensors(
        &bytes,
        "{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("b.half", "BF16", "[2,2]", "0", "8") "," ENTRY(
            "a.single", "F32", "[3]", "8", "20") "," ENTRY("none", "F32", "[0,4]", "20",
                                                           "20") "," ENTRY("scalar", "F64", "[]", "20",
                                                                           "28") "," ENTRY("ids", "I64", "[1]", "28", "36") "}",
        36);
    static const uint16_t half[4] = {0x3f80, 0xbf80, 0x7f80, 0x0001}; /* 1, -1, infinity, the smallest subnormal */
    static const float single[3] = {0.1f, -2.5f, 1e-40f};
    static const double scalar = 0.1;
    char *data = bytes.data + bytes.length - 36;
    memcpy(data, half, 8);
    memcpy(data + 8, single, 12);
    memcpy(data + 20, &scalar, 8);
    assert_int_not_equal((data - bytes.data) % 4, 0);
    char *path = write_bytes_to(dir, "m.safetensors", bytes.data, bytes.length);
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    assert_int_equal(ra_modelfile_count(file), 5);
    assert_null(ra_modelfile_gguf(file));
    const ra_tensor_info *info = ra_modelfile_info(file, ra_modelfile_find(file, "b.half"));
    assert_string_equal(info->stored, "BF16");
    assert_int_equal(info->ndim, 2);
    assert_int_equal(info->shape[1], 2);
    assert_int_equal(ra_modelfile_find(file, "b"), -1);
    float f[4];
    double d[4];
    ra_bf16 b[4];
    CHECK_OK(ra_modelfile_read(file, "b.half", 0, 4, RA_DTYPE_BF16, b));
    assert_memory_equal(b, half, 8);
    CHECK_OK(ra_modelfile_read(file, "b.half", 1, 2, RA_DTYPE_F64, d));
    assert_true(d[0] == -1.0 && d[1] > 1e308);
    CHECK_OK(ra_modelfile_read(file, "a.single", 0, 3, RA_DTYPE_F32, f));
    assert_memory_equal(f, single, 12);
    CHECK_OK(ra_modelfile_read(file, "scalar", 0, 1, RA_DTYPE_F64, d));
    assert_memory_equal(d, &scalar, 8);
    CHECK_OK(ra_modelfile_read(file, "none", 0, 0, RA_DTYPE_F32, f));
    check_fails(ra_modelfile_read(file, "a.single", 2, 2, RA_DTYPE_F32, f), RA_ERR_ARG, path, "tensor a.single", "it has 3",
                NULL);
    check_fails(ra_modelfile_read(file, "a.single", -1, 2, RA_DTYPE_F32, f), RA_ERR_ARG, path, "a.single", NULL);
    check_fails(ra_modelfile_read(file, "nobody", 0, 1, RA_DTYPE_F32, f), RA_ERR_FORMAT, path, "no tensor nobody", NULL);
    check_fails(ra_modelfile_read(file, "ids", 0, 1, RA_DTYPE_F32, f), RA_ERR_UNSUPPORTED, path, "tensor ids", "I64", NULL);
    char *json;
    check_fails(ra_modelfile_config_json(file, &json), RA_ERR_ARG, path, "directory", NULL);
    ra_modelfile_close(file);
    free(path);
    ra_buf_free(&bytes);
    test_dir_remove(dir);
}

static void put_shards(const char *dir)
{
    ra_buf bytes = {0};
    make_safetensors(&bytes, "{" ENTRY("a", "F32", "[2]", "0", "8") "," ENTRY("b", "F32", "[1]", "8", "12") "}", 12);
    free(write_bytes_to(dir, "s1.safetensors", bytes.data, bytes.length));
    ra_buf_clear(&bytes);
    make_safetensors(&bytes, "{" ENTRY("c", "F32", "[1]", "0", "4") "}", 4);
    free(write_bytes_to(dir, "s2.safetensors", bytes.data, bytes.length));
    ra_buf_free(&bytes);
}

static void test_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        ra_err code;
        const char *words[3]; /* file and tensor first; NULL code words: a good index */
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}", RA_OK, {0}},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}", RA_OK, {0}}, /* b is left out with a warning */
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s3.safetensors\"}}",
         RA_ERR_IO,
         {"s3.safetensors", "tensor c", "missing"}},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\"}}",
         RA_ERR_FORMAT,
         {"s1.safetensors", "tensor c", "not in this shard"}},
        {"{\"weight_map\":{\"a\":\"../s1.safetensors\"}}", RA_ERR_FORMAT, {"index.json", "tensor a", "same directory"}},
        {"{\"weight_map\":{\"a\":7}}", RA_ERR_FORMAT, {"index.json", "tensor a", "same directory"}},
        {"{\"weight_map\":{}}", RA_ERR_FORMAT, {"index.json", "weight_map", "empty"}},
        {"{\"weight_map\":[]}", RA_ERR_FORMAT, {"index.json", "weight_map", "no object"}},
        {"{\"weight_map\":{\"a\":\"s1.safetensors\",\"a\":\"s2.safetensors\"}}",
         RA_ERR_FORMAT,
         {"index.json:1", "\"a\"", "duplicate"}},
        {"{\"weight_map\":", RA_ERR_FORMAT, {"index.json:1", "JSON", "not valid"}},
    };
    char *dir = test_dir_make();
    put_shards(dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        free(write_bytes_to(dir, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index)));
        ra_modelfile *file = NULL;
        ra_err err = ra_modelfile_open(dir, &file);
        if (cases[i].code == RA_OK) {
            check_ok(err, cases[i].index);
            float c;
            CHECK_OK(ra_modelfile_read(file, "c", 0, 1, RA_DTYPE_F32, &c));
            assert_int_equal(ra_modelfile_count(file), i == 0 ? 3 : 2);
            ra_modelfile_close(file);
        } else {
            check_fails(err, cases[i].code, dir, cases[i].words[0], cases[i].words[1], cases[i].words[2], NULL);
            assert_null(file);
        }
    }
    test_dir_remove(dir);
}

/* A sparse file of 5 GiB: offsets beyond 32 bits. */
static void test_over_4_gib(void **state)
{
    (void)state;
    char *dir = test_dir_make();
    ra_buf bytes = {0};
    make_safetensors(&bytes,
                     "{" ENTRY("big", "F32", "[5,268435456]", "0", "5368709120") "," ENTRY("end", "F32", "[1]", "5368709120",
                                                                                           "5368709124") "}",
                     0);
    char *path = write_bytes_to(dir, "big.safetensors", bytes.data, bytes.length);
    FILE *f = fopen(path, "r+b");
    static const float last[2] = {1.5f, 2.5f};
    bool room = f && fseeko(f, (off_t)bytes.length + 5368709120 - 4, SEEK_SET) == 0 && fwrite(last, 4, 2, f) == 2;
    room = f && fclose(f) == 0 && room;
    if (!room) {
        print_message("no room for a sparse file of 5 GiB under %s\n", dir);
        test_dir_remove(dir);
        skip();
    }
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    float got[2];
    CHECK_OK(ra_modelfile_read(file, "big", 5 * 268435456ll - 2, 2, RA_DTYPE_F32, got));
    assert_true(got[0] == 0.0f && got[1] == 1.5f);
    CHECK_OK(ra_modelfile_read(file, "end", 0, 1, RA_DTYPE_F32, got));
    assert_true(got[0] == 2.5f);
    ra_modelfile_close(file);
    free(path);
    ra_buf_free(&bytes);
    test_dir_remove(dir);
}

static void test_writer(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path = ra_path_join(dir, "out.safetensors"), *part = ra_path_join(dir, "out.safetensors.part");
    static const int64_t shape[2] = {2, 3}, none[1] = {0};
    static const float values[6] = {1.0f, -2.0f, 3.0f, 0.1f, 1e-3f, 6e4f};
    static const double scalar = 1.0 / 3.0;
    ra_stwriter *w;
    CHECK_OK(ra_stwriter_open(path, &w));
    CHECK_OK(ra_stwriter_declare(w, "w\"quoted\"", RA_DTYPE_BF16, 2, shape));
    CHECK_OK(ra_stwriter_declare(w, "empty", RA_DTYPE_F32, 1, none));
    CHECK_OK(ra_stwriter_declare(w, "s", RA_DTYPE_F64, 0, NULL));
    check_fails(ra_stwriter_declare(w, "s", RA_DTYPE_F64, 0, NULL), RA_ERR_ARG, path, "tensor s", "twice", NULL);
    check_fails(ra_stwriter_put(w, "s", RA_DTYPE_F64, &scalar), RA_ERR_ARG, path, "tensor s", "w\"quoted\" is next", NULL);
    CHECK_OK(ra_stwriter_put(w, "w\"quoted\"", RA_DTYPE_F32, values));
    check_fails(ra_stwriter_declare(w, "late", RA_DTYPE_F64, 0, NULL), RA_ERR_ARG, path, "tensor late", NULL);
    CHECK_OK(ra_stwriter_put(w, "empty", RA_DTYPE_F32, values));
    CHECK_OK(ra_stwriter_put(w, "s", RA_DTYPE_F64, &scalar));
    assert_false(ra_file_exists(path)); /* nothing half-written under the final name */
    assert_true(ra_file_exists(part));
    CHECK_OK(ra_stwriter_finish(w));
    assert_false(ra_file_exists(part));
    ra_buf bytes = {0};
    CHECK_OK(ra_file_read(path, &bytes));
    uint64_t length;
    memcpy(&length, bytes.data, 8);
    assert_int_equal(length % 8, 0);
    assert_non_null(strstr(bytes.data + 8, "\"__metadata__\":{\"format\":\"pt\"}"));
    ra_buf_free(&bytes);
    ra_modelfile *file;
    CHECK_OK(ra_modelfile_open(path, &file));
    ra_bf16 b[6], expected[6];
    double d;
    ra_dtype_convert(RA_DTYPE_BF16, expected, RA_DTYPE_F32, values, 6);
    CHECK_OK(ra_modelfile_read(file, "w\"quoted\"", 0, 6, RA_DTYPE_BF16, b));
    assert_memory_equal(b, expected, sizeof b);
    CHECK_OK(ra_modelfile_read(file, "s", 0, 1, RA_DTYPE_F64, &d));
    assert_memory_equal(&d, &scalar, 8);
    ra_modelfile_close(file);
    /* A tensor declared and never put, an abandoned file, a directory that is not there. */
    CHECK_OK(ra_stwriter_open(path, &w));
    CHECK_OK(ra_stwriter_declare(w, "forgotten", RA_DTYPE_F32, 2, shape));
    check_fails(ra_stwriter_finish(w), RA_ERR_ARG, path, "tensor forgotten", NULL);
    CHECK_OK(ra_stwriter_open(path, &w));
    ra_stwriter_abort(w);
    assert_false(ra_file_exists(part));
    assert_true(ra_file_exists(path)); /* the earlier good file */
    check_fails(ra_stwriter_open("/nonexistent/x.safetensors", &w), RA_ERR_IO, "/nonexistent/x.safetensors", NULL);
    free(path);
    free(part);
    test_dir_remove(dir);
}

/* A disk that fills up: the error names the file, the old one stays, no half-written one is left. */
static void test_full_disk(void **state)
{
    (void)state;
    char *dir = test_dir_make(), *path = ra_path_join(dir, "out.safetensors"), *part = ra_path_join(dir, "out.safetensors.part");
    free(write_bytes_to(dir, "out.safetensors", "old", 3));
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    static const float zeros[50000];
    ra_stwriter *w;
    CHECK_OK(ra_stwriter_open(path, &w));
    CHECK_OK(ra_stwriter_declare(w, "w", RA_DTYPE_F32, 1, (int64_t[]){50000}));
    ra_err put = ra_stwriter_put(w, "w", RA_DTYPE_F32, zeros);
    char *message = ra_strdup(ra_error_message());
    ra_err finish = ra_stwriter_finish(w);
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    assert_int_not_equal(finish, RA_OK);
    check_fails(put, RA_ERR_IO, NULL);
    assert_non_null(strstr(message, part));
    assert_non_null(strstr(message, "write failed"));
    assert_true(ra_file_exists(path));
    assert_false(ra_file_exists(part));
    free(message);
    free(path);
    free(part);
    test_dir_remove(dir);
}

/* Each model of the shared fixtures: every tensor read, written again, and the same bits. */
static void test_fixtures_round_trip(void **state)
{
    (void)state;
    static const char *const models[] = {"gemma2/policy", "llama31/policy",     "llama31/policy_bf16", "llama32_tied/policy",
                                         "qwen25/policy", "qwen25_tied/policy", "llama31/adapter"};
    char *dir = test_dir_make(), *out = ra_path_join(dir, "copy.safetensors");
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        char *relative = ra_path_join("fixtures", models[m]), *path = test_shared_path(relative);
        ra_modelfile *a, *b;
        ra_stwriter *w;
        CHECK_OK(ra_modelfile_open(path, &a));
        assert_true(ra_modelfile_count(a) > 3);
        CHECK_OK(ra_stwriter_open(out, &w));
        for (int pass = 0; pass < 2; pass++) {
            for (int i = 0; i < ra_modelfile_count(a); i++) {
                const ra_tensor_info *t = ra_modelfile_info(a, i);
                ra_dtype kept = strcmp(t->stored, "BF16") == 0 ? RA_DTYPE_BF16 : RA_DTYPE_F32;
                if (pass == 0) {
                    CHECK_OK(ra_stwriter_declare(w, t->name, kept, t->ndim, t->shape));
                    continue;
                }
                double *x = ra_alloc((size_t)t->elements, 8); /* by way of double, as the reference backend reads */
                CHECK_OK(ra_modelfile_read(a, t->name, 0, t->elements, RA_DTYPE_F64, x));
                CHECK_OK(ra_stwriter_put(w, t->name, RA_DTYPE_F64, x));
                ra_free(x);
            }
        }
        CHECK_OK(ra_stwriter_finish(w));
        CHECK_OK(ra_modelfile_open(out, &b));
        assert_int_equal(ra_modelfile_count(a), ra_modelfile_count(b));
        for (int i = 0; i < ra_modelfile_count(a); i++) {
            const ra_tensor_info *t = ra_modelfile_info(a, i);
            size_t bytes = 4 * (size_t)t->elements;
            float *x = ra_alloc(bytes, 1), *y = ra_alloc(bytes, 1);
            CHECK_OK(ra_modelfile_read(a, t->name, 0, t->elements, RA_DTYPE_F32, x));
            CHECK_OK(ra_modelfile_read(b, t->name, 0, t->elements, RA_DTYPE_F32, y));
            assert_memory_equal(x, y, bytes);
            assert_string_equal(t->stored, ra_modelfile_info(b, ra_modelfile_find(b, t->name))->stored);
            ra_free(x);
            ra_free(y);
        }
        ra_modelfile_close(a);
        ra_modelfile_close(b);
        free(relative);
        free(path);
    }
    free(out);
    test_dir_remove(dir);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_headers), cmocka_unit_test(test_not_a_model_at_all),
        cmocka_unit_test(test_reads_values),      cmocka_unit_test(test_shards),
        cmocka_unit_test(test_over_4_gib),        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_full_disk),         cmocka_unit_test(test_fixtures_round_trip),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
