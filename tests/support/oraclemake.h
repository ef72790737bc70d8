/* Oracles for tests: from a policy file, or of a kind that answers as it is told and counts what it is asked. */
#ifndef REALIGN_TESTS_ORACLEMAKE_H
#define REALIGN_TESTS_ORACLEMAKE_H
#include <realign/oracle.h>

/* As a stage would, with `policy` and oracle.kind alone. */
ra_err test_oracle_open(const char *kind, const char *policy, ra_oracle **out);

#endif
