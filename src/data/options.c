#include "options.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ROW_LIMIT = 64 << 20 };

ra_err ra_data_options_make(const char *const *paths, int n_paths, const char *stdin_path, const char *schema,
                            ra_data_options *out)
{
    *out = (ra_data_options){
        .max_rows = INT64_MAX, .row_limit = DEFAULT_ROW_LIMIT, .empty = RA_DROP_ROWS, .identical = RA_KEEP_ROWS};
    out->prompts_only = strcmp(schema, "prompts") == 0;
    if (!out->prompts_only && strcmp(schema, "auto") != 0) {
        out->schema = ra_schema_kind_of(schema);
        if (out->schema == RA_SCHEMA_NONE) {
            ra_buf names = {0};
            for (int k = 1; k < RA_SCHEMAS; k++)
                ra_buf_addf(&names, "%s %s", k + 1 < RA_SCHEMAS ? "," : " or", ra_schema_kind_name((ra_schema_kind)k));
            ra_err err = ra_fail(RA_ERR_ARG, "data.schema: '%s' is not known; give auto%s", schema, names.data);
            ra_buf_free(&names);
            return err;
        }
    }
    RA_TRY(ra_data_files_list(paths, n_paths, stdin_path, &out->files));
    out->n_entries = n_paths;
    out->entry = ra_calloc((size_t)n_paths, sizeof *out->entry);
    out->weight = ra_calloc((size_t)n_paths, sizeof *out->weight);
    out->cap = ra_calloc((size_t)n_paths, sizeof *out->cap);
    for (int i = 0; i < n_paths; i++) {
        out->entry[i] = ra_strdup(paths[i]);
        out->weight[i] = 1;
        out->cap[i] = INT64_MAX;
    }
    return RA_OK;
}

void ra_data_options_free(ra_data_options *o)
{
    ra_data_files_free(&o->files);
    for (int i = 0; i < o->n_entries; i++) free(o->entry[i]);
    ra_free(o->entry);
    ra_free(o->weight);
    ra_free(o->cap);
    ra_columns_free(&o->columns);
    *o = (ra_data_options){0};
}

/* ---- from settings ---- */

/* The list `key`, which must be empty or have a number from 0 to `high` for every entry of data.path. *given: it is not empty. */
static ra_err read_numbers(const ra_settings *s, const char *key, int n_entries, double high, double *out, bool *given)
{
    const char *const *items;
    int n = ra_set_list(s, key, &items);
    *given = n > 0;
    if (n > 0 && n != n_entries)
        return ra_fail(RA_ERR_ARG, "%s: %d numbers for %d entries of data.path; give one for each, in the same order", key, n,
                       n_entries);
    for (int i = 0; i < n; i++) {
        char *end;
        out[i] = strtod(items[i], &end);
        if (end == items[i] || *end || !(out[i] >= 0 && out[i] <= high))
            return ra_fail(RA_ERR_ARG, "%s: '%.40s' is not accepted; give numbers from 0 to %.16g", key, items[i], high);
    }
    return RA_OK;
}

static ra_err read_shares(const ra_settings *s, ra_data_options *o)
{
    bool given;
    double *caps = ra_calloc((size_t)o->n_entries, sizeof *caps);
    ra_err err = read_numbers(s, "data.weights", o->n_entries, 1, o->weight, &given);
    if (err == RA_OK) err = read_numbers(s, "data.caps", o->n_entries, 0x1p53, caps, &given);
    for (int i = 0; err == RA_OK && given && i < o->n_entries; i++) {
        if (caps[i] != (double)(int64_t)caps[i])
            err = ra_fail(RA_ERR_ARG, "data.caps: %g is not a whole number of rows", caps[i]);
        if (caps[i] > 0) o->cap[i] = (int64_t)caps[i];
    }
    ra_free(caps);
    return err;
}

static ra_row_policy policy(const ra_settings *s, const char *key)
{
    const char *word = ra_set_text(s, key);
    return strcmp(word, "keep") == 0 ? RA_KEEP_ROWS : strcmp(word, "drop") == 0 ? RA_DROP_ROWS : RA_REFUSE_ROWS;
}

ra_err ra_data_options_read(const ra_settings *s, ra_data_options *out)
{
    const char *const *paths, *const *columns;
    int n = ra_set_list(s, "data.path", &paths), n_columns = ra_set_list(s, "data.columns", &columns);
    char *spool = ra_path_join(ra_set_text(s, "run.dir"), RA_STDIN_FILE);
    ra_err err = ra_data_options_make(paths, n, spool, ra_set_text(s, "data.schema"), out);
    free(spool);
    if (err != RA_OK) return err;
    err = read_shares(s, out);
    if (err == RA_OK) err = ra_columns_read(columns, n_columns, &out->columns);
    out->seed = (uint64_t)ra_set_int(s, "seed");
    out->malformed_limit = ra_set_int(s, "data.malformed_limit");
    if (ra_set_int(s, "data.limit") > 0) out->max_rows = ra_set_int(s, "data.limit");
    out->row_limit = ra_set_int(s, "data.row_limit");
    out->empty = policy(s, "data.empty");
    out->identical = policy(s, "data.identical");
    if (err != RA_OK) ra_data_options_free(out);
    return err;
}

ra_err ra_prefdata_open(const char *const *paths, int n_paths, const char *schema, int64_t malformed_limit, ra_prefdata **out)
{
    ra_data_options o;
    *out = NULL;
    RA_TRY(ra_data_options_make(paths, n_paths, NULL, schema, &o));
    o.malformed_limit = malformed_limit;
    return ra_prefdata_open_options(&o, out);
}

ra_err ra_prefdata_open_settings(const ra_settings *s, ra_prefdata **out)
{
    ra_data_options o;
    *out = NULL;
    RA_TRY(ra_data_options_read(s, &o));
    return ra_prefdata_open_options(&o, out);
}

uint64_t ra_prefdata_settings_hash(const ra_settings *s)
{
    static const char *const keys[] = {"data.schema", "data.columns",   "data.weights",         "data.caps",
                                       "data.limit",  "data.row_limit", "data.malformed_limit", "data.duplicates",
                                       "data.empty",  "data.identical", "data.held_out"};
    static const char *const seed[] = {"seed"};
    const char *const *weights;
    uint64_t hash = ra_settings_hash(s, keys, sizeof keys / sizeof *keys);
    bool draws = ra_set_real(s, "data.held_out") > 0 || ra_set_list(s, "data.weights", &weights) > 0;
    return draws ? hash ^ ra_settings_hash(s, seed, 1) : hash;
}

bool ra_row_held_out(const ra_settings *s, uint64_t prompt_hash)
{
    double share = ra_set_real(s, "data.held_out");
    if (share <= 0) return false;
    ra_rng rng = ra_rng_make((uint64_t)ra_set_int(s, "seed"), RA_STREAM_SPLIT);
    rng.counter = prompt_hash;
    return ra_rng_uniform(&rng) < share;
}
