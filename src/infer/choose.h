/* The end of a decoding step: final norm, head product, and the choice of a token for each row. */
#ifndef RA_CHOOSE_H
#define RA_CHOOSE_H
#include <realign/infer.h>

typedef struct ra_chooser ra_chooser;
/* On the last stage of a pipeline. Buffers for `rows` rows at a time. */
ra_chooser *ra_chooser_new(ra_model *m, int32_t rows, const ra_sampling *sampling);
void ra_chooser_free(ra_chooser *c);
/* Row row[i] of `last` (., hidden) R, the residual stream before the final norm, gives token[i] of prompt id[i] at step[i] (host arrays); -1 where its logits are not numbers. */
void ra_chooser_choose(ra_chooser *c, int32_t n, const int32_t *row, const void *last, const int64_t *id, const int32_t *step,
                       int32_t *token);
#endif
