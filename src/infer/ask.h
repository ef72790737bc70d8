/* What comes next, asked of many sequences that begin alike: the logits of a few answer tokens after each sequence. Keys and values of the common root are computed once and
 * kept; a neighbour that goes on with the same tokens is shared as well. A sequence's numbers depend on the sequence, the root and `branch` alone. */
#ifndef RA_ASK_H
#define RA_ASK_H
#include <realign/model.h>

/* Answers of sequence `id`: logits of the answer tokens, and log sum exp over the whole vocabulary. An error ends the run. */
typedef ra_err (*ra_answer_sink)(void *context, int64_t id, const double *logit, double lse);

typedef struct {
    int64_t sequences, tokens; /* as given */
    int64_t rows;              /* computed, the root's included: tokens - rows were shared */
    int64_t packs;
    double seconds;
} ra_asking_counts;

typedef struct ra_asker ra_asker;
/* Packs of `rows` rows, or of one longer sequence. The root, which may be empty, is computed here. The sink gets `context`. */
ra_asker *ra_asker_new(ra_model *m, int32_t rows, const int32_t *root, int32_t root_count, const int32_t *answer, int32_t answers,
                       ra_answer_sink sink, void *context);
void ra_asker_free(ra_asker *a);
/* Takes a copy of a sequence and runs the pack that is full. It need not begin with the root; what it has of it is shared. Tokens before `branch` may be shared with the
 * sequence added before. RA_ERR_DATA where it is empty, holds an id outside of the vocabulary or more tokens than the model has positions; then it was not taken. */
ra_err ra_asker_add(ra_asker *a, int64_t id, const int32_t *token, int32_t count, int32_t branch);
/* Runs what is left. */
ra_err ra_asker_flush(ra_asker *a);
/* Forgets what was added and not run yet. */
void ra_asker_clear(ra_asker *a);
const ra_asking_counts *ra_asker_counts(const ra_asker *a);
#endif
