#include <realign/file.h>
#include <realign/log.h>
#include <realign/runctl.h>
#include <realign/timer.h>

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

void ra_runctl_start(ra_runctl *ctl)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (!ctl->clock) ctl->clock = ra_now;
    /* the limit is the job's, which began with the program, not with this stage */
    ctl->started_s = ctl->clock() - (ctl->clock == ra_now ? ra_log_seconds() : 0.0);
}

void ra_runctl_end(void)
{
    signal(SIGTERM, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGINT, SIG_DFL);
}

void ra_runctl_reset_flag(void)
{
    stop_signal = 0;
}

bool ra_runctl_is_due(const ra_runctl *ctl)
{
    if (stop_signal) return true;
    if (ctl->wall_limit_s > 0.0 && ra_log_seconds() > ctl->wall_limit_s - ctl->margin_s) return true;
    return ctl->stop_file && ra_file_exists(ctl->stop_file);
}

enum { GO_ON, STOP_SIGNAL, STOP_WALL, STOP_FILE };

bool ra_runctl_should_stop(ra_runctl *ctl, const ra_comm *comm, const char **reason)
{
    static const char *const words[] = {NULL, "a signal (SIGTERM, SIGUSR1 or SIGINT)", "the wall-clock limit", "the stop file"};
    /* A signal may reach any rank (srun sends it to all, kill to one); the clock and the file are rank 0's. */
    int why = stop_signal ? STOP_SIGNAL : GO_ON;
    if (comm->rank == 0 && why == GO_ON) {
        if (ctl->wall_limit_s > 0.0 && ctl->clock() - ctl->started_s > ctl->wall_limit_s - ctl->margin_s) {
            why = STOP_WALL;
        } else if (ctl->stop_file && ra_file_exists(ctl->stop_file)) {
            why = STOP_FILE;
        }
    }
    if (comm->size > 1) RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &why, 1, MPI_INT, MPI_MAX, comm->comm));
    if (reason) *reason = words[why];
    return why != GO_ON;
}
