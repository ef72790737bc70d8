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
} ra_layer_acts;

struct ra_activations {
    ra_backend *b;
    int32_t rows;
    bool keep;
    ra_layer_acts *layer; /* (layers) */
    void *last;           /* (rows, hidden) R */
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
#endif
