/* What every kind of oracle shares. A kind is a table of functions. */
#ifndef RA_ORACLE_IMPL_H
#define RA_ORACLE_IMPL_H
#include "condition.h"
#include <realign/oracle.h>

enum { RA_MOST_RULES = 1000 };

typedef struct {
    const char *name;
    ra_verdict (*judge)(ra_oracle *o, const ra_oracle_item *item);
    void (*free_state)(void *state);
    bool judges_text;
} ra_oracle_kind_ops;

struct ra_oracle {
    const ra_oracle_kind_ops *ops;
    void *state;
    char *policy;
    char **rule;
    int n_rules;
    uint64_t hash;
    char problem[300];
};

/* A policy file that is being read. */
typedef struct {
    ra_yaml *yaml;
    ra_problems *problems;
    ra_oracle *oracle;
    bool fold; /* ignore_case of the whole policy */
} ra_policy_reader;

/* Each reads its part of the policy into oracle->state and ->rule, and sets ->ops. */
void ra_rules_read(ra_policy_reader *r, yaml_node_t *rules);
void ra_labels_read(ra_policy_reader *r, yaml_node_t *labels);

/* ---- shared by the kinds (policy.c) ---- */
void ra_policy_problem(ra_policy_reader *r, const yaml_node_t *node, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The key names `known` with a suggestion where `word` is near one. */
void ra_policy_unknown_key(ra_policy_reader *r, const yaml_node_t *node, const char *key, const char *word,
                           const char *const *known, int n);
/* The text of a scalar, else a mistake and NULL. */
const char *ra_policy_text(ra_policy_reader *r, yaml_node_t *node, const char *key);
bool ra_policy_flag(ra_policy_reader *r, yaml_node_t *node, const char *key, bool before);
/* One text or a list of texts; *n of them, malloced. */
char **ra_policy_texts(ra_policy_reader *r, yaml_node_t *node, const char *key, int *n);
void ra_policy_free_texts(char **texts, int n);
/* The items of `rules` or `labels`: each a map with a `name` of its own. Adds the names to the oracle and calls `read` for each. */
void ra_policy_read_rules(ra_policy_reader *r, yaml_node_t *list, const char *key,
                          void (*read)(ra_policy_reader *r, yaml_node_t *map, const char *key, int index));

#endif
