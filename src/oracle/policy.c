/* A policy file: its head, and the pieces that both kinds of rules share. */
#include "oracle_impl.h"

#include <realign/file.h>
#include <realign/hash.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ra_policy_problem(ra_policy_reader *r, const yaml_node_t *node, const char *key, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "%s", text);
}

void ra_policy_unknown_key(ra_policy_reader *r, const yaml_node_t *node, const char *key, const char *word,
                           const char *const *known, int n)
{
    ra_buf list = {0};
    for (int i = 0; i < n; i++) ra_buf_addf(&list, "%s%s", i ? ", " : "", known[i]);
    const char *nearest = word ? ra_nearest_name(word, known, n) : NULL;
    char *full = ra_format("%s%s%.60s", key, *key ? "." : "", word ? word : ra_yaml_kind(node));
    ra_policy_problem(r, node, full, "unknown key; %s%s%sknown: %s", nearest ? "did you mean " : "", nearest ? nearest : "",
                      nearest ? "? " : "", list.data);
    free(full);
    ra_buf_free(&list);
}

const char *ra_policy_text(ra_policy_reader *r, yaml_node_t *node, const char *key)
{
    const char *text = ra_yaml_text(node);
    if (text && *text && !ra_yaml_is_null(node)) return text;
    ra_policy_problem(r, node, key, "%s; expected a text", text ? "nothing" : ra_yaml_kind(node));
    return NULL;
}

bool ra_policy_flag(ra_policy_reader *r, yaml_node_t *node, const char *key, bool before)
{
    const char *text = ra_yaml_text(node);
    if (text && ra_word_in("true|yes", text)) return true;
    if (text && ra_word_in("false|no", text)) return false;
    ra_policy_problem(r, node, key, "expected true or false");
    return before;
}

char **ra_policy_texts(ra_policy_reader *r, yaml_node_t *node, const char *key, int *n)
{
    char **texts = NULL;
    *n = 0;
    bool list = node->type == YAML_SEQUENCE_NODE;
    size_t count = list ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start) : 1;
    if (count == 0) ra_policy_problem(r, node, key, "an empty list; expected a text or a list of texts");
    for (size_t i = 0; i < count; i++) {
        const char *text = ra_policy_text(r, list ? ra_yaml_node(r->yaml, node->data.sequence.items.start[i]) : node, key);
        if (!text) continue;
        texts = ra_realloc(texts, (size_t)*n + 1, sizeof *texts);
        texts[(*n)++] = ra_strdup(text);
    }
    return texts;
}

void ra_policy_free_texts(char **texts, int n)
{
    for (int i = 0; i < n; i++) free(texts[i]);
    free(texts);
}

/* ---- rules in order ---- */
static yaml_node_t *find_value(ra_yaml *yaml, yaml_node_t *map, const char *name)
{
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const char *word = ra_yaml_text(ra_yaml_node(yaml, p->key));
        if (word && strcmp(word, name) == 0) return ra_yaml_node(yaml, p->value);
    }
    return NULL;
}

static const char *rule_name(ra_policy_reader *r, yaml_node_t *map, const char *key)
{
    yaml_node_t *node = find_value(r->yaml, map, "name");
    if (!node) {
        ra_policy_problem(r, map, key, "the rule has no name; add `name: some-words`");
        return "";
    }
    const char *name = ra_policy_text(r, node, key);
    for (int i = 0; name && i < r->oracle->n_rules; i++) {
        if (strcmp(r->oracle->rule[i], name) == 0)
            ra_policy_problem(r, node, key, "another rule is called '%.60s' already", name);
    }
    return name ? name : "";
}

void ra_policy_read_rules(ra_policy_reader *r, yaml_node_t *list, const char *key,
                          void (*read)(ra_policy_reader *r, yaml_node_t *map, const char *key, int index))
{
    if (list->type != YAML_SEQUENCE_NODE || list->data.sequence.items.start == list->data.sequence.items.top) {
        ra_policy_problem(r, list, key, "%s; expected a list of rules, each after a dash",
                          list->type == YAML_SEQUENCE_NODE ? "an empty list" : ra_yaml_kind(list));
        return;
    }
    size_t n = (size_t)(list->data.sequence.items.top - list->data.sequence.items.start);
    if (n > RA_MOST_RULES) {
        ra_policy_problem(r, list, key, "%zu rules; at most %d are allowed", n, RA_MOST_RULES);
        return;
    }
    ra_oracle *o = r->oracle;
    o->rule = ra_realloc(NULL, n, sizeof *o->rule);
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *map = ra_yaml_node(r->yaml, list->data.sequence.items.start[i]);
        char *rule_key = ra_format("%s[%zu]", key, i + 1);
        const char *name = "";
        if (map->type == YAML_MAPPING_NODE) name = rule_name(r, map, rule_key);
        o->rule[o->n_rules++] = ra_strdup(name);
        if (*name) {
            free(rule_key);
            rule_key = ra_format("%s[%zu] (%.40s)", key, i + 1, name);
        }
        if (map->type == YAML_MAPPING_NODE) {
            read(r, map, rule_key, (int)i);
        } else {
            ra_policy_problem(r, map, rule_key, "%s; expected a map with a name and conditions", ra_yaml_kind(map));
        }
        free(rule_key);
    }
}

/* ---- the head ---- */
static const char *const head_keys[] = {"name", "version", "description", "ignore_case", "rules", "labels"};

static void read_head(ra_policy_reader *r, const char *kind)
{
    yaml_node_t *root = r->yaml->root;
    for (yaml_node_pair_t *p = root->data.mapping.pairs.start; p < root->data.mapping.pairs.top; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key);
        const char *word = ra_yaml_text(name);
        bool known = false;
        for (size_t i = 0; i < sizeof head_keys / sizeof *head_keys; i++) known |= word && strcmp(word, head_keys[i]) == 0;
        if (!known) ra_policy_unknown_key(r, name, "", word, head_keys, sizeof head_keys / sizeof *head_keys);
    }
    yaml_node_t *name = find_value(r->yaml, root, "name"), *fold = find_value(r->yaml, root, "ignore_case");
    yaml_node_t *rules = find_value(r->yaml, root, "rules"), *labels = find_value(r->yaml, root, "labels");
    const char *text = name ? ra_policy_text(r, name, "name") : NULL;
    if (!name) ra_policy_problem(r, root, "name", "missing; add `name: some-words`");
    r->oracle->policy = ra_strdup(text ? text : "");
    if (fold) r->fold = ra_policy_flag(r, fold, "ignore_case", true);
    if ((rules && labels) || (!rules && !labels)) {
        ra_policy_problem(r, root, NULL, "%s; give `rules:` (judge the text) or `labels:` (judge by columns of the data)",
                          rules ? "the file holds both rules and labels" : "the file holds neither rules nor labels");
    } else if ((strcmp(kind, "rules") == 0 && !rules) || (strcmp(kind, "labels") == 0 && !labels)) {
        ra_policy_problem(r, root, NULL, "oracle.kind is %s, but the file holds `%s:`", kind, rules ? "rules" : "labels");
    } else if (rules) {
        ra_rules_read(r, rules);
    } else {
        ra_labels_read(r, labels);
    }
}

ra_err ra_oracle_open(const char *kind, const char *policy, ra_oracle **out)
{
    *out = NULL;
    if (!ra_word_in("auto|rules|labels", kind))
        return ra_fail(RA_ERR_ARG, "oracle.kind: '%s' is not known; give auto, rules or labels", kind);
    if (!*policy) return ra_fail(RA_ERR_ARG, "policy: no file was given; give a YAML policy file (doc/policies.md)");
    ra_hash hash;
    ra_yaml yaml;
    RA_TRY(ra_yaml_read(policy, &yaml));
    ra_err err = ra_hash_file(policy, &hash);
    if (err != RA_OK) {
        ra_yaml_free(&yaml);
        return err;
    }
    ra_problems problems = {0};
    ra_oracle *o = ra_calloc(1, sizeof *o);
    ra_policy_reader reader = {.yaml = &yaml, .problems = &problems, .oracle = o, .fold = true};
    if (!yaml.root || yaml.root->type != YAML_MAPPING_NODE) {
        ra_problem(&problems, policy, 1, NULL, "the file holds %s; expected a policy with name and rules (doc/policies.md)",
                   yaml.root ? ra_yaml_kind(yaml.root) : "nothing");
    } else {
        read_head(&reader, kind);
    }
    ra_yaml_free(&yaml);
    err = ra_problems_end(&problems, RA_ERR_ARG);
    if (err == RA_OK) {
        char text[33], *identity;
        ra_hash_text(hash, text);
        identity = ra_format("%s %s", o->ops->name, text);
        o->hash = ra_hash_bytes(identity, strlen(identity)).low;
        free(identity);
        *out = o;
    } else {
        ra_oracle_close(o);
    }
    return err;
}

/* ---- the interface ---- */
void ra_oracle_close(ra_oracle *o)
{
    if (!o) return;
    if (o->state) o->ops->free_state(o->state);
    for (int i = 0; i < o->n_rules; i++) free(o->rule[i]);
    free(o->rule);
    free(o->policy);
    ra_free(o);
}

ra_err ra_oracle_judge(ra_oracle *o, const ra_oracle_item *items, int n, ra_verdict *verdicts)
{
    for (int i = 0; i < n; i++) {
        if (!o->ops->judges_text && !items[i].source) {
            return ra_fail(RA_ERR_UNSUPPORTED,
                           "policy %s judges by columns of the data; it cannot judge a text without its row (give a policy "
                           "with `rules:` to judge generations)",
                           o->policy);
        }
        verdicts[i] = o->ops->judge(o, &items[i]);
    }
    return RA_OK;
}

const char *ra_oracle_problem(const ra_oracle *o)
{
    return o->problem;
}

const char *ra_oracle_policy_name(const ra_oracle *o)
{
    return o->policy;
}

int ra_oracle_rule_count(const ra_oracle *o)
{
    return o->n_rules;
}

const char *ra_oracle_rule_name(const ra_oracle *o, int rule)
{
    return rule >= 0 && rule < o->n_rules ? o->rule[rule] : NULL;
}

const char *ra_oracle_kind(const ra_oracle *o)
{
    return o->ops->name;
}

bool ra_oracle_judges_text(const ra_oracle *o)
{
    return o->ops->judges_text;
}

uint64_t ra_oracle_hash(const ra_oracle *o)
{
    return o->hash;
}
