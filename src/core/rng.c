#include <realign/rng.h>

#include <math.h>

static void philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

ra_rng ra_rng_make(uint64_t seed, uint64_t stream)
{
    return (ra_rng){.seed = seed, .stream = stream, .counter = 0, .used = 4};
}

uint32_t ra_rng_u32(ra_rng *rng)
{
    if (rng->used == 4) {
        philox(rng->block, rng->seed, rng->stream, rng->counter++);
        rng->used = 0;
    }
    return rng->block[rng->used++];
}

uint64_t ra_rng_u64(ra_rng *rng)
{
    uint64_t high = ra_rng_u32(rng);
    return high << 32 | ra_rng_u32(rng);
}

double ra_rng_uniform(ra_rng *rng)
{
    return (double)(ra_rng_u64(rng) >> 11) * 0x1p-53;
}

double ra_rng_normal(ra_rng *rng)
{
    double u = 1.0 - ra_rng_uniform(rng), v = ra_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(2.0 * 3.14159265358979323846 * v);
}

uint64_t ra_rng_below(ra_rng *rng, uint64_t bound)
{
    uint64_t reject = -bound % bound; /* 2^64 mod bound values are thrown away, so that the rest divide evenly */
    uint64_t value;
    do {
        value = ra_rng_u64(rng);
    } while (value < reject);
    return value % bound;
}

void ra_rng_shuffle(ra_rng *rng, int64_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)ra_rng_below(rng, i);
        int64_t swap = items[i - 1];
        items[i - 1] = items[j];
        items[j] = swap;
    }
}
