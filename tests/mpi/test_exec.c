/* A program started after MPI_Init, on every rank, beside messages between the ranks. */
#include "support/support.h"
#include <realign/log.h>
#include <realign/oracle_exec.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { ITEMS = 60 };

typedef struct {
    int count, wrong;
    const ra_oracle_item *items;
} tally;

static void take(void *context, int item, const ra_verdict *verdict)
{
    tally *t = context;
    t->count++;
    t->wrong += verdict->compliant != (strstr(t->items[item].response, "7") != NULL);
}

/* sed as a judge: compliant where the response holds a 7. */
static const char *run_program(const ra_comm *world)
{
    static const char *const argv[] = {"sed", "-u", "-E",
                                       "s/^\\{\"id\":([0-9]+),.*\"response\":\"[0-9]*7.*$/{\"id\":\\1,\"compliant\":true}/;t;s/"
                                       "^\\{\"id\":([0-9]+),.*$/{\"id\":\\1,\"compliant\":false}/"};
    const ra_exec_config config = {.name = "oracle.exec",
                                   .argv = argv,
                                   .n_argv = 4,
                                   .workers = 2,
                                   .window = 4,
                                   .timeout_s = 30,
                                   .start_timeout_s = 60,
                                   .attempts = 1,
                                   .seed = 1};
    static char text[ITEMS][20];
    ra_oracle_item items[ITEMS] = {0};
    for (int i = 0; i < ITEMS; i++) {
        snprintf(text[i], sizeof text[i], "%d", i + 100 * world->rank);
        items[i] = (ra_oracle_item){.prompt = "p", .response = text[i], .response_index = -1};
    }
    const ra_oracle_ops *ops;
    void *state;
    MPI_EXPECT_OK(ra_exec_open(&config, "policy", &ops, &state));
    int64_t done = 0;
    for (int round = 0; round < 3; round++) {
        tally t = {.items = items};
        MPI_EXPECT_OK(ops->judge(state, items, ITEMS, take, &t));
        MPI_EXPECT(t.count == ITEMS && t.wrong == 0, "round %d: %d verdicts, %d wrong", round, t.count, t.wrong);
        done += t.count;
        ra_comm_sum_i64(world, &done, 1);
        MPI_EXPECT(done % ITEMS == 0 && done >= (int64_t)ITEMS * world->size, "a sum over ranks is %lld", (long long)done);
    }
    ops->close(state);
    MPI_EXPECT(waitpid(-1, NULL, WNOHANG) == -1, "a child process is left");
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {{"a program judges on every rank", run_program}};
    return test_mpi_main(argc, argv, tests, 1);
}
