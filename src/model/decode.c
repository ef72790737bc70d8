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
    int32_t **step[] = {&c->token, &c->position, &c->slot, &c->length};
    for (size_t i = 0; i < sizeof step / sizeof *step; i++) *step[i] = m->b->ops->alloc(m->b, (size_t)slots * sizeof(int32_t));
    c->host_length = ra_calloc((size_t)slots, sizeof *c->host_length);
    for (int32_t i = 0; i < m->layers; i++)
        c->layer[i] = m->b->ops->alloc(m->b, (size_t)slots * (size_t)c->slot_stride * m->b->a_size);
    return c;
}

void ra_kv_cache_free(ra_kv_cache *c, const ra_model *m)
{
    if (!c) return;
    for (int32_t i = 0; i < m->layers; i++) m->b->ops->release(m->b, c->layer[i]);
    int32_t *step[] = {c->token, c->position, c->slot, c->length};
    for (size_t i = 0; i < sizeof step / sizeof *step; i++) m->b->ops->release(m->b, step[i]);
    ra_free(c->layer);
    ra_free(c->host_length);
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
    size_t bytes = (size_t)n * sizeof(int32_t);
    for (int32_t i = 0; i < n; i++) c->host_length[i] = position[i] + 1;
    b->ops->upload(b, c->length, c->host_length, bytes);
    b->ops->upload(b, c->position, position, bytes);
    b->ops->upload(b, c->slot, slot, bytes);
    if (m->first) {
        b->ops->upload(b, c->token, token, bytes);
        b->ops->embed(b, n, a->hidden, c->token, m->embedding_scale, (const char *)m->w_a + (size_t)m->embedding * b->a_size,
                      ra_activations_entry(acts, 0));
    }
    for (int32_t i = 0; i < m->layers; i++) {
        const ra_layer *y = &m->layer[i];
        ra_layer_acts *l = ra_activations_layer(acts, m, i, 0);
        ra_attention attention = ra_attention_of(a, y);
        ra_layer_norm_in(m, y, n, l);
        ra_layer_qkv(m, y, n, c->position, l, acts->wide);
        ra_kv_cache_store(m, c, i, n, l->qkv, c->slot, c->position);
        b->ops->attention_cached(b, n, &attention, l->qkv, y->qkv.out, c->layer[i], c->slot_stride, c->value_offset, c->slot,
                                 c->length, l->att);
        ra_layer_attention_out(m, y, n, l, acts->wide);
        ra_layer_gate_up(m, y, n, l, acts->wide);
        void *x_out = i + 1 < m->layers ? ra_activations_layer(acts, m, i + 1, 0)->x_in : ra_activations_last(acts, 0);
        ra_layer_down(m, y, n, l, acts->wide, x_out);
    }
}
