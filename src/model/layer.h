/* The parts of a layer that packs and single-token decoding share, and that a backward pass makes again where it kept less. */
#ifndef RA_LAYER_H
#define RA_LAYER_H
#include "activations.h"

const void *ra_model_vector(const ra_model *m, int64_t vector_offset);
ra_attention ra_attention_of(const ra_arch *a, const ra_layer *y);
/* x_in -> n1 */
void ra_layer_norm_in(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l);
/* n1 -> qkv, with bias and rope; wide: scratch of acts */
void ra_layer_qkv(ra_model *m, const ra_layer *y, int32_t rows, const int32_t *position, ra_layer_acts *l, void *wide);
/* att -> x_mid */
void ra_layer_attention_out(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide);
/* x_mid -> n2 -> gate_up -> h */
void ra_layer_gate_up(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide);
/* h -> x_out */
void ra_layer_down(ra_model *m, const ra_layer *y, int32_t rows, ra_layer_acts *l, void *wide, void *x_out);
#endif
