#include "support.h"
#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *test_message(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char text[4096];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ra_strdup(text);
}

/* TAP wants messages as comment lines. */
static void print_comment(int rank, const char *text)
{
    printf("# rank %d: ", rank);
    for (const char *c = text; *c; c++) {
        putchar(*c);
        if (*c == '\n' && c[1]) printf("# ");
    }
    putchar('\n');
}

int test_mpi_main(int argc, char **argv, const test_mpi *tests, int n)
{
    ra_comm world;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) ra_die("%s", ra_error_message());
    if (world.rank == 0) printf("1..%d\n", n);
    int failures = 0;
    for (int i = 0; i < n; i++) {
        const char *message = tests[i].run(&world);
        ra_err verdict = ra_comm_agree(&world, message ? ra_fail(RA_ERR_DATA, "%s", message) : RA_OK);
        if (verdict != RA_OK) failures++;
        if (world.rank == 0) {
            if (verdict != RA_OK) print_comment(0, ra_error_message());
            printf("%s %d - %s (%d rank%s)\n", verdict == RA_OK ? "ok" : "not ok", i + 1, tests[i].name, world.size,
                   world.size == 1 ? "" : "s");
            fflush(stdout);
        }
        free((void *)(uintptr_t)message);
    }
    ra_comm_finalize();
    return failures > 0;
}

char *test_mpi_dir_make(const ra_comm *world)
{
    char path[512] = "";
    if (world->rank == 0) {
        char *dir = test_dir_make();
        snprintf(path, sizeof path, "%s", dir);
        free(dir);
    }
    ra_comm_bcast(world, path, sizeof path, 0);
    return ra_strdup(path);
}

void test_mpi_dir_remove(const ra_comm *world, char *dir)
{
    RA_MPI(MPI_Barrier(world->comm));
    if (world->rank == 0) {
        test_dir_remove(dir);
    } else {
        free(dir);
    }
}
