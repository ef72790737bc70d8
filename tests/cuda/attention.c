/* The attention kernels against the reference on the packs that break things: single segments of every length around a tile's edges, forests whose
 * segments do not stand in preorder, windows, soft caps, groups of 1 to 12 heads, every size of head, pointers off their alignment; on several schedules of
 * the execution model, with the same bits each time. A tree's bits are the same alone and among others. */
#include "../../src/backend/cuda/kernels.h"
#include "support/op_run.h"
#include "support/support.h"

#include <realign/mem.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 77, SCHEDULES = 2 };

/* (parent, rows) of each segment */
typedef int32_t forest[OP_MAX_SEGMENTS][2];
#define ONE(rows)   \
    {               \
        {-1, rows}, \
        {           \
            0, -1   \
        }           \
    }
static const forest typical = {{-1, 60}, {0, 120}, {0, 125}, {0, -1}};
static const forest crossed = {{-1, 20}, {0, 17}, {0, 33}, {1, 30}, {2, 5},
                               {1, 1},   {-1, 3}, {6, 70}, {6, 9},  {0, -1}}; /* 3 does not follow 1 */
static const forest deep = {{-1, 9}, {0, 3}, {0, 8}, {1, 2}, {1, 11}, {3, 1}, {3, 6}, {5, 0}, {7, 4}, {5, 16}, {0, -1}};

typedef struct {
    const forest *trees;
    int32_t rows; /* of a single segment, where trees is NULL */
    int32_t heads, kv_heads, head_dim;
    double softcap;
    int32_t window, shift; /* elements by which arrays begin off their alignment */
    int32_t prefix;        /* positions of each tree in the cache; forward only */
    int32_t jump;          /* position that every 11th row skips ahead to */
} attention_case;

/* attention_simple.cu, in both precisions */
static const attention_case plain_cases[] = {
    {&crossed, 0, 3, 1, 16, 0, 0, 0, 0, 0},  {&deep, 0, 4, 1, 24, 0, 5, 0, 0, 0},     {&crossed, 0, 7, 1, 6, 30, 0, 0, 0, 0},
    {&deep, 0, 2, 1, 80, 30, 0, 0, 0, 0},    {NULL, 67, 1, 1, 96, 0, 20, 0, 0, 3},    {NULL, 33, 8, 1, 10, 2, 0, 0, 0, 0},
    {&deep, 0, 2, 1, 18, 0, 0, 1, 0, 0},     {NULL, 35, 1, 1, 250, 0, 0, 0, 0, 0},    {NULL, 1, 3, 1, 32, 0, 0, 0, 0, 0},
    {NULL, 129, 1, 1, 16, 0, 0, 0, 0, 0},    {NULL, 200, 1, 1, 8, 0, 50, 0, 0, 2},    {&typical, 0, 1, 1, 8, 0, 0, 0, 0, 0},
    {&crossed, 0, 4, 2, 24, 0, 0, 0, 37, 0}, {&deep, 0, 2, 1, 40, 10, 12, 0, 100, 0},
};

/* Tensor cores, in bf16 */
static const attention_case tile_cases[] = {
    {NULL, 1, 3, 1, 64, 0, 0, 0, 0, 0},        {NULL, 15, 1, 1, 64, 0, 0, 0, 0, 0},     {NULL, 16, 1, 1, 128, 0, 0, 0, 0, 0},
    {NULL, 17, 1, 1, 256, 0, 0, 0, 0, 0},      {NULL, 63, 1, 1, 64, 0, 0, 0, 0, 0},     {NULL, 64, 1, 1, 64, 0, 0, 0, 0, 0},
    {NULL, 65, 2, 1, 128, 0, 0, 0, 0, 0},      {NULL, 127, 1, 1, 64, 0, 0, 0, 0, 0},    {NULL, 128, 1, 1, 64, 0, 0, 0, 0, 0},
    {NULL, 129, 1, 1, 64, 0, 0, 0, 0, 0},      {NULL, 200, 1, 1, 64, 0, 50, 0, 0, 0},   {NULL, 300, 1, 1, 64, 0, 100, 0, 0, 2},
    {NULL, 90, 1, 1, 128, 0, 1, 0, 0, 0},      {&typical, 0, 1, 1, 64, 0, 0, 0, 0, 0},  {&typical, 0, 1, 1, 128, 50, 70, 0, 0, 0},
    {&crossed, 0, 1, 1, 256, 30, 0, 0, 0, 0},  {&crossed, 0, 4, 1, 64, 0, 0, 0, 0, 0},  {NULL, 40, 8, 1, 64, 0, 0, 0, 0, 0},
    {&deep, 0, 3, 1, 128, 0, 13, 0, 0, 0},     {&deep, 0, 2, 1, 256, 0, 7, 0, 0, 5},    {&deep, 0, 7, 1, 64, 5, 9, 0, 0, 0},
    {&deep, 0, 2, 1, 64, 0, 0, 1, 0, 0}, /* no 16-byte accesses */
    {&crossed, 0, 3, 1, 64, 0, 0, 0, 64, 0},   {&deep, 0, 2, 2, 128, 20, 40, 0, 70, 0}, {&deep, 0, 2, 1, 256, 0, 0, 0, 3, 0},
    {&crossed, 0, 2, 1, 64, 0, 12, 0, 100, 0},
};

/* An array in both memories. */
typedef struct {
    int64_t n;
    double *value; /* as the type holds it */
    char *device;  /* of the allocation; the array begins `lead` bytes in */
    size_t lead;
} array;

static ra_dtype tested;

static void must(cudaError_t status)
{
    if (status != cudaSuccess) ra_die("%s", cudaGetErrorString(status));
}

static void *memory_of(const array *x)
{
    return x->device + x->lead;
}

static array empty(int64_t n, int32_t shift, ra_dtype type)
{
    array x = {.n = n, .value = ra_calloc((size_t)n, sizeof(double)), .lead = (size_t)shift * ra_dtype_size(type)};
    must(cudaMalloc((void **)&x.device, (size_t)n * ra_dtype_size(type) + x.lead));
    must(cudaMemset(x.device, 0x7f, (size_t)n * ra_dtype_size(type) + x.lead));
    return x;
}

static array drawn(ra_rng *rng, int64_t n, int32_t shift, double scale)
{
    array x = empty(n, shift, tested);
    size_t bytes = (size_t)n * ra_dtype_size(tested);
    void *held = ra_alloc(1, bytes);
    for (int64_t i = 0; i < n; i++) x.value[i] = scale * ra_rng_normal(rng);
    ra_dtype_convert(tested, held, RA_DTYPE_F64, x.value, n);
    ra_dtype_convert(RA_DTYPE_F64, x.value, tested, held, n);
    must(cudaMemcpy(memory_of(&x), held, bytes, cudaMemcpyHostToDevice));
    ra_free(held);
    return x;
}

static int32_t *placed(const int32_t *host, int64_t n)
{
    void *memory = NULL;
    must(cudaMalloc(&memory, (size_t)n * sizeof *host));
    must(cudaMemcpy(memory, host, (size_t)n * sizeof *host, cudaMemcpyHostToDevice));
    return memory;
}

static void release(array *x)
{
    must(cudaFree(x->device));
    ra_free(x->value);
}

static void *bytes_of(const array *x, ra_dtype type)
{
    void *held = ra_alloc((size_t)x->n, ra_dtype_size(type));
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(held, memory_of(x), (size_t)x->n * ra_dtype_size(type), cudaMemcpyDeviceToHost));
    return held;
}

/* |x - y| <= largest (|y| + rms y) for each element, and the same of all in the L2 norm with `mean`. */
static int wrong(const char *what, const array *x, ra_dtype type, double largest, double mean)
{
    void *held = bytes_of(x, type);
    double *got = ra_alloc((size_t)x->n, sizeof *got), squares = 0, errors = 0, worst = 0;
    ra_dtype_convert(RA_DTYPE_F64, got, type, held, x->n);
    for (int64_t i = 0; i < x->n; i++) squares += x->value[i] * x->value[i];
    double rms = sqrt(squares / (double)x->n);
    bool number = true;
    for (int64_t i = 0; i < x->n; i++) {
        double error = fabs(got[i] - x->value[i]);
        number = number && isfinite(error);
        errors += error * error;
        worst = fmax(worst, error / (fabs(x->value[i]) + rms + 1e-30));
    }
    double l2 = sqrt(errors / (squares + 1e-30));
    bool good = number && worst <= largest && l2 <= mean;
    printf("#   %s: largest %.2e of %.0e, L2 %.2e of %.0e%s\n", what, worst, largest, l2, mean, good ? "" : "  <- wrong");
    ra_free(held);
    ra_free(got);
    return !good;
}

/* The bits of x against `before`, which takes them the first time. */
static int changed(const char *what, const array *x, ra_dtype type, void **before)
{
    void *now = bytes_of(x, type);
    bool same = !*before || memcmp(now, *before, (size_t)x->n * ra_dtype_size(type)) == 0;
    if (!same) printf("#   %s: another schedule gives other bits\n", what);
    ra_free(*before);
    *before = now;
    return !same;
}

static ra_pack pack_of(const attention_case *c)
{
    forest one = ONE(0);
    one[0][1] = c->rows;
    ra_pack pack = op_pack(c->trees ? *c->trees : one);
    int32_t ahead = 0;
    for (int32_t t = 0; t < pack.rows; t++) {
        if (c->jump && t % 11 == 10) ahead += c->jump;
        pack.position[t] += ahead + c->prefix;
    }
    return pack;
}

static ra_attention_plan place(const ra_pack *pack, void **device)
{
    void *memory = ra_alloc(1, ra_attention_plan_bytes(pack->rows, pack->segments));
    ra_attention_plan plan = ra_attention_plan_build(pack, memory);
    must(cudaMalloc(device, ra_attention_plan_image(&plan)));
    must(cudaMemcpy(*device, memory, ra_attention_plan_image(&plan), cudaMemcpyHostToDevice));
    ra_free(memory);
    return ra_attention_plan_at(&plan, *device);
}

static ra_attention attention_of(const attention_case *c)
{
    return (ra_attention){c->heads, c->kv_heads, c->head_dim, 1 / sqrt(c->head_dim), c->softcap, c->window};
}

static void describe(const attention_case *c, const ra_pack *pack)
{
    printf("# %s, %d rows in %d segments, heads %d/%d of %d, cap %g, window %d, shift %d, prefix %d, jump %d; seed %d\n",
           ra_dtype_name(tested), pack->rows, pack->segments, c->heads, c->kv_heads, c->head_dim, c->softcap, c->window, c->shift,
           c->prefix, c->jump, SEED);
}

static ra_backend *reference(void)
{
    ra_backend *ref = NULL;
    CHECK_OK(ra_backend_open("ref", "fp64", 0, &ref));
    return ref;
}

/* bf16 kernels round the softmax and its gradient once more, before the products that they enter: 2^-9 of each term. */
static double largest_error(void)
{
    return tested == RA_DTYPE_BF16 ? 4e-2 : 1e-5;
}

static double mean_error(void)
{
    return tested == RA_DTYPE_BF16 ? 4e-3 : 2e-6;
}

static int run_forward_backward(const attention_case *c)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    ra_pack pack = pack_of(c);
    ra_attention a = attention_of(c);
    int64_t rows = pack.rows, width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim,
            out_width = (int64_t)c->heads * c->head_dim;
    array qkv = drawn(&rng, rows * width, c->shift, 1.3), dout = drawn(&rng, rows * out_width, c->shift, 1);
    array out = empty(rows * out_width, c->shift, tested), dqkv = empty(rows * width, c->shift, tested),
          lse = empty(rows * c->heads, 0, RA_DTYPE_F32);
    void *image = NULL, *before[3] = {NULL, NULL, NULL}, *workspace = NULL;
    ra_attention_plan plan = place(&pack, &image);
    ra_backend *ref = reference();
    ref->ops->attention(ref, &pack, &a, qkv.value, out.value, lse.value);
    ref->ops->attention_grad(ref, &pack, &a, qkv.value, out.value, lse.value, dout.value, dqkv.value);
    ra_backend_close(ref);
    size_t bytes = ra_cuda_attention_grad_workspace(pack.rows, &a);
    must(cudaMalloc(&workspace, bytes));
    describe(c, &pack);
    int bad = 0;
    for (int i = 0; i < SCHEDULES; i++) {
        ra_cuda_attention(NULL, tested, &plan, &a, NULL, memory_of(&qkv), memory_of(&out), memory_of(&lse));
        ra_cuda_attention_grad(NULL, tested, &plan, pack.rows, &a, memory_of(&qkv), memory_of(&out), memory_of(&lse),
                               memory_of(&dout), memory_of(&dqkv), workspace, bytes);
        bad += changed("out", &out, tested, &before[0]) + changed("lse", &lse, RA_DTYPE_F32, &before[1]) +
               changed("dqkv", &dqkv, tested, &before[2]);
    }
    bad += wrong("out", &out, tested, largest_error(), mean_error()) + wrong("lse", &lse, RA_DTYPE_F32, 1e-5, 2e-6) +
           wrong("dqkv", &dqkv, tested, largest_error(), mean_error());
    for (int i = 0; i < 3; i++) ra_free(before[i]);
    must(cudaFree(workspace));
    must(cudaFree(image));
    array *all[] = {&qkv, &dout, &out, &dqkv, &lse};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) release(all[i]);
    op_pack_free(&pack);
    return bad;
}

/* One slot a tree, handed out backwards; the last tree has a shorter prefix. */
static int run_prefixed(const attention_case *c)
{
    ra_rng rng = ra_rng_make(SEED, RA_STREAM_TEST);
    ra_pack pack = pack_of(c);
    ra_attention a = attention_of(c);
    int64_t rows = pack.rows, width = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim,
            out_width = (int64_t)c->heads * c->head_dim;
    int64_t value_offset = (int64_t)(c->prefix + 5) * c->kv_heads * c->head_dim, stride = 2 * value_offset;
    array qkv = drawn(&rng, rows * width, c->shift, 1.3), cache = drawn(&rng, pack.trees * stride, 0, 1.3),
          out = empty(rows * out_width, c->shift, tested);
    int32_t slot[OP_MAX_SEGMENTS], length[OP_MAX_SEGMENTS];
    for (int32_t t = 0; t < pack.trees; t++) {
        slot[t] = pack.trees - 1 - t;
        length[t] = c->prefix - (t > 0 ? 2 : 0);
    }
    ra_cached_prefix prefix = {cache.value, stride, value_offset, slot, length};
    ra_backend *ref = reference();
    ref->ops->attention_prefixed(ref, &pack, &a, &prefix, qkv.value, out.value);
    ra_backend_close(ref);
    void *image = NULL, *before = NULL;
    ra_attention_plan plan = place(&pack, &image);
    int32_t *device_slot = placed(slot, pack.trees), *device_length = placed(length, pack.trees);
    prefix = (ra_cached_prefix){memory_of(&cache), stride, value_offset, device_slot, device_length};
    describe(c, &pack);
    int bad = 0;
    for (int i = 0; i < SCHEDULES; i++) {
        ra_cuda_attention(NULL, tested, &plan, &a, &prefix, memory_of(&qkv), memory_of(&out), NULL);
        bad += changed("out", &out, tested, &before);
    }
    bad += wrong("out", &out, tested, largest_error(), mean_error());
    ra_free(before);
    must(cudaFree(image));
    must(cudaFree(device_slot));
    must(cudaFree(device_length));
    array *all[] = {&qkv, &cache, &out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) release(all[i]);
    op_pack_free(&pack);
    return bad;
}

static int run_cases(const attention_case *c, size_t n)
{
    int bad = 0;
    for (size_t i = 0; i < n; i++) bad += c[i].prefix ? run_prefixed(&c[i]) : run_forward_backward(&c[i]);
    return bad;
}

static void test_plain(void **state)
{
    tested = *(const ra_dtype *)*state;
    assert_int_equal(run_cases(plain_cases, sizeof plain_cases / sizeof plain_cases[0]), 0);
}

static void test_tiles(void **state)
{
    tested = *(const ra_dtype *)*state;
    assert_int_equal(run_cases(tile_cases, sizeof tile_cases / sizeof tile_cases[0]), 0);
}

/* Rows of slots, around the edges of a chunk of keys; `pad` elements between the rows of q and between the slots. */
typedef struct {
    int32_t heads, kv_heads, head_dim;
    double softcap;
    int32_t window, longest, pad;
} cached_case;

static const cached_case cached_cases[] = {
    {1, 1, 64, 0, 0, 30, 0},      {3, 1, 128, 0, 0, 256, 0},  {14, 2, 64, 0, 0, 257, 8}, {4, 1, 256, 50, 0, 300, 0},
    {12, 1, 24, 0, 300, 600, 16}, {2, 2, 80, 0, 0, 520, 0},   {8, 1, 96, 30, 7, 40, 0},  {3, 3, 20, 0, 0, 270, 3},
    {6, 2, 128, 0, 256, 800, 1},  {9, 1, 16, 0, 255, 513, 0},
};

/* The last row sees `shortest` keys, 1 or none. */
static int run_cached(const cached_case *c, int32_t shortest)
{
    enum { ROWS = 3 };
    ra_rng rng = ra_rng_make(SEED + 100 + (uint64_t)(c - cached_cases), RA_STREAM_TEST);
    ra_attention a = {c->heads, c->kv_heads, c->head_dim, 1 / sqrt(c->head_dim), c->softcap, c->window};
    int64_t width = (int64_t)c->kv_heads * c->head_dim, ldq = (int64_t)(c->heads + 2 * c->kv_heads) * c->head_dim + c->pad;
    int64_t value_offset = c->longest * width, stride = 2 * value_offset + c->pad;
    int32_t slot[ROWS] = {2, 0, 1}, length[ROWS] = {c->longest, 1 + c->longest / 3, shortest}, position[ROWS],
            none[ROWS] = {2, -1, 1};
    for (int i = 0; i < ROWS; i++) position[i] = length[i] > 0 ? length[i] - 1 : 0;
    array qkv = drawn(&rng, ROWS * ldq, 0, 1.3), cache = drawn(&rng, ROWS * stride, 0, 1.3),
          out = empty((int64_t)ROWS * c->heads * c->head_dim, 0, tested);
    int32_t *device_slot = placed(slot, ROWS), *device_length = placed(length, ROWS), *device_position = placed(position, ROWS),
            *device_none = placed(none, ROWS);
    ra_backend *ref = reference();
    ref->ops->cache_store(ref, ROWS, &a, qkv.value, ldq, none, position, cache.value, stride, value_offset);
    ref->ops->attention_cached(ref, ROWS, &a, qkv.value, ldq, cache.value, stride, value_offset, slot, length, out.value);
    ra_backend_close(ref);
    printf("# %s cached, heads %d/%d of %d, cap %g, window %d, longest %d, pad %d\n", ra_dtype_name(tested), c->heads,
           c->kv_heads, c->head_dim, c->softcap, c->window, c->longest, c->pad);
    size_t bytes = ra_cuda_attention_cached_workspace(ROWS, &a, value_offset);
    void *workspace = NULL, *before = NULL;
    must(cudaMalloc(&workspace, bytes ? bytes : 1));
    ra_cuda_cache_store(NULL, tested, ROWS, &a, memory_of(&qkv), ldq, device_none, device_position, memory_of(&cache), stride,
                        value_offset);
    int bad = wrong("cache", &cache, tested, 0, 0);
    for (int i = 0; i < SCHEDULES; i++) {
        ra_cuda_attention_cached(NULL, tested, ROWS, &a, memory_of(&qkv), ldq, memory_of(&cache), stride, value_offset,
                                 device_slot, device_length, memory_of(&out), workspace, bytes);
        bad += changed("out", &out, tested, &before);
    }
    bad += wrong("out", &out, tested, tested == RA_DTYPE_BF16 ? 0.0045 : 1e-5, tested == RA_DTYPE_BF16 ? 2e-3 : 2e-6);
    ra_free(before);
    void *memory[] = {workspace, device_slot, device_length, device_position, device_none};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) must(cudaFree(memory[i]));
    array *all[] = {&qkv, &cache, &out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) release(all[i]);
    return bad;
}

static void test_cached(void **state)
{
    tested = *(const ra_dtype *)*state;
    int bad = 0;
    for (size_t i = 0; i < sizeof cached_cases / sizeof cached_cases[0]; i++) bad += run_cached(&cached_cases[i], 1);
    bad += run_cached(&cached_cases[0], 0); /* one chunk of keys */
    bad += run_cached(&cached_cases[9], 0); /* several */
    assert_int_equal(bad, 0);
}

/* The second of three trees, among the others and in a pack of its own. */
static void test_bits_of_a_tree(void **state)
{
    tested = *(const ra_dtype *)*state;
    static const forest among = {{-1, 37}, {-1, 20}, {1, 70}, {1, 31}, {-1, 5}, {0, -1}},
                        alone = {{-1, 20}, {0, 70}, {0, 31}, {0, -1}};
    enum { BEFORE = 37, ROWS = 121, HEADS = 2, KV_HEADS = 1, HEAD_DIM = 64, WIDTH = (HEADS + 2 * KV_HEADS) * HEAD_DIM };
    ra_attention a = {HEADS, KV_HEADS, HEAD_DIM, 0.125, 0, 0};
    ra_rng rng = ra_rng_make(SEED + 200, RA_STREAM_TEST);
    size_t size = ra_dtype_size(tested);
    ra_pack packs[2] = {op_pack(among), op_pack(alone)};
    array qkv = drawn(&rng, packs[0].rows * WIDTH, 0, 1.3), dout = drawn(&rng, packs[0].rows * HEADS * HEAD_DIM, 0, 1);
    void *got[2][3];
    for (int i = 0; i < 2; i++) {
        int64_t rows = packs[i].rows, skip = i ? BEFORE : 0;
        array out = empty(rows * HEADS * HEAD_DIM, 0, tested), lse = empty(rows * HEADS, 0, RA_DTYPE_F32),
              dqkv = empty(rows * WIDTH, 0, tested);
        void *image = NULL, *workspace = NULL;
        ra_attention_plan plan = place(&packs[i], &image);
        size_t bytes = ra_cuda_attention_grad_workspace(packs[i].rows, &a);
        must(cudaMalloc(&workspace, bytes));
        const char *x = (char *)memory_of(&qkv) + (size_t)(skip * WIDTH) * size,
                   *dy = (char *)memory_of(&dout) + (size_t)(skip * HEADS * HEAD_DIM) * size;
        ra_cuda_attention(NULL, tested, &plan, &a, NULL, x, memory_of(&out), memory_of(&lse));
        ra_cuda_attention_grad(NULL, tested, &plan, packs[i].rows, &a, x, memory_of(&out), memory_of(&lse), dy, memory_of(&dqkv),
                               workspace, bytes);
        got[i][0] = bytes_of(&out, tested);
        got[i][1] = bytes_of(&lse, RA_DTYPE_F32);
        got[i][2] = bytes_of(&dqkv, tested);
        must(cudaFree(image));
        must(cudaFree(workspace));
        array *all[] = {&out, &lse, &dqkv};
        for (int j = 0; j < 3; j++) release(all[j]);
        op_pack_free(&packs[i]);
    }
    const size_t row_bytes[3] = {HEADS * HEAD_DIM * size, HEADS * sizeof(float), WIDTH * size};
    for (int j = 0; j < 3; j++) {
        assert_memory_equal((char *)got[0][j] + BEFORE * row_bytes[j], got[1][j], ROWS * row_bytes[j]);
        ra_free(got[0][j]);
        ra_free(got[1][j]);
    }
    release(&qkv);
    release(&dout);
}

int main(void)
{
    static ra_dtype fp32 = RA_DTYPE_F32, bf16 = RA_DTYPE_BF16;
    const struct CMUnitTest tests[] = {
        {"packs in fp32", test_plain, NULL, NULL, &fp32},
        {"packs in bf16", test_plain, NULL, NULL, &bf16},
        {"packs on tensor cores", test_tiles, NULL, NULL, &bf16},
        {"the cache in fp32", test_cached, NULL, NULL, &fp32},
        {"the cache in bf16", test_cached, NULL, NULL, &bf16},
        {"a tree's bits in fp32", test_bits_of_a_tree, NULL, NULL, &fp32},
        {"a tree's bits in bf16", test_bits_of_a_tree, NULL, NULL, &bf16},
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
