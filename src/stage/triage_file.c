/* triage.h5 and triage.jsonl: integers of all rows in global order, and the same for people and other programs. */
#include "triage.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/hash.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK_ROWS = 8192, TAG_LENGTH = 81, TAG_TEXT = 82 };

/* ---- triage.jsonl ---- */
/* Names as JSON strings, quotes included; index -1 is null. */
typedef struct {
    char **text;
    int n;
} quoted;

static char *quote(const char *text)
{
    json_t *value = json_string(text);
    char *out = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    return out ? out : ra_strdup("\"?\""); /* a name that is not UTF-8 */
}

static quoted quote_rules(const ra_oracle *oracle)
{
    quoted q = {.n = ra_oracle_rule_count(oracle)};
    q.text = ra_calloc((size_t)q.n, sizeof *q.text);
    for (int i = 0; i < q.n; i++) q.text[i] = quote(ra_oracle_rule_name(oracle, i));
    return q;
}

static quoted quote_categories(const ra_category_list *list)
{
    quoted q = {.n = list->n};
    q.text = ra_calloc((size_t)q.n, sizeof *q.text);
    for (int i = 0; i < q.n; i++) q.text[i] = quote(list->name[i]);
    return q;
}

static void free_quoted(quoted *q)
{
    for (int i = 0; i < q->n; i++) free(q->text[i]);
    ra_free(q->text);
}

static const char *name_of(const quoted *q, int index)
{
    return index >= 0 && index < q->n ? q->text[index] : "null";
}

static const char *verdict_text(int verdict)
{
    return verdict < 0 ? "null" : verdict ? "1" : "0";
}

static void add_line(ra_buf *out, int64_t id, const ra_triage_row *row, const quoted *rules, const quoted *categories)
{
    ra_buf_addf(out, "{\"id\":%" PRId64 ",\"c_w\":%s,\"c_l\":%s,\"action\":\"%s\",\"rule_w\":%s,\"rule_l\":%s,\"category\":%s}\n",
                id, verdict_text(row->c_w), verdict_text(row->c_l), ra_triage_word(row), name_of(rules, row->rule_w),
                name_of(rules, row->rule_l), name_of(categories, row->category));
}

static ra_err put(FILE *file, const char *path, const ra_buf *text)
{
    if (fwrite(text->data, 1, text->length, file) == text->length) return RA_OK;
    return ra_fail(RA_ERR_IO, "%s: write failed: %m", path);
}

/* Rank 0 writes the chunks of rank `from` as they come; a failure is kept, and what follows is received and thrown away. */
static ra_err receive_rows(const ra_comm *comm, int from, FILE *file, const char *path, ra_err err)
{
    ra_buf text = {0};
    for (;;) {
        int length;
        RA_MPI(MPI_Recv(&length, 1, MPI_INT, from, TAG_LENGTH, comm->comm, MPI_STATUS_IGNORE));
        if (length == 0) break;
        ra_buf_clear(&text);
        ra_buf_reserve(&text, (size_t)length);
        RA_MPI(MPI_Recv(text.data, length, MPI_CHAR, from, TAG_TEXT, comm->comm, MPI_STATUS_IGNORE));
        text.length = (size_t)length;
        if (err == RA_OK) err = put(file, path, &text);
    }
    ra_buf_free(&text);
    return err;
}

/* The chunks of this rank: rank 0 writes them, the others send them. */
static ra_err deliver_rows(const ra_triage_result *r, const ra_comm *comm, FILE *file, const char *path)
{
    quoted rules = quote_rules(r->oracle), categories = quote_categories(r->categories);
    ra_buf text = {0};
    ra_err err = RA_OK;
    for (int64_t at = 0; at < r->count; at += CHUNK_ROWS) {
        ra_buf_clear(&text);
        for (int64_t i = at; i < r->count && i < at + CHUNK_ROWS; i++)
            add_line(&text, r->first + i, &r->rows[i], &rules, &categories);
        if (comm->rank == 0) {
            if (err == RA_OK) err = put(file, path, &text);
            continue;
        }
        int length = (int)text.length;
        RA_MPI(MPI_Send(&length, 1, MPI_INT, 0, TAG_LENGTH, comm->comm));
        RA_MPI(MPI_Send(text.data, length, MPI_CHAR, 0, TAG_TEXT, comm->comm));
    }
    int end = 0;
    if (comm->rank != 0) RA_MPI(MPI_Send(&end, 1, MPI_INT, 0, TAG_LENGTH, comm->comm));
    ra_buf_free(&text);
    free_quoted(&rules);
    free_quoted(&categories);
    return err;
}

static ra_err write_jsonl(const ra_triage_result *r, const ra_comm *comm)
{
    if (comm->rank != 0) {
        deliver_rows(r, comm, NULL, NULL);
        return ra_comm_agree(comm, RA_OK);
    }
    char *path = ra_path_join(r->dir, "triage.jsonl"), *part = ra_format("%s.part", path);
    FILE *file = fopen(part, "wb");
    ra_err err = file ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", part);
    if (file) err = deliver_rows(r, comm, file, part);
    for (int from = 1; from < comm->size; from++) err = receive_rows(comm, from, file, part, err);
    if (file) {
        bool flushed = fflush(file) == 0 && fsync(fileno(file)) == 0;
        if (err == RA_OK && !flushed) err = ra_fail(RA_ERR_IO, "%s: write failed: %m", part);
        if (fclose(file) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "%s: write failed: %m", part);
    }
    if (err == RA_OK && rename(part, path) != 0) err = ra_fail(RA_ERR_IO, "cannot rename %s to %s: %m", part, path);
    if (err != RA_OK) unlink(part);
    free(path);
    free(part);
    return ra_comm_agree(comm, err);
}

/* ---- triage.h5 ---- */
typedef enum { CELL_ID, CELL_I8, CELL_I16, CELL_F32 } cell;

typedef struct {
    const char *name;
    cell cell;
    size_t offset; /* in ra_triage_row */
    const char *description;
} column;

#define FIELD(member) offsetof(ra_triage_row, member)
static const column columns[] = {
    {"/sample_id", CELL_ID, 0, "global sample id: the row's number in the data, from 0"},
    {"/c_w", CELL_I8, FIELD(c_w), "verdict on the preferred response y_w: 1 compliant, 0 not, -1 not judged or undecided"},
    {"/c_l", CELL_I8, FIELD(c_l), "verdict on the other response y_l: 1 compliant, 0 not, -1 not judged or undecided"},
    {"/action", CELL_I8, FIELD(action), "0 invert, 1 punish, 2 retain, -1 the row is not used"},
    {"/status", CELL_I8, FIELD(state), "0 used, 1 skipped, 2 malformed, 3 held out, 4 undecided"},
    {"/rule_w", CELL_I16, FIELD(rule_w), "the rule that decided over y_w, an index into /rules; -1 none"},
    {"/rule_l", CELL_I16, FIELD(rule_l), "the rule that decided over y_l, an index into /rules; -1 none"},
    {"/category", CELL_I16, FIELD(category), "the row's category, an index into /categories; -1 none"},
};

/* Of oracles whose kind has them. */
static const column graded_columns[] = {
    {"/probability_w", CELL_F32, FIELD(probability_w), "probability that y_w complies, as the oracle gave it"},
    {"/probability_l", CELL_F32, FIELD(probability_l), "probability that y_l complies, as the oracle gave it"},
    {"/margin_w", CELL_F32, FIELD(margin_w), "log-odds that y_w complies, before the threshold; 0 where the kind has none"},
    {"/margin_l", CELL_F32, FIELD(margin_l), "log-odds that y_l complies, before the threshold; 0 where the kind has none"},
};

static ra_err write_column(ra_h5 *file, const ra_triage_result *r, const column *c)
{
    static const size_t sizes[] = {sizeof(int64_t), sizeof(int8_t), sizeof(int16_t), sizeof(float)};
    const hid_t types[] = {H5T_NATIVE_INT64, H5T_NATIVE_INT8, H5T_NATIVE_INT16, H5T_NATIVE_FLOAT};
    size_t size = sizes[c->cell];
    char *values = ra_alloc((size_t)r->count, size);
    for (int64_t i = 0; i < r->count; i++) {
        int64_t id = r->first + i;
        memcpy(values + (size_t)i * size, c->cell == CELL_ID ? (const char *)&id : (const char *)&r->rows[i] + c->offset, size);
    }
    ra_err err = ra_h5_write(file, c->name, types[c->cell], 1, &r->total, r->first, r->count, values, c->description, "1");
    ra_free(values);
    return err;
}

static ra_err write_names(ra_h5 *file, const ra_triage_result *r)
{
    int n = ra_oracle_rule_count(r->oracle);
    const char **names = ra_calloc((size_t)n, sizeof *names);
    for (int i = 0; i < n; i++) names[i] = ra_oracle_rule_name(r->oracle, i);
    ra_err err = ra_h5_write_strings(file, "/rules", names, n, "names of the policy's rules, in file order");
    ra_free(names);
    if (err != RA_OK) return err;
    return ra_h5_write_strings(file, "/categories", (const char *const *)r->categories->name, r->categories->n,
                               "categories of the data, in order of their names");
}

static ra_err write_attributes(ra_h5 *file, const ra_triage_result *r)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, ra_oracle_hash(r->oracle));
    const struct {
        const char *name, *value;
    } texts[] = {{"policy", ra_oracle_policy(r->oracle)->name},
                 {"oracle", ra_oracle_kind(r->oracle)},
                 {"oracle_hash", hash},
                 {"data_hash", r->data_hash},
                 {"schema", r->schema},
                 {"depends_on", r->key}};
    const ra_triage_counts *c = r->counts;
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"n_rows", r->total},
                  {"n_invert", c->all.action[RA_ACTION_INVERT]},
                  {"n_punish", c->all.action[RA_ACTION_PUNISH]},
                  {"n_retain", c->all.action[RA_ACTION_RETAIN]},
                  {"n_skipped", c->state[RA_TRIAGE_SKIPPED]},
                  {"n_malformed", c->state[RA_TRIAGE_MALFORMED]},
                  {"n_held_out", c->state[RA_TRIAGE_HELD_OUT]},
                  {"n_undecided", c->state[RA_TRIAGE_UNDECIDED]},
                  {"n_judged_w", c->all.judged[0]},
                  {"n_judged_l", c->all.judged[1]},
                  {"n_compliant_w", c->all.yes[0]},
                  {"n_compliant_l", c->all.yes[1]},
                  {"n_turned_by_noise", c->flipped}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        RA_TRY(ra_h5_write_attr_text(file, "/", texts[i].name, texts[i].value));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        RA_TRY(ra_h5_write_attr_i64(file, "/", counts[i].name, counts[i].value));
    RA_TRY(ra_h5_write_attr_f64(file, "/", "oracle_noise", r->noise));
    return ra_oracle_has_probability(r->oracle) ? ra_h5_write_attr_f64(file, "/", "oracle_threshold", r->threshold) : RA_OK;
}

static ra_err fill_h5(ra_h5 *file, const ra_triage_result *r, const ra_comm *comm)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) RA_TRY(write_column(file, r, &columns[i]));
    size_t graded = ra_oracle_has_probability(r->oracle) ? sizeof graded_columns / sizeof *graded_columns : 0;
    for (size_t i = 0; i < graded; i++) RA_TRY(write_column(file, r, &graded_columns[i]));
    if (ra_oracle_member_count(r->oracle) > 1) RA_TRY(ra_triage_agreement_write(file, r->agreement, r->oracle));
    RA_TRY(write_names(file, r));
    RA_TRY(write_attributes(file, r));
    return ra_h5_write_provenance(file, comm, r->used_yaml);
}

static ra_err write_h5(const ra_triage_result *r, const ra_comm *comm)
{
    char *path = ra_path_join(r->dir, "triage.h5");
    ra_h5 *file = NULL;
    ra_err err = ra_h5_create(path, comm, &file);
    free(path);
    if (err != RA_OK) return err;
    err = fill_h5(file, r, comm);
    if (err == RA_OK) return ra_h5_commit(file);
    ra_h5_close(file);
    return err;
}

ra_err ra_triage_write(const ra_triage_result *result, const ra_comm *comm)
{
    RA_TRY(write_jsonl(result, comm));
    return write_h5(result, comm); /* last: its presence says that both are complete */
}

bool ra_triage_is_current(const char *dir, const char *key, ra_buf *why)
{
    char *path = ra_path_join(dir, "triage.h5"), *rows = ra_path_join(dir, "triage.jsonl"), *stored = NULL;
    ra_h5 *file = NULL;
    bool current = false;
    if (!ra_file_exists(path) || !ra_file_exists(rows)) {
        ra_buf_adds(why, "there is none yet");
    } else if (ra_h5_open(path, NULL, &file) != RA_OK || ra_h5_read_attr_text(file, "/", "depends_on", &stored) != RA_OK ||
               ra_h5_verify_all(file) != RA_OK) {
        ra_buf_adds(why, ra_error_message());
    } else if (strcmp(stored, key) != 0) {
        ra_buf_addf(why, "it was made from %s; now it is %s", stored, key);
    } else {
        current = true;
    }
    ra_h5_close(file);
    free(stored);
    free(path);
    free(rows);
    return current;
}
