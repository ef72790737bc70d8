/* Layout, time, provenance and settings. */
#include "page.h"

#include <realign/version.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BARS = 24 };

static void begin_fact(ra_page *p, const char *name)
{
    ra_buf_adds(p->out, "<tr>");
    ra_page_cell_text(p, name);
    ra_buf_adds(p->out, "<td>");
}

static void end_fact(ra_page *p)
{
    ra_buf_adds(p->out, "</td></tr>\n");
}

/* A row "name, value"; nothing where there is no value. */
static void add_fact(ra_page *p, const char *name, const char *value)
{
    if (!value || !*value) return;
    begin_fact(p, name);
    ra_html_text(p->out, value);
    end_fact(p);
}

static void add_setting(ra_page *p, const char *name, const char *key)
{
    char *value = ra_run_files_setting(p->run, key);
    add_fact(p, name, value);
    free(value);
}

/* ---- layout ---- */

static void add_layout(ra_page *p)
{
    const ra_run_files *r = p->run;
    ra_page_table(p, "Layout of the run.", "What|Value");
    for (int i = 0; i < r->provenances; i++) {
        const ra_provenance *v = &r->provenance[i], *last = i ? v - 1 : NULL;
        if (last && last->ranks == v->ranks && last->threads == v->threads) continue;
        char *name = ra_format("Ranks \u00d7 threads from %s on", v->file);
        begin_fact(p, i ? name : "Ranks \u00d7 threads a rank");
        ra_html_count(p->out, v->ranks);
        ra_buf_adds(p->out, " \u00d7 ");
        ra_html_count(p->out, v->threads);
        end_fact(p);
        free(name);
    }
    add_setting(p, "Backend asked for", "backend");
    add_setting(p, "Precision asked for", "precision");
    add_fact(p, "Precision of activations", r->weights.precision);
    add_setting(p, "Adapters (LoRA)", "lora.enabled");
    add_setting(p, "Tokens of a pack", "pack.tokens");
    add_setting(p, "Samples of a step", "train.batch");
    ra_page_table_end(p);
}

/* ---- timers ---- */

typedef struct {
    const char *stage, *timer;
    double calls, low, mean, high;
} timing;

/* Rows of the same stage and timer are added up: stages append to the file each time they run. */
static timing *read_timings(const ra_table *t, int64_t *n)
{
    timing *list = ra_calloc((size_t)t->rows, sizeof *list);
    double *calls = ra_table_reals(t, "calls"), *low = ra_table_reals(t, "min_s"), *mean = ra_table_reals(t, "mean_s"),
           *high = ra_table_reals(t, "max_s");
    *n = 0;
    for (int64_t i = 0; i < t->rows && calls && low && mean && high; i++) {
        const char *stage = ra_table_cell(t, i, "stage"), *timer = ra_table_cell(t, i, "timer");
        int64_t k = 0;
        while (k < *n && (strcmp(list[k].stage, stage) != 0 || strcmp(list[k].timer, timer) != 0)) k++;
        if (k == *n) list[(*n)++] = (timing){.stage = stage, .timer = timer};
        list[k].calls += calls[i];
        list[k].low += low[i];
        list[k].mean += mean[i];
        list[k].high += high[i];
    }
    ra_free(calls);
    ra_free(low);
    ra_free(mean);
    ra_free(high);
    return list;
}

static void add_time_bars(ra_page *p, const timing *list, int64_t n)
{
    int groups = (int)(n < MOST_BARS ? n : MOST_BARS);
    char **label = ra_calloc((size_t)groups, sizeof *label);
    ra_interval *value = ra_calloc((size_t)groups, sizeof *value);
    for (int i = 0; i < groups; i++) {
        label[i] = strcmp(list[i].stage, list[i].timer) == 0 ? ra_strdup(list[i].stage)
                                                             : ra_format("%s: %s", list[i].stage, list[i].timer);
        value[i] = (ra_interval){list[i].mean, list[i].low, list[i].high};
    }
    ra_page_figure(p, "wide");
    ra_plot_bars(p->out,
                 &(ra_plot){.title = "Wall-clock time",
                            .description = "Mean over ranks of each timer, error bars from the fastest to the slowest rank",
                            .x_label = "seconds, mean over ranks",
                            .width = 860.0,
                            .unit = "s",
                            .decimals = 2},
                 (const char *const *)label, groups, &(ra_bars){NULL, RA_COLOUR_BLUE, value}, 1);
    ra_page_caption(p);
    ra_buf_adds(p->out,
                "Time by stage and timer. Timers nest, so that a stage's own includes those below it. Error bars: fastest "
                "and slowest rank.");
    if (n > MOST_BARS) ra_buf_addf(p->out, " The first %d timers; all are in the table.", MOST_BARS);
    ra_page_figure_end(p);
    for (int i = 0; i < groups; i++) free(label[i]);
    ra_free(label);
    ra_free(value);
}

static void add_time_table(ra_page *p, const timing *list, int64_t n)
{
    ra_page_table(p, "Timers, seconds over ranks; added up where a stage ran more than once.",
                  "Stage|Timer|>Calls|>Min|>Mean|>Max|>Max / mean");
    for (int64_t i = 0; i < n; i++) {
        ra_buf_adds(p->out, "<tr>");
        ra_page_cell_text(p, list[i].stage);
        ra_page_cell_text(p, list[i].timer);
        ra_page_cell_real(p, list[i].calls, 9);
        const double seconds[] = {list[i].low, list[i].mean, list[i].high};
        for (int k = 0; k < 3; k++) ra_buf_addf(p->out, "<td class=\"n\">%.3f</td>", seconds[k]);
        if (list[i].mean > 0.0) {
            ra_buf_addf(p->out, "<td class=\"n\">%.2f</td>", list[i].high / list[i].mean);
        } else {
            ra_buf_adds(p->out, "<td class=\"n\">\u2013</td>");
        }
        ra_buf_adds(p->out, "</tr>\n");
    }
    ra_page_table_end(p);
}

void ra_page_timing(ra_page *p)
{
    ra_page_section(p, "time", "Layout and time");
    add_layout(p);
    if (p->run->why_timers) {
        ra_page_absent(p, p->run->why_timers);
    } else {
        int64_t n;
        timing *list = read_timings(&p->run->timers, &n);
        if (n > 0) {
            add_time_bars(p, list, n);
            add_time_table(p, list, n);
        } else {
            ra_page_absent(p, "timers.tsv holds no timer, or lacks one of the columns calls, min_s, mean_s, max_s.");
        }
        ra_free(list);
    }
    ra_page_section_end(p);
}

/* ---- provenance ---- */

static bool same(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

static void add_files(ra_page *p)
{
    const ra_run_files *r = p->run;
    if (r->provenances == 0) {
        ra_page_absent(p, "None of the run's HDF5 files is there to say what made it.");
        return;
    }
    ra_page_table(p, "What made each file.", "File|Version|Git|Host|Date");
    for (int i = 0; i < r->provenances; i++) {
        const ra_provenance *v = &r->provenance[i];
        const char *const cells[] = {v->file, v->version, v->git, v->host, v->date};
        ra_buf_adds(p->out, "<tr>");
        for (size_t k = 0; k < sizeof cells / sizeof cells[0]; k++) ra_page_cell_text(p, cells[k] ? cells[k] : "\u2013");
        ra_buf_adds(p->out, "</tr>\n");
    }
    ra_page_table_end(p);
    for (int i = 1; i < r->provenances; i++) {
        if (same(r->provenance[i].git, r->provenance[0].git)) continue;
        ra_buf_adds(p->out, "<p>The files were not all made by the same revision of the program.</p>\n");
        break;
    }
}

static void add_build_and_inputs(ra_page *p)
{
    const ra_run_files *r = p->run;
    ra_page_table(p, "Program, libraries and inputs. Hashes are of content.", "What|Value");
    if (r->provenances > 0) {
        const ra_provenance *v = &r->provenance[r->provenances - 1];
        add_fact(p, "Compiler", v->compiler);
        add_fact(p, "Flags", v->flags);
        add_fact(p, "Libraries", v->libraries);
    } else {
        add_fact(p, "Compiler (of this report)", ra_version_compiler());
        add_fact(p, "Libraries (of this report)", ra_version_libraries());
    }
    add_setting(p, "Model", "model");
    add_setting(p, "Preference data", "data.path");
    add_fact(p, "Data schema", r->triage.schema);
    add_fact(p, "Data hash", r->triage.data_hash);
    add_setting(p, "Policy", "policy");
    add_fact(p, "Policy hash", r->triage.oracle_hash);
    add_fact(p, "Sample store hash", r->store.content_hash);
    for (int64_t i = 0; i < r->store.n_depends_on; i++) add_fact(p, i ? "" : "Sample store made from", r->store.depends_on[i]);
    ra_page_table_end(p);
}

void ra_page_provenance(ra_page *p)
{
    const ra_run_files *r = p->run;
    ra_page_section(p, "provenance", "Provenance and settings");
    if (r->store.why) ra_page_absent(p, r->store.why);
    add_files(p);
    add_build_and_inputs(p);
    if (r->used) {
        ra_buf_adds(p->out, "<details>\n<summary>used.yaml: every setting, its value and where it came from</summary>\n<pre>");
        ra_html_text(p->out, r->used);
        ra_buf_adds(p->out, "</pre>\n</details>\n");
    } else {
        ra_page_absent(p, r->why_used);
    }
    ra_page_section_end(p);
}
