/* Kernels for tests/cuda/tensor_cores.c: one warp, pointers are device memory, bf16 as its 16 bits. */
#ifndef TESTS_CUDA_TENSOR_CORES_H
#define TESTS_CUDA_TENSOR_CORES_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* c (32, 4) += what mma_multiply makes of the fragments a (32, 4) and b (32, 2) of the lanes */
void tensor_multiply(const uint32_t *a, const uint32_t *b, float *c);
/* r (32, 4) <- the words that mma_load, or mma_load_transposed, gives each lane of the matrices in x (32, 8): lane i names row i */
void tensor_load(int transposed, const uint16_t *x, uint32_t *r);
/* z (16, 64) = (X Y^T) W, X (16, 64), Y (32, 64), W (32, 64), X Y^T rounded to bf16; rows from `rows` on read as zeros and are not stored */
void tensor_tiles(const uint16_t *x, const uint16_t *y, const uint16_t *w, int rows, uint16_t *z);

#ifdef __cplusplus
}
#endif
#endif
