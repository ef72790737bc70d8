/* The kernels' launchers, for the C side of the backend: the arguments of the operators (realign/backend.h), all arrays in device memory, `a` the
 * type A. They return before the work is done; errors of a launch are fatal. */
#ifndef RA_BACKEND_CUDA_KERNELS_H
#define RA_BACKEND_CUDA_KERNELS_H
#include "attention_plan.h"

#include <cuda_runtime_api.h>
#include <realign/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- attention_*.cu; the plan's image is in device memory, its counts are the host's ---- */
/* attention (prefix NULL) and attention_prefixed (lse NULL) */
void ra_cuda_attention(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                       const ra_cached_prefix *prefix, const void *qkv, void *out, float *lse);
/* delta: (rows, heads), work space */
void ra_cuda_attention_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, int32_t rows, const ra_attention *shape,
                            const void *qkv, const void *out, const float *lse, const void *dout, void *dqkv, float *delta);
void ra_cuda_cache_store(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *qkv, int64_t ldq,
                         const int32_t *slot, const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset);
/* Floats of work space that attention_cached takes. No sequence is longer than the positions between a slot's keys and its values. */
size_t ra_cuda_attention_cached_space(int32_t rows, const ra_attention *shape, int64_t value_offset);
void ra_cuda_attention_cached(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *q, int64_t ldq,
                              const void *cache, int64_t slot_stride, int64_t value_offset, const int32_t *slot, const int32_t *length,
                              void *out, float *space);

#ifdef __cplusplus
}
#endif
#endif
