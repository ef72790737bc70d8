#include "inspect_survey.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXAMPLES = 3, REASONS = 3 };

void ra_survey_begin(ra_survey *v, int n_origins)
{
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    *v = (ra_survey){.usable_of = ra_calloc((size_t)n_origins, sizeof *v->usable_of)};
    v->seen = ra_duplicates_new(&alone);
    v->seen_prompts = ra_duplicates_new(&alone);
}

static void free_rows(ra_survey_rows *rows)
{
    for (int i = 0; i < RA_SURVEY_SHOWN; i++) free(rows->why[i]);
}

void ra_survey_free(ra_survey *v)
{
    for (int p = 0; p < RA_PROBLEMS; p++) free_rows(&v->problem[p]);
    free_rows(&v->identical);
    free_rows(&v->repeated);
    ra_category_free(&v->categories);
    ra_buf_free(&v->examples);
    ra_duplicates_free(v->seen);
    ra_duplicates_free(v->seen_prompts);
    ra_free(v->usable_of);
    free(v->keys);
}

/* ---- adding ---- */
static int64_t characters(const char *text)
{
    int64_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80; /* rows are valid UTF-8 */
    return n;
}

static void add_lengths(ra_lengths *l, const int64_t n[RA_TEXTS])
{
    l->rows++;
    for (int t = 0; t < RA_TEXTS; t++) {
        int k = 0;
        while (k < RA_SURVEY_BUCKETS - 1 && n[t] >> k) k++;
        l->bucket[t][k]++;
        l->total[t] += n[t];
        if (n[t] > l->longest[t]) l->longest[t] = n[t];
    }
}

static void note(ra_survey_rows *rows, int64_t id, const char *why)
{
    if (rows->n < RA_SURVEY_SHOWN) {
        rows->row[rows->n] = id + 1;
        rows->why[rows->n] = why ? ra_strdup(why) : NULL;
    }
    rows->n++;
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

static void add_example(ra_survey *v, const ra_row *row, const int64_t n[RA_TEXTS])
{
    ra_buf_addf(&v->examples, "  row %lld: prompt of %d message%s, %lld characters; chosen %lld, rejected %lld%s%s%s\n",
                (long long)row->id + 1, row->n_prompt, row->n_prompt == 1 ? "" : "s", (long long)n[RA_TEXT_PROMPT],
                (long long)n[RA_TEXT_CHOSEN], (long long)n[RA_TEXT_REJECTED], row->category ? "; category " : "",
                row->category ? row->category : "", row->correction ? "; with a correction" : "");
    if (!v->show_text) return;
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

/* Which of the waiting rows repeat an earlier one. */
static void look_up(ra_survey *v)
{
    int64_t first[RA_SURVEY_BATCH];
    ra_duplicates_add(v->seen, v->hash, v->id, v->waiting, first);
    for (int i = 0; i < v->waiting; i++) {
        if (first[i] != v->id[i]) note(&v->repeated, v->id[i], NULL);
    }
    ra_duplicates_add(v->seen_prompts, v->prompt, v->id, v->waiting, first);
    for (int i = 0; i < v->waiting; i++) {
        bool is_new = first[i] == v->id[i];
        v->prompts += is_new;
        v->held_out_prompts += is_new && v->is_held_out[i];
    }
    v->waiting = 0;
}

static void add_usable(ra_survey *v, const ra_row *row, bool held_out, const ra_sample *sample)
{
    int64_t n[RA_TEXTS] = {0, characters(row->chosen), characters(row->rejected)};
    for (int i = 0; i < row->n_prompt; i++) n[RA_TEXT_PROMPT] += characters(row->prompt[i].content);
    add_lengths(&v->characters, n);
    if (sample && sample->state == RA_SAMPLE_OK) {
        const int64_t tokens[RA_TEXTS] = {sample->prompt_count, sample->response[RA_CHOSEN].count,
                                          sample->response[RA_REJECTED].count};
        add_lengths(&v->tokens, tokens);
    }
    v->turns[row->n_prompt < RA_SURVEY_TURNS ? row->n_prompt : RA_SURVEY_TURNS]++;
    v->corrections += row->correction != NULL;
    v->held_out += held_out;
    v->usable_of[row->origin]++;
    if (row->identical) note(&v->identical, row->id, NULL);
    int16_t category = ra_category_index(&v->categories, row->category);
    if (category >= 0) v->in_category[category]++;
    v->without_category += row->category == NULL;
    if (v->rows++ < EXAMPLES) add_example(v, row, n);
    if (!v->keys) v->keys = join_keys(row->source);
    v->hash[v->waiting] = row->hash;
    v->prompt[v->waiting] = (ra_hash){row->prompt_hash, row->prompt_hash};
    v->is_held_out[v->waiting] = held_out;
    v->id[v->waiting++] = row->id;
    if (v->waiting == RA_SURVEY_BATCH) look_up(v);
}

void ra_survey_add(ra_survey *v, const ra_row *row, ra_row_status status, bool held_out, const ra_sample *sample)
{
    if (status == RA_ROW_OK) {
        add_usable(v, row, held_out, sample);
        return;
    }
    note(&v->problem[row->problem], row->id, row->why);
    if (row->problem != RA_PROBLEM_UNPAIRED) return;
    v->good += row->chosen && !row->rejected;
    v->bad += row->rejected && !row->chosen;
}

/* ---- printing ---- */
static void print_rows(const char *name, const ra_survey_rows *rows, const char *more)
{
    if (rows->n == 0) return;
    printf("  %-18s %10lld   rows", name, (long long)rows->n);
    for (int i = 0; i < RA_SURVEY_SHOWN && i < rows->n; i++) printf("%s%lld", i ? ", " : " ", (long long)rows->row[i]);
    printf("%s%s\n", rows->n > RA_SURVEY_SHOWN ? " ..." : "", more);
    for (int i = 0; i < REASONS && i < rows->n && rows->why[i]; i++)
        printf("      row %lld: %s\n", (long long)rows->row[i], rows->why[i]);
}

static void print_problems(const ra_survey *v)
{
    int64_t n = v->identical.n + v->repeated.n;
    for (int p = RA_PROBLEM_NONE + 1; p < RA_PROBLEMS; p++) n += v->problem[p].n;
    puts(n ? "problems" : "problems: none");
    for (int p = RA_PROBLEM_NONE + 1; p < RA_PROBLEMS; p++)
        print_rows(ra_row_problem_name((ra_row_problem)p), &v->problem[p], "");
    print_rows("identical, kept", &v->identical, "   (data.identical)");
    print_rows("repeated, kept", &v->repeated, "   (data.duplicates)");
    if (v->good + v->bad) printf("labelled single responses: %lld good, %lld bad\n", (long long)v->good, (long long)v->bad);
}

static void print_lengths(const ra_lengths *l, const char *unit)
{
    if (!l->rows) return;
    printf("lengths in %-16s prompt     chosen   rejected\n", unit);
    for (int k = 0; k < RA_SURVEY_BUCKETS; k++) {
        if (!l->bucket[RA_TEXT_PROMPT][k] && !l->bucket[RA_TEXT_CHOSEN][k] && !l->bucket[RA_TEXT_REJECTED][k]) continue;
        if (k == RA_SURVEY_BUCKETS - 1) {
            printf("  %8d and more  ", 1 << (k - 1));
        } else {
            printf("  %8d - %-8d", k ? 1 << (k - 1) : 0, k ? (1 << k) - 1 : 0);
        }
        for (int t = 0; t < RA_TEXTS; t++) printf(" %10lld", (long long)l->bucket[t][k]);
        puts("");
    }
    printf("  mean               ");
    for (int t = 0; t < RA_TEXTS; t++) printf(" %10.1f", (double)l->total[t] / (double)l->rows);
    printf("\n  longest            ");
    for (int t = 0; t < RA_TEXTS; t++) printf(" %10lld", (long long)l->longest[t]);
    puts("");
}

static void print_turns(const ra_survey *v)
{
    printf("messages of the prompt:");
    for (int k = 0; k <= RA_SURVEY_TURNS; k++) {
        if (v->turns[k]) printf("  %d%s: %lld", k, k == RA_SURVEY_TURNS ? " and more" : "", (long long)v->turns[k]);
    }
    puts("");
}

static void print_categories(const ra_survey *v)
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

static void print_sources(const ra_survey *v, const ra_prefdata *data)
{
    int n = ra_prefdata_origins(data);
    if (n < 2) return;
    puts("sources                                            rows      drawn     usable");
    for (int i = 0; i < n; i++) {
        int64_t rows, drawn;
        ra_prefdata_origin_rows(data, i, &rows, &drawn);
        printf("  %-42s %10lld %10lld %10lld\n", ra_prefdata_origin(data, i), (long long)rows, (long long)drawn,
               (long long)v->usable_of[i]);
    }
}

void ra_survey_print(ra_survey *v, const char *name, const ra_prefdata *data)
{
    look_up(v);
    const ra_data_counts *c = ra_prefdata_counts(data);
    printf("%s: %s, schema %s, %lld rows: %lld usable, %lld skipped, %lld malformed\n", name, ra_prefdata_form(data),
           ra_prefdata_schema(data), (long long)c->rows, (long long)c->used, (long long)c->skipped, (long long)c->malformed);
    print_sources(v, data);
    print_problems(v);
    if (!v->rows) return;
    printf("columns of the first usable row: %s\n", v->keys);
    print_lengths(&v->characters, "characters");
    print_lengths(&v->tokens, "tokens");
    print_turns(v);
    print_categories(v);
    if (v->corrections) printf("rows with a correction: %lld\n", (long long)v->corrections);
    printf("different prompts: %lld; data.held_out = %g would keep %lld of them away from training, %lld rows\n",
           (long long)v->prompts, v->held_out_share, (long long)v->held_out_prompts, (long long)v->held_out);
    printf("examples%s:\n%s", v->show_text ? "" : " (texts are hidden; --show-text prints them)", v->examples.data);
}
