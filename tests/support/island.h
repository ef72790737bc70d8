/* A backend whose memory is not host memory, as an accelerator's is not: the reference backend, but an address it hands out cannot be read or written outside of its operators (the program
 * dies of it), and an operator that is given a host address, a pack that was not placed, or one that was changed since, ends the program with a message. Numbers are the reference's. */
#ifndef TESTS_SUPPORT_ISLAND_H
#define TESTS_SUPPORT_ISLAND_H
#include <realign/backend.h>

ra_err island_open(ra_backend **out);
void island_close(ra_backend *b);
#endif
