/* Conversions between element types against the compiler's own _Float16 and against exact cases of rounding. */
#include <realign/dtype.h>
#include <support/support.h>

#include <math.h>
#include <stdlib.h>

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void test_names_and_sizes(void **state)
{
    (void)state;
    assert_string_equal(ra_dtype_name(RA_DTYPE_BF16), "BF16");
    assert_string_equal(ra_dtype_name(RA_DTYPE_F64), "F64");
    assert_int_equal(ra_dtype_size(RA_DTYPE_F64), 8);
    assert_int_equal(ra_dtype_size(RA_DTYPE_F32), 4);
    assert_int_equal(ra_dtype_size(RA_DTYPE_F16), 2);
    assert_int_equal(ra_dtype_size(RA_DTYPE_BF16), 2);
}

static void test_every_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 1u << 16; h++) {
        uint16_t half = (uint16_t)h;
        _Float16 value;
        memcpy(&value, &half, 2);
        float got = ra_f16_to_f32(half);
        if (value != value) {
            assert_true(isnan(got) && isnan(ra_f16_to_f32(ra_f32_to_f16(got))));
        } else {
            assert_int_equal(bits_of(got), bits_of((float)value));
            assert_int_equal(ra_f32_to_f16(got), half);
        }
    }
}

/* 6.7 million floats of every exponent. */
static void test_f32_to_f16_and_bf16(void **state)
{
    (void)state;
    for (uint64_t step = 0; step < 1ull << 32; step += 641) {
        float x = float_of((uint32_t)step);
        uint16_t f16 = ra_f32_to_f16(x), bf16 = ra_f32_to_bf16(x), expected;
        if (x != x) {
            assert_true(isnan(ra_f16_to_f32(f16)) && isnan(ra_bf16_to_f32(bf16)));
            continue;
        }
        _Float16 value = (_Float16)x;
        memcpy(&expected, &value, 2);
        assert_int_equal(f16, expected);
        /* bf16 by definition: of the two neighbours, the nearer; of two equally near, the even one */
        uint32_t low = (uint32_t)step & 0xffff0000u, rest = (uint32_t)step & 0xffffu;
        uint32_t up = rest > 0x8000u || (rest == 0x8000u && (low >> 16 & 1));
        assert_int_equal(bf16, (low >> 16) + up);
    }
}

static void test_f64_rounds_once(void **state)
{
    (void)state;
    /* By way of f32 each of these would first become a tie and then go to the even, wrong side. */
    static const struct {
        double x;
        float bf16, f16;
    } cases[] = {
        {1.0 + 0x1p-8 + 0x1p-40, 1.0f + 0x1p-7f, 1.0f + 0x1p-8f},
        {1.0 + 0x1p-11 + 0x1p-40, 1.0f, 1.0f + 0x1p-10f},
        {-(1.0 + 0x1p-8 + 0x1p-40), -1.0f - 0x1p-7f, -1.0f - 0x1p-8f},
        {1.0 + 0x1p-7 + 0x1p-8 - 0x1p-40, 1.0f + 0x1p-7f, 1.0f + 0x1p-7f + 0x1p-8f},
        {0x1p-25 + 0x1p-70, 0x1p-25f, 0x1p-24f},
        {0x1p-200, 0.0f, 0.0f},
        {1e300, INFINITY, INFINITY},
        {-1e300, -INFINITY, -INFINITY},
        {65519.99999999999, 65536.0f, 65504.0f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ra_bf16 b;
        ra_f16 h;
        ra_dtype_convert(RA_DTYPE_BF16, &b, RA_DTYPE_F64, &cases[i].x, 1);
        ra_dtype_convert(RA_DTYPE_F16, &h, RA_DTYPE_F64, &cases[i].x, 1);
        if (bits_of(ra_bf16_to_f32(b)) != bits_of(cases[i].bf16))
            fail_msg("%.17g to bf16: %g", cases[i].x, (double)ra_bf16_to_f32(b));
        if (bits_of(ra_f16_to_f32(h)) != bits_of(cases[i].f16))
            fail_msg("%.17g to f16: %g", cases[i].x, (double)ra_f16_to_f32(h));
    }
    double nan = NAN;
    ra_bf16 b;
    ra_dtype_convert(RA_DTYPE_BF16, &b, RA_DTYPE_F64, &nan, 1);
    assert_true(isnan(ra_bf16_to_f32(b)));
}

/* Every pair of types, unaligned buffers, more elements than one thread's chunk: widening is exact and back is the same. */
static void test_pairs(void **state)
{
    (void)state;
    enum { N = 400003 };
    static const ra_dtype types[] = {RA_DTYPE_F64, RA_DTYPE_F32, RA_DTYPE_F16, RA_DTYPE_BF16};
    uint8_t *a = malloc(8 * N + 1), *b = malloc(8 * N + 1), *c = malloc(8 * N + 1);
    float *small = malloc(N * sizeof *small);
    for (int i = 0; i < N; i++) small[i] = (float)(i % 255 - 127) * 0.25f; /* exact in all four types */
    for (int from = 0; from < 4; from++) {
        ra_dtype_convert(types[from], a + 1, RA_DTYPE_F32, small, N);
        for (int to = 0; to < 4; to++) {
            ra_dtype_convert(types[to], b + 1, types[from], a + 1, N);
            ra_dtype_convert(RA_DTYPE_F32, c + 1, types[to], b + 1, N);
            assert_memory_equal(c + 1, small, N * sizeof *small);
        }
    }
    free(a);
    free(b);
    free(c);
    free(small);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_sizes), cmocka_unit_test(test_every_f16), cmocka_unit_test(test_f32_to_f16_and_bf16),
        cmocka_unit_test(test_f64_rounds_once), cmocka_unit_test(test_pairs),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
