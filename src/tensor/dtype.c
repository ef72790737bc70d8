#include <realign/dtype.h>

#include <math.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [RA_DTYPE_F64] = {"F64", 8},
    [RA_DTYPE_F32] = {"F32", 4},
    [RA_DTYPE_F16] = {"F16", 2},
    [RA_DTYPE_BF16] = {"BF16", 2},
};

size_t ra_dtype_size(ra_dtype dtype)
{
    return types[dtype].size;
}

const char *ra_dtype_name(ra_dtype dtype)
{
    return types[dtype].name;
}

/* f64 -> f32 rounded to odd: an inexact result keeps its lowest bit set, so that rounding it again to a shorter type gives
 * what one rounding from f64 would have given (24 bits are at least 2 more than f16 and bf16 need). */
static inline float round_to_odd(double x)
{
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((double)f != x && x == x) {
        if (fabs((double)f) > fabs(x)) bits--; /* towards zero: from infinity to the largest finite value as well */
        bits |= 1;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Loads and stores through memcpy: tensors in files have no alignment, and the compiler still vectorises the loops. */
#define CONVERT(name, from_type, to_type, expression)                              \
    static void name(uint8_t *restrict out, const uint8_t *restrict in, int64_t n) \
    {                                                                              \
        for (int64_t i = 0; i < n; i++) {                                          \
            from_type x;                                                           \
            memcpy(&x, in + (size_t)i * sizeof x, sizeof x);                       \
            to_type y = (expression);                                              \
            memcpy(out + (size_t)i * sizeof y, &y, sizeof y);                      \
        }                                                                          \
    }
CONVERT(f64_f32, double, float, (float)x)
CONVERT(f64_f16, double, ra_f16, ra_f32_to_f16(round_to_odd(x)))
CONVERT(f64_bf16, double, ra_bf16, ra_f32_to_bf16(round_to_odd(x)))
CONVERT(f32_f64, float, double, (double)x)
CONVERT(f32_f16, float, ra_f16, ra_f32_to_f16(x))
CONVERT(f32_bf16, float, ra_bf16, ra_f32_to_bf16(x))
CONVERT(f16_f64, ra_f16, double, (double)ra_f16_to_f32(x))
CONVERT(f16_f32, ra_f16, float, ra_f16_to_f32(x))
CONVERT(f16_bf16, ra_f16, ra_bf16, ra_f32_to_bf16(ra_f16_to_f32(x)))
CONVERT(bf16_f64, ra_bf16, double, (double)ra_bf16_to_f32(x))
CONVERT(bf16_f32, ra_bf16, float, ra_bf16_to_f32(x))
CONVERT(bf16_f16, ra_bf16, ra_f16, ra_f32_to_f16(ra_bf16_to_f32(x)))

typedef void (*converter)(uint8_t *restrict out, const uint8_t *restrict in, int64_t n);

static const converter converters[4][4] = {
    [RA_DTYPE_F64] = {[RA_DTYPE_F32] = f64_f32, [RA_DTYPE_F16] = f64_f16, [RA_DTYPE_BF16] = f64_bf16},
    [RA_DTYPE_F32] = {[RA_DTYPE_F64] = f32_f64, [RA_DTYPE_F16] = f32_f16, [RA_DTYPE_BF16] = f32_bf16},
    [RA_DTYPE_F16] = {[RA_DTYPE_F64] = f16_f64, [RA_DTYPE_F32] = f16_f32, [RA_DTYPE_BF16] = f16_bf16},
    [RA_DTYPE_BF16] = {[RA_DTYPE_F64] = bf16_f64, [RA_DTYPE_F32] = bf16_f32, [RA_DTYPE_F16] = bf16_f16},
};

static void convert_chunk(ra_dtype to, uint8_t *out, ra_dtype from, const uint8_t *in, int64_t n)
{
    if (converters[from][to]) {
        converters[from][to](out, in, n);
    } else {
        memcpy(out, in, (size_t)n * ra_dtype_size(from));
    }
}

void ra_dtype_convert(ra_dtype to, void *out, ra_dtype from, const void *in, int64_t n)
{
    enum { CHUNK = 1 << 16 };
    size_t in_size = ra_dtype_size(from), out_size = ra_dtype_size(to);
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    if (chunks <= 4) { /* even a parallel region of one thread costs more than a small conversion */
        if (n > 0) convert_chunk(to, out, from, in, n);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t first = c * CHUNK, count = n - first < CHUNK ? n - first : CHUNK;
        convert_chunk(to, (uint8_t *)out + (size_t)first * out_size, from, (const uint8_t *)in + (size_t)first * in_size, count);
    }
}
