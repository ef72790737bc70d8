/* Named wall-clock timers of this rank, and the table of min/mean/max over ranks. Timers nest; times are inclusive. */
#ifndef REALIGN_TIMER_H
#define REALIGN_TIMER_H
#include <realign/error.h>
#include <mpi.h>

double ra_now(void); /* seconds since an arbitrary point, monotonic */

typedef struct ra_timers ra_timers;
ra_timers *ra_timers_new(void);
void ra_timers_free(ra_timers *timers);

/* Adds the time between begin and end to `name` (a string literal). Not thread-safe; `timers` may be NULL. */
void ra_timer_begin(ra_timers *timers, const char *name);
void ra_timer_end(ra_timers *timers, const char *name);
double ra_timer_seconds(const ra_timers *timers, const char *name);

/* Collective over `comm`. Rank 0 writes "stage\ttimer\tcalls\tmin_s\tmean_s\tmax_s" rows, appending to `path`
 * (the header too when the file is new). Rank 0 names the timers; a rank without one counts 0 seconds. */
ra_err ra_timers_write(const ra_timers *timers, MPI_Comm comm, const char *stage, const char *path);

#endif
