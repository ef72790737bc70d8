/* Backends: one table of operators, filled by every backend or refused with a reason; never a silent fallback.
 *
 * Two element types per instance: A, of activations and matrices that enter products (F64, F32 or BF16), and R, of the residual stream, sums, vectors
 * (norm gains, biases), statistics and optimiser state (F64 where A is F64, else F32). Products of BF16 accumulate in F32.
 *   ref        A = F64, R = F64     naive loops, the yardstick
 *   cpu fp32   A = F32, R = F32     OpenMP + oneDNN
 *   cpu bf16   A = BF16, R = F32
 *   cuda fp32  A = F32, R = F32     CUDA kernels + cuBLASLt, where it is built in
 *   cuda tf32  A = F32, R = F32     products round their operands to 10 bits of mantissa
 *   cuda bf16  A = BF16, R = F32
 * Memory belongs to the backend (ops->alloc): every array an operator reads or writes, int32 and double ones too, lies there; a pack's arrays lie in host memory and are
 * placed (place_pack). Where `host` is set all of it is host memory. Matrices are row-major and dense unless a leading dimension is given; shapes stand behind each argument. Operators are not collective, are bitwise repeatable for one thread count, and return nothing: arguments are the
 * caller's duty, non-finite values pass through and are caught by the engine's checks. */
#ifndef REALIGN_BACKEND_H
#define REALIGN_BACKEND_H
#include <realign/dtype.h>
#include <realign/error.h>
#include <realign/pack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ra_backend ra_backend;
typedef struct ra_comm ra_comm; /* <realign/comm.h>; kernels are compiled without MPI */
typedef struct ra_link ra_link; /* a backend's way between ranks */

typedef enum { RA_GLU_SILU, RA_GLU_GELU_TANH } ra_glu;
typedef enum { RA_NO_TRANSPOSE, RA_TRANSPOSE } ra_transpose;

/* Shapes and constants of one attention call. q, k, v of a row lie side by side: (heads + 2 kv_heads) * head_dim. */
typedef struct {
    int32_t heads, kv_heads, head_dim;
    double scale;   /* of q.k */
    double softcap; /* s <- softcap tanh(s / softcap) before the mask; 0: none */
    int32_t window; /* keys with position(q) - position(k) >= window are masked; 0: none */
} ra_attention;

/* Sequences in a cache that the trees of a pack go on from: tree t sees positions [0, length[t]) of slot[t], at
 * cache + slot[t] * slot_stride + position * kv_heads * head_dim the keys, values value_offset elements further. */
typedef struct {
    const void *cache; /* A */
    int64_t slot_stride, value_offset;
    const int32_t *slot, *length; /* (trees) */
} ra_cached_prefix;

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2; /* 1 - beta^t */
    double gradient_scale;           /* clipping factor */
} ra_adamw;

struct ra_backend_ops {
    /* ---- memory ---- */
    void *(*alloc)(ra_backend *b, size_t bytes); /* zeroed, 64-byte aligned; fatal when there is none */
    void (*release)(ra_backend *b, void *memory);
    void (*upload)(ra_backend *b, void *to, const void *host, size_t bytes);
    void (*download)(ra_backend *b, void *host, const void *from, size_t bytes);
    void (*copy)(ra_backend *b, void *to, const void *from, size_t bytes);
    void (*zero)(ra_backend *b, void *memory, size_t bytes);
    /* Makes a pack's arrays readable for operators: after it was filled, and again after it was changed. Nothing to do where `host` is set. */
    void (*place_pack)(ra_backend *b, ra_pack *pack);
    void (*release_pack)(ra_backend *b, ra_pack *pack); /* what place_pack made; the pack itself stays */
    /* y[i] = (A) x[i] */
    void (*cast_to_a)(ra_backend *b, int64_t n, const void *x /* (n) R */, void *y /* (n) A */);
    void (*cast_to_r)(ra_backend *b, int64_t n, const void *x /* (n) A */, void *y /* (n) R */);

    /* ---- products ---- */
    /* C = op(X) op(Y), or C += op(X) op(Y) where `accumulate`. op(X) is (m, k), op(Y) is (k, n); X and Y are of type A, C of type A or R (c_is_r; accumulate needs R). */
    void (*gemm)(ra_backend *b, ra_transpose tx, ra_transpose ty, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx,
                 const void *y, int64_t ldy, bool accumulate, bool c_is_r, void *c, int64_t ldc);
    /* A copy of W (n, k), type A, in an order that products X W^T with few rows read fastest, or NULL where the backend has none better than W itself. */
    void *(*pack_weights)(ra_backend *b, int64_t n, int64_t k, const void *w, int64_t ldw);
    size_t (*packed_bytes)(ra_backend *b, int64_t n, int64_t k); /* 0: pack_weights gives NULL */
    void (*release_packed)(ra_backend *b, void *packed);
    /* C = X W^T, or C += ..., as gemm does. */
    void (*gemm_packed)(ra_backend *b, int64_t m, int64_t n, int64_t k, const void *x, int64_t ldx, const void *packed,
                        bool accumulate, bool c_is_r, void *c, int64_t ldc);
    /* Y[t, :] += bias */
    void (*bias_add)(ra_backend *b, int64_t rows, int64_t n, const void *bias /* (n) R */,
                     void *y /* (rows, n) A, leading dimension ldy */, int64_t ldy);
    /* dbias += sum_t dY[t, :], in ascending t */
    void (*bias_grad)(ra_backend *b, int64_t rows, int64_t n, const void *dy /* (rows, n) A */, int64_t ldy,
                      void *dbias /* (n) R */);
    /* X += s Y */
    void (*add_scaled)(ra_backend *b, int64_t rows, int64_t n, double s, const void *y /* (rows, n) R dense */,
                       void *x /* (rows, n) A */, int64_t ldx);
    /* dot[t] += s sum_j X[t, j] Y[t, j], accumulated in double */
    void (*row_dot)(ra_backend *b, int64_t rows, int64_t n, double s, const void *x /* (rows, n) A */, int64_t ldx,
                    const void *y /* (rows, n) R dense */, double *dot /* (rows) */);
    /* dot[t] += sum_j X[t, j] v[j] */
    void (*row_dot_vector)(ra_backend *b, int64_t rows, int64_t n, const void *x /* (rows, n) A */, int64_t ldx,
                           const void *v /* (n) R */, double *dot /* (rows) */);

    /* ---- embedding ---- */
    /* x[t] = scale W[token[t]]; a negative token gives zeros */
    void (*embed)(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale, const void *w /* (V, h) A */,
                  void *x /* (rows, h) R */);
    /* dW[token[t]] += scale dx[t], in ascending t */
    void (*embed_grad)(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale,
                       const void *dx /* (rows, h) R */, void *dw /* (V, h) R */);
    /* dot[t] += scale dx[t] . G[token[t]] */
    void (*embed_dot)(ra_backend *b, int64_t rows, int64_t h, const int32_t *token, double scale,
                      const void *dx /* (rows, h) R */, const void *g /* (V, h) A */, double *dot);

    /* ---- RMSNorm: rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd gain, gain = w or (1 + w) where plus_one ---- */
    void (*rmsnorm)(ra_backend *b, int64_t rows, int64_t h, const void *x /* (rows, h) R */, const void *w /* (h) R */,
                    bool plus_one, double eps, void *y /* (rows, h) A */, void *rstd /* (rows) R */);
    /* The same, y added to the residual stream: sum += y. */
    void (*rmsnorm_add)(ra_backend *b, int64_t rows, int64_t h, const void *x /* (rows, h) R */, const void *w, bool plus_one,
                        double eps, void *sum /* (rows, h) R */, void *rstd /* (rows) R */);
    /* dx = (or +=, where accumulate) gradient; dw += where not NULL; dot[t] += dy[t] . (x rstd G)[t] where g is not NULL (contraction with g's slice of the tangent) */
    void (*rmsnorm_grad)(ra_backend *b, int64_t rows, int64_t h, const void *x, const void *w, bool plus_one, const void *rstd,
                         const void *dy /* (rows, h) R */, bool accumulate, void *dx /* (rows, h) R */,
                         void *dw /* (h) R or NULL */, const void *g /* (h) R or NULL */, double *dot /* (rows) or NULL */);

    /* ---- rope, half-rotation layout, in place: heads of a row lie side by side from x; (x1, x2) <- (x1 c - x2 s, x2 c + x1 s), inverse: s <- -s ---- */
    void (*rope)(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position /* (rows) */,
                 const void *cosine /* (positions, head_dim / 2) R */, const void *sine, bool inverse,
                 void *x /* A, leading dimension ldx */, int64_t ldx);

    /* ---- attention over a pack ---- */
    void (*attention)(ra_backend *b, const ra_pack *pack, const ra_attention *a,
                      const void *qkv /* (rows, (heads + 2 kv_heads) head_dim) A */, void *out /* (rows, heads head_dim) A */,
                      void *lse /* (rows, heads) R: log of the softmax's denominator */);
    /* The same where every row sees its tree's prefix in a cache too: before all keys of the pack, at positions 0, 1, ... A length may be 0. Forward only. */
    void (*attention_prefixed)(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                               const void *qkv, void *out);
    void (*attention_grad)(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                           const void *lse, const void *dout /* (rows, heads head_dim) A */, void *dqkv /* like qkv, A */);
    /* Keys and values of rows into the cache attention_cached reads: row i to position[i] of slot[i]; a negative slot is passed over. */
    void (*cache_store)(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv /* A, leading dimension ldq */,
                        int64_t ldq, const int32_t *slot, const int32_t *position /* (rows) */, void *cache /* A */,
                        int64_t slot_stride, int64_t value_offset);
    /* One new token a sequence against its cache: row i attends to keys [0, length[i]), the last of which is its own (already stored).
     * Cache of sequence i: keys at cache + slot[i] * slot_stride + position * kv_heads * head_dim, values value_offset elements further. */
    void (*attention_cached)(ra_backend *b, int32_t rows, const ra_attention *a, const void *q /* A, leading dimension ldq */,
                             int64_t ldq, const void *cache /* A */, int64_t slot_stride, int64_t value_offset,
                             const int32_t *slot, const int32_t *length, void *out /* (rows, heads head_dim) A */);

    /* ---- gated linear unit: h = act(gate) * up; gate_up holds gate (f) then up (f) in each row ---- */
    void (*glu)(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up /* (rows, 2 f) A */,
                void *h /* (rows, f) A */);
    void (*glu_grad)(ra_backend *b, int64_t rows, int64_t f, ra_glu kind, const void *gate_up, const void *dh /* (rows, f) A */,
                     void *dgate_up /* (rows, 2 f) A; may be gate_up itself */);

    /* ---- rows ---- */
    void (*gather_rows)(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *x /* (., h) R */,
                        void *y /* (n, h) R */);
    /* x[row[i]] += y[i], ascending i; rows may repeat */
    void (*scatter_add_rows)(ra_backend *b, int64_t n, int64_t h, const int32_t *row, const void *y /* (n, h) R */,
                             void *x /* (., h) R */);

    /* ---- the fused head's row operators, one vocabulary block [v0, v0 + nv) at a time; z are raw products, l = softcap tanh(z / softcap) or z ---- */
    /* Running maximum and sum: on the first block maximum = -inf, sum = 0. target_logit[i] is set where target[i] lies in the block. */
    void (*softmax_update)(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z /* (n, nv) R */,
                           const int32_t *target /* (n) */, double *maximum, double *sum, double *target_logit /* (n) */);
    /* Greedy choice over blocks in ascending order: the largest raw product and the lowest id that has it. On the first block best = -inf, token = -1; a NaN becomes
     * the best and stays. */
    void (*argmax_update)(ra_backend *b, int64_t n, int64_t nv, int64_t v0, const void *z /* (n, nv) R */, double *best,
                          int32_t *token /* (n) */);
    /* dz = coefficient[i] (1[v = target[i]] - exp(l - lse[i])) dl/dz */
    void (*softmax_grad)(ra_backend *b, int64_t n, int64_t nv, int64_t v0, double softcap, const void *z, const int32_t *target,
                         const double *lse, const double *coefficient, void *dz /* (n, nv) A */);
    /* Forward KL(p_ref || p): running maximum and sum of the reference's softmax, and weighted[i] = sum_v exp(lr - maximum_ref) (lr - l), rescaled as the maximum moves. */
    void (*kl_update)(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref /* (n, nv) R */,
                      double *maximum_ref, double *sum_ref, double *weighted /* (n) */);
    /* dz = coefficient[i] (exp(l - lse[i]) - exp(lr - lse_ref[i])) dl/dz */
    void (*kl_grad)(ra_backend *b, int64_t n, int64_t nv, double softcap, const void *z, const void *z_ref, const double *lse,
                    const double *lse_ref, const double *coefficient, void *dz /* (n, nv) A */);

    /* ---- optimiser and vectors, type R ---- */
    double (*sum_squares)(ra_backend *b, int64_t n, const void *x); /* in double, fixed order for a thread count */
    double (*dot)(ra_backend *b, int64_t n, const void *x, const void *y);
    /* m, v, w <- AdamW (decoupled decay) with g scaled by gradient_scale; the compute copy is refreshed by cast_to_a. */
    void (*adamw)(ra_backend *b, int64_t n, const ra_adamw *h, const void *g, void *m, void *v, void *w);
    /* y += s x */
    void (*axpy)(ra_backend *b, int64_t n, double s, const void *x, void *y);

    /* ---- sums over ranks: by MPI from host memory, or the backend's own way (NCCL between GPUs) ---- */
    /* Collective over `comm`, which must outlive it. `what` names it in messages. */
    ra_link *(*link_open)(ra_backend *b, const ra_comm *comm, const char *what);
    void (*link_close)(ra_backend *b, ra_link *link);
    /* Collective, float32 alone. As ra_comm_reduce_scatter_f32 and ra_comm_all_gather_f32: the same ranges and the same bits. */
    void (*link_reduce_scatter)(ra_backend *b, ra_link *link, float *values, int64_t n);
    void (*link_all_gather)(ra_backend *b, ra_link *link, float *values, int64_t n);
};

struct ra_backend {
    const struct ra_backend_ops *ops;
    const char *name;      /* "ref", "cpu", "cuda" */
    const char *precision; /* "fp64", "fp32", "tf32", "bf16" */
    ra_dtype a, r;
    size_t a_size, r_size;
    const char *
        library; /* what computes, for logs: "oneDNN 2.6.3", "cuBLASLt 13.0, NVIDIA H100 80GB HBM3, device 0 of 4"; the constructor's */
    bool host;    /* its memory is host memory: the processor may read and write it directly */
    bool widened; /* bf16 operands are widened to float32 before each product: there is no bf16 product for this processor */
    struct {
        size_t live, peak; /* bytes that alloc and the backend's own workspaces hold now, and held at most */
        size_t capacity;   /* bytes there are for this rank; 0: not said, as of host memory, which others use too */
    } memory;
    bool
        row_independent; /* a row of a product is bit for bit the same whatever other rows are multiplied with it; tried out at opening */
    void *state;
};

/* `name`: auto, ref, cpu or cuda; `precision`: auto, fp64 (ref only), fp32, bf16, tf32 (cuda only). auto takes cuda where it is built in and a device is there, and bf16 on the
 * processor only where it multiplies it natively. `threads`: 0 = as OpenMP decides. RA_ERR_UNSUPPORTED names what there is. */
ra_err ra_backend_open(const char *name, const char *precision, int threads, ra_backend **out);
void ra_backend_close(ra_backend *b);
/* Whether a backend of this name is part of this program. */
bool ra_backend_built_in(const char *name);
/* What such a backend would compute with: name, precision, types and their sizes; nothing is opened, and no operator is there. For plans. */
ra_err ra_backend_outline(const char *name, const char *precision, ra_backend *out);
/* One line for logs: "cpu bf16: oneDNN 2.6.3, avx512_bf16, 2 threads". The backend's. */
const char *ra_backend_describe(const ra_backend *b);

/* Backend memory as the processor sees it: the memory itself where it is host memory, else a copy. */
typedef struct {
    void *host, *memory;
    size_t bytes;
} ra_host_view;
ra_host_view ra_host_view_of(ra_backend *b, void *memory, size_t bytes);
/* changed: what the processor wrote goes back. */
void ra_host_view_end(ra_backend *b, ra_host_view *view, bool changed);

/* Each backend's own constructor, called by the registry, which has set name, precision and types. */
ra_err ra_backend_ref_open(ra_backend *b);
ra_err ra_backend_cpu_open(ra_backend *b, int threads);
ra_err ra_backend_cuda_open(ra_backend *b, int threads); /* these three where it is built in */
void ra_backend_cuda_close(ra_backend *b);
bool ra_cuda_device_present(void); /* one that the program is built for; warns where there is another, or CUDA fails */
void ra_backend_ref_close(ra_backend *b);
void ra_backend_cpu_close(ra_backend *b);

#endif
