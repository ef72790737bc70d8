/* Matrix products by cuBLASLt. It is column-major: a row-major C = op(X) op(Y) is its C^T = op(Y)^T op(X)^T, so Y is its first operand, and what is
 * transposed here is transposed there. Descriptors and the algorithm it proposes are kept by shape. */
#include "cuda.h"

#include <realign/mem.h>

#include <cublasLt.h>
#include <stdio.h>
#include <string.h>

#define CUBLASLT(call) check((call), #call, __LINE__)
static void check(cublasStatus_t status, const char *call, int line)
{
    if (status != CUBLAS_STATUS_SUCCESS) ra_die("products.c:%d: %s: %s", line, call, cublasLtGetStatusString(status));
}

typedef struct {
    int64_t m, n, k, ldx, ldy, ldc;
    uint16_t align_x, align_y, align_c; /* bytes that the addresses are multiples of; algorithms depend on it */
    int8_t tx, ty, accumulate, c_is_r, used;
} shape_key;

typedef struct {
    shape_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t x, y, c;
    cublasLtMatmulAlgo_t algorithm;
} product;

enum { SLOTS = 4096, MOST = 2048, ALIGNED = 256 };
static const size_t workspace_bytes = (size_t)32 << 20; /* what NVIDIA recommends for Hopper */

struct ra_cuda_products {
    cublasLtHandle_t handle;
    cublasLtMatmulPreference_t preference;
    cublasComputeType_t compute;
    cudaDataType_t a;
    product slot[SLOTS];
    int count;
};

void ra_cuda_products_version(char *text, size_t bytes)
{
    size_t v = cublasLtGetVersion();
    snprintf(text, bytes, "cuBLASLt %zu.%zu", v / 10000, v / 100 % 100);
}

ra_err ra_cuda_products_open(ra_cuda_products **out, bool bf16, bool tf32)
{
    ra_cuda_products *p = ra_calloc(1, sizeof *p);
    cublasStatus_t status = cublasLtCreate(&p->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        ra_free(p);
        return ra_fail(RA_ERR_UNSUPPORTED, "cuBLASLt does not start: %s", cublasLtGetStatusString(status));
    }
    p->a = bf16 ? CUDA_R_16BF : CUDA_R_32F;
    p->compute = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    CUBLASLT(cublasLtMatmulPreferenceCreate(&p->preference));
    size_t most = workspace_bytes;
    CUBLASLT(cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
    /* Parts of a split sum are added in a step of their own, in float and in order: bitwise repeatable. */
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    CUBLASLT(cublasLtMatmulPreferenceSetAttribute(p->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                  sizeof reductions));
    *out = p;
    return RA_OK;
}

static void forget_all(ra_cuda_products *p)
{
    for (int i = 0; i < SLOTS; i++) {
        product *e = &p->slot[i];
        if (!e->key.used) continue;
        CUBLASLT(cublasLtMatmulDescDestroy(e->operation));
        CUBLASLT(cublasLtMatrixLayoutDestroy(e->x));
        CUBLASLT(cublasLtMatrixLayoutDestroy(e->y));
        CUBLASLT(cublasLtMatrixLayoutDestroy(e->c));
        memset(e, 0, sizeof *e);
    }
    p->count = 0;
}

void ra_cuda_products_close(ra_cuda_products *p)
{
    if (!p) return;
    forget_all(p);
    CUBLASLT(cublasLtMatmulPreferenceDestroy(p->preference));
    CUBLASLT(cublasLtDestroy(p->handle));
    ra_free(p);
}

/* A row-major (rows, columns) matrix as cuBLASLt sees it: (columns, rows). */
static cublasLtMatrixLayout_t layout_of(cudaDataType_t type, int64_t rows, int64_t columns, int64_t ld)
{
    cublasLtMatrixLayout_t layout;
    CUBLASLT(cublasLtMatrixLayoutCreate(&layout, type, (uint64_t)columns, (uint64_t)rows, ld));
    return layout;
}

static void set_transpose(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t which, bool transposed)
{
    cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    CUBLASLT(cublasLtMatmulDescSetAttribute(operation, which, &value, sizeof value));
}

static void set_alignment(ra_cuda_products *p, cublasLtMatmulPreferenceAttributes_t which, uint32_t bytes)
{
    CUBLASLT(cublasLtMatmulPreferenceSetAttribute(p->preference, which, &bytes, sizeof bytes));
}

static void make(ra_cuda_products *p, const shape_key *key, product *e)
{
    cudaDataType_t c = key->c_is_r ? CUDA_R_32F : p->a;
    CUBLASLT(cublasLtMatmulDescCreate(&e->operation, p->compute, CUDA_R_32F));
    set_transpose(e->operation, CUBLASLT_MATMUL_DESC_TRANSA, key->ty);
    set_transpose(e->operation, CUBLASLT_MATMUL_DESC_TRANSB, key->tx);
    e->x = key->tx ? layout_of(p->a, key->k, key->m, key->ldx) : layout_of(p->a, key->m, key->k, key->ldx);
    e->y = key->ty ? layout_of(p->a, key->n, key->k, key->ldy) : layout_of(p->a, key->k, key->n, key->ldy);
    e->c = layout_of(c, key->m, key->n, key->ldc);
    set_alignment(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key->align_y);
    set_alignment(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key->align_x);
    set_alignment(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key->align_c);
    set_alignment(p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key->align_c);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(p->handle, e->operation, e->y, e->x, e->c, e->c, p->preference, 1, &found, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
        ra_die("cuBLASLt has no product for (%lld, %lld) x (%lld, %lld), leading dimensions %lld, %lld, %lld, aligned to %u, %u, "
               "%u bytes: %s",
               (long long)key->m, (long long)key->k, (long long)key->k, (long long)key->n, (long long)key->ldx,
               (long long)key->ldy, (long long)key->ldc, key->align_x, key->align_y, key->align_c,
               cublasLtGetStatusString(status));
    }
    e->algorithm = found.algo;
    e->key = *key;
}

/* FNV-1a */
static uint64_t hash_key(const shape_key *key)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++) h = (h ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    return h;
}

static const product *find(ra_cuda_products *p, const shape_key *key)
{
    uint64_t h = hash_key(key);
    for (uint64_t i = h;; i++) {
        product *e = &p->slot[i % SLOTS];
        if (e->key.used && memcmp(&e->key, key, sizeof *key) == 0) return e;
        if (e->key.used) continue;
        if (p->count == MOST) {
            forget_all(p);
            e = &p->slot[h % SLOTS];
        }
        p->count++;
        make(p, key, e);
        return e;
    }
}

/* The largest power of two that divides the address, up to ALIGNED. */
static uint16_t alignment_of(const void *address)
{
    uintptr_t at = (uintptr_t)address | ALIGNED;
    return (uint16_t)(at & -at);
}

void ra_cuda_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                  const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    if (m == 0 || n == 0) return;
    if (k == 0) {
        size_t size = c_is_r ? b->r_size : b->a_size;
        if (!accumulate) RA_CUDA(cudaMemset2DAsync(c, (size_t)ldc * size, 0, (size_t)n * size, (size_t)m, s->stream));
        return;
    }
    shape_key key;
    memset(&key, 0, sizeof key); /* padding too: keys are compared as bytes */
    key.m = m, key.n = n, key.k = k, key.ldx = ldx, key.ldy = ldy, key.ldc = ldc;
    key.align_x = alignment_of(x), key.align_y = alignment_of(y), key.align_c = alignment_of(c);
    key.tx = tx == RA_TRANSPOSE, key.ty = ty == RA_TRANSPOSE, key.accumulate = accumulate, key.c_is_r = c_is_r, key.used = 1;
    const product *e = find(s->products, &key);
    const float one = 1, beta = accumulate ? 1 : 0;
    CUBLASLT(cublasLtMatmul(s->products->handle, e->operation, &one, y, e->y, x, e->x, &beta, c, e->c, c, e->c, &e->algorithm,
                            ra_cuda_workspace(b, workspace_bytes), workspace_bytes, s->stream));
}

/* cuBLASLt reads W as fast as any copy of it. */
void *ra_cuda_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw)
{
    (void)b, (void)n, (void)k, (void)w, (void)ldw;
    return NULL;
}

size_t ra_cuda_packed_bytes(ra_backend *b, int64_t n, int64_t k)
{
    (void)b, (void)n, (void)k;
    return 0;
}

void ra_cuda_release_packed(ra_backend *b, void *packed)
{
    (void)b, (void)packed;
}

void ra_cuda_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                         bool accumulate, bool c_is_r, void *c, int64_t ldc)
{
    (void)b, (void)m, (void)n, (void)k, (void)x, (void)ldx, (void)packed, (void)accumulate, (void)c_is_r, (void)c, (void)ldc;
    ra_die("cuda packs no weights: there is nothing to multiply with");
}
