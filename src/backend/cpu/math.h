/* Elementary functions the compiler can vectorise, without -ffast-math: errors of about one unit in the last place, NaN stays NaN. */
#ifndef RA_CPU_MATH_H
#define RA_CPU_MATH_H
#include <realign/dtype.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* e^x by 2^n p(r), |r| <= ln 2 / 2, p a degree-7 Taylor polynomial; 0 below -87.3, infinity above 88.7. */
static inline float cpu_exp(float x)
{
    float t = x < -87.3f ? -87.3f : x > 88.8f ? 88.8f : x;
    float n = __builtin_rintf(t * 1.44269504088896341f);
    float r = t - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t half = (int32_t)n >> 1, rest = (int32_t)n - half; /* 2^n in two factors: n = 128 has no float of its own */
    uint32_t b0 = (uint32_t)(half + 127) << 23, b1 = (uint32_t)(rest + 127) << 23;
    float s0, s1;
    memcpy(&s0, &b0, sizeof s0);
    memcpy(&s1, &b1, sizeof s1);
    float y = p * s0 * s1;
    return x < -87.3f ? 0.0f : x != x ? x : y;
}

static inline float cpu_tanh(float x)
{
    float e = cpu_exp(2.0f * (x > 9.5f ? 9.5f : x < -9.5f ? -9.5f : x));
    float big = 1.0f - 2.0f / (e + 1.0f), x2 = x * x;
    float small = x * (1.0f + x2 * (-1.0f / 3.0f + x2 * (2.0f / 15.0f - x2 * (17.0f / 315.0f)))); /* no cancellation near 0 */
    return x2 < 0.01f ? small : x != x ? x : big;
}

static inline float cpu_sigmoid(float x)
{
    return 1.0f / (1.0f + cpu_exp(-x));
}

/* Sixteen at a time: wider than the processor's registers is split by the compiler. */
typedef float cpu_v16 __attribute__((vector_size(64), aligned(4)));
typedef float cpu_v8 __attribute__((vector_size(32)));
typedef float cpu_v4 __attribute__((vector_size(16)));
typedef uint32_t cpu_u16 __attribute__((vector_size(64), aligned(2), may_alias));

/* 32 elements as two vectors, in an order that is each type's own and the same for every load and store: bf16 pairs split into their low and high halves. */
static inline void cpu_load32_f32(const float *p, cpu_v16 *x, cpu_v16 *y)
{
    *x = *(const cpu_v16 *)p;
    *y = *(const cpu_v16 *)(p + 16);
}
static inline void cpu_load32_bf16(const ra_bf16 *p, cpu_v16 *x, cpu_v16 *y)
{
    cpu_u16 pairs = *(const cpu_u16 *)p;
    *x = (cpu_v16)(pairs << 16);
    *y = (cpu_v16)(pairs & 0xffff0000u);
}
static inline float cpu_sum16(cpu_v16 x)
{
    cpu_v8 a =
        __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    cpu_v4 c = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (c[0] + c[2]) + (c[1] + c[3]);
}

/* Loads and stores of type A, by overloading on the pointer. */
static inline float cpu_load_f32(const float *p)
{
    return *p;
}
static inline void cpu_store_f32(float *p, float x)
{
    *p = x;
}
static inline float cpu_load_bf16(const ra_bf16 *p)
{
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline void cpu_store_bf16(ra_bf16 *p, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    *p = (ra_bf16)(x != x ? quiet : rounded);
}

static inline void cpu_store32_f32(float *p, cpu_v16 x, cpu_v16 y)
{
    for (int i = 0; i < 16; i++) p[i] = x[i], p[i + 16] = y[i];
}
static inline void cpu_store32_bf16(ra_bf16 *p, cpu_v16 x, cpu_v16 y)
{
    for (int i = 0; i < 16; i++) {
        cpu_store_bf16(p + 2 * i, x[i]);
        cpu_store_bf16(p + 2 * i + 1, y[i]);
    }
}

#endif
