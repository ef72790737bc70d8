/* Oracles from settings: the only place that knows every kind. */
#include "oracles.h"
#include "run_context.h"

#include <realign/judge.h>
#include <realign/mem.h>
#include <realign/oracle_exec.h>
#include <realign/oracle_http.h>
#include <realign/runctl.h>

#include <stdlib.h>
#include <string.h>

static ra_err open_rules(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                         ra_oracle_member *out)
{
    (void)s, (void)grid, (void)askers;
    return ra_rules_open(policy, out);
}

static ra_err open_labels(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                          ra_oracle_member *out)
{
    (void)s, (void)grid, (void)askers;
    return ra_labels_open(policy, out);
}

/* A batch may take long: a kind that waits looks for itself whether to stop. */
static bool must_stop(void *context)
{
    ra_runctl control = ra_run_control(context);
    return ra_runctl_is_due(&control);
}

/* ra_oracle_askers, before there is an oracle. */
static const ra_comm *askers_of(const ra_settings *s, const ra_grid *grid)
{
    const char *const *kind;
    int n = ra_set_list(s, "oracle.kind", &kind);
    bool judge = false;
    for (int i = 0; i < n; i++) judge |= strcmp(kind[i], "judge") == 0;
    return judge && grid->stages > 1 ? &grid->data : &grid->world;
}

static ra_err open_http(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                        ra_oracle_member *out)
{
    ra_http_config config;
    (void)grid;
    ra_http_config_read(s, askers->rank, askers->size, &config);
    config.chat.stop = must_stop;
    config.chat.stop_context = (void *)(uintptr_t)s;
    *out = (ra_oracle_member){0};
    RA_TRY(ra_http_open(&config, policy->text, &out->ops, &out->state));
    out->identity = ra_http_identity(&config);
    if (config.top_logprobs > 0) out->threshold = ra_set_real(s, "oracle.threshold");
    return RA_OK;
}

static ra_err open_exec(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                        ra_oracle_member *out)
{
    ra_exec_config config;
    (void)grid;
    ra_exec_config_read(s, askers->rank, &config);
    config.stop = must_stop;
    config.stop_context = (void *)(uintptr_t)s;
    *out = (ra_oracle_member){0};
    RA_TRY(ra_exec_identity(&config, &out->identity));
    ra_err err = ra_exec_open(&config, policy->text, &out->ops, &out->state);
    if (err != RA_OK) free(out->identity);
    return err;
}

/* The judge gives a margin; where the line is drawn is the oracle's. */
static ra_err open_judge(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                         ra_oracle_member *out)
{
    (void)askers;
    ra_judge_config config;
    ra_judge_config_read(s, &config);
    config.grid = grid;
    config.stop = must_stop;
    config.stop_context = (void *)(uintptr_t)s;
    *out = (ra_oracle_member){0};
    RA_TRY(ra_judge_open(&config, policy->text, &out->ops, &out->state));
    out->identity = ra_strdup(ra_judge_identity(out->state));
    out->threshold = ra_set_real(s, "oracle.threshold");
    return RA_OK;
}

/* A kind is a row here. */
static const struct {
    const char *name;
    ra_err (*open)(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                   ra_oracle_member *out);
    bool reads_text; /* works by the policy's `text:` */
} kinds[] = {
    {"rules", open_rules, false}, {"labels", open_labels, false}, {"judge", open_judge, true},
    {"http", open_http, true},    {"exec", open_exec, false}, /* the program may hold the policy itself */
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

static ra_err open_member(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, const ra_policy *policy,
                          const char *kind, ra_oracle_member *out)
{
    for (int k = 0; k < KINDS; k++) {
        if (strcmp(kinds[k].name, kind) != 0) continue;
        if (kinds[k].reads_text && !policy->text) {
            return ra_fail(RA_ERR_ARG, "oracle.kind is %s, but %s has no `text:` for it to judge by; it holds `%s:`", kind,
                           policy->path, policy->rules ? "rules" : "labels");
        }
        return kinds[k].open(s, grid, askers, policy, out);
    }
    ra_die("oracle.kind: the schema has the kind '%s', this file has not", kind);
}

static ra_err check_kinds(int n, const char *const *kind)
{
    if (n == 0) return ra_fail(RA_ERR_ARG, "oracle.kind: an empty list; give a kind or several");
    if (n > RA_MOST_ORACLES) return ra_fail(RA_ERR_ARG, "oracle.kind: %d kinds; at most %d are combined", n, RA_MOST_ORACLES);
    for (int i = 0; i < n; i++) {
        if (n > 1 && strcmp(kind[i], "auto") == 0) {
            return ra_fail(RA_ERR_ARG, "oracle.kind: auto stands alone; a combination names its kinds");
        }
        for (int k = 0; k < i; k++) {
            if (strcmp(kind[i], kind[k]) == 0) return ra_fail(RA_ERR_ARG, "oracle.kind: %s is listed twice", kind[i]);
        }
    }
    return RA_OK;
}

static ra_combine combine_of(const ra_settings *s)
{
    static const char *const names[] = {"all", "any", "majority", "first"}; /* in the order of ra_combine */
    int how = 0;
    while (strcmp(names[how], ra_set_text(s, "oracle.combine")) != 0) how++;
    return (ra_combine)how;
}

ra_err ra_oracle_open_settings(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, ra_oracle **out)
{
    if (!askers) askers = askers_of(s, grid);
    *out = NULL;
    ra_policy *policy;
    const char *const *kind, *chosen;
    int n = ra_set_list(s, "oracle.kind", &kind), opened = 0;
    RA_TRY(check_kinds(n, kind));
    RA_TRY(ra_policy_read(ra_set_text(s, "policy"), &policy));
    ra_oracle_member member[RA_MOST_ORACLES];
    ra_err err = RA_OK;
    if (strcmp(kind[0], "auto") == 0) {
        err = choose(policy, &chosen);
        kind = &chosen;
    }
    for (; opened < n && err == RA_OK; opened += err == RA_OK)
        err = open_member(s, grid, askers, policy, kind[opened], &member[opened]);
    if (err == RA_OK) return ra_oracle_new(policy, member, n, combine_of(s), ra_set_text(s, "oracle.cache"), out);
    for (int i = 0; i < opened; i++) {
        member[i].ops->close(member[i].state);
        free(member[i].identity);
    }
    ra_policy_free(policy);
    return err;
}

ra_err ra_oracle_serve(ra_oracle *oracle, ra_corrector *corrector, const ra_grid *grid)
{
    ra_err first = RA_OK;
    char *why = NULL;
    for (int32_t call; (call = ra_grid_await(grid)) != RA_CALL_END;) {
        ra_err err = call == RA_CALL_CORRECTOR ? ra_corrector_follow(corrector) : ra_oracle_follow(oracle);
        if (err == RA_OK || first != RA_OK) continue;
        first = err;
        why = ra_strdup(ra_error_message());
    }
    if (first != RA_OK) ra_fail(first, "%s", why);
    free(why);
    return first;
}
