/* What comes next, asked of many sequences that begin alike: the logits of a few answer tokens after each sequence. Keys and values of the common root are computed once and
 * kept; a neighbour that goes on with the same tokens is shared as well. A sequence's numbers depend on the sequence, the root and `branch` alone.
 *
 * In a pipeline stage 0 adds and the others follow: packs travel down the stages one behind the other, each stage with its own layers' part of the root, and answers come back
 * when stage 0 flushes (relay.h). */
#ifndef RA_ASK_H
#define RA_ASK_H
#include <realign/engine.h>

/* Answers of sequence `id`: logits of the answer tokens, and log sum exp over the whole vocabulary. An error ends the run. */
typedef ra_err (*ra_answer_sink)(void *context, int64_t id, const double *logit, double lse);

typedef struct {
    int64_t sequences, tokens; /* as given */
    int64_t rows;              /* computed, the root's included: tokens - rows were shared */
    int64_t packs;
    double seconds;
} ra_asking_counts;

typedef struct ra_asker ra_asker;
/* Collective over grid->pipeline, with the same arguments but for sink and context, which are stage 0's; grid NULL: this rank alone, which holds the whole model. Packs of `rows` rows, or of one
 * longer sequence. The root, which may be empty, is computed here. The sink gets `context`. The grid's communicators must outlive the asker. */
ra_asker *ra_asker_new(ra_model *m, const ra_grid *grid, int32_t rows, const int32_t *root, int32_t root_count,
                       const int32_t *answer, int32_t answers, ra_answer_sink sink, void *context);
void ra_asker_free(ra_asker *a);
/* The following four are stage 0's. Takes a copy of a sequence and runs the pack that is full. It need not begin with the root; what it has of it is shared. Tokens before `branch` may be shared
 * with the sequence added before. RA_ERR_DATA where it is empty, holds an id outside of the vocabulary or more tokens than the model has positions; then it was not taken. */
ra_err ra_asker_add(ra_asker *a, int64_t id, const int32_t *token, int32_t count, int32_t branch);
/* Runs what is left; when it returns the sink has seen everything. */
ra_err ra_asker_flush(ra_asker *a);
/* Ends a round: forgets what was added and not run yet, hands over what was run, and lets the other stages return. An error is the sink's. */
ra_err ra_asker_end(ra_asker *a);
const ra_asking_counts *ra_asker_counts(const ra_asker *a);
/* On the other stages: takes part until stage 0 ends the round. */
void ra_asker_follow(ra_asker *a);
#endif
