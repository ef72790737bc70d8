/* What became of the Punish pairs: kept by each rank, brought together, counted. */
#include "correct.h"

#include <realign/mem.h>

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Before each result: what follows it. */
typedef struct {
    ra_correction_row row;
    int64_t tokens, line; /* ids, bytes */
} head;

/* ---- one rank ---- */
static json_t *line_of(const ra_correction_row *row, const ra_row *pair, const char *text, const char *source, const char *rule)
{
    bool judged = row->verdict >= 0;
    json_t *line = json_object();
    json_object_set_new(line, "id", json_integer(row->id));
    json_object_set_new(line, "outcome", json_string(ra_correction_outcome_name((ra_correction_outcome)row->outcome)));
    json_object_set_new(line, "source", json_string(source));
    json_object_set_new(line, "attempts", json_integer(row->attempts));
    json_object_set_new(line, "verdict", judged ? json_integer(row->verdict) : json_null());
    json_object_set_new(line, "probability", judged ? json_real((double)row->probability) : json_null());
    json_object_set_new(line, "rule", rule ? json_string(rule) : json_null());
    json_object_set_new(line, "category", pair->category ? json_string(pair->category) : json_null());
    json_object_set_new(line, "prompt", json_string(pair->prompt_text));
    json_object_set_new(line, "correction", text ? json_string(text) : json_null());
    return line;
}

static void add_tokens(ra_buf *out, const ra_sample *s)
{
    ra_buf_add(out, s->prompt, (size_t)s->prompt_count * sizeof *s->prompt);
    for (int r = 0; r < RA_ROLES; r++) ra_buf_add(out, s->response[r].token, (size_t)s->response[r].count * sizeof(int32_t));
}

void ra_correct_add(ra_correct_results *r, ra_correction_row *row, const ra_sample *sample, const ra_row *pair, const char *text,
                    const char *source, const char *rule)
{
    head h = {.row = *row};
    if (sample) {
        h.row.prompt_count = sample->prompt_count;
        h.row.cut = sample->cut;
        h.tokens = sample->prompt_count;
        for (int k = 0; k < RA_ROLES; k++) {
            h.row.count[k] = sample->response[k].count;
            h.row.skip[k] = sample->response[k].skip;
            h.tokens += sample->response[k].count;
        }
    }
    json_t *value = line_of(row, pair, text, source, rule);
    char *line = json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(value);
    h.line = (int64_t)strlen(line);
    ra_buf_add(&r->bytes, &h, sizeof h);
    if (sample) add_tokens(&r->bytes, sample);
    ra_buf_add(&r->bytes, line, strlen(line));
    free(line);
    r->counts.pairs++;
    r->counts.outcome[row->outcome]++;
}

/* ---- all ranks ---- */
/* Collective. Appends the bytes of all ranks on rank 0, in any size. */
static void collect(const ra_comm *comm, ra_buf *bytes)
{
    enum { TAG_SIZE = 91, TAG_BYTES = 92 };
    const int64_t most = INT_MAX / 2;
    int64_t size = (int64_t)bytes->length;
    if (comm->rank != 0) {
        RA_MPI(MPI_Send(&size, 1, MPI_INT64_T, 0, TAG_SIZE, comm->comm));
        for (int64_t at = 0; at < size; at += most)
            RA_MPI(MPI_Send(bytes->data + at, (int)(size - at < most ? size - at : most), MPI_BYTE, 0, TAG_BYTES, comm->comm));
        return;
    }
    for (int from = 1; from < comm->size; from++) {
        RA_MPI(MPI_Recv(&size, 1, MPI_INT64_T, from, TAG_SIZE, comm->comm, MPI_STATUS_IGNORE));
        ra_buf_reserve(bytes, (size_t)size);
        for (int64_t at = 0; at < size; at += most) {
            int n = (int)(size - at < most ? size - at : most);
            RA_MPI(MPI_Recv(bytes->data + bytes->length, n, MPI_BYTE, from, TAG_BYTES, comm->comm, MPI_STATUS_IGNORE));
            bytes->length += (size_t)n;
        }
    }
}

typedef struct {
    head h;
    const char *rest; /* tokens, then the line */
} result;

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const result *)a)->h.row.id, y = ((const result *)b)->h.row.id;
    return (x > y) - (x < y);
}

static result *parse(const ra_buf *bytes, int64_t *n)
{
    result *list = NULL;
    int64_t capacity = 0;
    *n = 0;
    for (size_t at = 0; at < bytes->length;) {
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            list = ra_realloc(list, (size_t)capacity, sizeof *list);
        }
        result *r = &list[(*n)++];
        memcpy(&r->h, bytes->data + at, sizeof r->h);
        r->rest = bytes->data + at + sizeof r->h;
        at += sizeof r->h + (size_t)r->h.tokens * sizeof(int32_t) + (size_t)r->h.line;
    }
    if (list) qsort(list, (size_t)*n, sizeof *list, by_id);
    return list;
}

void ra_correct_gather(const ra_comm *comm, ra_correct_results *mine, ra_corrections *out, ra_buf *lines)
{
    *out = (ra_corrections){0};
    collect(comm, &mine->bytes);
    if (comm->rank != 0) return;
    result *list = parse(&mine->bytes, &out->n);
    for (int64_t i = 0; i < out->n; i++) out->tokens += list[i].h.tokens;
    out->row = ra_realloc(NULL, (size_t)out->n + 1, sizeof *out->row);
    out->token = ra_realloc(NULL, (size_t)out->tokens + 1, sizeof *out->token);
    int32_t *token = out->token;
    for (int64_t i = 0; i < out->n; i++) {
        const head *h = &list[i].h;
        size_t bytes = (size_t)h->tokens * sizeof *token;
        out->row[i] = h->row;
        memcpy(token, list[i].rest, bytes);
        token += h->tokens;
        ra_buf_add(lines, list[i].rest + bytes, (size_t)h->line);
        ra_buf_adds(lines, "\n");
    }
    free(list);
}

void ra_correct_sum(const ra_comm *comm, ra_correct_counts *counts)
{
    ra_comm_sum_i64(comm, &counts->pairs, sizeof *counts / sizeof(int64_t));
}

void ra_correct_table(const ra_correct_counts *c, ra_buf *out)
{
    double of = c->pairs ? 100.0 / (double)c->pairs : 0.0;
    int64_t fell = c->pairs - c->outcome[RA_CORRECTION_USED];
    ra_buf_addf(out, "   %-28s %10lld\n", "Punish pairs", (long long)c->pairs);
    ra_buf_addf(out, "   %-28s %10lld  %5.1f %%\n", "corrected (eq. 2c)", (long long)c->outcome[RA_CORRECTION_USED],
                of * (double)c->outcome[RA_CORRECTION_USED]);
    ra_buf_addf(out, "   %-28s %10lld  %5.1f %%\n", "fall back to eq. 2", (long long)fell, of * (double)fell);
    for (int k = RA_CORRECTION_USED + 1; k < RA_CORRECTION_OUTCOMES; k++) {
        if (c->outcome[k] == 0) continue;
        ra_buf_addf(out, "      %-25s %10lld  %5.1f %%\n", ra_correction_outcome_name((ra_correction_outcome)k),
                    (long long)c->outcome[k], of * (double)c->outcome[k]);
    }
    ra_buf_addf(out, "   %-28s %10lld, %lld new, %lld judged", "candidates", (long long)c->candidates, (long long)c->asked,
                (long long)c->judged);
    int64_t told = c->judged - c->undecided;
    if (told > 0) ra_buf_addf(out, ", %.1f %% comply", 100.0 * (double)c->compliant / (double)told);
    ra_buf_adds(out, "\n");
}
