/* Files: whole reads, read-only maps, atomic replacement, directories. Every error names the path. */
#ifndef REALIGN_FILE_H
#define REALIGN_FILE_H
#include <realign/error.h>
#include <realign/mem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool ra_file_exists(const char *path);
bool ra_file_is_dir(const char *path);
/* Appends the whole file to `out`. */
ra_err ra_file_read(const char *path, ra_buf *out);
/* Writes path.part, flushes it to disk and renames it over `path`. */
ra_err ra_file_write(const char *path, const void *bytes, size_t n);
/* Copies a file; keeps nothing half-written. */
ra_err ra_file_copy(const char *from, const char *to);
/* mkdir -p. */
ra_err ra_dir_make(const char *path);
/* Creates the directory and tries to write a file in it, so that a run fails before it computes. */
ra_err ra_dir_try(const char *path);
/* "dir/name", free with free. */
char *ra_path_join(const char *dir, const char *name);

typedef struct {
    const uint8_t *data;
    size_t size;
} ra_map;
/* Maps a whole file read-only. An empty file is an error. */
ra_err ra_map_open(const char *path, ra_map *out);
void ra_map_close(ra_map *map);
/* Gives the pages that were read back to the system; they are read again from the file when touched. */
void ra_map_release_pages(const ra_map *map);

#endif
