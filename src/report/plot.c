/* Curves, points and histograms. */
#include "plot_impl.h"

#include <realign/report.h>

#include <math.h>
#include <stdlib.h>

enum { MOST_POINTS = 3000, MOST_SERIES = 16, MARKED = 30 /* curves of so few points show each of them */ };

typedef struct {
    double low, high;
} range;

static void include(range *r, double value, bool log)
{
    if (!isfinite(value) || (log && value <= 0.0)) return;
    r->low = fmin(r->low, value);
    r->high = fmax(r->high, value);
}

/* Ranges of the points both of whose coordinates can be drawn. */
static void ranges_of(const ra_plot *plot, const ra_series *series, int n, range *x, range *y)
{
    *x = *y = (range){INFINITY, -INFINITY};
    for (int k = 0; k < n; k++) {
        for (int64_t i = 0; i < series[k].n; i++) {
            if (!isfinite(series[k].x[i]) || !isfinite(series[k].y[i])) continue;
            include(x, series[k].x[i], plot->x_log);
            include(y, series[k].y[i], plot->y_log);
        }
    }
}

static ra_frame begin(ra_buf *out, const ra_plot *plot, range x, range y, const ra_series *series, int n)
{
    const char *name[MOST_SERIES] = {0};
    ra_colour colour[MOST_SERIES] = {0};
    bool dashed[MOST_SERIES] = {0};
    int names = 0;
    for (int k = 0; k < n && k < MOST_SERIES; k++) {
        if (!series[k].name) continue;
        name[names] = series[k].name;
        colour[names] = series[k].colour;
        dashed[names++] = series[k].dashed;
    }
    return ra_frame_begin(out, plot, x.low, x.high, y.low, y.high, name, colour, dashed, names);
}

/* ---- curves ---- */

/* The points of a curve in pixels, written as they come: a run of one is a dot, a longer one a polyline. */
typedef struct {
    const ra_frame *frame;
    const ra_series *series;
    double x, y; /* the first point of the run */
    int64_t run;
} pen;

static void pen_up(pen *p)
{
    ra_buf *out = p->frame->out;
    if (p->run == 1)
        ra_buf_addf(out, "<circle class=\"f%d%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"1.6\"/>\n", p->series->colour,
                    p->series->faint ? " faint" : "", p->x, p->y);
    if (p->run > 1) ra_buf_adds(out, "\"/>\n");
    p->run = 0;
}

static void pen_to(pen *p, double x, double y)
{
    ra_buf *out = p->frame->out;
    if (p->run == 0) p->x = x, p->y = y;
    if (p->run == 1) {
        ra_buf_addf(out, "<polyline class=\"p-line s%d%s\"%s points=\"%.1f,%.1f", p->series->colour,
                    p->series->faint ? " faint" : "", p->series->dashed ? " stroke-dasharray=\"4 3\"" : "", p->x, p->y);
    }
    if (p->run >= 1) ra_buf_addf(out, " %.1f,%.1f", x, y);
    p->run++;
}

/* Points that fall in one pixel column give at most its lowest and its highest, in their order. */
static void draw_curve(const ra_frame *f, const ra_series *s)
{
    pen p = {.frame = f, .series = s};
    int64_t i = 0;
    while (i < s->n) {
        double x = ra_frame_x(f, s->x[i]), y = ra_frame_y(f, s->y[i]);
        if (!isfinite(x) || !isfinite(y)) {
            pen_up(&p);
            i++;
            continue;
        }
        int64_t low = i, high = i, j = i + 1;
        for (; j < s->n && isfinite(s->y[j]) && fabs(ra_frame_x(f, s->x[j]) - x) < 0.5; j++) {
            if (s->y[j] < s->y[low]) low = j;
            if (s->y[j] > s->y[high]) high = j;
        }
        int64_t first = low < high ? low : high, second = low < high ? high : low;
        if (isfinite(ra_frame_y(f, s->y[first]))) pen_to(&p, ra_frame_x(f, s->x[first]), ra_frame_y(f, s->y[first]));
        if (second != first && isfinite(ra_frame_y(f, s->y[second])))
            pen_to(&p, ra_frame_x(f, s->x[second]), ra_frame_y(f, s->y[second]));
        i = j;
    }
    pen_up(&p);
    for (int64_t k = 0; k < s->n && s->n <= MARKED && !s->faint; k++) {
        double x = ra_frame_x(f, s->x[k]), y = ra_frame_y(f, s->y[k]);
        if (isfinite(x) && isfinite(y))
            ra_buf_addf(f->out, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.4\"/>\n", s->colour, x, y);
    }
}

void ra_plot_lines(ra_buf *out, const ra_plot *plot, const ra_series *series, int n)
{
    range x, y;
    ranges_of(plot, series, n, &x, &y);
    ra_frame f = begin(out, plot, x, y, series, n);
    for (int k = 0; k < n; k++) draw_curve(&f, &series[k]);
    ra_svg_end(out);
}

/* ---- points ---- */

void ra_plot_scatter(ra_buf *out, const ra_plot *plot, const ra_series *series, int n)
{
    range x, y;
    ranges_of(plot, series, n, &x, &y);
    ra_frame f = begin(out, plot, x, y, series, n);
    for (int k = 0; k < n; k++) {
        const ra_series *s = &series[k];
        int64_t stride = (s->n + MOST_POINTS - 1) / MOST_POINTS;
        ra_buf_addf(out, "<g class=\"p-points f%d\">\n", s->colour);
        for (int64_t i = 0; i < s->n; i += stride) {
            double px = ra_frame_x(&f, s->x[i]), py = ra_frame_y(&f, s->y[i]);
            if (isfinite(px) && isfinite(py)) ra_buf_addf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n", px, py);
        }
        ra_buf_adds(out, "</g>\n");
    }
    ra_svg_end(out);
}

/* ---- histogram ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Width 2 IQR / n^(1/3), made round, so that there are 8 to 60 bins. `sorted` (n) is not empty. */
static double bin_width(const double *sorted, int64_t n)
{
    double span = sorted[n - 1] - sorted[0], quartiles = sorted[n * 3 / 4] - sorted[n / 4];
    if (!(span > 0.0)) return fmax(fabs(sorted[0]), 1.0) / 8.0;
    double width = fmin(span / 8.0, fmax(span / 48.0, 2.0 * quartiles / cbrt((double)n)));
    double power = pow(10.0, floor(log10(width))), part = width / power;
    return power * (part < 1.5 ? 1.0 : part < 3.5 ? 2.0 : part < 7.5 ? 5.0 : 10.0);
}

static void draw_bins(const ra_frame *f, const ra_series *series, int n, const int64_t *count, int bins, double first,
                      double width)
{
    for (int b = 0; b < bins; b++) {
        int64_t below = 0;
        double x0 = ra_frame_x(f, first + b * width), x1 = ra_frame_x(f, first + (b + 1) * width);
        for (int k = 0; k < n; k++) {
            int64_t c = count[k * bins + b];
            if (c == 0) continue;
            double y0 = ra_frame_y(f, (double)below), y1 = ra_frame_y(f, (double)(below + c));
            ra_buf_addf(f->out,
                        "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%.6g to %.6g: "
                        "%lld",
                        series[k].colour, x0 + 0.5, y1, fmax(x1 - x0 - 1.0, 0.5), y0 - y1, first + b * width,
                        first + (b + 1) * width, (long long)c);
            ra_buf_adds(f->out, series[k].name ? " " : "");
            ra_html_text(f->out, series[k].name);
            ra_buf_adds(f->out, "</title></rect>\n");
            below += c;
        }
    }
}

void ra_plot_histogram(ra_buf *out, const ra_plot *plot, const ra_series *series, int n)
{
    int64_t total = 0;
    for (int k = 0; k < n; k++) total += series[k].n;
    double *sorted = ra_alloc((size_t)total, sizeof *sorted);
    int64_t m = 0;
    for (int k = 0; k < n; k++) {
        for (int64_t i = 0; i < series[k].n; i++) {
            if (isfinite(series[k].x[i])) sorted[m++] = series[k].x[i];
        }
    }
    qsort(sorted, (size_t)m, sizeof *sorted, ascending);
    double width = m ? bin_width(sorted, m) : 1.0, first = m ? floor(sorted[0] / width + 1e-9) * width : 0.0;
    int bins = m ? (int)floor((sorted[m - 1] - first) / width + 1e-9) + 1 : 1;
    ra_free(sorted);
    int64_t *count = ra_calloc((size_t)n * (size_t)bins, sizeof *count);
    for (int k = 0; k < n; k++) {
        for (int64_t i = 0; i < series[k].n; i++) {
            if (!isfinite(series[k].x[i])) continue;
            int b = (int)floor((series[k].x[i] - first) / width + 1e-9);
            count[k * bins + (b < 0 ? 0 : b >= bins ? bins - 1 : b)]++;
        }
    }
    int64_t highest = 1;
    for (int b = 0; b < bins; b++) {
        int64_t sum = 0;
        for (int k = 0; k < n; k++) sum += count[k * bins + b];
        if (sum > highest) highest = sum;
    }
    ra_plot whole = *plot;
    whole.y_whole = true;
    ra_frame f = begin(out, &whole, (range){first, first + bins * width}, (range){0.0, (double)highest}, series, n);
    draw_bins(&f, series, n, count, bins, first, width);
    ra_svg_end(out);
    ra_free(count);
}
