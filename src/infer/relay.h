/* The stages of a pipeline in inference. Work enters at stage 0 and travels down the chain; what the last stage finds goes to all.
 *
 *   stage 0  --order, rows-->  stage 1  --order, rows-->  ...  --order, rows-->  last stage
 *      ^                          ^                                                 |
 *      +--------------------------+---------------------- findings -----------------+
 *
 * An order is a few words that say what comes next. Every stage goes through the same orders, one after the other: it hears an order from the stage before and hands it on at
 * once, receives the rows (the residual stream entering its layers), computes, sends on. Sends are buffered, so that a stage runs ahead of those behind it by as many messages as
 * there are buffers. Findings are heard in the order in which they are published. There is no deadlock: of all work that is not done the earliest waits only for
 * earlier work, and for a stage that is free to take it. With one stage nothing of this happens, and no MPI is called. */
#ifndef RA_RELAY_H
#define RA_RELAY_H
#include <realign/engine.h>

typedef struct ra_relay ra_relay;
/* For passes of at most `rows` rows. `grid` must outlive the relay. */
ra_relay *ra_relay_new(ra_model *m, const ra_grid *grid, int32_t rows);
/* Waits for what was sent. */
void ra_relay_free(ra_relay *r);
/* From here on passes may have so many rows. Waits for rows that were sent. */
void ra_relay_make_room(ra_relay *r, int32_t rows);

/* On stage 0: n words to all stages behind it. Copied. */
void ra_relay_order(ra_relay *r, const int32_t *word, int32_t n);
/* On the others: the next order, handed on; the relay's until the next one. */
const int32_t *ra_relay_next(ra_relay *r, int32_t *n);

/* Before and after a pass: the rows that enter this stage's layers into the entry of slot 0 (nothing where the network begins here), and those that leave it to the next (nothing where it ends). */
void ra_relay_enter(ra_relay *r, int32_t rows, ra_activations *acts);
void ra_relay_leave(ra_relay *r, int32_t rows, ra_activations *acts);

/* On the last stage, to all others. Copied. */
void ra_relay_publish(ra_relay *r, const void *bytes, size_t n);
/* On the others: what was published next; of n bytes. */
void ra_relay_hear(ra_relay *r, void *bytes, size_t n);

/* Token ids that all stages need to know. */
typedef struct {
    int64_t id;
    const int32_t *token; /* (count) */
    int32_t count, first;
} ra_sequence;
/* Collective over grid->pipeline. `mine`, `n`: stage 0's; returns them there, and a copy of them on the others (free with ra_free: one block; *n [out]). */
ra_sequence *ra_relay_spread(const ra_grid *grid, ra_sequence *mine, int64_t *n);
#endif
