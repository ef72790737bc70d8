/* A run directory with made-up numbers, for tests of the report.
 * usage: make_run DIR [--report]     writes every file that a run leaves; with --report its report.html too
 *        make_run DIR --only-report  the report of what is in DIR */
#include <realign/file.h>
#include <realign/h5.h>
#include <realign/report.h>
#include <realign/rng.h>
#include <realign/settings.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 420, PROMPTS = 160, STEPS = 90, CATEGORIES = 4, RULES = 4 };

static const char *const categories[CATEGORIES] = {"cooking", "health & <b>safety</b>", "money", "travel"};
static const char *const rules[RULES] = {"one-paragraph", "no-hedging", "no-closing-question", "\"quoted\" & <i>odd</i>"};

static uint64_t draw(uint64_t salt, int64_t i, uint64_t below)
{
    ra_rng rng = ra_rng_make(salt, (uint64_t)i);
    return ra_rng_below(&rng, below);
}

/* Roughly normal, mean 0, standard deviation 1. */
static double normal(uint64_t salt, int64_t i)
{
    double sum = -6.0;
    ra_rng rng = ra_rng_make(salt, (uint64_t)i);
    for (int k = 0; k < 12; k++) sum += (double)ra_rng_below(&rng, 1000000) * 1e-6;
    return sum;
}

static void must(ra_err err)
{
    if (err != RA_OK) ra_die("%s", ra_error_message());
}

static ra_h5 *create(const char *dir, const char *name)
{
    char *path = ra_path_join(dir, name);
    ra_h5 *h5 = NULL;
    must(ra_h5_create(path, NULL, &h5));
    free(path);
    return h5;
}

static void put(ra_h5 *h5, const char *name, hid_t type, int64_t rows, int64_t width, const void *data)
{
    must(ra_h5_write_all(h5, name, type, width > 1 ? 2 : 1, (const int64_t[2]){rows, width}, data, "made up", "1"));
}

static void finish(ra_h5 *h5)
{
    must(ra_h5_write_provenance(h5, NULL, NULL));
    must(ra_h5_commit(h5));
}

static void write_text(const char *dir, const char *name, const ra_buf *text)
{
    char *path = ra_path_join(dir, name);
    must(ra_file_write(path, text->data, text->length));
    free(path);
}

/* ---- triage.h5, store.h5, weights.h5 ---- */

static int8_t status[ROWS], action[ROWS], c_w[ROWS], c_l[ROWS];

static void judge_rows(void)
{
    for (int64_t i = 0; i < ROWS; i++) {
        uint64_t fate = draw(1, i, 100), pair = draw(2, i, 100);
        status[i] = fate < 3 ? 1 : fate < 5 ? 2 : fate < 20 ? 3 : fate < 21 ? 4 : 0;
        bool read = status[i] != 1 && status[i] != 2;
        c_w[i] = read ? pair >= 65 : -1;
        c_l[i] = read ? pair < 40 || pair >= 85 : -1;
        action[i] = status[i] ? -1 : c_w[i] ? 2 : c_l[i] ? 0 : 1;
    }
}

static void make_triage(const char *dir)
{
    int16_t rule_w[ROWS], rule_l[ROWS], category[ROWS];
    int64_t id[ROWS];
    for (int64_t i = 0; i < ROWS; i++) {
        id[i] = i;
        rule_w[i] = c_w[i] == 0 ? (int16_t)draw(3, i, RULES) : -1;
        rule_l[i] = c_l[i] == 0 ? (int16_t)draw(4, i, RULES - 1) : -1;
        category[i] = (int16_t)draw(5, i, CATEGORIES + 1) - 1;
    }
    ra_h5 *h5 = create(dir, "triage.h5");
    put(h5, "/sample_id", H5T_NATIVE_INT64, ROWS, 1, id);
    put(h5, "/status", H5T_NATIVE_INT8, ROWS, 1, status);
    put(h5, "/action", H5T_NATIVE_INT8, ROWS, 1, action);
    put(h5, "/c_w", H5T_NATIVE_INT8, ROWS, 1, c_w);
    put(h5, "/c_l", H5T_NATIVE_INT8, ROWS, 1, c_l);
    put(h5, "/rule_w", H5T_NATIVE_INT16, ROWS, 1, rule_w);
    put(h5, "/rule_l", H5T_NATIVE_INT16, ROWS, 1, rule_l);
    put(h5, "/category", H5T_NATIVE_INT16, ROWS, 1, category);
    must(ra_h5_write_strings(h5, "/rules", rules, RULES, "rules"));
    must(ra_h5_write_strings(h5, "/categories", categories, CATEGORIES, "categories"));
    static const char *const texts[][2] = {{"policy", "short-and-plain"},
                                           {"oracle", "rules"},
                                           {"oracle_hash", "fc5a8182376439b0"},
                                           {"data_hash", "9226628966fe8cfbae0196ff74f4a859"},
                                           {"schema", "pairs"}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) must(ra_h5_write_attr_text(h5, "/", texts[i][0], texts[i][1]));
    finish(h5);
}

static void make_store(const char *dir)
{
    int32_t state[ROWS];
    for (int64_t i = 0; i < ROWS; i++) state[i] = status[i] == 1 || status[i] == 2 ? status[i] : draw(6, i, 60) == 0 ? 4 : 0;
    ra_h5 *h5 = create(dir, "store.h5");
    put(h5, "sample/state", H5T_NATIVE_INT32, ROWS, 1, state);
    static const char *const made_from[] = {"data.path=input/data/demo_pairs.jsonl", "template=chatml", "data.max_tokens=256"};
    must(ra_h5_write_strings(h5, "depends_on", made_from, 3, "made from"));
    must(ra_h5_write_attr_text(h5, "/", "content_hash", "0123456789abcdef0123456789abcdef"));
    finish(h5);
}

static void make_weights(const char *dir)
{
    double weight[ROWS], raw[ROWS], total = 0.0;
    int32_t length[ROWS][3];
    int64_t conflicts = 0, positive = 0;
    for (int64_t i = 0; i < ROWS; i++) {
        for (int k = 0; k < 3; k++) length[i][k] = k < 2 ? (int32_t)(20 + draw(7 + (uint64_t)k, i, 180)) : 0;
        bool conflict = action[i] == 0 || action[i] == 1;
        raw[i] =
            conflict ? exp(0.6 * normal(9, i)) * (0.4 + 0.004 * (length[i][0] + length[i][1])) - (action[i] ? 0.75 : 0.3) : NAN;
        weight[i] = conflict ? fmax(0.0, raw[i]) : 0.0;
        total += weight[i];
        conflicts += conflict;
        positive += weight[i] > 0.0;
    }
    for (int i = 0; i < ROWS; i++) weight[i] *= (double)conflicts / total;
    ra_h5 *h5 = create(dir, "weights.h5");
    put(h5, "weight", H5T_NATIVE_DOUBLE, ROWS, 1, weight);
    put(h5, "raw", H5T_NATIVE_DOUBLE, ROWS, 1, raw);
    put(h5, "length", H5T_NATIVE_INT32, ROWS, 3, length);
    must(ra_h5_write_attr_text(h5, "/", "normalise", "mean"));
    must(ra_h5_write_attr_text(h5, "/", "hidden_type", "bf16"));
    static const char *const names[] = {"average_weight", "length_correlation", "target_norm", "self_check"};
    static const double values[] = {1.0, 0.37, 41.25, 3.1e-6};
    for (int i = 0; i < 4; i++) must(ra_h5_write_attr_f64(h5, "/", names[i], values[i]));
    must(ra_h5_write_attr_i64(h5, "/", "conflicts", conflicts));
    must(ra_h5_write_attr_i64(h5, "/", "positive", positive));
    must(ra_h5_write_attr_i64(h5, "/", "gold_size", 66));
    finish(h5);
}

/* ---- evaluate.h5 and generations ---- */

static void put_interval(ra_h5 *h5, const char *name, double value, double low, double high)
{
    char *ends[] = {ra_strdup(name), ra_format("%s_low", name), ra_format("%s_high", name)};
    const double values[] = {value, low, high};
    for (int i = 0; i < 3; i++) {
        must(ra_h5_write_attr_f64(h5, "/", ends[i], values[i]));
        free(ends[i]);
    }
}

static void make_evaluation(const char *dir)
{
    double row[CATEGORIES][12], drift[2][100];
    int64_t violations[RULES][2] = {{52, 14}, {35, 12}, {19, 18}, {3, 1}};
    int8_t verdict[PROMPTS] = {0};
    for (int i = 0; i < CATEGORIES; i++) {
        ra_interval a = ra_interval_share(8 + 3 * i, 40), b = ra_interval_share(38 - 4 * i, 40);
        const double values[12] = {40,
                                   a.value,
                                   a.low,
                                   a.high,
                                   40,
                                   b.value,
                                   b.low,
                                   b.high,
                                   b.value - a.value,
                                   b.low - a.value,
                                   b.high - a.value,
                                   i == 3 ? 0.21 : 1.7e-7 * (1 + 100 * i)};
        memcpy(row[i], values, sizeof values);
    }
    for (int i = 0; i < 100; i++) {
        drift[0][i] = -80.0 + 10.0 * normal(20, i);
        drift[1][i] = drift[0][i] - 0.3 + 0.9 * normal(21, i);
    }
    ra_h5 *h5 = create(dir, "evaluate.h5");
    ra_interval before = ra_interval_share(51, PROMPTS), after = ra_interval_share(115, PROMPTS);
    put_interval(h5, "tpa_before", before.value, before.low, before.high);
    put_interval(h5, "tpa_after", after.value, after.low, after.high);
    put_interval(h5, "tpa_change", 0.4, 0.31, 0.49);
    static const char *const names[] = {"judged_before",     "judged_after",          "mcnemar_p",
                                        "retain_drift",      "retain_drift_absolute", "retain_drift_per_token",
                                        "perplexity_before", "perplexity_after"};
    static const double values[] = {PROMPTS, PROMPTS, 3.2e-15, -0.31, 0.74, -0.0042, 14.21, 14.36};
    for (int i = 0; i < 8; i++) must(ra_h5_write_attr_f64(h5, "/", names[i], values[i]));
    must(ra_h5_write_attr_i64(h5, "/", "improved", 71));
    must(ra_h5_write_attr_i64(h5, "/", "worsened", 7));
    must(ra_h5_write_attr_i64(h5, "/", "perplexity_tokens", 20480));
    put(h5, "before/verdict", H5T_NATIVE_INT8, PROMPTS, 1, verdict);
    put(h5, "after/verdict", H5T_NATIVE_INT8, PROMPTS, 1, verdict);
    must(ra_h5_write_strings(h5, "rules", rules, RULES, "rules"));
    put(h5, "rule_violations", H5T_NATIVE_INT64, RULES, 2, violations);
    must(ra_h5_write_strings(h5, "categories", categories, CATEGORIES, "categories"));
    put(h5, "category_tpa", H5T_NATIVE_DOUBLE, CATEGORIES, 12, row);
    put(h5, "retain/reference_logp", H5T_NATIVE_DOUBLE, 100, 1, drift[0]);
    put(h5, "retain/trained_logp", H5T_NATIVE_DOUBLE, 100, 1, drift[1]);
    finish(h5);
}

static void make_generations(const char *dir)
{
    static const char *const sides[] = {"generations-before.jsonl", "generations-after.jsonl"};
    for (int side = 0; side < 2; side++) {
        ra_buf text = {0};
        for (int i = 0; i < 20; i++) {
            ra_buf_addf(
                &text,
                "{\"id\":%d,\"category\":%s,\"prompt\":\"How do I boil an egg? <script>document.title='broken'</script> (%d)\","
                "\"response\":\"%s\",\"tokens\":12,\"stopped\":true,\"verdict\":%s,\"rule\":%s,\"key\":\"k\"}\n",
                i, i % 3 ? "\"cooking\"" : "null", i,
                side ? "Eight minutes in boiling water." : "HIDDEN-ANSWER \\u0007\\nPerhaps you might want <img src=x> a list?",
                i % 5 == 4 ? "null"
                : side     ? "1"
                           : "0",
                side || i % 5 == 4 ? "null" : "\"no-hedging\"");
        }
        write_text(dir, sides[side], &text);
        ra_buf_free(&text);
    }
}

/* ---- text files ---- */

static void make_steps(const char *dir)
{
    ra_buf t = {0};
    ra_buf_adds(&t,
                "step\tepoch\tsamples\ttokens\tlr\tloss\tloss_invert\tloss_punish\tloss_pair\tkl\tn_invert\tn_punish\tn_retain\t"
                "n_pair\tmargin_invert\tmargin_punish\tmargin_pair\taccuracy_invert\taccuracy_punish\taccuracy_pair\t"
                "drift_retain\tgrad_norm\tseconds\ttokens_per_s\tunknown_column\n");
    for (int i = 1; i <= STEPS; i++) {
        double x = (double)i / STEPS, noise = normal(30, i), gap = draw(31, i, 6) == 0 ? NAN : 0.0;
        ra_buf_addf(
            &t,
            "%d\t0\t%d\t1210\t%.9g\t%.6g\t%.6g\t%.6g\tnan\t%.6g\t2\t1\t1\t0\t%.6g\t%.6g\tnan\t%.6g\t%.6g\tnan\t%.6g\t%.6g\t"
            "1.27\t952\tx\n",
            i, 4 * i, 2e-4 * (x < 0.1 ? x / 0.1 : 0.5 + 0.5 * cos(3.14159 * (x - 0.1) / 0.9)),
            fabs(2.1 * exp(-2.0 * x) + 0.15 * noise), fabs(0.69 * exp(-2.5 * x) + 0.04 * noise) + gap,
            1.39 * exp(-1.2 * x) + 0.08 * normal(32, i), 0.006 * x * (1.0 + 0.3 * noise), 9.0 * x + noise + gap,
            4.0 * x + normal(33, i), i > 8 && noise > -1.2 ? 1.0 : 0.5, i > 20 || noise > 0 ? 1.0 : 0.0, -0.4 * x + 0.1 * noise,
            3.0 * exp(-x) + 0.5 * fabs(noise));
    }
    ra_buf_adds(&t, "91\t0\tcut of");
    write_text(dir, "steps.tsv", &t);
    ra_buf_free(&t);
}

static void make_texts(const char *dir)
{
    ra_buf t = {0};
    ra_buf_adds(&t, "stage\ttimer\tcalls\tmin_s\tmean_s\tmax_s\n"
                    "prepare\tprepare\t1\t0.404\t0.405\t0.408\nprepare\trender and tokenise\t2\t0.0756\t0.0776\t0.0791\n"
                    "triage\ttriage\t1\t0.1319\t0.1320\t0.1324\nweigh\tgold batch\t1\t7.11\t7.31\t7.52\n"
                    "weigh\tconflicts\t1\t21.05\t22.21\t23.70\ntrain\tforward\t90\t31.2\t33.0\t35.9\n"
                    "train\tbackward\t90\t61.3\t64.2\t66.0\ntrain\treduce\t90\t0.81\t2.92\t6.03\n"
                    "train\tforward\t4\t1.2\t1.3\t1.4\nevaluate\tanswers before\t1\t40.9\t41.0\t41.2\n"
                    "evaluate\tanswers after\t1\t33.4\t33.5\t33.6\n");
    write_text(dir, "timers.tsv", &t);
    ra_buf_clear(&t);
    ra_buf_adds(&t, "{\"valid\": false, \"reasons\": [\"train: step 7: the gradient is not finite <b>(made up)</b>\"]}\n");
    write_text(dir, "verdict.json", &t);
    ra_buf_clear(&t);
    ra_settings *s = ra_settings_new();
    must(ra_set_put(s, "model", "models/SmolLM2-135M-Instruct"));
    must(ra_set_put(s, "policy", "input/policies/<new>.yaml"));
    ra_settings_write_yaml(s, &t);
    write_text(dir, "used.yaml", &t);
    ra_settings_free(s);
    ra_buf_free(&t);
}

int main(int argc, char **argv)
{
    ra_comm world;
    const char *mode = argc > 2 ? argv[2] : "";
    if (argc < 2) return 2;
    must(ra_comm_init(&argc, &argv, &world));
    if (strcmp(mode, "--only-report") != 0) {
        must(ra_dir_make(argv[1]));
        judge_rows();
        make_triage(argv[1]);
        make_store(argv[1]);
        make_weights(argv[1]);
        make_evaluation(argv[1]);
        make_generations(argv[1]);
        make_steps(argv[1]);
        make_texts(argv[1]);
    }
    if (*mode) must(ra_report_write(argv[1], 12));
    ra_comm_finalize();
    return 0;
}
