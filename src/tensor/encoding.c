/* Block formats of ggml. Every product below of a scale (an f16 times a small integer) and a quant fits float32's 24 bits, except
 * Q6_K's which is a product only: so fused multiply-adds give the same bits as separate ones. */
#include "encoding.h"

static float half_at(const uint8_t *p)
{
    ra_f16 h;
    memcpy(&h, p, sizeof h);
    return ra_f16_to_f32(h);
}

/* f16 d, 16 bytes of two 4-bit quants: element j in the low half of byte j, j + 16 in the high half. */
static void decode_q4_0(const uint8_t *b, float *y)
{
    float d = half_at(b);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[2 + j] & 15) - 8) * d;
        y[j + 16] = (float)((b[2 + j] >> 4) - 8) * d;
    }
}

/* f16 d, f16 m, 4-bit quants. */
static void decode_q4_1(const uint8_t *b, float *y)
{
    float d = half_at(b), m = half_at(b + 2);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(b[4 + j] & 15) * d + m;
        y[j + 16] = (float)(b[4 + j] >> 4) * d + m;
    }
}

/* f16 d, 32 fifth bits, 4-bit quants. */
static void decode_q5_0(const uint8_t *b, float *y)
{
    float d = half_at(b);
    uint32_t high;
    memcpy(&high, b + 2, sizeof high);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[6 + j] & 15) + (int)((high >> j & 1) << 4) - 16) * d;
        y[j + 16] = (float)((b[6 + j] >> 4) + (int)((high >> (j + 16) & 1) << 4) - 16) * d;
    }
}

/* f16 d, f16 m, 32 fifth bits, 4-bit quants. */
static void decode_q5_1(const uint8_t *b, float *y)
{
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high;
    memcpy(&high, b + 4, sizeof high);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((b[8 + j] & 15) + (int)((high >> j & 1) << 4)) * d + m;
        y[j + 16] = (float)((b[8 + j] >> 4) + (int)((high >> (j + 16) & 1) << 4)) * d + m;
    }
}

/* f16 d, 32 signed bytes. */
static void decode_q8_0(const uint8_t *b, float *y)
{
    float d = half_at(b);
    for (int j = 0; j < 32; j++) y[j] = (float)(int8_t)b[2 + j] * d;
}

/* 16 bytes of 4-bit scale and minimum for 16 elements each, 64 bytes of 2-bit quants, f16 d, f16 dmin. */
static void decode_q2_k(const uint8_t *b, float *y)
{
    const uint8_t *scale = b, *q = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int half = 0; half < 2; half++, q += 32) {
        for (int shift = 0; shift < 8; shift += 2) {
            for (int part = 0; part < 2; part++, scale++) {
                float dl = d * (float)(*scale & 15), ml = dmin * (float)(*scale >> 4);
                for (int l = 0; l < 16; l++) *y++ = dl * (float)(q[16 * part + l] >> shift & 3) - ml;
            }
        }
    }
}

/* 32 bytes of third bits (inverted), 64 bytes of 2-bit quants, 16 6-bit scales in 12 bytes, f16 d. */
static void decode_q3_k(const uint8_t *b, float *y)
{
    const uint8_t *high = b, *q = b + 32, *packed = b + 96;
    float d = half_at(b + 108);
    int scale[16];
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        scale[i] = (low | (packed[8 + i % 4] >> (i / 4 * 2) & 3) << 4) - 32;
    }
    int is = 0, mask = 1;
    for (int half = 0; half < 2; half++, q += 32) {
        for (int shift = 0; shift < 8; shift += 2, mask <<= 1) {
            for (int part = 0; part < 32; part += 16) {
                float dl = d * (float)scale[is++];
                for (int l = part; l < part + 16; l++) *y++ = dl * (float)((q[l] >> shift & 3) - (high[l] & mask ? 0 : 4));
            }
        }
    }
}

/* The j-th of 8 pairs of 6-bit scale and minimum packed in 12 bytes (Q4_K and Q5_K). */
static void scale_and_min(int j, const uint8_t *packed, float *scale, float *minimum)
{
    if (j < 4) {
        *scale = (float)(packed[j] & 63);
        *minimum = (float)(packed[j + 4] & 63);
    } else {
        *scale = (float)((packed[j + 4] & 15) | packed[j - 4] >> 6 << 4);
        *minimum = (float)(packed[j + 4] >> 4 | packed[j] >> 6 << 4);
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 bytes of 4-bit quants. */
static void decode_q4_k(const uint8_t *b, float *y)
{
    float d = half_at(b), dmin = half_at(b + 2), scale, minimum;
    const uint8_t *q = b + 16;
    for (int j = 0; j < 8; j++) {
        scale_and_min(j, b + 4, &scale, &minimum);
        float dl = d * scale, ml = dmin * minimum;
        for (int l = 0; l < 32; l++) *y++ = dl * (float)(q[l] >> (j % 2 * 4) & 15) - ml;
        if (j % 2) q += 32;
    }
}

/* The same with 32 bytes of fifth bits before the quants. */
static void decode_q5_k(const uint8_t *b, float *y)
{
    float d = half_at(b), dmin = half_at(b + 2), scale, minimum;
    const uint8_t *high = b + 16, *q = b + 48;
    for (int j = 0; j < 8; j++) {
        scale_and_min(j, b + 4, &scale, &minimum);
        float dl = d * scale, ml = dmin * minimum;
        for (int l = 0; l < 32; l++) {
            *y++ = dl * (float)((q[l] >> (j % 2 * 4) & 15) + ((high[l] >> j & 1) << 4)) - ml;
        }
        if (j % 2) q += 32;
    }
}

/* 128 bytes of low 4 bits, 64 of high 2 bits, 16 signed scales, f16 d. */
static void decode_q6_k(const uint8_t *b, float *y)
{
    const uint8_t *low = b, *high = b + 128, *scale = b + 192;
    float d = half_at(b + 208);
    for (int half = 0; half < 2; half++, low += 64, high += 32, scale += 8) {
        for (int k = 0; k < 4; k++) {
            for (int l = 0; l < 32; l++) {
                int q = (low[l + 32 * (k % 2)] >> (k / 2 * 4) & 15) | (high[l] >> (2 * k) & 3) << 4;
                *y++ = d * (float)(int8_t)scale[l / 16 + 2 * k] * (float)(q - 32);
            }
        }
    }
}

static const ra_encoding encodings[] = {
    {"F64", 1, 8, RA_DTYPE_F64, 28, 1, NULL},
    {"F32", 1, 4, RA_DTYPE_F32, 0, 1, NULL},
    {"F16", 1, 2, RA_DTYPE_F16, 1, 1, NULL},
    {"BF16", 1, 2, RA_DTYPE_BF16, 30, 1, NULL},
    {"Q4_0", 32, 18, -1, 2, 0, decode_q4_0},
    {"Q4_1", 32, 20, -1, 3, 0, decode_q4_1},
    {"Q5_0", 32, 22, -1, 6, 0, decode_q5_0},
    {"Q5_1", 32, 24, -1, 7, 0, decode_q5_1},
    {"Q8_0", 32, 34, -1, 8, 0, decode_q8_0},
    {"Q2_K", 256, 84, -1, 10, 0, decode_q2_k},
    {"Q3_K", 256, 110, -1, 11, 0, decode_q3_k},
    {"Q4_K", 256, 144, -1, 12, 0, decode_q4_k},
    {"Q5_K", 256, 176, -1, 13, 0, decode_q5_k},
    {"Q6_K", 256, 210, -1, 14, 0, decode_q6_k},
    {"I8", 1, 1, -1, 24, 1, NULL},
    {"I16", 1, 2, -1, 25, 1, NULL},
    {"I32", 1, 4, -1, 26, 1, NULL},
    {"I64", 1, 8, -1, 27, 1, NULL},
    {"U8", 1, 1, -1, -1, 1, NULL},
    {"U16", 1, 2, -1, -1, 1, NULL},
    {"U32", 1, 4, -1, -1, 1, NULL},
    {"U64", 1, 8, -1, -1, 1, NULL},
    {"BOOL", 1, 1, -1, -1, 1, NULL},
    {"F8_E4M3", 1, 1, -1, -1, 1, NULL},
    {"F8_E5M2", 1, 1, -1, -1, 1, NULL},
};
enum { ENCODINGS = sizeof encodings / sizeof encodings[0] };

const ra_encoding *ra_encoding_of_safetensors(const char *dtype)
{
    for (int i = 0; i < ENCODINGS; i++) {
        if (encodings[i].safetensors && strcmp(encodings[i].name, dtype) == 0) return &encodings[i];
    }
    return NULL;
}

const ra_encoding *ra_encoding_of_ggml(uint32_t type)
{
    for (int i = 0; i < ENCODINGS; i++) {
        if (encodings[i].ggml >= 0 && (uint32_t)encodings[i].ggml == type) return &encodings[i];
    }
    return NULL;
}

void ra_encoding_decode(const ra_encoding *encoding, const uint8_t *data, int64_t first, int64_t count, ra_dtype to, void *out)
{
    if (encoding->plain >= 0) {
        ra_dtype_convert(to, out, (ra_dtype)encoding->plain, data + first * encoding->bytes, count);
        return;
    }
    enum { PIECE = 16 * RA_BLOCK_MAX }; /* floats between decoding and conversion; stays in the first cache */
    size_t size = ra_dtype_size(to);
    float values[PIECE];
    int64_t block = first / encoding->block, skip = first % encoding->block;
    for (int64_t done = 0; done < count;) {
        int64_t filled = 0, wanted = skip + count - done < PIECE ? skip + count - done : PIECE;
        for (; filled < wanted; filled += encoding->block, block++)
            encoding->decode(data + block * encoding->bytes, values + filled);
        int64_t n = filled - skip < count - done ? filled - skip : count - done;
        ra_dtype_convert(to, (uint8_t *)out + (size_t)done * size, RA_DTYPE_F32, values + skip, n);
        done += n;
        skip = 0;
    }
}
