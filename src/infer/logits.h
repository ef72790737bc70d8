/* The end of a forward pass at chosen rows: final norm, then the head's raw products, a block of the vocabulary at a time. */
#ifndef RA_LOGITS_H
#define RA_LOGITS_H
#include <realign/model.h>

typedef struct ra_logits ra_logits;
/* On the last stage of a pipeline. For up to `rows` rows and blocks of `block` vocabulary entries. pack: keep the head in the backend's order for few rows too. */
ra_logits *ra_logits_new(ra_model *m, int32_t rows, int64_t block, bool pack);
void ra_logits_free(ra_logits *l);
/* Rows row[i] (host array) of `last` (., hidden) R, the residual stream before the final norm, are what the blocks are about from now on. */
void ra_logits_take(ra_logits *l, int32_t n, const int32_t *row, const void *last);
/* The normalised states, (n, hidden) A. */
const void *ra_logits_states(const ra_logits *l);
/* Raw products with entries [v0, v0 + *nv), v0 a multiple of the block: (n, *nv) R, until the next call. No soft-cap. */
void *ra_logits_block(ra_logits *l, int64_t v0, int64_t *nv);
#endif
