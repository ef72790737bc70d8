/* Layers to pipeline stages: against all splits there are, on random costs with many ties and on the shapes of real models; lists given by hand. */
#include "support/archs.h"
#include "support/support.h"

#include <realign/mem.h>
#include <realign/rng.h>
#include <realign/split.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LAYERS = 48, MOST_STAGES = 48 };

/* What a split is judged by. */
typedef struct {
    double work, bytes, squares;
} score;

static bool better(score a, score b)
{
    const double near = 1.0 + 1e-9;
    if (a.work * near < b.work || b.work * near < a.work) return a.work < b.work;
    if (a.bytes * near < b.bytes || b.bytes * near < a.bytes) return a.bytes < b.bytes;
    return a.squares * near < b.squares;
}

typedef struct {
    const ra_cost *layer;
    int32_t layers, stages;
    ra_cost first, last;
    const ra_split_model *model;
    int32_t begin[MOST_STAGES + 1];
    score best;
    int64_t splits;
} search;

static score score_of(const search *x, const int32_t *begin)
{
    score of = {0};
    for (int32_t s = 0; s < x->stages; s++) {
        ra_cost c = {0};
        for (int32_t i = begin[s]; i < begin[s + 1]; i++) c = ra_cost_add(c, x->layer[i]);
        if (s == 0) c = ra_cost_add(c, x->first);
        if (s == x->stages - 1) c = ra_cost_add(c, x->last);
        const double held = x->model->held ? x->model->held[s] : 1.0;
        const double bytes = ra_cost_bytes(&c, &x->model->work, &x->model->memory, held);
        of.work = fmax(of.work, ra_cost_work(&c));
        of.bytes = fmax(of.bytes, bytes);
        of.squares += bytes * bytes;
    }
    return of;
}

/* Every split of the layers from stage s on. */
static void try_all(search *x, int32_t s)
{
    if (s == x->stages) {
        x->begin[s] = x->layers;
        score of = score_of(x, x->begin);
        if (x->splits++ == 0 || better(of, x->best)) x->best = of;
        return;
    }
    for (int32_t i = s == 0 ? 0 : x->begin[s - 1] + 1; i < x->layers && (s > 0 || i == 0); i++) {
        x->begin[s] = i;
        try_all(x, s + 1);
    }
}

static void check_split(const ra_split *split, search *x)
{
    assert_int_equal(split->stages, x->stages);
    assert_int_equal(split->begin[0], 0);
    assert_int_equal(split->begin[x->stages], x->layers);
    for (int32_t s = 0; s < x->stages; s++) assert_true(split->begin[s] < split->begin[s + 1]);
    score of = score_of(x, split->begin), claimed = {0};
    for (int32_t s = 0; s < x->stages; s++) {
        claimed.work = fmax(claimed.work, ra_cost_work(&split->cost[s]));
        claimed.bytes = fmax(claimed.bytes, split->bytes[s]);
    }
    check_close(claimed.work, of.work, 1e-12, 0, "work of the stages");
    check_close(claimed.bytes, of.bytes, 1e-12, 0, "bytes of the stages");
    x->splits = 0;
    try_all(x, 0);
    assert_true(x->splits > 0);
    check_close(of.work, x->best.work, 1e-12, 0, "largest work against all splits");
    check_close(of.bytes, x->best.bytes, 1e-12, 0, "largest memory against all splits of that work");
    check_close(of.squares, x->best.squares, 1e-12, 0, "evenness against all splits of that work and memory");
}

static double random_below(ra_rng *rng, uint64_t n)
{
    return (double)ra_rng_below(rng, n);
}

/* Costs are small whole numbers, so that many splits tie. */
static void random_costs(void **state)
{
    (void)state;
    ra_rng rng = ra_rng_make(5, RA_STREAM_TEST);
    for (int trial = 0; trial < 3000; trial++) {
        ra_cost layer[10];
        double held[10];
        const int32_t layers = 1 + (int32_t)ra_rng_below(&rng, 10), ranks = 1 + (int32_t)ra_rng_below(&rng, 4),
                      chunks = 1 + (int32_t)ra_rng_below(&rng, 2);
        const uint64_t range = trial % 3 == 0 ? 1000 : 4;
        for (int32_t i = 0; i < layers; i++) {
            layer[i] = (ra_cost){.forward = 1.0 + random_below(&rng, range),
                                 .weight = random_below(&rng, 2),
                                 .again = random_below(&rng, 2),
                                 .parameters = 1 + (int64_t)ra_rng_below(&rng, range),
                                 .kept_a = (int64_t)ra_rng_below(&rng, 3)};
            held[i] = 1.0 + random_below(&rng, 4);
        }
        const ra_split_model model = {.work = {.training = RA_TRAIN_FULL},
                                      .memory = {.a_size = 2, .r_size = 4, .rows = 2, .shards = 1},
                                      .held = trial % 2 ? held : NULL};
        search x = {.layer = layer,
                    .layers = layers,
                    .stages = ranks * chunks,
                    .first = {.parameters = (int64_t)ra_rng_below(&rng, 5)},
                    .last = {.input = random_below(&rng, 5), .parameters = (int64_t)ra_rng_below(&rng, 5)},
                    .model = &model};
        ra_split split;
        ra_err err = ra_split_costs(layer, layers, &x.first, &x.last, &model, ranks, chunks, &split);
        if (x.stages > layers) {
            assert_int_equal(err, RA_ERR_ARG);
            continue;
        }
        CHECK_OK(err);
        check_split(&split, &x);
        ra_split_free(&split);
    }
}

static void real_shapes(void **state)
{
    (void)state;
    static const double shares[] = {0.0, 0.3, 0.8};
    for (int k = 0; k < TEST_ARCHS; k++) {
        ra_arch a = test_arch_parse(k);
        for (int variant = 0; variant < 9; variant++) {
            const ra_lora_config lora = {.rank = 32, .targets = (1u << RA_PROJECTIONS) - 1};
            const double held[4] = {4.0, 3.0, 2.0, 1.0};
            const int32_t ranks = variant < 3 ? 2 : 4;
            const ra_split_model model = {.work = {.training = variant < 6 ? RA_TRAIN_FULL : RA_TRAIN_ADAPTER,
                                                   .lora = lora,
                                                   .context = 150.0,
                                                   .head_share = shares[variant % 3]},
                                          .memory = {.a_size = 2, .r_size = 4, .rows = 8192, .shards = 2},
                                          .held = ranks == 4 ? held : NULL};
            ra_cost layer[MOST_LAYERS];
            for (int32_t i = 0; i < a.layers; i++) layer[i] = ra_cost_layer(&a, i, &model.work);
            search x = {.layer = layer,
                        .layers = a.layers,
                        .stages = ranks,
                        .first = ra_cost_embedding(&a, &model.work),
                        .last = ra_cost_head(&a, &model.work, true),
                        .model = &model};
            ra_split split;
            CHECK_OK(ra_split_make(&a, &model, ranks, 1, &split));
            check_split(&split, &x);
            char *text = ra_split_text(&split);
            print_message("# %s, %s, head at %.0f %% of the rows: %s, slowest stage %.3f of the mean\n", test_archs[k].name,
                          variant < 6 ? "full" : "LoRA", 100.0 * shares[variant % 3], text, ra_split_imbalance(&split));
            free(text);
            ra_split_free(&split);
        }
        ra_arch_free(&a);
    }
}

/* 5 like layers on 3 ranks: 2 at most each way, so memory decides; rank 0 holds most activations and gets one layer. */
static void ties_go_to_memory(void **state)
{
    (void)state;
    const ra_cost one = {.forward = 1.0, .kept_a = 1}, nothing = {0};
    const ra_cost layer[5] = {one, one, one, one, one};
    const ra_split_model model = {.work = {.training = RA_TRAIN_FULL},
                                  .memory = {.a_size = 2, .r_size = 4, .rows = 1, .shards = 1},
                                  .held = (const double[]){3.0, 2.0, 1.0}};
    ra_split split;
    CHECK_OK(ra_split_costs(layer, 5, &nothing, &nothing, &model, 3, 1, &split));
    char *text = ra_split_text(&split);
    assert_string_equal(text, "1,2,2");
    check_close(ra_split_imbalance(&split), 6.0 / 5.0, 1e-15, 0, "imbalance");
    free(text);
    ra_split_free(&split);
}

static const ra_split_model plain = {.work = {.training = RA_TRAIN_FULL, .head_share = 0.8},
                                     .memory = {.a_size = 2, .r_size = 4, .rows = 1024, .shards = 1}};

/* The head of a tied model on one rank is the embedding; on two it is a copy. */
static void ends(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_GEMMA2_9B);
    const int64_t copy = (int64_t)a.vocabulary * a.hidden;
    for (int32_t ranks = 1; ranks <= 2; ranks++) {
        ra_split split;
        int64_t parameters = 0;
        CHECK_OK(ra_split_make(&a, &plain, ranks, 2, &split));
        for (int32_t s = 0; s < split.stages; s++) parameters += split.cost[s].parameters;
        assert_int_equal(parameters, test_archs[TEST_GEMMA2_9B].parameters + (ranks > 1 ? copy : 0));
        ra_split_free(&split);
    }
    ra_split split;
    CHECK_OK(ra_split_make(&a, &plain, 21, 2, &split)); /* a layer each */
    for (int32_t s = 0; s < 42; s++) assert_int_equal(split.begin[s], s);
    ra_split_free(&split);
    CHECK_OK(ra_split_make(&a, &plain, 1, 1, &split));
    assert_int_equal(split.begin[1], 42);
    ra_split_free(&split);
    check_fails(ra_split_make(&a, &plain, 43, 1, &split), RA_ERR_ARG, "42 layers for 43 pipeline ranks x 1 chunks", "up to 42",
                NULL);
    check_fails(ra_split_make(&a, &plain, 0, 1, &split), RA_ERR_ARG, "1 or more", NULL);
    check_fails(ra_split_make(&a, &plain, 65536, 65536, &split), RA_ERR_ARG, "up to 42", NULL);
    assert_null(split.begin);
    ra_arch_free(&a);
}

static void by_hand(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_LLAMA31_8B);
    ra_split split, made;
    CHECK_OK(ra_split_parse("9,8,8,7", &a, &plain, 4, 1, &split));
    static const int32_t begin[] = {0, 9, 17, 25, 32};
    assert_memory_equal(split.begin, begin, sizeof begin);
    ra_split_free(&split);
    CHECK_OK(ra_split_make(&a, &plain, 4, 2, &made)); /* what is written is read again, to the same costs */
    char *text = ra_split_text(&made);
    CHECK_OK(ra_split_parse(text, &a, &plain, 4, 2, &split));
    assert_memory_equal(split.begin, made.begin, 9 * sizeof *made.begin);
    assert_memory_equal(split.bytes, made.bytes, 8 * sizeof *made.bytes);
    assert_memory_equal(split.cost, made.cost, 8 * sizeof *made.cost);
    free(text);
    ra_split_free(&split);
    ra_split_free(&made);
    check_fails(ra_split_parse("8,8,8,9", &a, &plain, 4, 1, &split), RA_ERR_ARG, "8,8,8,9", "add up to 33", "32 layers", NULL);
    check_fails(ra_split_parse("16,16", &a, &plain, 4, 1, &split), RA_ERR_ARG, "2 entries for 4 stages", NULL);
    check_fails(ra_split_parse("8,8,8,4,4", &a, &plain, 4, 1, &split), RA_ERR_ARG, "5 entries for 4 stages", NULL);
    check_fails(ra_split_parse("16,0,8,8", &a, &plain, 4, 1, &split), RA_ERR_ARG, "entry 2 is \"0\"", "from 1 to 32", NULL);
    check_fails(ra_split_parse("16,,8,8", &a, &plain, 4, 1, &split), RA_ERR_ARG, "entry 2 is \"\"", NULL);
    check_fails(ra_split_parse("16,8,8,", &a, &plain, 4, 1, &split), RA_ERR_ARG, "entry 4 is \"\"", NULL);
    check_fails(ra_split_parse("16,8,8x", &a, &plain, 3, 1, &split), RA_ERR_ARG, "entry 3 is \"8x\"", NULL);
    check_fails(ra_split_parse("", &a, &plain, 1, 1, &split), RA_ERR_ARG, "entry 1 is \"\"", NULL);
    check_fails(ra_split_parse("99999999999999999999", &a, &plain, 1, 1, &split), RA_ERR_ARG, "entry 1", NULL);
    check_fails(ra_split_parse("32", &a, &plain, 33, 1, &split), RA_ERR_ARG, "32 layers for 33", NULL);
    assert_null(split.begin);
    ra_arch_free(&a);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_costs), cmocka_unit_test(real_shapes),
                                       cmocka_unit_test(ties_go_to_memory), cmocka_unit_test(ends), cmocka_unit_test(by_hand)};
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
