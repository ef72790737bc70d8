/* The forward pass over a pack, through a run of layers. */
#include "layer.h"

/* What differs between passes: a hook, a prefix in a cache, or neither. */
typedef struct {
    ra_layer_hook hook;
    void *context;
    const ra_kv_cache *cache;
    const int32_t *slot, *length;
} variant;

static void attention(ra_model *m, int32_t index, const ra_pack *pack, const variant *v, ra_layer_acts *l)
{
    ra_backend *b = m->b;
    ra_attention a = ra_attention_of(&m->arch, &m->layer[index]);
    if (v->hook) v->hook(v->context, index, l->qkv);
    if (v->cache) {
        ra_cached_prefix prefix = {v->cache->layer[index], v->cache->slot_stride, v->cache->value_offset, v->slot, v->length};
        b->ops->attention_prefixed(b, pack, &a, &prefix, l->qkv, l->att);
    } else {
        b->ops->attention(b, pack, &a, l->qkv, l->att, l->lse);
    }
}

static void forward(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot, const variant *v)
{
    ra_backend *b = m->b;
    int32_t rows = pack->rows, begin, end;
    ra_chunk_layers(m, chunk, &begin, &end);
    if (m->layer[begin].index == 0) {
        const void *table = (const char *)m->w_a + (size_t)m->embedding * b->a_size;
        b->ops->embed(b, rows, m->arch.hidden, ra_pack_tokens(pack), m->embedding_scale, table, ra_activations_entry(acts, slot));
    }
    for (int32_t i = begin; i < end; i++) {
        const ra_layer *y = &m->layer[i];
        ra_layer_acts *l = ra_activations_layer(acts, m, i, slot);
        ra_layer_norm_in(m, y, rows, l);
        ra_layer_qkv(m, y, rows, ra_pack_positions(pack), l, acts->wide);
        attention(m, i, pack, v, l);
        ra_layer_attention_out(m, y, rows, l, acts->wide);
        ra_layer_gate_up(m, y, rows, l, acts->wide);
        void *x_out = i + 1 < end ? ra_activations_layer(acts, m, i + 1, slot)->x_in : ra_activations_last(acts, slot);
        ra_layer_down(m, y, rows, l, acts->wide, x_out);
    }
}

void ra_model_forward_hooked(ra_model *m, const ra_pack *pack, ra_activations *acts, ra_layer_hook hook, void *context)
{
    forward(m, 0, pack, acts, 0, &(variant){.hook = hook, .context = context});
}

void ra_model_forward_prefixed(ra_model *m, const ra_pack *pack, const ra_kv_cache *cache, const int32_t *slot,
                               const int32_t *length, ra_activations *acts)
{
    forward(m, 0, pack, acts, 0, &(variant){.cache = cache, .slot = slot, .length = length});
}

void ra_model_forward(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot)
{
    forward(m, chunk, pack, acts, slot, &(variant){0});
}
