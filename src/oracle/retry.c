#include "retry.h"

#include <pthread.h>
#include <time.h>

double ra_retry_delay(ra_rng *rng, int failures, double first, double most)
{
    double wait = first;
    for (int i = 1; i < failures && wait < most; i++) wait *= 2.0;
    if (wait > most) wait = most;
    return wait * (0.5 + 0.5 * ra_rng_uniform(rng));
}

static bool is_pending(void)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGPIPE) == 1;
}

void ra_sigpipe_hold(ra_sigpipe *hold)
{
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    hold->was_pending = is_pending();
    pthread_sigmask(SIG_BLOCK, &pipe, &hold->before);
}

void ra_sigpipe_release(const ra_sigpipe *hold)
{
    /* one that was raised here must not strike when the mask is lifted */
    if (!hold->was_pending && is_pending()) {
        sigset_t pipe;
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        const struct timespec now = {0, 0};
        sigtimedwait(&pipe, NULL, &now);
    }
    pthread_sigmask(SIG_SETMASK, &hold->before, NULL);
}
