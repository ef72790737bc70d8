/* Oracles for tests: from a policy file, or of a kind that answers by the text it is shown and counts what it is asked. */
#ifndef REALIGN_TESTS_ORACLEMAKE_H
#define REALIGN_TESTS_ORACLEMAKE_H
#include <realign/oracle.h>

/* As a stage would, with `policy` and oracle.kind alone. */
ra_err test_oracle_open(const char *kind, const char *policy, ra_oracle **out);

/* A costly kind: its verdict is drawn from a hash of the response and of `salt`. */
typedef struct {
    int salt;
    int batch;            /* 0: 64 */
    const char *mute;     /* responses that contain this cannot be judged; NULL: all can */
    int fail_after;       /* > 0: an error after so many questions, in the middle of a batch */
    void (*before)(void); /* called before each question */
    int64_t asked, calls; /* [out] */
} test_costly;

/* The member; `costly` must outlive it. `name`: of the kind. */
ra_oracle_member test_costly_open(test_costly *costly, const char *name);
/* What it says of a response: 1 or 0, and the probability. */
int test_costly_verdict(const test_costly *costly, const char *response, float *probability);
/* An oracle of these members over a policy file; `cache` may be NULL. */
ra_err test_oracle_of(const char *policy, const ra_oracle_member *member, int n, ra_combine how, const char *cache,
                      ra_oracle **out);

#endif
