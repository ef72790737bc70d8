/* When to stop: one module decides. Signals (SIGTERM, SIGUSR1, SIGINT) only set a flag; the wall-clock limit and the stop
 * file are looked at when asked. Rank 0 decides, all ranks hear the same answer. */
#ifndef REALIGN_RUNCTL_H
#define REALIGN_RUNCTL_H
#include <realign/comm.h>
#include <stdbool.h>

enum { RA_EXIT_AGAIN = 75 }; /* "submit me again": a checkpoint was written, the work is not finished */

typedef struct {
    double wall_limit_s;   /* 0: none; counted from the program's start (from ra_runctl_start with an injected clock) */
    double margin_s;       /* stop this long before the limit */
    const char *stop_file; /* NULL: none; its appearance asks for a stop */
    double (*clock)(void); /* injectable; NULL: ra_now */
    double started_s;
} ra_runctl;

/* Not collective. Installs the signal flag and starts the clock. */
void ra_runctl_start(ra_runctl *ctl);
/* Not collective. Signals act as ever from here on: whoever no longer asks must not swallow them. */
void ra_runctl_end(void);
/* Collective. True when an orderly stop was asked for; `reason` (may be NULL) then names it, a static string. */
bool ra_runctl_should_stop(ra_runctl *ctl, const ra_comm *comm, const char **reason);
/* Not collective. This rank's own view, for waits that no other rank takes part in: a signal, the limit or the stop file asks for a stop. `ctl` need not have been started: the limit
 * counts from the program's start. */
bool ra_runctl_is_due(const ra_runctl *ctl);
void ra_runctl_reset_flag(void);

#endif
