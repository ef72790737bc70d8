/* One child process with pipes on its three standard streams. */
#ifndef RA_ORACLE_EXEC_PROCESS_H
#define RA_ORACLE_EXEC_PROCESS_H
#include <realign/error.h>
#include <realign/mem.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct {
    pid_t pid;        /* also its process group; 0: none */
    int in, out, err; /* our ends, non-blocking; -1: closed */
} ra_process;

/* Starts argv (NULL-terminated; argv[0] is looked for in PATH) without a shell, in a process group of its own, with signals at their defaults and no other open file.
 * RA_ERR_ARG names the program. */
ra_err ra_process_start(ra_process *p, char *const *argv);
/* Has it ended? It stays a zombie until ra_process_end. */
bool ra_process_has_ended(const ra_process *p);
void ra_process_signal(const ra_process *p, int signal);
/* Kills what is left of its group, waits for it and closes the pipes. Appends how it ended ("exited with status 3", "was ended by signal 11 (Segmentation fault)"). */
void ra_process_end(ra_process *p, ra_buf *how);
void ra_process_close(int *file);

#endif
