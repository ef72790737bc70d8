/* Target policy agreement, drift, and texts. */
#include "page.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_GROUPS = 30 };

static const char *const side_name[RA_SIDES] = {"Before", "After"};
static const ra_colour side_colour[RA_SIDES] = {RA_COLOUR_GREY, RA_COLOUR_BLUE};

/* ---- agreement ---- */

static ra_interval in_percent(ra_interval v)
{
    return (ra_interval){100.0 * v.value, 100.0 * v.low, 100.0 * v.high};
}

/* All prompts first, then the categories. */
static void add_agreement_bars(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    int groups = 1 + (int)(e->n_categories < MOST_GROUPS ? e->n_categories : MOST_GROUPS), sides = 1 + e->trained;
    const char **label = ra_calloc((size_t)groups, sizeof *label);
    ra_interval *value = ra_calloc((size_t)groups * RA_SIDES, sizeof *value);
    ra_bars bars[RA_SIDES];
    for (int side = 0; side < sides; side++) {
        for (int g = 0; g < groups; g++) {
            label[g] = g == 0 ? "All prompts" : e->categories[g - 1];
            value[side * groups + g] = in_percent(g == 0 ? e->all.tpa[side] : e->category[g - 1].tpa[side]);
        }
        bars[side] = (ra_bars){side_name[side], side_colour[side], value + side * groups};
    }
    ra_plot_bars(p->out,
                 &(ra_plot){.title = "Target policy agreement",
                            .description = "Share of answers that the new policy's oracle calls compliant, with 95 % intervals",
                            .x_label = "compliant answers, %",
                            .low = 0.0,
                            .high = 100.0,
                            .unit = "%",
                            .decimals = 1},
                 label, groups, bars, sides);
    ra_free(label);
    ra_free(value);
}

static void add_violation_bars(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    int groups = (int)(e->n_rules < MOST_GROUPS ? e->n_rules : MOST_GROUPS), sides = 1 + e->trained;
    if (groups == 0) return;
    ra_interval *value = ra_calloc((size_t)groups * RA_SIDES, sizeof *value);
    ra_bars bars[RA_SIDES];
    for (int side = 0; side < sides; side++) {
        int64_t judged = isfinite(e->all.judged[side]) ? (int64_t)e->all.judged[side] : 0;
        for (int g = 0; g < groups; g++)
            value[side * groups + g] = in_percent(ra_interval_share(e->violations[g * RA_SIDES + side], judged));
        bars[side] = (ra_bars){side_name[side], side_colour[side], value + side * groups};
    }
    ra_plot_bars(
        p->out,
        &(ra_plot){.title = "Answers that a rule decided against",
                   .description = "Share of answers for which each rule was the one that was broken, with 95 % intervals",
                   .x_label = "answers, %",
                   .unit = "%",
                   .decimals = 1},
        (const char *const *)e->rules, groups, bars, sides);
    ra_free(value);
}

static void add_agreement_row(ra_page *p, const char *name, const ra_agreement *a, bool sum)
{
    bool trained = p->run->evaluation.trained;
    ra_buf *out = p->out;
    ra_buf_adds(out, sum ? "<tr class=\"sum\">" : "<tr>");
    ra_page_cell_text(p, name);
    ra_page_cell_count(p, isfinite(a->judged[RA_BEFORE]) ? (int64_t)a->judged[RA_BEFORE] : 0);
    for (int side = 0; side < 1 + trained; side++) {
        ra_page_cell_percent(p, a->tpa[side].value);
        ra_buf_adds(out, "<td class=\"n\">");
        ra_page_bounds(out, &a->tpa[side]);
        ra_buf_adds(out, "</td>");
    }
    if (trained) {
        ra_buf_adds(out, "<td class=\"n\">");
        ra_page_points(out, a->change.value);
        ra_buf_adds(out, "</td><td class=\"n\">[");
        ra_page_points(out, a->change.low);
        ra_buf_adds(out, ", ");
        ra_page_points(out, a->change.high);
        ra_buf_adds(out, "]</td>");
        ra_page_cell_real(p, a->p, 2);
    }
    ra_buf_adds(out, "</tr>\n");
}

static void add_agreement_table(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    ra_page_table(p,
                  e->trained
                      ? "Agreement before and after. Intervals are 95 %: Wilson's of each share, a paired bootstrap of the "
                        "change; p: McNemar's exact test. No correction for several categories."
                      : "Agreement of the model before training, with Wilson's 95 % interval.",
                  e->trained ? "Prompts|>n|>Before|>interval, %|>After|>interval, %|>Change, points|>interval|>p"
                             : "Prompts|>n|>Before|>interval, %");
    add_agreement_row(p, "All", &e->all, true);
    for (int64_t i = 0; i < e->n_categories; i++) add_agreement_row(p, e->categories[i], &e->category[i], false);
    ra_page_table_end(p);
}

static void add_cost(ra_page *p, const char *name, double value, int digits, const char *unit)
{
    if (!isfinite(value)) return;
    ra_buf_adds(p->out, "<tr>");
    ra_page_cell_text(p, name);
    ra_page_cell_real(p, value, digits);
    ra_page_cell_text(p, unit);
    ra_buf_adds(p->out, "</tr>\n");
}

static void add_cost_count(ra_page *p, const char *name, int64_t value, const char *unit)
{
    ra_buf_adds(p->out, "<tr>");
    ra_page_cell_text(p, name);
    ra_page_cell_count(p, value);
    ra_page_cell_text(p, unit);
    ra_buf_adds(p->out, "</tr>\n");
}

static void add_cost_table(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    bool drift = e->retain > 0;
    ra_page_table(p, "What the model lost or kept where the new policy asks for nothing.", "Measure|>Value|Unit");
    if (drift) {
        add_cost_count(p, "Retain samples", e->retain, "samples");
        add_cost(p, "Mean drift", e->drift_mean, 3, "nat a sample");
        add_cost(p, "Mean absolute drift", e->drift_absolute, 3, "nat a sample");
        add_cost(p, "Drift", e->drift_per_token, 3, "nat a token");
    }
    if (isfinite(e->perplexity[RA_BEFORE])) {
        add_cost(p, "Perplexity of neutral text before", e->perplexity[RA_BEFORE], 5, "");
        add_cost(p, "Perplexity after", e->perplexity[RA_AFTER], 5, "");
        add_cost(p, "Change", 100.0 * (e->perplexity[RA_AFTER] / e->perplexity[RA_BEFORE] - 1.0), 3, "%");
        add_cost_count(p, "Tokens of neutral text", e->perplexity_tokens, "tokens");
    }
    ra_page_table_end(p);
}

/* Histogram and table side by side. */
static void add_costs(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    bool drift = e->retain > 0, perplexity = isfinite(e->perplexity[RA_BEFORE]);
    if (drift || perplexity) ra_buf_adds(p->out, "<h3>What it cost elsewhere</h3>\n<div class=\"pair\">\n");
    if (drift) {
        ra_page_figure(p, "wide");
        ra_plot_histogram(p->out,
                          &(ra_plot){.title = "Drift on Retain samples",
                                     .description = "Histogram of the change in log-probability of preferred responses",
                                     .x_label = "log p \u2212 log p of the reference for the preferred response, nat",
                                     .y_label = "samples",
                                     .height = 250.0},
                          &(ra_series){.colour = RA_COLOUR_GREEN, .n = e->retain, .x = e->drift}, 1);
        ra_page_caption(p);
        ra_buf_adds(p->out,
                    "Change of the log-probability of preferred responses that the new policy leaves alone; 0 is no change.");
        ra_page_figure_end(p);
    }
    if (drift || perplexity) {
        add_cost_table(p);
        ra_buf_adds(p->out, "</div>\n");
    }
    if (e->trained && !drift) ra_page_absent(p, "Drift on Retain samples was not measured.");
    if (!perplexity) ra_page_absent(p, "Perplexity of neutral text was not measured: eval.perplexity_path is empty.");
}

void ra_page_agreement(ra_page *p)
{
    const ra_part_evaluation *e = &p->run->evaluation;
    ra_page_section(p, "agreement", "Target policy agreement");
    if (e->why) {
        ra_page_absent(p, e->why);
        ra_page_section_end(p);
        return;
    }
    ra_buf_adds(p->out, "<p>Share of greedy answers to held-out prompts that the new policy's oracle calls compliant. ");
    if (e->trained) {
        ra_html_count(p->out, e->improved);
        ra_buf_adds(p->out, " answers went from not compliant to compliant, ");
        ra_html_count(p->out, e->worsened);
        ra_buf_adds(p->out, " the other way.");
    } else {
        ra_buf_adds(p->out, "There is no trained model yet: only the model before training was measured.");
    }
    ra_buf_adds(p->out, "</p>\n");
    ra_page_figure(p, "pair");
    add_agreement_bars(p);
    add_violation_bars(p);
    ra_page_caption(p);
    ra_buf_adds(p->out, "Agreement by category, and the rules that decided against answers. Error bars: Wilson's 95 % interval.");
    if (e->n_categories > MOST_GROUPS) ra_buf_addf(p->out, " The first %d categories; all are in the table.", MOST_GROUPS);
    ra_page_figure_end(p);
    add_agreement_table(p);
    add_costs(p);
    ra_page_section_end(p);
}

/* ---- texts ---- */

static const ra_text *text_of(const ra_part_texts *t, int64_t id)
{
    for (int64_t i = 0; i < t->n; i++) {
        if (t->text[i].id == id) return &t->text[i];
    }
    return NULL;
}

static void add_answer(ra_buf *out, const char *name, const ra_text *t)
{
    static const char *const css[] = {"", "no", "yes"}, *const word[] = {"not judged", "not compliant", "compliant"};
    ra_buf_addf(out, "<div><p class=\"who\">%s", name);
    if (t) {
        ra_buf_addf(out, " \u00b7 <span class=\"badge %s\">%s</span>", css[t->verdict + 1], word[t->verdict + 1]);
        if (t->verdict == 0 && t->rule) {
            ra_buf_adds(out, " by rule ");
            ra_html_text(out, t->rule);
        }
        ra_buf_adds(out, "</p><p class=\"text\">");
        ra_html_text(out, t->response);
    } else {
        ra_buf_adds(out, "</p><p class=\"text\">\u2013");
    }
    ra_buf_adds(out, "</p></div>\n");
}

void ra_page_texts(ra_page *p)
{
    const ra_part_texts *before = &p->run->texts[RA_BEFORE], *after = &p->run->texts[RA_AFTER];
    ra_buf *out = p->out;
    ra_page_section(p, "texts", "Sampled texts");
    if (before->why) ra_page_absent(p, before->why);
    if (after->why) ra_page_absent(p, after->why);
    const ra_part_texts *listed = before->n > 0 ? before : after;
    if (listed->n > 0) {
        ra_buf_adds(out, "<details class=\"texts\">\n<summary>Show ");
        ra_html_count(out, listed->n);
        ra_buf_adds(out,
                    " prompts with the answers before and after. <span class=\"warn\">Warning: these texts may be harmful or "
                    "offensive.</span></summary>\n<div>\n");
        for (int64_t i = 0; i < listed->n; i++) {
            const ra_text *t = &listed->text[i];
            ra_buf_addf(out, "<div class=\"card\">\n<p class=\"who\">Prompt %lld", (long long)t->id);
            if (t->category) {
                ra_buf_adds(out, " \u00b7 ");
                ra_html_text(out, t->category);
            }
            ra_buf_adds(out, "</p><p class=\"text\">");
            ra_html_text(out, t->prompt);
            ra_buf_adds(out, "</p>\n<div class=\"two\">\n");
            add_answer(out, "Before", text_of(before, t->id));
            add_answer(out, "After", text_of(after, t->id));
            ra_buf_adds(out, "</div>\n</div>\n");
        }
        ra_buf_adds(out, "</div>\n</details>\n");
    } else if (!before->why && !after->why) {
        ra_page_absent(p, "report.samples is 0, or no prompt was answered.");
    }
    ra_page_section_end(p);
}
