/* Usage: make_tiny_run DIR MODEL [SAMPLES [SEED]]: store and triage of random ids, for tests of weigh and train at the shell. */
#include "support/tiny_run.h"

#include <realign/error.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    ra_comm world;
    if (argc < 3) return 2;
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) ra_die("%s", ra_error_message());
    tiny_run run = {
        .model = argv[2], .samples = argc > 3 ? atoll(argv[3]) : 48, .seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 5};
    if (tiny_run_make(&world, argv[1], &run) != RA_OK) ra_die("%s", ra_error_message());
    ra_comm_finalize();
    return 0;
}
