/* The host side of the CUDA backend: memory and its accounts, packs and the pinned memory they are copied from, products at every alignment and more
 * shapes than are kept. */
#include "support/support.h"

#include "../../src/backend/cuda/pack.h"

#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static ra_backend *open_cuda(const char *precision)
{
    ra_backend *b = NULL;
    CHECK_OK(ra_backend_open("cuda", precision, 0, &b));
    return b;
}

static void test_memory(void **state)
{
    (void)state;
    ra_backend *b = open_cuda("fp32");
    size_t before, live, peak;
    before = b->memory.live, peak = b->memory.peak;
    void *array[600];
    for (int i = 0; i < 600; i++) array[i] = ra_cuda_alloc(b, (size_t)(1 + i));
    live = b->memory.live, peak = b->memory.peak;
    assert_int_equal(live - before, 600 * 601 / 2);
    assert_int_equal(peak, live);
    for (int i = 0; i < 600; i += 2) ra_cuda_release(b, array[i]);
    for (int i = 599; i > 0; i -= 2) ra_cuda_release(b, array[i]);
    live = b->memory.live, peak = b->memory.peak;
    assert_int_equal(live, before);
    assert_int_equal(peak - before, 600 * 601 / 2);
    ra_backend_close(b);
}

/* Runs `act` in a child and returns what it wrote to stderr; it must not end well. */
static void dies(void (*act)(ra_backend *b), char *text, size_t bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        act(open_cuda("fp32"));
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; length + 1 < bytes && (n = read(ends[0], text + length, bytes - 1 - length)) > 0;) length += (size_t)n;
    text[length] = 0;
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void ask_too_much(ra_backend *b)
{
    setenv("CUDASIM_MEMORY_MB", "64", 1);
    ra_cuda_alloc(b, (size_t)40 << 20);
    ra_cuda_alloc(b, (size_t)40 << 20);
}

static void release_twice(ra_backend *b)
{
    void *memory = ra_cuda_alloc(b, 100);
    ra_cuda_release(b, memory);
    ra_cuda_release(b, memory);
}

static void test_fatal(void **state)
{
    (void)state;
    char text[4096];
    dies(ask_too_much, text, sizeof text);
    assert_non_null(strstr(
        text, "CUDA device 0 has no 0.039 GiB for an array (cudaErrorMemoryAllocation): of its 0.06 GiB 0.023 GiB are free, "
              "and this process holds 0.039 GiB"));
    dies(release_twice, text, sizeof text);
    assert_non_null(strstr(text, "which is no array of this backend"));
}

/* A chain of rows in trees of `length`. */
static ra_pack make_pack(int32_t trees, int32_t length)
{
    ra_pack pack = {.rows = trees * length, .segments = trees, .trees = trees};
    pack.token = ra_calloc((size_t)pack.rows, sizeof *pack.token);
    pack.position = ra_calloc((size_t)pack.rows, sizeof *pack.position);
    pack.segment = ra_calloc((size_t)trees, sizeof *pack.segment);
    pack.tree_begin = ra_calloc((size_t)trees + 1, sizeof *pack.tree_begin);
    for (int32_t t = 0; t < trees; t++) {
        pack.segment[t] = (ra_segment){-1, t * length, (t + 1) * length};
        pack.tree_begin[t + 1] = t + 1;
        for (int32_t i = 0; i < length; i++) {
            pack.token[t * length + i] = 1000 * t + i;
            pack.position[t * length + i] = i;
        }
    }
    return pack;
}

static void free_pack(ra_pack *pack)
{
    ra_free(pack->token);
    ra_free(pack->position);
    ra_free(pack->segment);
    ra_free(pack->tree_begin);
}

static void check_ids(ra_backend *b, const ra_pack *pack)
{
    size_t bytes = (size_t)pack->rows * sizeof(int32_t);
    int32_t *ids = ra_calloc((size_t)pack->rows + 1, sizeof *ids);
    ra_cuda_download(b, ids, ra_pack_tokens(pack), bytes);
    assert_memory_equal(ids, pack->token, bytes);
    ra_cuda_download(b, ids, ra_pack_positions(pack), bytes);
    assert_memory_equal(ids, pack->position, bytes);
    ra_free(ids);
}

/* Packs placed, changed and placed again, released and taken up by others: the last placing counts, and memory settles. */
static void test_packs(void **state)
{
    (void)state;
    ra_backend *b = open_cuda("bf16");
    ra_pack one = make_pack(3, 40), two = make_pack(7, 300), none = make_pack(1, 0);
    ra_cuda_place_pack(b, &one);
    ra_cuda_place_pack(b, &two);
    ra_cuda_place_pack(b, &none);
    assert_ptr_not_equal(one.placed, two.placed);
    check_ids(b, &one);
    check_ids(b, &two);
    for (int step = 0; step < 5; step++) {
        one.token[17] = step;
        ra_cuda_place_pack(b, &one); /* with no wait in between: the staging memory is in use */
    }
    check_ids(b, &one);
    assert_int_equal(ra_cuda_plan_of(&one)->pieces, 3);
    assert_int_equal(ra_cuda_plan_of(&two)->pieces, 7);
    size_t settled = b->memory.live;
    for (int step = 0; step < 4; step++) {
        void *was = two.placed;
        ra_cuda_release_pack(b, &two);
        assert_null(two.placed);
        assert_ptr_equal(ra_pack_tokens(&two), two.token);
        ra_cuda_place_pack(b, &two);
        assert_ptr_equal(two.placed, was);
        check_ids(b, &two);
    }
    assert_int_equal(b->memory.live, settled);
    ra_cuda_release_pack(b, &one);
    ra_cuda_release_pack(b, &two);
    ra_cuda_release_pack(b, &none);
    ra_cuda_release_pack(b, &none); /* nothing is placed: nothing to do */
    free_pack(&one);
    free_pack(&two);
    free_pack(&none);
    ra_backend_close(b);
}

/* C = X Y^T of small whole numbers, exact in every precision, from places that are aligned to an element alone. */
static void check_product(ra_backend *b, int64_t m, int64_t n, int64_t k, int offset)
{
    size_t size = b->a_size;
    size_t bytes = (size_t)(m * k + n * k + 2 * offset) * sizeof(float) + (size_t)(m * n + offset) * sizeof(float);
    float *host = ra_calloc(bytes, 1), *x = host + offset, *y = x + m * k + offset, *c = y + n * k;
    for (int64_t i = 0; i < m * k; i++) x[i] = (float)(i % 5 - 2);
    for (int64_t i = 0; i < n * k; i++) y[i] = (float)(i % 7 - 3);
    char *d_wide = ra_cuda_alloc(b, bytes), *d_x = ra_cuda_alloc(b, (size_t)(m * k + offset) * size) + (size_t)offset * size;
    char *d_y = ra_cuda_alloc(b, (size_t)(n * k + offset) * size),
         *d_c = ra_cuda_alloc(b, (size_t)(m * n + offset) * sizeof(float));
    ra_cuda_upload(b, d_wide, host, bytes);
    b->ops->cast_to_a(b, m * k, d_wide + (x - host) * (int64_t)sizeof *host, d_x);
    b->ops->cast_to_a(b, n * k, d_wide + (y - host) * (int64_t)sizeof *host, d_y + (size_t)offset * size);
    ra_cuda_gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, m, n, k, d_x, k, d_y + (size_t)offset * size, k, false, true,
                 d_c + (size_t)offset * sizeof(float), n);
    ra_cuda_download(b, c, d_c + (size_t)offset * sizeof(float), (size_t)(m * n) * sizeof(float));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++) sum += x[i * k + l] * y[j * k + l];
            assert_float_equal(c[i * n + j], sum, 0);
        }
    }
    ra_cuda_release(b, d_wide);
    ra_cuda_release(b, d_x - (size_t)offset * size);
    ra_cuda_release(b, d_y);
    ra_cuda_release(b, d_c);
    ra_free(host);
}

static void test_products(void **state)
{
    (void)state;
    static const char *const precision[] = {"fp32", "tf32", "bf16"};
    for (int p = 0; p < 3; p++) {
        ra_backend *b = open_cuda(precision[p]);
        for (int offset = 0; offset < 5; offset++) check_product(b, 5, 6, 9, offset);
        ra_backend_close(b);
    }
}

/* More shapes than are kept: all are forgotten, and made again. */
static void test_many_shapes(void **state)
{
    (void)state;
    ra_backend *b = open_cuda("fp32");
    for (int64_t round = 0; round < 2; round++) {
        for (int64_t shape = 1; shape < 2200; shape++) {
            float result = 1;
            if (shape % 500 == 1) check_product(b, 1 + shape % 3, 2, 3, 0);
            void *x = ra_cuda_alloc(b, (size_t)shape * sizeof(float)), *c = ra_cuda_alloc(b, sizeof(float));
            ra_cuda_gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, 1, 1, shape, x, shape, x, shape, false, true, c, 1);
            ra_cuda_download(b, &result, c, sizeof result);
            assert_float_equal(result, 0, 0);
            ra_cuda_release(b, x);
            ra_cuda_release(b, c);
        }
    }
    ra_backend_close(b);
}

/* TF32 rounds its operands to 10 bits of mantissa, float32 does not. */
static void test_tf32(void **state)
{
    (void)state;
    const float x = 1 + 0x1p-12f, one = 1;
    float result[2];
    for (int tf32 = 0; tf32 < 2; tf32++) {
        ra_backend *b = open_cuda(tf32 ? "tf32" : "fp32");
        void *d_x = ra_cuda_alloc(b, sizeof x), *d_y = ra_cuda_alloc(b, sizeof one), *d_c = ra_cuda_alloc(b, sizeof(float));
        ra_cuda_upload(b, d_x, &x, sizeof x);
        ra_cuda_upload(b, d_y, &one, sizeof one);
        ra_cuda_gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, 1, 1, 1, d_x, 1, d_y, 1, false, true, d_c, 1);
        ra_cuda_download(b, &result[tf32], d_c, sizeof(float));
        ra_cuda_release(b, d_x);
        ra_cuda_release(b, d_y);
        ra_cuda_release(b, d_c);
        ra_backend_close(b);
    }
    assert_float_equal(result[0], x, 0);
    assert_float_equal(result[1], 1, 0);
}

/* What stderr gets from `act`. */
static void written_by(void (*act)(void), char *text, size_t bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_true(kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    act();
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    size_t length = 0; /* a pipe holds more than one line */
    for (ssize_t n; length + 1 < bytes && (n = read(ends[0], text + length, bytes - 1 - length)) > 0;) length += (size_t)n;
    text[length] = 0;
    close(ends[0]);
}

static size_t capacity; /* of the backend that was opened last */

static void open_and_close(void)
{
    ra_backend *b = open_cuda("fp32");
    capacity = b->memory.capacity;
    ra_backend_close(b);
}

static void test_devices(void **state)
{
    (void)state;
    setenv("CUDASIM_DEVICES", "4", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "6", 1);
    ra_backend *b = open_cuda("fp32");
    assert_int_equal(ra_cuda_state_of(b)->device, 2);
    assert_string_equal(b->library, "cuBLASLt 13.0, host execution model, device 2 of 4");
    ra_backend_close(b);
    unsetenv("OMPI_COMM_WORLD_LOCAL_RANK");
    setenv("CUDASIM_DEVICES", "-1", 1);
    ra_backend *refused = NULL;
    check_fails(ra_backend_open("cuda", "fp32", 0, &refused), RA_ERR_UNSUPPORTED,
                "backend cuda, precision fp32: no CUDA device here: cudaErrorInsufficientDriver", NULL);
    assert_null(refused);
    unsetenv("CUDASIM_DEVICES");
}

/* Ranks that share a device are told so, once, and share its memory, of which libraries get a part. */
static void test_shared_device(void **state)
{
    (void)state;
    static const struct {
        const char *rank, *size, *devices;
        size_t sharing;
        bool warns;
    } cases[] = {{"0", "1", "1", 1, false}, {"0", "3", "1", 3, true},  {"1", "3", "1", 3, false}, {"0", "5", "4", 2, true},
                 {"4", "5", "4", 2, false}, {"3", "5", "4", 1, false}, {"1", "4", "4", 1, false}};
    char text[1024];
    setenv("CUDASIM_MEMORY_MB", "960", 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("OMPI_COMM_WORLD_LOCAL_RANK", cases[i].rank, 1);
        setenv("OMPI_COMM_WORLD_LOCAL_SIZE", cases[i].size, 1);
        setenv("CUDASIM_DEVICES", cases[i].devices, 1);
        written_by(open_and_close, text, sizeof text);
        assert_int_equal(capacity, ((size_t)840 << 20) / cases[i].sharing);
        assert_int_equal(strstr(text, "share") != NULL, cases[i].warns);
    }
    unsetenv("OMPI_COMM_WORLD_LOCAL_RANK");
    unsetenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    unsetenv("CUDASIM_DEVICES");
    setenv("CUDASIM_MEMORY_MB", "16384", 1);
    open_and_close();
    assert_int_equal(capacity, (size_t)15 << 30);
    unsetenv("CUDASIM_MEMORY_MB");
}

static bool present;

static void ask_presence(void)
{
    present = ra_cuda_device_present();
}

/* `auto` is quiet about a machine without a GPU and about one that it uses; whatever else stands in the way, it says. */
static void test_presence(void **state)
{
    (void)state;
    static const struct {
        const char *devices, *capability, *says; /* NULL: nothing */
        bool present;
    } cases[] = {{"1", "80", NULL, true},
                 {"2", "90", NULL, true},
                 {"0", "80", NULL, false},
                 {"-1", "80", NULL, false},
                 {"-2", "80", "cudaErrorInsufficientDriver", false},
                 {"-3", "80", "cudaErrorInitializationError", false},
                 {"1", "75", "device 0 is host execution model, compute capability 7.5", false},
                 {"1", "100", "device 0 is host execution model, compute capability 10.0", false},
                 {"1", "86", "compute capability 8.6, with 99 KiB of shared memory", false}};
    char text[1024];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv("CUDASIM_DEVICES", cases[i].devices, 1);
        setenv("CUDASIM_CAPABILITY", cases[i].capability, 1);
        written_by(ask_presence, text, sizeof text);
        assert_int_equal(present, cases[i].present);
        if (cases[i].says) {
            assert_non_null(strstr(text, cases[i].says));
        } else {
            assert_string_equal(text, "");
        }
    }
    setenv("CUDASIM_DEVICES", "1", 1);
    setenv("CUDASIM_CAPABILITY", "89", 1);
    ra_backend *refused = NULL;
    check_fails(ra_backend_open("cuda", "fp32", 0, &refused), RA_ERR_UNSUPPORTED, "compute capability 8.9, with 99 KiB", NULL);
    unsetenv("CUDASIM_DEVICES");
    unsetenv("CUDASIM_CAPABILITY");
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_fatal),         cmocka_unit_test(test_packs),
        cmocka_unit_test(test_products), cmocka_unit_test(test_many_shapes),   cmocka_unit_test(test_tf32),
        cmocka_unit_test(test_devices),  cmocka_unit_test(test_shared_device), cmocka_unit_test(test_presence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
