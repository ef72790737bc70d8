/* The cpu backend's private face: its state, and the tables of its two precisions. */
#ifndef RA_CPU_H
#define RA_CPU_H
#include "../host.h"

typedef struct ra_cpu_products ra_cpu_products;
typedef struct ra_cpu_wide ra_cpu_wide;

typedef struct {
    int threads;
    ra_cpu_products *products; /* oneDNN engine, stream and primitives by shape */
    ra_cpu_wide *wide;         /* bf16 operands in float32; NULL where products take them as they are */
} ra_cpu_state;

extern const struct ra_backend_ops ra_cpu_ops_f32;
extern const struct ra_backend_ops ra_cpu_ops_bf16;

/* products.c */
ra_err ra_cpu_products_open(ra_cpu_products **out);
void ra_cpu_products_close(ra_cpu_products *p);
const char *ra_cpu_products_version(void);
/* Whether oneDNN has a bf16 product for this processor, native or emulated (AVX-512 without bf16 instructions). */
bool ra_cpu_products_have_bf16(const ra_cpu_products *p);
/* Tried out on a few shapes: oneDNN's AVX2 products choose the order of their sums by the number of rows, its AVX-512 ones do not. */
bool ra_cpu_products_rows_independent(ra_backend *b);
void ra_cpu_gemm(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc);
void *ra_cpu_pack_weights(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw);
void ra_cpu_release_packed(ra_backend *b, void *packed);
size_t ra_cpu_packed_bytes(ra_backend *b, int64_t n, int64_t k);
void ra_cpu_gemm_packed(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                        bool accumulate, bool c_is_r, void *c, int64_t ldc);

/* wide.c */
ra_cpu_wide *ra_cpu_wide_new(void);
void ra_cpu_wide_free(ra_cpu_wide *w);
/* A dense (rows, n) float32 copy of bf16 x, kept in slot `which` (0, 1 or 2) until the slot's next use. */
const float *ra_cpu_widen(ra_cpu_wide *w, int which, int64_t rows, int64_t n, const void *x, int64_t ldx);
/* Dense (m, n) memory for a result (slot 2), with what bf16 `before` holds, or undefined where that is NULL. */
float *ra_cpu_wide_result(ra_cpu_wide *w, int64_t m, int64_t n, const void *before, int64_t ldc);
/* Rounds dense (m, n) float32 to bf16 c. */
void ra_cpu_narrow(int64_t m, int64_t n, const float *from, void *c, int64_t ldc);

/* vectors.c: operators on type R alone */
void *ra_cpu_alloc(ra_backend *b, size_t bytes);
void ra_cpu_copy(ra_backend *b, void *to, const void *from, size_t bytes);
void ra_cpu_zero(ra_backend *b, void *memory, size_t bytes);
double ra_cpu_sum_squares(ra_backend *b, int64_t n, const void *x);
double ra_cpu_dot(ra_backend *b, int64_t n, const void *x, const void *y);
void ra_cpu_adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w);
void ra_cpu_axpy(ra_backend *b, int64_t n, double s, const void *x, void *y);
void ra_cpu_gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y);
void ra_cpu_scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x);
void ra_cpu_embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, void *dw);
void ra_cpu_softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                           double *maximum, double *sum, double *target_logit);
void ra_cpu_argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z, double *best, int32_t *token);
void ra_cpu_kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, double *maximum_ref,
                      double *sum_ref, double *weighted);

#endif
