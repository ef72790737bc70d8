/* The backward pass over a pack, through a run of layers; how it ends at the parameters is ra_backward's choice, and so is when: the gradients of the products' matrices may
 * be made later than those of their inputs. */
#include "layer.h"
#include "linear.h"

/* dx (+)= through a norm with gain `gain` (base layout) whose input is x. */
static void norm_backward(ra_model *m, int32_t rows, const void *x, int64_t gain, int64_t gain_v, const void *rstd,
                          const void *dy, bool accumulate, void *dx, const ra_backward *mode)
{
    ra_backend *b = m->b;
    bool full = m->training == RA_TRAIN_FULL;
    void *dw = full && mode->gradient ? (char *)mode->gradient + (size_t)gain * b->r_size : NULL;
    const void *g = full && !mode->gradient ? (const char *)mode->tangent_r + (size_t)gain * b->r_size : NULL;
    b->ops->rmsnorm_grad(b, rows, m->arch.hidden, x, ra_model_vector(m, gain_v), m->arch.plus_one, rstd, dy, accumulate, dx, dw,
                         g, mode->dot);
}

/* The gradient that enters a sub-layer's last product: the residual stream's, through the post-norm where there is one; in A, in `kept` where it is needed again. */
static const void *enter(ra_model *m, int32_t rows, ra_activations *acts, const void *sub_out, int64_t gain, int64_t gain_v,
                         const void *rstd, const void *dx, void *kept, const ra_backward *mode)
{
    ra_backend *b = m->b;
    if (m->arch.post_norms) {
        norm_backward(m, rows, sub_out, gain, gain_v, rstd, dx, false, acts->dnarrow, mode);
        dx = acts->dnarrow;
    }
    void *dy = kept ? kept : acts->dhidden;
    if (!kept && b->a == b->r && !m->arch.post_norms) return dx;
    b->ops->cast_to_a(b, (int64_t)rows * m->arch.hidden, dx, dy);
    return dy;
}

/* What the forward pass did not keep. */
static void remake(ra_model *m, const ra_layer *y, const ra_pack *pack, ra_activations *acts, ra_layer_acts *l, void *unused)
{
    ra_backend *b = m->b;
    int32_t rows = pack->rows;
    if (acts->keeping.recompute == RA_RECOMPUTE_NONE) return;
    ra_layer_norm_in(m, y, rows, l);
    bool full = acts->keeping.recompute == RA_RECOMPUTE_FULL;
    if (full) {
        ra_attention attention = ra_attention_of(&m->arch, y);
        ra_layer_qkv(m, y, rows, ra_pack_positions(pack), l, acts->wide);
        b->ops->attention(b, pack, &attention, l->qkv, l->att, l->lse);
        ra_layer_attention_out(m, y, rows, l, acts->wide);
    }
    ra_layer_gate_up(m, y, rows, l, acts->wide);
    bool read = m->arch.post_norms || y->down.adapters > 0; /* by the backward pass: the product's result, or its adapter's */
    if (full && read) ra_layer_down(m, y, rows, l, acts->wide, unused);
}

static void layer_backward(ra_model *m, const ra_layer *y, const ra_pack *pack, ra_activations *acts, ra_layer_acts *l, void *dx,
                           const ra_backward *mode)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    int32_t rows = pack->rows;
    bool split = acts->keeping.split && mode->gradient; /* a contraction has no second part */
    ra_ending ending = split ? RA_ENDING_INPUT : RA_ENDING_BOTH;
    void *dgate_up = split ? l->gate_up : acts->dgate_up, *dqkv = split ? l->d_qkv : acts->dqkv;

    const void *dy = enter(m, rows, acts, l->ffn_out, y->post_ffn_norm, y->post_ffn_norm_v, l->rstd_post_ffn, dx,
                           split ? l->d_down : NULL, mode);
    ra_linear_backward(m, &y->down, rows, l->h, l->u_down, dy, false, acts->dh, acts->du, acts->wide, mode, ending);
    b->ops->glu_grad(b, rows, a->ffn, a->glu, l->gate_up, acts->dh, dgate_up);
    ra_linear_backward(m, &y->gate_up, rows, l->n2, l->u_gate_up, dgate_up, true, acts->dnarrow, acts->du, acts->wide, mode,
                       ending);
    norm_backward(m, rows, l->x_mid, y->ffn_norm, y->ffn_norm_v, l->rstd_ffn, acts->dnarrow, true, dx, mode);

    dy = enter(m, rows, acts, l->attention_out, y->post_attention_norm, y->post_attention_norm_v, l->rstd_post, dx,
               split ? l->d_o : NULL, mode);
    ra_linear_backward(m, &y->o, rows, l->att, l->u_o, dy, false, acts->datt, acts->du, acts->wide, mode, ending);
    ra_attention attention = ra_attention_of(a, y);
    b->ops->attention_grad(b, pack, &attention, l->qkv, l->att, l->lse, acts->datt, dqkv);
    b->ops->rope(b, rows, a->heads + a->kv_heads, a->head_dim, ra_pack_positions(pack), m->cosine, m->sine, true, dqkv,
                 y->qkv.out);
    bool needed = y->index > 0 || m->training == RA_TRAIN_FULL; /* nothing below the first layer learns with adapters alone */
    ra_linear_backward(m, &y->qkv, rows, l->n1, l->u_qkv, dqkv, true, needed ? acts->dnarrow : NULL, acts->du, acts->wide, mode,
                       ending);
    if (needed) norm_backward(m, rows, l->x_in, y->input_norm, y->input_norm_v, l->rstd_in, acts->dnarrow, true, dx, mode);
}

static void embedding_backward(ra_model *m, const ra_pack *pack, const void *dx, const ra_backward *mode)
{
    ra_backend *b = m->b;
    if (mode->gradient) {
        b->ops->embed_grad(b, pack->rows, m->arch.hidden, ra_pack_tokens(pack), m->embedding_scale, dx,
                           (char *)mode->gradient + (size_t)m->embedding * b->r_size);
    } else {
        const void *g = (const char *)mode->tangent_a + (size_t)m->embedding * b->a_size;
        b->ops->embed_dot(b, pack->rows, m->arch.hidden, ra_pack_tokens(pack), m->embedding_scale, dx, g, mode->dot);
    }
}

void ra_model_backward(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot, void *dx,
                       const ra_backward *mode)
{
    int32_t begin, end;
    ra_chunk_layers(m, chunk, &begin, &end);
    for (int32_t i = end - 1; i >= begin; i--) {
        ra_layer_acts *l = ra_activations_layer(acts, m, i, slot);
        remake(m, &m->layer[i], pack, acts, l, ra_activations_last(acts, slot));
        layer_backward(m, &m->layer[i], pack, acts, l, dx, mode);
    }
    if (m->layer[begin].index == 0 && m->training == RA_TRAIN_FULL) embedding_backward(m, pack, dx, mode);
}

static void layer_weights(ra_model *m, const ra_layer *y, int32_t rows, ra_activations *acts, const ra_layer_acts *l,
                          const ra_backward *mode)
{
    const struct {
        const ra_linear *product;
        const void *x, *u, *dy;
    } list[] = {{&y->down, l->h, l->u_down, l->d_down},
                {&y->gate_up, l->n2, l->u_gate_up, l->gate_up},
                {&y->o, l->att, l->u_o, l->d_o},
                {&y->qkv, l->n1, l->u_qkv, l->d_qkv}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        ra_linear_backward(m, list[i].product, rows, list[i].x, list[i].u, list[i].dy, false, NULL, acts->du, acts->wide, mode,
                           RA_ENDING_WEIGHT);
    }
}

void ra_model_backward_weight(ra_model *m, int32_t chunk, const ra_pack *pack, ra_activations *acts, int32_t slot,
                              const ra_backward *mode)
{
    int32_t begin, end;
    ra_chunk_layers(m, chunk, &begin, &end);
    for (int32_t i = end - 1; i >= begin; i--)
        layer_weights(m, &m->layer[i], pack->rows, acts, ra_activations_layer(acts, m, i, slot), mode);
}
