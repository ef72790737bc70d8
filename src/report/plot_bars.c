/* Horizontal bars with error bars. */
#include "plot_impl.h"

#include <realign/report.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_BARS = 8, LABEL_CHARACTERS = 34 };

#define BAR 11.0    /* height of one bar */
#define BETWEEN 3.0 /* bars of a group */
#define GAP 13.0    /* groups */
#define LABEL_FONT 12.0

typedef struct {
    double left, right, low, high;
} axis;

static double place(const axis *a, double value)
{
    double at = (value - a->low) / (a->high - a->low);
    return a->left + (at < 0.0 ? 0.0 : at > 1.0 ? 1.0 : at) * (a->right - a->left);
}

static void find_range(const ra_plot *plot, int groups, const ra_bars *bars, int n, axis *a)
{
    a->low = a->high = 0.0;
    for (int k = 0; k < n; k++) {
        for (int g = 0; g < groups; g++) {
            const double v[] = {bars[k].value[g].value, bars[k].value[g].low, bars[k].value[g].high};
            for (int i = 0; i < 3; i++) {
                if (!isfinite(v[i])) continue;
                a->low = fmin(a->low, v[i]);
                a->high = fmax(a->high, v[i]);
            }
        }
    }
    if (a->high <= a->low) a->high = a->low + 1.0;
    if (plot->high > plot->low) a->low = plot->low, a->high = plot->high;
}

static void draw_bar(ra_buf *out, const ra_plot *plot, const axis *a, const ra_bars *bars, const ra_interval *v, double y)
{
    if (!isfinite(v->value)) {
        ra_svg_text(out, place(a, fmax(0.0, a->low)) + 4.0, y + BAR - 1.5, "p-tick", "start", "none");
        return;
    }
    double zero = place(a, fmin(fmax(0.0, a->low), a->high)), x = place(a, v->value), end = fmax(zero, x);
    ra_buf_addf(out, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"1\"/>\n", bars->colour,
                fmin(zero, x), y, fmax(fabs(x - zero), 0.75), BAR);
    if (isfinite(v->low) && isfinite(v->high)) {
        double x0 = place(a, v->low), x1 = place(a, v->high), middle = y + BAR / 2.0;
        ra_buf_addf(out, "<path class=\"p-error\" d=\"M%.1f %.1fH%.1fM%.1f %.1fv6M%.1f %.1fv6\"/>\n", x0, middle, x1, x0,
                    middle - 3.0, x1, middle - 3.0);
        end = fmax(end, x1);
    }
    char text[64];
    snprintf(text, sizeof text, "%s%.*f%s%s", v->value < 0.0 ? "\u2212" : "", plot->decimals, fabs(v->value),
             plot->unit ? " " : "", plot->unit ? plot->unit : "");
    ra_svg_text(out, end + 6.0, y + BAR - 1.5, "p-value", "start", text);
}

void ra_plot_bars(ra_buf *out, const ra_plot *plot, const char *const *label, int groups, const ra_bars *bars, int n)
{
    if (n > MOST_BARS) n = MOST_BARS;
    double width = plot->width > 0.0 ? plot->width : 520.0, group = n * BAR + (n - 1) * BETWEEN, widest = 0.0;
    char **cut = ra_calloc((size_t)groups, sizeof *cut);
    for (int g = 0; g < groups; g++) {
        cut[g] = ra_text_cut(label[g], LABEL_CHARACTERS);
        widest = fmax(widest, ra_text_width(cut[g], LABEL_FONT));
    }
    const char *name[MOST_BARS] = {0};
    ra_colour colour[MOST_BARS] = {0};
    int names = 0;
    for (int k = 0; k < n; k++) {
        if (!bars[k].name) continue;
        name[names] = bars[k].name;
        colour[names++] = bars[k].colour;
    }
    double most = width * 0.42, legend = names ? 34.0 : 16.0;
    axis a = {.left = fmin(widest + 10.0, most), .right = width - 70.0};
    find_range(plot, groups, bars, n, &a);
    double bottom = legend + 12.0 + groups * (group + GAP), height = bottom + (plot->x_label ? 42.0 : 24.0);
    ra_svg_begin(out, plot, width, height);
    if (names) ra_svg_legend(out, 0.0, width, 33.0, name, colour, NULL, names);
    ra_ticks t = ra_ticks_of(a.low, a.high, 5, false);
    for (int i = 0; i < t.n; i++) {
        double x = place(&a, t.at[i]);
        ra_buf_addf(out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                    t.at[i] == 0.0 ? "p-base" : "p-grid", x, x, legend + 8.0, bottom);
        ra_svg_text(out, x, bottom + 15.0, "p-tick", "middle", t.label[i]);
    }
    if (plot->x_label) {
        ra_buf text = {0};
        ra_buf_adds(&text, plot->x_label);
        if (t.exponent) {
            ra_buf_adds(&text, " \u00d7");
            ra_power_of_ten(&text, t.exponent);
        }
        ra_svg_text(out, a.right, bottom + 32.0, "p-axis", "end", text.data);
        ra_buf_free(&text);
    }
    for (int g = 0; g < groups; g++) {
        double y = legend + 12.0 + GAP / 2.0 + g * (group + GAP);
        ra_svg_text(out, a.left - 8.0, y + group / 2.0 + 4.0, "p-label", "end", cut[g]);
        for (int k = 0; k < n; k++) draw_bar(out, plot, &a, &bars[k], &bars[k].value[g], y + k * (BAR + BETWEEN));
        free(cut[g]);
    }
    ra_svg_end(out);
    ra_free(cut);
}
