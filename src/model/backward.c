/* The backward pass over a pack; how it ends at the parameters is ra_backward's choice. */
#include "activations.h"
#include "layer.h"
#include "linear.h"

static const void *vector(const ra_model *m, int64_t offset)
{
    return (const char *)m->vectors + (size_t)offset * m->b->r_size;
}

/* dx (+)= through a norm with gain `gain` (base layout) whose input is x. */
static void norm_backward(ra_model *m, int32_t rows, const void *x, int64_t gain, int64_t gain_v, const void *rstd,
                          const void *dy, bool accumulate, void *dx, const ra_backward *mode)
{
    ra_backend *b = m->b;
    bool full = m->training == RA_TRAIN_FULL;
    void *dw = full && mode->gradient ? (char *)mode->gradient + (size_t)gain * b->r_size : NULL;
    const void *g = full && !mode->gradient ? (const char *)mode->tangent_r + (size_t)gain * b->r_size : NULL;
    b->ops->rmsnorm_grad(b, rows, m->arch.hidden, x, vector(m, gain_v), m->arch.plus_one, rstd, dy, accumulate, dx, dw, g,
                         mode->dot);
}

/* The gradient that enters a sub-layer's last product: the residual stream's, through the post-norm where there is one; in A. */
static const void *enter(ra_model *m, int32_t rows, ra_activations *acts, const void *sub_out, int64_t gain, int64_t gain_v,
                         const void *rstd, const void *dx, const ra_backward *mode)
{
    ra_backend *b = m->b;
    if (m->arch.post_norms) {
        norm_backward(m, rows, sub_out, gain, gain_v, rstd, dx, false, acts->dnarrow, mode);
        dx = acts->dnarrow;
    }
    if (b->a == b->r && !m->arch.post_norms) return dx;
    b->ops->cast_to_a(b, (int64_t)rows * m->arch.hidden, dx, acts->dhidden);
    return acts->dhidden;
}

static void layer_backward(ra_model *m, int32_t index, const ra_pack *pack, ra_activations *acts, void *dx,
                           const ra_backward *mode)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    const ra_layer *y = &m->layer[index];
    const ra_layer_acts *l = &acts->layer[index];
    int32_t rows = pack->rows;

    const void *dy = enter(m, rows, acts, l->ffn_out, y->post_ffn_norm, y->post_ffn_norm_v, l->rstd_post_ffn, dx, mode);
    ra_linear_backward(m, &y->down, rows, l->h, l->u_down, dy, false, acts->dh, acts->du, acts->wide, mode);
    b->ops->glu_grad(b, rows, a->ffn, a->glu, l->gate_up, acts->dh, acts->dgate_up);
    ra_linear_backward(m, &y->gate_up, rows, l->n2, l->u_gate_up, acts->dgate_up, true, acts->dnarrow, acts->du, acts->wide,
                       mode);
    norm_backward(m, rows, l->x_mid, y->ffn_norm, y->ffn_norm_v, l->rstd_ffn, acts->dnarrow, true, dx, mode);

    dy = enter(m, rows, acts, l->attention_out, y->post_attention_norm, y->post_attention_norm_v, l->rstd_post, dx, mode);
    ra_linear_backward(m, &y->o, rows, l->att, l->u_o, dy, false, acts->datt, acts->du, acts->wide, mode);
    ra_attention attention = ra_attention_of(a, index);
    b->ops->attention_grad(b, pack, &attention, l->qkv, l->att, l->lse, acts->datt, acts->dqkv);
    b->ops->rope(b, rows, a->heads + a->kv_heads, a->head_dim, ra_pack_positions(pack), m->cosine, m->sine, true, acts->dqkv,
                 y->qkv.out);
    bool needed = index > 0 || m->training == RA_TRAIN_FULL; /* nothing below the first layer learns with adapters alone */
    ra_linear_backward(m, &y->qkv, rows, l->n1, l->u_qkv, acts->dqkv, true, needed ? acts->dnarrow : NULL, acts->du, acts->wide,
                       mode);
    if (needed) norm_backward(m, rows, l->x_in, y->input_norm, y->input_norm_v, l->rstd_in, acts->dnarrow, true, dx, mode);
}

void ra_model_backward(ra_model *m, const ra_pack *pack, ra_activations *acts, void *dx, const ra_backward *mode)
{
    ra_backend *b = m->b;
    for (int32_t i = m->arch.layers - 1; i >= 0; i--) layer_backward(m, i, pack, acts, dx, mode);
    if (m->training != RA_TRAIN_FULL) return;
    if (mode->gradient) {
        b->ops->embed_grad(b, pack->rows, m->arch.hidden, ra_pack_tokens(pack), m->embedding_scale, dx,
                           (char *)mode->gradient + (size_t)m->embedding * b->r_size);
    } else {
        const void *g = (const char *)mode->tangent_a + (size_t)m->embedding * b->a_size;
        b->ops->embed_dot(b, pack->rows, m->arch.hidden, ra_pack_tokens(pack), m->embedding_scale, dx, g, mode->dot);
    }
}
