#include <realign/file.h>
#include <realign/hash.h>

#include <stdio.h>
#include <xxhash.h>

struct ra_hasher {
    XXH3_state_t *state;
};

ra_hasher *ra_hasher_new(void)
{
    ra_hasher *h = ra_calloc(1, sizeof *h);
    h->state = XXH3_createState();
    if (!h->state) ra_die("out of memory for a hash state");
    XXH3_128bits_reset(h->state);
    return h;
}

void ra_hasher_add(ra_hasher *h, const void *bytes, size_t n)
{
    XXH3_128bits_update(h->state, bytes, n);
}

ra_hash ra_hasher_end(ra_hasher *h)
{
    XXH128_hash_t value = XXH3_128bits_digest(h->state);
    XXH3_freeState(h->state);
    ra_free(h);
    return (ra_hash){value.high64, value.low64};
}

ra_hash ra_hash_bytes(const void *bytes, size_t n)
{
    XXH128_hash_t value = XXH3_128bits(bytes, n);
    return (ra_hash){value.high64, value.low64};
}

ra_err ra_hash_file(const char *path, ra_hash *out)
{
    FILE *file = fopen(path, "rb");
    if (!file) return ra_fail(RA_ERR_IO, "%s: %m", path);
    ra_hasher *h = ra_hasher_new();
    enum { CHUNK = 1 << 20 };
    void *chunk = ra_alloc(CHUNK, 1);
    size_t n;
    while ((n = fread(chunk, 1, CHUNK, file)) > 0) ra_hasher_add(h, chunk, n);
    int bad = ferror(file);
    fclose(file);
    ra_free(chunk);
    *out = ra_hasher_end(h);
    return bad ? ra_fail(RA_ERR_IO, "%s: read failed", path) : RA_OK;
}

void ra_hash_text(ra_hash hash, char text[33])
{
    snprintf(text, 33, "%016llx%016llx", (unsigned long long)hash.high, (unsigned long long)hash.low);
}
