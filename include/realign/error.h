/* Errors: library functions return a code and leave one message behind; only stages decide to die. */
#ifndef REALIGN_ERROR_H
#define REALIGN_ERROR_H

typedef enum {
    RA_OK = 0,
    RA_ERR_ARG,         /* a caller's or user's value is wrong */
    RA_ERR_IO,          /* open, read, write, rename, disk full */
    RA_ERR_FORMAT,      /* a file is not what it claims to be */
    RA_ERR_DATA,        /* a well-formed value cannot be used: empty, non-finite, over a limit */
    RA_ERR_UNSUPPORTED, /* understood, refused with a reason */
    RA_ERR_NUMERIC,     /* an invariant of the method does not hold */
    RA_ERR_STOPPED      /* an orderly stop was asked for; exit code 75 */
} ra_err;

/* Not collective. Stores a printf-style message for this thread and returns `code`. */
ra_err ra_fail(ra_err code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Not collective. Puts "context: " before the stored message and returns `code`. */
ra_err ra_fail_in(ra_err code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Not collective. This thread's last message; never NULL; valid until its next failure. */
const char *ra_error_message(void);

/* The code's name, "I/O error" and the like. */
const char *ra_error_name(ra_err code);

/* Fatal, one rank: prints the message with rank and host and ends every rank through MPI_Abort (exit code 1). */
void ra_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Returns the failure to the caller. */
#define RA_TRY(call)                                  \
    do {                                              \
        ra_err ra_try_code = (call);                  \
        if (ra_try_code != RA_OK) return ra_try_code; \
    } while (0)

/* Jumps to `label` with `err` set, for functions that clean up. */
#define RA_TRY_TO(label, err, call)     \
    do {                                \
        (err) = (call);                 \
        if ((err) != RA_OK) goto label; \
    } while (0)

#endif
