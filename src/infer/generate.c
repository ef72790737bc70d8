/* Batched decoding with continuous refilling. Slots of a KV cache hold the sequences in flight; a free slot takes the next prompt of the queue. Prompts enter
 * through packs, several at a time, whose layer hook stores their keys and values; then every sequence in flight gains one token a step.
 *
 * In a pipeline the slots form as many groups as there are stages, so that all stages work at once. The groups have turns, in order, and each turn is one pass: a pack of
 * prompts or a step. Before its turn a group needs the tokens of its last pass, which the last stage chose and published while the other groups had theirs. Every stage goes through
 * the same turns and draws the same conclusions from the same tokens; only whether to halt is stage 0's to say, and so a turn begins with its order. */
#include "choose.h"
#include "relay.h"

#include <realign/log.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <string.h>

enum {
    CACHE_LIMIT_GIB = 4, /* longer sequences get fewer slots */
    PACKED_LIMIT_GIB = 4 /* of weights in the backend's order; layers beyond are multiplied as they are */
};
enum { ORDER_HALT, ORDER_GO };

/* Sequences that are decoded together. */
typedef struct {
    int32_t active;                                            /* in flight, dense in the arrays below */
    int32_t known;                                             /* those from here on wait for the token of the last pass */
    ra_continuation **sequence;                                /* (slots) */
    int32_t *slot, *token, *position, *row, *step, *free_slot; /* (slots) slot, last token, its position, its row in the last
                                                                  pass, tokens so far; a stack */
    int64_t *id;                                               /* (slots) */
    int32_t free_slots;
} group;

struct ra_generator {
    ra_model *m;
    ra_grid grid;
    ra_generation config;
    ra_generation_counts counts;
    int32_t groups, slots, positions, rows; /* of what is allocated now; slots: of a group */
    group *group;
    ra_kv_cache *cache;
    ra_activations *acts; /* for packs of `rows` rows; decoding steps use the first `slots` */
    ra_chooser *chooser;  /* of the last stage */
    ra_relay *relay;
    ra_pack pack;
    int32_t *pack_slot, *pack_slot_there; /* (rows) slot of each row; there: backend memory */
    int32_t **response;                   /* (groups * slots) new tokens of the sequence in a slot, max_new_tokens each */
};

static void release_group(group *x)
{
    void *memory[] = {x->sequence, x->slot, x->token, x->position, x->row, x->step, x->free_slot, x->id};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

static void release(ra_generator *g)
{
    ra_backend *b = g->m->b;
    ra_relay_free(g->relay);
    ra_kv_cache_free(g->cache, g->m);
    ra_activations_free(g->acts);
    ra_chooser_free(g->chooser);
    b->ops->release_pack(b, &g->pack);
    if (g->pack_slot_there) b->ops->release(b, g->pack_slot_there);
    for (int32_t i = 0; g->response && i < g->groups * g->slots; i++) ra_free(g->response[i]);
    for (int32_t i = 0; g->group && i < g->groups; i++) release_group(&g->group[i]);
    void *memory[] = {g->pack.token, g->pack.position, g->pack.segment, g->pack.tree_begin, g->pack_slot, g->response, g->group};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

/* Slots of a group for sequences of `positions` tokens, as many as asked for or as the limit on the cache allows; the same on all stages. */
static int32_t slots_for(const ra_generator *g, int32_t positions)
{
    const ra_arch *a = &g->m->arch;
    int32_t layers = (a->layers + g->grid.stages - 1) / g->grid.stages;
    int64_t slot_bytes = 2 * (int64_t)positions * a->kv_heads * a->head_dim * layers * (int64_t)g->m->b->a_size;
    int64_t fit = ((int64_t)CACHE_LIMIT_GIB << 30) / (slot_bytes * g->groups);
    return fit >= g->config.batch ? g->config.batch : fit < 1 ? 1 : (int32_t)fit;
}

static void allocate_group(group *x, size_t slots)
{
    int32_t **column[] = {&x->slot, &x->token, &x->position, &x->row, &x->step, &x->free_slot};
    x->sequence = ra_alloc(slots, sizeof *x->sequence);
    for (size_t i = 0; i < sizeof column / sizeof column[0]; i++) *column[i] = ra_alloc(slots, sizeof(int32_t));
    x->id = ra_alloc(slots, sizeof *x->id);
}

static void allocate(ra_generator *g, int32_t positions, int32_t rows)
{
    release(g);
    g->groups = g->grid.stages;
    g->positions = positions;
    g->rows = rows;
    g->slots = slots_for(g, positions);
    size_t n = (size_t)g->slots, all = n * (size_t)g->groups, longest = (size_t)rows;
    int32_t widest = rows > g->slots ? rows : g->slots;
    g->cache = ra_kv_cache_new(g->m, g->groups * g->slots, positions);
    g->acts = ra_activations_new(g->m, widest, &(ra_keeping){0});
    g->chooser = g->m->last ? ra_chooser_new(g->m, g->slots, &g->config.sampling) : NULL;
    g->relay = ra_relay_new(g->m, &g->grid, widest);
    g->pack = (ra_pack){.token = ra_alloc(longest, sizeof(int32_t)),
                        .position = ra_alloc(longest, sizeof(int32_t)),
                        .segment = ra_alloc(n, sizeof(ra_segment)),
                        .tree_begin = ra_alloc(n + 1, sizeof(int32_t))};
    g->pack_slot = ra_alloc(longest, sizeof *g->pack_slot);
    g->pack_slot_there = g->m->b->ops->alloc(g->m->b, longest * sizeof *g->pack_slot_there);
    g->group = ra_calloc((size_t)g->groups, sizeof *g->group);
    for (int32_t i = 0; i < g->groups; i++) allocate_group(&g->group[i], n);
    g->response = ra_alloc(all, sizeof *g->response);
    for (size_t i = 0; i < all; i++) g->response[i] = ra_alloc((size_t)g->config.max_new_tokens, sizeof(int32_t));
}

ra_generator *ra_generator_new(ra_model *m, const ra_grid *grid, const ra_generation *config)
{
    ra_generator *g = ra_calloc(1, sizeof *g);
    g->m = m;
    g->grid = grid ? *grid : ra_grid_alone();
    g->config = *config;
    if (m->training == RA_FROZEN) ra_model_pack(m, (int64_t)PACKED_LIMIT_GIB << 30);
    return g;
}

void ra_generator_free(ra_generator *g)
{
    if (!g) return;
    release(g);
    ra_free(g);
}

const ra_generation_counts *ra_generator_counts(const ra_generator *g)
{
    return &g->counts;
}

ra_err ra_generator_check(const ra_generator *g, const ra_continuation *c)
{
    if (c->prompt_count < 1) return ra_fail(RA_ERR_DATA, "the prompt is empty: there is nothing to continue");
    if (c->prompt_count >= g->m->rope_positions) {
        return ra_fail(RA_ERR_DATA, "the prompt has %d tokens; the model has %d positions, and a response needs some",
                       c->prompt_count, g->m->rope_positions);
    }
    for (int32_t i = 0; i < c->prompt_count; i++) {
        if (c->prompt[i] < 0 || c->prompt[i] >= g->m->arch.vocabulary) {
            return ra_fail(RA_ERR_DATA, "token id %d at index %d; the vocabulary has 0 to %d", c->prompt[i], i,
                           g->m->arch.vocabulary - 1);
        }
    }
    return RA_OK;
}

static void store_keys(void *context, int32_t layer, const void *qkv)
{
    ra_generator *g = context;
    ra_kv_cache_store(g->m, g->cache, layer, g->pack.rows, qkv, g->pack_slot_there, ra_pack_positions(&g->pack));
}

static bool stops(const ra_generator *g, int32_t token)
{
    for (int32_t i = 0; i < g->config.stops; i++) {
        if (g->config.stop[i] == token) return true;
    }
    return false;
}

/* ---- passes ---- */
static bool waits(const group *x)
{
    return x->known < x->active;
}

static size_t awaited_bytes(const group *x)
{
    return (size_t)(x->active - x->known) * sizeof *x->token;
}

/* A pass over the sequences from `first` on has been through this stage: `row` says where their states are. */
static void end_pass(ra_generator *g, group *x, int32_t first, int32_t rows)
{
    ra_relay_leave(g->relay, rows, g->acts);
    x->known = first;
    if (!g->m->last) return;
    ra_chooser_choose(g->chooser, x->active - first, x->row + first, ra_activations_last(g->acts, 0), x->id + first,
                      x->step + first, x->token + first);
    ra_relay_publish(g->relay, x->token + first, awaited_bytes(x));
}

/* Prompts from the queue into free slots, one pack. */
static void prefill(ra_generator *g, group *x, ra_continuation *sequence, int64_t n, int64_t *next)
{
    ra_backend *b = g->m->b;
    ra_pack *p = &g->pack;
    int32_t first = x->active;
    p->rows = p->segments = p->trees = 0;
    for (; *next < n && x->free_slots > 0; ++*next) {
        ra_continuation *c = &sequence[*next];
        if (p->rows && p->rows + c->prompt_count > g->config.prefill_rows) break;
        int32_t slot = x->free_slot[--x->free_slots], i = x->active++;
        for (int32_t t = 0; t < c->prompt_count; t++) {
            p->token[p->rows + t] = c->prompt[t];
            p->position[p->rows + t] = t;
            g->pack_slot[p->rows + t] = slot;
        }
        p->tree_begin[p->trees++] = p->segments;
        p->segment[p->segments++] = (ra_segment){.parent = -1, .begin = p->rows, .end = p->rows + c->prompt_count};
        p->rows += c->prompt_count;
        x->sequence[i] = c;
        x->slot[i] = slot;
        x->position[i] = c->prompt_count - 1;
        x->row[i] = p->rows - 1;
        x->step[i] = 0;
        x->id[i] = c->id;
    }
    p->tree_begin[p->trees] = p->segments;
    b->ops->place_pack(b, p);
    b->ops->upload(b, g->pack_slot_there, g->pack_slot, (size_t)p->rows * sizeof *g->pack_slot);
    ra_relay_enter(g->relay, p->rows, g->acts);
    ra_model_forward_hooked(g->m, p, g->acts, store_keys, g);
    g->counts.prompt_tokens += p->rows;
    end_pass(g, x, first, p->rows);
}

static void step(ra_generator *g, group *x)
{
    ra_relay_enter(g->relay, x->active, g->acts);
    ra_model_decode(g->m, g->cache, x->active, x->token, x->position, x->slot, g->acts);
    for (int32_t i = 0; i < x->active; i++) x->row[i] = i;
    g->counts.steps++;
    end_pass(g, x, 0, x->active);
}

/* ---- turns ---- */
static void complete(ra_generator *g, ra_continuation *c, const int32_t *token, int32_t count)
{
    c->token = ra_alloc((size_t)count, sizeof *c->token);
    c->count = count;
    memcpy(c->token, token, (size_t)count * sizeof *c->token);
    g->counts.new_tokens += count;
    if (g->config.finished && g->grid.stage == 0) g->config.finished(g->config.context, c);
}

/* The tokens of the group's last pass; finished sequences give their slots back. */
static ra_err take_tokens(ra_generator *g, group *x)
{
    if (!waits(x)) return RA_OK;
    if (!g->m->last) ra_relay_hear(g->relay, x->token + x->known, awaited_bytes(x));
    int32_t first = x->known, n = x->active, kept = first;
    x->known = n;
    for (int32_t i = first; i < n; i++) {
        ra_continuation *c = x->sequence[i];
        int32_t slot = x->slot[i], token = x->token[i], count = x->step[i] + 1, position = x->position[i] + 1;
        if (token < 0)
            return ra_fail(RA_ERR_NUMERIC, "prompt %lld: the logits of new token %d are not numbers", (long long)c->id, count);
        g->response[slot][count - 1] = token;
        c->stopped = stops(g, token);
        if (c->stopped || count == g->config.max_new_tokens || position + 1 >= g->m->rope_positions) {
            x->free_slot[x->free_slots++] = slot;
            complete(g, c, g->response[slot], count);
            continue;
        }
        x->sequence[kept] = c;
        x->slot[kept] = slot;
        x->token[kept] = token;
        x->position[kept] = position;
        x->step[kept] = count;
        x->id[kept] = c->id;
        kept++;
    }
    x->active = x->known = kept;
    return RA_OK;
}

/* Stage 0 says whether to halt; the others hear of it. */
static bool must_halt(ra_generator *g)
{
    int32_t words, order = ORDER_GO;
    if (g->grid.stage > 0) return *ra_relay_next(g->relay, &words) == ORDER_HALT;
    if (g->config.halt && g->config.halt(g->config.context)) order = ORDER_HALT;
    ra_relay_order(g->relay, &order, 1);
    return order == ORDER_HALT;
}

/* *passed: there was something to do. */
static ra_err take_turn(ra_generator *g, group *x, ra_continuation *sequence, int64_t n, int64_t *next, bool *passed)
{
    double began = ra_now();
    RA_TRY(take_tokens(g, x));
    bool fills = *next < n && x->free_slots > 0;
    *passed = fills || x->active > 0;
    if (*passed && must_halt(g)) return ra_fail(RA_ERR_STOPPED, "stopped while generating");
    if (fills) {
        prefill(g, x, sequence, n, next);
    } else if (*passed) {
        step(g, x);
    }
    *(fills ? &g->counts.prefill_s : &g->counts.decode_s) += ra_now() - began;
    return RA_OK;
}

/* After an error at group `at`'s turn, the same on all stages: tokens that are on their way, in the order of their passes. */
static void let_go(ra_generator *g, int32_t at)
{
    for (int32_t k = 1; k < g->groups; k++) {
        group *x = &g->group[(at + k) % g->groups];
        if (waits(x) && !g->m->last) ra_relay_hear(g->relay, x->token + x->known, awaited_bytes(x));
    }
}

/* Few prompts are dealt to all groups. */
static void begin_groups(ra_generator *g, int64_t n)
{
    int64_t share = (n + g->groups - 1) / g->groups;
    int32_t room = share < g->slots ? (int32_t)share : g->slots;
    for (int32_t i = 0; i < g->groups; i++) {
        group *x = &g->group[i];
        x->active = x->known = 0;
        for (x->free_slots = 0; x->free_slots < room; x->free_slots++)
            x->free_slot[x->free_slots] = i * g->slots + room - 1 - x->free_slots;
    }
}

static ra_err run(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    int64_t next = 0;
    begin_groups(g, n);
    for (bool busy = true; busy;) {
        busy = false;
        for (int32_t i = 0; i < g->groups; i++) {
            bool passed;
            ra_err err = take_turn(g, &g->group[i], sequence, n, &next, &passed);
            if (err != RA_OK) {
                let_go(g, i);
                return err;
            }
            busy |= passed;
        }
    }
    return RA_OK;
}

/* ---- sequences ---- */
static ra_err check_all(const ra_generator *g, ra_continuation *sequence, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sequence[i].token = NULL;
        sequence[i].count = 0;
        sequence[i].stopped = false;
        ra_err bad = ra_generator_check(g, &sequence[i]);
        if (bad != RA_OK) return ra_fail_in(bad, "prompt %lld", (long long)sequence[i].id);
    }
    return RA_OK;
}

static void drop_tokens(ra_continuation *sequence, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        ra_free(sequence[i].token);
        sequence[i].token = NULL;
        sequence[i].count = 0;
    }
}

static ra_err run_here(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    int32_t longest = 0;
    for (int64_t i = 0; i < n; i++) {
        if (sequence[i].prompt_count > longest) longest = sequence[i].prompt_count;
    }
    if (n == 0) return RA_OK;
    int64_t positions = (int64_t)longest + g->config.max_new_tokens;
    if (positions > g->m->rope_positions) positions = g->m->rope_positions;
    int32_t rows = longest > g->config.prefill_rows ? longest : g->config.prefill_rows;
    if (positions > g->positions || rows > g->rows) {
        allocate(g, positions > g->positions ? (int32_t)positions : g->positions, rows > g->rows ? rows : g->rows);
    }
    ra_err err = run(g, sequence, n);
    if (err != RA_OK) drop_tokens(sequence, n);
    return err;
}

/* The prompts of stage 0 go to all stages. */
static ra_err run_spread(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    ra_sequence *mine = ra_alloc((size_t)n, sizeof *mine);
    for (int64_t i = 0; i < n; i++)
        mine[i] = (ra_sequence){.id = sequence[i].id, .token = sequence[i].prompt, .count = sequence[i].prompt_count};
    ra_sequence *spread = ra_relay_spread(&g->grid, mine, &n);
    bool leads = g->grid.stage == 0;
    ra_continuation *all = leads ? sequence : ra_calloc((size_t)n, sizeof *all);
    for (int64_t i = 0; i < n && !leads; i++)
        all[i] = (ra_continuation){.id = spread[i].id, .prompt = spread[i].token, .prompt_count = spread[i].count};
    ra_err err = run_here(g, all, n);
    if (!leads) {
        drop_tokens(all, n);
        ra_free(all);
        ra_free(spread);
    }
    ra_free(mine);
    return err;
}

ra_err ra_generator_run(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    if (g->grid.stage > 0) n = 0;
    RA_TRY(ra_grid_agree(&g->grid, check_all(g, sequence, n)));
    return g->grid.stages > 1 ? run_spread(g, sequence, n) : run_here(g, sequence, n);
}
