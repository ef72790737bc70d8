/* Which schema an entry of data.path has: by the keys of its first rows. */
#include "detect.h"
#include "rowtext.h"

#include <string.h>

enum { DETECT_ROWS = 16 };

json_t *ra_row_parse(const char *text, size_t n, ra_buf *why)
{
    json_error_t problem;
    json_t *value = json_loadb(text, n, JSON_DECODE_ANY, &problem);
    if (value) return value;
    ra_buf_clear(why); /* jansson quotes the text near the mistake: left out, as texts may be harmful */
    const char *near = strstr(problem.text, " near '");
    ra_buf_addf(why, "not JSON: %.*s at byte %d", near ? (int)(near - problem.text) : 120, problem.text, problem.position);
    return NULL;
}

static void add_keys(const json_t *row, ra_buf *out)
{
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        if (n < 20) ra_buf_addf(out, "%s%.40s", n ? ", " : "", key);
        n++;
    }
    if (n > 20) ra_buf_addf(out, " and %d more", n - 20);
    if (n == 0) ra_buf_adds(out, "none");
}

const ra_columns ra_no_columns = {0};

typedef struct {
    const ra_data_options *o;
    const ra_columns *columns; /* that the row was recognised with */
    ra_schema_kind found;
    const char *path; /* of the first row with keys, and its line */
    int64_t line;
    ra_buf keys, why; /* of that row; what is wrong with the last one that is not JSON */
    int seen;
} search;

static ra_err refuse_ambiguous(const search *f, unsigned found, const char *path, int64_t line)
{
    ra_buf names = {0};
    for (int k = 1; k < RA_SCHEMAS; k++) {
        if (found >> k & 1) ra_buf_addf(&names, "%s%s", names.length ? " and " : "", ra_schema_kind_name((ra_schema_kind)k));
    }
    ra_err err = ra_fail(RA_ERR_FORMAT, "%s:%lld: the keys fit the schemas %s; say which with data.schema (keys: %s)", path,
                         (long long)line, names.data, f->keys.data);
    ra_buf_free(&names);
    return err;
}

static ra_err look_at(search *f, const json_t *row, const char *path, int64_t line)
{
    if (!json_is_object(row)) return RA_OK;
    if (!f->keys.length) {
        f->path = path;
        f->line = line;
        add_keys(row, &f->keys);
    }
    f->columns = &f->o->columns;
    unsigned found = ra_schema_recognise(row, f->columns);
    if (!found) {
        f->columns = &ra_no_columns;
        found = ra_schema_recognise(row, f->columns);
    }
    if (found & (found - 1)) return refuse_ambiguous(f, found, path, line);
    for (int k = 1; k < RA_SCHEMAS; k++) {
        if (found >> k & 1) f->found = (ra_schema_kind)k;
    }
    if (!found && f->o->prompts_only) {
        if (ra_schema_has_prompt(row, &f->o->columns)) f->columns = &f->o->columns;
        if (ra_schema_has_prompt(row, f->columns)) f->found = RA_SCHEMA_PROMPTS;
    }
    return RA_OK;
}

static ra_err look_into(search *f, const char *path)
{
    ra_rowtext *rows;
    RA_TRY(ra_rowtext_open(path, f->o->row_limit, &rows));
    ra_row_bytes text;
    bool more = true;
    ra_err err = RA_OK;
    while (f->seen < DETECT_ROWS && f->found == RA_SCHEMA_NONE) {
        err = ra_rowtext_next(rows, &text, &more);
        if (err != RA_OK || !more) break;
        f->seen++;
        json_t *row = text.too_long ? NULL : ra_row_parse(text.text, text.length, &f->why);
        err = look_at(f, row, path, text.line);
        json_decref(row);
        if (err != RA_OK) break;
    }
    ra_rowtext_close(rows);
    return err;
}

ra_err ra_schema_detect(const ra_data_options *o, int entry, ra_schema_kind *out, const ra_columns **columns)
{
    search f = {.o = o, .columns = &o->columns};
    ra_err err = RA_OK;
    for (int i = 0; i < o->files.n && err == RA_OK && f.found == RA_SCHEMA_NONE && f.seen < DETECT_ROWS; i++) {
        if (o->files.file[i].origin == entry) err = look_into(&f, o->files.file[i].path);
    }
    if (err == RA_OK && f.found == RA_SCHEMA_NONE && f.seen > 0 && !f.keys.length) {
        err = ra_fail(
            RA_ERR_FORMAT,
            "%s:1: none of the first %d rows is a JSON object (%s); expected JSON Lines, one object a line, or one JSON array "
            "of objects: %s",
            o->entry[entry], f.seen, f.why.length ? f.why.data : "another kind of value", ra_schema_accepts);
    } else if (err == RA_OK && f.found == RA_SCHEMA_NONE && f.seen > 0) {
        err = ra_fail(RA_ERR_FORMAT,
                      "%s:%lld: the schema is not recognised from the keys: %s; known schemas: %s%s; data.columns says which of "
                      "your columns is which",
                      f.path, (long long)f.line, f.keys.data, ra_schema_accepts,
                      o->prompts_only ? ", or {prompt}, {question}, {messages} or {conversations} alone" : "");
    }
    *out = f.found;
    *columns = f.columns;
    ra_buf_free(&f.keys);
    ra_buf_free(&f.why);
    return err;
}
