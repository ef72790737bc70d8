/* A policy file that is being read: what its parts share. */
#ifndef RA_ORACLE_POLICY_IMPL_H
#define RA_ORACLE_POLICY_IMPL_H
#include "condition.h"
#include <realign/policy.h>

enum { RA_MOST_RULES = 1000 };

/* PKU-SafeRLHF's harm categories S1 to S19, as its data card names them. */
enum { RA_HARMS = 19 };
extern const char *const ra_harm_names[RA_HARMS];

typedef struct {
    ra_yaml *yaml;
    ra_problems *problems;
    ra_policy *policy;
    bool fold; /* ignore_case of the whole policy */
} ra_policy_reader;

/* Each reads its part of the file into the policy. */
void ra_rules_read(ra_policy_reader *r, yaml_node_t *rules);
void ra_labels_read(ra_policy_reader *r, yaml_node_t *labels);
void ra_examples_read(ra_policy_reader *r, yaml_node_t *examples);
void ra_rules_free(struct ra_rules *rules);
void ra_labels_free(struct ra_labels *labels);

/* ---- shared by the parts (policy.c) ---- */
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
/* The harm categories of a text or a list of texts, `any` being all: sets their flags. */
void ra_policy_harms(ra_policy_reader *r, yaml_node_t *node, const char *key, bool harm[RA_HARMS]);
/* 1 to 3 or their words; a mistake leaves *severity as it is. */
void ra_policy_severity(ra_policy_reader *r, yaml_node_t *node, const char *key, int *severity);
/* The items of `rules` or `labels`: each a map with a `name` of its own. Adds the names to `names` and calls `read` for each. */
void ra_policy_read_rules(ra_policy_reader *r, yaml_node_t *list, const char *key, ra_rule_names *names,
                          void (*read)(ra_policy_reader *r, yaml_node_t *map, const char *key, int index));

/* A map whose keys are among `known`: calls `read` for each, once; unknown and repeated keys are mistakes. `seen` (n) says which were there. */
void ra_policy_read_map(ra_policy_reader *r, yaml_node_t *map, const char *key, const char *const *known, int n, bool *seen,
                        void (*read)(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *out), void *out);

#endif
