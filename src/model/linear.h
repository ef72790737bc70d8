/* One product of a layer with its bias and adapters, forward and backward. */
#ifndef RA_LINEAR_H
#define RA_LINEAR_H
#include <realign/model.h>

/* y = x W^T + bias + s (x A^T) B^T. y: (rows, out) in A, or in R and added to where `into_r`; u: (rows, adapters * rank) A, s x A^T, kept for backward. */
void ra_linear_forward(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, bool into_r, void *y, void *u,
                       void *wide);
/* What a call makes: the gradient of the input, those of the parameters, or both. */
typedef enum { RA_ENDING_BOTH, RA_ENDING_INPUT, RA_ENDING_WEIGHT } ra_ending;
/* dx: (rows, in), A, or R and overwritten where `into_r`; NULL where nobody needs it. Parameters as `mode` says. */
void ra_linear_backward(const ra_model *m, const ra_linear *l, int32_t rows, const void *x, const void *u, const void *dy,
                        bool into_r, void *dx, void *du, void *wide, const ra_backward *mode, ra_ending ending);
#endif
