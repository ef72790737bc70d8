/* A policy file: its head, and the pieces that its parts share. */
#include "policy_impl.h"

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

/* ---- harm ---- */
const char *const ra_harm_names[RA_HARMS] = {
    "Endangering National Security",
    "Insulting Behavior",
    "Discriminatory Behavior",
    "Endangering Public Health",
    "Copyright Issues",
    "Violence",
    "Drugs",
    "Privacy Violation",
    "Economic Crime",
    "Mental Manipulation",
    "Human Trafficking",
    "Physical Harm",
    "Sexual Content",
    "Cybercrime",
    "Disrupting Public Order",
    "Environmental Damage",
    "Psychological Harm",
    "White-Collar Crime",
    "Animal Abuse",
};

void ra_policy_harms(ra_policy_reader *r, yaml_node_t *node, const char *key, bool harm[RA_HARMS])
{
    int n;
    char **texts = ra_policy_texts(r, node, key, &n);
    for (int i = 0; i < n; i++) {
        bool any = strcmp(texts[i], "any") == 0, known = any;
        for (int h = 0; h < RA_HARMS; h++) {
            if (!any && strcmp(texts[i], ra_harm_names[h])) continue;
            harm[h] = known = true;
        }
        if (known) continue;
        const char *nearest = ra_nearest_name(texts[i], ra_harm_names, RA_HARMS);
        ra_buf list = {0};
        for (int h = 0; h < RA_HARMS; h++) ra_buf_addf(&list, ", %s", ra_harm_names[h]);
        ra_policy_problem(r, node, key, "'%.60s' is no harm category; %s%s%sknown: any%s", texts[i],
                          nearest ? "did you mean " : "", nearest ? nearest : "", nearest ? "? " : "", list.data);
        ra_buf_free(&list);
    }
    ra_policy_free_texts(texts, n);
}

void ra_policy_severity(ra_policy_reader *r, yaml_node_t *node, const char *key, int *severity)
{
    static const char *const words[] = {"none", "minor", "moderate", "severe"}; /* 0 to 3 */
    const char *text = ra_yaml_text(node);
    for (int i = 1; text && i <= 3; i++) {
        if (strcmp(text, words[i]) && strcmp(text, (const char[]){(char)('0' + i), '\0'})) continue;
        *severity = i;
        return;
    }
    ra_policy_problem(r, node, key, "'%.40s' is not accepted; give 1 (minor), 2 (moderate) or 3 (severe)",
                      text ? text : ra_yaml_kind(node));
}

/* ---- maps ---- */
void ra_policy_read_map(ra_policy_reader *r, yaml_node_t *map, const char *key, const char *const *known, int n, bool *seen,
                        void (*read)(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *out), void *out)
{
    for (int k = 0; k < n; k++) seen[k] = false;
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key);
        const char *word = ra_yaml_text(name);
        int k = 0;
        while (k < n && (!word || strcmp(word, known[k]))) k++;
        if (k == n) {
            ra_policy_unknown_key(r, name, key, word, known, n);
            continue;
        }
        char *full = ra_format("%s%s%s", key, *key ? "." : "", word);
        if (seen[k]) {
            ra_policy_problem(r, name, full, "given twice; leave one");
        } else {
            read(r, k, ra_yaml_node(r->yaml, p->value), full, out);
        }
        seen[k] = true;
        free(full);
    }
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

static const char *rule_name(ra_policy_reader *r, yaml_node_t *map, const char *key, const ra_rule_names *others)
{
    yaml_node_t *node = find_value(r->yaml, map, "name");
    if (!node) {
        ra_policy_problem(r, map, key, "the rule has no name; add `name: some-words`");
        return "";
    }
    const char *name = ra_policy_text(r, node, key);
    for (int i = 0; name && i < others->n; i++) {
        if (strcmp(others->name[i], name) == 0) ra_policy_problem(r, node, key, "another rule is called '%.60s' already", name);
    }
    return name ? name : "";
}

void ra_policy_read_rules(ra_policy_reader *r, yaml_node_t *list, const char *key, ra_rule_names *names,
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
    names->name = ra_realloc(NULL, n, sizeof *names->name);
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *map = ra_yaml_node(r->yaml, list->data.sequence.items.start[i]);
        char *rule_key = ra_format("%s[%zu]", key, i + 1);
        const char *name = "";
        if (map->type == YAML_MAPPING_NODE) name = rule_name(r, map, rule_key, names);
        names->name[names->n++] = ra_strdup(name);
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
static const char *const head_keys[] = {"name", "version", "description", "ignore_case", "rules", "labels", "text", "examples"};
enum { NAME, VERSION, DESCRIPTION, IGNORE_CASE, RULES, LABELS, TEXT, EXAMPLES, HEAD_KEYS };

static void set_text(ra_policy_reader *r, char **out, yaml_node_t *value, const char *key)
{
    const char *text = ra_policy_text(r, value, key);
    if (!text) return;
    size_t n = strlen(text), first = strspn(text, " \t\r\n");
    while (n > first && strchr(" \t\r\n", text[n - 1])) n--;
    if (first == n) ra_policy_problem(r, value, key, "nothing but white space; expected a text");
    free(*out);
    *out = ra_strndup(text + first, n - first);
}

static void read_key(ra_policy_reader *r, int which, yaml_node_t *value, const char *key, void *context)
{
    (void)context;
    ra_policy *p = r->policy;
    switch (which) {
    case NAME: set_text(r, &p->name, value, key); break;
    case VERSION: set_text(r, &p->version, value, key); break;
    case DESCRIPTION: set_text(r, &p->description, value, key); break;
    case RULES: ra_rules_read(r, value); break;
    case LABELS: ra_labels_read(r, value); break;
    case TEXT: set_text(r, &p->text, value, key); break;
    case EXAMPLES: ra_examples_read(r, value); break;
    default: break; /* ignore_case was read before */
    }
}

static void read_head(ra_policy_reader *r)
{
    yaml_node_t *root = r->yaml->root, *fold = find_value(r->yaml, root, "ignore_case");
    if (fold) r->fold = ra_policy_flag(r, fold, "ignore_case", true); /* wherever it stands, it is about all rules */
    bool seen[HEAD_KEYS];
    ra_policy_read_map(r, root, "", head_keys, HEAD_KEYS, seen, read_key, NULL);
    if (!seen[NAME]) ra_policy_problem(r, root, "name", "missing; add `name: some-words`");
    if (!seen[RULES] && !seen[LABELS] && !seen[TEXT]) {
        ra_policy_problem(r, root, NULL,
                          "the file holds none of rules, labels and text; give `rules:` (judge the text), `labels:` (judge by "
                          "columns of the data) or `text:` (for a judge that reads)");
    }
}

ra_err ra_policy_read(const char *path, ra_policy **out)
{
    *out = NULL;
    if (!*path) return ra_fail(RA_ERR_ARG, "policy: no file was given; give a YAML policy file (doc/policies.md)");
    ra_hash hash;
    ra_yaml yaml;
    RA_TRY(ra_yaml_read(path, &yaml));
    ra_err err = ra_hash_file(path, &hash);
    if (err != RA_OK) {
        ra_yaml_free(&yaml);
        return err;
    }
    ra_problems problems = {0};
    ra_policy *p = ra_calloc(1, sizeof *p);
    p->path = ra_strdup(path);
    p->name = ra_strdup("");
    p->version = ra_strdup("");
    p->description = ra_strdup("");
    p->hash = hash;
    ra_policy_reader reader = {.yaml = &yaml, .problems = &problems, .policy = p, .fold = true};
    if (!yaml.root || yaml.root->type != YAML_MAPPING_NODE) {
        ra_problem(&problems, path, 1, NULL, "the file holds %s; expected a policy with name and rules (doc/policies.md)",
                   yaml.root ? ra_yaml_kind(yaml.root) : "nothing");
    } else {
        read_head(&reader);
    }
    ra_yaml_free(&yaml);
    err = ra_problems_end(&problems, RA_ERR_ARG);
    if (err == RA_OK) {
        *out = p;
    } else {
        ra_policy_free(p);
    }
    return err;
}

static void free_example(ra_policy_example *e)
{
    free(e->prompt);
    free(e->response);
    free(e->category);
    free(e->why);
    json_decref(e->row);
}

void ra_policy_free(ra_policy *p)
{
    if (!p) return;
    ra_rules_free(p->rules);
    ra_labels_free(p->labels);
    ra_policy_free_texts(p->rule_names.name, p->rule_names.n);
    ra_policy_free_texts(p->label_names.name, p->label_names.n);
    for (int i = 0; i < p->n_examples; i++) free_example(&p->example[i]);
    free(p->example);
    free(p->path);
    free(p->name);
    free(p->version);
    free(p->description);
    free(p->text);
    ra_free(p);
}
