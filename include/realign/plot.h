/* Plots as inline SVG, written as text: no library, no script. Colours are CSS variables (--c0 .. --c7, --ink, --muted, --grid, --base, --page), which the page that holds them
 * defines for light and dark (ra_plot_style); every plot has a <title> and a <desc>. Values that are not finite are gaps. Not collective throughout. */
#ifndef REALIGN_PLOT_H
#define REALIGN_PLOT_H
#include <realign/mem.h>
#include <realign/schedule.h>
#include <stdbool.h>
#include <stdint.h>

/* A colour-blind-safe order (after Okabe and Ito): neighbours differ in lightness too. */
typedef enum {
    RA_COLOUR_BLUE,
    RA_COLOUR_VERMILION,
    RA_COLOUR_GREEN,
    RA_COLOUR_PURPLE,
    RA_COLOUR_GREY,
    RA_COLOUR_ORANGE,
    RA_COLOUR_SKY,
    RA_COLOUR_INK,
    RA_COLOURS
} ra_colour;

/* Appends the CSS that plots need: variables for light and dark (but --page), and classes. */
void ra_plot_style(ra_buf *out);

typedef struct {
    const char *title;             /* above the plot, and its accessible name */
    const char *description;       /* in words, for those who do not see it; NULL: none */
    const char *x_label, *y_label; /* with units; NULL: none */
    double width, height;          /* CSS pixels; 0: 520 x 280 (bars: as high as the groups need) */
    bool x_log, y_log;             /* values <= 0 are gaps */
    bool y_zero;                   /* the y axis reaches to 0 */
    bool y_whole;                  /* ticks at whole numbers only: counts */
    double x_low, x_high;          /* bounds of the x axis where x_high > x_low; else from the data */
    double low, high;              /* bounds of the value axis (y; of bars: x) where high > low; else from the data */
    const char *unit;              /* bars: after each value, "%" */
    int decimals;                  /* bars: of each value */
    bool alone; /* a file of its own: it carries its style and a margin, and keeps its width where a page would shrink it */
} ra_plot;

/* ---- axes ---- */
enum { RA_MOST_TICKS = 24 };
typedef struct {
    int n;
    double at[RA_MOST_TICKS];
    char label[RA_MOST_TICKS][24]; /* of at / 10^exponent, with a real minus sign */
    int exponent;                  /* 0, unless labels would be very long or very short */
} ra_ticks;
/* About `wanted` ticks at 1, 2 or 5 times a power of ten within [low, high]; of a log axis: powers of ten, and 2 and 5 times them on a short one. */
ra_ticks ra_ticks_of(double low, double high, int wanted, bool log);

/* ---- curves and points ---- */
typedef struct {
    const char *name; /* in the legend; NULL: not there */
    ra_colour colour;
    int64_t n;
    const double *x, *y;
    bool faint, dashed;
} ra_series;
/* Curves; gaps where a value is not finite, dots where one stands alone. Long series are thinned to the extremes of each pixel column. */
void ra_plot_lines(ra_buf *out, const ra_plot *plot, const ra_series *series, int n);
/* Points; series of more than 3000 are thinned evenly. */
void ra_plot_scatter(ra_buf *out, const ra_plot *plot, const ra_series *series, int n);
/* Stacked counts of the x of all series in common bins of a round width (Freedman and Diaconis' rule, 8 to 60 bins). */
void ra_plot_histogram(ra_buf *out, const ra_plot *plot, const ra_series *series, int n);

/* ---- bars ---- */
typedef struct {
    double value, low, high; /* error bar from low to high where both are finite */
} ra_interval;
typedef struct {
    const char *name;
    ra_colour colour;
    const ra_interval *value; /* (groups) */
} ra_bars;
/* Horizontal bars, n of them in each group, labelled on the left. */
void ra_plot_bars(ra_buf *out, const ra_plot *plot, const char *const *label, int groups, const ra_bars *bars, int n);

/* ---- flow ---- */
typedef struct {
    int column; /* from 0, left to right */
    const char *label;
    int64_t value;
    ra_colour colour;
} ra_flow_node;
typedef struct {
    int from, to; /* nodes */
    int64_t value;
} ra_flow_link;
/* A flow diagram: node heights and ribbon widths in proportion to values; nodes of a column stand in the given order. Nodes of 0 are left out. */
void ra_plot_flow(ra_buf *out, const ra_plot *plot, const ra_flow_node *node, int nodes, const ra_flow_link *link, int links);

/* ---- pipeline schedules ---- */
/* A row a rank, a box a slot with its micro-batch's number where it has room, time to the right; beside each row the rank's idle share and the activations it holds. A
 * caption names makespan, bubble and peak. `plot` gives x_label (the unit of time); title, description and width may be left to the schedule. */
void ra_plot_schedule(ra_buf *out, const ra_plot *plot, const ra_schedule *s, const ra_schedule_timing *t);

#endif
