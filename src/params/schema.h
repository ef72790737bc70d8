/* The schema of settings: one row a key. Parser, bounds, --help, used.yaml and doc/parameters.md come from this table. */
#ifndef RA_PARAMS_SCHEMA_H
#define RA_PARAMS_SCHEMA_H
#include <realign/yamldoc.h>
#include <stdint.h>

typedef enum {
    RA_KEY_TEXT, /* any text; read by ra_set_text */
    RA_KEY_URL, /* an address without user name, password, query or fragment, for it is written to used.yaml; read by ra_set_text; a refused value is not shown */
    RA_KEY_ENV, /* the name of an environment variable; read by ra_set_text; a refused value is not shown */
    RA_KEY_WORD,  /* one of `words`; read by ra_set_text */
    RA_KEY_LIST,  /* one value or a list; read by ra_set_list */
    RA_KEY_MAP,   /* names with values, name=value on the command line; read by ra_set_list as "name=value" */
    RA_KEY_BOOL,  /* true, false, yes, no, on, off; read by ra_set_bool */
    RA_KEY_INT,   /* whole number in [low, high]; read by ra_set_int */
    RA_KEY_BYTES, /* whole number of bytes, units B to TiB; read by ra_set_int */
    RA_KEY_REAL,  /* number in [low, high]; read by ra_set_real */
    RA_KEY_TIME   /* seconds, units ms to d, or clock form hh:mm:ss; read by ra_set_real */
} ra_key_type;

typedef struct {
    const char *name;
    ra_key_type type;
    const char *fallback; /* as a user would write it; "=key" is the value of another (text) key, "=key/x" that with "/x" */
    const char *words;    /* RA_KEY_WORD, and RA_KEY_LIST of known words: "a|b|c" */
    double low, high;     /* numbers: the accepted range */
    bool above_low;       /* the range is open at `low` */
    const char *unit;     /* for the reader, "" without one */
    const char *help;
    const char *why; /* added where a value is refused by its range; or NULL */
} ra_key;

/* A heading that stands before the key `first` in help texts. */
typedef struct {
    const char *first, *title;
} ra_section;

enum { RA_KEY_MOST = 256 }; /* room for so many rows */
extern const ra_key ra_schema[];
extern const int ra_schema_count;
extern const ra_section ra_schema_sections[];
extern const int ra_schema_section_count;

int ra_schema_find(const char *name); /* -1: unknown */
/* True when keys begin with "name.". */
bool ra_schema_is_group(const char *name);
/* The heading before this key, or NULL. */
const char *ra_schema_section(const char *name);
const char *ra_schema_nearest(const char *name);
/* "a whole number from 1 to 64", "one of: a, b": what a key accepts; appended to `out`. */
void ra_schema_accepted(const ra_key *key, ra_buf *out);

/* ---- values (value.c) ---- */
typedef struct {
    char *text; /* canonical: numbers in full precision, seconds, bytes; RA_LIST_SEPARATOR before each list item */
    int64_t integer;
    double real;
    bool yes;
    char **items;
    int n_items;
} ra_value;
enum { RA_LIST_SEPARATOR = 0x1f };

/* Reads `text` as a value of `key`. False: *problem says what is wrong and what is accepted, and *out is unchanged. */
bool ra_value_parse(const ra_key *key, const char *text, ra_value *out, ra_buf *problem);
void ra_value_free(ra_value *value);

#endif
