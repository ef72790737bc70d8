/* FLOP and byte models: published sizes, formulae worked out by hand, and the memory that a model and its activations really take. */
#include "support/archs.h"
#include "support/support.h"

#include <realign/cost.h>
#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <stdlib.h>
#include <string.h>

static void published_sizes(void **state)
{
    (void)state;
    for (int k = 0; k < TEST_ARCHS; k++) {
        ra_arch a = test_arch_parse(k);
        const ra_workload w = {.training = RA_TRAIN_FULL};
        ra_cost c = ra_cost_model(&a, &w);
        assert_int_equal(c.parameters, test_archs[k].parameters);
        assert_int_equal(c.trainable, test_archs[k].parameters);
        ra_arch_free(&a);
    }
}

/* 6 FLOPs a parameter of every matrix and row, the embedding apart; attention 12 a head's width, key and row; a tied head is computed too. */
static void training(void **state)
{
    (void)state;
    for (int k = 0; k < TEST_ARCHS; k++) {
        ra_arch a = test_arch_parse(k);
        const double h = a.hidden, v = a.vocabulary, q = (double)a.heads * a.head_dim, kv = (double)a.kv_heads * a.head_dim;
        const double layers = a.layers * (h * (q + 2 * kv) + q * h + 3 * h * a.ffn);
        ra_workload w = {.training = RA_TRAIN_FULL, .head_share = 1.0};
        ra_cost c = ra_cost_model(&a, &w);
        check_close(ra_cost_flops(&c), 6.0 * (layers + h * v), 1e-14, 0, test_archs[k].name);
        check_close(c.again, 2.0 * h * v, 1e-14, 0, "the head's logits twice");
        w.head_share = 0.5;
        w.kl_share = 0.25;
        w.context = 100.0;
        c = ra_cost_model(&a, &w);
        check_close(ra_cost_flops(&c), 6.0 * layers + 12.0 * 100.0 * a.layers * q + 3.0 * h * v + 0.5 * h * v, 1e-14, 0,
                    "attention, half the rows scored, a quarter against the reference");
        check_close(ra_cost_work(&c) - ra_cost_flops(&c), 2.0 * 100.0 * a.layers * q + 0.75 * 2.0 * h * v, 1e-13, 0, "again");
        check_close(c.forward, 2.0 * layers + 4.0 * 100.0 * a.layers * q + 0.75 * 2.0 * h * v, 1e-14, 0, "forward");
        w.training = RA_FROZEN;
        ra_cost frozen = ra_cost_model(&a, &w);
        check_close(frozen.forward, c.forward, 0, 0, "forward alone");
        assert_true(ra_cost_work(&frozen) == frozen.forward && frozen.kept_a == 0 && frozen.kept_r == 0 && frozen.trainable == 0);
        ra_arch_free(&a);
    }
}

/* Llama-3.1-8B's layer in figures. */
static void one_layer(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_LLAMA31_8B);
    const ra_workload w = {.training = RA_TRAIN_FULL, .context = 150.0};
    ra_cost c = ra_cost_layer(&a, 0, &w);
    assert_int_equal(c.parameters, 218103808 + 2 * 4096);
    check_close(c.forward, 2.0 * 218103808 + 4.0 * 4096 * 150, 0, 0, "forward");
    check_close(c.input, 2.0 * 218103808 + 8.0 * 4096 * 150, 0, 0, "input");
    check_close(c.weight, 2.0 * 218103808, 0, 0, "weight");
    check_close(c.again, 2.0 * 4096 * 150, 0, 0, "again");
    ra_arch_free(&a);
}

/* LoRA r32 on q and v of Llama-3.1-8B: 13.6 M parameters (as PEFT counts them), no gradients of the base. */
static void adapters(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_LLAMA31_8B);
    const ra_workload w = {
        .training = RA_TRAIN_ADAPTER, .lora = {.rank = 32, .targets = 1u << RA_Q | 1u << RA_V}, .head_share = 1.0};
    ra_cost c = ra_cost_model(&a, &w);
    assert_int_equal(c.trainable, 13631488);
    assert_int_equal(c.parameters, test_archs[TEST_LLAMA31_8B].parameters + 13631488);
    check_close(c.weight, 2.0 * 13631488, 0, 0, "gradients of adapters alone");
    check_close(c.forward, c.input, 0, 0, "without context");
    const ra_workload all = {.training = RA_TRAIN_ADAPTER, .lora = {.rank = 8, .targets = (1u << RA_PROJECTIONS) - 1}};
    assert_int_equal(ra_cost_model(&a, &all).trainable, 20971520); /* as PEFT counts r 8 on all projections */
    ra_arch_free(&a);
}

/* Llama-3.1-8B, LoRA on up and down: gate and up are made again, or all but down's product, unless its adapter reads what it made. */
static void recomputation(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_LLAMA31_8B);
    ra_workload w = {.training = RA_TRAIN_ADAPTER, .lora = {.rank = 32, .targets = 1u << RA_UP}, .context = 150.0};
    const double scores = 2.0 * 4096 * 150, gate_up = 2.0 * (2.0 * 4096 * 14336 + 32.0 * (4096 + 14336)),
                 attention = 2.0 * (4096.0 * 6144 + 4096.0 * 4096) + 2.0 * scores, down = 2.0 * (4096.0 * 14336);
    const double again[] = {scores, scores + gate_up, scores + gate_up + attention};
    for (int k = 0; k < 3; k++) {
        w.recompute = (ra_recompute)k;
        check_close(ra_cost_layer(&a, 0, &w).again, again[k], 1e-14, 0, "made again");
    }
    ra_cost c = ra_cost_layer(&a, 0, &w);
    check_close(c.again + down, scores + c.forward, 1e-14, 0, "a forward pass without its last product");
    w.lora.targets |= 1u << RA_DOWN;
    c = ra_cost_layer(&a, 0, &w);
    check_close(c.again, scores + c.forward, 1e-14, 0, "a whole forward pass");
    ra_arch_free(&a);
}

static void windows(void **state)
{
    (void)state;
    ra_arch a = test_arch_parse(TEST_GEMMA2_9B);
    const ra_workload w = {.context = 6000.0};
    ra_cost windowed = ra_cost_layer(&a, 0, &w), whole = ra_cost_layer(&a, 1, &w);
    check_close(whole.forward - windowed.forward, 4.0 * 4096 * (6000.0 - 4096.0), 1e-12, 0, "beyond the window");
    ra_arch_free(&a);
}

/* ---- against memory really taken ---- */

static ra_model *random_model(ra_backend *b, const char *dir, const char *family, int layers, ra_training training,
                              const ra_lora_config *lora)
{
    char *path = ra_path_join(dir, "config.json"), *model = ra_format("%s/%s-%d-%d", dir, family, layers, (int)training);
    char *config =
        ra_format("{\"model_type\": \"%s\", \"hidden_size\": 48, \"intermediate_size\": 80, \"num_hidden_layers\": %d, "
                  "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16, \"vocab_size\": 64, "
                  "\"max_position_embeddings\": 64, \"tie_word_embeddings\": false}",
                  family, layers);
    char random[] = "--random", seeded[] = "--seed", seed[] = "1";
    char *words[] = {seeded, seed, random, path, model};
    CHECK_OK(ra_file_write(path, config, strlen(config)));
    CHECK_OK(ra_tool_convert(5, words));
    ra_modelfile *file;
    ra_model *m;
    CHECK_OK(ra_modelfile_open(model, &file));
    CHECK_OK(ra_model_open(b, file, training, lora, 64, NULL, &m));
    ra_modelfile_close(file);
    free(path);
    free(model);
    free(config);
    return m;
}

/* Of a layer, as memory for one more or fewer differs. */
static size_t kept_bytes(const ra_model *few, const ra_model *more, int32_t rows, const ra_keeping *keeping)
{
    return ra_activations_bytes(more, rows, keeping) - ra_activations_bytes(few, rows, keeping);
}

static void check_kept(const ra_model *few, const ra_model *more, ra_workload w)
{
    enum { ROWS = 64 }; /* a multiple of what allocations are rounded to */
    for (int k = 0; k < 4; k++) {
        w.recompute = k < 3 ? (ra_recompute)k : RA_RECOMPUTE_NONE;
        w.split = k == 3;
        const ra_keeping keeping = {.keep = true, .slots = 1, .recompute = w.recompute, .split = w.split};
        const ra_cost c = ra_cost_layer(&more->arch, 2, &w);
        assert_int_equal(kept_bytes(few, more, ROWS, &keeping),
                         ROWS * ((size_t)c.kept_a * more->b->a_size + (size_t)c.kept_r * more->b->r_size));
    }
}

/* A layer more takes what the model says: kept activations of every row, parameters, trainable ones. */
static void memory_as_measured(void **state)
{
    (void)state;
    static const char *const families[] = {"llama", "qwen2", "gemma2"};
    ra_lora_config lora = {.rank = 16, .alpha = 16.0, .targets = 1u << RA_Q | 1u << RA_V | 1u << RA_UP | 1u << RA_DOWN};
    ra_backend *b;
    CHECK_OK(ra_backend_open("cpu", "bf16", 1, &b));
    char *dir = test_dir_make();
    for (int k = 0; k < 3; k++) {
        for (int adapted = 0; adapted < 2; adapted++) {
            const ra_training training = adapted ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL;
            ra_model *few = random_model(b, dir, families[k], 2, training, adapted ? &lora : NULL);
            ra_model *more = random_model(b, dir, families[k], 3, training, adapted ? &lora : NULL);
            const ra_workload w = {.training = training, .lora = lora};
            const ra_cost all = ra_cost_model(&more->arch, &w);
            check_kept(few, more, w);
            int64_t held = 0, trainable = 0;
            for (int i = 0; i < more->base.count; i++) held += more->base.param[i].count;
            for (int i = 0; i < more->adapter.count; i++) held += more->adapter.param[i].count;
            for (int i = 0; i < ra_model_trainable(more)->count; i++) trainable += ra_model_trainable(more)->param[i].count;
            assert_int_equal(all.parameters, held);
            assert_int_equal(all.trainable, trainable);
            ra_model_close(few);
            ra_model_close(more);
        }
    }
    test_dir_remove(dir);
    ra_backend_close(b);
}

/* Full training in bf16: 2 bytes a parameter to compute with, 4 the master, 4 the gradient, 8 / shards the moments. */
static void bytes(void **state)
{
    (void)state;
    const ra_cost c = {.parameters = 1000, .trainable = 1000, .kept_a = 10, .kept_r = 3};
    const ra_memory bf16 = {.a_size = 2, .r_size = 4, .rows = 100, .shards = 4},
                    fp32 = {.a_size = 4, .r_size = 4, .rows = 100, .shards = 1};
    ra_workload w = {.training = RA_TRAIN_FULL};
    check_close(ra_cost_bytes(&c, &w, &bf16, 2.0), 1000.0 * (2 + 4 + 4 + 2) + 2.0 * 100 * (10 * 2 + 3 * 4), 0, 0, "bf16");
    check_close(ra_cost_bytes(&c, &w, &fp32, 0.0), 1000.0 * (4 + 4 + 8), 0, 0, "fp32: the master is what is computed with");
    w.training = RA_FROZEN;
    const ra_cost frozen = {.parameters = 1000};
    check_close(ra_cost_bytes(&frozen, &w, &bf16, 5.0), 2000.0, 0, 0, "frozen");
}

int main(int argc, char **argv)
{
    ra_comm world;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    ra_log_setup(0, RA_LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes),    cmocka_unit_test(training), cmocka_unit_test(one_layer),
        cmocka_unit_test(adapters),           cmocka_unit_test(windows),  cmocka_unit_test(recomputation),
        cmocka_unit_test(memory_as_measured), cmocka_unit_test(bytes),
    };
    int failed = cmocka_run_group_tests_name("cost", tests, NULL, NULL);
    ra_comm_finalize();
    return failed;
}
