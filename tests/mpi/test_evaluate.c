/* evaluate on any number of ranks: the same numbers as on one, bit for bit; answers reused where nothing changed; texts of a random model under a small policy. */
#include "../../src/stage/responses.h"
#include "support/support.h"
#include <realign/backend.h>
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/settings.h>
#include <realign/stage.h>
#include <realign/tools.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char config[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 32, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 64, \"vocab_size\": 49152, "
    "\"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"tie_word_embeddings\": true, "
    "\"hidden_act\": \"silu\", \"initializer_range\": 0.5, \"eos_token_id\": 2, \"bos_token_id\": 1, \"torch_dtype\": "
    "\"float32\"}";

static const char policy[] = "name: letters\nrules:\n  - name: short\n    require: {words: {max: 9}}\n"
                             "  - name: no-e\n    category: [b]\n    forbid: {regex: [\"e\"]}\n";

static const char *write_text(const char *dir, const char *name, const char *text)
{
    char *path = ra_path_join(dir, name);
    ra_err err = ra_file_write(path, text, strlen(text));
    free(path);
    return err == RA_OK ? NULL : test_message("%s", ra_error_message());
}

static const char *make_model(const char *config_path, const char *out, const char *seed)
{
    char *tokenizer = ra_path_join(test_shared(), "data/models/smollm2");
    const char *argv[] = {"--random", config_path, "--seed", seed, "--tokenizer", tokenizer, out};
    ra_err err = ra_tool_convert(7, (char **)(uintptr_t)argv);
    free(tokenizer);
    return err == RA_OK ? NULL : test_message("convert: %s", ra_error_message());
}

/* dir: base model, data, policy; dir/one and dir/all: run directories with a trained model each. */
static const char *make_files(const char *dir)
{
    ra_buf pairs = {0}, prompts = {0}, neutral = {0};
    for (int i = 0; i < 30; i++) {
        /* y_w is short or long, y_l always short: all three sets */
        const char *long_answer = "one two three four five six seven eight nine ten eleven", *mixed = i % 3 ? long_answer : "yes";
        ra_buf_addf(&pairs, "{\"prompt\": \"What is %d?\", \"chosen\": \"%s\", \"rejected\": \"%s\", \"category\": \"%s\"}\n", i,
                    mixed, i % 3 == 2 ? long_answer : "no", i % 2 ? "a" : "b");
    }
    for (int i = 0; i < 23; i++)
        ra_buf_addf(&prompts, "{\"prompt\": \"Tell me about number %d\", \"category\": \"%s\"}\n", i * i, i % 3 ? "a" : "b");
    for (int i = 0; i < 300; i++) ra_buf_addf(&neutral, "The river %d flows past the town. ", i);
    const char *failed = write_text(dir, "config.json", config);
    if (!failed) failed = write_text(dir, "policy.yaml", policy);
    if (!failed) failed = write_text(dir, "pairs.jsonl", pairs.data);
    if (!failed) failed = write_text(dir, "prompts.jsonl", prompts.data);
    if (!failed) failed = write_text(dir, "neutral.txt", neutral.data);
    ra_buf_free(&pairs);
    ra_buf_free(&prompts);
    ra_buf_free(&neutral);
    static const char *const models[][2] = {{"base", "1"}, {"one/model", "2"}, {"all/model", "2"}};
    char *config_path = ra_path_join(dir, "config.json");
    for (int i = 0; i < 3 && !failed; i++) {
        char *out = ra_path_join(dir, models[i][0]), *parent = ra_path_join(dir, i == 1 ? "one" : i == 2 ? "all" : ".");
        if (ra_dir_make(parent) != RA_OK) failed = ra_error_message();
        if (!failed) failed = make_model(config_path, out, models[i][1]);
        free(parent);
        free(out);
    }
    free(config_path);
    return failed;
}

static const char *run_stages(const ra_comm *comm, const char *dir, const char *run)
{
    ra_settings *s = ra_settings_new();
    static const char *const keys[][2] = {{"model", "base"},
                                          {"policy", "policy.yaml"},
                                          {"data.path", "pairs.jsonl"},
                                          {"eval.path", "prompts.jsonl"},
                                          {"eval.perplexity_path", "neutral.txt"}};
    ra_err err = ra_set_put(s, "run.dir", run);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && err == RA_OK; i++) {
        char *path = ra_path_join(dir, keys[i][1]);
        err = ra_set_put(s, keys[i][0], path);
        free(path);
    }
    static const char *const values[][2] = {{"precision", "fp32"},   {"backend", "cpu"},     {"max_new_tokens", "12"},
                                            {"generate.batch", "4"}, {"pack.tokens", "128"}, {"run.threads", "1"}};
    for (size_t i = 0; i < sizeof values / sizeof values[0] && err == RA_OK; i++) err = ra_set_put(s, values[i][0], values[i][1]);
    if (err == RA_OK) err = ra_stage_prepare(s, comm);
    if (err == RA_OK) err = ra_stage_triage(s, comm);
    if (err == RA_OK) err = ra_stage_evaluate(s, comm);
    ra_settings_free(s);
    return err == RA_OK ? NULL : test_message("%s", ra_error_message());
}

/* Packs are another on each rank count: the same bits where a row of a product does not depend on its neighbours, else the same but for rounding. */
static double tolerance(void)
{
    ra_backend *b;
    if (ra_backend_open("cpu", "fp32", 1, &b) != RA_OK) return 0.0;
    double allowed = b->row_independent ? 0.0 : 1e-5;
    ra_backend_close(b);
    return allowed;
}

static bool near(double x, double y, double allowed)
{
    return fabs(x - y) <= allowed * fmax(fabs(y), 1.0);
}

static const char *same_attributes(ra_h5 *one, ra_h5 *all)
{
    double allowed = tolerance();
    static const char *const names[] = {"tpa_before",     "tpa_after_low",     "tpa_after_high",   "tpa_change",
                                        "tpa_change_low", "mcnemar_p",         "retain_drift",     "retain_drift_per_token",
                                        "judged_after",   "perplexity_before", "perplexity_after", "tpa_after"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        double x = NAN, y = NAN;
        MPI_EXPECT_OK(ra_h5_read_attr_f64(one, "/", names[i], &x));
        MPI_EXPECT_OK(ra_h5_read_attr_f64(all, "/", names[i], &y));
        MPI_EXPECT(near(x, y, allowed), "%s: %.17g on one rank, %.17g on all", names[i], x, y);
    }
    double drift, change;
    MPI_EXPECT_OK(ra_h5_read_attr_f64(one, "/", "retain_drift", &drift));
    MPI_EXPECT_OK(ra_h5_read_attr_f64(one, "/", "tpa_before", &change));
    MPI_EXPECT(fabs(drift) > 1e-3, "another model, and no drift");
    return NULL;
}

static const char *same_data(ra_h5 *one, ra_h5 *all)
{
    static const char *const names[] = {"prompt",        "before/verdict", "before/rule",           "before/tokens",
                                        "after/verdict", "after/rule",     "after/tokens",          "rule_violations",
                                        "retain/sample", "retain/tokens",  "retain/reference_logp", "retain/trained_logp",
                                        "category_tpa",  "category_of"};
    double x[512], y[512], allowed = tolerance();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int rank;
        int64_t shape[4] = {0};
        MPI_EXPECT_OK(ra_h5_shape(one, names[i], &rank, shape));
        int64_t n = shape[0] * (rank > 1 ? shape[1] : 1);
        MPI_EXPECT(n > 0 && n <= 512, "%s has %lld values", names[i], (long long)n);
        MPI_EXPECT_OK(ra_h5_read(one, names[i], H5T_NATIVE_DOUBLE, 0, -1, x));
        MPI_EXPECT_OK(ra_h5_read(all, names[i], H5T_NATIVE_DOUBLE, 0, -1, y));
        for (int64_t k = 0; k < n; k++)
            MPI_EXPECT(near(x[k], y[k], allowed) || (isnan(x[k]) && isnan(y[k])), "%s[%lld]: %.17g and %.17g", names[i],
                       (long long)k, x[k], y[k]);
    }
    return NULL;
}

/* The answers without their last member, the key: it names the model's files. */
static char *answers(const char *run, const char *name)
{
    char *path = ra_path_join(run, name), *out;
    ra_buf text = {0}, kept = {0};
    if (ra_file_read(path, &text) != RA_OK) ra_buf_adds(&text, "(missing)");
    for (char *at = text.data; *at;) {
        char *key = strstr(at, ",\"key\":"), *end = strchr(at, '\n');
        if (!end) end = at + strlen(at);
        ra_buf_add(&kept, at, (size_t)((key && key < end ? key : end) - at));
        ra_buf_adds(&kept, "\n");
        at = *end ? end + 1 : end;
    }
    out = ra_strdup(kept.data);
    ra_buf_free(&kept);
    ra_buf_free(&text);
    free(path);
    return out;
}

static const char *compare(const char *one, const char *all)
{
    char *path_one = ra_path_join(one, "evaluate.h5"), *path_all = ra_path_join(all, "evaluate.h5");
    ra_h5 *a = NULL, *b = NULL;
    MPI_EXPECT_OK(ra_h5_open(path_one, NULL, &a));
    MPI_EXPECT_OK(ra_h5_open(path_all, NULL, &b));
    MPI_EXPECT_OK(ra_h5_verify_all(b));
    const char *failed = same_attributes(a, b);
    if (!failed) failed = same_data(a, b);
    ra_h5_close(a);
    ra_h5_close(b);
    free(path_one);
    free(path_all);
    static const char *const files[] = {"generations-before.jsonl", "generations-after.jsonl"};
    for (int i = 0; i < 2 && !failed; i++) {
        char *x = answers(one, files[i]), *y = answers(all, files[i]);
        if (strcmp(x, y) != 0 || strlen(x) < 1000) failed = test_message("%s differs, or is short", files[i]);
        free(x);
        free(y);
    }
    return failed;
}

static const char *test_layouts(const ra_comm *world)
{
    if (!test_shared()) {
        if (world->rank == 0) printf("# SKIP: the shared folder with a tokenizer is not here\n");
        return NULL;
    }
    char *dir = test_mpi_dir_make(world), *one = ra_path_join(dir, "one"), *all = ra_path_join(dir, "all");
    const ra_comm alone = {.comm = MPI_COMM_SELF, .rank = 0, .size = 1};
    const char *failed = world->rank == 0 ? make_files(dir) : NULL;
    if (!failed && world->rank == 0) failed = run_stages(&alone, dir, one);
    int broken = failed != NULL;
    ra_comm_bcast(world, &broken, sizeof broken, 0);
    /* the second time answers are read, not generated */
    for (int again = 0; again < 2 && !broken && !failed; again++) {
        failed = run_stages(world, dir, all);
        if (!failed && world->rank == 0) failed = compare(one, all);
        broken = failed != NULL;
        ra_comm_bcast(world, &broken, sizeof broken, 0);
    }
    free(one);
    free(all);
    test_mpi_dir_remove(world, dir);
    return failed;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {{"evaluate gives one rank's numbers on all layouts", test_layouts}};
    return test_mpi_main(argc, argv, tests, 1);
}
