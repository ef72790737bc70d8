#include "ask.h"

#include "answers.h"
#include "relay.h"

#include <realign/mem.h>
#include <realign/timer.h>

#include <string.h>

/* Orders to the stages behind the first: the pack that follows; publish what was found; the round is over. */
enum { ORDER_PACK, ORDER_FINDINGS, ORDER_END };
enum { PACK_WORDS = 5 }; /* order, rows, segments, trees, sequences; then the pack's arrays */

struct ra_asker {
    ra_model *m;
    ra_grid grid;
    ra_relay *relay;
    ra_asking_counts counts;
    ra_answer_sink sink;
    void *context;
    int32_t *root; /* (root_count), in slot 0 of the cache */
    int32_t root_count;
    ra_kv_cache *cache;
    int32_t rows, capacity; /* the budget asked for; what is allocated now */
    ra_activations *acts;
    ra_pack pack;
    int32_t *length;                    /* (trees) how much of the root the tree goes on from */
    int32_t *slot_there, *length_there; /* (rows) zeros; (trees); backend memory */
    int32_t *order;                     /* the pack as words */
    int32_t asked;                      /* sequences in the pack */
    int32_t *last_row;                  /* (asked) */
    int64_t *id;                        /* (asked) */
    int32_t answers;
    ra_answer_reader *reader; /* of the last stage */
    /* sequences that were run and not handed to the sink yet */
    int64_t awaited, room;
    int64_t *awaited_id; /* (awaited) of stage 0 */
    double *found;       /* (awaited, answers + 1) logits, then log sum exp */
};

static void release_packs(ra_asker *a)
{
    ra_backend *b = a->m->b;
    ra_activations_free(a->acts);
    b->ops->release_pack(b, &a->pack);
    if (a->slot_there) b->ops->release(b, a->slot_there);
    if (a->length_there) b->ops->release(b, a->length_there);
    void *memory[] = {a->pack.token, a->pack.position, a->pack.segment, a->pack.tree_begin,
                      a->length,     a->order,         a->id,           a->last_row};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

/* Every sequence has a row of its own, and so a segment; every tree has a sequence. */
static void allocate_packs(ra_asker *a, int32_t rows)
{
    ra_backend *b = a->m->b;
    size_t n = (size_t)rows;
    release_packs(a);
    a->capacity = rows;
    a->acts = ra_activations_new(a->m, rows, &(ra_keeping){0});
    a->pack = (ra_pack){.token = ra_alloc(n, sizeof(int32_t)),
                        .position = ra_alloc(n, sizeof(int32_t)),
                        .segment = ra_alloc(n, sizeof(ra_segment)),
                        .tree_begin = ra_calloc(n + 1, sizeof(int32_t))};
    a->length = ra_alloc(n, sizeof(int32_t));
    a->slot_there = b->ops->alloc(b, n * sizeof(int32_t));
    a->length_there = b->ops->alloc(b, n * sizeof(int32_t));
    a->order = ra_alloc(PACK_WORDS + 7 * n + 1, sizeof(int32_t));
    a->id = ra_alloc(n, sizeof(int64_t));
    a->last_row = ra_alloc(n, sizeof(int32_t));
    if (a->relay) ra_relay_make_room(a->relay, rows);
}

static void store_root(void *context, int32_t layer, const void *qkv)
{
    ra_asker *a = context;
    ra_kv_cache_store(a->m, a->cache, layer, a->pack.rows, qkv, a->slot_there, ra_pack_positions(&a->pack));
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
    a->m->b->ops->place_pack(a->m->b, p);
    ra_relay_enter(a->relay, p->rows, a->acts);
    ra_model_forward_hooked(a->m, p, a->acts, store_root, a);
    ra_relay_leave(a->relay, p->rows, a->acts);
    p->rows = p->segments = p->trees = 0;
    a->counts.rows += a->root_count;
}

/* ---- an asker ---- */
ra_asker *ra_asker_new(ra_model *m, const ra_grid *grid, int32_t rows, const int32_t *root, int32_t root_count,
                       const int32_t *answer, int32_t answers, ra_answer_sink sink, void *context)
{
    ra_asker *a = ra_calloc(1, sizeof *a);
    double began = ra_now();
    a->m = m;
    a->grid = grid ? *grid : ra_grid_alone();
    a->sink = sink;
    a->context = context;
    a->rows = rows;
    a->root_count = root_count;
    a->root = ra_alloc((size_t)root_count, sizeof *a->root);
    if (root_count) memcpy(a->root, root, (size_t)root_count * sizeof *root);
    a->answers = answers;
    if (m->last) a->reader = ra_answer_reader_new(m, answer, answers);
    allocate_packs(a, rows > root_count ? rows : root_count);
    a->relay = ra_relay_new(m, &a->grid, a->capacity);
    compute_root(a);
    a->counts.seconds += ra_now() - began;
    return a;
}

void ra_asker_free(ra_asker *a)
{
    if (!a) return;
    ra_relay_free(a->relay);
    release_packs(a);
    ra_kv_cache_free(a->cache, a->m);
    ra_answer_reader_free(a->reader);
    ra_free(a->root);
    ra_free(a->awaited_id);
    ra_free(a->found);
    ra_free(a);
}

const ra_asking_counts *ra_asker_counts(const ra_asker *a)
{
    return &a->counts;
}

/* ---- a pack ---- */
static double *found_at(const ra_asker *a, int64_t sequence)
{
    return a->found + sequence * (a->answers + 1);
}

static void make_room(ra_asker *a, int64_t sequences)
{
    if (sequences <= a->room) return;
    a->room = 2 * sequences;
    double *found = ra_alloc((size_t)a->room * (size_t)(a->answers + 1), sizeof *found);
    int64_t *id = ra_calloc((size_t)a->room, sizeof *id);
    if (a->awaited) {
        memcpy(found, a->found, (size_t)a->awaited * (size_t)(a->answers + 1) * sizeof *found);
        memcpy(id, a->awaited_id, (size_t)a->awaited * sizeof *id);
    }
    ra_free(a->found);
    ra_free(a->awaited_id);
    a->found = found;
    a->awaited_id = id;
}

/* The pack through this stage's layers; on the last one its answers too. */
static void compute_pack(ra_asker *a)
{
    ra_backend *b = a->m->b;
    ra_pack *p = &a->pack;
    b->ops->place_pack(b, p);
    b->ops->upload(b, a->length_there, a->length, (size_t)p->trees * sizeof *a->length);
    ra_relay_enter(a->relay, p->rows, a->acts);
    ra_model_forward_prefixed(a->m, p, a->cache, a->slot_there, a->length_there, a->acts);
    ra_relay_leave(a->relay, p->rows, a->acts);
    make_room(a, a->awaited + a->asked);
    if (a->m->last)
        ra_answer_reader_read(a->reader, a->asked, a->last_row, ra_activations_last(a->acts, 0), found_at(a, a->awaited));
    a->awaited += a->asked;
    a->counts.rows += p->rows;
    a->counts.packs++;
}

static void forget_pack(ra_asker *a)
{
    a->asked = a->pack.rows = a->pack.segments = a->pack.trees = 0;
}

/* The pack's arrays but for the tokens, which only stage 0 reads, in the order in which they stand in an order. */
static int32_t exchange_arrays(ra_asker *a, int32_t *word, bool write)
{
    const ra_pack *p = &a->pack;
    const struct {
        void *array;
        int32_t words;
    } part[] = {{p->position, p->rows},
                {p->segment, p->segments * (int32_t)(sizeof *p->segment / sizeof *word)},
                {p->tree_begin, p->trees + 1},
                {a->length, p->trees},
                {a->last_row, a->asked}};
    int32_t used = 0;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; used += part[i++].words) {
        if (part[i].words == 0) continue;
        memcpy(write ? word + used : part[i].array, write ? part[i].array : word + used, (size_t)part[i].words * sizeof *word);
    }
    return used;
}

static void order_pack(ra_asker *a)
{
    if (a->grid.stages == 1) return;
    const int32_t head[PACK_WORDS] = {ORDER_PACK, a->pack.rows, a->pack.segments, a->pack.trees, a->asked};
    memcpy(a->order, head, sizeof head);
    ra_relay_order(a->relay, a->order, PACK_WORDS + exchange_arrays(a, a->order + PACK_WORDS, true));
}

static void take_pack(ra_asker *a, const int32_t *word, int32_t words)
{
    if (word[1] > a->capacity) allocate_packs(a, word[1]);
    a->pack.rows = word[1];
    a->pack.segments = word[2];
    a->pack.trees = word[3];
    a->asked = word[4];
    memcpy(a->order, word, (size_t)words * sizeof *word);
    exchange_arrays(a, a->order + PACK_WORDS, false);
}

/* Everything that was run goes to the sink, which may end it. */
static ra_err hand_out(ra_asker *a)
{
    ra_err err = RA_OK;
    for (int64_t i = 0; i < a->awaited && err == RA_OK; i++)
        err = a->sink(a->context, a->awaited_id[i], found_at(a, i), found_at(a, i)[a->answers]);
    a->awaited = 0;
    return err;
}

static void share_findings(ra_asker *a)
{
    size_t bytes = (size_t)a->awaited * (size_t)(a->answers + 1) * sizeof *a->found;
    if (a->m->last) {
        ra_relay_publish(a->relay, a->found, bytes);
    } else {
        ra_relay_hear(a->relay, a->found, bytes);
    }
}

/* On stage 0. With one stage answers are there at once; in a pipeline they are asked for when the packs are on their way. */
static ra_err run_pack(ra_asker *a)
{
    if (!a->asked) return RA_OK;
    double began = ra_now();
    int64_t first = a->awaited;
    a->pack.tree_begin[a->pack.trees] = a->pack.segments;
    order_pack(a);
    compute_pack(a);
    memcpy(a->awaited_id + first, a->id, (size_t)a->asked * sizeof *a->id);
    forget_pack(a);
    ra_err err = a->grid.stages == 1 ? hand_out(a) : RA_OK;
    a->counts.seconds += ra_now() - began;
    return err;
}

static ra_err take_answers(ra_asker *a)
{
    const int32_t order = ORDER_FINDINGS;
    if (a->awaited == 0) return RA_OK;
    double began = ra_now();
    ra_relay_order(a->relay, &order, 1);
    share_findings(a);
    ra_err err = hand_out(a);
    a->counts.seconds += ra_now() - began;
    return err;
}

ra_err ra_asker_flush(ra_asker *a)
{
    RA_TRY(run_pack(a));
    return take_answers(a);
}

ra_err ra_asker_end(ra_asker *a)
{
    const int32_t order = ORDER_END;
    forget_pack(a);
    ra_err err = take_answers(a);
    if (a->grid.stages > 1) ra_relay_order(a->relay, &order, 1);
    return err;
}

void ra_asker_follow(ra_asker *a)
{
    for (;;) {
        int32_t words;
        const int32_t *order = ra_relay_next(a->relay, &words);
        if (*order == ORDER_END) return;
        if (*order == ORDER_PACK) {
            take_pack(a, order, words);
            compute_pack(a);
            forget_pack(a);
        } else {
            share_findings(a);
            a->awaited = 0;
        }
    }
}

/* ---- sequences ---- */
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
        RA_TRY(run_pack(a));
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
