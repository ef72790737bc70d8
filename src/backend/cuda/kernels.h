/* Launchers of the CUDA kernels, callable from C: `ra_cuda_<operator>` is the operator of <realign/backend.h> of that name on a stream, for A = `a`
 * (RA_DTYPE_BF16 or RA_DTYPE_F32) and R = float. Every array is device memory. They return once the kernels are queued; a failed launch is fatal.
 * Where a launcher takes a workspace it is device memory of at least ra_cuda_<operator>_workspace bytes, 16-byte aligned, which the next launch on
 * the same stream may use again. Nothing is launched where there are no rows or no columns. */
#ifndef RA_CUDA_KERNELS_H
#define RA_CUDA_KERNELS_H
#include "attention_plan.h"

#include <cuda_runtime_api.h>
#ifdef __cplusplus
extern "C" {
#endif
#include <realign/backend.h>

/* What every launcher that takes a workspace begins with. */
static inline void ra_cuda_check_workspace(const char *launcher, size_t bytes, size_t needed)
{
    if (bytes < needed) ra_die("%s: a workspace of %zu bytes, and %zu are needed", launcher, bytes, needed);
}

/* attention_*.cu; the plan's image is device memory, its counts are the host's. The workspaces hold floats. */
/* attention, where `prefix` is NULL, and attention_prefixed, where `lse` is NULL */
void ra_cuda_attention(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, const ra_attention *shape,
                       const ra_cached_prefix *prefix, const void *qkv, void *out, void *lse);
void ra_cuda_attention_grad(cudaStream_t stream, ra_dtype a, const ra_attention_plan *plan, int32_t rows,
                            const ra_attention *shape, const void *qkv, const void *out, const void *lse, const void *dout,
                            void *dqkv, void *workspace, size_t bytes);
size_t ra_cuda_attention_grad_workspace(int32_t rows, const ra_attention *shape); /* 4 bytes a row and head */
void ra_cuda_cache_store(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *qkv, int64_t ldq,
                         const int32_t *slot, const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset);
/* No sequence is longer than the positions between the keys and the values of a slot. */
void ra_cuda_attention_cached(cudaStream_t stream, ra_dtype a, int32_t rows, const ra_attention *shape, const void *q,
                              int64_t ldq, const void *cache, int64_t slot_stride, int64_t value_offset, const int32_t *slot,
                              const int32_t *length, void *out, void *workspace, size_t bytes);
size_t ra_cuda_attention_cached_workspace(int32_t rows, const ra_attention *shape, int64_t value_offset);

/* cast.cu */
void ra_cuda_cast_to_a(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, void *y);
void ra_cuda_cast_to_r(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, void *y);
void ra_cuda_axpy(cudaStream_t stream, ra_dtype a, int64_t n, double s, const void *x, void *y);
void ra_cuda_add_scaled(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx);
void ra_cuda_bias_add(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy);
void ra_cuda_bias_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias,
                       void *workspace, size_t bytes);
size_t ra_cuda_bias_grad_workspace(int64_t rows, int64_t n); /* at most 1 KiB a column */

/* dots.cu; sum_squares and dot leave their result in *result, device memory too */
void ra_cuda_row_dot(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, double s, const void *x, int64_t ldx,
                     const void *y, double *dot);
void ra_cuda_row_dot_vector(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v,
                            double *dot);
void ra_cuda_sum_squares(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, double *result, void *workspace,
                         size_t bytes);
void ra_cuda_dot(cudaStream_t stream, ra_dtype a, int64_t n, const void *x, const void *y, double *result, void *workspace,
                 size_t bytes);
size_t ra_cuda_sum_squares_workspace(int64_t n);
size_t ra_cuda_dot_workspace(int64_t n);

/* embed.cu; a negative token of embed_grad and embed_dot is passed over */
void ra_cuda_embed(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w,
                   void *x);
void ra_cuda_embed_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const int32_t *token, double scale,
                        const void *dx, void *dw, void *workspace, size_t bytes);
size_t ra_cuda_embed_grad_workspace(int64_t rows, int64_t h); /* 8 bytes a row */
void ra_cuda_embed_dot(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const int32_t *token, double scale,
                       const void *dx, const void *g, double *dot);

/* gather.cu; a negative row of scatter_add_rows is passed over */
void ra_cuda_gather_rows(cudaStream_t stream, ra_dtype a, int64_t n, int64_t h, const int32_t *row, const void *x, void *y);
void ra_cuda_scatter_add_rows(cudaStream_t stream, ra_dtype a, int64_t n, int64_t h, const int32_t *row, const void *y, void *x,
                              void *workspace, size_t bytes);
size_t ra_cuda_scatter_add_rows_workspace(int64_t n, int64_t h); /* 8 bytes a row */

/* glu.cu */
void ra_cuda_glu(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h);
void ra_cuda_glu_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh,
                      void *dgate_up);

/* norm.cu */
void ra_cuda_rmsnorm(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                     double eps, void *y, void *rstd);
void ra_cuda_rmsnorm_add(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                         double eps, void *sum, void *rstd);
/* the workspace is used where dw is not NULL */
void ra_cuda_rmsnorm_grad(cudaStream_t stream, ra_dtype a, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one,
                          const void *rstd, const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot,
                          void *workspace, size_t bytes);
size_t ra_cuda_rmsnorm_grad_workspace(int64_t rows, int64_t h); /* 8.3 MiB for h <= 8192, whatever the rows */

/* optimiser.cu */
void ra_cuda_adamw(cudaStream_t stream, ra_dtype a, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w);

/* peer_sum.cu: values[i] <- the sum over r of part[r < mine ? r : r - 1][i], values[i] itself for r = mine; parts are `stride` floats apart */
void ra_cuda_sum_parts(cudaStream_t stream, int64_t n, int parts, int mine, const float *part, int64_t stride, float *values);

/* rope.cu */
void ra_cuda_rope(cudaStream_t stream, ra_dtype a, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position,
                  const void *cosine, const void *sine, bool inverse, void *x, int64_t ldx);

/* softmax.cu */
void ra_cuda_softmax_update(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                            const int32_t *target, double *maximum, double *sum, double *target_logit);
void ra_cuda_argmax_update(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, int64_t v0, const void *z, double *best,
                           int32_t *token);
void ra_cuda_softmax_grad(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z,
                          const int32_t *target, const double *lse, const double *coefficient, void *dz);
void ra_cuda_kl_update(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                       double *maximum_ref, double *sum_ref, double *weighted);
void ra_cuda_kl_grad(cudaStream_t stream, ra_dtype a, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref,
                     const double *lse, const double *lse_ref, const double *coefficient, void *dz);

#ifdef __cplusplus
}
#endif
#endif
