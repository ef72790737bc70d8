/* Reading a run directory for the report: text files. */
#include "run_files_impl.h"

#include <realign/file.h>
#include <realign/yamldoc.h>

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- verdict.json ---- */

static void read_verdict(ra_run_files *r)
{
    ra_part_verdict *v = &r->verdict;
    char *path = ra_path_join(r->dir, "verdict.json");
    ra_buf text = {0};
    json_error_t where;
    json_t *root = NULL;
    if (!ra_file_exists(path)) {
        v->why = ra_strdup("verdict.json is not in the run directory: the run has not ended, or its stages were run one by one.");
    } else if (ra_file_read(path, &text) != RA_OK) {
        v->why = ra_strdup(ra_error_message());
    } else if (!(root = json_loadb(text.data ? text.data : "", text.length, 0, &where)) ||
               !json_is_boolean(json_object_get(root, "valid"))) {
        v->why = ra_format("verdict.json cannot be used: %s", root ? "\"valid\" is not true or false" : where.text);
    } else {
        const json_t *reasons = json_object_get(root, "reasons");
        v->valid = json_is_true(json_object_get(root, "valid"));
        v->reason = ra_calloc(json_array_size(reasons), sizeof *v->reason);
        for (size_t i = 0; i < json_array_size(reasons); i++) {
            const char *reason = json_string_value(json_array_get(reasons, i));
            if (reason) v->reason[v->reasons++] = ra_strdup(reason);
        }
    }
    json_decref(root);
    ra_buf_free(&text);
    free(path);
}

/* ---- generations ---- */

static char *copy_string(const json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text ? ra_strdup(text) : NULL;
}

static bool read_text(const char *line, size_t length, ra_text *out)
{
    json_t *root = json_loadb(line, length, 0, NULL);
    const json_t *verdict = json_object_get(root, "verdict");
    *out = (ra_text){.id = json_integer_value(json_object_get(root, "id")),
                     .category = copy_string(root, "category"),
                     .prompt = copy_string(root, "prompt"),
                     .response = copy_string(root, "response"),
                     .rule = copy_string(root, "rule"),
                     .verdict = json_is_integer(verdict) ? json_integer_value(verdict) != 0 : -1};
    bool good = root && out->prompt && out->response;
    json_decref(root);
    return good;
}

static void free_text(ra_text *t)
{
    free(t->category);
    free(t->prompt);
    free(t->response);
    free(t->rule);
}

/* The first `most` lines. */
static void read_texts(ra_run_files *r, int side, int64_t most)
{
    static const char *const names[] = {"generations-before.jsonl", "generations-after.jsonl"};
    ra_part_texts *t = &r->texts[side];
    char *path = ra_path_join(r->dir, names[side]);
    ra_buf text = {0};
    if (!ra_file_exists(path)) {
        t->why = ra_format("%s is not in the run directory.", names[side]);
    } else if (ra_file_read(path, &text) != RA_OK) {
        t->why = ra_strdup(ra_error_message());
    }
    const char *at = text.data, *end = text.data ? text.data + text.length : NULL;
    t->text = ra_calloc((size_t)most, sizeof *t->text);
    while (!t->why && at < end && t->n < most) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        if (!read_text(at, (size_t)(stop - at), &t->text[t->n])) {
            t->why =
                ra_format("%s, line %lld: expected {\"id\", \"prompt\", \"response\", ...}", names[side], (long long)t->n + 1);
            free_text(&t->text[t->n]);
            break;
        }
        t->n++;
        at = stop + 1;
    }
    ra_buf_free(&text);
    free(path);
}

/* ---- tables and used.yaml ---- */

static char *read_table(const ra_run_files *r, const char *name, const char *stage, ra_table *out)
{
    char *path = ra_path_join(r->dir, name), *why = NULL;
    if (!ra_file_exists(path)) {
        why = ra_format("%s is not in the run directory: the stage %s has not been run.", name, stage);
    } else if (ra_table_read(path, out) != RA_OK) {
        why = ra_strdup(ra_error_message());
    }
    free(path);
    return why;
}

static void read_used(ra_run_files *r)
{
    char *path = ra_path_join(r->dir, "used.yaml");
    ra_buf text = {0};
    if (ra_file_exists(path) && ra_file_read(path, &text) == RA_OK) {
        r->used = ra_strdup(text.data ? text.data : "");
    } else {
        r->why_used = ra_strdup("used.yaml is not in the run directory.");
    }
    ra_buf_free(&text);
    free(path);
}

static yaml_node_t *child(ra_yaml *y, const yaml_node_t *map, const char *key, size_t length)
{
    if (!map || map->type != YAML_MAPPING_NODE) return NULL;
    for (const yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top; p++) {
        const char *name = ra_yaml_text(ra_yaml_node(y, p->key));
        if (name && strlen(name) == length && memcmp(name, key, length) == 0) return ra_yaml_node(y, p->value);
    }
    return NULL;
}

static char *node_text(ra_yaml *y, const yaml_node_t *node)
{
    if (!node) return NULL;
    if (node->type == YAML_SCALAR_NODE) return ra_strdup(ra_yaml_text(node));
    if (node->type != YAML_SEQUENCE_NODE) return NULL;
    ra_buf list = {0};
    ra_buf_adds(&list, "");
    for (const yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        const char *text = ra_yaml_text(ra_yaml_node(y, *i));
        ra_buf_addf(&list, "%s%s", list.length ? ", " : "", text ? text : "\u2026");
    }
    return list.data;
}

char *ra_run_files_setting(const ra_run_files *r, const char *key)
{
    ra_yaml y;
    if (!r->used || ra_yaml_parse("used.yaml", r->used, strlen(r->used), &y) != RA_OK) return NULL;
    yaml_node_t *node = y.root;
    for (const char *part = key; node && part;) {
        const char *dot = strchr(part, '.');
        node = child(&y, node, part, dot ? (size_t)(dot - part) : strlen(part));
        part = dot ? dot + 1 : NULL;
    }
    char *text = node_text(&y, node);
    ra_yaml_free(&y);
    return text;
}

/* ---- all of it ---- */

/* The last part of a path. */
static char *last_part(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    return ra_strndup(path + begin, end - begin);
}

ra_err ra_run_files_read(const char *dir, int64_t samples, ra_run_files *out)
{
    *out = (ra_run_files){0};
    if (!ra_file_is_dir(dir)) return ra_fail(RA_ERR_IO, "run.dir: %s is not a directory: there is no run to report on", dir);
    out->dir = ra_strdup(dir);
    out->name = last_part(dir);
    read_verdict(out);
    read_used(out);
    ra_run_files_read_h5(out);
    out->why_steps = read_table(out, "steps.tsv", "train", &out->steps);
    out->why_timers = read_table(out, "timers.tsv", "prepare", &out->timers);
    for (int side = 0; side < RA_SIDES; side++) read_texts(out, side, samples);
    return RA_OK;
}

void ra_run_files_free(ra_run_files *r)
{
    for (int i = 0; i < r->verdict.reasons; i++) free(r->verdict.reason[i]);
    ra_free(r->verdict.reason);
    free(r->verdict.why);
    for (int side = 0; side < RA_SIDES; side++) {
        for (int64_t i = 0; i < r->texts[side].n; i++) free_text(&r->texts[side].text[i]);
        ra_free(r->texts[side].text);
        free(r->texts[side].why);
    }
    ra_table_free(&r->steps);
    ra_table_free(&r->timers);
    ra_run_files_free_h5(r);
    free(r->why_steps);
    free(r->why_timers);
    free(r->why_used);
    free(r->used);
    free(r->dir);
    free(r->name);
    *r = (ra_run_files){0};
}
