/* Attention over a pack for one activation type; see a_rows.h for how this file is used. A task is one (tree, kv head): it owns that head's keys,
 * values and query heads, so tasks share nothing and every sum has one order. What a row may see comes as ranges of columns, the prefix in the cache first, then
 * its segments; sums run range by range, so that they do not depend on what else the tree holds. All inner work is float32 products on small packed copies. */

/* A tile of C is TILE_ROWS rows and two vectors: as much as stays in registers, 32 of sixteen floats or 16 of eight. */
#if defined __AVX512F__
enum { LANES = 16, TILE_ROWS = 8 };
#else
enum { LANES = 8, TILE_ROWS = 4 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

/* C[m][0..n) = or += sum_k a[m * rsa + k * csa] B[k][0..n) for MR rows and NV vectors */
#define TILE(NAME, MR, NV)                                                                                               \
    static inline __attribute__((always_inline)) void NAME(int64_t k_count, const float *a, int64_t rsa, int64_t csa,    \
                                                           const float *B, int64_t ldb, bool add, float *C, int64_t ldc) \
    {                                                                                                                    \
        lanes acc[MR][NV];                                                                                               \
        for (int i = 0; i < MR; i++)                                                                                     \
            for (int j = 0; j < NV; j++) acc[i][j] = add ? *(const lanes *)(C + i * ldc + LANES * j) : (lanes){0};       \
        for (int64_t k = 0; k < k_count; k++) {                                                                          \
            lanes bk[NV];                                                                                                \
            for (int j = 0; j < NV; j++) bk[j] = *(const lanes *)(B + k * ldb + LANES * j);                              \
            for (int i = 0; i < MR; i++) {                                                                               \
                float s = a[i * rsa + k * csa];                                                                          \
                for (int j = 0; j < NV; j++) acc[i][j] += s * bk[j];                                                     \
            }                                                                                                            \
        }                                                                                                                \
        for (int i = 0; i < MR; i++)                                                                                     \
            for (int j = 0; j < NV; j++) *(lanes *)(C + i * ldc + LANES * j) = acc[i][j];                                \
    }
TILE(tile_wide, TILE_ROWS, 2)
TILE(tile_narrow, TILE_ROWS, 1)
TILE(row_wide, 1, 2)
TILE(row_narrow, 1, 1)

/* n is a multiple of 16 */
static void small_gemm(int64_t m, int64_t n, int64_t k, const float *a, int64_t rsa, int64_t csa, const float *B, int64_t ldb,
                       bool add, float *C, int64_t ldc)
{
    for (int64_t j = 0; j < n; j += 2 * LANES) {
        bool wide = n - j >= 2 * LANES;
        int64_t i = 0;
        for (; i + TILE_ROWS <= m; i += TILE_ROWS) {
            if (wide) {
                tile_wide(k, a + i * rsa, rsa, csa, B + j, ldb, add, C + i * ldc + j, ldc);
            } else {
                tile_narrow(k, a + i * rsa, rsa, csa, B + j, ldb, add, C + i * ldc + j, ldc);
            }
        }
        for (; i < m; i++) {
            if (wide) {
                row_wide(k, a + i * rsa, rsa, csa, B + j, ldb, add, C + i * ldc + j, ldc);
            } else {
                row_narrow(k, a + i * rsa, rsa, csa, B + j, ldb, add, C + i * ldc + j, ldc);
            }
        }
    }
}

enum { QUERIES = 32, MAX_DEPTH = 16 };

static int64_t round16(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* Ranges of the columns that a segment's queries may see: the prefix, ancestors, the segment itself last. A tree's columns are its prefix, then its rows; row t of the pack
 * is column t - base. */
typedef struct {
    int count;
    int32_t begin[MAX_DEPTH + 1], end[MAX_DEPTH + 1];
} key_ranges;

static key_ranges ranges_of(const ra_pack *pack, int32_t segment, int32_t base, int32_t prefix)
{
    int32_t chain[MAX_DEPTH];
    int depth = 0;
    for (int32_t s = segment; s >= 0; s = pack->segment[s].parent) {
        if (depth == MAX_DEPTH) ra_die("attention: a pack's segments nest deeper than %d", MAX_DEPTH);
        chain[depth++] = s;
    }
    key_ranges r = {.count = 0};
    if (prefix > 0) r.end[r.count++] = prefix;
    while (depth-- > 0) {
        r.begin[r.count] = pack->segment[chain[depth]].begin - base;
        r.end[r.count++] = pack->segment[chain[depth]].end - base;
    }
    return r;
}

/* Per-thread float32 copies of one (tree, kv head). dp = head_dim rounded up to 16; rp = rows rounded up to 16, plus 32 that products may overrun. */
typedef struct {
    int64_t dp, rp;
    float *k, *v;     /* (rows, dp) */
    float *kt, *vt;   /* (dp, rp) */
    float *dk, *dv;   /* (rows, dp) */
    float *q, *o, *t; /* (QUERIES, dp) */
    float *s, *p;     /* (QUERIES, rp) */
    float *block;
    const A *loaded; /* where the prefix in k, v and kt came from, and its length */
    int32_t loaded_length;
} attention_scratch;

static attention_scratch scratch_make(int64_t rows, int64_t d, bool grad)
{
    attention_scratch w = {.dp = round16(d), .rp = round16(rows) + 32};
    int64_t flat = (rows + 16) * w.dp, transposed = w.dp * w.rp, query = QUERIES * w.dp, scores = QUERIES * w.rp;
    w.block = ra_alloc((size_t)((grad ? 4 : 2) * flat + (grad ? 2 : 1) * transposed + 3 * query + 2 * scores), sizeof(float));
    float *at = w.block;
#define TAKE(field, n) w.field = at, at += (n)
    TAKE(k, flat);
    TAKE(v, flat);
    TAKE(kt, transposed);
    if (grad) {
        TAKE(vt, transposed);
        TAKE(dk, flat);
        TAKE(dv, flat);
    }
    TAKE(q, query);
    TAKE(o, query);
    TAKE(t, query);
    TAKE(s, scores);
    TAKE(p, scores);
#undef TAKE
    return w;
}

static void load_rows(int64_t rows, int64_t d, int64_t dp, const A *x, int64_t ldx, float scale, float *y)
{
    for (int64_t i = 0; i < rows; i++) {
#pragma omp simd
        for (int64_t j = 0; j < d; j++) y[i * dp + j] = scale * LOAD(x + i * ldx + j);
        for (int64_t j = d; j < dp; j++) y[i * dp + j] = 0.0f;
    }
}

/* Columns [from, rows) of the transposed copy, and zeros behind them. */
static void transpose_rows(int64_t from, int64_t rows, int64_t dp, int64_t rp, const float *x, float *xt)
{
    for (int64_t j = 0; j < dp; j++) {
        for (int64_t i = from; i < rows; i++) xt[j * rp + i] = x[i * dp + j];
        for (int64_t i = rows; i < rp; i++) xt[j * rp + i] = 0.0f;
    }
}

/* Keys and values of one head of a cached sequence, in the first columns; kept from one tree to the next that has the same. */
static void load_prefix(attention_scratch *w, const ra_attention *a, const A *keys, int64_t value_offset, int32_t length)
{
    if (w->loaded == keys && w->loaded_length == length) return;
    int64_t d = a->head_dim, step = a->kv_heads * d;
    load_rows(length, d, w->dp, keys, step, 1.0f, w->k);
    load_rows(length, d, w->dp, keys + value_offset, step, 1.0f, w->v);
    transpose_rows(0, length, w->dp, w->rp, w->k, w->kt);
    w->loaded = keys;
    w->loaded_length = length;
}

/* Scores of `nq` queries (columns q0.. of the tree) against all keys they may see, soft-capped; masked ones are -inf. Only the ranges are written; the last one is cut at the
 * last query. */
static void scores(const ra_pack *pack, const ra_attention *a, const attention_scratch *w, const key_ranges *r, int32_t base,
                   int32_t prefix, int32_t q0, int32_t nq)
{
    float cap = (float)a->softcap;
    for (int c = 0; c < r->count; c++) {
        bool own = c == r->count - 1;
        int32_t begin = r->begin[c], end = own ? q0 + nq : r->end[c];
        /* a range's overrun lands in the next range's columns, which are written later, or in the padding */
        small_gemm(round16(nq) < QUERIES ? round16(nq) : QUERIES, round16(end - begin), w->dp, w->q, w->dp, 1, w->kt + begin,
                   w->rp, false, w->s + begin, w->rp);
    }
    for (int c = 0; c < r->count; c++) {
        bool own = c == r->count - 1;
        int32_t begin = r->begin[c], end = own ? q0 + nq : r->end[c];
        for (int32_t i = 0; i < nq; i++) {
            float *s = w->s + i * w->rp;
            if (cap > 0.0f) {
#pragma omp simd
                for (int32_t j = begin; j < end; j++) s[j] = cap * cpu_tanh(s[j] / cap);
            }
            if (own) {
                for (int32_t j = q0 + i + 1; j < end; j++) s[j] = -INFINITY;
            }
            if (a->window > 0) {
                int32_t oldest = pack->position[base + q0 + i] - a->window;
                for (int32_t j = begin; j < end; j++) {
                    int32_t position = j < prefix ? j : pack->position[base + j];
                    if (position <= oldest) s[j] = -INFINITY;
                }
            }
        }
    }
}

/* prefix and lse may be NULL. */
static void attention_task(const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *p, attention_scratch *w,
                           int32_t tree, int32_t kv, const A *qkv, A *out, float *lse)
{
    int64_t d = a->head_dim, ld = (int64_t)(a->heads + 2 * a->kv_heads) * d, group = a->heads / a->kv_heads;
    int32_t row = ra_pack_tree_row(pack, tree), rows = ra_pack_tree_row(pack, tree + 1) - row, prefix = p ? p->length[tree] : 0,
            base = row - prefix;
    const A *keys = qkv + row * ld + (a->heads + kv) * d;
    if (prefix > 0) {
        load_prefix(w, a, (const A *)p->cache + p->slot[tree] * p->slot_stride + kv * d, p->value_offset, prefix);
    } else {
        w->loaded = NULL; /* this tree's rows take its columns */
    }
    load_rows(rows, d, w->dp, keys, ld, 1.0f, w->k + prefix * w->dp);
    load_rows(rows, d, w->dp, keys + a->kv_heads * d, ld, 1.0f, w->v + prefix * w->dp);
    transpose_rows(prefix, prefix + rows, w->dp, w->rp, w->k, w->kt);
    for (int32_t segment = pack->tree_begin[tree]; segment < pack->tree_begin[tree + 1]; segment++) {
        key_ranges r = ranges_of(pack, segment, base, prefix);
        int32_t end = r.end[r.count - 1];
        for (int32_t q0 = r.begin[r.count - 1]; q0 < end; q0 += QUERIES) {
            int32_t nq = end - q0 < QUERIES ? end - q0 : QUERIES;
            for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                load_rows(nq, d, w->dp, qkv + (base + q0) * ld + head * d, ld, (float)a->scale, w->q);
                memset(w->q + nq * w->dp, 0, (size_t)((QUERIES - nq) * w->dp) * sizeof(float));
                scores(pack, a, w, &r, base, prefix, q0, nq);
                float sums[QUERIES];
                for (int32_t i = 0; i < nq; i++) {
                    float *s = w->s + i * w->rp, top = -INFINITY, sum = 0.0f;
                    for (int c = 0; c < r.count; c++) {
                        int32_t to = c == r.count - 1 ? q0 + nq : r.end[c];
#pragma omp simd reduction(max : top)
                        for (int32_t j = r.begin[c]; j < to; j++) top = s[j] > top ? s[j] : top;
                    }
                    for (int c = 0; c < r.count; c++) {
                        int32_t to = c == r.count - 1 ? q0 + nq : r.end[c];
#pragma omp simd reduction(+ : sum)
                        for (int32_t j = r.begin[c]; j < to; j++) {
                            s[j] = cpu_exp(s[j] - top);
                            sum += s[j];
                        }
                    }
                    sums[i] = sum;
                    if (lse) lse[(base + q0 + i) * (int64_t)a->heads + head] = top + logf(sum);
                }
                for (int c = 0; c < r.count; c++) {
                    int32_t from = r.begin[c], to = c == r.count - 1 ? q0 + nq : r.end[c];
                    small_gemm(nq, w->dp, to - from, w->s + from, w->rp, 1, w->v + from * w->dp, w->dp, c > 0, w->o, w->dp);
                }
                for (int32_t i = 0; i < nq; i++) {
                    A *o = out + (base + q0 + i) * (int64_t)a->heads * d + head * d;
                    float scale = 1.0f / sums[i];
#pragma omp simd
                    for (int64_t j = 0; j < d; j++) STORE(o + j, w->o[i * w->dp + j] * scale);
                }
            }
        }
    }
}

static int32_t longest_tree(const ra_pack *pack)
{
    int32_t longest = 0;
    for (int32_t t = 0; t < pack->trees; t++) {
        int32_t rows = ra_pack_tree_row(pack, t + 1) - ra_pack_tree_row(pack, t);
        if (rows > longest) longest = rows;
    }
    return longest;
}

static void op_attention(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, void *out, void *lse)
{
    (void)b;
    int32_t longest = longest_tree(pack);
#pragma omp parallel
    {
        attention_scratch w = scratch_make(longest, a->head_dim, false);
#pragma omp for schedule(dynamic) collapse(2)
        for (int32_t tree = 0; tree < pack->trees; tree++) {
            for (int32_t kv = 0; kv < a->kv_heads; kv++) attention_task(pack, a, NULL, &w, tree, kv, qkv, out, lse);
        }
        ra_free(w.block);
    }
}

/* Trees that share a prefix follow one another under each head: a thread copies the prefix once for several of them. */
static void op_attention_prefixed(ra_backend *b, const ra_pack *pack, const ra_attention *a, const ra_cached_prefix *prefix,
                                  const void *qkv, void *out)
{
    (void)b;
    int32_t longest = 0;
    for (int32_t t = 0; t < pack->trees; t++) longest = prefix->length[t] > longest ? prefix->length[t] : longest;
    longest += longest_tree(pack);
#pragma omp parallel
    {
        attention_scratch w = scratch_make(longest, a->head_dim, false);
#pragma omp for schedule(dynamic) collapse(2)
        for (int32_t kv = 0; kv < a->kv_heads; kv++) {
            for (int32_t tree = 0; tree < pack->trees; tree++) attention_task(pack, a, prefix, &w, tree, kv, qkv, out, NULL);
        }
        ra_free(w.block);
    }
}

/* With P = exp(l - lse):  dV += P^T dO,  dP = dO V^T,  dl = P (dP - dO . O),  ds = dl dl/ds,  dQ = scale ds K,  dK += scale ds^T Q */
static void attention_grad_task(const ra_pack *pack, const ra_attention *a, attention_scratch *w, int32_t tree, int32_t kv,
                                const A *qkv, const A *out, const float *lse, const A *dout, A *dqkv)
{
    int64_t d = a->head_dim, ld = (int64_t)(a->heads + 2 * a->kv_heads) * d, ldo = (int64_t)a->heads * d,
            group = a->heads / a->kv_heads;
    int32_t base = ra_pack_tree_row(pack, tree), rows = ra_pack_tree_row(pack, tree + 1) - base;
    const A *first = qkv + base * ld;
    float inverse_cap = a->softcap > 0.0 ? (float)(1.0 / a->softcap) : 0.0f, scale = (float)a->scale;
    load_rows(rows, d, w->dp, first + (a->heads + kv) * d, ld, 1.0f, w->k);
    load_rows(rows, d, w->dp, first + (a->heads + a->kv_heads + kv) * d, ld, 1.0f, w->v);
    transpose_rows(0, rows, w->dp, w->rp, w->k, w->kt);
    transpose_rows(0, rows, w->dp, w->rp, w->v, w->vt);
    memset(w->dk, 0, (size_t)(rows * w->dp) * sizeof(float));
    memset(w->dv, 0, (size_t)(rows * w->dp) * sizeof(float));
    for (int32_t segment = pack->tree_begin[tree]; segment < pack->tree_begin[tree + 1]; segment++) {
        key_ranges r = ranges_of(pack, segment, base, 0);
        int32_t end = r.end[r.count - 1];
        for (int32_t q0 = r.begin[r.count - 1]; q0 < end; q0 += QUERIES) {
            int32_t nq = end - q0 < QUERIES ? end - q0 : QUERIES;
            for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
                load_rows(nq, d, w->dp, first + q0 * ld + head * d, ld, scale, w->q);
                memset(w->q + nq * w->dp, 0, (size_t)((QUERIES - nq) * w->dp) * sizeof(float));
                scores(pack, a, w, &r, base, 0, q0, nq);
                load_rows(nq, d, w->dp, dout + (base + q0) * ldo + head * d, ldo, 1.0f, w->o);
                memset(w->o + nq * w->dp, 0, (size_t)((QUERIES - nq) * w->dp) * sizeof(float));
                for (int c = 0; c < r.count; c++) {
                    int32_t from = r.begin[c], to = c == r.count - 1 ? q0 + nq : r.end[c];
                    small_gemm(round16(nq), round16(to - from), w->dp, w->o, w->dp, 1, w->vt + from, w->rp, false, w->p + from,
                               w->rp);
                }
                for (int32_t i = 0; i < nq; i++) {
                    const A *o = out + (base + q0 + i) * ldo + head * d;
                    float delta = 0.0f, shift = lse[(base + q0 + i) * (int64_t)a->heads + head];
                    float *s = w->s + i * w->rp, *p = w->p + i * w->rp;
#pragma omp simd reduction(+ : delta)
                    for (int64_t j = 0; j < d; j++) delta += w->o[i * w->dp + j] * LOAD(o + j);
                    for (int c = 0; c < r.count; c++) {
                        int32_t to = c == r.count - 1 ? q0 + nq : r.end[c];
#pragma omp simd
                        for (int32_t j = r.begin[c]; j < to; j++) {
                            float l = s[j], prob = cpu_exp(l - shift), th = l * inverse_cap;
                            float ds = prob * (p[j] - delta) * (1.0f - th * th);
                            s[j] = prob;
                            p[j] = prob > 0.0f ? ds : 0.0f; /* a masked l is -inf: its 1 - th^2 is not a number */
                        }
                    }
                }
                for (int c = 0; c < r.count; c++) {
                    int32_t from = r.begin[c], to = c == r.count - 1 ? q0 + nq : r.end[c];
                    small_gemm(to - from, w->dp, nq, w->s + from, 1, w->rp, w->o, w->dp, true, w->dv + from * w->dp, w->dp);
                    small_gemm(to - from, w->dp, nq, w->p + from, 1, w->rp, w->q, w->dp, true, w->dk + from * w->dp,
                               w->dp); /* q carries the scale */
                    small_gemm(nq, w->dp, to - from, w->p + from, w->rp, 1, w->k + from * w->dp, w->dp, c > 0, w->t, w->dp);
                }
                for (int32_t i = 0; i < nq; i++) {
                    A *dq = dqkv + (base + q0 + i) * ld + head * d;
#pragma omp simd
                    for (int64_t j = 0; j < d; j++) STORE(dq + j, w->t[i * w->dp + j] * scale);
                }
            }
        }
    }
    for (int32_t i = 0; i < rows; i++) {
        A *dk = dqkv + (base + i) * ld + (a->heads + kv) * d, *dv = dk + a->kv_heads * d;
#pragma omp simd
        for (int64_t j = 0; j < d; j++) {
            STORE(dk + j, w->dk[i * w->dp + j]);
            STORE(dv + j, w->dv[i * w->dp + j]);
        }
    }
}

static void op_attention_grad(ra_backend *b, const ra_pack *pack, const ra_attention *a, const void *qkv, const void *out,
                              const void *lse, const void *dout, void *dqkv)
{
    (void)b;
    int32_t longest = longest_tree(pack);
#pragma omp parallel
    {
        attention_scratch w = scratch_make(longest, a->head_dim, true);
#pragma omp for schedule(dynamic) collapse(2)
        for (int32_t tree = 0; tree < pack->trees; tree++) {
            for (int32_t kv = 0; kv < a->kv_heads; kv++) attention_grad_task(pack, a, &w, tree, kv, qkv, out, lse, dout, dqkv);
        }
        ra_free(w.block);
    }
}

static void op_cache_store(ra_backend *b, int32_t rows, const ra_attention *a, const void *qkv, int64_t ldq, const int32_t *slot,
                           const int32_t *position, void *cache, int64_t slot_stride, int64_t value_offset)
{
    (void)b;
    int64_t width = (int64_t)a->kv_heads * a->head_dim;
#pragma omp parallel for schedule(static) if (rows * width > 1 << 16)
    for (int32_t t = 0; t < rows; t++) {
        if (slot[t] < 0) continue;
        const A *k = (const A *)qkv + t * ldq + (int64_t)a->heads * a->head_dim;
        A *to = (A *)cache + slot[t] * slot_stride + position[t] * width;
        memcpy(to, k, (size_t)width * sizeof(A));
        memcpy(to + value_offset, k + width, (size_t)width * sizeof(A));
    }
}

enum { MAX_HEAD_DIM = 1024, MAX_HEADS_AT_ONCE = 3 };

/* s <- softmax of the capped scores, up to the sum, which is returned. */
static float cached_softmax(int32_t n, float cap, float *s)
{
    float top = -INFINITY, sum = 0.0f;
    if (cap > 0.0f) {
#pragma omp simd
        for (int32_t t = 0; t < n; t++) s[t] = cap * cpu_tanh(s[t] / cap);
    }
#pragma omp simd reduction(max : top)
    for (int32_t t = 0; t < n; t++) top = s[t] > top ? s[t] : top;
#pragma omp simd reduction(+ : sum)
    for (int32_t t = 0; t < n; t++) {
        s[t] = cpu_exp(s[t] - top);
        sum += s[t];
    }
    return sum;
}

/* `heads` queries of one group against n keys of a cache, `step` apart; s: scratch of heads * n. Every key and value is read once for all of them. Inlined with constants for the
 * usual shapes: queries, then sums, stay in registers. d is a multiple of 32. */
static inline __attribute__((always_inline)) void cached_heads(int32_t d, int32_t heads, int32_t n, int64_t step, float scale,
                                                               float cap, const A *query, const A *keys, const A *values,
                                                               float *s, A *out)
{
    cpu_v16 q[MAX_HEADS_AT_ONCE][MAX_HEAD_DIM / 16];
    for (int32_t h = 0; h < heads; h++) {
        for (int32_t j = 0; j < d / 32; j++) {
            LOAD32(query + h * d + 32 * j, &q[h][2 * j], &q[h][2 * j + 1]);
            q[h][2 * j] *= scale, q[h][2 * j + 1] *= scale;
        }
    }
    for (int32_t t = 0; t < n; t++) {
        cpu_v16 products[MAX_HEADS_AT_ONCE] = {{0}};
        for (int32_t j = 0; j < d / 32; j++) {
            cpu_v16 x, y;
            LOAD32(keys + t * step + 32 * j, &x, &y);
            for (int32_t h = 0; h < heads; h++) products[h] += q[h][2 * j] * x + q[h][2 * j + 1] * y;
        }
        for (int32_t h = 0; h < heads; h++) s[h * n + t] = cpu_sum16(products[h]);
    }
    float sum[MAX_HEADS_AT_ONCE];
    for (int32_t h = 0; h < heads; h++) sum[h] = cached_softmax(n, cap, s + h * n);
    cpu_v16 o[MAX_HEADS_AT_ONCE][MAX_HEAD_DIM / 16];
    for (int32_t h = 0; h < heads; h++)
        for (int32_t j = 0; j < d / 16; j++) o[h][j] = (cpu_v16){0};
    for (int32_t t = 0; t < n; t++) {
        for (int32_t j = 0; j < d / 32; j++) {
            cpu_v16 x, y;
            LOAD32(values + t * step + 32 * j, &x, &y);
            for (int32_t h = 0; h < heads; h++) {
                o[h][2 * j] += s[h * n + t] * x;
                o[h][2 * j + 1] += s[h * n + t] * y;
            }
        }
    }
    for (int32_t h = 0; h < heads; h++) {
        for (int32_t j = 0; j < d / 32; j++) STORE32(out + h * d + 32 * j, o[h][2 * j] / sum[h], o[h][2 * j + 1] / sum[h]);
    }
}

/* One query of any width. */
static void cached_head(int64_t d, int32_t n, int64_t step, float scale, float cap, const A *query, const A *keys,
                        const A *values, float *s, A *out)
{
    float q[MAX_HEAD_DIM], o[MAX_HEAD_DIM];
    for (int64_t j = 0; j < d; j++) q[j] = scale * LOAD(query + j), o[j] = 0.0f;
    for (int32_t t = 0; t < n; t++) {
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < d; j++) dot += q[j] * LOAD(keys + t * step + j);
        s[t] = dot;
    }
    float sum = cached_softmax(n, cap, s);
    for (int32_t t = 0; t < n; t++) {
#pragma omp simd
        for (int64_t j = 0; j < d; j++) o[j] += s[t] * LOAD(values + t * step + j);
    }
    for (int64_t j = 0; j < d; j++) STORE(out + j, o[j] / sum);
}

/* The queries of one group, as many at once as registers allow. */
static void cached_group(int64_t d, int64_t group, int32_t n, int64_t step, float scale, float cap, const A *query, const A *keys,
                         const A *values, float *s, A *out)
{
    for (int64_t h = 0; h < group;) {
        const A *q = query + h * d;
        A *o = out + h * d;
        int64_t left = group - h;
        if (d == 64 && left >= 3) {
            cached_heads(64, 3, n, step, scale, cap, q, keys, values, s, o), h += 3;
        } else if (d == 64 && left == 2) {
            cached_heads(64, 2, n, step, scale, cap, q, keys, values, s, o), h += 2;
        } else if (d == 64) {
            cached_heads(64, 1, n, step, scale, cap, q, keys, values, s, o), h += 1;
        } else if (d == 128) {
            cached_heads(128, 1, n, step, scale, cap, q, keys, values, s, o), h += 1;
        } else {
            cached_head(d, n, step, scale, cap, q, keys, values, s, o), h += 1;
        }
    }
}

/* Decoding: a task is one (row, kv head); its keys stay in the cache while the group's queries pass. */
static void op_attention_cached(ra_backend *b, int32_t rows, const ra_attention *a, const void *qv, int64_t ldq,
                                const void *cachev, int64_t slot_stride, int64_t value_offset, const int32_t *slot,
                                const int32_t *length, void *outv)
{
    (void)b;
    int64_t d = a->head_dim, group = a->heads / a->kv_heads, step = (int64_t)a->kv_heads * d;
    int32_t longest = 0;
    for (int32_t i = 0; i < rows; i++) longest = length[i] > longest ? length[i] : longest;
    if (d > MAX_HEAD_DIM) ra_die("attention: heads of %lld are wider than %d", (long long)d, MAX_HEAD_DIM);
    float cap = (float)a->softcap, scale = (float)a->scale;
#pragma omp parallel
    {
        float *s = ra_alloc((size_t)longest * MAX_HEADS_AT_ONCE, sizeof *s);
#pragma omp for schedule(dynamic) collapse(2)
        for (int32_t i = 0; i < rows; i++) {
            for (int32_t kv = 0; kv < a->kv_heads; kv++) {
                int32_t n = length[i], from = a->window > 0 && n > a->window ? n - a->window : 0;
                const A *keys = (const A *)cachev + slot[i] * slot_stride + from * step + kv * d;
                cached_group(d, group, n - from, step, scale, cap, (const A *)qv + i * ldq + kv * group * d, keys,
                             keys + value_offset, s, (A *)outv + ((int64_t)i * a->heads + kv * group) * d);
            }
        }
        ra_free(s);
    }
}
