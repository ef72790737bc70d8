/* What a reader is opened with: the keys under data, read and checked. */
#ifndef RA_DATA_OPTIONS_H
#define RA_DATA_OPTIONS_H
#include "files.h"
#include "schema.h"

typedef enum { RA_KEEP_ROWS, RA_DROP_ROWS, RA_REFUSE_ROWS } ra_row_policy;

typedef struct {
    ra_data_files files;
    char **entry; /* (n_entries) of data.path */
    int n_entries;
    ra_schema_kind schema; /* RA_SCHEMA_NONE: by the keys */
    bool prompts_only;
    ra_columns columns;
    double *weight; /* (n_entries) share of the rows that is drawn, 0 to 1 */
    int64_t *cap;   /* (n_entries) rows at most; INT64_MAX: no cap */
    uint64_t seed;  /* of the draw */
    int64_t malformed_limit, max_rows, row_limit;
    ra_row_policy empty, identical;
} ra_data_options;

/* Schema and entries; everything else at its default. RA_ERR_ARG, RA_ERR_IO. `out` is to be freed in the case of success alone. */
ra_err ra_data_options_make(const char *const *paths, int n_paths, const char *stdin_path, const char *schema,
                            ra_data_options *out);
ra_err ra_data_options_read(const ra_settings *s, ra_data_options *out);
void ra_data_options_free(ra_data_options *o);
/* Opens a reader and takes over `o`, in the case of failure too. */
ra_err ra_prefdata_open_options(ra_data_options *o, ra_prefdata **out);

#endif
