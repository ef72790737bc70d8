/* The reader: rows of the files in order, those of one share parsed. */
#include "detect.h"
#include "rowtext.h"

#include <realign/rng.h>

#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_schema_kind schema;
    const ra_columns *columns;
    int64_t rows, drawn;
} origin;

struct ra_prefdata {
    ra_data_options o;
    origin *origin; /* (o.n_entries) */
    int current;    /* the file being read */
    ra_rowtext *text;
    bool is_array;
    int64_t next_id;
    char *schemas; /* their names */
    ra_data_counts counts;
    ra_row_space space;
    ra_buf hashed, place;
    ra_row row;
    json_t *source;
    uint8_t *duplicate; /* bit i % 8 of byte i / 8: row i repeats an earlier one; or NULL */
    int64_t duplicate_rows;
};

/* ---- opening ---- */
static ra_err detect_all(ra_prefdata *data)
{
    ra_buf names = {0};
    bool any = false;
    for (int i = 0; i < data->o.n_entries; i++) {
        data->origin[i].schema = data->o.schema;
        data->origin[i].columns = &data->o.columns;
        if (data->o.schema == RA_SCHEMA_NONE) {
            ra_err err = ra_schema_detect(&data->o, i, &data->origin[i].schema, &data->origin[i].columns);
            if (err != RA_OK) {
                ra_buf_free(&names);
                return err;
            }
        }
        ra_schema_kind kind = data->origin[i].schema;
        bool new = kind != RA_SCHEMA_NONE;
        for (int k = 0; k < i; k++) new = new && data->origin[k].schema != kind;
        if (new) ra_buf_addf(&names, "%s%s", any ? ", " : "", ra_schema_kind_name(kind));
        any |= kind != RA_SCHEMA_NONE;
    }
    if (!any) return ra_fail(RA_ERR_DATA, "%s: no rows in the %s", data->o.entry[0], data->o.files.n > 1 ? "files" : "file");
    data->schemas = names.data;
    return RA_OK;
}

ra_err ra_prefdata_open_options(ra_data_options *o, ra_prefdata **out)
{
    ra_prefdata *data = ra_calloc(1, sizeof *data);
    data->o = *o;
    data->origin = ra_calloc((size_t)o->n_entries, sizeof *data->origin);
    ra_err err = detect_all(data);
    *out = err == RA_OK ? data : NULL;
    if (err != RA_OK) ra_prefdata_close(data);
    return err;
}

void ra_prefdata_close(ra_prefdata *data)
{
    if (!data) return;
    ra_rowtext_close(data->text);
    json_decref(data->source);
    ra_row_space_free(&data->space);
    ra_buf_free(&data->hashed);
    ra_buf_free(&data->place);
    for (int i = 0; i < RA_DATA_FIRST; i++) {
        free((char *)(uintptr_t)data->counts.why_malformed[i]);
        free((char *)(uintptr_t)data->counts.why_skipped[i]);
    }
    ra_data_options_free(&data->o);
    free(data->schemas);
    ra_free(data->duplicate);
    ra_free(data->origin);
    ra_free(data);
}

void ra_prefdata_set_limits(ra_prefdata *data, int64_t max_rows, int64_t max_row_bytes)
{
    if (max_rows > 0) data->o.max_rows = max_rows;
    if (max_row_bytes > 0) data->o.row_limit = max_row_bytes;
}

/* ---- the next row ---- */
static void close_file(ra_prefdata *data)
{
    ra_rowtext_close(data->text);
    data->text = NULL;
    data->current++;
}

/* The next row's text of the next file that has one. An entry ends at its cap. */
static ra_err next_text(ra_prefdata *data, ra_row_bytes *text, bool *more)
{
    for (*more = false;;) {
        if (data->current == data->o.files.n || data->next_id >= data->o.max_rows) return RA_OK;
        const ra_data_file *file = &data->o.files.file[data->current];
        if (data->origin[file->origin].drawn >= data->o.cap[file->origin]) {
            close_file(data);
            continue;
        }
        if (!data->text) RA_TRY(ra_rowtext_open(file->path, data->o.row_limit, &data->text));
        data->is_array = ra_rowtext_is_array(data->text);
        ra_err err = ra_rowtext_next(data->text, text, more);
        if (err != RA_OK) return data->next_id ? ra_fail_in(err, "after row %lld", (long long)data->next_id) : err;
        if (*more) return RA_OK;
        close_file(data);
    }
}

/* Drawn by the seed and the row's number in its own entry, so that an entry before it changes nothing. */
static bool is_drawn(const ra_prefdata *data, int entry, int64_t row)
{
    double weight = data->o.weight[entry];
    if (weight >= 1) return true;
    ra_rng rng = ra_rng_make(data->o.seed, RA_STREAM_DRAW);
    rng.counter = (uint64_t)entry << 44 ^ (uint64_t)row;
    return ra_rng_uniform(&rng) < weight;
}

static bool is_duplicate(const ra_prefdata *data, int64_t id)
{
    return data->duplicate && id < data->duplicate_rows && (data->duplicate[id / 8] >> id % 8 & 1);
}

static bool same_text(const char *a, const char *b)
{
    static const char space[] = " \t\r\n\v\f";
    a += strspn(a, space), b += strspn(b, space);
    size_t n = strlen(a), m = strlen(b);
    while (n && strchr(space, a[n - 1])) n--;
    while (m && strchr(space, b[m - 1])) m--;
    return n == m && memcmp(a, b, n) == 0;
}

static ra_row_status read_row(ra_prefdata *data, const ra_row_bytes *text)
{
    ra_row *row = &data->row;
    if (text->too_long) {
        return ra_row_refuse(&data->space, row, RA_PROBLEM_MALFORMED, "longer than data.row_limit = %lld bytes",
                             (long long)data->o.row_limit);
    }
    data->source = ra_row_parse(text->text, text->length, &data->space.why);
    if (!data->source) {
        row->why = data->space.why.data;
        row->problem = RA_PROBLEM_MALFORMED;
        return RA_ROW_MALFORMED;
    }
    ra_schema_kind kind = data->origin[row->origin].schema;
    ra_row_status status = ra_schema_read(kind, data->o.prompts_only, data->origin[row->origin].columns, data->source,
                                          text->length, &data->space, row);
    if (status == RA_ROW_OK) ra_row_make_hashes(row, &data->hashed);
    row->identical = status == RA_ROW_OK && row->chosen && same_text(row->chosen, row->rejected);
    if (row->identical && data->o.identical != RA_KEEP_ROWS)
        status = ra_row_refuse(&data->space, row, RA_PROBLEM_IDENTICAL, "both responses are the same");
    if (status == RA_ROW_OK && is_duplicate(data, row->id))
        status = ra_row_refuse(&data->space, row, RA_PROBLEM_DUPLICATE, "prompt and responses of an earlier row");
    return status;
}

/* ---- counting, and the rows that end the run ---- */
static ra_err refuse_data(const ra_prefdata *data, const char *more)
{
    return ra_fail(RA_ERR_DATA, "%s:%lld: row %lld: %s; %s", data->row.file, (long long)data->row.line,
                   (long long)data->row.id + 1, data->row.why, more);
}

/* Where there are several files a row number alone is hard to find: file and line go before the reason. */
static void tell_place(ra_prefdata *data)
{
    if (data->o.files.n < 2 || data->row.problem == RA_PROBLEM_NOT_DRAWN) return;
    const char *slash = strrchr(data->row.file, '/');
    ra_buf_clear(&data->place);
    ra_buf_addf(&data->place, "%s:%lld: %s", slash ? slash + 1 : data->row.file, (long long)data->row.line, data->row.why);
    data->row.why = data->place.data;
}

static ra_err count(ra_prefdata *data, ra_row_status status)
{
    ra_data_counts *c = &data->counts;
    ra_row_problem problem = data->row.problem;
    c->problem[problem]++;
    if (status == RA_ROW_OK) {
        c->used++;
        return RA_OK;
    }
    bool bad = status == RA_ROW_MALFORMED;
    int64_t before = bad ? c->malformed++ : c->skipped++ - c->problem[RA_PROBLEM_NOT_DRAWN];
    if (bad && c->malformed > data->o.malformed_limit) {
        char *more = ra_format("malformed rows: %lld, more than data.malformed_limit = %lld", (long long)c->malformed,
                               (long long)data->o.malformed_limit);
        ra_err err = refuse_data(data, more);
        free(more);
        return err;
    }
    if (problem == RA_PROBLEM_EMPTY && data->o.empty == RA_REFUSE_ROWS)
        return refuse_data(data, "data.empty is error (drop leaves such rows out)");
    if (problem == RA_PROBLEM_IDENTICAL && data->o.identical == RA_REFUSE_ROWS)
        return refuse_data(data, "data.identical is error (drop leaves such rows out, keep uses them)");
    tell_place(data);
    if (problem == RA_PROBLEM_NOT_DRAWN || before >= RA_DATA_FIRST) return RA_OK;
    (bad ? c->first_malformed : c->first_skipped)[before] = data->row.id + 1;
    (bad ? c->why_malformed : c->why_skipped)[before] = ra_strdup(data->row.why);
    return RA_OK;
}

ra_err ra_prefdata_next(ra_prefdata *data, int rank, int ranks, int64_t block, const ra_row **row, ra_row_status *status,
                        bool *more)
{
    *row = NULL;
    *status = RA_ROW_OK;
    ra_row_bytes text;
    for (;;) {
        RA_TRY(next_text(data, &text, more));
        if (!*more) return RA_OK;
        int64_t id = data->next_id++;
        const ra_data_file *file = &data->o.files.file[data->current];
        bool drawn = is_drawn(data, file->origin, data->origin[file->origin].rows++);
        data->origin[file->origin].drawn += drawn;
        data->counts.rows++;
        if ((id / block) % ranks != rank) continue;
        json_decref(data->source);
        data->source = NULL;
        data->row = (ra_row){.id = id, .file = file->path, .line = text.line, .origin = file->origin};
        *status = drawn ? read_row(data, &text)
                        : ra_row_refuse(&data->space, &data->row, RA_PROBLEM_NOT_DRAWN, "left out by data.weights");
        *row = &data->row;
        return count(data, *status);
    }
}

/* ---- what a reader knows ---- */
const ra_data_counts *ra_prefdata_counts(const ra_prefdata *data)
{
    return &data->counts;
}

const char *ra_prefdata_schema(const ra_prefdata *data)
{
    return data->schemas;
}

const char *ra_prefdata_form(const ra_prefdata *data)
{
    return data->is_array ? "a JSON array" : "JSON Lines";
}

int ra_prefdata_origins(const ra_prefdata *data)
{
    return data->o.n_entries;
}

const char *ra_prefdata_origin(const ra_prefdata *data, int entry)
{
    return data->o.entry[entry];
}

void ra_prefdata_origin_rows(const ra_prefdata *data, int entry, int64_t *rows, int64_t *drawn)
{
    *rows = data->origin[entry].rows;
    *drawn = data->origin[entry].drawn;
}

/* ---- repeated rows ---- */
enum { ROUND = 256 };

/* One round of every rank: sets the bits of this rank's repeated rows. *more: some rank has rows left. */
static ra_err mark_round(ra_prefdata *data, const ra_comm *comm, ra_prefdata *pass, ra_duplicates *seen, int64_t *more_rows)
{
    ra_hash hash[ROUND];
    int64_t id[ROUND], first[ROUND];
    int n = 0, read = 0;
    bool more = true;
    ra_err err = RA_OK;
    while (read < ROUND && more && err == RA_OK) {
        const ra_row *row;
        ra_row_status status;
        err = ra_prefdata_next(pass, comm->rank, comm->size, ROUND, &row, &status, &more);
        if (err != RA_OK || !more) break;
        read++;
        if (status != RA_ROW_OK) continue;
        hash[n] = row->hash;
        id[n++] = row->id;
    }
    RA_TRY(ra_comm_agree(comm, err));
    ra_duplicates_add(seen, hash, id, n, first);
    for (int i = 0; i < n; i++) {
        if (first[i] == id[i]) continue;
        int64_t bytes = id[i] / 8 + 1, had = (data->duplicate_rows + 7) / 8;
        if (bytes > had) {
            uint8_t *grown = ra_calloc((size_t)bytes * 2, 1);
            if (had) memcpy(grown, data->duplicate, (size_t)had);
            ra_free(data->duplicate);
            data->duplicate = grown;
            data->duplicate_rows = bytes * 16;
        }
        data->duplicate[id[i] / 8] |= (uint8_t)(1u << id[i] % 8);
    }
    *more_rows = read;
    ra_comm_sum_i64(comm, more_rows, 1);
    return RA_OK;
}

/* Every rank gets every bit. */
static void share_bits(ra_prefdata *data, const ra_comm *comm, int64_t rows)
{
    size_t bytes = (size_t)(rows + 7) / 8, had = (size_t)(data->duplicate_rows + 7) / 8;
    uint8_t *all = ra_calloc(bytes + 1, 1);
    if (had) memcpy(all, data->duplicate, had < bytes ? had : bytes);
    enum { CHUNK = 1 << 24 };
    for (size_t at = 0; at < bytes; at += CHUNK) {
        int n = (int)(bytes - at < CHUNK ? bytes - at : CHUNK);
        RA_MPI(MPI_Allreduce(MPI_IN_PLACE, all + at, n, MPI_UINT8_T, MPI_BOR, comm->comm));
    }
    ra_free(data->duplicate);
    data->duplicate = all;
    data->duplicate_rows = rows;
}

ra_err ra_prefdata_find_duplicates(ra_prefdata *data, const ra_settings *s, const ra_comm *comm)
{
    if (strcmp(ra_set_text(s, "data.duplicates"), "drop") != 0) return RA_OK;
    ra_prefdata *pass = NULL;
    RA_TRY(ra_comm_agree(comm, ra_prefdata_open_settings(s, &pass)));
    ra_duplicates *seen = ra_duplicates_new(comm);
    ra_err err = RA_OK;
    for (int64_t left = 1; left > 0 && err == RA_OK;) err = mark_round(data, comm, pass, seen, &left);
    if (err == RA_OK) share_bits(data, comm, ra_prefdata_counts(pass)->rows);
    ra_duplicates_free(seen);
    ra_prefdata_close(pass);
    return err;
}
