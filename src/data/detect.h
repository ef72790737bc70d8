#ifndef RA_DATA_DETECT_H
#define RA_DATA_DETECT_H
#include "options.h"

/* One row's text as JSON; NULL: `why` says what is wrong with it, without quoting it. */
json_t *ra_row_parse(const char *text, size_t n, ra_buf *why);
/* The schema of an entry of data.path, by its keys; RA_SCHEMA_NONE where the entry has no row at all. *columns: o->columns, or ra_no_columns where the rows
 * have a schema without them alone, so that one entry may have other names than the rest. RA_ERR_FORMAT names the keys that were seen and
 * the known schemas, never a text. */
ra_err ra_schema_detect(const ra_data_options *o, int entry, ra_schema_kind *out, const ra_columns **columns);
extern const ra_columns ra_no_columns;

#endif
