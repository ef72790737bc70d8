/* The examples of a policy file: a prompt, a response, and whether it complies. */
#include "policy_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const example_keys[] = {"prompt", "response", "compliant", "category", "why", "harm", "severity", "columns"};
enum { PROMPT, RESPONSE, COMPLIANT, CATEGORY, WHY, HARM, SEVERITY, COLUMNS, KEYS, MOST_EXAMPLES = 10000 };

typedef struct {
    ra_policy_example example;
    bool harm[RA_HARMS], no_harm;
    int severity;
} reading;

static json_t *scalar(const yaml_node_t *node)
{
    const char *text = ra_yaml_text(node);
    if (ra_yaml_is_null(node)) return json_null();
    if (node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return json_string(text);
    if (ra_word_in("true|false", text)) return json_boolean(strcmp(text, "true") == 0);
    char *end;
    long long whole = strtoll(text, &end, 10);
    if (end != text && !*end) return json_integer(whole);
    double real = strtod(text, &end);
    if (end != text && !*end) return json_real(real); /* NULL for infinities */
    return json_string(text);
}

/* One column: a single value, or a list of them. */
static void add_column(ra_policy_reader *r, reading *e, const char *name, yaml_node_t *node, const char *key)
{
    json_t *value = NULL;
    if (node->type == YAML_SCALAR_NODE) {
        value = scalar(node);
    } else if (node->type == YAML_SEQUENCE_NODE) {
        value = json_array();
        for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
            yaml_node_t *item = ra_yaml_node(r->yaml, *i);
            json_t *element = item->type == YAML_SCALAR_NODE ? scalar(item) : NULL;
            if (!element || json_array_append_new(value, element) != 0)
                ra_policy_problem(r, item, key, "expected a list of texts, numbers, true or false");
        }
    }
    if (!value) ra_policy_problem(r, node, key, "expected a text, a number, true, false, or a list of them");
    if (!e->example.row) e->example.row = json_object();
    json_object_set_new(e->example.row, name, value);
}

static void read_columns(ra_policy_reader *r, reading *e, yaml_node_t *map, const char *key)
{
    if (map->type != YAML_MAPPING_NODE) {
        ra_policy_problem(r, map, key, "%s; expected a map of columns", ra_yaml_kind(map));
        return;
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const char *name = ra_yaml_text(ra_yaml_node(r->yaml, p->key));
        char *full = ra_format("%s.%.60s", key, name ? name : "?");
        if (name) add_column(r, e, name, ra_yaml_node(r->yaml, p->value), full);
        free(full);
    }
}

/* harm and severity as PKU-SafeRLHF writes them, for the response with number 0. */
static void add_harm(reading *e)
{
    json_t *flags = json_object();
    bool any = false;
    for (int h = 0; h < RA_HARMS; h++) {
        json_object_set_new(flags, ra_harm_names[h], json_boolean(e->harm[h]));
        any |= e->harm[h];
    }
    if (!e->example.row) e->example.row = json_object();
    json_object_set_new(e->example.row, "response_0_harm_category", flags);
    json_object_set_new(e->example.row, "response_0_severity_level", json_integer(any ? e->severity : 0));
    json_object_set_new(e->example.row, "is_response_0_safe", json_boolean(!any));
}

static void set(ra_policy_reader *r, char **out, yaml_node_t *value, const char *key)
{
    const char *text = ra_policy_text(r, value, key);
    if (text) *out = ra_strdup(text);
}

static void read_key(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *context)
{
    reading *e = context;
    const char *text = ra_yaml_text(value);
    switch (which) {
    case PROMPT: set(r, &e->example.prompt, value, key); break;
    case RESPONSE: set(r, &e->example.response, value, key); break;
    case COMPLIANT: e->example.compliant = ra_policy_flag(r, value, key, false); break;
    case CATEGORY: set(r, &e->example.category, value, key); break;
    case WHY: set(r, &e->example.why, value, key); break;
    case HARM:
        e->no_harm = text && strcmp(text, "none") == 0;
        if (!e->no_harm) ra_policy_harms(r, value, key, e->harm);
        break;
    case SEVERITY: ra_policy_severity(r, value, key, &e->severity); break;
    default: read_columns(r, e, value, key); break;
    }
}

static void read_example(ra_policy_reader *r, yaml_node_t *map, const char *key)
{
    reading e = {.example.line = ra_yaml_line(map), .severity = 1};
    bool seen[KEYS] = {false};
    if (map->type == YAML_MAPPING_NODE) {
        ra_policy_read_map(r, map, key, example_keys, KEYS, seen, read_key, &e);
        for (int k = PROMPT; k <= COMPLIANT; k++) {
            if (!seen[k])
                ra_policy_problem(r, map, key, "no %s; an example needs prompt, response and compliant", example_keys[k]);
        }
        if (seen[SEVERITY] && (!seen[HARM] || e.no_harm)) ra_policy_problem(r, map, key, "severity goes with harm");
        if (seen[HARM]) add_harm(&e);
    } else {
        ra_policy_problem(r, map, key, "%s; expected a map with prompt, response and compliant", ra_yaml_kind(map));
    }
    ra_policy *p = r->policy;
    p->example = ra_realloc(p->example, (size_t)p->n_examples + 1, sizeof *p->example);
    p->example[p->n_examples++] = e.example;
}

void ra_examples_read(ra_policy_reader *r, yaml_node_t *list)
{
    if (list->type != YAML_SEQUENCE_NODE) {
        ra_policy_problem(r, list, "examples", "%s; expected a list of examples, each after a dash", ra_yaml_kind(list));
        return;
    }
    size_t n = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (n > MOST_EXAMPLES) {
        ra_policy_problem(r, list, "examples", "%zu examples; at most %d are allowed", n, MOST_EXAMPLES);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char *key = ra_format("examples[%zu]", i + 1);
        read_example(r, ra_yaml_node(r->yaml, list->data.sequence.items.start[i]), key);
        free(key);
    }
}
