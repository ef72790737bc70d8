/* Batched decoding with continuous refilling. Slots of a KV cache hold the sequences in flight; a free slot takes the next prompt of the queue. Prompts enter
 * through packs, several at a time, whose layer hook stores their keys and values; then every sequence in flight gains one token a step. */
#include "choose.h"

#include <realign/log.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <string.h>

enum {
    CACHE_LIMIT_GIB = 4, /* longer sequences get fewer slots */
    PACKED_LIMIT_GIB = 4 /* of weights in the backend's order; layers beyond are multiplied as they are */
};

struct ra_generator {
    ra_model *m;
    ra_generation config;
    ra_generation_counts counts;
    int32_t slots, positions, rows; /* of what is allocated now */
    ra_kv_cache *cache;
    ra_activations *acts; /* for packs of `rows` rows; decoding steps use the first `slots` */
    ra_chooser *chooser;
    ra_pack pack;
    int32_t *pack_slot; /* (rows) slot of each row */
    int32_t active;     /* sequences in flight, dense in the arrays below */
    struct {
        ra_continuation **sequence;
        int32_t *slot, *token, *position, *row, *step;
        int64_t *id;
    } at;               /* (slots): slot, last token, its position, its row in the last pass, tokens so far, prompt id */
    int32_t **response; /* (slots) new tokens of the sequence in a slot, max_new_tokens each */
    int32_t *free_slot; /* (slots) a stack */
    int32_t free_slots;
};

static void release(ra_generator *g)
{
    ra_kv_cache_free(g->cache, g->m);
    ra_activations_free(g->acts);
    ra_chooser_free(g->chooser);
    for (int32_t i = 0; g->response && i < g->slots; i++) ra_free(g->response[i]);
    void *memory[] = {g->pack.token,  g->pack.position, g->pack.segment, g->pack.tree_begin, g->pack_slot,
                      g->at.sequence, g->at.slot,       g->at.token,     g->at.position,     g->at.row,
                      g->at.step,     g->at.id,         g->response,     g->free_slot};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) ra_free(memory[i]);
}

/* Slots for sequences of `positions` tokens, as many as asked for or as the limit on the cache allows. */
static int32_t slots_for(const ra_generator *g, int32_t positions)
{
    const ra_arch *a = &g->m->arch;
    int64_t slot_bytes = 2 * (int64_t)positions * a->kv_heads * a->head_dim * a->layers * (int64_t)g->m->b->a_size;
    int64_t fit = ((int64_t)CACHE_LIMIT_GIB << 30) / slot_bytes;
    return fit >= g->config.batch ? g->config.batch : fit < 1 ? 1 : (int32_t)fit;
}

static void allocate(ra_generator *g, int32_t positions, int32_t rows)
{
    release(g);
    size_t n = (size_t)slots_for(g, positions), longest = (size_t)rows;
    g->positions = positions;
    g->rows = rows;
    g->slots = (int32_t)n;
    g->cache = ra_kv_cache_new(g->m, g->slots, positions);
    g->acts = ra_activations_new(g->m, rows > g->slots ? rows : g->slots, &(ra_keeping){0});
    g->chooser = ra_chooser_new(g->m, g->slots, &g->config.sampling);
    g->pack.token = ra_alloc(longest, sizeof(int32_t));
    g->pack.position = ra_alloc(longest, sizeof(int32_t));
    g->pack.segment = ra_alloc(n, sizeof(ra_segment));
    g->pack.tree_begin = ra_alloc(n + 1, sizeof(int32_t));
    g->pack_slot = ra_alloc(longest, sizeof *g->pack_slot);
    g->at.sequence = ra_alloc(n, sizeof *g->at.sequence);
    g->at.slot = ra_alloc(n, sizeof(int32_t));
    g->at.token = ra_alloc(n, sizeof(int32_t));
    g->at.position = ra_alloc(n, sizeof(int32_t));
    g->at.row = ra_alloc(n, sizeof(int32_t));
    g->at.step = ra_alloc(n, sizeof(int32_t));
    g->at.id = ra_alloc(n, sizeof(int64_t));
    g->response = ra_alloc(n, sizeof *g->response);
    g->free_slot = ra_alloc(n, sizeof *g->free_slot);
    for (size_t i = 0; i < n; i++) g->response[i] = ra_alloc((size_t)g->config.max_new_tokens, sizeof(int32_t));
}

ra_generator *ra_generator_new(ra_model *m, const ra_generation *config)
{
    ra_generator *g = ra_calloc(1, sizeof *g);
    g->m = m;
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
    ra_kv_cache_store(g->m, g->cache, layer, g->pack.rows, qkv, g->pack_slot, g->pack.position);
}

static bool stops(const ra_generator *g, int32_t token)
{
    for (int32_t i = 0; i < g->config.stops; i++) {
        if (g->config.stop[i] == token) return true;
    }
    return false;
}

/* Chooses a token for the sequences in flight from `first` on; finished ones give their slots back. `at.row` says where their states are. */
static ra_err advance(ra_generator *g, int32_t first)
{
    ra_chooser_choose(g->chooser, g->active - first, g->at.row + first, ra_activations_last(g->acts, 0), g->at.id + first,
                      g->at.step + first, g->at.token + first);
    int32_t kept = first;
    for (int32_t i = first; i < g->active; i++) {
        ra_continuation *c = g->at.sequence[i];
        int32_t slot = g->at.slot[i], token = g->at.token[i], count = g->at.step[i] + 1, position = g->at.position[i] + 1;
        if (token < 0)
            return ra_fail(RA_ERR_NUMERIC, "prompt %lld: the logits of new token %d are not numbers", (long long)c->id, count);
        g->response[slot][count - 1] = token;
        c->stopped = stops(g, token);
        if (c->stopped || count == g->config.max_new_tokens || position + 1 >= g->m->rope_positions) {
            c->token = ra_alloc((size_t)count, sizeof *c->token);
            c->count = count;
            memcpy(c->token, g->response[slot], (size_t)count * sizeof *c->token);
            g->counts.new_tokens += count;
            g->free_slot[g->free_slots++] = slot;
            if (g->config.finished) g->config.finished(g->config.context, c);
            continue;
        }
        g->at.sequence[kept] = c;
        g->at.slot[kept] = slot;
        g->at.token[kept] = token;
        g->at.position[kept] = position;
        g->at.step[kept] = count;
        g->at.id[kept] = c->id;
        kept++;
    }
    g->active = kept;
    return RA_OK;
}

/* Prompts from the queue into free slots, one pack. */
static ra_err prefill(ra_generator *g, ra_continuation *sequence, int64_t n, int64_t *next)
{
    ra_pack *p = &g->pack;
    int32_t first = g->active;
    p->rows = p->segments = p->trees = 0;
    for (; *next < n && g->free_slots > 0; ++*next) {
        ra_continuation *c = &sequence[*next];
        if (p->rows && p->rows + c->prompt_count > g->config.prefill_rows) break;
        int32_t slot = g->free_slot[--g->free_slots], i = g->active++;
        for (int32_t t = 0; t < c->prompt_count; t++) {
            p->token[p->rows + t] = c->prompt[t];
            p->position[p->rows + t] = t;
            g->pack_slot[p->rows + t] = slot;
        }
        p->tree_begin[p->trees++] = p->segments;
        p->segment[p->segments++] = (ra_segment){.parent = -1, .begin = p->rows, .end = p->rows + c->prompt_count};
        p->rows += c->prompt_count;
        g->at.sequence[i] = c;
        g->at.slot[i] = slot;
        g->at.position[i] = c->prompt_count - 1;
        g->at.row[i] = p->rows - 1;
        g->at.step[i] = 0;
        g->at.id[i] = c->id;
    }
    p->tree_begin[p->trees] = p->segments;
    ra_model_forward_hooked(g->m, p, g->acts, store_keys, g);
    g->counts.prompt_tokens += p->rows;
    return advance(g, first);
}

static ra_err step(ra_generator *g)
{
    ra_model_decode(g->m, g->cache, g->active, g->at.token, g->at.position, g->at.slot, g->acts);
    for (int32_t i = 0; i < g->active; i++) g->at.row[i] = i;
    g->counts.steps++;
    return advance(g, 0);
}

static ra_err run(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    int64_t next = 0;
    g->active = 0;
    for (g->free_slots = 0; g->free_slots < g->slots; g->free_slots++) g->free_slot[g->free_slots] = g->slots - 1 - g->free_slots;
    while (next < n || g->active > 0) {
        if (g->config.halt && g->config.halt(g->config.context)) return ra_fail(RA_ERR_STOPPED, "stopped while generating");
        double began = ra_now();
        while (next < n && g->free_slots > 0) RA_TRY(prefill(g, sequence, n, &next));
        double filled = ra_now();
        g->counts.prefill_s += filled - began;
        if (g->active > 0) RA_TRY(step(g));
        g->counts.decode_s += ra_now() - filled;
    }
    return RA_OK;
}

ra_err ra_generator_run(ra_generator *g, ra_continuation *sequence, int64_t n)
{
    int32_t longest = 0;
    for (int64_t i = 0; i < n; i++) {
        sequence[i].token = NULL;
        sequence[i].count = 0;
        sequence[i].stopped = false;
        ra_err bad = ra_generator_check(g, &sequence[i]);
        if (bad != RA_OK) return ra_fail_in(bad, "prompt %lld", (long long)sequence[i].id);
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
    for (int64_t i = 0; err != RA_OK && i < n; i++) {
        ra_free(sequence[i].token);
        sequence[i].token = NULL;
        sequence[i].count = 0;
    }
    return err;
}
