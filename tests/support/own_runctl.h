/* A run control of the test program's own, in place of the library's: a stop after so many questions. Included once by a program that is linked with stages. */
#ifndef TESTS_OWN_RUNCTL_H
#define TESTS_OWN_RUNCTL_H
#include <realign/runctl.h>

static int64_t questions_left = INT64_MAX;

void ra_runctl_start(ra_runctl *ctl)
{
    ctl->started_s = 0.0;
}

bool ra_runctl_should_stop(ra_runctl *ctl, const ra_comm *comm, const char **reason)
{
    (void)ctl, (void)comm;
    if (reason) *reason = "the test";
    return questions_left-- <= 0;
}

bool ra_runctl_is_due(const ra_runctl *ctl)
{
    (void)ctl;
    return false;
}

void ra_runctl_end(void)
{
}

void ra_runctl_reset_flag(void)
{
}

#endif
