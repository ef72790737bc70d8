/* Answers at the ends of sequences: logits of a few tokens, and log sum exp over the whole vocabulary. */
#ifndef RA_ANSWERS_H
#define RA_ANSWERS_H
#include <realign/model.h>

typedef struct ra_answer_reader ra_answer_reader;
/* On the last stage of a pipeline. */
ra_answer_reader *ra_answer_reader_new(ra_model *m, const int32_t *answer, int32_t answers);
void ra_answer_reader_free(ra_answer_reader *r);
/* Rows row[i] (host array) of `last` (., hidden) R, the residual stream before the final norm. found: host, (n, answers + 1): logits, soft-capped, then log sum exp. */
void ra_answer_reader_read(ra_answer_reader *r, int32_t n, const int32_t *row, const void *last, double *found);
#endif
