/* Memory: what backends count, what they are known to compute in before they are opened, plans of published shapes, what would fit. */
#include "support/archs.h"
#include "support/support.h"

#include <realign/mem.h>
#include <realign/plan.h>

#include <stdint.h>
#include <string.h>

static const struct {
    const char *name, *precision;
} instances[] = {{"ref", "fp64"}, {"cpu", "fp32"}, {"cpu", "bf16"}};

static void test_count(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof instances / sizeof instances[0]; i++) {
        ra_backend *b;
        CHECK_OK(ra_backend_open(instances[i].name, instances[i].precision, 1, &b));
        assert_int_equal(b->memory.live, 0);
        assert_int_equal(b->memory.peak, 0);
        char *x = b->ops->alloc(b, 1000), *y = b->ops->alloc(b, 70000);
        assert_int_equal(b->memory.live, 71000);
        assert_int_equal((uintptr_t)x % 64 + (uintptr_t)y % 64, 0);
        for (int k = 0; k < 1000; k++) assert_int_equal(x[k], 0);
        for (int k = 0; k < 70000; k++) assert_int_equal(y[k], 0);
        b->ops->release(b, y);
        b->ops->release(b, NULL);
        assert_int_equal(b->memory.live, 1000);
        y = b->ops->alloc(b, 5000);
        assert_int_equal(b->memory.live, 6000);
        assert_int_equal(b->memory.peak, 71000);
        b->ops->release(b, x);
        b->ops->release(b, y);
        assert_int_equal(b->memory.live, 0);
        assert_int_equal(b->memory.peak, 71000);
        ra_backend_close(b);
    }
}

static void test_outline(void **state)
{
    (void)state;
    ra_backend outline, *b;
    for (size_t i = 0; i < sizeof instances / sizeof instances[0]; i++) {
        CHECK_OK(ra_backend_outline(instances[i].name, instances[i].precision, &outline));
        CHECK_OK(ra_backend_open(instances[i].name, instances[i].precision, 1, &b));
        assert_true(outline.a == b->a && outline.r == b->r && outline.a_size == b->a_size && outline.r_size == b->r_size);
        assert_string_equal(outline.precision, b->precision);
        assert_true(outline.a_size == (i == 0 ? 8 : i == 1 ? 4 : 2) && outline.r_size == (i == 0 ? 8 : 4));
        assert_null(outline.ops);
        ra_backend_close(b);
    }
    check_fails(ra_backend_outline("abacus", "auto", &outline), RA_ERR_UNSUPPORTED, "abacus", "ref fp64", NULL);
    check_fails(ra_backend_outline("ref", "bf16", &outline), RA_ERR_UNSUPPORTED, "bf16", NULL);
}

/* Full training in bf16 of packs of 2048 rows. */
static ra_plan_request request_of(const ra_arch *arch, const ra_backend *types, int32_t ranks, int32_t stages)
{
    return (ra_plan_request){
        .types = types,
        .arch = arch,
        .training = RA_TRAIN_FULL,
        .lora = {.rank = 32, .alpha = 16.0, .targets = (1u << RA_PROJECTIONS) - 1},
        .layout = {.ranks = ranks, .stages = stages, .chunks = 1, .layers = "", .schedule = RA_PIPELINE_1F1B, .rows = 2048},
        .work = {.context = 100.0, .head_share = 0.8},
        .needs = {.updates = true},
        .keep = true,
        .longest = 600,
        .positions = 1024,
        .load = {{.backward = true, .rows = 65536.0, .minimum = 4}},
        .loads = 1};
}

static void test_shapes(void **state)
{
    (void)state;
    ra_backend types;
    CHECK_OK(ra_backend_outline("cpu", "bf16", &types));
    for (int i = 0; i < TEST_ARCHS; i++) {
        ra_arch arch = test_arch_parse(i);
        const size_t parameters = (size_t)test_archs[i].parameters;
        ra_plan_request q = request_of(&arch, &types, 1, 1);
        ra_plan plan, less;
        CHECK_OK(ra_plan_make(&q, &plan));
        const size_t *bytes = plan.stage[0].bytes;
        assert_int_equal(bytes[RA_MEMORY_WEIGHTS], 2 * parameters);
        assert_int_equal(bytes[RA_MEMORY_MASTERS], 4 * parameters);
        assert_int_equal(bytes[RA_MEMORY_GRADIENT], 4 * parameters);
        assert_int_equal(bytes[RA_MEMORY_MOMENTS], 8 * parameters);
        assert_int_equal(bytes[RA_MEMORY_ROPE], 2 * 1024 * (size_t)arch.head_dim / 2 * 4);
        assert_int_equal(bytes[RA_MEMORY_DOTS], 2048 * 8);
        assert_int_equal(bytes[RA_MEMORY_MESSAGES], 0);
        assert_int_equal(plan.most, 32);
        for (ra_recompute r = RA_RECOMPUTE_INPUTS; r <= RA_RECOMPUTE_FULL; r++) {
            q.layout.recompute = r;
            CHECK_OK(ra_plan_make(&q, &less));
            assert_true(less.stage[0].total < plan.stage[0].total);
            ra_plan_free(&plan);
            plan = less;
        }
        ra_plan_free(&plan);
        /* GPipe holds what 1F1B hands on: all 8 micro-batches of a replica on every stage */
        q = request_of(&arch, &types, 8, 2);
        q.layout.schedule = RA_PIPELINE_GPIPE;
        CHECK_OK(ra_plan_make(&q, &plan));
        assert_true(plan.most == 8 && plan.stage[0].slots == 8 && plan.stage[1].slots == 8);
        ra_plan_free(&plan);
        ra_arch_free(&arch);
    }
}

static void expect_suggestion(const ra_plan_request *q, const char *key, size_t limit, const char *want)
{
    ra_buf text = {0};
    ra_plan_suggest(q, key, limit, &text);
    if (strncmp(text.data, want, strlen(want)) != 0) fail_msg("%s; expected: %s", text.data, want);
    ra_buf_free(&text);
}

static void test_suggestions(void **state)
{
    (void)state;
    const size_t gib = (size_t)1 << 30;
    ra_backend types;
    CHECK_OK(ra_backend_outline("cpu", "bf16", &types));
    ra_arch arch = test_arch_parse(TEST_LLAMA31_8B);
    ra_plan_request q = request_of(&arch, &types, 1, 1);
    expect_suggestion(&q, "lora.enabled=true", 1000 * gib, "as it is (");
    expect_suggestion(&q, "lora.enabled=true", 142 * gib, "recompute=inputs (");
    expect_suggestion(&q, "lora.enabled=true", 40 * gib, "lora.enabled=true (");
    expect_suggestion(&q, NULL, 100 * gib, "2 ranks grid.pipeline=2 (");
    expect_suggestion(&q, NULL, gib, "nothing that was tried here fits");
    q = request_of(&arch, &types, 4, 1);
    expect_suggestion(&q, NULL, 60 * gib, "recompute=inputs grid.pipeline=2 (");
    q.layout.schedule = RA_PIPELINE_GPIPE;
    q.layout.rows = 512;
    expect_suggestion(&q, NULL, 100 * gib, "recompute=full (");
    /* what was set for other stages, or other copies, is undone */
    q = request_of(&arch, &types, 4, 2);
    q.layout.layers = "16,16";
    expect_suggestion(&q, NULL, 40 * gib, "recompute=full grid.pipeline=4 grid.layers= (");
    q.layout.copies = 2;
    expect_suggestion(&q, NULL, 40 * gib, "recompute=full grid.pipeline=4 grid.layers= grid.data=0 (");
    q.layout.recompute = RA_RECOMPUTE_FULL;
    expect_suggestion(&q, NULL, 60 * gib, "as it is (");
    /* packs no smaller than the longest sample */
    q = request_of(&arch, &types, 1, 1);
    q.training = RA_TRAIN_ADAPTER;
    q.layout.recompute = RA_RECOMPUTE_FULL;
    expect_suggestion(&q, NULL, 18 * gib, "pack.tokens=1024 (");
    q.longest = 1025;
    expect_suggestion(&q, NULL, 18 * gib, "2 ranks");
    ra_arch_free(&arch);
}

/* The longest range of the moments, as every replica of every stage has them; passes longer than a schedule may be. */
static void test_replicas(void **state)
{
    (void)state;
    ra_backend types;
    CHECK_OK(ra_backend_outline("cpu", "bf16", &types));
    ra_arch arch = test_arch_parse(TEST_LLAMA31_8B);
    ra_plan_request q = request_of(&arch, &types, 21, 3);
    ra_plan plan;
    CHECK_OK(ra_plan_make(&q, &plan));
    for (int32_t stage = 0; stage < 3; stage++) {
        ra_pass_shape pass = {.backward = true, .count = plan.most};
        size_t most = 0, least = SIZE_MAX;
        for (int32_t rank = stage; rank < 21; rank += 3) {
            ra_grid grid;
            ra_memory_plan one;
            CHECK_OK(ra_grid_imagine(21, 3, rank, &grid));
            CHECK_OK(ra_plan_rank(&q, &grid, &pass, 1, &one));
            if (one.total > most) most = one.total;
            if (one.total < least) least = one.total;
        }
        assert_true(most > least);
        assert_int_equal(plan.stage[stage].total, most);
    }
    ra_plan_free(&plan);
    q = request_of(&arch, &types, 4, 2);
    q.layout.chunks = 2;
    q.layout.schedule = RA_PIPELINE_INTERLEAVED;
    q.load[0].rows = 1e9;
    CHECK_OK(ra_plan_make(&q, &plan));
    assert_int_equal(plan.most, RA_SCHEDULE_MOST_TAGS / 4);
    ra_plan_free(&plan);
    q.layout.schedule = RA_PIPELINE_1F1B;
    q.keep = false;
    check_fails(ra_plan_make(&q, &plan), RA_ERR_ARG, "grid.chunks", "interleaved", NULL);
    ra_arch_free(&arch);
}

static void test_bytes(void **state)
{
    (void)state;
    static const struct {
        double bytes;
        const char *text;
    } cases[] = {{0.0, "0 B"},          {999.0, "999 B"},      {1000.0, "0.98 KiB"},       {1024.0, "1.00 KiB"},
                 {10240.0, "10.0 KiB"}, {102400.0, "100 KiB"}, {1073741824.0, "1.00 GiB"}, {1.5e12, "1.36 TiB"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ra_buf text = {0};
        ra_plan_write_bytes(&text, cases[i].bytes);
        assert_string_equal(text.data, cases[i].text);
        ra_buf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),       cmocka_unit_test(test_outline),  cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_suggestions), cmocka_unit_test(test_replicas), cmocka_unit_test(test_bytes),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
