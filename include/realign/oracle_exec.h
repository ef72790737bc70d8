/* The `exec` kind of oracle: a user's program judges. It reads one JSON object a line on standard input, {"id", "policy", "prompt", "turns", "response", "category"}, and writes
 * one a line on standard output, {"id", "compliant": true | false | null, "probability"?, "reason"?}, in any order; doc/endpoints.md says what it may and may not do.
 * Not collective throughout: each rank has copies of its own. */
#ifndef REALIGN_ORACLE_EXEC_H
#define REALIGN_ORACLE_EXEC_H
#include <realign/oracle.h>
#include <realign/settings.h>

typedef struct {
    const char *name;        /* group of settings that messages name: "oracle.exec" */
    const char *const *argv; /* program and arguments; looked for in PATH; copied by ra_exec_open */
    int n_argv;
    int workers, window;               /* copies of the program; unanswered items each */
    double timeout_s, start_timeout_s; /* for an item; for the first answer of a copy, shortened once one was seen */
    int attempts;  /* of one item: copies that died over it though it was all they held, and answers without sense */
    int restarts;  /* deaths of copies in a row without a verdict in between; one more is an error */
    uint64_t seed; /* of the jitter */
    bool (*stop)(void *context); /* asked several times a second; true: abandon everything at once. May be NULL */
    void *stop_context;
} ra_exec_config;

typedef struct {
    int64_t judged, undecided; /* items */
    int64_t starts, deaths;    /* of copies; deaths while items were held or without an answer */
    int64_t hangs;             /* deaths that were ours, for time */
    int64_t asked_again;       /* items, after a death or an answer that makes no sense */
    int64_t garbage;           /* lines that are no answers */
    int64_t unknown, repeated; /* answers about items that this copy does not hold: never given to it; answered before */
    int64_t senseless;         /* answers about an item that say neither true, false nor null */
} ra_exec_counts;

/* Reads oracle.exec.*; texts belong to `s`. `stop` is left NULL. */
void ra_exec_config_read(const ra_settings *s, int rank, ra_exec_config *out);
/* Starts the first copy. `policy_text` goes to the program with every item; may be "". RA_ERR_ARG: the program cannot be started.
 * The table's `judge` returns RA_ERR_IO where copies die again and again without a verdict, RA_ERR_STOPPED when `stop` said so. Its `close` ends the copies: end of their
 * input, then SIGTERM, then SIGKILL, a second each. */
ra_err ra_exec_open(const ra_exec_config *config, const char *policy_text, const ra_oracle_ops **ops, void **state);
/* What a verdict depends on besides policy and item: the command, and the content of the program and of every argument that names a file (of files above 256 MiB, size and time
 * of change). One line; free with free. RA_ERR_ARG: there is no such program. */
ra_err ra_exec_identity(const ra_exec_config *config, char **identity);
const ra_exec_counts *ra_exec_counted(const void *state);
void ra_exec_counts_text(const ra_exec_counts *counts, ra_buf *out);

#endif
