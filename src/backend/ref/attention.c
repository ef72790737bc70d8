/* Rotary positions and softmax attention over a forest of segments.
 * Head n of the query reads key/value head n / (heads / kv_heads). A row of qkv: heads queries, kv_heads keys, kv_heads values, head_dim each. */
#include "ref.h"

#include <realign/mem.h>

#include <math.h>

void ra_ref_rope(ra_backend *b, int64_t rows, int32_t heads, int32_t head_dim, const int32_t *position, const void *cosine,
                 const void *sine, bool inverse, void *x, int64_t ldx)
{
    (void)b;
    int32_t half = head_dim / 2;
    for (int64_t t = 0; t < rows; t++) {
        const double *cosines = (const double *)cosine + (int64_t)position[t] * half;
        const double *sines = (const double *)sine + (int64_t)position[t] * half;
        for (int32_t n = 0; n < heads; n++) {
            double *head = (double *)x + t * ldx + (int64_t)n * head_dim;
            for (int32_t j = 0; j < half; j++) {
                double x1 = head[j], x2 = head[j + half], c = cosines[j], s = inverse ? -sines[j] : sines[j];
                head[j] = x1 * c - x2 * s;
                head[j + half] = x2 * c + x1 * s;
            }
        }
    }
}

/* Fills `key` with the rows that row t of segment s attends to: its own segment up to itself, and all of the segment's ancestors,
 * where the window lets them through. Returns how many. */
static int32_t visible_keys(const ra_pack *pack, int32_t window, int32_t s, int32_t t, int32_t *key)
{
    int32_t count = 0;
    for (int32_t a = s; a >= 0; a = pack->segment[a].parent) {
        for (int32_t j = pack->segment[a].begin; j < pack->segment[a].end && j <= t; j++) {
            if (!window || pack->position[t] - pack->position[j] < window) key[count++] = j;
        }
    }
    return count;
}

static double dot(int32_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int32_t j = 0; j < n; j++) sum += x[j] * y[j];
    return sum;
}

/* s = scale q.k, or softcap tanh(scale q.k / softcap) */
static double score(const ra_attention *a, const double *q, const double *k)
{
    double s = a->scale * dot(a->head_dim, q, k);
    return a->softcap > 0 ? a->softcap * tanh(s / a->softcap) : s;
}

/* ds / d(scale q.k), from the capped score */
static double score_slope(const ra_attention *a, double s)
{
    return a->softcap > 0 ? 1 - (s / a->softcap) * (s / a->softcap) : 1;
}

/* log sum_i exp(s[i]); s becomes exp(s - that), the softmax. */
static double softmax(int32_t count, double *s)
{
    double maximum = -INFINITY, sum = 0;
    for (int32_t i = 0; i < count; i++) maximum = s[i] > maximum ? s[i] : maximum;
    for (int32_t i = 0; i < count; i++) sum += exp(s[i] - maximum);
    double lse = maximum + log(sum);
    for (int32_t i = 0; i < count; i++) s[i] = exp(s[i] - lse);
    return lse;
}

/* What a row attends to: its tree's prefix in the cache, then rows of the pack. */
typedef struct {
    const double **k, **v;
    int32_t count;
} seen;

static void see(seen *y, const double *k, const double *v)
{
    y->k[y->count] = k;
    y->v[y->count++] = v;
}

static void see_prefix(seen *y, const ra_cached_prefix *prefix, int32_t tree, const ra_attention *a, int32_t kv, int32_t position)
{
    int64_t width = a->kv_heads * a->head_dim;
    const double *k = (const double *)prefix->cache + prefix->slot[tree] * prefix->slot_stride + kv * a->head_dim;
    for (int32_t j = 0; j < prefix->length[tree]; j++) {
        if (!a->window || position - j < a->window) see(y, k + j * width, k + j * width + prefix->value_offset);
    }
}

/* One query head; prefix and lse may be NULL. */
static void attend_head(const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix, int32_t n, int32_t longest,
                        const double *qkv, double *out, double *lse)
{
    int64_t d = a->head_dim, width = (a->heads + 2 * a->kv_heads) * d;
    int32_t kv = n / (a->heads / a->kv_heads);
    const double *Q = qkv + n * d, *K = qkv + (a->heads + kv) * d, *V = K + a->kv_heads * d;
    int32_t *key = ra_alloc((size_t)pack->rows, sizeof *key);
    double *p = ra_alloc((size_t)(pack->rows + longest), sizeof *p);
    seen y = {.k = ra_alloc((size_t)(pack->rows + longest), sizeof *y.k),
              .v = ra_alloc((size_t)(pack->rows + longest), sizeof *y.v)};
    for (int32_t tree = 0; tree < pack->trees; tree++) {
        for (int32_t s = pack->tree_begin[tree]; s < pack->tree_begin[tree + 1]; s++) {
            for (int32_t t = pack->segment[s].begin; t < pack->segment[s].end; t++) {
                y.count = 0;
                if (prefix) see_prefix(&y, prefix, tree, a, kv, pack->position[t]);
                int32_t count = visible_keys(pack, a->window, s, t, key);
                for (int32_t i = 0; i < count; i++) see(&y, K + key[i] * width, V + key[i] * width);
                for (int32_t i = 0; i < y.count; i++) p[i] = score(a, Q + t * width, y.k[i]);
                double total = softmax(y.count, p);
                if (lse) lse[(int64_t)t * a->heads + n] = total;
                double *o = out + ((int64_t)t * a->heads + n) * d;
                for (int64_t j = 0; j < d; j++) {
                    o[j] = 0;
                    for (int32_t i = 0; i < y.count; i++) o[j] += p[i] * y.v[i][j];
                }
            }
        }
    }
    ra_free(key);
    ra_free(p);
    ra_free(y.k);
    ra_free(y.v);
}

void ra_ref_attention(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, void *out, void *lse)
{
    (void)b;
#pragma omp parallel for
    for (int32_t n = 0; n < a->heads; n++) attend_head(pack, a, NULL, n, 0, qkv, out, lse);
}

void ra_ref_attention_prefixed(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                               const void *qkv, void *out)
{
    (void)b;
    int32_t longest = 0;
    for (int32_t t = 0; t < pack->trees; t++) longest = prefix->length[t] > longest ? prefix->length[t] : longest;
#pragma omp parallel for
    for (int32_t n = 0; n < a->heads; n++) attend_head(pack, a, prefix, n, longest, qkv, out, NULL);
}

/* With p = exp(s - lse): dv += p do;  ds = p (do.v - do.o) s';  dq += scale ds k;  dk += scale ds q */
void ra_ref_attention_grad(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                           const void *lse, const void *dout, void *dqkv)
{
    int64_t d = a->head_dim, width = (a->heads + 2 * a->kv_heads) * d;
    int32_t group = a->heads / a->kv_heads;
    ra_ref_zero(b, dqkv, (size_t)(pack->rows * width) * sizeof(double));
#pragma omp parallel for
    for (int32_t m = 0; m < a->kv_heads; m++) { /* the heads of a group add to the same dk and dv: one thread */
        int64_t k_at = (a->heads + m) * d, v_at = (a->heads + a->kv_heads + m) * d;
        int32_t *key = ra_alloc((size_t)pack->rows, sizeof *key);
        for (int32_t n = m * group; n < (m + 1) * group; n++) {
            for (int32_t s = 0; s < pack->segments; s++) {
                for (int32_t t = pack->segment[s].begin; t < pack->segment[s].end; t++) {
                    const double *q = (const double *)qkv + t * width + n * d;
                    const double *o = (const double *)out + ((int64_t)t * a->heads + n) * d;
                    const double *dO = (const double *)dout + ((int64_t)t * a->heads + n) * d;
                    double *dq = (double *)dqkv + t * width + n * d;
                    double row_lse = ((const double *)lse)[(int64_t)t * a->heads + n];
                    double dO_o = dot(a->head_dim, dO, o);
                    int32_t count = visible_keys(pack, a->window, s, t, key);
                    for (int32_t i = 0; i < count; i++) {
                        const double *k = (const double *)qkv + key[i] * width + k_at;
                        const double *v = (const double *)qkv + key[i] * width + v_at;
                        double *dk = (double *)dqkv + key[i] * width + k_at;
                        double *dv = (double *)dqkv + key[i] * width + v_at;
                        double capped = score(a, q, k), p = exp(capped - row_lse);
                        double ds = p * (dot(a->head_dim, dO, v) - dO_o) * score_slope(a, capped);
                        for (int64_t j = 0; j < d; j++) {
                            dv[j] += p * dO[j];
                            dq[j] += a->scale * ds * k[j];
                            dk[j] += a->scale * ds * q[j];
                        }
                    }
                }
            }
        }
        ra_free(key);
    }
}

void ra_ref_cache_store(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv, int64_t ldq, const int32_t *slot,
                        const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset)
{
    (void)b;
    int64_t width = a->kv_heads * a->head_dim;
    for (int32_t t = 0; t < rows; t++) {
        if (slot[t] < 0) continue;
        const double *k = (const double *)qkv + t * ldq + a->heads * a->head_dim, *v = k + width;
        double *K = (double *)cache + slot[t] * slot_stride + position[t] * width, *V = K + value_offset;
        for (int64_t j = 0; j < width; j++) {
            K[j] = k[j];
            V[j] = v[j];
        }
    }
}

void ra_ref_attention_cached(ra_backend *b, int32_t rows, const ra_attention *a, const void *q, int64_t ldq, const void *cache,
                             int64_t slot_stride, int64_t value_offset, const int32_t *slot, const int32_t *length, void *out)
{
    (void)b;
    int64_t d = a->head_dim, width = a->kv_heads * d;
    int32_t group = a->heads / a->kv_heads;
    for (int32_t t = 0; t < rows; t++) {
        /* the query stands at position length - 1: the window holds the last `window` keys */
        int32_t first = a->window && length[t] > a->window ? length[t] - a->window : 0, count = length[t] - first;
        double *p = ra_alloc((size_t)count, sizeof *p);
        for (int32_t n = 0; n < a->heads; n++) {
            const double *query = (const double *)q + t * ldq + n * d;
            const double *K = (const double *)cache + slot[t] * slot_stride + first * width + n / group * d;
            const double *V = K + value_offset;
            for (int32_t i = 0; i < count; i++) p[i] = score(a, query, K + i * width);
            softmax(count, p);
            double *o = (double *)out + ((int64_t)t * a->heads + n) * d;
            for (int64_t j = 0; j < d; j++) {
                o[j] = 0;
                for (int32_t i = 0; i < count; i++) o[j] += p[i] * V[i * width + j];
            }
        }
        ra_free(p);
    }
}
