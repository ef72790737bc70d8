/* One micro-batch through an engine of a single rank. */
#ifndef TESTS_PASSES_H
#define TESTS_PASSES_H
#include <realign/engine.h>

/* One rank, one stage; needs no MPI. Static. */
const ra_grid *grid_alone(void);
/* On that grid; aborts where it is refused. */
ra_engine *engine_alone(ra_model *m, int32_t rows, bool keep);

typedef struct {
    ra_engine *e;
    const ra_model *m; /* the engine's, where `hidden` is asked for */
    const ra_objective *objective;
    bool own_reference;    /* the model is its own reference */
    const void *reference; /* Retain rows' reference states, or NULL */
    void *hidden;          /* (head rows, hidden) A: where the final states go, or NULL */
    const ra_backward *backward;
    double *dot;        /* (items) or NULL */
    double *token_logp; /* (head rows) or NULL */
} one_pass;
/* mb [in, out]: log p and losses are filled in, and references where they are the model's own. Aborts on an error. */
void run_pass(const one_pass *pass, ra_microbatch *mb);

#endif
