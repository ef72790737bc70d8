/* The parts of a layer that packs and single-token decoding share. Residual streams are in acts->layer[index]. */
#ifndef RA_LAYER_H
#define RA_LAYER_H
#include <realign/model.h>

ra_attention ra_attention_of(const ra_arch *a, int32_t layer);
/* x_in -> n1 -> qkv, with bias and rope */
void ra_layer_qkv(ra_model *m, int32_t index, int32_t rows, const int32_t *position, ra_activations *acts);
/* att -> x_mid */
void ra_layer_attention_out(ra_model *m, int32_t index, int32_t rows, ra_activations *acts);
/* x_mid -> x_out */
void ra_layer_feed_forward(ra_model *m, int32_t index, int32_t rows, ra_activations *acts, void *x_out);
#endif
