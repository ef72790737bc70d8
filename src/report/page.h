/* The page under construction, and its sections. Each section says plainly what it lacks. */
#ifndef RA_REPORT_PAGE_H
#define RA_REPORT_PAGE_H
#include "run_files.h"

typedef struct {
    ra_buf *out;
    const ra_run_files *run;
    int sections, figures, tables;
} ra_page;

/* <section> with a numbered heading; `id` for the contents. */
void ra_page_section(ra_page *p, const char *id, const char *title);
void ra_page_section_end(ra_page *p);
/* A paragraph that says why something is not here. */
void ra_page_absent(ra_page *p, const char *why);
/* <figure>; the caption's HTML is added to p->out between ra_page_caption and ra_page_figure_end. */
void ra_page_figure(ra_page *p, const char *css);
void ra_page_caption(ra_page *p);
void ra_page_figure_end(ra_page *p);
/* A table with its numbered caption, already HTML; ends with ra_page_table_end. Heads: "Name|>Rows|>Share", > for numbers. */
void ra_page_table(ra_page *p, const char *caption, const char *heads);
void ra_page_table_end(ra_page *p);
/* Cells of a row. */
void ra_page_cell_text(ra_page *p, const char *text);
void ra_page_cell_count(ra_page *p, int64_t value);
void ra_page_cell_real(ra_page *p, double value, int digits);
void ra_page_cell_percent(ra_page *p, double share);
/* "54.0 %", "[41.2, 66.3]" of shares; an en dash where there is none. */
void ra_page_percent(ra_buf *out, double share);
void ra_page_bounds(ra_buf *out, const ra_interval *share);
/* "+22.0" points of a difference of shares. */
void ra_page_points(ra_buf *out, double change);

void ra_page_style(ra_buf *out);
void ra_page_agreement(ra_page *p);
void ra_page_triage(ra_page *p);
void ra_page_weights(ra_page *p);
void ra_page_training(ra_page *p);
void ra_page_texts(ra_page *p);
void ra_page_timing(ra_page *p);
void ra_page_provenance(ra_page *p);

/* What triage made of the rows. */
typedef struct {
    int64_t rows, state[RA_ROW_STATES], unusable /* used, but without tokens: empty or too long */, set[RA_SETS];
} ra_row_counts;
ra_row_counts ra_count_rows(const ra_run_files *r);

#endif
