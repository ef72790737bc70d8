/* Hashes of content: 128-bit XXH3 (libxxhash), printed as 32 hexadecimal digits. Not cryptographic. */
#ifndef REALIGN_HASH_H
#define REALIGN_HASH_H
#include <realign/error.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t high, low;
} ra_hash;

typedef struct ra_hasher ra_hasher;
ra_hasher *ra_hasher_new(void);
void ra_hasher_add(ra_hasher *h, const void *bytes, size_t n);
ra_hash ra_hasher_end(ra_hasher *h); /* frees h */

ra_hash ra_hash_bytes(const void *bytes, size_t n);
ra_err ra_hash_file(const char *path, ra_hash *out); /* RA_ERR_IO names the file */
void ra_hash_text(ra_hash hash, char text[33]);

#endif
