/* Usage: make_correct_run DIR: model, data and policy for tests of corrections at the shell. */
#include "support/correct_run.h"

#include <realign/comm.h>

int main(int argc, char **argv)
{
    ra_comm world;
    if (argc < 2) return 2;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) ra_die("%s", ra_error_message());
    if (correct_run_make(argv[1]) != RA_OK) ra_die("%s", ra_error_message());
    ra_comm_finalize();
    return 0;
}
