/* The execution model itself: what kernels compute in it, and that every mistake it is there to find ends the program with a message that says
 * where. Mistakes are made in child processes. */
#include "kernels.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void *device(size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(cudaMalloc(&memory, bytes), cudaSuccess);
    return memory;
}

static void put(void *to, const void *from, size_t bytes)
{
    assert_int_equal(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
}

static void get(void *to, const void *from, size_t bytes)
{
    assert_int_equal(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

static void test_sum(void **state)
{
    (void)state;
    enum { BLOCKS = 7, N = 1000 };
    static float in[BLOCKS * N], out[BLOCKS];
    for (int i = 0; i < BLOCKS * N; i++) in[i] = (float)(i % 11);
    float *d_in = device(sizeof in), *d_out = device(sizeof out);
    put(d_in, in, sizeof in);
    sim_sum(BLOCKS, d_in, d_out, N);
    get(out, d_out, sizeof out);
    for (int b = 0; b < BLOCKS; b++) {
        float sum = 0;
        for (int i = 0; i < N; i++) sum += in[b * N + i];
        assert_float_equal(out[b], sum, 0);
    }
    cudaFree(d_in);
    cudaFree(d_out);
}

/* By the definitions of the programming guide, counted out by hand for a few lanes. */
static void test_shuffle(void **state)
{
    (void)state;
    static int out[64][8];
    int *d_out = device(sizeof out);
    sim_shuffle(d_out);
    get(out, d_out, sizeof out);
    static const struct {
        int lane, result[7];
    } wanted[] = {
        {0, {5, 3, 0, 0, 3, 3, 9}},       {1, {5, 3, 1, 1, 4, 4, 8}},        {9, {5, 11, 6, 6, 12, 12, 0}},
        {14, {5, 11, 11, 11, 17, 14, 7}}, {17, {5, 19, 14, 17, 20, 20, 24}}, {31, {5, 27, 28, 28, 31, 31, 22}},
    };
    for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
        for (int i = 0; i < 7; i++) {
            assert_int_equal(out[wanted[w].lane][i], wanted[w].result[i]);
            assert_int_equal(out[32 + wanted[w].lane][i], wanted[w].result[i]);
        }
    }
    for (int t = 0; t < 64; t++) assert_int_equal(out[t][7], (int)0x49249249);
    cudaFree(d_out);
}

static void test_dynamic_shared(void **state)
{
    (void)state;
    float in[64], out[64];
    for (int i = 0; i < 64; i++) in[i] = (float)i;
    float *d_in = device(sizeof in), *d_out = device(sizeof out);
    put(d_in, in, sizeof in);
    sim_mirror(2 * sizeof in, d_in, d_out);
    get(out, d_out, sizeof out);
    for (int i = 0; i < 64; i++) assert_float_equal(out[i], 63 - i, 0);
    cudaFree(d_in);
    cudaFree(d_out);
}

static void test_copies(void **state)
{
    (void)state;
    float in[128], out[128];
    for (int i = 0; i < 128; i++) in[i] = (float)i;
    float *d_in = device(sizeof in), *d_out = device(sizeof out);
    put(d_in, in, sizeof in);
    sim_copies(d_in, d_out);
    get(out, d_out, sizeof out);
    for (int t = 0; t < 64; t++) {
        assert_float_equal(out[2 * t], t + 64 + t, 0);
        assert_true(isnan(out[2 * t + 1]));
    }
    cudaFree(d_in);
    cudaFree(d_out);
}

/* Every thread of every block once, and not in ascending order unless the seed is 0. */
static void test_order(void **state)
{
    (void)state;
    enum { BLOCKS = 5, N = BLOCKS * 64 };
    int order[N], count = 0;
    bool seen[N] = {false}, ascending = true;
    int *d_order = device(sizeof order), *d_count = device(sizeof count);
    put(d_count, &count, sizeof count);
    sim_order(BLOCKS, d_order, d_count);
    get(order, d_order, sizeof order);
    for (int i = 0; i < N; i++) {
        assert_in_range(order[i], 0, N - 1);
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        if (order[i] != i) ascending = false;
    }
    const char *seed = getenv("CUDASIM_SEED");
    assert_int_equal(ascending, seed && strcmp(seed, "0") == 0);
    cudaFree(d_order);
    cudaFree(d_count);
}

/* ---- mistakes ---- */

/* Runs `act` in a child; what it wrote to stderr before it was aborted is in `text`. */
static void dies(void (*act)(const void *), const void *argument, char *text, size_t bytes)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        act(argument);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t n; length + 1 < bytes && (n = read(ends[0], text + length, bytes - 1 - length)) > 0;) length += (size_t)n;
    text[length] = 0;
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) print_message("# it did not die: %s\n", text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void says(const char *text, const char *words)
{
    if (!strstr(text, words)) print_message("# \"%s\" is not in: %s\n", words, text);
    assert_non_null(strstr(text, words));
}

typedef struct {
    const char *name;
    sim_mistake mistake;
    const char *words[4]; /* that the message has, besides the kernel's name */
} mistake_row;

static const mistake_row mistakes[] = {
    {"read of another thread's cell before a barrier", SIM_READ_BEFORE_BARRIER, {"'cell'", "block (0, 0, 0), thread ("}},
    {"write to a cell that another thread read",
     SIM_WRITE_AFTER_READ,
     {"race: ", "shared array 'cell'", "since the last barrier"}},
    {"two writers", SIM_TWO_WRITERS, {"race: write to shared array 'cell'[0]", "wrote since the last barrier"}},
    {"__syncwarp between warps", SIM_SYNCWARP_ACROSS_WARPS, {"'cell'"}},
    {"a shuffle in place of __syncwarp", SIM_SHUFFLE_AS_BARRIER, {"race: read of shared array 'cell'"}},
    {"read of what nobody wrote", SIM_UNWRITTEN, {"thread (63, 0, 0): read of shared array 'cell'[63], which nobody wrote"}},
    {"past the end",
     SIM_PAST_END,
     {"thread (63, 0, 0): write to shared array 'cell'[64] out of bounds: it has 64 elements of 4 bytes"}},
    {"before the beginning", SIM_BEFORE_BEGIN, {"thread (0, 0, 0): write to shared array 'cell'[-1] out of bounds"}},
    {"misaligned vector", SIM_MISALIGNED, {"at byte 4, which is not aligned to 16"}},
    {"a barrier that some threads pass by",
     SIM_DIVERGENT_BARRIER,
     {"divergent __syncthreads (tests/cuda/kernels.cu:", "has ended"}},
    {"two barriers at once",
     SIM_TWO_BARRIERS,
     {"divergent __syncthreads (tests/cuda/kernels.cu:", "other threads are at the one of"}},
    {"half a warp shuffles", SIM_DIVERGENT_SHUFFLE, {"divergent __shfl_xor_sync (tests/cuda/kernels.cu:", "has ended"}},
    {"half a mask", SIM_PARTIAL_MASK, {"with mask 0xffff: only whole warps are understood"}},
    {"global memory past the end", SIM_GLOBAL_PAST_END, {"bytes past the end of an allocation of 4096 bytes"}},
    {"an asynchronous copy not waited for", SIM_COPY_NOT_WAITED_FOR, {"ends while 1 of its asynchronous copies are under way"}},
};
enum { MISTAKES = sizeof mistakes / sizeof mistakes[0] };

static void make_mistake(const void *argument)
{
    sim_err(((const mistake_row *)argument)->mistake, 64, 0, 1, device(1024 * sizeof(float)));
}

static void test_mistake(void **state)
{
    const mistake_row *row = *state;
    char text[2048];
    dies(make_mistake, row, text, sizeof text);
    says(text, "cudasim: kernel mistake_kernel, block (0, 0, 0)");
    for (int i = 0; i < 4 && row->words[i]; i++) says(text, row->words[i]);
}

typedef struct {
    int threads, blocks;
    size_t shared;
    const char *words;
} launch_row;

static void launch(const void *argument)
{
    const launch_row *row = argument;
    sim_err(SIM_TWO_WRITERS, row->threads, row->shared, row->blocks, NULL);
}

static void test_launches(void **state)
{
    (void)state;
    static const launch_row rows[] = {
        {48, 1, 0, "a block of 48 threads: only whole warps"},
        {2048, 1, 0, "a block of (2048, 1, 1) threads"},
        {64, 0, 0, "a grid of (0, 1, 1) blocks"},
        {64, 1, 49 * 1024, "50176 bytes of dynamic shared memory; 49152 are allowed"},
        {64, 1, 48 * 1024, "shared array 'cell': 49408 bytes of shared memory, 49152 allowed"},
    };
    char text[2048];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        dies(launch, &rows[i], text, sizeof text);
        says(text, rows[i].words);
    }
}

static volatile float sink;

static void read_device_memory(const void *argument)
{
    (void)argument;
    float *memory = device(64);
    sink = memory[3];
}

static void test_host_reads_device_memory(void **state)
{
    (void)state;
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[8192];
    bool keys = false;
    while (file && fgets(line, sizeof line, file)) keys |= strstr(line, " ospke") != NULL;
    if (file) fclose(file);
    if (!keys) {
        printf("# SKIP: this processor has no protection keys\n");
        skip();
    }
    char text[2048];
    dies(read_device_memory, NULL, text, sizeof text);
    says(text, "host code touches device memory");
    says(text, "12 bytes into an allocation of 64");
}

/* The copy's source changes before the copy is known to have ended. */
static void change_pinned_memory(const void *argument)
{
    (void)argument;
    cudaStream_t stream;
    cudaEvent_t event;
    char *pinned = NULL, *to = device(16);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaMallocHost((void **)&pinned, 16);
    memset(pinned, 1, 16);
    cudaMemcpyAsync(to, pinned, 16, cudaMemcpyHostToDevice, stream);
    cudaEventRecord(event, stream);
    cudaEventSynchronize(event);
    pinned[0] = 2; /* after the event: allowed */
    cudaMemcpyAsync(to, pinned, 16, cudaMemcpyHostToDevice, stream);
    pinned[0] = 3;
    cudaStreamSynchronize(stream);
}

static void overrun(const void *argument)
{
    (void)argument;
    char *memory = device(100);
    cudaMemset(memory, 0, 101);
}

static void test_copies_from_host(void **state)
{
    (void)state;
    char text[2048];
    dies(change_pinned_memory, NULL, text, sizeof text);
    says(text, "changed while a copy of 16 bytes from it was under way");
    dies(overrun, NULL, text, sizeof text);
    says(text, "memset of: 101 bytes at");
}

static void test_no_memory(void **state)
{
    (void)state;
    size_t available, total;
    void *memory;
    cudaMemGetInfo(&available, &total);
    assert_int_equal(cudaMalloc(&memory, total + 1), cudaErrorMemoryAllocation);
    assert_null(memory);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    struct CMUnitTest tests[16 + MISTAKES] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_dynamic_shared),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_copies_from_host),
        cmocka_unit_test(test_host_reads_device_memory),
    };
    size_t count = 9;
    for (int i = 0; i < MISTAKES; i++)
        tests[count++] = (struct CMUnitTest){mistakes[i].name, test_mistake, NULL, NULL, (void *)(uintptr_t)&mistakes[i]};
    return _cmocka_run_group_tests("the execution model", tests, count, NULL, NULL) != 0;
}
