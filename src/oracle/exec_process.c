#define _GNU_SOURCE /* pipe2, posix_spawn_file_actions_addclosefrom_np */
#include "exec_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

void ra_process_close(int *file)
{
    if (*file >= 0) close(*file);
    *file = -1;
}

/* A file number above the standard ones, in case those are closed in this process: the child's streams are made by dup2 onto them. */
static int above_standard(int file)
{
    if (file < 0 || file > 2) return file;
    int moved = fcntl(file, F_DUPFD_CLOEXEC, 3);
    close(file);
    return moved;
}

/* `ours`: which end is non-blocking and stays here. */
static bool make_pipe(int ends[2], int ours)
{
    if (pipe2(ends, O_CLOEXEC) != 0) {
        ends[0] = ends[1] = -1;
        return false;
    }
    ends[0] = above_standard(ends[0]);
    ends[1] = above_standard(ends[1]);
    return ends[0] >= 0 && ends[1] >= 0 && fcntl(ends[ours], F_SETFL, O_NONBLOCK) == 0;
}

/* posix_spawn shares memory with the child until it executes (CLONE_VFORK): no page is copied and no fork handler of an MPI library runs. */
static int spawn(pid_t *pid, char *const *argv, int in, int out, int err)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, err, STDERR_FILENO);
#if __GLIBC_PREREQ(2, 34)
    posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1);
#endif
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int bad = posix_spawnp(pid, argv[0], &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return bad;
}

ra_err ra_process_start(ra_process *p, char *const *argv)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    *p = (ra_process){0, -1, -1, -1};
    pid_t pid = 0;
    int bad = make_pipe(in, 1) && make_pipe(out, 0) && make_pipe(err, 0) ? 0 : errno;
    const char *what = "no pipes for";
    if (bad == 0) {
        what = "cannot start";
        bad = spawn(&pid, argv, in[0], out[1], err[1]);
    }
    ra_process_close(&in[0]);
    ra_process_close(&out[1]);
    ra_process_close(&err[1]);
    if (bad != 0) {
        ra_process_close(&in[1]);
        ra_process_close(&out[0]);
        ra_process_close(&err[0]);
        return ra_fail(RA_ERR_ARG, "%s the program %s: %s", what, argv[0], strerror(bad));
    }
    *p = (ra_process){pid, in[1], out[0], err[0]};
    return RA_OK;
}

bool ra_process_has_ended(const ra_process *p)
{
    siginfo_t info = {0};
    int got = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    return (got == 0 && info.si_pid == p->pid) || (got != 0 && errno == ECHILD);
}

void ra_process_signal(const ra_process *p, int number)
{
    if (p->pid > 0) kill(-p->pid, number);
}

void ra_process_end(ra_process *p, ra_buf *how)
{
    if (p->pid > 0) {
        int status = 0;
        ra_process_signal(p, SIGKILL); /* before the wait, while the number is still its own */
        pid_t got;
        do {
            got = waitpid(p->pid, &status, 0);
        } while (got < 0 && errno == EINTR);
        if (got < 0) {
            ra_buf_adds(how, "ended");
        } else if (WIFSIGNALED(status)) {
            ra_buf_addf(how, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        } else {
            ra_buf_addf(how, "exited with status %d", WEXITSTATUS(status));
        }
    }
    ra_process_close(&p->in);
    ra_process_close(&p->out);
    ra_process_close(&p->err);
    p->pid = 0;
}
