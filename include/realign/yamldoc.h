/* YAML documents with line numbers, and mistakes that are collected so that a user sees all of them at once.
 * Used by the settings file and by policy files. Not collective throughout. */
#ifndef REALIGN_YAMLDOC_H
#define REALIGN_YAMLDOC_H
#include <realign/error.h>
#include <realign/mem.h>
#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

/* ---- mistakes ---- */
typedef struct {
    ra_buf text; /* one mistake a line */
    int count;
} ra_problems;

/* Adds "where:line: key: text"; `line` 0 and `key` NULL or "" are left out. */
void ra_problem(ra_problems *list, const char *where, size_t line, const char *key, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* RA_OK without mistakes; else `code`, with all of them as the message (the first ones, and a count, where the message is full).
 * Frees the list in every case. */
ra_err ra_problems_end(ra_problems *list, ra_err code);

/* ---- names ---- */
/* Levenshtein distance in bytes; words beyond 63 bytes are compared by their first 63. */
int ra_edit_distance(const char *a, const char *b);
/* The known name nearest to `word`, or NULL where none is near. The last part of a dotted name counts as a name of its own,
 * so that "lr" finds "train.lr". */
const char *ra_nearest_name(const char *word, const char *const *known, int n);
/* True when `word` is one of "a|b|c". */
bool ra_word_in(const char *words, const char *word);

/* ---- documents ---- */
typedef struct {
    const char *path; /* as errors name it; borrowed */
    yaml_document_t document;
    yaml_node_t *root; /* NULL: an empty document */
} ra_yaml;

/* RA_ERR_IO, or RA_ERR_FORMAT with "path:line:column: what libyaml says". More than one document in the file is an error. */
ra_err ra_yaml_read(const char *path, ra_yaml *out);
ra_err ra_yaml_parse(const char *path, const char *text, size_t length, ra_yaml *out);
void ra_yaml_free(ra_yaml *y);

yaml_node_t *ra_yaml_node(ra_yaml *y, int index);
size_t ra_yaml_line(const yaml_node_t *node); /* from 1 */
/* The text of a scalar; NULL for lists and maps. */
const char *ra_yaml_text(const yaml_node_t *node);
/* A plain scalar that stands for nothing: empty, ~ or null without quotes. */
bool ra_yaml_is_null(const yaml_node_t *node);
const char *ra_yaml_kind(const yaml_node_t *node); /* "a single value", "a list", "a map" */

#endif
