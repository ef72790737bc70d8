#include <realign/log.h>
#include <realign/timer.h>

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* The log sink and the rank are the only mutable globals of the program. */
static int log_rank;
static ra_log_level log_level = RA_LOG_INFO;
static double log_start = -1.0;
static double last_progress = -1e9;
static int progress_open;

void ra_log_setup(int rank, ra_log_level level)
{
    log_rank = rank;
    log_level = level;
    if (log_start < 0.0) log_start = ra_now();
}

int ra_log_rank(void)
{
    return log_rank;
}

double ra_log_seconds(void)
{
    return log_start < 0.0 ? 0.0 : ra_now() - log_start;
}

static void put(const char *kind, const char *format, va_list args)
{
    char text[8192];
    vsnprintf(text, sizeof text, format, args);
    if (log_start < 0.0) log_start = ra_now();
    if (progress_open) fputc('\n', stderr);
    progress_open = 0;
    if (log_rank == 0) {
        fprintf(stderr, "[%8.2f] %s%s\n", ra_now() - log_start, kind, text);
    } else {
        fprintf(stderr, "[%8.2f] rank %d: %s%s\n", ra_now() - log_start, log_rank, kind, text);
    }
}

void ra_info(const char *format, ...)
{
    if (log_rank != 0 || log_level < RA_LOG_INFO) return;
    va_list args;
    va_start(args, format);
    put("", format, args);
    va_end(args);
}

void ra_debug(const char *format, ...)
{
    if (log_rank != 0 || log_level < RA_LOG_DEBUG) return;
    va_list args;
    va_start(args, format);
    put("", format, args);
    va_end(args);
}

void ra_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put("warning: ", format, args);
    va_end(args);
}

void ra_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put("error: ", format, args);
    va_end(args);
}

void ra_progress(int last, const char *format, ...)
{
    if (log_rank != 0 || log_level < RA_LOG_INFO) return;
    int terminal = isatty(STDERR_FILENO);
    double now = ra_now();
    if (!last && now - last_progress < (terminal ? 0.1 : 10.0)) return;
    last_progress = last ? -1e9 : now;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (terminal) {
        fprintf(stderr, "\r\033[K[%8.2f] %s%s", now - log_start, text, last ? "\n" : "");
        progress_open = !last;
    } else {
        fprintf(stderr, "[%8.2f] %s\n", now - log_start, text);
    }
}
