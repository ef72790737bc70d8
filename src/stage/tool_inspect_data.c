/* `realign inspect` of preference data: schema, usable rows and the reasons of the others, lengths, categories, three examples. */
#include "triage.h"

#include <realign/tools.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 24, EXAMPLES = 3, PROMPT = 0, CHOSEN, REJECTED, TEXTS, MOST_TURNS = 12 };

typedef struct {
    int64_t bucket[TEXTS][BUCKETS]; /* [k]: texts of 2^(k-1) to 2^k - 1 characters; [0]: none */
    int64_t longest[TEXTS], total[TEXTS];
    int64_t turns[MOST_TURNS + 1]; /* by messages of the prompt; the last one: so many or more */
    int64_t rows, corrections, same, without_category;
    ra_category_list categories;
    int64_t in_category[RA_MOST_CATEGORIES];
    char *keys;
    ra_buf examples;
} survey;

static int64_t characters(const char *text)
{
    int64_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80; /* rows are valid UTF-8 */
    return n;
}

static void add_length(survey *v, int which, int64_t n)
{
    int k = 0;
    while (k < BUCKETS - 1 && n >> k) k++;
    v->bucket[which][k]++;
    v->total[which] += n;
    if (n > v->longest[which]) v->longest[which] = n;
}

/* The text with line ends and control characters made visible, so that an example is one line. */
static void add_text(ra_buf *out, const char *label, const char *text)
{
    ra_buf_addf(out, "    %s: ", label);
    for (; *text; text++) {
        if (*text == '\n') {
            ra_buf_adds(out, "\\n");
        } else {
            ra_buf_addf(out, "%c", iscntrl((unsigned char)*text) ? ' ' : *text);
        }
    }
    ra_buf_adds(out, "\n");
}

static void add_example(survey *v, const ra_row *row, int64_t prompt, int64_t chosen, int64_t rejected, bool show_text)
{
    ra_buf_addf(&v->examples, "  row %lld: prompt of %d message%s, %lld characters; chosen %lld, rejected %lld%s%s%s\n",
                (long long)row->id + 1, row->n_prompt, row->n_prompt == 1 ? "" : "s", (long long)prompt, (long long)chosen,
                (long long)rejected, row->category ? "; category " : "", row->category ? row->category : "",
                row->correction ? "; with a correction" : "");
    if (!show_text) return;
    for (int i = 0; i < row->n_prompt; i++) add_text(&v->examples, row->prompt[i].role, row->prompt[i].content);
    add_text(&v->examples, "chosen", row->chosen);
    add_text(&v->examples, "rejected", row->rejected);
    if (row->correction) add_text(&v->examples, "correction", row->correction);
}

static char *join_keys(const json_t *row)
{
    ra_buf out = {0};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        ra_buf_addf(&out, "%s%.60s", out.length ? ", " : "", key);
    }
    return out.data;
}

static void look_at(survey *v, const ra_row *row, bool show_text)
{
    int64_t prompt = 0, chosen = characters(row->chosen), rejected = characters(row->rejected);
    for (int i = 0; i < row->n_prompt; i++) prompt += characters(row->prompt[i].content);
    add_length(v, PROMPT, prompt);
    add_length(v, CHOSEN, chosen);
    add_length(v, REJECTED, rejected);
    v->turns[row->n_prompt < MOST_TURNS ? row->n_prompt : MOST_TURNS]++;
    v->corrections += row->correction != NULL;
    v->same += strcmp(row->chosen, row->rejected) == 0;
    int16_t category = ra_category_index(&v->categories, row->category);
    if (category >= 0) v->in_category[category]++;
    v->without_category += row->category == NULL;
    if (v->rows++ < EXAMPLES) add_example(v, row, prompt, chosen, rejected, show_text);
    if (!v->keys) v->keys = join_keys(row->source);
}

static void print_reasons(const char *what, int64_t n, const int64_t *rows, const char *const *why)
{
    for (int i = 0; i < 16 && i < n; i++) printf("  row %lld is %s: %s\n", (long long)rows[i], what, why[i]);
    if (n > 16) printf("  and %lld more %s rows\n", (long long)n - 16, what);
}

static void print_lengths(const survey *v)
{
    printf("lengths in characters       prompt     chosen   rejected\n");
    int last = BUCKETS - 1;
    while (last > 0 && !v->bucket[PROMPT][last] && !v->bucket[CHOSEN][last] && !v->bucket[REJECTED][last]) last--;
    for (int k = 0; k <= last; k++) {
        if (!v->bucket[PROMPT][k] && !v->bucket[CHOSEN][k] && !v->bucket[REJECTED][k]) continue;
        if (k == BUCKETS - 1) {
            printf("  %8d and more  ", 1 << (k - 1));
        } else {
            printf("  %8d - %-8d", k ? 1 << (k - 1) : 0, k ? (1 << k) - 1 : 0);
        }
        for (int t = 0; t < TEXTS; t++) printf(" %10lld", (long long)v->bucket[t][k]);
        puts("");
    }
    printf("  mean               ");
    for (int t = 0; t < TEXTS; t++) printf(" %10.1f", v->rows ? (double)v->total[t] / (double)v->rows : 0.0);
    printf("\n  longest            ");
    for (int t = 0; t < TEXTS; t++) printf(" %10lld", (long long)v->longest[t]);
    printf("\nmessages of the prompt:");
    for (int k = 0; k <= MOST_TURNS; k++) {
        if (v->turns[k]) printf("  %d%s: %lld", k, k == MOST_TURNS ? " and more" : "", (long long)v->turns[k]);
    }
    puts("");
}

static void print_categories(const survey *v)
{
    if (v->categories.overflow) printf("categories: more than %d different texts; the column is not used\n", RA_MOST_CATEGORIES);
    if (v->categories.overflow || v->categories.n == 0) return;
    printf("categories:");
    for (int i = 0; i < v->categories.n; i++) {
        int k = v->categories.sorted[i];
        printf("%s %s %lld", i ? "," : "", v->categories.name[k], (long long)v->in_category[k]);
    }
    printf("; %lld rows without one\n", (long long)v->without_category);
}

static void print_survey(const char *path, const ra_prefdata *data, const survey *v, bool show_text)
{
    const ra_data_counts *c = ra_prefdata_counts(data);
    printf("%s: schema %s, %lld rows: %lld usable, %lld skipped, %lld malformed\n", path, ra_prefdata_schema(data),
           (long long)c->rows, (long long)c->used, (long long)c->skipped, (long long)c->malformed);
    print_reasons("malformed", c->malformed, c->first_malformed, c->why_malformed);
    print_reasons("skipped", c->skipped, c->first_skipped, c->why_skipped);
    if (!v->rows) return;
    printf("columns of the first usable row: %s\n", v->keys);
    print_lengths(v);
    print_categories(v);
    if (v->corrections) printf("rows with a correction: %lld\n", (long long)v->corrections);
    if (v->same) printf("rows whose responses are the same: %lld\n", (long long)v->same);
    printf("examples%s:\n%s", show_text ? "" : " (texts are hidden; --show-text prints them)", v->examples.data);
}

static ra_err inspect(const char *path, bool show_text)
{
    ra_prefdata *data;
    RA_TRY(ra_prefdata_open(&path, 1, "auto", INT64_MAX, &data));
    survey *v = ra_calloc(1, sizeof *v);
    ra_err err = RA_OK;
    for (bool more = true; err == RA_OK && more;) {
        const ra_row *row;
        ra_row_status status;
        err = ra_prefdata_next(data, 0, 1, 1, &row, &status, &more);
        if (err == RA_OK && more && status == RA_ROW_OK) look_at(v, row, show_text);
    }
    if (err == RA_OK) print_survey(path, data, v, show_text);
    ra_category_free(&v->categories);
    free(v->keys);
    ra_buf_free(&v->examples);
    ra_free(v);
    ra_prefdata_close(data);
    return err;
}

ra_err ra_inspect_data(const char *path)
{
    return inspect(path, false);
}

ra_err ra_inspect_data_text(const char *path)
{
    return inspect(path, true);
}
