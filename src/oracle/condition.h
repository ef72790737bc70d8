/* Conditions of a rules policy: a tree that holds, does not hold, or cannot be decided for a prompt and a response. */
#ifndef RA_ORACLE_CONDITION_H
#define RA_ORACLE_CONDITION_H
#include "text.h"
#include <realign/yamldoc.h>

typedef enum { RA_UNKNOWN = -1, RA_NO = 0, RA_YES = 1 } ra_truth;
typedef enum { RA_SIDE_RESPONSE, RA_SIDE_PROMPT } ra_side;

typedef struct ra_condition ra_condition;

/* What a condition is evaluated over. */
typedef struct {
    ra_subject side[2]; /* by ra_side */
    void *match_data;   /* PCRE2's, one for all patterns */
    void *match_limits;
    char problem[160]; /* why the last undecided one was */
} ra_evaluation;

void ra_evaluation_begin(ra_evaluation *e);
void ra_evaluation_end(ra_evaluation *e);

/* Compiles the condition at `node`, which is about `side` unless it says otherwise. `key`: how messages name it.
 * Mistakes go to `problems`; NULL after one. */
ra_condition *ra_condition_read(ra_yaml *yaml, yaml_node_t *node, const char *key, ra_side side, bool fold,
                                ra_problems *problems);
void ra_condition_free(ra_condition *c);
ra_truth ra_condition_holds(const ra_condition *c, ra_evaluation *e);

#endif
