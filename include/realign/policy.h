/* A policy file (doc/policies.md): one YAML file that says which responses comply, in up to three bodies: `rules:` over the text, `labels:` over columns of the
 * data, `text:` for judges that read. Which of them is used is the oracle's affair (realign/oracle.h). Not collective throughout. */
#ifndef REALIGN_POLICY_H
#define REALIGN_POLICY_H
#include <realign/error.h>
#include <realign/hash.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A case with its answer, for `realign policy check` and for judges that are shown some. */
typedef struct {
    char *prompt, *response;
    char *category, *why; /* or NULL */
    bool compliant;
    json_t *row; /* columns of a row whose response 0 this is, for labels; NULL where the example gives none */
    size_t line; /* in the file */
} ra_policy_example;

typedef struct {
    char **name; /* (n) in file order */
    int n;
} ra_rule_names;

/* Read-only for everyone but the reader. */
typedef struct {
    char *path, *name, *version, *description; /* "" where not given */
    char *text;                                /* for judges, white space at both ends cut; NULL: the file has none */
    struct ra_rules *rules;                    /* compiled; NULL: the file has none */
    struct ra_labels *labels;
    ra_rule_names rule_names, label_names;
    ra_policy_example *example;
    int n_examples;
    ra_hash hash; /* of the file's bytes */
} ra_policy;

/* Every mistake of the file is collected into one message, "file:line: key: what is wrong; what is accepted". RA_ERR_IO, RA_ERR_FORMAT (not YAML), RA_ERR_ARG. */
ra_err ra_policy_read(const char *path, ra_policy **out);
void ra_policy_free(ra_policy *policy);

#endif
