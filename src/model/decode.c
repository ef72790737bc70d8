/* Single-token steps against a KV cache. */
#include "activations.h"
#include "layer.h"

#include <realign/mem.h>

ra_kv_cache *ra_kv_cache_new(const ra_model *m, int32_t slots, int32_t positions)
{
    ra_kv_cache *c = ra_calloc(1, sizeof *c);
    c->slots = slots;
    c->positions = positions;
    c->value_offset = (int64_t)positions * m->arch.kv_heads * m->arch.head_dim;
    c->slot_stride = 2 * c->value_offset;
    c->layer = ra_calloc((size_t)m->arch.layers, sizeof *c->layer);
    for (int32_t i = 0; i < m->arch.layers; i++)
        c->layer[i] = m->b->ops->alloc(m->b, (size_t)(slots * c->slot_stride) * m->b->a_size);
    return c;
}

void ra_kv_cache_free(ra_kv_cache *c, const ra_model *m)
{
    if (!c) return;
    for (int32_t i = 0; i < m->arch.layers; i++) m->b->ops->release(m->b, c->layer[i]);
    ra_free(c->layer);
    ra_free(c);
}

void ra_kv_cache_store(const ra_model *m, ra_kv_cache *c, int32_t layer, const void *qkv, int32_t begin, int32_t end,
                       int32_t slot, int32_t at)
{
    ra_backend *b = m->b;
    size_t as = b->a_size, width = (size_t)(m->arch.kv_heads * m->arch.head_dim), q = (size_t)(m->arch.heads * m->arch.head_dim);
    char *to = (char *)c->layer[layer] + (size_t)(slot * c->slot_stride) * as;
    for (int32_t t = begin; t < end; t++, at++) {
        const char *row = (const char *)qkv + (size_t)t * (q + 2 * width) * as;
        b->ops->copy(b, to + (size_t)at * width * as, row + q * as, width * as);
        b->ops->copy(b, to + ((size_t)c->value_offset + (size_t)at * width) * as, row + (q + width) * as, width * as);
    }
}

void ra_model_decode(ra_model *m, ra_kv_cache *c, int32_t n, const int32_t *token, const int32_t *position, const int32_t *slot,
                     ra_activations *acts)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int32_t *length = ra_alloc((size_t)n, sizeof *length);
    for (int32_t i = 0; i < n; i++) length[i] = position[i] + 1;
    b->ops->embed(b, n, a->hidden, token, m->embedding_scale, (const char *)m->w_a + (size_t)m->embedding * b->a_size,
                  acts->layer[0].x_in);
    for (int32_t i = 0; i < a->layers; i++) {
        ra_layer_acts *l = &acts->layer[i];
        ra_attention attention = ra_attention_of(a, i);
        ra_layer_qkv(m, i, n, position, acts);
        for (int32_t j = 0; j < n; j++) ra_kv_cache_store(m, c, i, l->qkv, j, j + 1, slot[j], position[j]);
        b->ops->attention_cached(b, n, &attention, l->qkv, m->layer[i].qkv.out, c->layer[i], c->slot_stride, c->value_offset,
                                 slot, length, l->att);
        ra_layer_attention_out(m, i, n, acts);
        ra_layer_feed_forward(m, i, n, acts, i + 1 < a->layers ? acts->layer[i + 1].x_in : acts->last);
    }
    ra_free(length);
}
