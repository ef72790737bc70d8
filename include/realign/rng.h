/* Counter-based random numbers: Philox4x32-10 (Salmon et al., 2011). The value depends on (seed, stream, counter) alone,
 * so every rank can draw the same numbers, or its own, without talking. */
#ifndef REALIGN_RNG_H
#define REALIGN_RNG_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t seed, stream, counter;
    uint32_t block[4];
    int used; /* words of `block` already handed out; 4 = none left */
} ra_rng;

/* Streams in use; a new purpose takes a new number. */
enum {
    RA_STREAM_SHUFFLE = 1,
    RA_STREAM_GOLD = 2,
    RA_STREAM_SAMPLE = 3,
    RA_STREAM_INIT = 4,
    RA_STREAM_LORA = 5,
    RA_STREAM_SPLIT = 6,
    RA_STREAM_TEST = 7,
    RA_STREAM_BOOTSTRAP = 8,
    RA_STREAM_NOISE = 9,
    RA_STREAM_DRAW = 10,
    RA_STREAM_RETRY = 12,
    RA_STREAM_CORRECTION = 13
};

ra_rng ra_rng_make(uint64_t seed, uint64_t stream);
uint32_t ra_rng_u32(ra_rng *rng);
uint64_t ra_rng_u64(ra_rng *rng);
double ra_rng_uniform(ra_rng *rng);                         /* [0, 1), 53 bits */
double ra_rng_normal(ra_rng *rng);                          /* mean 0, variance 1 (Box-Muller, one of the pair) */
uint64_t ra_rng_below(ra_rng *rng, uint64_t bound);         /* [0, bound), without bias; bound > 0 */
void ra_rng_shuffle(ra_rng *rng, int64_t *items, size_t n); /* Fisher-Yates */

#endif
