/* What the test programs share: float comparison that rejects NaN, temporary directories, where the shared data lie. */
#ifndef REALIGN_TESTS_SUPPORT_H
#define REALIGN_TESTS_SUPPORT_H
#include <realign/comm.h>
#include <realign/error.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* True when |got - want| <= max(abs, rel * |want|) and both are numbers. Otherwise prints both and what they are. */
bool is_close(double got, double want, double rel, double abs, const char *what);
/* Fails the test unless is_close. */
#define check_close(got, want, rel, abs, what) check_close_at(got, want, rel, abs, what, __FILE__, __LINE__)
void check_close_at(double got, double want, double rel, double abs, const char *what, const char *file, int line);
/* Fails the test unless `err` is RA_OK, printing the message. */
#define check_ok(err, what) check_ok_at(err, what, __FILE__, __LINE__)
void check_ok_at(ra_err err, const char *what, const char *file, int line);
/* Fails the test unless `err` is `code` and the message contains every one of the words (NULL-terminated). */
#define check_fails(err, code, ...) check_fails_at(__FILE__, __LINE__, err, code, __VA_ARGS__)
void check_fails_at(const char *file, int line, ra_err err, ra_err code, ...);
#define CHECK_OK(call) check_ok((call), #call)

/* A new empty directory under $TMPDIR or /tmp; free with test_dir_remove, which deletes it with everything in it. */
char *test_dir_make(void);
void test_dir_remove(char *dir);

/* The shared folder: $REALIGN_SHARED or ../shared; NULL where there is none. */
const char *test_shared(void);
/* Path of a file below the shared folder, free with free. Where it is missing, the test is skipped, loudly. */
char *test_shared_path(const char *relative);

/* ---- programs under mpirun ---- */

/* Collective. A test of an MPI program: every rank runs `run`, which returns NULL when all is well on this rank, else a
 * message (static or leaked). A failure on any rank fails the test, and only rank 0 prints TAP. */
typedef struct {
    const char *name;
    const char *(*run)(const ra_comm *world);
} test_mpi;
/* Starts MPI, runs the tests, ends MPI; the value for main to return. */
int test_mpi_main(int argc, char **argv, const test_mpi *tests, int n);
/* Not collective. printf into a new string, for messages of failed MPI tests. */
const char *test_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Returns the message from the test when the condition does not hold. */
#define MPI_EXPECT(condition, ...)                             \
    do {                                                       \
        if (!(condition)) return test_message("" __VA_ARGS__); \
    } while (0)
/* The same for a call that must return RA_OK. */
#define MPI_EXPECT_OK(call)                                                                                       \
    do {                                                                                                          \
        if ((call) != RA_OK) return test_message("%s:%d: %s: %s", __FILE__, __LINE__, #call, ra_error_message()); \
    } while (0)
/* A directory made by rank 0, known to all; removed by test_mpi_dir_remove (collective). */
char *test_mpi_dir_make(const ra_comm *world);
void test_mpi_dir_remove(const ra_comm *world, char *dir);

#endif
