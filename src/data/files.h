/* The files that entries of data.path stand for. */
#ifndef RA_DATA_FILES_H
#define RA_DATA_FILES_H
#include <realign/error.h>

typedef struct {
    char *path;
    int origin; /* the entry */
} ra_data_file;

typedef struct {
    ra_data_file *file;
    int n;
} ra_data_files;

#define RA_STDIN_FILE "stdin.data" /* below run.dir: what came on standard input */

/* `stdin_path` stands for the entry "-"; NULL: there is no such entry to be had. RA_ERR_IO, RA_ERR_ARG. */
ra_err ra_data_files_list(const char *const *paths, int n, const char *stdin_path, ra_data_files *out);
void ra_data_files_free(ra_data_files *files);

#endif
