/* What everything that waits for somebody else's program needs: how long to wait before the next attempt, and pipes that may break. */
#ifndef RA_ORACLE_RETRY_H
#define RA_ORACLE_RETRY_H
#include <realign/rng.h>
#include <signal.h>
#include <stdbool.h>

/* Seconds before attempt `failures` + 1: `first` doubled with each failure, at most `most`, of which a random half is taken off so that many who failed together do not come back
 * together. */
double ra_retry_delay(ra_rng *rng, int failures, double first, double most);

/* Keeps SIGPIPE from this thread: writing to a peer that has gone then fails with EPIPE. Handlers of the process are left alone. */
typedef struct {
    sigset_t before;
    bool was_pending;
} ra_sigpipe;
void ra_sigpipe_hold(ra_sigpipe *hold);
void ra_sigpipe_release(const ra_sigpipe *hold);

#endif
