#include "activations.h"

#include <realign/mem.h>

typedef struct {
    char *base; /* NULL while measuring */
    size_t used;
} carver;

static void *carve(carver *c, int64_t n, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += ((size_t)n * size + 63) / 64 * 64;
    return p;
}

static int32_t most(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static void carve_stream(const ra_model *m, carver *c, int64_t rows, ra_layer_acts *l)
{
    l->x_in = carve(c, rows * m->arch.hidden, m->b->r_size);
}

/* What RA_RECOMPUTE_INPUTS keeps beside the residual stream that enters. */
static void carve_inputs(const ra_model *m, carver *c, int64_t rows, const ra_layer *y, ra_layer_acts *l)
{
    const ra_arch *a = &m->arch;
    size_t as = m->b->a_size, rs = m->b->r_size;
    int64_t h = a->hidden, rank = m->lora.rank;
    l->x_mid = carve(c, rows * h, rs);
    l->rstd_in = carve(c, rows, rs);
    l->rstd_ffn = carve(c, rows, rs);
    if (a->post_norms) {
        l->attention_out = carve(c, rows * h, rs);
        l->ffn_out = carve(c, rows * h, rs);
        l->rstd_post = carve(c, rows, rs);
        l->rstd_post_ffn = carve(c, rows, rs);
    }
    l->qkv = carve(c, rows * y->qkv.out, as);
    l->att = carve(c, rows * a->heads * a->head_dim, as);
    l->lse = carve(c, rows * a->heads, rs);
    l->u_qkv = carve(c, rows * y->qkv.adapters * rank, as);
    l->u_o = carve(c, rows * y->o.adapters * rank, as);
    l->u_down = carve(c, rows * y->down.adapters * rank, as);
}

static void carve_rest(const ra_model *m, carver *c, int64_t rows, const ra_layer *y, ra_layer_acts *l)
{
    const ra_arch *a = &m->arch;
    size_t as = m->b->a_size;
    l->n1 = carve(c, rows * a->hidden, as);
    l->n2 = carve(c, rows * a->hidden, as);
    l->gate_up = carve(c, rows * 2 * a->ffn, as);
    l->h = carve(c, rows * a->ffn, as);
    l->u_gate_up = carve(c, rows * y->gate_up.adapters * m->lora.rank, as);
}

static void carve_split(const ra_model *m, carver *c, int64_t rows, const ra_layer *y, ra_layer_acts *l)
{
    l->d_qkv = carve(c, rows * y->qkv.out, m->b->a_size);
    l->d_o = carve(c, rows * m->arch.hidden, m->b->a_size);
    l->d_down = carve(c, rows * m->arch.hidden, m->b->a_size);
}

/* One layer's memory for everything; layers then share of it what they do not keep. */
static ra_layer_acts carve_shared(const ra_model *m, carver *c, const ra_activations *acts)
{
    ra_layer_acts l = {0};
    const ra_layer *y = &m->layer[0];
    bool keep = acts->keeping.keep;
    ra_recompute recompute = acts->keeping.recompute;
    if (!keep || recompute == RA_RECOMPUTE_FULL) carve_inputs(m, c, acts->rows, y, &l);
    if (!keep || recompute != RA_RECOMPUTE_NONE) carve_rest(m, c, acts->rows, y, &l);
    return l;
}

static void carve_slots(const ra_model *m, carver *c, ra_activations *acts)
{
    const ra_layer *y = &m->layer[0];
    ra_layer_acts shared = carve_shared(m, c, acts);
    for (int32_t s = 0; s < acts->keeping.slots; s++) {
        if (!acts->keeping.keep) carve_stream(m, c, acts->rows, &shared); /* of the slot: it is received into */
        for (int32_t i = 0; i < acts->deep; i++) {
            ra_layer_acts l = shared;
            if (acts->keeping.keep) {
                carve_stream(m, c, acts->rows, &l);
                if (acts->keeping.recompute != RA_RECOMPUTE_FULL) carve_inputs(m, c, acts->rows, y, &l);
                if (acts->keeping.recompute == RA_RECOMPUTE_NONE) carve_rest(m, c, acts->rows, y, &l);
                if (acts->keeping.split) carve_split(m, c, acts->rows, y, &l);
            }
            if (acts->layer) acts->layer[s * acts->deep + i] = l;
        }
        void *last = carve(c, (int64_t)acts->rows * m->arch.hidden, m->b->r_size);
        if (acts->last) acts->last[s] = last;
    }
}

static void carve_scratch(const ra_model *m, carver *c, ra_activations *acts)
{
    const ra_arch *a = &m->arch;
    const ra_layer *y = &m->layer[0];
    size_t as = m->b->a_size, rs = m->b->r_size;
    int64_t rows = acts->rows, h = a->hidden;
    int32_t width = most(most(y->qkv.out, y->gate_up.out), most(a->hidden, most(a->ffn, a->heads * a->head_dim)));
    int32_t adapters = most(most(y->qkv.adapters, y->o.adapters), most(y->gate_up.adapters, y->down.adapters)) * m->lora.rank;
    acts->wide = carve(c, rows * most(width, adapters), rs);
    if (!acts->keeping.keep) return;
    acts->dnarrow = carve(c, rows * h, rs);
    acts->dhidden = carve(c, rows * h, as);
    acts->dqkv = carve(c, rows * y->qkv.out, as);
    acts->datt = carve(c, rows * a->heads * a->head_dim, as);
    acts->dgate_up = carve(c, rows * 2 * a->ffn, as);
    acts->dh = carve(c, rows * a->ffn, as);
    acts->du = carve(c, rows * adapters, as);
}

static void carve_all(const ra_model *m, carver *c, ra_activations *acts)
{
    carve_slots(m, c, acts);
    carve_scratch(m, c, acts);
}

static ra_activations sized(const ra_model *m, int32_t rows, const ra_keeping *keeping)
{
    ra_activations acts = {.b = m->b, .rows = rows, .keeping = *keeping};
    if (acts.keeping.slots < 1) acts.keeping.slots = 1;
    for (int32_t c = 0; c < m->part.chunks; c++) acts.deep = most(acts.deep, m->part.chunk[c].count);
    return acts;
}

size_t ra_activations_bytes(const ra_model *m, int32_t rows, const ra_keeping *keeping)
{
    ra_activations acts = sized(m, rows, keeping);
    carver measure = {0};
    carve_all(m, &measure, &acts);
    return measure.used;
}

ra_activations *ra_activations_new(const ra_model *m, int32_t rows, const ra_keeping *keeping)
{
    ra_activations *acts = ra_calloc(1, sizeof *acts);
    *acts = sized(m, rows, keeping);
    acts->bytes = ra_activations_bytes(m, rows, keeping);
    acts->layer = ra_calloc((size_t)acts->keeping.slots * (size_t)acts->deep, sizeof *acts->layer);
    acts->last = ra_calloc((size_t)acts->keeping.slots, sizeof *acts->last);
    acts->block = m->b->ops->alloc(m->b, acts->bytes);
    carver c = {.base = acts->block};
    carve_all(m, &c, acts);
    return acts;
}

void ra_activations_free(ra_activations *acts)
{
    if (!acts) return;
    acts->b->ops->release(acts->b, acts->block);
    ra_free(acts->layer);
    ra_free(acts->last);
    ra_free(acts);
}

void *ra_activations_entry(ra_activations *acts, int32_t slot)
{
    return acts->layer[slot * acts->deep].x_in;
}

void *ra_activations_last(ra_activations *acts, int32_t slot)
{
    return acts->last[slot];
}

ra_layer_acts *ra_activations_layer(ra_activations *acts, const ra_model *m, int32_t index, int32_t slot)
{
    int32_t within = index;
    for (int32_t c = 0; within >= m->part.chunk[c].count; c++) within -= m->part.chunk[c].count;
    return &acts->layer[slot * acts->deep + within];
}
