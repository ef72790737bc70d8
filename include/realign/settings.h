/* Settings of a run: one schema table (src/params/schema.c) declares every key with type, default, bounds, unit and help;
 * the parser, --help, used.yaml and doc/parameters.md all come from it. Not collective throughout: rank 0 reads, and
 * ra_settings_share gives the same values to all ranks. */
#ifndef REALIGN_SETTINGS_H
#define REALIGN_SETTINGS_H
#include <realign/comm.h>
#include <realign/error.h>
#include <realign/mem.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_settings ra_settings;

/* All defaults. */
ra_settings *ra_settings_new(void);
void ra_settings_free(ra_settings *s);
/* Reads a YAML file (libyaml). Nested maps join with dots: data: {path: x} is data.path. Every error of the file is collected into one message,
 * one a line: "file:line: key: what is wrong; nearest known key or accepted range". */
ra_err ra_settings_read_file(ra_settings *s, const char *path);
/* "key=value" words from the command line, in order; errors are collected likewise. They win over the file. */
ra_err ra_settings_read_words(ra_settings *s, int n, char *const *words);
/* Collective. Copies rank 0's settings to every rank. */
void ra_settings_share(ra_settings *s, const ra_comm *comm);

/* Typed reads. The key must exist in the schema with that type: anything else is a programming error and fatal. */
const char *ra_set_text(const ra_settings *s, const char *key); /* "" when empty; owned by s */
int64_t ra_set_int(const ra_settings *s, const char *key);
double ra_set_real(const ra_settings *s, const char *key);
bool ra_set_bool(const ra_settings *s, const char *key);
/* May this be the name of an environment variable ("" too)? Capitals, digits and _ alone, at most 64: keys (hf_..., sk_live_...) would pass for names otherwise. */
bool ra_set_is_variable_name(const char *text);
/* A list of words, or the "name=value" pairs of a map; *items is owned by s. Returns the count. */
int ra_set_list(const ra_settings *s, const char *key, const char *const **items);
/* True when the file or the command line gave the key. */
bool ra_set_given(const ra_settings *s, const char *key);
/* Programmatic override, e.g. by a sweep; parsed and bounded like a word. */
ra_err ra_set_put(ra_settings *s, const char *key, const char *value);
/* The same for a list, whose items may hold commas. */
ra_err ra_set_put_list(ra_settings *s, const char *key, const char *const *items, int n);

/* YAML of every key with its value and where it came from ("# file line 12", "# command line", "# default"). */
void ra_settings_write_yaml(const ra_settings *s, ra_buf *out);
/* A hash over the values of the keys that begin with one of the prefixes: what a cached result depends on. */
uint64_t ra_settings_hash(const ra_settings *s, const char *const *prefixes, int n);
/* Text for --help (all keys, grouped) and for doc/parameters.md. */
void ra_settings_help(ra_buf *out);
void ra_settings_markdown(ra_buf *out);

#endif
