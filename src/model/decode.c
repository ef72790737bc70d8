/* Single-token steps against a KV cache. */
#include "layer.h"

#include <realign/mem.h>

ra_kv_cache *ra_kv_cache_new(const ra_model *m, int32_t slots, int32_t positions)
{
    ra_kv_cache *c = ra_calloc(1, sizeof *c);
    c->slots = slots;
    c->positions = positions;
    c->value_offset = (int64_t)positions * m->arch.kv_heads * m->arch.head_dim;
    c->slot_stride = 2 * c->value_offset;
    c->layer = ra_calloc((size_t)m->layers, sizeof *c->layer);
    c->length = ra_calloc((size_t)slots, sizeof *c->length);
    for (int32_t i = 0; i < m->layers; i++)
        c->layer[i] = m->b->ops->alloc(m->b, (size_t)slots * (size_t)c->slot_stride * m->b->a_size);
    return c;
}

void ra_kv_cache_free(ra_kv_cache *c, const ra_model *m)
{
    if (!c) return;
    for (int32_t i = 0; i < m->layers; i++) m->b->ops->release(m->b, c->layer[i]);
    ra_free(c->layer);
    ra_free(c->length);
    ra_free(c);
}

void ra_kv_cache_store(const ra_model *m, ra_kv_cache *c, int32_t layer, int32_t rows, const void *qkv, const int32_t *slot,
                       const int32_t *position)
{
    ra_attention attention = ra_attention_of(&m->arch, &m->layer[layer]);
    m->b->ops->cache_store(m->b, rows, &attention, qkv, m->layer[layer].qkv.out, slot, position, c->layer[layer], c->slot_stride,
                           c->value_offset);
}

void ra_model_decode(ra_model *m, ra_kv_cache *c, int32_t n, const int32_t *token, const int32_t *position, const int32_t *slot,
                     ra_activations *acts)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    for (int32_t i = 0; i < n; i++) c->length[i] = position[i] + 1;
    if (m->first) {
        b->ops->embed(b, n, a->hidden, token, m->embedding_scale, (const char *)m->w_a + (size_t)m->embedding * b->a_size,
                      ra_activations_entry(acts, 0));
    }
    for (int32_t i = 0; i < m->layers; i++) {
        const ra_layer *y = &m->layer[i];
        ra_layer_acts *l = ra_activations_layer(acts, m, i, 0);
        ra_attention attention = ra_attention_of(a, y);
        ra_layer_norm_in(m, y, n, l);
        ra_layer_qkv(m, y, n, position, l, acts->wide);
        ra_kv_cache_store(m, c, i, n, l->qkv, slot, position);
        b->ops->attention_cached(b, n, &attention, l->qkv, y->qkv.out, c->layer[i], c->slot_stride, c->value_offset, slot,
                                 c->length, l->att);
        ra_layer_attention_out(m, y, n, l, acts->wide);
        ra_layer_gate_up(m, y, n, l, acts->wide);
        void *x_out = i + 1 < m->layers ? ra_activations_layer(acts, m, i + 1, 0)->x_in : ra_activations_last(acts, 0);
        ra_layer_down(m, y, n, l, acts->wide, x_out);
    }
}
