/* Tables of tab-separated values. */
#include <realign/file.h>
#include <realign/report.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 1000 };

static int count_cells(const char *line)
{
    int n = 1;
    for (; *line && *line != '\n'; line++) n += *line == '\t';
    return n;
}

/* Cuts a line of `text` into `columns` cells; returns the start of the next line. */
static char *cut_line(char *text, char **cell, int columns)
{
    static char empty[] = "";
    char *end = strchr(text, '\n'), *next = end + 1;
    *end = '\0';
    if (end > text && end[-1] == '\r') end[-1] = '\0';
    for (int c = 0; c < columns; c++) {
        cell[c] = text ? text : empty;
        if (!text) continue;
        text = strchr(text, '\t');
        if (text) *text++ = '\0';
    }
    return next;
}

ra_err ra_table_read(const char *path, ra_table *out)
{
    *out = (ra_table){0};
    ra_buf text = {0};
    ra_err err = ra_file_read(path, &text);
    if (err == RA_OK && (!text.data || !strchr(text.data, '\n') || strlen(text.data) != text.length))
        err = ra_fail(RA_ERR_FORMAT, "%s: not a table: its first line should name the columns, separated by tabs", path);
    int columns = err == RA_OK ? count_cells(text.data) : 0;
    if (columns > MOST_COLUMNS) err = ra_fail(RA_ERR_FORMAT, "%s: %d columns; at most %d are read", path, columns, MOST_COLUMNS);
    if (err != RA_OK) {
        ra_buf_free(&text);
        return err;
    }
    int64_t lines = 0;
    for (const char *p = text.data; (p = strchr(p, '\n')); p++) lines++;
    *out = (ra_table){.text = text.data, .columns = columns};
    out->name = ra_calloc((size_t)columns, sizeof *out->name);
    out->cell = ra_calloc((size_t)lines * (size_t)columns, sizeof *out->cell);
    char *at = cut_line(text.data, out->name, columns);
    for (int64_t i = 1; i < lines; i++) {
        if (*at != '\n') {
            at = cut_line(at, out->cell + out->rows * columns, columns);
            out->rows++;
        } else {
            at++;
        }
    }
    return RA_OK;
}

void ra_table_free(ra_table *t)
{
    free(t->text);
    ra_free(t->name);
    ra_free(t->cell);
    *t = (ra_table){0};
}

static int find_column(const ra_table *t, const char *name)
{
    for (int c = 0; c < t->columns; c++) {
        if (strcmp(t->name[c], name) == 0) return c;
    }
    return -1;
}

double *ra_table_reals(const ra_table *t, const char *name)
{
    int column = find_column(t, name);
    if (column < 0) return NULL;
    double *values = ra_alloc((size_t)t->rows, sizeof *values);
    for (int64_t i = 0; i < t->rows; i++) {
        const char *cell = t->cell[i * t->columns + column];
        char *end;
        values[i] = strtod(cell, &end);
        if (end == cell || *end) values[i] = NAN;
    }
    return values;
}

const char *ra_table_cell(const ra_table *t, int64_t row, const char *name)
{
    int column = find_column(t, name);
    return column < 0 || row < 0 || row >= t->rows ? "" : t->cell[row * t->columns + column];
}
