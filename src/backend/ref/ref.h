/* The reference backend: every operator in double, written as its formula reads. It is the yardstick of all others and is never edited to
 * please a test. A = R = F64, memory is host memory, so that every tensor argument is an array of double. Contracts: <realign/backend.h>. */
#ifndef RA_BACKEND_REF_H
#define RA_BACKEND_REF_H
#include "../host.h"

/* memory.c */
void *ra_ref_alloc(ra_backend *b, size_t bytes);
void ra_ref_move(ra_backend *b, void *to, const void *from, size_t bytes);
void ra_ref_zero(ra_backend *b, void *memory, size_t bytes);
void ra_ref_cast(ra_backend *b, int64_t n, const void *x, void *y);

/* product.c */
void ra_ref_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc);
void *ra_ref_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw);
size_t ra_ref_packed_bytes(ra_backend *b, int64_t n, int64_t k);
void ra_ref_release_packed(ra_backend *b, void *packed);
void ra_ref_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                        bool accumulate, bool c_is_r, void *c, int64_t ldc);
void ra_ref_bias_add(ra_backend *b, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy);
void ra_ref_bias_grad(ra_backend *b, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias);
void ra_ref_add_scaled(ra_backend *b, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx);
void ra_ref_row_dot(ra_backend *b, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y, double *dot);
void ra_ref_row_dot_vector(ra_backend *b, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v, double *dot);

/* row.c */
void ra_ref_embed(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w, void *x);
void ra_ref_embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, void *dw);
void ra_ref_embed_dot(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, const void *g,
                      double *dot);
void ra_ref_gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y);
void ra_ref_scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x);

/* norm.c */
void ra_ref_rmsnorm(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps, void *y,
                    void *rstd);
void ra_ref_rmsnorm_add(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps,
                        void *sum, void *rstd);
void ra_ref_rmsnorm_grad(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, const void *rstd,
                         const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot);

/* attention.c */
void ra_ref_rope(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position, const void *cosine,
                 const void *sine, bool inverse, void *x, int64_t ldx);
void ra_ref_attention(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, void *out, void *lse);
void ra_ref_attention_prefixed(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                               const void *qkv, void *out);
void ra_ref_attention_grad(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                           const void *lse, const void *dout, void *dqkv);
void ra_ref_cache_store(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv, int64_t ldq, const int32_t *slot,
                        const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset);
void ra_ref_attention_cached(ra_backend *b, int32_t rows, const ra_attention *a, const void *q, int64_t ldq, const void *cache,
                             int64_t slot_stride, int64_t value_offset, const int32_t *slot, const int32_t *length, void *out);

/* glu.c */
void ra_ref_glu(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h);
void ra_ref_glu_grad(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh, void *dgate_up);

/* head.c */
void ra_ref_softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                           double *maximum, double *sum, double *target_logit);
void ra_ref_argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z, double *best, int32_t *token);
void ra_ref_softmax_grad(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                         const double *lse, const double *coefficient, void *dz);
void ra_ref_kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, double *maximum_ref,
                      double *sum_ref, double *weighted);
void ra_ref_kl_grad(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, const double *lse,
                    const double *lse_ref, const double *coefficient, void *dz);

/* optimiser.c */
double ra_ref_sum_squares(ra_backend *b, int64_t n, const void *x);
double ra_ref_dot(ra_backend *b, int64_t n, const void *x, const void *y);
void ra_ref_adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w);
void ra_ref_axpy(ra_backend *b, int64_t n, double s, const void *x, void *y);

#endif
