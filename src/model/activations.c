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

static void carve_layer(const ra_model *m, carver *c, int64_t rows, const ra_layer *y, ra_layer_acts *l)
{
    const ra_arch *a = &m->arch;
    size_t as = m->b->a_size, rs = m->b->r_size;
    int64_t h = a->hidden, q = (int64_t)a->heads * a->head_dim, rank = m->lora.rank;
    l->x_in = carve(c, rows * h, rs);
    l->x_mid = carve(c, rows * h, rs);
    l->rstd_in = carve(c, rows, rs);
    l->rstd_ffn = carve(c, rows, rs);
    if (a->post_norms) {
        l->attention_out = carve(c, rows * h, rs);
        l->ffn_out = carve(c, rows * h, rs);
        l->rstd_post = carve(c, rows, rs);
        l->rstd_post_ffn = carve(c, rows, rs);
    }
    l->n1 = carve(c, rows * h, as);
    l->n2 = carve(c, rows * h, as);
    l->qkv = carve(c, rows * y->qkv.out, as);
    l->att = carve(c, rows * q, as);
    l->lse = carve(c, rows * a->heads, rs);
    l->gate_up = carve(c, rows * 2 * a->ffn, as);
    l->h = carve(c, rows * a->ffn, as);
    l->u_qkv = carve(c, rows * y->qkv.adapters * rank, as);
    l->u_o = carve(c, rows * y->o.adapters * rank, as);
    l->u_gate_up = carve(c, rows * y->gate_up.adapters * rank, as);
    l->u_down = carve(c, rows * y->down.adapters * rank, as);
}

static void carve_all(const ra_model *m, carver *c, ra_activations *acts)
{
    const ra_arch *a = &m->arch;
    size_t as = m->b->a_size, rs = m->b->r_size;
    int64_t rows = acts->rows, h = a->hidden;
    const ra_layer *y = &m->layer[0];
    for (int32_t i = 0; i < a->layers; i++) {
        if (i == 0 || acts->keep) {
            carve_layer(m, c, rows, &m->layer[i], &acts->layer[i]);
        } else {
            acts->layer[i] = acts->layer[0];
        }
    }
    acts->last = carve(c, rows * h, rs);
    int32_t width = most(most(y->qkv.out, y->gate_up.out), most(a->hidden, most(a->ffn, a->heads * a->head_dim)));
    int32_t adapters = most(most(y->qkv.adapters, y->o.adapters), most(y->gate_up.adapters, y->down.adapters)) * m->lora.rank;
    acts->wide = carve(c, rows * most(width, adapters), rs);
    if (!acts->keep) return;
    acts->dnarrow = carve(c, rows * h, rs);
    acts->dhidden = carve(c, rows * h, as);
    acts->dqkv = carve(c, rows * y->qkv.out, as);
    acts->datt = carve(c, rows * a->heads * a->head_dim, as);
    acts->dgate_up = carve(c, rows * 2 * a->ffn, as);
    acts->dh = carve(c, rows * a->ffn, as);
    acts->du = carve(c, rows * adapters, as);
}

ra_activations *ra_activations_new(const ra_model *m, int32_t rows, bool keep)
{
    ra_activations *acts = ra_calloc(1, sizeof *acts);
    acts->b = m->b;
    acts->rows = rows;
    acts->keep = keep;
    acts->layer = ra_calloc((size_t)m->arch.layers, sizeof *acts->layer);
    carver measure = {0};
    carve_all(m, &measure, acts);
    acts->block = m->b->ops->alloc(m->b, measure.used);
    acts->bytes = measure.used;
    carver c = {.base = acts->block};
    carve_all(m, &c, acts);
    return acts;
}

void ra_activations_free(ra_activations *acts)
{
    if (!acts) return;
    acts->b->ops->release(acts->b, acts->block);
    ra_free(acts->layer);
    ra_free(acts);
}

void *ra_activations_last(ra_activations *acts)
{
    return acts->last;
}

size_t ra_activations_bytes(const ra_activations *acts)
{
    return acts->bytes;
}
