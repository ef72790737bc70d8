/* corrections.h5: one row a Punish pair, and the tokens of the corrected ones. */
#include "corrections.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum { CELL_I8, CELL_I16, CELL_I32, CELL_I64, CELL_F32 } cell;

typedef struct {
    const char *name;
    cell cell;
    int64_t width; /* values a row; 1: a vector */
    size_t offset; /* in ra_correction_row */
    const char *description;
} column;

#define FIELD(member) offsetof(ra_correction_row, member)
static const column columns[] = {
    {"sample_id", CELL_I64, 1, FIELD(id), "global sample id of a Punish pair, ascending"},
    {"outcome", CELL_I8, 1, FIELD(outcome),
     "0 corrected; else why the pair falls back to eq. 2: 1 empty, 2 too long, 3 not compliant, 4 undecided, 5 the endpoint "
     "failed, 6 the "
     "row has no correction; of the last candidate"},
    {"attempts", CELL_I8, 1, FIELD(attempts), "candidates that were tried"},
    {"verdict", CELL_I8, 1, FIELD(verdict),
     "the oracle's verdict on the last candidate it saw: 1 compliant, 0 not, -1 undecided or none seen"},
    {"rule", CELL_I16, 1, FIELD(rule), "the rule that decided over it, an index into /rules; -1 none"},
    {"probability", CELL_F32, 1, FIELD(probability),
     "probability that it complies, as the oracle gave it; NaN where it saw none"},
    {"margin", CELL_F32, 1, FIELD(margin), "log-odds that it complies, before the threshold; 0 where the kind has none"},
    {"prompt_count", CELL_I32, 1, FIELD(prompt_count), "tokens that all responses have in common; 0 where the pair fell back"},
    {"cut", CELL_I32, 1, FIELD(cut), "tokens that data.truncate took away"},
    {"response_count", CELL_I32, RA_ROLES, FIELD(count), "tokens of the branches y_w, y_l, y_c"},
    {"response_skip", CELL_I32, RA_ROLES, FIELD(skip),
     "leading tokens of each branch that belong to the prompt and are never scored"},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static const size_t cell_size[] = {sizeof(int8_t), sizeof(int16_t), sizeof(int32_t), sizeof(int64_t), sizeof(float)};

static hid_t cell_type(cell c)
{
    const hid_t types[] = {H5T_NATIVE_INT8, H5T_NATIVE_INT16, H5T_NATIVE_INT32, H5T_NATIVE_INT64, H5T_NATIVE_FLOAT};
    return types[c];
}

/* ---- writing ---- */
static ra_err write_column(ra_h5 *file, const ra_corrections *c, const column *col)
{
    size_t size = cell_size[col->cell] * (size_t)col->width;
    char *values = ra_alloc((size_t)c->n, size);
    for (int64_t i = 0; i < c->n; i++) memcpy(values + (size_t)i * size, (const char *)&c->row[i] + col->offset, size);
    int64_t shape[2] = {c->n, col->width};
    ra_err err =
        ra_h5_write_all(file, col->name, cell_type(col->cell), col->width > 1 ? 2 : 1, shape, values, col->description, "1");
    ra_free(values);
    return err;
}

static ra_err write_rules(ra_h5 *file, const ra_oracle *oracle)
{
    int n = oracle ? ra_oracle_rule_count(oracle) : 0;
    const char **names = ra_calloc((size_t)n, sizeof *names);
    for (int i = 0; i < n; i++) names[i] = ra_oracle_rule_name(oracle, i);
    ra_err err = ra_h5_write_strings(file, "rules", names, n, "names of the policy's rules");
    ra_free(names);
    return err;
}

static ra_err write_attributes(ra_h5 *file, const ra_corrections_about *a, const ra_corrections *c)
{
    int64_t outcome[RA_CORRECTION_OUTCOMES] = {0};
    for (int64_t i = 0; i < c->n; i++) outcome[c->row[i].outcome]++;
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"key", (int64_t)a->key},
                  {"n_pairs", c->n},
                  {"n_corrected", outcome[RA_CORRECTION_USED]},
                  {"n_empty", outcome[RA_CORRECTION_EMPTY]},
                  {"n_too_long", outcome[RA_CORRECTION_TOO_LONG]},
                  {"n_not_compliant", outcome[RA_CORRECTION_REFUSED]},
                  {"n_undecided", outcome[RA_CORRECTION_UNDECIDED]},
                  {"n_endpoint_failed", outcome[RA_CORRECTION_FAILED]},
                  {"n_missing", outcome[RA_CORRECTION_MISSING]},
                  {"n_candidates", a->candidates},
                  {"n_judged", a->judged},
                  {"n_compliant", a->compliant}};
    RA_TRY(ra_h5_write_attr_text(file, "/", "source", a->source));
    RA_TRY(ra_h5_write_attr_text(file, "/", "corrector", a->corrector));
    RA_TRY(ra_h5_write_attr_text(file, "/", "depends_on", a->depends_on));
    RA_TRY(ra_h5_write_attr_text(file, "/", "oracle", a->oracle ? ra_oracle_kind(a->oracle) : "none"));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        RA_TRY(ra_h5_write_attr_i64(file, "/", counts[i].name, counts[i].value));
    return RA_OK;
}

static ra_err fill(ra_h5 *file, const ra_corrections_about *a, const ra_comm *comm, const ra_corrections *c)
{
    for (int i = 0; i < COLUMNS; i++) RA_TRY(write_column(file, c, &columns[i]));
    if (c->tokens > 0) {
        RA_TRY(ra_h5_write_all(file, "token", H5T_NATIVE_INT32, 1, &c->tokens, c->token,
                               "token ids of the corrected pairs, side by side in the order of the rows: prompt, y_w, y_l, y_c",
                               ""));
    }
    RA_TRY(write_rules(file, a->oracle));
    RA_TRY(write_attributes(file, a, c));
    return ra_h5_write_provenance(file, comm, a->used_yaml);
}

ra_err ra_corrections_write(const ra_corrections_about *about, const ra_comm *comm, const ra_corrections *c)
{
    char *path = ra_path_join(about->dir, "corrections.h5");
    ra_h5 *file = NULL;
    ra_err err = ra_h5_create(path, NULL, &file);
    free(path);
    if (err != RA_OK) return err;
    err = fill(file, about, comm, c);
    if (err == RA_OK) return ra_h5_commit(file);
    ra_h5_close(file);
    return err;
}

/* ---- reading ---- */
static ra_err read_column(ra_h5 *file, const char *path, ra_corrections *c, const column *col)
{
    int rank = 0;
    int64_t shape[4] = {0};
    RA_TRY(ra_h5_shape(file, col->name, &rank, shape));
    if (shape[0] != c->n || rank != (col->width > 1 ? 2 : 1) || (rank == 2 && shape[1] != col->width))
        return ra_fail(RA_ERR_FORMAT, "%s: '%s' has not %lld rows of %lld", path, col->name, (long long)c->n,
                       (long long)col->width);
    size_t size = cell_size[col->cell] * (size_t)col->width;
    char *values = ra_alloc((size_t)c->n, size);
    ra_err err = ra_h5_read(file, col->name, cell_type(col->cell), 0, -1, values);
    for (int64_t i = 0; i < c->n && err == RA_OK; i++) memcpy((char *)&c->row[i] + col->offset, values + (size_t)i * size, size);
    ra_free(values);
    return err;
}

/* The rows' counts must add up to the tokens: later code walks along them. */
static ra_err check_rows(const char *path, const ra_corrections *c)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < c->n; i++) {
        const ra_correction_row *row = &c->row[i];
        const char *problem =
            row->outcome < 0 || row->outcome >= RA_CORRECTION_OUTCOMES ? "its outcome is not a known one" : NULL;
        if (i > 0 && row->id <= c->row[i - 1].id) problem = "ids do not ascend";
        if (row->prompt_count < 0) problem = "a count is negative";
        for (int r = 0; r < RA_ROLES; r++) {
            if (row->count[r] < 0) problem = "a count is negative";
            if (row->outcome == RA_CORRECTION_USED) tokens += row->count[r];
        }
        if (row->outcome == RA_CORRECTION_USED) tokens += row->prompt_count;
        if (problem) return ra_fail(RA_ERR_FORMAT, "%s: row %lld: %s", path, (long long)i, problem);
    }
    if (tokens == c->tokens) return RA_OK;
    return ra_fail(RA_ERR_FORMAT, "%s: it holds %lld tokens, its rows ask for %lld", path, (long long)c->tokens,
                   (long long)tokens);
}

static ra_err read_all(ra_h5 *file, const char *path, ra_corrections *c, uint64_t *key)
{
    int rank = 0;
    int64_t shape[4] = {0}, stored;
    RA_TRY(ra_h5_verify_all(file));
    RA_TRY(ra_h5_read_attr_i64(file, "/", "key", &stored));
    *key = (uint64_t)stored;
    RA_TRY(ra_h5_shape(file, "sample_id", &rank, shape));
    c->n = shape[0];
    c->row = ra_realloc(NULL, (size_t)c->n, sizeof *c->row);
    memset(c->row, 0, (size_t)c->n * sizeof *c->row);
    for (int i = 0; i < COLUMNS; i++) RA_TRY(read_column(file, path, c, &columns[i]));
    if (ra_h5_has(file, "token")) {
        RA_TRY(ra_h5_shape(file, "token", &rank, shape));
        c->tokens = shape[0];
        c->token = ra_realloc(NULL, (size_t)c->tokens, sizeof *c->token);
        RA_TRY(ra_h5_read(file, "token", H5T_NATIVE_INT32, 0, -1, c->token));
    }
    return check_rows(path, c);
}

ra_err ra_corrections_read(const char *dir, ra_corrections *out, uint64_t *key)
{
    char *path = ra_path_join(dir, "corrections.h5");
    ra_h5 *file = NULL;
    *out = (ra_corrections){0};
    ra_err err = ra_file_exists(path) ? ra_h5_open(path, NULL, &file)
                                      : ra_fail(RA_ERR_IO,
                                                "%s is missing: run `realign correct` first, or `realign run` for all stages; "
                                                "correct.source=none does without corrections",
                                                path);
    if (err == RA_OK) err = read_all(file, path, out, key);
    ra_h5_close(file);
    free(path);
    if (err != RA_OK) ra_corrections_free(out);
    return err;
}

bool ra_corrections_are_current(const char *dir, const char *depends_on, ra_buf *why)
{
    char *path = ra_path_join(dir, "corrections.h5"), *rows = ra_path_join(dir, "corrections.jsonl"), *stored = NULL;
    ra_h5 *file = NULL;
    bool current = false;
    if (!ra_file_exists(path) || !ra_file_exists(rows)) {
        ra_buf_adds(why, "there is none yet");
    } else if (ra_h5_open(path, NULL, &file) != RA_OK || ra_h5_read_attr_text(file, "/", "depends_on", &stored) != RA_OK ||
               ra_h5_verify_all(file) != RA_OK) {
        ra_buf_adds(why, ra_error_message());
    } else if (strcmp(stored, depends_on) != 0) {
        ra_buf_addf(why, "it was made from %s; now it is %s", stored, depends_on);
    } else {
        current = true;
    }
    ra_h5_close(file);
    free(stored);
    free(path);
    free(rows);
    return current;
}
