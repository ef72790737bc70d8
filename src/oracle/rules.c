/* The rules kind: named conditions over the texts. A response complies when no rule is violated; the first violated one decides. */
#include "policy_impl.h"
#include <realign/oracle.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char **category; /* the rule applies to these alone; none: to all */
    int n_categories;
    ra_condition *when;    /* the rule applies where this holds; NULL: everywhere */
    ra_condition *require; /* must hold */
    ra_condition *forbid;  /* must not hold */
} rule;

struct ra_rules {
    rule *rule; /* (n) */
    int n;
};

static const char *const rule_keys[] = {"name", "description", "category", "target", "when", "require", "forbid", "ignore_case"};

/* target and ignore_case decide how the conditions are read, wherever they stand in the rule. */
static void read_manner(ra_policy_reader *r, yaml_node_t *map, const char *key, ra_side *side, bool *fold)
{
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const char *word = ra_yaml_text(ra_yaml_node(r->yaml, p->key));
        yaml_node_t *value = ra_yaml_node(r->yaml, p->value);
        if (word && strcmp(word, "ignore_case") == 0) *fold = ra_policy_flag(r, value, key, *fold);
        if (!word || strcmp(word, "target")) continue;
        const char *target = ra_yaml_text(value);
        if (target && strcmp(target, "prompt") == 0) {
            *side = RA_SIDE_PROMPT;
        } else if (!target || strcmp(target, "response")) {
            ra_policy_problem(r, value, key, "target is '%.40s'; expected response or prompt",
                              target ? target : ra_yaml_kind(value));
        }
    }
}

typedef struct {
    rule *rule;
    ra_side side;
    bool fold;
} rule_reader;

enum { KEY_CATEGORY = 2, KEY_WHEN = 4, KEY_REQUIRE, KEY_FORBID, KEYS = sizeof rule_keys / sizeof *rule_keys };

static void read_key(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *context)
{
    const rule_reader *at = context;
    rule *out = at->rule;
    switch (which) {
    case KEY_CATEGORY: out->category = ra_policy_texts(r, value, key, &out->n_categories); break;
    case KEY_WHEN: out->when = ra_condition_read(r->yaml, value, key, RA_SIDE_PROMPT, at->fold, r->problems); break;
    case KEY_REQUIRE: out->require = ra_condition_read(r->yaml, value, key, at->side, at->fold, r->problems); break;
    case KEY_FORBID: out->forbid = ra_condition_read(r->yaml, value, key, at->side, at->fold, r->problems); break;
    default: break;
    }
}

static void read_rule(ra_policy_reader *r, yaml_node_t *map, const char *key, int index)
{
    struct ra_rules *all = r->policy->rules;
    rule_reader at = {&all->rule[index], RA_SIDE_RESPONSE, r->fold};
    all->n = index + 1;
    read_manner(r, map, key, &at.side, &at.fold);
    bool seen[KEYS];
    ra_policy_read_map(r, map, key, rule_keys, KEYS, seen, read_key, &at);
    if (seen[KEY_REQUIRE] == seen[KEY_FORBID]) {
        ra_policy_problem(r, map, key, "%s; give one: `require:` (must hold) or `forbid:` (must not hold)",
                          seen[KEY_REQUIRE] ? "both require and forbid" : "neither require nor forbid");
    }
}

void ra_rules_read(ra_policy_reader *r, yaml_node_t *list)
{
    struct ra_rules *all = ra_calloc(1, sizeof *all);
    all->rule = ra_calloc(RA_MOST_RULES, sizeof *all->rule);
    r->policy->rules = all;
    ra_policy_read_rules(r, list, "rules", &r->policy->rule_names, read_rule);
}

void ra_rules_free(struct ra_rules *all)
{
    if (!all) return;
    for (int i = 0; i < all->n; i++) {
        ra_policy_free_texts(all->rule[i].category, all->rule[i].n_categories);
        ra_condition_free(all->rule[i].when);
        ra_condition_free(all->rule[i].require);
        ra_condition_free(all->rule[i].forbid);
    }
    ra_free(all->rule);
    ra_free(all);
}

/* ---- judging ---- */
typedef struct {
    const struct ra_rules *rules; /* of the policy */
    ra_rule_names names;
    ra_evaluation evaluation;
    char problem[300];
} judging;

static bool applies_to_category(const rule *u, const char *category)
{
    if (!u->n_categories) return true;
    for (int i = 0; category && i < u->n_categories; i++) {
        if (strcmp(u->category[i], category) == 0) return true;
    }
    return false;
}

static ra_truth is_violated(const rule *u, const ra_oracle_item *item, ra_evaluation *e)
{
    if (!applies_to_category(u, item->category)) return RA_NO;
    ra_truth applies = u->when ? ra_condition_holds(u->when, e) : RA_YES;
    if (applies == RA_NO) return RA_NO;
    ra_truth holds = ra_condition_holds(u->require ? u->require : u->forbid, e);
    ra_truth violated = holds == RA_UNKNOWN ? RA_UNKNOWN : (holds == RA_YES) == (u->forbid != NULL) ? RA_YES : RA_NO;
    return violated != RA_NO && applies == RA_UNKNOWN ? RA_UNKNOWN : violated;
}

static ra_verdict judge_one(judging *j, const ra_oracle_item *item)
{
    ra_subject_set(&j->evaluation.side[RA_SIDE_RESPONSE], item->response);
    ra_subject_set(&j->evaluation.side[RA_SIDE_PROMPT], item->prompt);
    for (int i = 0; i < j->rules->n; i++) {
        ra_truth violated = is_violated(&j->rules->rule[i], item, &j->evaluation);
        if (violated == RA_YES) return (ra_verdict){.compliant = 0, .rule = (int16_t)i, .probability = 0.0f};
        if (violated == RA_UNKNOWN) {
            snprintf(j->problem, sizeof j->problem, "rule %.80s: %s", j->names.name[i], j->evaluation.problem);
            return (ra_verdict){.compliant = -1, .rule = (int16_t)i, .probability = 0.5f};
        }
    }
    return (ra_verdict){.compliant = 1, .rule = -1, .probability = 1.0f};
}

static ra_err judge(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    for (int i = 0; i < n; i++) {
        ra_verdict v = judge_one(state, &items[i]);
        sink(context, i, &v);
    }
    return RA_OK;
}

static const char *problem(const void *state)
{
    return ((const judging *)state)->problem;
}

static void close_judging(void *state)
{
    judging *j = state;
    ra_evaluation_end(&j->evaluation);
    ra_free(j);
}

ra_err ra_rules_open(const ra_policy *policy, ra_oracle_member *out)
{
    static const ra_oracle_ops ops = {
        .name = "rules", .judges_text = true, .batch = 512, .judge = judge, .problem = problem, .close = close_judging};
    if (!policy->rules) {
        return ra_fail(RA_ERR_ARG, "oracle.kind is rules, but %s has no `rules:`; it holds `%s:`", policy->path,
                       policy->labels ? "labels" : "text");
    }
    judging *j = ra_calloc(1, sizeof *j);
    j->rules = policy->rules;
    j->names = policy->rule_names;
    ra_evaluation_begin(&j->evaluation);
    *out = (ra_oracle_member){.ops = &ops, .state = j, .identity = ra_strdup(""), .rules = policy->rule_names};
    return RA_OK;
}
