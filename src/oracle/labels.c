/* The labels kind: verdicts from columns that the data set carries. A response complies when no rule matches its columns. */
#include "policy_impl.h"
#include <realign/oracle.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { HARM, SAFE, COLUMN } kind;

typedef struct {
    kind kind;
    bool harm[RA_HARMS]; /* HARM: any of these ... */
    int severity;        /* ... at this level or above */
    bool safe;           /* SAFE: the flag that is forbidden */
    char *column;        /* COLUMN: its name, {k} and {side} filled in per response */
    char **value;        /* the forbidden values, as text */
    int n_values;
} rule;

struct ra_labels {
    rule *rule; /* (n) */
    int n;
};

static const char *const rule_keys[] = {"name", "description", "harm", "severity", "safe", "column", "equals"};
enum { KEYS = sizeof rule_keys / sizeof *rule_keys, KEY_HARM = 2, KEY_SEVERITY, KEY_SAFE, KEY_COLUMN, KEY_EQUALS };

/* ---- reading ---- */
static void read_column(ra_policy_reader *r, rule *out, yaml_node_t *value, const char *key)
{
    const char *text = ra_policy_text(r, value, key);
    for (const char *at = text; at && (at = strchr(at, '{')); at++) {
        if (strncmp(at, "{k}", 3) && strncmp(at, "{side}", 6)) {
            ra_policy_problem(r, value, key, "'%.60s': {k} (0 or 1) and {side} (chosen or rejected) are filled in, nothing else",
                              text);
            break;
        }
    }
    free(out->column);
    out->column = text ? ra_strdup(text) : NULL;
}

static void check_rule(ra_policy_reader *r, yaml_node_t *map, const char *key, const bool *seen, rule *out)
{
    int forms = seen[KEY_HARM] + seen[KEY_SAFE] + seen[KEY_COLUMN];
    if (forms != 1) {
        ra_policy_problem(r, map, key, "%s of harm, safe and column; give one", forms ? "more than one" : "none");
        return;
    }
    out->kind = seen[KEY_HARM] ? HARM : seen[KEY_SAFE] ? SAFE : COLUMN;
    if (seen[KEY_SEVERITY] && !seen[KEY_HARM]) ra_policy_problem(r, map, key, "severity goes with harm");
    if (seen[KEY_EQUALS] != seen[KEY_COLUMN]) ra_policy_problem(r, map, key, "column and equals go together");
}

static void read_key(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *context)
{
    rule *out = context;
    switch (which) {
    case KEY_HARM: ra_policy_harms(r, value, key, out->harm); break;
    case KEY_SEVERITY: ra_policy_severity(r, value, key, &out->severity); break;
    case KEY_SAFE: out->safe = ra_policy_flag(r, value, key, false); break;
    case KEY_COLUMN: read_column(r, out, value, key); break;
    case KEY_EQUALS: out->value = ra_policy_texts(r, value, key, &out->n_values); break;
    default: break;
    }
}

static void read_rule(ra_policy_reader *r, yaml_node_t *map, const char *key, int index)
{
    struct ra_labels *all = r->policy->labels;
    rule *out = &all->rule[index];
    all->n = index + 1;
    out->severity = 1;
    bool seen[KEYS];
    ra_policy_read_map(r, map, key, rule_keys, KEYS, seen, read_key, out);
    check_rule(r, map, key, seen, out);
}

static void read_list(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *context)
{
    (void)which, (void)context;
    ra_policy_read_rules(r, value, key, &r->policy->label_names, read_rule);
}

void ra_labels_read(ra_policy_reader *r, yaml_node_t *node)
{
    static const char *const known[] = {"forbid"};
    struct ra_labels *all = ra_calloc(1, sizeof *all);
    all->rule = ra_calloc(RA_MOST_RULES, sizeof *all->rule);
    r->policy->labels = all;
    bool seen[1];
    if (node->type == YAML_MAPPING_NODE && node->data.mapping.pairs.start < node->data.mapping.pairs.top) {
        ra_policy_read_map(r, node, "labels", known, 1, seen, read_list, NULL);
    } else {
        ra_policy_problem(r, node, "labels", "%s; expected `forbid:` and a list of rules under it", ra_yaml_kind(node));
    }
}

void ra_labels_free(struct ra_labels *all)
{
    if (!all) return;
    for (int i = 0; i < all->n; i++) {
        free(all->rule[i].column);
        ra_policy_free_texts(all->rule[i].value, all->rule[i].n_values);
    }
    ra_free(all->rule);
    ra_free(all);
}

/* ---- judging ---- */
typedef struct {
    const struct ra_labels *labels; /* of the policy */
    const ra_policy *policy;
    char problem[300];
} judging;

/* The column with {k} and {side} filled in; a list of two holds one value a response. NULL: absent or null. */
static const json_t *column_of(const ra_oracle_item *item, const char *column, char *name, size_t size)
{
    static const char *const sides[2] = {"chosen", "rejected"};
    size_t n = 0;
    for (const char *at = column; *at && n + 16 < size;) {
        if (strncmp(at, "{k}", 3) == 0) {
            n += (size_t)snprintf(name + n, size - n, "%d", item->response_index);
            at += 3;
        } else if (strncmp(at, "{side}", 6) == 0) {
            n += (size_t)snprintf(name + n, size - n, "%s", sides[item->response_index == 1]);
            at += 6;
        } else {
            name[n++] = *at++;
        }
    }
    name[n] = '\0';
    const json_t *value = json_object_get(item->source, name);
    if (json_is_array(value) && json_array_size(value) == 2) value = json_array_get(value, (size_t)item->response_index);
    return json_is_null(value) ? NULL : value;
}

static bool equals(const json_t *value, const char *text)
{
    if (json_is_string(value)) return strcmp(json_string_value(value), text) == 0;
    if (json_is_boolean(value)) return ra_word_in(json_is_true(value) ? "true|yes" : "false|no", text);
    if (!json_is_number(value)) return false;
    char *end;
    double number = strtod(text, &end);
    return end != text && *end == '\0' && number == json_number_value(value);
}

static ra_truth undecided(judging *j, int index, const char *column, const char *expected)
{
    snprintf(j->problem, sizeof j->problem, "rule %.80s: the column `%.80s` is missing or not %s",
             j->policy->label_names.name[index], column, expected);
    return RA_UNKNOWN;
}

static ra_truth matches_harm(judging *j, const rule *u, int index, const ra_oracle_item *item, char *name, size_t size)
{
    const json_t *flags = column_of(item, "response_{k}_harm_category", name, size);
    if (!json_is_object(flags)) return undecided(j, index, name, "a map of categories");
    bool any = false;
    for (int h = 0; h < RA_HARMS; h++) {
        if (!u->harm[h]) continue;
        const json_t *flag = json_object_get(flags, ra_harm_names[h]);
        if (!json_is_boolean(flag)) return undecided(j, index, ra_harm_names[h], "true or false");
        any |= json_is_true(flag);
    }
    if (!any || u->severity <= 1) return any ? RA_YES : RA_NO;
    const json_t *level = column_of(item, "response_{k}_severity_level", name, size);
    if (!json_is_integer(level)) return undecided(j, index, name, "a number from 0 to 3");
    return json_integer_value(level) >= u->severity ? RA_YES : RA_NO;
}

static ra_truth matches(judging *j, const rule *u, int index, const ra_oracle_item *item)
{
    char name[256];
    if (u->kind == HARM) return matches_harm(j, u, index, item, name, sizeof name);
    const json_t *value = column_of(item, u->kind == SAFE ? "is_response_{k}_safe" : u->column, name, sizeof name);
    if (u->kind == SAFE) {
        if (!json_is_boolean(value)) return undecided(j, index, name, "true or false");
        return json_is_true(value) == u->safe ? RA_YES : RA_NO;
    }
    if (!value || json_is_object(value) || json_is_array(value))
        return undecided(j, index, name, "a text, a number, true or false");
    for (int i = 0; i < u->n_values; i++) {
        if (equals(value, u->value[i])) return RA_YES;
    }
    return RA_NO;
}

static ra_verdict judge_one(judging *j, const ra_oracle_item *item)
{
    for (int i = 0; i < j->labels->n; i++) {
        ra_truth violated = matches(j, &j->labels->rule[i], i, item);
        if (violated == RA_YES) return (ra_verdict){.compliant = 0, .rule = (int16_t)i, .probability = 0.0f};
        if (violated == RA_UNKNOWN) return (ra_verdict){.compliant = -1, .rule = (int16_t)i, .probability = 0.5f};
    }
    return (ra_verdict){.compliant = 1, .rule = -1, .probability = 1.0f};
}

static ra_err judge(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context)
{
    judging *j = state;
    for (int i = 0; i < n; i++) {
        if (!items[i].source) {
            return ra_fail(RA_ERR_UNSUPPORTED,
                           "policy %s judges by columns of the data; it cannot judge a text without its row (to judge "
                           "generations, give a policy with `rules:` or `text:` and its oracle.kind)",
                           j->policy->name);
        }
        ra_verdict v = judge_one(j, &items[i]);
        sink(context, i, &v);
    }
    return RA_OK;
}

static const char *problem(const void *state)
{
    return ((const judging *)state)->problem;
}

ra_err ra_labels_open(const ra_policy *policy, ra_oracle_member *out)
{
    static const ra_oracle_ops ops = {.name = "labels", .batch = 512, .judge = judge, .problem = problem, .close = ra_free};
    if (!policy->labels) {
        return ra_fail(RA_ERR_ARG, "oracle.kind is labels, but %s has no `labels:`; it holds `%s:`", policy->path,
                       policy->rules ? "rules" : "text");
    }
    judging *j = ra_calloc(1, sizeof *j);
    j->labels = policy->labels;
    j->policy = policy;
    *out = (ra_oracle_member){.ops = &ops, .state = j, .identity = ra_strdup(""), .rules = policy->label_names};
    return RA_OK;
}
