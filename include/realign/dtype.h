/* Element types of tensors in memory and in files. bf16 and f16 are converted with round to nearest even. */
#ifndef REALIGN_DTYPE_H
#define REALIGN_DTYPE_H
#include <realign/error.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum { RA_DTYPE_F64, RA_DTYPE_F32, RA_DTYPE_F16, RA_DTYPE_BF16 } ra_dtype;

typedef uint16_t ra_bf16;

size_t ra_dtype_size(ra_dtype dtype);
const char *ra_dtype_name(ra_dtype dtype); /* "F32", as in safetensors headers */
/* n elements from one type to another; buffers do not overlap. Multi-threaded for large n. */
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

#endif
