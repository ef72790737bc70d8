/* Weighing on made-up samples: weights.h5 against explicit gradients of one sample at a time and against central differences, the same on any rank count. */
#include "support/own_runctl.h"
#include "support/passes.h"
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/engine.h>
#include <realign/file.h>
#include <realign/gold.h>
#include <realign/h5.h>
#include <realign/mem.h>
#include <realign/stage.h>
#include <realign/store.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 48, GOLD = 9 };

/* Collective. The same verdict on every rank, so that none goes on alone. */
static bool all_agree(const ra_comm *world, bool mine)
{
    int all = mine;
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, world->comm));
    return all;
}
#define AGREED(condition, ...)                                                 \
    do {                                                                       \
        if (!all_agree(world, condition)) return test_message("" __VA_ARGS__); \
    } while (0)

/* What weights.h5 holds. */
typedef struct {
    double raw[SAMPLES], weight[SAMPLES], reference[SAMPLES * RA_ROLES], norm;
    int64_t conflicts, gold;
} result;

static ra_err read_result(const char *dir, result *r)
{
    char *path = ra_path_join(dir, "weights.h5");
    ra_h5 *h5;
    ra_err err = ra_h5_open(path, NULL, &h5);
    free(path);
    if (err != RA_OK) return err;
    err = ra_h5_read(h5, "raw", H5T_NATIVE_DOUBLE, 0, -1, r->raw);
    if (err == RA_OK) err = ra_h5_read(h5, "weight", H5T_NATIVE_DOUBLE, 0, -1, r->weight);
    if (err == RA_OK) err = ra_h5_read(h5, "reference_logp", H5T_NATIVE_DOUBLE, 0, -1, r->reference);
    if (err == RA_OK) err = ra_h5_read_attr_f64(h5, "/", "target_norm", &r->norm);
    if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "conflicts", &r->conflicts);
    if (err == RA_OK) err = ra_h5_read_attr_i64(h5, "/", "gold_size", &r->gold);
    ra_h5_close(h5);
    return err;
}

typedef struct {
    char *model;
    tiny_run run;
    char *words[8];
    int n;
} set_up;

static set_up set_up_make(const char *family, const char *const *words)
{
    set_up u = {.model = ra_format("%s/fixtures/%s/reference", test_shared(), family)};
    u.run = (tiny_run){.model = u.model, .samples = SAMPLES, .seed = 5};
    for (; words && words[u.n]; u.n++) u.words[u.n] = ra_strdup(words[u.n]);
    return u;
}

static void set_up_free(set_up *u)
{
    for (int i = 0; i < u->n; i++) free(u->words[i]);
    free(u->model);
}

static ra_err weigh_in(const ra_comm *comm, const char *dir, const set_up *u)
{
    ra_settings *s = tiny_run_settings(dir, &u->run, u->words);
    ra_err err = tiny_run_make(comm, dir, &u->run);
    if (err == RA_OK) err = ra_stage_weigh(s, comm);
    ra_settings_free(s);
    return err;
}

/* Largest |a - b| relative to the largest |b| of the conflicts; NaN where only one is a number. */
static double difference(const double *a, const double *b, int n)
{
    double worst = 0.0, scale = 0.0;
    for (int i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (isnan(a[i]) || isnan(b[i])) return NAN;
        worst = fmax(worst, fabs(a[i] - b[i]));
        scale = fmax(scale, fabs(b[i]));
    }
    return worst / scale;
}

/* ---- rank counts ---- */
static const char *layouts(const ra_comm *world)
{
    static const char *const mean_words[] = {"weights.normalise=mean", "gamma=2.5", NULL},
                             *const adapter_words[] = {"lora.enabled=true", "weights.parameters=adapter", NULL},
                             *const cosine_words[] = {"weights.direction=cosine", NULL},
                             *const ref_words[] = {"backend=ref", "precision=fp64", NULL};
    static const struct {
        const char *family;
        const char *const *words;
        double tolerance;
    } cases[] = {{"llama31", NULL, 1e-6},
                 {"gemma2", mean_words, 1e-6},
                 {"llama31", adapter_words, 1e-6},
                 {"qwen25_tied", cosine_words, 1e-6},
                 {"qwen25", ref_words, 1e-12}};
    if (!test_shared()) return NULL;
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = test_mpi_dir_make(world), *one = ra_path_join(dir, "one"), *all = ra_path_join(dir, "all");
        set_up u = set_up_make(cases[i].family, cases[i].words);
        static result a, b;
        MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? weigh_in(&self, one, &u) : RA_OK));
        MPI_EXPECT_OK(weigh_in(world, all, &u));
        RA_MPI(MPI_Barrier(world->comm));
        MPI_EXPECT_OK(ra_comm_agree(world, read_result(one, &a)));
        MPI_EXPECT_OK(ra_comm_agree(world, read_result(all, &b)));
        double d[] = {difference(b.raw, a.raw, SAMPLES), difference(b.weight, a.weight, SAMPLES),
                      difference(b.reference, a.reference, SAMPLES * RA_ROLES)};
        AGREED(d[0] <= cases[i].tolerance && d[1] <= cases[i].tolerance && d[2] <= cases[i].tolerance,
               "%s, case %zu: raw products differ by %.1e, weights by %.1e, log p_ref by %.1e", cases[i].family, i, d[0], d[1],
               d[2]);
        double sum = 0.0, want = cases[i].words == mean_words ? (double)b.conflicts : 1.0, largest = 0.0;
        for (int k = 0; k < SAMPLES; k++) sum += b.weight[k], largest = fmax(largest, isnan(b.raw[k]) ? 0.0 : fabs(b.raw[k]));
        AGREED(fabs(sum / want - 1.0) < 1e-12 && b.gold == GOLD, "weights sum to %.15g, not %g; %d gold pairs", sum, want,
               (int)b.gold);
        AGREED(cases[i].words != cosine_words || (largest <= 1.0 && largest > 0.01), "a cosine of %g", largest);
        set_up_free(&u);
        free(one);
        free(all);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* ---- against explicit gradients ---- */
typedef struct {
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
    ra_engine *e;
    ra_microbatch *mb;
    ra_store *store;
    ra_objective objective;
    int64_t size;
    double *target, *own; /* (size) */
} yardstick;

static ra_err yardstick_open(const char *dir, const set_up *u, bool adapter, yardstick *y)
{
    *y = (yardstick){.objective = {.beta = 0.3, .tau = 0.1, .npo_scale = 1.0}};
    ra_settings *s = tiny_run_settings(dir, &u->run, u->words);
    y->objective.beta = ra_set_real(s, "beta");
    ra_lora_config lora = {
        .rank = (int32_t)ra_set_int(s, "lora.rank"), .alpha = ra_set_real(s, "lora.alpha"), .targets = 1u << RA_Q | 1u << RA_V};
    uint64_t seed = (uint64_t)ra_set_int(s, "seed");
    ra_settings_free(s);
    RA_TRY(ra_backend_open("ref", "fp64", 1, &y->b));
    RA_TRY(ra_modelfile_open(u->model, &y->file));
    RA_TRY(ra_model_open(y->b, y->file, adapter ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL, adapter ? &lora : NULL, 128, NULL, &y->m));
    if (adapter) ra_model_init_adapter(y->m, seed);
    RA_TRY(ra_store_open(dir, &y->store));
    y->e = engine_alone(y->m, 128, true);
    y->mb = ra_microbatch_new(128);
    y->size = ra_model_trainable(y->m)->size;
    y->target = ra_calloc((size_t)y->size, sizeof(double));
    y->own = ra_calloc((size_t)y->size, sizeof(double));
    return RA_OK;
}

static void yardstick_close(yardstick *y)
{
    ra_free(y->target);
    ra_free(y->own);
    ra_engine_free(y->e);
    ra_microbatch_free(y->mb);
    ra_store_close(y->store);
    ra_model_close(y->m);
    ra_modelfile_close(y->file);
    ra_backend_close(y->b);
}

/* grad L of one sample at theta_ref, added to `gradient`; ref's memory is the host's. */
static void add_gradient(yardstick *y, const ra_sample *s, ra_loss_kind kind, double *gradient)
{
    ra_microbatch_clear(y->mb);
    if (!ra_microbatch_add(y->mb, s, kind, 1.0, NULL)) ra_die("a sample does not fit");
    run_pass(
        &(one_pass){
            .e = y->e, .objective = &y->objective, .own_reference = true, .backward = &(ra_backward){.gradient = gradient}},
        y->mb);
}

static ra_loss_kind kind_of(const yardstick *y, int8_t action, int64_t i)
{
    ra_sample s = ra_store_get(y->store, i);
    return action == 0 ? RA_LOSS_INVERT : s.response[RA_CORRECTION].count ? RA_LOSS_PUNISH_CORRECTED : RA_LOSS_PUNISH;
}

static double product(const double *a, const double *b, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* The gold batch, drawn here again. */
static void make_target(yardstick *y, const set_up *u, uint64_t seed)
{
    int8_t action[SAMPLES];
    int32_t joined[128];
    ra_gold_pair pair[GOLD];
    for (int i = 0; i < SAMPLES; i++) action[i] = ra_store_state(y->store, i) == RA_SAMPLE_OK ? tiny_run_action(&u->run, i) : -1;
    int64_t n = ra_gold_draw(y->store, action, GOLD, seed, pair);
    for (int64_t i = 0; i < n; i++) {
        ra_sample s = ra_gold_sample(y->store, &pair[i], joined, 128);
        add_gradient(y, &s, RA_LOSS_PAIR, y->target);
    }
}

static double sum_logp(yardstick *y, const ra_sample *s, ra_loss_kind kind, double logp[RA_ROLES])
{
    ra_microbatch_clear(y->mb);
    if (!ra_microbatch_add(y->mb, s, kind, 1.0, NULL)) ra_die("a sample does not fit");
    run_pass(&(one_pass){.e = y->e, .objective = &y->objective}, y->mb);
    double sum = logp[0] = logp[1] = logp[2] = 0.0;
    for (int32_t i = 0; i < y->mb->responses; i++) sum += logp[y->mb->response[i].role] = y->mb->response[i].logp;
    return sum;
}

/* METHOD section 4: w by role from a(y), each a central difference of log p along g_J. */
static double by_differences(yardstick *y, const ra_sample *s, ra_loss_kind kind)
{
    double *theta = ra_model_masters(y->m), eps = 1e-5 / sqrt(product(y->target, y->target, y->size)), up[RA_ROLES],
           down[RA_ROLES], a[RA_ROLES];
    for (int64_t i = 0; i < y->size; i++) theta[i] += eps * y->target[i];
    ra_model_refresh(y->m);
    sum_logp(y, s, kind, up);
    for (int64_t i = 0; i < y->size; i++) theta[i] -= 2.0 * eps * y->target[i];
    ra_model_refresh(y->m);
    sum_logp(y, s, kind, down);
    for (int64_t i = 0; i < y->size; i++) theta[i] += eps * y->target[i];
    ra_model_refresh(y->m);
    for (int r = 0; r < RA_ROLES; r++) a[r] = (up[r] - down[r]) / (2.0 * eps);
    double half = 0.5 * y->objective.beta;
    if (kind == RA_LOSS_INVERT) return -half * (a[RA_REJECTED] - a[RA_CHOSEN]);
    if (kind == RA_LOSS_PUNISH) return half * (a[RA_CHOSEN] + a[RA_REJECTED]);
    return -half * (a[RA_CORRECTION] - a[RA_CHOSEN]);
}

/* Raw products of weights.h5 against one sample at a time in double precision; every fifth also against differences. */
static const char *compare_explicit(const ra_comm *world, const char *family, const char *const *words, double tolerance,
                                    bool adapter, bool cosine)
{
    char *dir = test_mpi_dir_make(world);
    set_up u = set_up_make(family, words);
    static result r;
    yardstick y;
    MPI_EXPECT_OK(weigh_in(world, dir, &u));
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(ra_comm_agree(world, read_result(dir, &r)));
    MPI_EXPECT_OK(ra_comm_agree(world, yardstick_open(dir, &u, adapter, &y)));
    ra_settings *s = tiny_run_settings(dir, &u.run, u.words);
    make_target(&y, &u, (uint64_t)ra_set_int(s, "seed"));
    double gamma = ra_set_real(s, "gamma"), norm = sqrt(product(y.target, y.target, y.size)), largest = 0.0, worst = 0.0,
           worst_difference = 0.0;
    ra_settings_free(s);
    for (int i = 0; i < SAMPLES; i++) largest = fmax(largest, isnan(r.raw[i]) ? 0.0 : fabs(r.raw[i]));
    int64_t compared = 0;
    for (int i = 0; i < SAMPLES; i++) {
        int8_t action = ra_store_state(y.store, i) == RA_SAMPLE_OK ? tiny_run_action(&u.run, i) : -1;
        if (action != 0 && action != 1) {
            if (!isnan(r.raw[i]) || r.weight[i] != 0.0) worst = NAN;
            continue;
        }
        ra_sample sample = ra_store_get(y.store, i);
        ra_loss_kind kind = kind_of(&y, action, i);
        memset(y.own, 0, (size_t)y.size * sizeof(double));
        add_gradient(&y, &sample, kind, y.own);
        double want = product(y.target, y.own, y.size) / gamma;
        if (cosine) want /= norm * sqrt(product(y.own, y.own, y.size));
        worst = fmax(worst, fabs(r.raw[i] - want) / largest);
        if (isnan(r.raw[i])) worst = NAN;
        if (compared++ % 5 == 0 && !cosine)
            worst_difference = fmax(worst_difference, fabs(by_differences(&y, &sample, kind) / gamma - want) / largest);
    }
    yardstick_close(&y);
    set_up_free(&u);
    test_mpi_dir_remove(world, dir);
    AGREED(fabs(r.norm / norm - 1.0) < tolerance, "|g_J| is %.9g, explicitly %.9g", r.norm, norm);
    AGREED(compared == r.conflicts && compared > 20, "%d conflicts, %d in the file", (int)compared, (int)r.conflicts);
    AGREED(worst <= tolerance, "%s: products differ from explicit gradients by %.1e of the largest", family, worst);
    AGREED(worst_difference <= 1e-6, "%s: central differences differ by %.1e of the largest", family, worst_difference);
    return NULL;
}

static const char *explicit_gradients(const ra_comm *world)
{
    static const char *const ref[] = {"backend=ref", "precision=fp64", "gamma=2", NULL},
                             *const adapter[] = {"backend=ref", "precision=fp64", "lora.enabled=true",
                                                 "weights.parameters=adapter", NULL},
                             *const cosine[] = {"weights.direction=cosine", NULL};
    if (!test_shared()) return NULL;
    const char *failure = compare_explicit(world, "llama31", ref, 1e-10, false, false);
    if (!failure) failure = compare_explicit(world, "gemma2", NULL, 1e-5, false, false);
    if (!failure) failure = compare_explicit(world, "llama31", adapter, 1e-10, true, false);
    if (!failure) failure = compare_explicit(world, "qwen25_tied", cosine, 1e-5, false, true);
    return failure;
}

/* ---- sets that are short ---- */
static const char *short_sets(const ra_comm *world)
{
    static const char *const off[] = {"weights.enabled=false", "weights.normalise=mean", NULL};
    static const struct {
        tiny_sets sets;
        const char *const *words;
        ra_err code;
        const char *message;
        int64_t conflicts;
    } cases[] = {{TINY_NO_RETAIN, NULL, RA_OK, "", 44},
                 {TINY_NO_CONFLICT, NULL, RA_OK, "", 0},
                 {TINY_NO_DONOR, NULL, RA_ERR_DATA, "gold batch is empty", 0},
                 {TINY_NO_DONOR, off, RA_OK, "", 44},
                 {TINY_ALL_SETS, off, RA_OK, "", 29}};
    if (!test_shared()) return NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = test_mpi_dir_make(world);
        set_up u = set_up_make("llama31", cases[i].words);
        u.run.sets = cases[i].sets;
        static result r;
        ra_err err = weigh_in(world, dir, &u);
        AGREED(err == cases[i].code && (err == RA_OK || strstr(ra_error_message(), cases[i].message)), "case %zu: %d: %s", i, err,
               ra_error_message());
        RA_MPI(MPI_Barrier(world->comm));
        if (err == RA_OK) {
            MPI_EXPECT_OK(ra_comm_agree(world, read_result(dir, &r)));
            AGREED(r.conflicts == cases[i].conflicts, "case %zu: %d conflicts", i, (int)r.conflicts);
            for (int k = 0; k < SAMPLES && cases[i].words == off; k++) {
                bool conflict = k % 11 != 10 && (cases[i].sets == TINY_NO_DONOR || tiny_run_action(&u.run, k) != 2);
                AGREED(fabs(r.weight[k] - (conflict ? 1.0 : 0.0)) < 1e-12, "weights.enabled=false: weight of sample %d is %g", k,
                       r.weight[k]);
            }
        }
        set_up_free(&u);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* The gold batch holds the same pair fifteen times as it is and once inverted: inverting it leads away from where the batch wants the model. */
static const char *all_negative(const ra_comm *world)
{
    static const char *const words[] = {"gold.size=45", NULL};
    if (!test_shared()) return NULL;
    char *dir = test_mpi_dir_make(world);
    set_up u = set_up_make("llama31", words);
    u.run.sets = TINY_CONTRADICTION;
    ra_err err = weigh_in(world, dir, &u);
    set_up_free(&u);
    test_mpi_dir_remove(world, dir);
    bool clear = err == RA_ERR_DATA && strstr(ra_error_message(), "no conflict has a positive product with g_J") &&
                 strstr(ra_error_message(), "weights.enabled=false");
    AGREED(clear, "no weight is positive: error %d: %s", err, ra_error_message());
    return NULL;
}

/* ---- stop and go ---- */
static bool same_bytes(const char *one_dir, const char *all_dir, const char *name)
{
    char *x = ra_path_join(one_dir, name), *y = ra_path_join(all_dir, name);
    ra_buf a = {0}, b = {0};
    bool same = ra_file_read(x, &a) == RA_OK && ra_file_read(y, &b) == RA_OK && a.length == b.length && a.length > 0 &&
                memcmp(a.data, b.data, a.length) == 0;
    ra_buf_free(&a);
    ra_buf_free(&b);
    free(x);
    free(y);
    return same;
}

/* Starts again and again, each time stopped after one round, until it ends. Returns the number of starts. */
static int weigh_in_pieces(const ra_comm *world, const char *dir, const set_up *u, ra_err *err)
{
    int starts = 0;
    do {
        questions_left = 0;
        *err = weigh_in(world, dir, u);
        starts++;
    } while (*err == RA_ERR_STOPPED && starts < 25);
    questions_left = INT64_MAX;
    return starts;
}

static const char *stop_and_go(const ra_comm *world)
{
    static const char *const plain_words[] = {"pack.tokens=48", NULL},
                             *const cosine_words[] = {"pack.tokens=48", "weights.direction=cosine", NULL},
                             *const *const cases[] = {plain_words, cosine_words};
    if (!test_shared()) return NULL;
    for (int i = 0; i < 2; i++) {
        char *dir = test_mpi_dir_make(world), *whole = ra_path_join(dir, "whole"), *pieces = ra_path_join(dir, "pieces");
        set_up u = set_up_make("llama31", cases[i]);
        static result a, b;
        ra_err err;
        MPI_EXPECT_OK(weigh_in(world, whole, &u));
        int starts = weigh_in_pieces(world, pieces, &u, &err);
        if (i == 0) {
            AGREED(err == RA_OK && starts > 1, "%d starts: error %d: %s", starts, err, ra_error_message());
        } else { /* norms are not kept: a stop among them would repeat for ever */
            AGREED(err == RA_ERR_STOPPED, "error %d: %s", err, ra_error_message());
            MPI_EXPECT_OK(weigh_in(world, pieces, &u));
        }
        RA_MPI(MPI_Barrier(world->comm));
        MPI_EXPECT_OK(ra_comm_agree(world, read_result(whole, &a)));
        MPI_EXPECT_OK(ra_comm_agree(world, read_result(pieces, &b)));
        AGREED(memcmp(&a, &b, sizeof a) == 0 && same_bytes(whole, pieces, "hidden.bin"),
               "case %d: other bits than without a stop", i);
        char *part = ra_path_join(pieces, "weigh.part.h5");
        AGREED(!ra_file_exists(part), "the part file must go");
        free(part);
        set_up_free(&u);
        free(whole);
        free(pieces);
        test_mpi_dir_remove(world, dir);
    }
    return NULL;
}

/* Begun by rank 0 alone, ended by all. */
static const char *go_on_elsewhere(const ra_comm *world)
{
    static const char *const words[] = {"pack.tokens=48", NULL};
    if (!test_shared()) return NULL;
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    char *dir = test_mpi_dir_make(world), *one = ra_path_join(dir, "one"), *both = ra_path_join(dir, "both");
    set_up u = set_up_make("llama31", words);
    static result a, b;
    MPI_EXPECT_OK(ra_comm_agree(world, world->rank == 0 ? weigh_in(&self, one, &u) : RA_OK));
    questions_left = 1;
    ra_err err = world->rank == 0 ? weigh_in(&self, both, &u) : RA_ERR_STOPPED;
    questions_left = INT64_MAX;
    AGREED(err == RA_ERR_STOPPED, "error %d: %s", err, ra_error_message());
    MPI_EXPECT_OK(weigh_in(world, both, &u));
    RA_MPI(MPI_Barrier(world->comm));
    MPI_EXPECT_OK(ra_comm_agree(world, read_result(one, &a)));
    MPI_EXPECT_OK(ra_comm_agree(world, read_result(both, &b)));
    AGREED(difference(b.raw, a.raw, SAMPLES) <= 1e-6 && difference(b.reference, a.reference, SAMPLES * RA_ROLES) <= 1e-6,
           "raw differ by %.1e, log p_ref by %.1e", difference(b.raw, a.raw, SAMPLES),
           difference(b.reference, a.reference, SAMPLES * RA_ROLES));
    set_up_free(&u);
    free(one);
    free(both);
    test_mpi_dir_remove(world, dir);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"weights, log p_ref and gold batch as on 1 rank; l1, mean, adapter, cosine, ref", layouts},
        {"products equal explicit gradients of one sample at a time, and central differences along g_J", explicit_gradients},
        {"short sets: no Retain, no conflict, no donor; weights.enabled=false", short_sets},
        {"no positive weight is said clearly", all_negative},
        {"stopped after every round of packs and started again: the same bits", stop_and_go},
        {"begun on one rank, ended on all", go_on_elsewhere},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
