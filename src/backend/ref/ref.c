#include "ref.h"

static const struct ra_backend_ops ref_ops = {
    .alloc = ra_ref_alloc,
    .release = ra_host_release,
    .upload = ra_ref_move,
    .download = ra_ref_move,
    .copy = ra_ref_move,
    .zero = ra_ref_zero,
    .place_pack = ra_host_place_pack,
    .release_pack = ra_host_release_pack,
    .cast_to_a = ra_ref_cast,
    .cast_to_r = ra_ref_cast,
    .gemm = ra_ref_gemm,
    .pack_weights = ra_ref_pack_weights,
    .packed_bytes = ra_ref_packed_bytes,
    .release_packed = ra_ref_release_packed,
    .gemm_packed = ra_ref_gemm_packed,
    .bias_add = ra_ref_bias_add,
    .bias_grad = ra_ref_bias_grad,
    .add_scaled = ra_ref_add_scaled,
    .row_dot = ra_ref_row_dot,
    .row_dot_vector = ra_ref_row_dot_vector,
    .embed = ra_ref_embed,
    .embed_grad = ra_ref_embed_grad,
    .embed_dot = ra_ref_embed_dot,
    .rmsnorm = ra_ref_rmsnorm,
    .rmsnorm_add = ra_ref_rmsnorm_add,
    .rmsnorm_grad = ra_ref_rmsnorm_grad,
    .rope = ra_ref_rope,
    .attention = ra_ref_attention,
    .attention_prefixed = ra_ref_attention_prefixed,
    .attention_grad = ra_ref_attention_grad,
    .cache_store = ra_ref_cache_store,
    .attention_cached = ra_ref_attention_cached,
    .glu = ra_ref_glu,
    .glu_grad = ra_ref_glu_grad,
    .gather_rows = ra_ref_gather_rows,
    .scatter_add_rows = ra_ref_scatter_add_rows,
    .softmax_update = ra_ref_softmax_update,
    .argmax_update = ra_ref_argmax_update,
    .softmax_grad = ra_ref_softmax_grad,
    .kl_update = ra_ref_kl_update,
    .kl_grad = ra_ref_kl_grad,
    .sum_squares = ra_ref_sum_squares,
    .dot = ra_ref_dot,
    .adamw = ra_ref_adamw,
    .axpy = ra_ref_axpy,
    .link_open = ra_host_link_open,
    .link_close = ra_host_link_close,
    .link_reduce_scatter = ra_host_link_reduce_scatter,
    .link_all_gather = ra_host_link_all_gather,
};

ra_err ra_backend_ref_open(ra_backend *b)
{
    b->ops = &ref_ops;
    b->row_independent = true;
    b->host = true;
    b->library = "plain loops in double";
    b->state = NULL;
    return RA_OK;
}

void ra_backend_ref_close(ra_backend *b)
{
    b->ops = NULL;
}
