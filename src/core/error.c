#include <realign/error.h>
#include <realign/log.h>

#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[4096] = "no error";

ra_err ra_fail(ra_err code, const char *format, ...)
{
    char text[sizeof message]; /* the arguments may point into the old message */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    return code;
}

ra_err ra_fail_in(ra_err code, const char *format, ...)
{
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof text) snprintf(text + n, sizeof text - (size_t)n, ": %s", message);
    memcpy(message, text, sizeof message);
    return code;
}

const char *ra_error_message(void)
{
    return message;
}

const char *ra_error_name(ra_err code)
{
    switch (code) {
    case RA_OK: return "no error";
    case RA_ERR_ARG: return "bad argument";
    case RA_ERR_IO: return "I/O error";
    case RA_ERR_FORMAT: return "bad file";
    case RA_ERR_DATA: return "bad data";
    case RA_ERR_UNSUPPORTED: return "not supported";
    case RA_ERR_NUMERIC: return "numerical check failed";
    case RA_ERR_STOPPED: return "stopped";
    }
    return "unknown error";
}

void ra_die(const char *format, ...)
{
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int started = 0, ended = 0;
    MPI_Initialized(&started);
    if (started) MPI_Finalized(&ended);
    if (started && !ended) {
        char host[MPI_MAX_PROCESSOR_NAME] = "?";
        int length = 0;
        MPI_Get_processor_name(host, &length);
        fprintf(stderr, "realign: rank %d on %s: fatal: %s\n", ra_log_rank(), host, text);
        fflush(stderr);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    fprintf(stderr, "realign: fatal: %s\n", text);
    exit(1);
}
