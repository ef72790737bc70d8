/* The table of the CUDA backend: each operator queues its kernels on the backend's stream. Those that return a number wait for it. */
#include "cuda.h"
#include "kernels.h"
#include "pack.h"

#include <realign/mem.h>

#include <string.h>

#define STREAM(b) ra_cuda_state_of(b)->stream
/* The arguments with which every launcher begins. */
#define ON(b) STREAM(b), (b)->a

static void cast_to_a(ra_backend *b, int64_t n, const void *x, void *y)
{
    ra_cuda_cast_to_a(ON(b), n, x, y);
}

static void cast_to_r(ra_backend *b, int64_t n, const void *x, void *y)
{
    ra_cuda_cast_to_r(ON(b), n, x, y);
}

static void bias_add(ra_backend *b, int64_t rows, int64_t n, const void *bias, void *y, int64_t ldy)
{
    ra_cuda_bias_add(ON(b), rows, n, bias, y, ldy);
}

static void bias_grad(ra_backend *b, int64_t rows, int64_t n, const void *dy, int64_t ldy, void *dbias)
{
    size_t bytes = ra_cuda_bias_grad_workspace(rows, n);
    ra_cuda_bias_grad(ON(b), rows, n, dy, ldy, dbias, ra_cuda_workspace(b, bytes), bytes);
}

static void add_scaled(ra_backend *b, int64_t rows, int64_t n, double s, const void *y, void *x, int64_t ldx)
{
    ra_cuda_add_scaled(ON(b), rows, n, s, y, x, ldx);
}

static void row_dot(ra_backend *b, int64_t rows, int64_t n, double s, const void *x, int64_t ldx, const void *y, double *dot)
{
    ra_cuda_row_dot(ON(b), rows, n, s, x, ldx, y, dot);
}

static void row_dot_vector(ra_backend *b, int64_t rows, int64_t n, const void *x, int64_t ldx, const void *v, double *dot)
{
    ra_cuda_row_dot_vector(ON(b), rows, n, x, ldx, v, dot);
}

static void embed(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w, void *x)
{
    ra_cuda_embed(ON(b), rows, h, token, scale, w, x);
}

static void embed_grad(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, void *dw)
{
    size_t bytes = ra_cuda_embed_grad_workspace(rows, h);
    ra_cuda_embed_grad(ON(b), rows, h, token, scale, dx, dw, ra_cuda_workspace(b, bytes), bytes);
}

static void embed_dot(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *dx, const void *g,
                      double *dot)
{
    ra_cuda_embed_dot(ON(b), rows, h, token, scale, dx, g, dot);
}

static void rmsnorm(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps, void *y,
                    void *rstd)
{
    ra_cuda_rmsnorm(ON(b), rows, h, x, w, plus_one, eps, y, rstd);
}

static void rmsnorm_add(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, double eps,
                        void *sum, void *rstd)
{
    ra_cuda_rmsnorm_add(ON(b), rows, h, x, w, plus_one, eps, sum, rstd);
}

static void rmsnorm_grad(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, const void *rstd,
                         const void *dy, bool accumulate, void *dx, void *dw, const void *g, double *dot)
{
    size_t bytes = dw ? ra_cuda_rmsnorm_grad_workspace(rows, h) : 0;
    ra_cuda_rmsnorm_grad(ON(b), rows, h, x, w, plus_one, rstd, dy, accumulate, dx, dw, g, dot, ra_cuda_workspace(b, bytes),
                         bytes);
}

static void rope(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position, const void *cosine,
                 const void *sine, bool inverse, void *x, int64_t ldx)
{
    ra_cuda_rope(ON(b), rows, heads, head_dim, position, cosine, sine, inverse, x, ldx);
}

static void attention(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, void *out, void *lse)
{
    ra_cuda_attention(ON(b), ra_cuda_plan_of(pack), a, NULL, qkv, out, lse);
}

static void attention_prefixed(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                               const void *qkv, void *out)
{
    ra_cuda_attention(ON(b), ra_cuda_plan_of(pack), a, prefix, qkv, out, NULL);
}

static void attention_grad(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                           const void *lse, const void *dout, void *dqkv)
{
    size_t bytes = ra_cuda_attention_grad_workspace(pack->rows, a);
    ra_cuda_attention_grad(ON(b), ra_cuda_plan_of(pack), pack->rows, a, qkv, out, lse, dout, dqkv, ra_cuda_workspace(b, bytes),
                           bytes);
}

static void cache_store(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv, int64_t ldq, const int32_t *slot,
                        const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset)
{
    ra_cuda_cache_store(ON(b), rows, a, qkv, ldq, slot, position, cache, slot_stride, value_offset);
}

static void attention_cached(ra_backend *b, int32_t rows, const ra_attention *a, const void *q, int64_t ldq, const void *cache,
                             int64_t slot_stride, int64_t value_offset, const int32_t *slot, const int32_t *length, void *out)
{
    size_t bytes = ra_cuda_attention_cached_workspace(rows, a, value_offset);
    ra_cuda_attention_cached(ON(b), rows, a, q, ldq, cache, slot_stride, value_offset, slot, length, out,
                             ra_cuda_workspace(b, bytes), bytes);
}

static void glu(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, void *h)
{
    ra_cuda_glu(ON(b), rows, f, kind, gate_up, h);
}

static void glu_grad(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh, void *dgate_up)
{
    ra_cuda_glu_grad(ON(b), rows, f, kind, gate_up, dh, dgate_up);
}

static void gather_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x, void *y)
{
    ra_cuda_gather_rows(ON(b), n, h, row, x, y);
}

static void scatter_add_rows(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y, void *x)
{
    size_t bytes = ra_cuda_scatter_add_rows_workspace(n, h);
    ra_cuda_scatter_add_rows(ON(b), n, h, row, y, x, ra_cuda_workspace(b, bytes), bytes);
}

static void softmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                           double *maximum, double *sum, double *target_logit)
{
    ra_cuda_softmax_update(ON(b), n, nv, v0, softcap, z, target, maximum, sum, target_logit);
}

static void argmax_update(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z, double *best, int32_t *token)
{
    ra_cuda_argmax_update(ON(b), n, nv, v0, z, best, token);
}

static void softmax_grad(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                         const double *lse, const double *coefficient, void *dz)
{
    ra_cuda_softmax_grad(ON(b), n, nv, v0, softcap, z, target, lse, coefficient, dz);
}

static void kl_update(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, double *maximum_ref,
                      double *sum_ref, double *weighted)
{
    ra_cuda_kl_update(ON(b), n, nv, softcap, z, z_ref, maximum_ref, sum_ref, weighted);
}

static void kl_grad(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, const double *lse,
                    const double *lse_ref, const double *coefficient, void *dz)
{
    ra_cuda_kl_grad(ON(b), n, nv, softcap, z, z_ref, lse, lse_ref, coefficient, dz);
}

static double result_of(ra_backend *b)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    RA_CUDA(cudaMemcpyAsync(s->host_result, s->result, sizeof *s->result, cudaMemcpyDeviceToHost, s->stream));
    RA_CUDA(cudaStreamSynchronize(s->stream));
    return *s->host_result;
}

static double sum_squares(ra_backend *b, int64_t n, const void *x)
{
    if (n <= 0) return 0;
    size_t bytes = ra_cuda_sum_squares_workspace(n);
    ra_cuda_sum_squares(ON(b), n, x, ra_cuda_state_of(b)->result, ra_cuda_workspace(b, bytes), bytes);
    return result_of(b);
}

static double dot(ra_backend *b, int64_t n, const void *x, const void *y)
{
    if (n <= 0) return 0;
    size_t bytes = ra_cuda_dot_workspace(n);
    ra_cuda_dot(ON(b), n, x, y, ra_cuda_state_of(b)->result, ra_cuda_workspace(b, bytes), bytes);
    return result_of(b);
}

static void adamw(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w)
{
    ra_cuda_adamw(ON(b), n, h, g, m, v, w);
}

static void axpy(ra_backend *b, int64_t n, double s, const void *x, void *y)
{
    ra_cuda_axpy(ON(b), n, s, x, y);
}

static const struct ra_backend_ops cuda_ops = {
    .alloc = ra_cuda_alloc,
    .release = ra_cuda_release,
    .upload = ra_cuda_upload,
    .download = ra_cuda_download,
    .copy = ra_cuda_copy,
    .zero = ra_cuda_zero,
    .place_pack = ra_cuda_place_pack,
    .release_pack = ra_cuda_release_pack,
    .cast_to_a = cast_to_a,
    .cast_to_r = cast_to_r,
    .gemm = ra_cuda_gemm,
    .pack_weights = ra_cuda_pack_weights,
    .packed_bytes = ra_cuda_packed_bytes,
    .release_packed = ra_cuda_release_packed,
    .gemm_packed = ra_cuda_gemm_packed,
    .bias_add = bias_add,
    .bias_grad = bias_grad,
    .add_scaled = add_scaled,
    .row_dot = row_dot,
    .row_dot_vector = row_dot_vector,
    .embed = embed,
    .embed_grad = embed_grad,
    .embed_dot = embed_dot,
    .rmsnorm = rmsnorm,
    .rmsnorm_add = rmsnorm_add,
    .rmsnorm_grad = rmsnorm_grad,
    .rope = rope,
    .attention = attention,
    .attention_prefixed = attention_prefixed,
    .attention_grad = attention_grad,
    .cache_store = cache_store,
    .attention_cached = attention_cached,
    .glu = glu,
    .glu_grad = glu_grad,
    .gather_rows = gather_rows,
    .scatter_add_rows = scatter_add_rows,
    .softmax_update = softmax_update,
    .argmax_update = argmax_update,
    .softmax_grad = softmax_grad,
    .kl_update = kl_update,
    .kl_grad = kl_grad,
    .sum_squares = sum_squares,
    .dot = dot,
    .adamw = adamw,
    .axpy = axpy,
    .link_open = ra_cuda_link_open,
    .link_close = ra_cuda_link_close,
    .link_reduce_scatter = ra_cuda_link_reduce_scatter,
    .link_all_gather = ra_cuda_link_all_gather,
};

ra_err ra_backend_cuda_open(ra_backend *b, int threads)
{
    (void)threads;
    bool bf16 = strcmp(b->precision, "bf16") == 0;
    ra_cuda_state *s = ra_calloc(1, sizeof *s);
    s->b = b;
    ra_err err = ra_cuda_device_open(s);
    if (err == RA_OK) err = ra_cuda_products_open(&s->products, bf16, strcmp(b->precision, "tf32") == 0);
    if (err != RA_OK) {
        ra_free(s);
        return err;
    }
    RA_CUDA(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    RA_CUDA(cudaMallocHost((void **)&s->host_result, sizeof *s->host_result));
    s->result = ra_cuda_take(s, "a result", sizeof *s->result);
    b->ops = &cuda_ops;
    b->library = s->library;
    b->host = false;
    b->widened = false;
    b->row_independent = false; /* the algorithm of a product depends on its shape */
    b->state = s;
    return RA_OK;
}

void ra_backend_cuda_close(ra_backend *b)
{
    ra_cuda_state *s = ra_cuda_state_of(b);
    RA_CUDA(cudaStreamSynchronize(s->stream));
    ra_cuda_packs_close(s);
    ra_cuda_products_close(s->products);
    ra_cuda_take_back(s, s->workspace, s->workspace_bytes);
    ra_cuda_take_back(s, s->result, sizeof *s->result);
    RA_CUDA(cudaFreeHost(s->host_result));
    RA_CUDA(cudaStreamDestroy(s->stream));
    ra_free(s->allocation);
    ra_free(s);
}
