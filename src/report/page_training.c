/* Training curves from steps.tsv. */
#include "page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CURVES = 4, SMOOTH_FROM = 60 /* steps: from here on a running mean is drawn over the raw curve */ };

typedef struct {
    const char *title, *y_label;
    bool y_log, y_zero, shares;
    struct {
        const char *column, *name;
        ra_colour colour;
    } curve[MOST_CURVES];
} chart;

static const chart charts[] = {
    {"Loss of a step", "weighted sum over the step's samples", .y_zero = true, .curve = {{"loss", NULL, RA_COLOUR_INK}}},
    {"Loss by set", "mean of a sample, unweighted", .y_zero = true,
     .curve = {{"loss_invert", "Invert", RA_COLOUR_BLUE},
               {"loss_punish", "Punish", RA_COLOUR_VERMILION},
               {"loss_pair", "Pair (DPO)", RA_COLOUR_PURPLE}}},
    {"KL to the reference on Retain samples", "nat a token", .y_zero = true, .curve = {{"kl", NULL, RA_COLOUR_GREEN}}},
    {"Drift on Retain samples", "log p \u2212 log p of the reference, nat a sample",
     .curve = {{"drift_retain", NULL, RA_COLOUR_GREEN}}},
    {"Margin", "log-ratio towards the new policy, nat", .y_zero = true,
     .curve = {{"margin_invert", "Invert", RA_COLOUR_BLUE},
               {"margin_punish", "Punish", RA_COLOUR_VERMILION},
               {"margin_pair", "Pair (DPO)", RA_COLOUR_PURPLE}}},
    {"Accuracy", "share of samples with a positive margin", .shares = true,
     .curve = {{"accuracy_invert", "Invert", RA_COLOUR_BLUE},
               {"accuracy_punish", "Punish", RA_COLOUR_VERMILION},
               {"accuracy_pair", "Pair (DPO)", RA_COLOUR_PURPLE}}},
    {"Gradient norm", "before clipping", .y_zero = true, .curve = {{"grad_norm", NULL, RA_COLOUR_INK}}},
    {"Learning rate", NULL, .y_zero = true, .curve = {{"lr", NULL, RA_COLOUR_INK}}},
};

static bool any_finite(const double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(v[i])) return true;
    }
    return false;
}

/* Mean over the finite values within `half` steps on either side. */
static double *running_mean(const double *v, int64_t n, int64_t half)
{
    double *mean = ra_alloc((size_t)n, sizeof *mean), sum = 0.0;
    int64_t count = 0, begin = 0, end = 0;
    for (int64_t i = 0; i < n; i++) {
        for (; end < n && end <= i + half; end++) {
            if (isfinite(v[end])) sum += v[end], count++;
        }
        for (; begin < i - half; begin++) {
            if (isfinite(v[begin])) sum -= v[begin], count--;
        }
        mean[i] = count > 0 ? sum / (double)count : NAN;
    }
    return mean;
}

/* Draws a chart; false where none of its columns holds a number. */
static bool add_chart(ra_page *p, const chart *c, const double *step)
{
    const ra_table *t = &p->run->steps;
    ra_series series[2 * MOST_CURVES];
    double *held[2 * MOST_CURVES];
    int n = 0, curves = 0;
    bool smooth = t->rows >= SMOOTH_FROM && strcmp(c->curve[0].column, "lr") != 0;
    for (int k = 0; k < MOST_CURVES && c->curve[k].column; k++) curves++;
    for (int k = 0; k < curves; k++) {
        double *v = ra_table_reals(t, c->curve[k].column);
        if (!v || !any_finite(v, t->rows)) {
            ra_free(v);
            continue;
        }
        held[n] = v;
        series[n++] = (ra_series){.name = smooth ? NULL : c->curve[k].name,
                                  .colour = c->curve[k].colour,
                                  .n = t->rows,
                                  .x = step,
                                  .y = v,
                                  .faint = smooth};
        if (!smooth) continue;
        held[n] = running_mean(v, t->rows, t->rows / 50 + 2);
        series[n] = (ra_series){.name = c->curve[k].name, .colour = c->curve[k].colour, .n = t->rows, .x = step, .y = held[n]};
        n++;
    }
    ra_plot plot = {.title = c->title,
                    .description = "Curve over the training steps",
                    .x_label = "step",
                    .x_low = step[0],
                    .x_high = step[t->rows - 1],
                    .y_label = c->y_label,
                    .height = 250.0,
                    .y_log = c->y_log,
                    .y_zero = c->y_zero,
                    .low = 0.0,
                    .high = c->shares ? 1.0 : 0.0};
    if (n > 0) ra_plot_lines(p->out, &plot, series, n);
    for (int i = 0; i < n; i++) ra_free(held[i]);
    return n > 0;
}

static double total(const ra_table *t, const char *name)
{
    double *v = ra_table_reals(t, name), sum = 0.0;
    for (int64_t i = 0; v && i < t->rows; i++) sum += isfinite(v[i]) ? v[i] : 0.0;
    ra_free(v);
    return sum;
}

static void add_facts(ra_page *p)
{
    const ra_table *t = &p->run->steps;
    double tokens = total(t, "tokens"), seconds = total(t, "seconds");
    double samples = total(t, "n_invert") + total(t, "n_punish") + total(t, "n_retain") + total(t, "n_pair");
    ra_buf *out = p->out;
    ra_buf_adds(out, "<p>");
    ra_html_count(out, t->rows);
    ra_buf_addf(out, " step%s", t->rows == 1 ? "" : "s");
    if (samples > 0.0) {
        ra_buf_adds(out, ", ");
        ra_html_count(out, (int64_t)samples);
        ra_buf_adds(out, " samples");
    }
    if (tokens > 0.0) {
        ra_buf_adds(out, ", ");
        ra_html_count(out, (int64_t)tokens);
        ra_buf_adds(out, " tokens with each prompt counted once");
    }
    if (seconds > 0.0) {
        ra_buf_adds(out, " in ");
        ra_html_real(out, seconds, 4);
        ra_buf_adds(out, " s (");
        ra_html_count(out, (int64_t)(tokens / seconds + 0.5));
        ra_buf_adds(out, " tokens/s)");
    }
    ra_buf_adds(out, ".</p>\n");
}

void ra_page_training(ra_page *p)
{
    const ra_table *t = &p->run->steps;
    ra_page_section(p, "training", "Training");
    if (p->run->why_steps || t->rows == 0) {
        ra_page_absent(p, p->run->why_steps ? p->run->why_steps : "steps.tsv holds no step yet.");
        ra_page_section_end(p);
        return;
    }
    double *step = ra_table_reals(t, "step");
    if (!step) {
        step = ra_alloc((size_t)t->rows, sizeof *step);
        for (int64_t i = 0; i < t->rows; i++) step[i] = (double)i + 1.0;
    }
    add_facts(p);
    ra_page_figure(p, "pair");
    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++) add_chart(p, &charts[i], step);
    ra_page_caption(p);
    ra_buf_adds(p->out, "Training. ");
    if (t->rows >= SMOOTH_FROM) ra_buf_adds(p->out, "Faint: each step; solid: running mean. ");
    ra_buf_adds(p->out, "A step without a sample of a set leaves a gap in that set's curve.");
    ra_page_figure_end(p);
    ra_free(step);
    ra_page_section_end(p);
}
