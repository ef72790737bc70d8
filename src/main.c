/* realign: dispatch. */
#include <realign/comm.h>
#include <realign/error.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/runctl.h>
#include <realign/settings.h>
#include <realign/tools.h>
#include <realign/version.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    ra_err (*run)(int argc, char **argv);
    const char *help;
} tool;

static const tool tools[] = {
    {"check", ra_tool_check, "check DIR                       recompute the values of a reference directory"},
};

int main(int argc, char **argv)
{
    ra_comm world;
    ra_err err = ra_comm_init(&argc, &argv, &world);
    const char *name = argc > 1 ? argv[1] : "help";
    if (err == RA_OK) {
        err = ra_fail(RA_ERR_ARG, "unknown command \"%s\"; `realign help` lists them", name);
        for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
            if (strcmp(tools[i].name, name) == 0) err = tools[i].run(argc - 2, argv + 2);
        }
    }
    if (err != RA_OK && world.rank == 0) fprintf(stderr, "realign %s: %s\n", name, ra_error_message());
    ra_comm_finalize();
    return err == RA_OK ? 0 : err == RA_ERR_STOPPED ? RA_EXIT_AGAIN : 1;
}
