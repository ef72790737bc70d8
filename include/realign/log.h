/* Log lines on stderr: "[seconds] text" from rank 0, "[seconds] rank r: text" from the others. */
#ifndef REALIGN_LOG_H
#define REALIGN_LOG_H

typedef enum { RA_LOG_QUIET, RA_LOG_INFO, RA_LOG_DEBUG } ra_log_level;

/* Not collective. Sets this process's rank (lines of rank > 0 appear for warnings and errors only) and level. */
void ra_log_setup(int rank, ra_log_level level);
int ra_log_rank(void);
/* Seconds since the log was set up: since the program began. */
double ra_log_seconds(void);

/* Rank 0 only. */
void ra_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ra_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Every rank. */
void ra_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void ra_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Rank 0 only. A line that replaces itself on a terminal; elsewhere at most one line every 10 seconds.
 * `last` != 0 always prints and ends the line. */
void ra_progress(int last, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
