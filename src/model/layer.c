#include "layer.h"
#include "linear.h"

const void *ra_model_vector(const ra_model *m, int64_t vector_offset)
{
    return (const char *)m->vectors + (size_t)vector_offset * m->b->r_size;
}

ra_attention ra_attention_of(const ra_arch *a, const ra_layer *y)
{
    return (ra_attention){.heads = a->heads,
                          .kv_heads = a->kv_heads,
                          .head_dim = a->head_dim,
                          .scale = a->query_scale,
                          .softcap = a->attention_softcap,
                          .window = a->layer_windowed[y->index] ? a->window : 0};
}

/* x_out = x_in + sub(norm(x_in)), with a second norm on the sub-layer's output where the family has post-norms. */
static void into_residual(ra_model *m, const ra_linear *product, int32_t rows, const void *in, const void *x, void *x_out,
                          void *sub_out, int64_t post_norm, void *rstd_post, void *u, void *wide)
{
    ra_backend *b = m->b;
    size_t bytes = (size_t)rows * (size_t)m->arch.hidden * b->r_size;
    b->ops->copy(b, x_out, x, bytes);
    if (!m->arch.post_norms) {
        ra_linear_forward(m, product, rows, in, true, x_out, u, wide);
        return;
    }
    b->ops->zero(b, sub_out, bytes);
    ra_linear_forward(m, product, rows, in, true, sub_out, u, wide);
    b->ops->rmsnorm_add(b, rows, m->arch.hidden, sub_out, ra_model_vector(m, post_norm), m->arch.plus_one, m->arch.eps, x_out,
                        rstd_post);
}

void ra_layer_norm_in(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l)
{
    const ra_arch *a = &m->arch;
    m->b->ops->rmsnorm(m->b, rows, a->hidden, l->x_in, ra_model_vector(m, y->input_norm_v), a->plus_one, a->eps, l->n1,
                       l->rstd_in);
}

void ra_layer_qkv(ra_model *m, const ra_layer *y, int32_t rows, const int32_t *position, ra_layer_acts *l, void *wide)
{
    const ra_arch *a = &m->arch;
    ra_linear_forward(m, &y->qkv, rows, l->n1, false, l->qkv, l->u_qkv, wide);
    m->b->ops->rope(m->b, rows, a->heads + a->kv_heads, a->head_dim, position, m->cosine, m->sine, false, l->qkv, y->qkv.out);
}

void ra_layer_attention_out(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide)
{
    into_residual(m, &y->o, rows, l->att, l->x_in, l->x_mid, l->attention_out, y->post_attention_norm_v, l->rstd_post, l->u_o,
                  wide);
}

void ra_layer_gate_up(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide)
{
    ra_backend *b = m->b;
    const ra_arch *a = &m->arch;
    b->ops->rmsnorm(b, rows, a->hidden, l->x_mid, ra_model_vector(m, y->ffn_norm_v), a->plus_one, a->eps, l->n2, l->rstd_ffn);
    ra_linear_forward(m, &y->gate_up, rows, l->n2, false, l->gate_up, l->u_gate_up, wide);
    b->ops->glu(b, rows, a->ffn, a->glu, l->gate_up, l->h);
}

void ra_layer_down(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide, void *x_out)
{
    into_residual(m, &y->down, rows, l->h, l->x_mid, x_out, l->ffn_out, y->post_ffn_norm_v, l->rstd_post_ffn, l->u_down, wide);
}
