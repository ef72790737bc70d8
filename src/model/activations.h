/* What a forward pass leaves for the backward pass. */
#ifndef RA_ACTIVATIONS_H
#define RA_ACTIVATIONS_H
#include <realign/model.h>

typedef struct {
    void *x_in;                                           /* (rows, hidden) R: the residual stream entering the layer */
    void *x_mid;                                          /* (rows, hidden) R: after attention */
    void *attention_out, *ffn_out;                        /* (rows, hidden) R, only with post-norms: what those norms read */
    void *rstd_in, *rstd_post, *rstd_ffn, *rstd_post_ffn; /* (rows) R */
    void *n1, *n2;                                        /* (rows, hidden) A: normalised inputs */
    void *qkv;                                            /* (rows, (heads + 2 kv_heads) head_dim) A, after rope */
    void *att;                                            /* (rows, heads head_dim) A */
    void *lse;                                            /* (rows, heads) R */
    void *gate_up, *h;                                    /* (rows, 2 ffn), (rows, ffn) A */
    void *u_qkv, *u_o, *u_gate_up, *u_down;               /* (rows, adapters rank) A */
    /* where the backward pass is split: the gradients of the products' results; that of gate_up takes its place */
    void *d_qkv, *d_o, *d_down; /* like qkv, (rows, hidden), (rows, hidden) A */
} ra_layer_acts;

struct ra_activations {
    ra_backend *b;
    int32_t rows;
    ra_keeping keeping;
    int32_t deep;         /* layers of the longest chunk */
    ra_layer_acts *layer; /* (slots, deep) */
    void **last;          /* (slots): (rows, hidden) R */
    void *block;
    size_t bytes;
    /* backward scratch */
    void *dnarrow; /* (rows, hidden) R */
    void *dhidden; /* (rows, hidden) A */
    void *dqkv;    /* like qkv */
    void *datt;    /* like att */
    void *dgate_up, *dh;
    void *du;   /* (rows, widest adapter) A */
    void *wide; /* (rows, widest product) R */
};

/* Layer `index` of the model, in a slot of its chunk. */
ra_layer_acts *ra_activations_layer(ra_activations *acts, const ra_model *m, int32_t index, int32_t slot);

/* The model's layers of a chunk: [begin, end). */
static inline void ra_chunk_layers(const ra_model *m, int32_t chunk, int32_t *begin, int32_t *end)
{
    *begin = 0;
    for (int32_t c = 0; c < chunk; c++) *begin += m->part.chunk[c].count;
    *end = *begin + m->part.chunk[chunk].count;
}
#endif
