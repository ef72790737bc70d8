/* Products of the execution model: plain loops with float sums, column-major as cuBLASLt is. What the real library refuses or takes
 * for granted (leading dimensions, declared alignments, one allocation a matrix, workspace) is checked. */
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct cudasim_handle {
};
struct cudasim_operation {
    cublasComputeType_t compute;
    bool transposed[2];
};
struct cudasim_layout {
    cudaDataType_t type;
    int64_t rows, columns, ld;
};
struct cudasim_preference {
    size_t workspace;
    uint32_t reductions, alignment[4]; /* of A, B, C, D */
};

static size_t size_of(cudaDataType_t type)
{
    return type == CUDA_R_16BF ? sizeof(__nv_bfloat16) : sizeof(float);
}

/* TF32 keeps 10 bits of the mantissa, rounded to nearest, ties away from zero. */
static float rounded_to_tf32(float x)
{
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}

static float element(const void *matrix, const cudasim_layout *layout, int64_t row, int64_t column)
{
    int64_t i = row + column * layout->ld;
    return layout->type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)matrix)[i]) : ((const float *)matrix)[i];
}

/* The lines of op(A), or the columns of op(B), one after the other: k neighbours are summed over. */
static std::vector<float> operand(const void *matrix, const cudasim_layout *layout, bool lines_are_columns, int64_t lines,
                                  int64_t k, bool tf32)
{
    std::vector<float> out((size_t)(lines * k));
    for (int64_t line = 0; line < lines; line++) {
        for (int64_t j = 0; j < k; j++) {
            float x = lines_are_columns ? element(matrix, layout, j, line) : element(matrix, layout, line, j);
            out[(size_t)(line * k + j)] = tf32 ? rounded_to_tf32(x) : x;
        }
    }
    return out;
}

static void refuse(const char *why, long long x, long long y)
{
    fprintf(stderr, "cudasim: cublasLtMatmul: %s (%lld, %lld)\n", why, x, y);
    abort();
}

static void check_matrix(const char *name, const void *matrix, const cudasim_layout *layout, uint64_t alignment)
{
    if ((uintptr_t)matrix % alignment != 0)
        refuse("a matrix is less aligned than the algorithm was asked for", (long long)((uintptr_t)matrix % alignment),
               (long long)alignment);
    cudasim::check_device_range(name, matrix,
                                (size_t)((layout->columns - 1) * layout->ld + layout->rows) * size_of(layout->type));
}

extern "C" {

size_t cublasLtGetVersion(void)
{
    return 130000;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
           : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                                   : "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cudasim_handle();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *operation, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *operation = new cudasim_operation{compute, {false, false}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation)
{
    delete operation;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
    operation->transposed[attribute - CUBLASLT_MATMUL_DESC_TRANSA] = *(const cublasOperation_t *)value == CUBLAS_OP_T;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows, uint64_t columns,
                                          int64_t ld)
{
    *layout = new cudasim_layout{type, (int64_t)rows, (int64_t)columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new cudasim_preference{0, 7, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes)
{
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
        if (bytes != sizeof preference->workspace) return CUBLAS_STATUS_INVALID_VALUE;
        memcpy(&preference->workspace, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    }
    if (bytes != sizeof(uint32_t)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK
               ? &preference->reductions
               : &preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
           value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* The shapes of op(A) op(B) = D fit together, and leading dimensions hold a column. */
static bool shapes_fit(const cudasim_operation *operation, const cudasim_layout *a, const cudasim_layout *b,
                       const cudasim_layout *d)
{
    int64_t m = operation->transposed[0] ? a->columns : a->rows, k = operation->transposed[0] ? a->rows : a->columns;
    int64_t n = operation->transposed[1] ? b->rows : b->columns, kb = operation->transposed[1] ? b->columns : b->rows;
    return m == d->rows && n == d->columns && k == kb && m > 0 && n > 0 && k > 0 && a->ld >= a->rows && b->ld >= b->rows &&
           d->ld >= d->rows;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int asked,
                                              cublasLtMatmulHeuristicResult_t *result, int *found)
{
    *found = 0;
    if (!shapes_fit(operation, a, b, d) || c != d || asked < 1) return CUBLAS_STATUS_INVALID_VALUE;
    bool types = a->type == b->type && (d->type == CUDA_R_32F || d->type == a->type) &&
                 (operation->compute == CUBLAS_COMPUTE_32F || a->type == CUDA_R_32F);
    if (!types) return CUBLAS_STATUS_NOT_SUPPORTED;
    /* A split sum added in place is not repeatable: here it is never what a caller wants. */
    if (preference->reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE) return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {};
    for (int i = 0; i < 4; i++) result->algo.data[i] = preference->alignment[i];
    result->algo.data[4] = result->workspaceSize = preference->workspace; /* all that it may */
    result->state = CUBLAS_STATUS_SUCCESS;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes, cudaStream_t)
{
    if (c != d || c_layout != d_layout || !shapes_fit(operation, a_layout, b_layout, d_layout))
        return CUBLAS_STATUS_INVALID_VALUE;
    check_matrix("cublasLtMatmul, A", a, a_layout, algorithm->data[0]);
    check_matrix("cublasLtMatmul, B", b, b_layout, algorithm->data[1]);
    check_matrix("cublasLtMatmul, D", d, d_layout, algorithm->data[3]);
    if (bytes < algorithm->data[4]) refuse("too little workspace", (long long)bytes, (long long)algorithm->data[4]);
    cudasim::check_device_range("cublasLtMatmul, workspace", workspace, algorithm->data[4]);
    cudasim::device_memory_opened open;
    memset(workspace, 0xff, std::min((size_t)algorithm->data[4], (size_t)4096)); /* nobody may rely on what it held */
    const float scale = *(const float *)alpha, keep = *(const float *)beta;
    const bool tf32 = operation->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const int64_t m = d_layout->rows, n = d_layout->columns, ld = d_layout->ld;
    const int64_t k = operation->transposed[0] ? a_layout->rows : a_layout->columns;
    const std::vector<float> left = operand(a, a_layout, operation->transposed[0], m, k, tf32);
    const std::vector<float> right = operand(b, b_layout, !operation->transposed[1], n, k, tf32);
    std::vector<float> sums((size_t)(m * n)); /* device memory is open to this thread alone */
#pragma omp parallel for
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            const float *x = &left[(size_t)(i * k)], *y = &right[(size_t)(j * k)];
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t l = 0; l < k; l++) sum += x[l] * y[l];
            sums[(size_t)(j * m + i)] = scale * sum;
        }
    }
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < m; i++) {
            float sum = sums[(size_t)(j * m + i)];
            if (keep != 0) sum += keep * element(d, d_layout, i, j);
            if (d_layout->type == CUDA_R_16BF) {
                ((__nv_bfloat16 *)d)[i + j * ld] = __float2bfloat16_rn(sum);
            } else {
                ((float *)d)[i + j * ld] = sum;
            }
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}
}
