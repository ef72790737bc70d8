#include "ask.h"

#include "logits.h"

#include <realign/mem.h>
#include <realign/timer.h>

#include <math.h>
#include <string.h>

enum { HEAD_ROWS = 64, HEAD_BLOCK = 8192 }; /* sequences and vocabulary entries of a product with the head: 2 MiB of logits */

struct ra_asker {
    ra_model *m;
    ra_asking_counts counts;
    ra_answer_sink sink;
    void *context;
    int32_t *root; /* (root_count), in slot 0 of the cache */
    int32_t root_count;
    ra_kv_cache *cache;
    int32_t rows, capacity; /* the budget asked for; what is allocated now */
    ra_activations *acts;
    ra_pack pack;
    int32_t *slot, *length; /* (trees) zeros, and how much of the root the tree goes on from */
    int32_t asked;          /* sequences in the pack */
    int64_t *id;            /* (asked) */
    int32_t *last_row;      /* (asked) */
    int32_t answers;
    ra_logits *logits;
    void *answer_head; /* (answers, hidden) A: their rows of the head */
    void *z;           /* (HEAD_ROWS, answers) R */
    void *host;        /* the same, host memory */
    double *logit;     /* (HEAD_ROWS, answers) */
    double *maximum, *sum, *target_logit;
    int32_t *no_target; /* (HEAD_ROWS) -1 */
};

static void release_packs(ra_asker *a)
{
    ra_activations_free(a->acts);
    void *memory[] = {a->pack.token, a->pack.position, a->pack.segment, a->pack.tree_begin,
                      a->slot,       a->length,        a->id,           a->last_row};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

/* Every sequence has a row of its own, and so a segment; every tree has a sequence. */
static void allocate_packs(ra_asker *a, int32_t rows)
{
    size_t n = (size_t)rows;
    release_packs(a);
    a->capacity = rows;
    a->acts = ra_activations_new(a->m, rows, &(ra_keeping){0});
    a->pack = (ra_pack){.token = ra_alloc(n, sizeof(int32_t)),
                        .position = ra_alloc(n, sizeof(int32_t)),
                        .segment = ra_alloc(n, sizeof(ra_segment)),
                        .tree_begin = ra_calloc(n + 1, sizeof(int32_t))};
    a->slot = ra_calloc(n, sizeof(int32_t));
    a->length = ra_alloc(n, sizeof(int32_t));
    a->id = ra_alloc(n, sizeof(int64_t));
    a->last_row = ra_alloc(n, sizeof(int32_t));
}

static void store_root(void *context, int32_t layer, const void *qkv)
{
    ra_asker *a = context; /* slot is all zeros */
    ra_kv_cache_store(a->m, a->cache, layer, a->pack.rows, qkv, a->slot, a->pack.position);
}

/* The root alone through the model; its keys and values stay in the cache. */
static void compute_root(ra_asker *a)
{
    ra_pack *p = &a->pack;
    a->cache = ra_kv_cache_new(a->m, 1, a->root_count > 0 ? a->root_count : 1);
    if (a->root_count == 0) return;
    for (int32_t t = 0; t < a->root_count; t++) {
        p->token[t] = a->root[t];
        p->position[t] = t;
    }
    p->rows = a->root_count;
    p->segments = p->trees = 1;
    p->segment[0] = (ra_segment){.parent = -1, .begin = 0, .end = a->root_count};
    p->tree_begin[0] = 0;
    p->tree_begin[1] = 1;
    ra_model_forward_hooked(a->m, p, a->acts, store_root, a);
    p->rows = p->segments = p->trees = 0;
    a->counts.rows += a->root_count;
}

static void gather_answers(ra_asker *a, const int32_t *answer)
{
    ra_backend *b = a->m->b;
    size_t width = (size_t)a->m->arch.hidden * b->a_size;
    a->answer_head = b->ops->alloc(b, (size_t)a->answers * width);
    for (int32_t i = 0; i < a->answers; i++) {
        b->ops->copy(b, (char *)a->answer_head + (size_t)i * width,
                     (const char *)a->m->w_a + (size_t)a->m->head * b->a_size + (size_t)answer[i] * width, width);
    }
}

ra_asker *ra_asker_new(ra_model *m, int32_t rows, const int32_t *root, int32_t root_count, const int32_t *answer, int32_t answers,
                       ra_answer_sink sink, void *context)
{
    ra_asker *a = ra_calloc(1, sizeof *a);
    double began = ra_now();
    size_t n = (size_t)HEAD_ROWS * (size_t)answers;
    a->m = m;
    a->sink = sink;
    a->context = context;
    a->rows = rows;
    a->root_count = root_count;
    a->root = ra_alloc((size_t)root_count, sizeof *a->root);
    if (root_count) memcpy(a->root, root, (size_t)root_count * sizeof *root);
    a->answers = answers;
    a->logits = ra_logits_new(m, HEAD_ROWS, HEAD_BLOCK, false);
    gather_answers(a, answer);
    a->z = m->b->ops->alloc(m->b, n * m->b->r_size);
    a->host = ra_alloc(n, m->b->r_size);
    a->logit = ra_alloc(n, sizeof *a->logit);
    a->maximum = ra_alloc(HEAD_ROWS, sizeof(double));
    a->sum = ra_alloc(HEAD_ROWS, sizeof(double));
    a->target_logit = ra_alloc(HEAD_ROWS, sizeof(double));
    a->no_target = ra_alloc(HEAD_ROWS, sizeof(int32_t));
    for (int32_t i = 0; i < HEAD_ROWS; i++) a->no_target[i] = -1;
    allocate_packs(a, rows > root_count ? rows : root_count);
    compute_root(a);
    a->counts.seconds += ra_now() - began;
    return a;
}

void ra_asker_free(ra_asker *a)
{
    if (!a) return;
    ra_backend *b = a->m->b;
    release_packs(a);
    ra_kv_cache_free(a->cache, a->m);
    ra_logits_free(a->logits);
    b->ops->release(b, a->answer_head);
    b->ops->release(b, a->z);
    void *memory[] = {a->root, a->host, a->logit, a->maximum, a->sum, a->target_logit, a->no_target};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
    ra_free(a);
}

const ra_asking_counts *ra_asker_counts(const ra_asker *a)
{
    return &a->counts;
}

/* Answers of sequences [first, first + n) of the pack that was run. */
static ra_err answer(ra_asker *a, int32_t first, int32_t n)
{
    ra_backend *b = a->m->b;
    int64_t width = a->m->arch.hidden;
    double cap = a->m->arch.final_softcap;
    ra_logits_take(a->logits, n, a->last_row + first, ra_activations_last(a->acts, 0));
    b->ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, n, a->answers, width, ra_logits_states(a->logits), width, a->answer_head,
                 width, false, true, a->z, a->answers);
    b->ops->download(b, a->host, a->z, (size_t)n * (size_t)a->answers * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, a->logit, b->r, a->host, (int64_t)n * a->answers);
    for (int32_t i = 0; cap > 0.0 && i < n * a->answers; i++) a->logit[i] = cap * tanh(a->logit[i] / cap);
    for (int32_t i = 0; i < n; i++) {
        a->maximum[i] = -INFINITY;
        a->sum[i] = 0.0;
    }
    for (int64_t v0 = 0, nv; v0 < a->m->arch.vocabulary; v0 += nv) {
        const void *z = ra_logits_block(a->logits, v0, &nv);
        b->ops->softmax_update(b, n, nv, v0, cap, z, a->no_target, a->maximum, a->sum, a->target_logit);
    }
    for (int32_t i = 0; i < n; i++)
        RA_TRY(a->sink(a->context, a->id[first + i], a->logit + (int64_t)i * a->answers, a->maximum[i] + log(a->sum[i])));
    return RA_OK;
}

void ra_asker_clear(ra_asker *a)
{
    a->asked = a->pack.rows = a->pack.segments = a->pack.trees = 0;
}

ra_err ra_asker_flush(ra_asker *a)
{
    if (!a->asked) return RA_OK;
    double began = ra_now();
    ra_pack *p = &a->pack;
    int32_t asked = a->asked;
    p->tree_begin[p->trees] = p->segments;
    ra_model_forward_prefixed(a->m, p, a->cache, a->slot, a->length, a->acts);
    a->counts.rows += p->rows;
    a->counts.packs++;
    ra_asker_clear(a);
    ra_err err = RA_OK;
    for (int32_t i = 0; i < asked && err == RA_OK; i += HEAD_ROWS)
        err = answer(a, i, asked - i < HEAD_ROWS ? asked - i : HEAD_ROWS);
    a->counts.seconds += ra_now() - began;
    return err;
}

static ra_err check(const ra_asker *a, const int32_t *token, int32_t count)
{
    if (count < 1) return ra_fail(RA_ERR_DATA, "the sequence is empty: nothing can come after it");
    if (count > a->m->rope_positions)
        return ra_fail(RA_ERR_DATA, "the sequence has %d tokens; the model has %d positions", count, a->m->rope_positions);
    for (int32_t i = 0; i < count; i++) {
        if (token[i] < 0 || token[i] >= a->m->arch.vocabulary) {
            return ra_fail(RA_ERR_DATA, "token id %d at index %d; the vocabulary has 0 to %d", token[i], i,
                           a->m->arch.vocabulary - 1);
        }
    }
    return RA_OK;
}

/* How many tokens the sequence has of the root; its last token is computed in any case. */
static int32_t shared_with_root(const ra_asker *a, const int32_t *token, int32_t count)
{
    int32_t most = a->root_count < count - 1 ? a->root_count : count - 1, n = 0;
    while (n < most && token[n] == a->root[n]) n++;
    return n;
}

/* Whether the pack's last tree goes on from `shared` tokens of the root with exactly token[shared .. branch), and then forks. */
static bool forks_from_last(const ra_asker *a, const int32_t *token, int32_t shared, int32_t branch)
{
    const ra_pack *p = &a->pack;
    if (!p->trees || branch == shared || a->length[p->trees - 1] != shared) return false;
    const ra_segment *stem = &p->segment[p->tree_begin[p->trees - 1]];
    return stem->end - stem->begin == branch - shared && p->segments - p->tree_begin[p->trees - 1] > 1 &&
           memcmp(p->token + stem->begin, token + shared, (size_t)(branch - shared) * sizeof *token) == 0;
}

static void add_segment(ra_pack *p, int32_t parent, const int32_t *token, int32_t from, int32_t to)
{
    p->segment[p->segments++] = (ra_segment){.parent = parent, .begin = p->rows, .end = p->rows + to - from};
    for (int32_t i = from; i < to; i++, p->rows++) {
        p->token[p->rows] = token[i];
        p->position[p->rows] = i;
    }
}

/* A sequence is root | stem | own part. The stem is a segment of its own even where nobody shares it: sums run segment by segment, and a number must not depend on neighbours. */
ra_err ra_asker_add(ra_asker *a, int64_t id, const int32_t *token, int32_t count, int32_t branch)
{
    RA_TRY(check(a, token, count));
    ra_pack *p = &a->pack;
    int32_t shared = shared_with_root(a, token, count);
    if (branch > count - 1) branch = count - 1;
    if (branch < shared) branch = shared;
    bool forks = forks_from_last(a, token, shared, branch);
    if (p->rows && p->rows + count - (forks ? branch : shared) > a->rows) {
        RA_TRY(ra_asker_flush(a));
        forks = false;
    }
    if (count - shared > a->capacity) allocate_packs(a, count - shared);
    if (!forks) {
        p->tree_begin[p->trees] = p->segments;
        a->length[p->trees++] = shared;
        if (branch > shared) add_segment(p, -1, token, shared, branch);
    }
    add_segment(p, branch > shared ? p->tree_begin[p->trees - 1] : -1, token, branch, count);
    a->id[a->asked] = id;
    a->last_row[a->asked++] = p->rows - 1;
    a->counts.sequences++;
    a->counts.tokens += count;
    return RA_OK;
}
