/* The reference against numbers computed elsewhere: PyTorch 2.9.1 in float64 (functional gelu, silu, rms_norm, softmax, kl_div; optim.AdamW; attention
 * written out with tanh soft-cap; rotate_half as in Hugging Face's Llama). agree.c hangs every other backend on the reference. */
#include "support/op_run.h"
#include "support/support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static ra_backend *b;

static int open_ref(void **state)
{
    (void)state;
    return ra_backend_open("ref", "fp64", 0, &b) == RA_OK ? 0 : -1;
}

static int close_ref(void **state)
{
    (void)state;
    ra_backend_close(b);
    return 0;
}

static void check_all(const char *what, const double *got, const double *want, int n)
{
    for (int i = 0; i < n; i++) check_close(got[i], want[i], 1e-13, 1e-14, what);
}

static void test_glu(void **state)
{
    (void)state;
    double gate_up[] = {-6, -1.5, -0.3, 0, 0.7, 2, 9, 1, 1, 1, 1, 1, 1, 1}, h[7];
    const double gelu[] = {
        -8.43964897967453e-11, -0.10042842301976707, -0.11462907645724074, 0, 0.5305701347051167, 1.954597694087775, 9};
    const double silu[] = {-0.014835738939808647, -0.2736382857095345, -0.1276672449565023, 0,
                           0.46773144051771626,   1.7615941559557646,  8.998889448816124};
    b->ops->glu(b, 1, 7, RA_GLU_GELU_TANH, gate_up, h);
    check_all("gelu_tanh", h, gelu, 7);
    b->ops->glu(b, 1, 7, RA_GLU_SILU, gate_up, h);
    check_all("silu", h, silu, 7);
}

static void test_rmsnorm(void **state)
{
    (void)state;
    const double x[] = {0.5, -1, 2, 3}, w[] = {1, 0.5, -2, 0.25};
    const double plain[] = {0.26490609961523515, -0.26490609961523515, -2.119248796921881, 0.3973591494228527};
    const double plus_one[] = {0.5298121992304703, -0.7947182988457054, -1.0596243984609406, 1.9867957471142637};
    double y[4], rstd;
    b->ops->rmsnorm(b, 1, 4, x, w, false, 1e-5, y, &rstd);
    check_all("rmsnorm, gain w", y, plain, 4);
    b->ops->rmsnorm(b, 1, 4, x, w, true, 1e-5, y, &rstd);
    check_all("rmsnorm, gain 1 + w", y, plus_one, 4);
}

static void test_rope(void **state)
{
    (void)state;
    double cosine[] = {1, 1, cos(0.3), cos(1.1)}, sine[] = {0, 0, sin(0.3), sin(1.1)}, x[] = {1, 2, 3, 4};
    const double want[] = {0.0687758691415874, -2.657637197394587, 3.1615296740381575, 3.59679920582518};
    const int32_t position = 1;
    b->ops->rope(b, 1, 1, 4, &position, cosine, sine, false, x, 4);
    check_all("rope", x, want, 4);
}

static void test_attention(void **state)
{
    (void)state;
    static const int32_t forest[][2] = {{-1, 2}, {0, 1}, {-1, -1}};
    const double qkv[] = {0.1,  0.9, -0.4, 0.3, 0.8, -0.5, 1,   2,    -0.7, 0.2, 0.6, 1.1,
                          -0.3, 0.4, -1,   0.5, 1.2, -0.6, 0.2, -0.9, 0.5,  0.7, 0.3, -2};
    const double capped[] = {1,
                             2,
                             1,
                             2,
                             -0.313883224896055,
                             1.0145875813279588,
                             -0.11454243079311738,
                             1.164093176905162,
                             0.4704926840481741,
                             0.6195576369024598,
                             0.329903441798241,
                             0.6809978543319518};
    const double capped_lse[] = {-0.25645640653651447, -0.323823834853425, 0.6219298243905679,
                                 0.7658153428393485,   1.3881279004940974, 1.084793429634555};
    const double plain[] = {1,
                            2,
                            1,
                            2,
                            -0.32076534615843216,
                            1.0094259903811758,
                            -0.11498912627521168,
                            1.1637581552935912,
                            0.4989152750295813,
                            0.6872768518191623,
                            0.33503988109438554,
                            0.6933538884529598};
    double out[12], lse[6];
    ra_pack pack = op_pack(forest); /* a prompt and its only response: the same as one sequence */
    b->ops->attention(b, &pack, &(ra_attention){2, 1, 2, 0.7, 1.5, 0}, qkv, out, lse);
    check_all("attention, soft-cap 1.5", out, capped, 12);
    check_all("attention, soft-cap 1.5, lse", lse, capped_lse, 6);
    b->ops->attention(b, &pack, &(ra_attention){2, 1, 2, 0.7, 0, 0}, qkv, out, lse);
    check_all("attention", out, plain, 12);
    op_pack_free(&pack);
}

/* The last row of a sequence, from the cache, is the last row of the pack. */
static void test_attention_cached(void **state)
{
    (void)state;
    enum { LENGTH = 6, KV = 2, DIM = 4, HEADS = 4, WIDTH = (HEADS + 2 * KV) * DIM };
    static const int32_t forest[][2] = {{-1, LENGTH}, {-1, -1}};
    ra_pack pack = op_pack(forest);
    ra_attention a = {HEADS, KV, DIM, 0.5, 2, 4};
    ra_rng rng = ra_rng_make(5, RA_STREAM_TEST);
    double qkv[LENGTH * WIDTH], out[LENGTH * HEADS * DIM], lse[LENGTH * HEADS], cache[2 * LENGTH * KV * DIM], cached[HEADS * DIM];
    for (int i = 0; i < LENGTH * WIDTH; i++) qkv[i] = ra_rng_normal(&rng);
    for (int t = 0; t < LENGTH; t++) {
        memcpy(cache + t * KV * DIM, qkv + t * WIDTH + HEADS * DIM, KV * DIM * sizeof(double));
        memcpy(cache + (LENGTH + t) * KV * DIM, qkv + t * WIDTH + (HEADS + KV) * DIM, KV * DIM * sizeof(double));
    }
    b->ops->attention(b, &pack, &a, qkv, out, lse);
    const int32_t slot = 0;
    for (int32_t length = 1; length <= LENGTH; length++) {
        b->ops->attention_cached(b, 1, &a, qkv + (length - 1) * WIDTH, WIDTH, cache, 2 * LENGTH * KV * DIM, LENGTH * KV * DIM,
                                 &slot, &length, cached);
        check_all("attention_cached", cached, out + (length - 1) * HEADS * DIM, HEADS * DIM);
    }
    op_pack_free(&pack);
}

/* A tree whose first segment lies in the cache gives what the whole tree in the pack gives. */
static void test_attention_prefixed(void **state)
{
    (void)state;
    enum { ROOT = 9, REST = 11, LENGTH = ROOT + REST, KV = 2, DIM = 4, HEADS = 4, WIDTH = (HEADS + 2 * KV) * DIM, SLOT = 12 };
    static const int32_t whole[][2] = {{-1, ROOT}, {0, 5}, {1, 2}, {1, 4}, {-1, -1}},
                         rest[][2] = {{-1, 5}, {0, 2}, {0, 4}, {-1, -1}};
    ra_pack pack = op_pack(whole), after = op_pack(rest);
    ra_rng rng = ra_rng_make(6, RA_STREAM_TEST);
    double qkv[LENGTH * WIDTH], out[LENGTH * HEADS * DIM], lse[LENGTH * HEADS], cache[2 * 2 * SLOT * KV * DIM] = {0};
    double prefixed[REST * HEADS * DIM];
    for (int i = 0; i < LENGTH * WIDTH; i++) qkv[i] = ra_rng_normal(&rng);
    double *slot1 = cache + 2 * SLOT * KV * DIM;
    for (int t = 0; t < ROOT; t++) {
        memcpy(slot1 + t * KV * DIM, qkv + t * WIDTH + HEADS * DIM, KV * DIM * sizeof(double));
        memcpy(slot1 + (SLOT + t) * KV * DIM, qkv + t * WIDTH + (HEADS + KV) * DIM, KV * DIM * sizeof(double));
    }
    for (int t = 0; t < REST; t++) after.position[t] += ROOT;
    const int32_t slot = 1, length = ROOT;
    const ra_cached_prefix prefix = {cache, 2 * SLOT * KV * DIM, SLOT * KV * DIM, &slot, &length};
    for (int window = 0; window <= 12; window += 6) {
        ra_attention a = {HEADS, KV, DIM, 0.5, 2, window};
        b->ops->attention(b, &pack, &a, qkv, out, lse);
        b->ops->attention_prefixed(b, &after, &a, &prefix, qkv + ROOT * WIDTH, prefixed);
        check_all("attention_prefixed", prefixed, out + ROOT * HEADS * DIM, REST * HEADS * DIM);
    }
    op_pack_free(&pack);
    op_pack_free(&after);
}

static void test_head(void **state)
{
    (void)state;
    const double z[] = {1, -2, 0.5, 3, 0, 0.25, -1, 2}, z_ref[] = {0.5, -1, 0, 2, 1, 1, -3, 0.5};
    const double log_prob[] = {-0.20225344767935172, -2.0566728225110755}, kl[] = {0.05788459395956588, 0.6477913523083672};
    const int32_t target[] = {3, 1};
    double maximum[2], sum[2] = {0}, target_logit[2], maximum_ref[2], sum_ref[2] = {0}, weighted[2] = {0};
    for (int i = 0; i < 2; i++) maximum[i] = maximum_ref[i] = -INFINITY;
    for (int v0 = 0; v0 < 4; v0 += 2) { /* two blocks of two */
        double block[4] = {z[v0], z[v0 + 1], z[4 + v0], z[5 + v0]};
        double block_ref[4] = {z_ref[v0], z_ref[v0 + 1], z_ref[4 + v0], z_ref[5 + v0]};
        b->ops->softmax_update(b, 2, 2, v0, 0, block, target, maximum, sum, target_logit);
        b->ops->kl_update(b, 2, 2, 0, block, block_ref, maximum_ref, sum_ref, weighted);
    }
    for (int i = 0; i < 2; i++) {
        double lse = maximum[i] + log(sum[i]), lse_ref = maximum_ref[i] + log(sum_ref[i]);
        check_close(target_logit[i] - lse, log_prob[i], 1e-13, 0, "log p");
        check_close(weighted[i] / sum_ref[i] - lse_ref + lse, kl[i], 1e-13, 0, "KL");
    }
}

/* Two steps at lr 0.01, betas 0.9 and 0.99, eps 1e-6, decay 0.1, gradients halved. */
static void test_adamw(void **state)
{
    (void)state;
    const double g[2][3] = {{0.5, -1, 2}, {0.25, 0.75, -1}};
    double m[3] = {0}, v[3] = {0}, w[3] = {1, -2, 0.5};
    const double want_m[] = {0.035, -0.0075, 0.04}, want_v[] = {0.000775, 0.00388125, 0.0124};
    const double want_w[] = {0.978676607242384, -1.9851182054537675, 0.48634351907781476};
    for (int t = 0; t < 2; t++) {
        ra_adamw h = {0.01, 0.9, 0.99, 1e-6, 0.1, 1 - pow(0.9, t + 1), 1 - pow(0.99, t + 1), 0.5};
        b->ops->adamw(b, 3, &h, g[t], m, v, w);
    }
    check_all("m", m, want_m, 3);
    check_all("v", v, want_v, 3);
    check_all("w", w, want_w, 3);
}

/* The registry: what auto means, what is refused and with which words. */
static void test_registry(void **state)
{
    (void)state;
    ra_backend *opened = NULL;
    CHECK_OK(ra_backend_open("ref", "auto", 0, &opened));
    assert_string_equal(opened->name, "ref");
    assert_string_equal(opened->precision, "fp64");
    assert_int_equal(opened->a_size, 8);
    assert_int_equal(opened->r_size, 8);
    assert_non_null(strstr(ra_backend_describe(opened), "ref fp64"));
    ra_backend_close(opened);
    CHECK_OK(ra_backend_open("auto", "fp32", 0, &opened));
    assert_string_equal(opened->name, "cpu");
    assert_int_equal(opened->a_size, 4);
    ra_backend_close(opened);
    check_fails(ra_backend_open("ref", "fp32", 0, &opened), RA_ERR_UNSUPPORTED, "ref", "fp32", "ref fp64", NULL);
    assert_null(opened);
    check_fails(ra_backend_open("cpu", "fp64", 0, &opened), RA_ERR_UNSUPPORTED, "cpu fp32", "cpu bf16", NULL);
    check_fails(ra_backend_open("tpu", "auto", 0, &opened), RA_ERR_UNSUPPORTED, "tpu", "cpu", "ref", NULL);
    ra_backend_close(NULL);
}

/* No backend leaves an operator out. */
static void test_complete(void **state)
{
    (void)state;
    for (int i = 0; i < op_instance_count; i++) {
        const char *why = NULL;
        ra_backend *instance = op_open(&op_instances[i], &why);
        if (!instance) {
            printf("# %s %s: %s\n", op_instances[i].name, op_instances[i].precision, why);
            continue;
        }
        void (*op[sizeof *instance->ops / sizeof(void (*)(void))])(void);
        memcpy(op, instance->ops, sizeof op);
        for (size_t j = 0; j < sizeof op / sizeof *op; j++) {
            if (!op[j])
                fail_msg("%s %s: operator %zu of %zu is missing", instance->name, instance->precision, j, sizeof op / sizeof *op);
        }
        ra_backend_close(instance);
    }
}

/* cast_to_a rounds to nearest even, bit for bit as ra_f32_to_bf16; cast_to_r back loses nothing. */
static void test_cast(void **state)
{
    (void)state;
    static const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff}; /* below, at and above the middle between two bf16 */
    static const uint16_t heads[] = {0x0000, 0x0001, 0x3f80, 0x3f81, 0xbf80,
                                     0xc2f7, 0x7f7f, 0x7f80, 0xff80, 0x7fc0}; /* 0, denormal, 1, ..., inf, NaN */
    enum { COUNT = (int)(sizeof tails / sizeof *tails * (sizeof heads / sizeof *heads)) };
    for (int i = 0; i < op_instance_count; i++) {
        const char *why = NULL;
        ra_backend *instance = op_open(&op_instances[i], &why);
        if (!instance || instance->a != RA_DTYPE_BF16) {
            ra_backend_close(instance);
            continue;
        }
        float host[COUNT], back[COUNT];
        ra_bf16 got[COUNT];
        for (int j = 0; j < COUNT; j++) {
            uint32_t bits = (uint32_t)heads[j / 6] << 16 | tails[j % 6];
            memcpy(&host[j], &bits, sizeof bits);
        }
        void *x = instance->ops->alloc(instance, sizeof host), *y = instance->ops->alloc(instance, sizeof got);
        instance->ops->upload(instance, x, host, sizeof host);
        instance->ops->cast_to_a(instance, COUNT, x, y);
        instance->ops->download(instance, got, y, sizeof got);
        instance->ops->cast_to_r(instance, COUNT, y, x);
        instance->ops->download(instance, back, x, sizeof back);
        for (int j = 0; j < COUNT; j++) {
            float want = ra_bf16_to_f32(ra_f32_to_bf16(host[j]));
            if (isnan(want)) {
                assert_true(isnan(back[j]) && isnan(ra_bf16_to_f32(got[j])));
            } else {
                assert_int_equal(got[j], ra_f32_to_bf16(host[j]));
                assert_true(back[j] == want);
            }
        }
        instance->ops->release(instance, x);
        instance->ops->release(instance, y);
        ra_backend_close(instance);
    }
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_cast),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_attention_cached),
        cmocka_unit_test(test_attention_prefixed),
    };
    return cmocka_run_group_tests(tests, open_ref, close_ref);
}
