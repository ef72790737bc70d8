/* The rules kind: named conditions over the texts. A response complies when no rule is violated; the first violated one decides. */
#include "oracle_impl.h"

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

typedef struct {
    rule *rule;
    int n;
    ra_evaluation evaluation;
} rules;

static const char *const rule_keys[] = {"name", "description", "category", "target", "when", "require", "forbid", "ignore_case"};

static void read_key(ra_policy_reader *r, rule *out, const char *word, yaml_node_t *value, const char *key, ra_side side,
                     bool fold)
{
    if (strcmp(word, "category") == 0) {
        out->category = ra_policy_texts(r, value, key, &out->n_categories);
    } else if (strcmp(word, "when") == 0) {
        out->when = ra_condition_read(r->yaml, value, key, RA_SIDE_PROMPT, fold, r->problems);
    } else if (strcmp(word, "require") == 0) {
        out->require = ra_condition_read(r->yaml, value, key, side, fold, r->problems);
    } else if (strcmp(word, "forbid") == 0) {
        out->forbid = ra_condition_read(r->yaml, value, key, side, fold, r->problems);
    }
}

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

static void read_rule(ra_policy_reader *r, yaml_node_t *map, const char *key, int index)
{
    rules *all = r->oracle->state;
    rule *out = &all->rule[index];
    all->n = index + 1;
    ra_side side = RA_SIDE_RESPONSE;
    bool fold = r->fold;
    read_manner(r, map, key, &side, &fold);
    enum { KEYS = sizeof rule_keys / sizeof *rule_keys };
    bool seen[KEYS] = {false};
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key);
        const char *word = ra_yaml_text(name);
        int k = 0;
        while (k < KEYS && (!word || strcmp(word, rule_keys[k]))) k++;
        char *full = ra_format("%s.%.60s", key, word ? word : "?");
        if (k == KEYS) {
            ra_policy_unknown_key(r, name, key, word, rule_keys, KEYS);
        } else if (seen[k]) {
            ra_policy_problem(r, name, full, "given twice; leave one");
        } else {
            seen[k] = true;
            read_key(r, out, word, ra_yaml_node(r->yaml, p->value), full, side, fold);
        }
        free(full);
    }
    enum { REQUIRE = 5, FORBID = 6 };
    if (seen[REQUIRE] == seen[FORBID]) {
        ra_policy_problem(r, map, key, "%s; give one: `require:` (must hold) or `forbid:` (must not hold)",
                          seen[REQUIRE] ? "both require and forbid" : "neither require nor forbid");
    }
}

static void free_rules(void *state)
{
    rules *all = state;
    for (int i = 0; i < all->n; i++) {
        ra_policy_free_texts(all->rule[i].category, all->rule[i].n_categories);
        ra_condition_free(all->rule[i].when);
        ra_condition_free(all->rule[i].require);
        ra_condition_free(all->rule[i].forbid);
    }
    ra_evaluation_end(&all->evaluation);
    ra_free(all->rule);
    ra_free(all);
}

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

static ra_verdict judge(ra_oracle *o, const ra_oracle_item *item)
{
    rules *all = o->state;
    ra_subject_set(&all->evaluation.side[RA_SIDE_RESPONSE], item->response);
    ra_subject_set(&all->evaluation.side[RA_SIDE_PROMPT], item->prompt);
    for (int i = 0; i < all->n; i++) {
        ra_truth violated = is_violated(&all->rule[i], item, &all->evaluation);
        if (violated == RA_YES) return (ra_verdict){.compliant = 0, .rule = (int16_t)i, .probability = 0.0f};
        if (violated == RA_UNKNOWN) {
            snprintf(o->problem, sizeof o->problem, "rule %.80s: %s", o->rule[i], all->evaluation.problem);
            return (ra_verdict){.compliant = -1, .rule = (int16_t)i, .probability = 0.5f};
        }
    }
    return (ra_verdict){.compliant = 1, .rule = -1, .probability = 1.0f};
}

void ra_rules_read(ra_policy_reader *r, yaml_node_t *list)
{
    static const ra_oracle_kind_ops ops = {"rules", judge, free_rules, true};
    rules *all = ra_calloc(1, sizeof *all);
    all->rule = ra_calloc(RA_MOST_RULES, sizeof *all->rule);
    ra_evaluation_begin(&all->evaluation);
    r->oracle->ops = &ops;
    r->oracle->state = all;
    ra_policy_read_rules(r, list, "rules", read_rule);
}
