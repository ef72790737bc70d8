/* What the files of the oracle share: one member, and how it is asked. */
#ifndef RA_ORACLE_ORACLE_IMPL_H
#define RA_ORACLE_ORACLE_IMPL_H
#include <realign/hash.h>
#include <realign/oracle.h>
#include <realign/verdicts.h>

typedef struct {
    ra_oracle_member kind;
    ra_hash identity; /* of the kind, its identity and the policy's text */
    int first_rule;   /* its rules in the oracle's list */
} ra_asked;

/* Hash of an item's conversation and response, begun with `identity`. An item without turns is a conversation of its prompt alone. `whole_row`: of the row too. */
ra_hash ra_item_hash(ra_hash identity, const ra_oracle_item *item, bool whole_row);

/* Asks one member about the items with want[i] (NULL: all), the cache first; out[i] of the others is left alone. */
ra_err ra_asked_judge(ra_asked *m, ra_verdicts *cache, const ra_oracle_item *items, int n, const bool *want,
                      ra_oracle_counts *counts, ra_verdict *out);
/* Adds how many questions are not in the cache, and the bytes of their texts. */
void ra_asked_missing(const ra_asked *m, const ra_verdicts *cache, const ra_oracle_item *items, int n, int64_t *questions,
                      int64_t *bytes);

#endif
