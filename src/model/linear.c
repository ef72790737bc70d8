/* y = x W^T + b, and with an adapter  y += s (x A^T) B^T, s = alpha / rank.
 * Backward:  dx = dy W + du A,  du = s dy B,  dW += dy^T x,  dB += dy^T u,  dA += du^T x,  with u = s x A^T.
 * Contraction with a tangent G (METHOD section 4):  row t adds  dy_t . (G_W x_t),  du_t . (G_A x_t),  dy_t . (G_B u_t). */
#include "linear.h"

static const void *at(const void *base, int64_t offset, size_t size)
{
    return (const char *)base + (size_t)offset * size;
}

static void *at_w(void *base, int64_t offset, size_t size)
{
    return (char *)base + (size_t)offset * size;
}

static double lora_scale(const ra_model *m)
{
    return m->lora.alpha / m->lora.rank;
}

static bool adapted(const ra_model *m, const ra_linear *l)
{
    return l->adapters > 0 && m->lora.rank > 0;
}

void ra_linear_forward(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, bool into_r, void *y, void *u,
                       void *wide)
{
    ra_backend *b = m->b;
    const struct ra_backend_ops *ops = b->ops;
    size_t as = b->a_size;
    if (l->packed) {
        ops->gemm_packed(b, rows, l->out, l->in, x, l->in, l->packed, into_r, into_r, y, l->out);
    } else {
        ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, l->out, l->in, x, l->in, at(m->w_a, l->weight, as), l->in, into_r,
                  into_r, y, l->out);
    }
    if (l->bias >= 0) ops->bias_add(b, rows, l->out, at(m->vectors, l->bias_vector, b->r_size), y, l->out);
    if (!adapted(m, l)) return;
    int32_t rank = m->lora.rank, width = l->adapters * rank;
    ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, width, l->in, x, l->in, at(m->adapter_a, l->a, as), l->in, false, true,
              wide, width);
    ops->zero(b, u, (size_t)rows * (size_t)width * as);
    ops->add_scaled(b, rows, width, lora_scale(m), wide, u, width);
    for (int32_t i = 0; i < l->adapters; i++) {
        const void *B = at(m->adapter_a, l->adapter[i].b, as), *ui = at(u, (int64_t)i * rank, as);
        int32_t n = l->adapter[i].rows;
        if (into_r) { /* products that go into the residual stream are not stacked: the adapter spans all of y */
            ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, n, rank, ui, width, B, rank, true, true, y, l->out);
        } else {
            ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, n, rank, ui, width, B, rank, false, true, wide, n);
            ops->add_scaled(b, rows, n, 1.0, wide, at_w(y, l->adapter[i].row, as), l->out);
        }
    }
}

static void base_parameters(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, const void *dy, void *wide,
                            const ra_backward *mode)
{
    ra_backend *b = m->b;
    const struct ra_backend_ops *ops = b->ops;
    if (mode->gradient) {
        ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, l->out, l->in, rows, dy, l->out, x, l->in, true, true,
                  at_w(mode->gradient, l->weight, b->r_size), l->in);
        if (l->bias >= 0) ops->bias_grad(b, rows, l->out, dy, l->out, at_w(mode->gradient, l->bias, b->r_size));
        return;
    }
    ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, l->out, l->in, x, l->in, at(mode->tangent_a, l->weight, b->a_size), l->in,
              false, true, wide, l->out);
    ops->row_dot(b, rows, l->out, 1.0, dy, l->out, wide, mode->dot);
    if (l->bias >= 0) ops->row_dot_vector(b, rows, l->out, dy, l->out, at(mode->tangent_r, l->bias, b->r_size), mode->dot);
}

static void adapter_parameters(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, const void *u, const void *dy,
                               const void *du, void *wide, const ra_backward *mode)
{
    ra_backend *b = m->b;
    const struct ra_backend_ops *ops = b->ops;
    size_t as = b->a_size, rs = b->r_size;
    int32_t rank = m->lora.rank, width = l->adapters * rank;
    if (mode->gradient) {
        ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, width, l->in, rows, du, width, x, l->in, true, true,
                  at_w(mode->gradient, l->a, rs), l->in);
    } else {
        ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, width, l->in, x, l->in, at(mode->tangent_a, l->a, as), l->in, false,
                  true, wide, width);
        ops->row_dot(b, rows, width, 1.0, du, width, wide, mode->dot);
    }
    for (int32_t i = 0; i < l->adapters; i++) {
        const void *ui = at(u, (int64_t)i * rank, as), *dyi = at(dy, l->adapter[i].row, as);
        int32_t n = l->adapter[i].rows;
        if (mode->gradient) {
            ops->gemm(b, RA_TRANSPOSE, RA_NO_TRANSPOSE, n, rank, rows, dyi, l->out, ui, width, true, true,
                      at_w(mode->gradient, l->adapter[i].b, rs), rank);
        } else {
            ops->gemm(b, RA_NO_TRANSPOSE, RA_TRANSPOSE, rows, n, rank, ui, width, at(mode->tangent_a, l->adapter[i].b, as), rank,
                      false, true, wide, n);
            ops->row_dot(b, rows, n, 1.0, dyi, l->out, wide, mode->dot);
        }
    }
}

void ra_linear_backward(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, const void *u, const void *dy,
                        bool into_r, void *dx, void *du, void *wide, const ra_backward *mode, ra_ending ending)
{
    ra_backend *b = m->b;
    const struct ra_backend_ops *ops = b->ops;
    size_t as = b->a_size;
    bool weight = ending != RA_ENDING_INPUT;
    if (ending == RA_ENDING_WEIGHT) dx = NULL;
    if (weight && m->training == RA_TRAIN_FULL) base_parameters(m, l, rows, x, dy, wide, mode);
    if (dx)
        ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, rows, l->in, l->out, dy, l->out, at(m->w_a, l->weight, as), l->in, false,
                  into_r, dx, l->in);
    if (!adapted(m, l)) return;
    int32_t rank = m->lora.rank, width = l->adapters * rank;
    ops->zero(b, du, (size_t)rows * (size_t)width * as);
    for (int32_t i = 0; i < l->adapters; i++) {
        ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, rows, rank, l->adapter[i].rows, at(dy, l->adapter[i].row, as), l->out,
                  at(m->adapter_a, l->adapter[i].b, as), rank, false, true, wide, rank);
        ops->add_scaled(b, rows, rank, lora_scale(m), wide, at_w(du, (int64_t)i * rank, as), width);
    }
    if (dx && into_r) {
        ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, rows, l->in, width, du, width, at(m->adapter_a, l->a, as), l->in, true,
                  true, dx, l->in);
    } else if (dx) {
        ops->gemm(b, RA_NO_TRANSPOSE, RA_NO_TRANSPOSE, rows, l->in, width, du, width, at(m->adapter_a, l->a, as), l->in, false,
                  true, wide, l->in);
        ops->add_scaled(b, rows, l->in, 1.0, wide, dx, l->in);
    }
    if (weight && m->training == RA_TRAIN_ADAPTER) adapter_parameters(m, l, rows, x, u, dy, du, wide, mode);
}
