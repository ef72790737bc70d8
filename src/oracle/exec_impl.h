/* What the files of the `exec` kind share. */
#ifndef RA_ORACLE_EXEC_IMPL_H
#define RA_ORACLE_EXEC_IMPL_H
#include "exec_process.h"
#include <realign/oracle_exec.h>

/* ---- lines (exec_lines.c) ---- */
/* Appends the line that asks about `item`. */
void ra_exec_write_item(int64_t id, const char *policy_text, const ra_oracle_item *item, ra_buf *out);

typedef enum {
    RA_EXEC_VERDICT,
    RA_EXEC_GARBAGE /* no answer at all */,
    RA_EXEC_SENSELESS /* about `id`, without a verdict */
} ra_exec_line;
typedef struct {
    int64_t id;
    ra_verdict verdict;
    ra_buf problem; /* of lines without a verdict, and of verdict -1 */
} ra_exec_answer;
/* `line`: n bytes without the line end. `out->problem` is cleared first. */
ra_exec_line ra_exec_read_answer(const char *line, size_t n, ra_exec_answer *out);

/* ---- one copy of the program (exec_worker.c) ---- */
typedef struct {
    int item;
    double deadline_s;
} ra_exec_held;

typedef struct {
    int number; /* from 1, for messages */
    ra_process process;
    ra_buf to_write, output, words; /* of standard input, output and error */
    ra_buf last_words;              /* the last line on standard error */
    size_t written;                 /* of to_write */
    ra_exec_held *held;             /* unanswered items in the order of sending */
    int n_held;
    bool alone;    /* what it holds was held at a death before: nothing else is sent meanwhile */
    bool answered; /* since its start */
    int failures;  /* starts in a row without an answer */
    double started_s;
    double due_s;       /* not to be started before */
    double last_s;      /* when it last answered, or was given work while it had none */
    double out_ended_s; /* when its output ended; 0: it has not */
} ra_exec_worker;

enum { RA_EXEC_LINE_LIMIT = 1 << 20 /* bytes of an answer */ };

/* Writes what the pipe takes. */
void ra_exec_worker_write(ra_exec_worker *w);
/* Reads what is there into `output` and `words`. False: a line of output is over the limit. */
bool ra_exec_worker_read(ra_exec_worker *w);
/* Takes the next whole line off `text`, at *at; *line points into it. False: there is none. */
bool ra_exec_next_line(const ra_buf *text, size_t *at, const char **line, size_t *n);
/* Forgets the first `n` bytes. */
void ra_exec_drop(ra_buf *text, size_t n);

#endif
