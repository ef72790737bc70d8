/* The reader: lines of the files in order, those of one share parsed. */
#include "lines.h"
#include "schema.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <stdlib.h>
#include <string.h>

enum { DETECT_ROWS = 16, DEFAULT_ROW_LIMIT = 64 << 20, FIRST_SHOWN = 16 };

struct ra_prefdata {
    char **paths;
    int n_paths, current; /* the file being read */
    ra_lines *lines;      /* NULL: none is open */
    ra_schema_kind schema;
    bool prompts_only;
    int64_t malformed_limit, max_rows, row_limit, next_id;
    ra_data_counts counts;
    ra_row_space space;
    ra_row row;
    json_t *source;
};

static json_t *parse(const char *text, size_t n, ra_buf *why)
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
        if (n < 12) ra_buf_addf(out, "%s%.40s", n ? ", " : "", key);
        n++;
    }
    if (n > 12) ra_buf_addf(out, " and %d more", n - 12);
    if (n == 0) ra_buf_adds(out, "none");
}

/* What ra_lines_next returned is a JSON array that spans the file, as json.dump writes it. */
static bool begins_array(const ra_line *line)
{
    size_t i = 0;
    while (i < line->length && (line->text[i] == ' ' || line->text[i] == '\t')) i++;
    return i < line->length && line->text[i] == '[';
}

/* Looks at the first rows of one file. *seen: how many there were. */
static ra_err detect_in(ra_prefdata *data, const char *path, int *seen, ra_buf *keys)
{
    ra_lines *lines;
    RA_TRY(ra_lines_open(path, data->row_limit, &lines));
    ra_line line;
    bool more = true;
    ra_err err = RA_OK;
    while (err == RA_OK && *seen < DETECT_ROWS && data->schema == RA_SCHEMA_NONE) {
        err = ra_lines_next(lines, &line, &more);
        if (err != RA_OK || !more) break;
        if (*seen == 0 && !line.too_long && begins_array(&line)) {
            err = ra_fail(RA_ERR_FORMAT, "%s:%lld: a JSON array; expected JSON Lines, one object a line (jq -c '.[]' converts)",
                          path, (long long)line.number);
            break;
        }
        ++*seen;
        json_t *row = line.too_long ? NULL : parse(line.text, line.length, &data->space.why);
        data->schema = row ? ra_schema_recognise(row) : RA_SCHEMA_NONE;
        if (row && data->schema == RA_SCHEMA_NONE && data->prompts_only && ra_schema_has_prompt(row))
            data->schema = RA_SCHEMA_PROMPTS;
        if (json_is_object(row) && !keys->length) add_keys(row, keys);
        json_decref(row);
    }
    ra_lines_close(lines);
    return err;
}

static ra_err detect(ra_prefdata *data)
{
    int seen = 0;
    ra_buf keys = {0};
    ra_err err = RA_OK;
    for (int i = 0; i < data->n_paths && err == RA_OK && data->schema == RA_SCHEMA_NONE && seen < DETECT_ROWS; i++) {
        err = detect_in(data, data->paths[i], &seen, &keys);
    }
    if (err == RA_OK && seen == 0) {
        err = ra_fail(RA_ERR_DATA, "%s: no rows in the %s", data->paths[0], data->n_paths > 1 ? "files" : "file");
    } else if (err == RA_OK && data->schema == RA_SCHEMA_NONE && !keys.length) {
        err = ra_fail(RA_ERR_FORMAT, "%s:1: none of the first %d rows is a JSON object (%s); expected %s", data->paths[0], seen,
                      data->space.why.length ? data->space.why.data : "another kind of value", ra_schema_accepts);
    } else if (err == RA_OK && data->schema == RA_SCHEMA_NONE) {
        err = ra_fail(RA_ERR_FORMAT, "%s:1: the schema is not recognised from the keys: %s; known schemas: %s%s", data->paths[0],
                      keys.data, ra_schema_accepts, data->prompts_only ? ", or {prompt} or {messages} alone" : "");
    }
    ra_buf_free(&keys);
    return err;
}

ra_err ra_prefdata_open(const char *const *paths, int n_paths, const char *schema, int64_t malformed_limit, ra_prefdata **out)
{
    *out = NULL;
    if (n_paths < 1) return ra_fail(RA_ERR_ARG, "data.path: no file was given; give JSON Lines files (.jsonl or .jsonl.gz)");
    bool prompts = strcmp(schema, "prompts") == 0;
    ra_schema_kind kind = prompts ? RA_SCHEMA_NONE : ra_schema_kind_of(schema);
    if (kind == RA_SCHEMA_NONE && !prompts && strcmp(schema, "auto")) {
        return ra_fail(RA_ERR_ARG, "data.schema: '%s' is not known; give auto, pairs, hh, pku, responses or prompts", schema);
    }
    ra_prefdata *data = ra_calloc(1, sizeof *data);
    data->paths = ra_calloc((size_t)n_paths, sizeof *data->paths);
    data->n_paths = n_paths;
    for (int i = 0; i < n_paths; i++) data->paths[i] = ra_strdup(paths[i]);
    data->schema = kind;
    data->prompts_only = prompts;
    data->malformed_limit = malformed_limit;
    data->max_rows = INT64_MAX;
    data->row_limit = DEFAULT_ROW_LIMIT;
    ra_err err = kind == RA_SCHEMA_NONE ? detect(data) : RA_OK;
    if (err != RA_OK) {
        ra_prefdata_close(data);
        return err;
    }
    *out = data;
    return RA_OK;
}

void ra_prefdata_close(ra_prefdata *data)
{
    if (!data) return;
    ra_lines_close(data->lines);
    json_decref(data->source);
    ra_row_space_free(&data->space);
    for (int i = 0; i < FIRST_SHOWN; i++) {
        free((char *)(uintptr_t)data->counts.why_malformed[i]);
        free((char *)(uintptr_t)data->counts.why_skipped[i]);
    }
    for (int i = 0; i < data->n_paths; i++) free(data->paths[i]);
    ra_free(data->paths);
    ra_free(data);
}

void ra_prefdata_set_limits(ra_prefdata *data, int64_t max_rows, int64_t max_row_bytes)
{
    if (max_rows > 0) data->max_rows = max_rows;
    if (max_row_bytes > 0) data->row_limit = max_row_bytes;
}

/* The next line of the next file that has one. */
static ra_err next_line(ra_prefdata *data, ra_line *line, bool *more)
{
    for (*more = false;; data->current++) {
        if (data->current == data->n_paths || data->next_id >= data->max_rows) return RA_OK;
        if (!data->lines) RA_TRY(ra_lines_open(data->paths[data->current], data->row_limit, &data->lines));
        RA_TRY(ra_lines_next(data->lines, line, more));
        if (*more) return RA_OK;
        ra_lines_close(data->lines);
        data->lines = NULL;
    }
}

static ra_row_status read_row(ra_prefdata *data, const ra_line *line)
{
    data->row = (ra_row){.id = data->row.id};
    json_decref(data->source);
    data->source = NULL;
    if (line->too_long) {
        return ra_row_refuse(&data->space, &data->row, RA_ROW_MALFORMED, "longer than data.row_limit = %lld bytes",
                             (long long)data->row_limit);
    }
    data->source = parse(line->text, line->length, &data->space.why);
    if (!data->source) {
        data->row.why = data->space.why.data;
        return RA_ROW_MALFORMED;
    }
    return ra_schema_read(data->schema, data->prompts_only, data->source, &data->space, &data->row);
}

static ra_err count(ra_prefdata *data, ra_row_status status, const ra_line *line)
{
    ra_data_counts *c = &data->counts;
    if (status == RA_ROW_OK) {
        c->used++;
        return RA_OK;
    }
    bool bad = status == RA_ROW_MALFORMED;
    int64_t before = bad ? c->malformed++ : c->skipped++;
    if (before < FIRST_SHOWN) {
        (bad ? c->first_malformed : c->first_skipped)[before] = data->row.id + 1;
        (bad ? c->why_malformed : c->why_skipped)[before] = ra_strdup(data->row.why);
    }
    if (!bad || c->malformed <= data->malformed_limit) return RA_OK;
    return ra_fail(RA_ERR_DATA, "%s:%lld: row %lld: %s; malformed rows: %lld, more than data.malformed_limit = %lld",
                   data->paths[data->current], (long long)line->number, (long long)data->row.id + 1, data->row.why,
                   (long long)c->malformed, (long long)data->malformed_limit);
}

ra_err ra_prefdata_next(ra_prefdata *data, int rank, int ranks, int64_t block, const ra_row **row, ra_row_status *status,
                        bool *more)
{
    *row = NULL;
    *status = RA_ROW_OK;
    ra_line line;
    for (;;) {
        RA_TRY(next_line(data, &line, more));
        if (!*more) return RA_OK;
        int64_t id = data->next_id++;
        data->counts.rows++;
        if ((id / block) % ranks != rank) continue;
        data->row.id = id;
        *status = read_row(data, &line);
        *row = &data->row;
        return count(data, *status, &line);
    }
}

const ra_data_counts *ra_prefdata_counts(const ra_prefdata *data)
{
    return &data->counts;
}

const char *ra_prefdata_schema(const ra_prefdata *data)
{
    return ra_schema_kind_name(data->schema);
}

ra_err ra_prefdata_open_settings(const ra_settings *s, ra_prefdata **out)
{
    const char *const *paths;
    int n = ra_set_list(s, "data.path", &paths);
    RA_TRY(ra_prefdata_open(paths, n, ra_set_text(s, "data.schema"), ra_set_int(s, "data.malformed_limit"), out));
    ra_prefdata_set_limits(*out, ra_set_int(s, "data.limit"), ra_set_int(s, "data.row_limit"));
    return RA_OK;
}

bool ra_row_held_out(const ra_settings *s, int64_t id)
{
    double share = ra_set_real(s, "data.held_out");
    if (share <= 0) return false;
    ra_rng rng = ra_rng_make((uint64_t)ra_set_int(s, "seed"), RA_STREAM_SPLIT);
    rng.counter = (uint64_t)id;
    return ra_rng_uniform(&rng) < share;
}
