/* The bytes of a file, unpacked: plain, gzip or zstd, told apart by their first bytes. */
#ifndef RA_DATA_BYTES_H
#define RA_DATA_BYTES_H
#include <realign/error.h>
#include <stddef.h>

typedef struct ra_bytes ra_bytes;

/* Refuses folders, pipes and formats that are known to hold no JSON text (Parquet, zip, UTF-16 ...) by their first bytes. */
ra_err ra_bytes_open(const char *path, ra_bytes **out);
/* Up to `room` bytes; *n is 0 at the end alone. A read error, or packed data that are damaged or cut off, is RA_ERR_IO. */
ra_err ra_bytes_read(ra_bytes *bytes, char *to, size_t room, size_t *n);
void ra_bytes_close(ra_bytes *bytes);

#endif
