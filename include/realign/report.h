/* report.html: what a run directory holds, as one page for people. Not collective throughout. */
#ifndef REALIGN_REPORT_H
#define REALIGN_REPORT_H
#include <realign/error.h>
#include <realign/mem.h>
#include <realign/plot.h>
#include <stdbool.h>
#include <stdint.h>

/* Reads dir and writes dir/report.html, at most `samples` texts in it. What is missing or damaged is named in its section; only an unreadable directory and a failed
 * write are errors. */
ra_err ra_report_write(const char *dir, int64_t samples);

/* Writes the picture of a schedule with these costs (ra_plot_schedule) as an SVG file of its own. `unit` names the unit of time; NULL: "time". RA_ERR_DATA, RA_ERR_IO. */
ra_err ra_report_write_schedule(const char *path, const ra_schedule *s, const ra_schedule_costs *costs, const char *unit);

/* ---- text for HTML and SVG ---- */
/* Escapes < > & " ' ; bytes that are not UTF-8, and control characters other than tab and newline, become U+FFFD. */
void ra_html_text(ra_buf *out, const char *text);
/* "12,345". */
void ra_html_count(ra_buf *out, int64_t value);
/* `digits` significant digits, a real minus sign, powers of ten as such; an en dash where it is not finite. */
void ra_html_real(ra_buf *out, double value, int digits);

/* ---- statistics ---- */
/* A share of n and Wilson's 95 % interval; all NaN where n is 0. */
ra_interval ra_interval_share(int64_t yes, int64_t n);
/* Pearson's correlation over the pairs that are finite; NaN where there are fewer than 3 or no spread. */
double ra_correlation(const double *x, const double *y, int64_t n);

/* ---- tables of tab-separated values ---- */
typedef struct {
    char *text; /* the file, cut into cells */
    int64_t rows;
    int columns;
    char **name; /* (columns) */
    char **cell; /* (rows, columns); "" where a line is short */
} ra_table;
/* The first line names the columns. A last line without its newline was being written when the run ended, and is left out. RA_ERR_IO, RA_ERR_FORMAT. */
ra_err ra_table_read(const char *path, ra_table *out);
void ra_table_free(ra_table *t);
/* (rows) a column as numbers, NaN where it is not one; NULL where there is no such column. Free with ra_free. */
double *ra_table_reals(const ra_table *t, const char *name);
/* A cell, or "" where there is no such column. */
const char *ra_table_cell(const ra_table *t, int64_t row, const char *name);

#endif
