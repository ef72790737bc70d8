#include "store.h"

#include <realign/hash.h>
#include <realign/log.h>

#include <stdlib.h>
#include <string.h>

enum { DEEPEST_MAP = 8 };

/* ---- defaults ---- */
/* "=key/x": the value of another key, with "/x" where it is given. Free with free. */
static char *follow(const ra_settings *s, const char *fallback)
{
    const char *slash = strchr(fallback, '/');
    char *name = slash ? ra_strndup(fallback + 1, (size_t)(slash - fallback) - 1) : ra_strdup(fallback + 1);
    int other = ra_schema_find(name);
    if (other < 0) ra_die("schema: the default %s names no key", fallback);
    free(name);
    return ra_format("%s%s", s->value[other].text, slash ? slash : "");
}

static void set_defaults(ra_settings *s, bool following)
{
    for (int i = 0; i < ra_schema_count; i++) {
        bool follows = ra_schema[i].fallback[0] == '=';
        if (s->origin[i] != RA_FROM_DEFAULT || (following && !follows)) continue;
        char *text = !follows ? ra_strdup(ra_schema[i].fallback) : following ? follow(s, ra_schema[i].fallback) : ra_strdup("");
        ra_buf problem = {0};
        if (!ra_value_parse(&ra_schema[i], text, &s->value[i], &problem)) {
            ra_die("schema: the default of %s: %s", ra_schema[i].name, problem.data);
        }
        free(text);
    }
}

ra_settings *ra_settings_new(void)
{
    ra_settings *s = ra_calloc(1, sizeof *s);
    set_defaults(s, false);
    set_defaults(s, true);
    return s;
}

void ra_settings_free(ra_settings *s)
{
    if (!s) return;
    for (int i = 0; i < ra_schema_count; i++) ra_value_free(&s->value[i]);
    free(s->file);
    ra_free(s);
}

/* ---- giving values ---- */
static void unknown_key(ra_problems *list, const char *where, size_t line, const char *key)
{
    const char *nearest = ra_schema_nearest(key);
    if (nearest) {
        ra_problem(list, where, line, key, "unknown key; did you mean %s?", nearest);
    } else {
        ra_problem(list, where, line, key, "unknown key; `realign --help` lists all of them");
    }
}

static void group_without_key(ra_problems *list, const char *where, size_t line, const char *key)
{
    ra_buf members = {0};
    for (int i = 0, n = 0; i < ra_schema_count; i++) {
        size_t length = strlen(key);
        if (strncmp(ra_schema[i].name, key, length) || ra_schema[i].name[length] != '.') continue;
        ra_buf_addf(&members, "%s%s", n++ ? ", " : "", ra_schema[i].name + length + 1);
    }
    ra_problem(list, where, line, key, "a group of keys, not a value; it holds %s", members.data);
    ra_buf_free(&members);
}

static void give(ra_settings *s, ra_origin origin, const char *where, size_t line, const char *key, const char *text,
                 ra_problems *list)
{
    int i = ra_schema_find(key);
    if (i < 0 && ra_schema_is_group(key)) {
        group_without_key(list, where, line, key);
        return;
    }
    if (i < 0) {
        unknown_key(list, where, line, key);
        return;
    }
    if (s->origin[i] > origin) return;
    ra_buf problem = {0};
    if (ra_value_parse(&ra_schema[i], text, &s->value[i], &problem)) {
        s->origin[i] = origin;
        s->line[i] = line;
    } else {
        ra_problem(list, where, line, key, "%s", problem.data);
    }
    ra_buf_free(&problem);
}

/* ---- the file ---- */
typedef struct {
    ra_settings *s;
    ra_yaml *yaml;
    ra_problems *problems;
    bool seen[RA_KEY_MOST];
} file_reader;

static void read_list(file_reader *r, const char *key, yaml_node_t *node)
{
    int i = ra_schema_find(key);
    if (i >= 0 && ra_schema[i].type != RA_KEY_LIST && ra_schema[i].type != RA_KEY_MAP) {
        ra_buf accepted = {0};
        ra_schema_accepted(&ra_schema[i], &accepted);
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(node), key, "a list is not accepted; give %s", accepted.data);
        ra_buf_free(&accepted);
        return;
    }
    ra_buf joined = {0};
    ra_buf_adds(&joined, "");
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        yaml_node_t *element = ra_yaml_node(r->yaml, *item);
        const char *text = ra_yaml_text(element);
        if (!text || strchr(text, RA_LIST_SEPARATOR)) {
            ra_problem(r->problems, r->yaml->path, ra_yaml_line(element), key, "an item is %s; give single values",
                       text ? "binary" : ra_yaml_kind(element));
            ra_buf_free(&joined);
            return;
        }
        if (*text) ra_buf_addf(&joined, "%c%s", RA_LIST_SEPARATOR, text);
    }
    give(r->s, RA_FROM_FILE, r->yaml->path, ra_yaml_line(node), key, joined.data, r->problems);
    ra_buf_free(&joined);
}

/* A map of single values as the value of a key: "name=value" items. */
static void read_named(file_reader *r, const char *key, yaml_node_t *map)
{
    ra_buf joined = {0};
    ra_buf_adds(&joined, "");
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        yaml_node_t *name = ra_yaml_node(r->yaml, p->key), *value = ra_yaml_node(r->yaml, p->value);
        const char *word = ra_yaml_text(name), *text = ra_yaml_text(value);
        if (!word || !text || strchr(word, RA_LIST_SEPARATOR) || strchr(text, RA_LIST_SEPARATOR)) {
            ra_problem(r->problems, r->yaml->path, ra_yaml_line(value), key, "%s is %s; give name: value with single values",
                       word ? word : "a name", ra_yaml_kind(word ? value : name));
            ra_buf_free(&joined);
            return;
        }
        ra_buf_addf(&joined, "%c%s=%s", RA_LIST_SEPARATOR, word, text);
    }
    give(r->s, RA_FROM_FILE, r->yaml->path, ra_yaml_line(map), key, joined.data, r->problems);
    ra_buf_free(&joined);
}

static void read_map(file_reader *r, const char *prefix, yaml_node_t *map, int depth);

static void read_pair(file_reader *r, const char *prefix, yaml_node_t *name, yaml_node_t *value, int depth)
{
    const char *word = ra_yaml_text(name);
    size_t line = ra_yaml_line(name);
    if (!word) {
        ra_problem(r->problems, r->yaml->path, line, prefix, "a key is %s; give a name", ra_yaml_kind(name));
        return;
    }
    char *key = *prefix ? ra_format("%s.%s", prefix, word) : ra_strdup(word);
    int i = ra_schema_find(key);
    if (value->type == YAML_MAPPING_NODE) {
        if (ra_schema_is_group(key)) {
            read_map(r, key, value, depth + 1);
        } else if (i >= 0 && ra_schema[i].type == RA_KEY_MAP && !r->seen[i]) {
            read_named(r, key, value);
        } else if (i >= 0) {
            ra_problem(r->problems, r->yaml->path, line, key, "a map is not accepted; it takes one value");
        } else {
            unknown_key(r->problems, r->yaml->path, line, key);
        }
    } else if (i >= 0 && r->seen[i]) {
        ra_problem(r->problems, r->yaml->path, line, key, "given twice; leave one");
    } else if (i >= 0 && ra_yaml_is_null(value)) {
        ra_problem(r->problems, r->yaml->path, line, key, "no value; give one, or leave the key out for its default (%s)",
                   *ra_schema[i].fallback ? ra_schema[i].fallback : "empty");
    } else if (value->type == YAML_SEQUENCE_NODE) {
        read_list(r, key, value);
    } else {
        give(r->s, RA_FROM_FILE, r->yaml->path, line, key, ra_yaml_text(value), r->problems);
    }
    if (i >= 0) r->seen[i] = true;
    free(key);
}

static void read_map(file_reader *r, const char *prefix, yaml_node_t *map, int depth)
{
    if (depth > DEEPEST_MAP) {
        ra_problem(r->problems, r->yaml->path, ra_yaml_line(map), prefix, "maps nest too deeply");
        return;
    }
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        read_pair(r, prefix, ra_yaml_node(r->yaml, p->key), ra_yaml_node(r->yaml, p->value), depth);
    }
}

/* output/NAME for input/NAME.yaml. */
static void name_run_dir(ra_settings *s, const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    char *dir = ra_format("output/%.*s", (int)n, base);
    int i = ra_schema_find("run.dir");
    ra_buf problem = {0};
    ra_value_parse(&ra_schema[i], dir, &s->value[i], &problem);
    ra_buf_free(&problem);
    free(dir);
}

ra_err ra_settings_read_file(ra_settings *s, const char *path)
{
    ra_yaml yaml;
    RA_TRY(ra_yaml_read(path, &yaml));
    ra_problems problems = {0};
    file_reader reader = {.s = s, .yaml = &yaml, .problems = &problems};
    if (yaml.root && yaml.root->type != YAML_MAPPING_NODE && !ra_yaml_is_null(yaml.root)) {
        ra_problem(&problems, path, ra_yaml_line(yaml.root), NULL, "the file holds %s; expected `key: value` lines",
                   ra_yaml_kind(yaml.root));
    } else if (yaml.root && yaml.root->type == YAML_MAPPING_NODE) {
        read_map(&reader, "", yaml.root, 0);
    }
    ra_yaml_free(&yaml);
    free(s->file);
    s->file = ra_strdup(path);
    if (s->origin[ra_schema_find("run.dir")] == RA_FROM_DEFAULT) name_run_dir(s, path);
    set_defaults(s, true);
    return ra_problems_end(&problems, RA_ERR_ARG);
}

ra_err ra_settings_read_words(ra_settings *s, int n, char *const *words)
{
    ra_problems problems = {0};
    for (int i = 0; i < n; i++) {
        const char *equal = strchr(words[i], '=');
        if (!equal || equal == words[i]) {
            ra_problem(&problems, "command line", 0, words[i], "not understood; expected key=value");
            continue;
        }
        char *key = ra_strndup(words[i], (size_t)(equal - words[i]));
        give(s, RA_FROM_WORDS, "command line", 0, key, equal + 1, &problems);
        free(key);
    }
    set_defaults(s, true);
    return ra_problems_end(&problems, RA_ERR_ARG);
}

ra_err ra_set_put(ra_settings *s, const char *key, const char *value)
{
    ra_problems problems = {0};
    int i = ra_schema_find(key);
    ra_origin before = i >= 0 ? s->origin[i] : RA_FROM_DEFAULT;
    if (i >= 0) s->origin[i] = RA_FROM_DEFAULT; /* an override wins over every origin */
    give(s, RA_FROM_PROGRAM, "set by the program", 0, key, value, &problems);
    if (i >= 0 && problems.count) s->origin[i] = before;
    set_defaults(s, true);
    return ra_problems_end(&problems, RA_ERR_ARG);
}

ra_err ra_set_put_list(ra_settings *s, const char *key, const char *const *items, int n)
{
    ra_buf joined = {0};
    ra_buf_adds(&joined, "");
    for (int i = 0; i < n; i++) ra_buf_addf(&joined, "%c%s", RA_LIST_SEPARATOR, items[i]);
    ra_err err = ra_set_put(s, key, joined.data);
    ra_buf_free(&joined);
    return err;
}

/* ---- reading values ---- */
static const ra_value *value_of(const ra_settings *s, const char *key, unsigned types, const char *call)
{
    int i = ra_schema_find(key);
    if (i < 0) ra_die("%s(\"%s\"): no such key in src/params/schema.c", call, key);
    if (!(types >> ra_schema[i].type & 1)) ra_die("%s(\"%s\"): the key is of another type", call, key);
    return &s->value[i];
}

const char *ra_set_text(const ra_settings *s, const char *key)
{
    return value_of(s, key, 1u << RA_KEY_TEXT | 1u << RA_KEY_URL | 1u << RA_KEY_ENV | 1u << RA_KEY_WORD, "ra_set_text")->text;
}

int64_t ra_set_int(const ra_settings *s, const char *key)
{
    return value_of(s, key, 1u << RA_KEY_INT | 1u << RA_KEY_BYTES, "ra_set_int")->integer;
}

double ra_set_real(const ra_settings *s, const char *key)
{
    return value_of(s, key, 1u << RA_KEY_REAL | 1u << RA_KEY_TIME, "ra_set_real")->real;
}

bool ra_set_bool(const ra_settings *s, const char *key)
{
    return value_of(s, key, 1u << RA_KEY_BOOL, "ra_set_bool")->yes;
}

int ra_set_list(const ra_settings *s, const char *key, const char *const **items)
{
    const ra_value *value = value_of(s, key, 1u << RA_KEY_LIST | 1u << RA_KEY_MAP, "ra_set_list");
    *items = (const char *const *)value->items;
    return value->n_items;
}

bool ra_set_given(const ra_settings *s, const char *key)
{
    value_of(s, key, ~0u, "ra_set_given");
    return s->origin[ra_schema_find(key)] != RA_FROM_DEFAULT;
}

/* ---- sharing and hashing ---- */
void ra_settings_share(ra_settings *s, const ra_comm *comm)
{
    ra_buf out = {0};
    ra_buf_addf(&out, "%s%c", s->file ? s->file : "", '\0');
    for (int i = 0; i < ra_schema_count; i++) {
        uint64_t head[2] = {(uint64_t)s->origin[i], s->line[i]};
        ra_buf_add(&out, head, sizeof head);
        ra_buf_add(&out, s->value[i].text, strlen(s->value[i].text) + 1);
    }
    int64_t length = (int64_t)out.length;
    ra_comm_bcast(comm, &length, sizeof length, 0);
    if (comm->rank != 0) {
        ra_buf_clear(&out);
        ra_buf_reserve(&out, (size_t)length);
    }
    ra_comm_bcast(comm, out.data, length, 0);
    if (comm->rank != 0) {
        const char *at = out.data;
        free(s->file);
        s->file = *at ? ra_strdup(at) : NULL;
        at += strlen(at) + 1;
        for (int i = 0; i < ra_schema_count; i++) {
            uint64_t head[2];
            memcpy(head, at, sizeof head);
            at += sizeof head;
            s->origin[i] = (ra_origin)head[0];
            s->line[i] = (size_t)head[1];
            ra_buf problem = {0};
            if (!ra_value_parse(&ra_schema[i], at, &s->value[i], &problem)) {
                ra_die("shared settings: %s: %s", ra_schema[i].name, problem.data);
            }
            at += strlen(at) + 1;
        }
    }
    ra_buf_free(&out);
}

uint64_t ra_settings_hash(const ra_settings *s, const char *const *prefixes, int n)
{
    ra_hasher *hasher = ra_hasher_new();
    for (int i = 0; i < ra_schema_count; i++) {
        bool wanted = false;
        for (int k = 0; k < n && !wanted; k++) wanted = strncmp(ra_schema[i].name, prefixes[k], strlen(prefixes[k])) == 0;
        if (!wanted) continue;
        ra_hasher_add(hasher, ra_schema[i].name, strlen(ra_schema[i].name) + 1);
        ra_hasher_add(hasher, s->value[i].text, strlen(s->value[i].text) + 1);
    }
    return ra_hasher_end(hasher).low;
}
