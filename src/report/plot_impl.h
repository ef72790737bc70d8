/* What the plots share: the frame of an SVG with its axes, from values to pixels. */
#ifndef RA_PLOT_IMPL_H
#define RA_PLOT_IMPL_H
#include <realign/plot.h>

/* Text has no measure without a browser: a mean width per character, in units of the font size. */
#define RA_CHARACTER_WIDTH 0.56

typedef struct {
    ra_buf *out;
    const ra_plot *plot;
    double width, height;
    double left, right, top, bottom; /* the area of the data, pixels */
    double x_low, x_high, y_low, y_high;
    bool x_log, y_log;
} ra_frame;

/* Opens <svg> of this size with title and description, and writes the visible title. */
void ra_svg_begin(ra_buf *out, const ra_plot *plot, double width, double height);
void ra_svg_end(ra_buf *out);
/* <text class="css" ...>escaped</text>; anchor is start, middle or end. */
void ra_svg_text(ra_buf *out, double x, double y, const char *css, const char *anchor, const char *text);
/* Width of a text at a font size, roughly; counts characters, not bytes. */
double ra_text_width(const char *text, double size);
/* The text with at most so many characters, an ellipsis at the end where it was cut. Free with free. */
char *ra_text_cut(const char *text, int most);
/* A legend line at y from x on: `n` names with their colours; returns the y below its last line. No name: nothing, y. */
double ra_svg_legend(ra_buf *out, double x, double right, double y, const char *const *name, const ra_colour *colour,
                     const bool *dashed, int n);

/* Opens the SVG; title, legend, grid, ticks and axis labels of the given data ranges, which grow to round bounds. */
ra_frame ra_frame_begin(ra_buf *out, const ra_plot *plot, double x_low, double x_high, double y_low, double y_high,
                        const char *const *name, const ra_colour *colour, const bool *dashed, int n);
/* Pixels of a value, kept within the frame; NaN stays NaN, as does a value <= 0 on a log axis. */
double ra_frame_x(const ra_frame *f, double x);
double ra_frame_y(const ra_frame *f, double y);

/* "10^e" with real superscripts, for an axis label. */
void ra_power_of_ten(ra_buf *out, int exponent);

#endif
