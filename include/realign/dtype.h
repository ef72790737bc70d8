/* Element types of tensors in memory and in files. bf16 and f16 are converted with round to nearest even. */
#ifndef REALIGN_DTYPE_H
#define REALIGN_DTYPE_H
#include <realign/error.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { RA_DTYPE_F64, RA_DTYPE_F32, RA_DTYPE_F16, RA_DTYPE_BF16 } ra_dtype;

typedef uint16_t ra_bf16;

typedef uint16_t ra_f16;

size_t ra_dtype_size(ra_dtype dtype);
const char *ra_dtype_name(ra_dtype dtype); /* "F32", as in safetensors headers */
/* n elements from one type to another, rounded once to nearest even (F64 to BF16 too); a NaN stays a NaN. Buffers do not overlap and
 * need no alignment. Multi-threaded for large n. */
void ra_dtype_convert(ra_dtype to, void *out, ra_dtype from, const void *in, int64_t n);

static inline float ra_bf16_to_f32(ra_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline ra_bf16 ra_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (ra_bf16)(bits >> 16 | 0x40); /* a NaN stays one */
    return (ra_bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float ra_f16_to_f32(ra_f16 x)
{
    uint32_t magnitude = (uint32_t)(x & 0x7fff) << 13, bits = magnitude + (112u << 23); /* exponent bias 15 -> 127 */
    if (magnitude >= 0x7c00u << 13) bits += 112u << 23;                                 /* infinity and NaN: exponent 255 */
    float f;
    if (magnitude < 1u << 23) { /* zero and subnormals: let the FPU normalise (113 << 23 is 2^-14) */
        const float smallest = 0x1p-14f;
        bits += 1u << 23;
        memcpy(&f, &bits, sizeof f);
        f -= smallest;
        memcpy(&bits, &f, sizeof bits);
    }
    bits |= (uint32_t)(x & 0x8000) << 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline ra_f16 ra_f32_to_f16(float f)
{
    uint32_t bits, half;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 143u << 23) { /* 65536 and above */
        half = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x1ffu) : 0x7c00u;
    } else if (magnitude < 113u << 23) { /* subnormal in f16: adding 1/2 aligns the mantissa so that the FPU rounds it */
        float aligned;
        memcpy(&aligned, &magnitude, sizeof aligned);
        aligned += 0.5f;
        memcpy(&half, &aligned, sizeof half);
        half -= 126u << 23;
    } else {
        half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    }
    return (ra_f16)(half | sign);
}

#endif
