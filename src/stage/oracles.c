/* Oracles from settings: the only place that knows every kind. */
#include "oracles.h"

#include <realign/mem.h>

#include <string.h>

static ra_err open_rules(const ra_settings *s, const ra_comm *world, const ra_policy *policy, ra_oracle_member *out)
{
    (void)s, (void)world;
    return ra_rules_open(policy, out);
}

static ra_err open_labels(const ra_settings *s, const ra_comm *world, const ra_policy *policy, ra_oracle_member *out)
{
    (void)s, (void)world;
    return ra_labels_open(policy, out);
}

/* A kind is a row here. */
static const struct {
    const char *name;
    ra_err (*open)(const ra_settings *s, const ra_comm *world, const ra_policy *policy, ra_oracle_member *out);
    bool reads_text; /* works by the policy's `text:` */
} kinds[] = {
    {"rules", open_rules, false},
    {"labels", open_labels, false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* What `auto` stands for: a body that judges by itself before a text that needs a judge. */
static ra_err choose(const ra_policy *policy, const char **kind)
{
    if (policy->rules && policy->labels) {
        return ra_fail(RA_ERR_ARG,
                       "oracle.kind: %s holds both `rules:` and `labels:`; say which one judges, or give both kinds in a list "
                       "(doc/oracles.md)",
                       policy->path);
    }
    *kind = policy->rules ? "rules" : policy->labels ? "labels" : "judge";
    return RA_OK;
}

static ra_err open_member(const ra_settings *s, const ra_comm *world, const ra_policy *policy, const char *kind,
                          ra_oracle_member *out)
{
    for (int k = 0; k < KINDS; k++) {
        if (strcmp(kinds[k].name, kind) != 0) continue;
        if (kinds[k].reads_text && !policy->text) {
            return ra_fail(RA_ERR_ARG, "oracle.kind is %s, but %s has no `text:` for it to judge by; it holds `%s:`", kind,
                           policy->path, policy->rules ? "rules" : "labels");
        }
        return kinds[k].open(s, world, policy, out);
    }
    return ra_fail(RA_ERR_UNSUPPORTED, "oracle.kind: this build has no oracle of the kind '%s'", kind);
}

ra_err ra_oracle_open_settings(const ra_settings *s, const ra_comm *world, ra_oracle **out)
{
    *out = NULL;
    ra_policy *policy;
    const char *const *names, *chosen;
    int n = ra_set_list(s, "oracle.kind", &names);
    RA_TRY(ra_policy_read(ra_set_text(s, "policy"), &policy));
    ra_oracle_member member;
    ra_err err = n == 1 ? RA_OK : ra_fail(RA_ERR_ARG, "oracle.kind: give one kind");
    if (err == RA_OK && strcmp(names[0], "auto") == 0) {
        err = choose(policy, &chosen);
        names = &chosen;
    }
    if (err == RA_OK) err = open_member(s, world, policy, names[0], &member);
    if (err == RA_OK) return ra_oracle_new(policy, &member, 1, out);
    ra_policy_free(policy);
    return err;
}
