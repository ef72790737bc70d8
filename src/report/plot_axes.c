/* Ticks, axes, legends and the frame of a plot. */
#include "plot_impl.h"

#include <realign/report.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ticks ---- */

/* The smallest of 1, 2, 5 times a power of ten that is at least `rough`. */
static double round_step(double rough)
{
    double power = pow(10.0, floor(log10(rough))), part = rough / power;
    return power * (part <= 1.0 + 1e-9 ? 1.0 : part <= 2.0 + 1e-9 ? 2.0 : part <= 5.0 + 1e-9 ? 5.0 : 10.0);
}

static void add_tick(ra_ticks *t, double at, int decimals)
{
    if (t->n == RA_MOST_TICKS) return;
    char digits[24];
    double shown = fabs(at) * pow(10.0, -t->exponent);
    snprintf(digits, sizeof digits, "%.*f", decimals, shown);
    snprintf(t->label[t->n], sizeof t->label[0], "%s%.18s", at < 0.0 ? "\u2212" : "", digits);
    t->at[t->n++] = at;
}

static void add_log_tick(ra_ticks *t, double at)
{
    if (t->n == RA_MOST_TICKS) return;
    snprintf(t->label[t->n], sizeof t->label[0], "%.6g", at);
    t->at[t->n++] = at;
}

static ra_ticks log_ticks(double low, double high)
{
    ra_ticks t = {0};
    double decades = log10(high / low);
    int stride = decades > 12.0 ? (int)ceil(decades / 12.0) : 1;
    static const double parts[] = {1.0, 2.0, 5.0};
    for (int e = (int)floor(log10(low)); e <= (int)ceil(log10(high)); e += stride) {
        for (int i = 0; i < (decades <= 2.5 ? 3 : 1); i++) {
            double at = parts[i] * pow(10.0, e);
            if (at >= low * (1.0 - 1e-9) && at <= high * (1.0 + 1e-9)) add_log_tick(&t, at);
        }
    }
    return t;
}

ra_ticks ra_ticks_of(double low, double high, int wanted, bool log)
{
    ra_ticks t = {0};
    if (!isfinite(low) || !isfinite(high) || wanted < 1 || high < low || (log && low <= 0.0)) return t;
    if (log) return log_ticks(low, high);
    if (wanted > RA_MOST_TICKS / 2) wanted = RA_MOST_TICKS / 2;
    double largest = fmax(fabs(low), fabs(high)), span = high - low;
    if (!isfinite(span) || span <= largest * 1e-12 || span < 1e-300) {
        span = 0.0;
    }
    if (span == 0.0) {
        t.exponent = largest > 0.0 && (largest >= 1e6 || largest < 1e-3) ? (int)floor(log10(largest)) : 0;
        add_tick(&t, low, 3);
        return t;
    }
    double step = round_step(span / wanted);
    if (largest >= 1e6 || largest < 1e-3) t.exponent = (int)floor(log10(largest) + 1e-9);
    int decimals = (int)fmax(0.0, -floor(log10(step) + 1e-9) + t.exponent);
    double first = ceil(low / step - 1e-9), last = floor(high / step + 1e-9);
    for (double k = first; k <= last && t.n < RA_MOST_TICKS; k++) add_tick(&t, k == 0.0 ? 0.0 : k * step, decimals);
    return t;
}

void ra_power_of_ten(ra_buf *out, int exponent)
{
    static const char *const digit[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                        "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
    char text[16];
    snprintf(text, sizeof text, "%d", abs(exponent));
    ra_buf_adds(out, exponent < 0 ? "10\u207b" : "10");
    for (const char *p = text; *p; p++) ra_buf_adds(out, digit[*p - '0']);
}

/* ---- text ---- */

void ra_svg_text(ra_buf *out, double x, double y, const char *css, const char *anchor, const char *text)
{
    ra_buf_addf(out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", css, x, y, anchor);
    ra_html_text(out, text);
    ra_buf_adds(out, "</text>\n");
}

static bool starts_character(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

double ra_text_width(const char *text, double size)
{
    int n = 0;
    for (; *text; text++) n += starts_character(*text);
    return RA_CHARACTER_WIDTH * size * n;
}

char *ra_text_cut(const char *text, int most)
{
    int n = 0;
    const char *cut = text;
    for (const char *p = text; *p; p++) {
        if (!starts_character(*p)) continue;
        if (n == most - 1) cut = p;
        n++;
    }
    return n <= most ? ra_strdup(text) : ra_format("%.*s\u2026", (int)(cut - text), text);
}

/* Room around a picture that is a file of its own. */
#define MARGIN 14.0

void ra_svg_begin(ra_buf *out, const ra_plot *plot, double width, double height)
{
    double margin = plot->alone ? MARGIN : 0.0;
    width += 2.0 * margin;
    height += 2.0 * margin;
    ra_buf_addf(out, "<svg class=\"plot\" role=\"img\" viewBox=\"%.0f %.0f %.0f %.0f\" style=\"", 0.0 - margin, 0.0 - margin,
                width, height);
    if (plot->alone) {
        ra_buf_addf(out, "width:%.0fpx;height:%.0fpx", width, height);
    } else {
        ra_buf_addf(out, "max-width:%.0fpx", width);
    }
    ra_buf_adds(out, "\" xmlns=\"http://www.w3.org/2000/svg\">\n<title>");
    ra_html_text(out, plot->title ? plot->title : "Plot");
    ra_buf_adds(out, "</title>\n");
    if (plot->description) {
        ra_buf_adds(out, "<desc>");
        ra_html_text(out, plot->description);
        ra_buf_adds(out, "</desc>\n");
    }
    if (plot->alone) {
        ra_buf_adds(out, "<style>\n");
        ra_plot_style(out);
        ra_buf_adds(out, ":root{--page:#fff}@media "
                         "(prefers-color-scheme:dark){:root{--page:#14171c}}\nsvg.plot{background:var(--page)}\n</style>\n");
    }
    if (plot->title) ra_svg_text(out, 0.0, 14.0, "p-title", "start", plot->title);
}

void ra_svg_end(ra_buf *out)
{
    ra_buf_adds(out, "</svg>\n");
}

double ra_svg_legend(ra_buf *out, double x, double right, double y, const char *const *name, const ra_colour *colour,
                     const bool *dashed, int n)
{
    double at = x;
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (!name[i]) continue;
        double width = 22.0 + ra_text_width(name[i], 12.0) + 14.0;
        if (any && at + width > right) {
            at = x;
            y += 16.0;
        }
        ra_buf_addf(out, "<line class=\"p-key s%d\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"%s/>\n", colour[i], at,
                    at + 16.0, y - 4.0, y - 4.0, dashed && dashed[i] ? " stroke-dasharray=\"4 3\"" : "");
        ra_svg_text(out, at + 22.0, y, "p-label", "start", name[i]);
        at += width;
        any = true;
    }
    return any ? y + 16.0 : y;
}

/* ---- frame ---- */

static double place(double value, double low, double high, bool log)
{
    if (log && value <= 0.0) return NAN;
    if (log) value = log10(value), low = log10(low), high = log10(high);
    double at = (value - low) / (high - low);
    return at < 0.0 ? 0.0 : at > 1.0 ? 1.0 : at;
}

double ra_frame_x(const ra_frame *f, double x)
{
    return f->left + place(x, f->x_low, f->x_high, f->x_log) * (f->right - f->left);
}

double ra_frame_y(const ra_frame *f, double y)
{
    return f->bottom - place(y, f->y_low, f->y_high, f->y_log) * (f->bottom - f->top);
}

/* Bounds that a plot can have: not empty, and a little more than the data; on log axes positive. */
static void widen(double *low, double *high, bool log, bool round)
{
    if (!isfinite(*low) || !isfinite(*high)) *low = log ? 0.1 : 0.0, *high = 1.0;
    if (log) {
        if (*low <= 0.0) *low = 1e-3;
        if (*high <= *low) *low /= 2.0, *high = *low * 4.0;
        return;
    }
    if (*high - *low <= 1e-12 * fmax(fabs(*low), fabs(*high)) || *high == *low) {
        double by = *low == 0.0 ? 1.0 : fabs(*low) * 0.5;
        *low = *low == 0.0 ? 0.0 : *low - by;
        *high += by;
    }
    if (!round) return;
    double step = round_step((*high - *low) / 5.0), below = floor(*low / step + 1e-9) * step,
           above = ceil(*high / step - 1e-9) * step;
    *low = below;
    *high = above;
}

static void axis_label(ra_buf *out, double x, double y, const char *anchor, const char *text, int exponent)
{
    if (!text && !exponent) return;
    ra_buf label = {0};
    ra_buf_adds(&label, text ? text : "");
    if (exponent) {
        ra_buf_adds(&label, text ? " (\u00d7" : "\u00d7");
        ra_power_of_ten(&label, exponent);
        ra_buf_adds(&label, text ? ")" : "");
    }
    ra_svg_text(out, x, y, "p-axis", anchor, label.data);
    ra_buf_free(&label);
}

static void draw_axes(ra_frame *f, const ra_ticks *tx, const ra_ticks *ty)
{
    ra_buf *out = f->out;
    for (int i = 0; i < ty->n; i++) {
        double y = ra_frame_y(f, ty->at[i]);
        ra_buf_addf(out, "<line class=\"p-grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", f->left, f->right, y, y);
        ra_svg_text(out, f->left - 7.0, y + 4.0, "p-tick", "end", ty->label[i]);
    }
    ra_buf_addf(out, "<line class=\"p-base\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", f->left, f->right, f->bottom,
                f->bottom);
    for (int i = 0; i < tx->n; i++) {
        double x = ra_frame_x(f, tx->at[i]);
        ra_buf_addf(out, "<line class=\"p-base\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", x, x, f->bottom,
                    f->bottom + 4.0);
        ra_svg_text(out, x, f->bottom + 17.0, "p-tick", "middle", tx->label[i]);
    }
    axis_label(out, f->right, f->bottom + 34.0, "end", f->plot->x_label, tx->exponent);
}

static void keep_whole(ra_ticks *t)
{
    if (t->exponent != 0) return;
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        if (fabs(t->at[i] - round(t->at[i])) > 1e-9) continue;
        t->at[n] = t->at[i];
        snprintf(t->label[n++], sizeof t->label[0], "%.0f", t->at[i]);
    }
    t->n = n;
}

ra_frame ra_frame_begin(ra_buf *out, const ra_plot *plot, double x_low, double x_high, double y_low, double y_high,
                        const char *const *name, const ra_colour *colour, const bool *dashed, int n)
{
    ra_frame f = {.out = out,
                  .plot = plot,
                  .width = plot->width > 0.0 ? plot->width : 520.0,
                  .height = plot->height > 0.0 ? plot->height : 280.0,
                  .x_log = plot->x_log,
                  .y_log = plot->y_log};
    if (plot->y_zero && !plot->y_log) y_low = fmin(y_low, 0.0), y_high = fmax(y_high, 0.0);
    if (plot->x_high > plot->x_low) x_low = plot->x_low, x_high = plot->x_high;
    bool fixed = plot->high > plot->low;
    if (fixed) y_low = plot->low, y_high = plot->high;
    widen(&x_low, &x_high, f.x_log, false);
    widen(&y_low, &y_high, f.y_log, !fixed);
    f.x_low = x_low, f.x_high = x_high, f.y_low = y_low, f.y_high = y_high;
    ra_ticks ty = ra_ticks_of(y_low, y_high, 5, f.y_log), tx = ra_ticks_of(x_low, x_high, 7, f.x_log);
    if (plot->y_whole) keep_whole(&ty);
    double widest = 0.0;
    for (int i = 0; i < ty.n; i++) widest = fmax(widest, ra_text_width(ty.label[i], 11.5));
    f.left = fmax(34.0, widest + 12.0);
    f.right = f.width - 14.0;
    f.bottom = f.height - (plot->x_label || tx.exponent ? 42.0 : 26.0);
    ra_svg_begin(out, plot, f.width, f.height);
    double y = plot->title ? 32.0 : 14.0;
    axis_label(out, 0.0, y, "start", plot->y_label, ty.exponent);
    if (plot->y_label || ty.exponent) y += 17.0;
    f.top = ra_svg_legend(out, 0.0, f.width, y, name, colour, dashed, n) - 4.0;
    draw_axes(&f, &tx, &ty);
    return f;
}
