/* The forward pass over a pack. */
#include "activations.h"
#include "layer.h"
#include "linear.h"

static const void *vector(const ra_model *m, int64_t offset)
{
    return (const char *)m->vectors + (size_t)offset * m->b->r_size;
}

ra_attention ra_attention_of(const ra_arch *a, int32_t layer)
{
    return (ra_attention){.heads = a->heads,
                          .kv_heads = a->kv_heads,
                          .head_dim = a->head_dim,
                          .scale = a->query_scale,
                          .softcap = a->attention_softcap,
                          .window = a->layer_windowed[layer] ? a->window : 0};
}

/* x_out = x_in + sub(norm(x_in)), with a second norm on the sub-layer's output where the family has post-norms. */
static void into_residual(ra_model *m, const ra_linear *l, int32_t rows, const void *in, const void *x, void *x_out,
                          void *sub_out, int64_t post_norm, void *rstd_post, void *u, void *wide)
{
    ra_backend *b = m->b;
    size_t bytes = (size_t)rows * (size_t)m->arch.hidden * b->r_size;
    b->ops->copy(b, x_out, x, bytes);
    if (!m->arch.post_norms) {
        ra_linear_forward(m, l, rows, in, true, x_out, u, wide);
        return;
    }
    b->ops->zero(b, sub_out, bytes);
    ra_linear_forward(m, l, rows, in, true, sub_out, u, wide);
    b->ops->rmsnorm_add(b, rows, m->arch.hidden, sub_out, vector(m, post_norm), m->arch.plus_one, m->arch.eps, x_out, rstd_post);
}

void ra_layer_feed_forward(ra_model *m, int32_t index, int32_t rows, ra_activations *acts, void *x_out)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    const ra_layer *y = &m->layer[index];
    ra_layer_acts *l = &acts->layer[index];
    b->ops->rmsnorm(b, rows, a->hidden, l->x_mid, vector(m, y->ffn_norm_v), a->plus_one, a->eps, l->n2, l->rstd_ffn);
    ra_linear_forward(m, &y->gate_up, rows, l->n2, false, l->gate_up, l->u_gate_up, acts->wide);
    b->ops->glu(b, rows, a->ffn, a->glu, l->gate_up, l->h);
    into_residual(m, &y->down, rows, l->h, l->x_mid, x_out, l->ffn_out, y->post_ffn_norm_v, l->rstd_post_ffn, l->u_down,
                  acts->wide);
}

void ra_layer_qkv(ra_model *m, int32_t index, int32_t rows, const int32_t *position, ra_activations *acts)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    const ra_layer *y = &m->layer[index];
    ra_layer_acts *l = &acts->layer[index];
    b->ops->rmsnorm(b, rows, a->hidden, l->x_in, vector(m, y->input_norm_v), a->plus_one, a->eps, l->n1, l->rstd_in);
    ra_linear_forward(m, &y->qkv, rows, l->n1, false, l->qkv, l->u_qkv, acts->wide);
    b->ops->rope(b, rows, a->heads + a->kv_heads, a->head_dim, position, m->cosine, m->sine, false, l->qkv, y->qkv.out);
}

void ra_layer_attention_out(ra_model *m, int32_t index, int32_t rows, ra_activations *acts)
{
    const ra_layer *y = &m->layer[index];
    ra_layer_acts *l = &acts->layer[index];
    into_residual(m, &y->o, rows, l->att, l->x_in, l->x_mid, l->attention_out, y->post_attention_norm_v, l->rstd_post, l->u_o,
                  acts->wide);
}

/* hook, cache: NULL where there is none */
static void forward(ra_model *m, const ra_pack *pack, ra_activations *acts, ra_layer_hook hook, void *context,
                    const ra_kv_cache *cache, const int32_t *slot, const int32_t *length)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int32_t rows = pack->rows;
    const void *table = (const char *)m->w_a + (size_t)m->embedding * b->a_size;
    b->ops->embed(b, rows, a->hidden, ra_pack_tokens(pack), m->embedding_scale, table, acts->layer[0].x_in);
    for (int32_t i = 0; i < a->layers; i++) {
        ra_layer_acts *l = &acts->layer[i];
        ra_attention attention = ra_attention_of(a, i);
        ra_layer_qkv(m, i, rows, ra_pack_positions(pack), acts);
        if (hook) hook(context, i, l->qkv);
        if (cache) {
            ra_cached_prefix prefix = {cache->layer[i], cache->slot_stride, cache->value_offset, slot, length};
            b->ops->attention_prefixed(b, pack, &attention, &prefix, l->qkv, l->att);
        } else {
            b->ops->attention(b, pack, &attention, l->qkv, l->att, l->lse);
        }
        ra_layer_attention_out(m, i, rows, acts);
        ra_layer_feed_forward(m, i, rows, acts, i + 1 < a->layers ? acts->layer[i + 1].x_in : acts->last);
    }
}

void ra_model_forward_hooked(ra_model *m, const ra_pack *pack, ra_activations *acts, ra_layer_hook hook, void *context)
{
    forward(m, pack, acts, hook, context, NULL, NULL, NULL);
}

void ra_model_forward_prefixed(ra_model *m, const ra_pack *pack, const ra_kv_cache *cache, const int32_t *slot,
                               const int32_t *length, ra_activations *acts)
{
    forward(m, pack, acts, NULL, NULL, cache, slot, length);
}

void ra_model_forward(ra_model *m, const ra_pack *pack, ra_activations *acts)
{
    forward(m, pack, acts, NULL, NULL, NULL, NULL, NULL);
}
