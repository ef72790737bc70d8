/* The model and the head over packs: branches of a shared prompt are the separate sequences, sliding windows reach as far as they should, gradients do not depend on how samples
 * are packed or on how the vocabulary is cut into blocks. */
#include "support/support.h"
#include "support/tiny_run.h"

#include <realign/engine.h>
#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 40 };

typedef struct {
    char *dir;
    ra_backend *b;
    ra_model *m, *reference;
    ra_store *store;
    ra_work work[SAMPLES];
    int64_t n;
} bench;

static ra_model *open_model(ra_backend *b, const char *path, ra_training training)
{
    ra_modelfile *file;
    ra_model *m;
    CHECK_OK(ra_modelfile_open(path, &file));
    CHECK_OK(ra_model_open(b, file, training, NULL, 128, NULL, &m));
    ra_modelfile_close(file);
    return m;
}

static void bench_open(bench *t, const char *model, const char *reference, const char *backend, const char *precision)
{
    *t = (bench){.dir = test_dir_make()};
    CHECK_OK(ra_backend_open(backend, precision, 1, &t->b));
    t->m = open_model(t->b, model, RA_TRAIN_FULL);
    t->reference = open_model(t->b, reference, RA_FROZEN);
    tiny_run run = {.model = model, .samples = SAMPLES, .seed = 21};
    ra_comm self = {MPI_COMM_SELF, 0, 1};
    CHECK_OK(tiny_run_make(&self, t->dir, &run));
    CHECK_OK(ra_store_open(t->dir, &t->store));
    for (int64_t i = 0; i < SAMPLES; i++) {
        if (ra_store_state(t->store, i) != RA_SAMPLE_OK) continue;
        static const ra_loss_kind kinds[] = {RA_LOSS_INVERT, RA_LOSS_PUNISH, RA_LOSS_RETAIN};
        t->work[t->n++] = (ra_work){.sample = i,
                                    .kind = kinds[tiny_run_action(&run, i)],
                                    .weight = 0.5 + 0.1 * (double)i,
                                    .reference = {-30.0, -31.0, -29.0}};
    }
}

static void bench_close(bench *t)
{
    ra_store_close(t->store);
    ra_model_close(t->m);
    ra_model_close(t->reference);
    ra_backend_close(t->b);
    test_dir_remove(t->dir);
}

/* ---- branches ---- */

/* A model with what a forward pass and the head need. */
typedef struct {
    ra_model *m;
    ra_activations *acts;
    ra_head *head;
} pass;

static pass pass_new(ra_model *m, int32_t rows)
{
    return (pass){m, ra_activations_new(m, rows, &(ra_keeping){0}), ra_head_new(m, rows)};
}

static void pass_free(pass *p)
{
    ra_activations_free(p->acts);
    ra_head_free(p->head);
}

static void pass_forward(pass *p, const ra_microbatch *mb, double *logp)
{
    ra_model_forward(p->m, 0, &mb->pack, p->acts, 0);
    ra_head_forward(p->head, mb, ra_activations_last(p->acts, 0), logp, NULL);
}

/* log p of one response as a sequence of its own. */
static void alone(pass *p, ra_microbatch *mb, const ra_sample *s, int role, double *logp)
{
    ra_sample one = *s;
    for (int r = 0; r < RA_ROLES; r++) {
        if (r != role) one.response[r].count = 0;
    }
    ra_microbatch_clear(mb);
    assert_true(ra_microbatch_add(mb, &one, RA_LOSS_SCORE, 1.0, NULL));
    pass_forward(p, mb, logp);
}

static double branches_differ(const char *family, const char *backend, const char *precision)
{
    char name[96];
    snprintf(name, sizeof name, "fixtures/%s/policy", family);
    char *model = test_shared_path(name);
    bench t;
    bench_open(&t, model, model, backend, precision);
    enum { ROWS = 400 };
    pass p = pass_new(t.m, ROWS);
    ra_microbatch *mb = ra_microbatch_new(ROWS), *single = ra_microbatch_new(ROWS);
    double worst = 0.0, logp[ROWS], own[ROWS];
    int compared = 0;
    for (int64_t next = 0; next < t.n;) {
        ra_microbatch_clear(mb);
        int64_t first = next;
        for (; next < t.n; next++) {
            ra_sample s = ra_store_get(t.store, t.work[next].sample);
            if (!ra_microbatch_add(mb, &s, RA_LOSS_SCORE, 1.0, NULL)) break;
        }
        assert_true(next > first);
        pass_forward(&p, mb, logp);
        for (int32_t i = 0; i < mb->responses; i++) {
            const ra_response *y = &mb->response[i];
            ra_sample s = ra_store_get(t.store, mb->item[y->item].sample);
            alone(&p, single, &s, (int)y->role, own);
            for (int32_t j = 0; j < y->count; j++, compared++) {
                double d = fabs(logp[y->first + j] - own[j]) / fmax(1.0, fabs(own[j]));
                worst = isnan(d) || d > worst ? d : worst;
            }
        }
    }
    assert_true(compared > 300);
    pass_free(&p);
    ra_microbatch_free(mb);
    ra_microbatch_free(single);
    bench_close(&t);
    free(model);
    return worst;
}

static void branches_are_sequences(void **state)
{
    (void)state;
    static const char *const families[] = {"gemma2", "llama31", "qwen25"};
    for (int i = 0; i < 3; i++) {
        check_close(branches_differ(families[i], "ref", "fp64"), 0.0, 0.0, 1e-13, families[i]);
        check_close(branches_differ(families[i], "cpu", "fp32"), 0.0, 0.0, 1e-6, families[i]);
    }
}

/* ---- windows ---- */
static const char windowed[] =
    "{\"model_type\": \"gemma2\", \"hidden_size\": 32, \"intermediate_size\": 48, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"head_dim\": 8, \"vocab_size\": 64, \"max_position_embeddings\": 64, \"sliding_window\": 4, \"query_pre_attn_scalar\": 8, "
    "\"attn_logit_softcapping\": 50.0, "
    "\"final_logit_softcapping\": 30.0, \"layer_types\": [\"sliding_attention\", \"sliding_attention\"]}";

/* A random model of this config in dir/model-SEED. */
static char *random_model(const char *dir, const char *config, int seed)
{
    char *path = ra_path_join(dir, "config.json"), *model = ra_format("%s/model-%d", dir, seed), *number = ra_format("%d", seed);
    char random[] = "--random", seeded[] = "--seed";
    char *words[] = {seeded, number, random, path, model};
    CHECK_OK(ra_file_write(path, config, strlen(config)));
    CHECK_OK(ra_tool_convert(5, words));
    free(path);
    free(number);
    return model;
}

/* Two layers of window 4 (a token and the 3 before it) see 6 tokens back, through the end of the prompt too. */
static void windows(void **state)
{
    (void)state;
    static const char *const backends[][2] = {{"ref", "fp64"}, {"cpu", "fp32"}};
    char *dir = test_dir_make(), *path = random_model(dir, windowed, 1);
    for (int k = 0; k < 2; k++) {
        ra_backend *b;
        CHECK_OK(ra_backend_open(backends[k][0], backends[k][1], 1, &b));
        ra_model *m = open_model(b, path, RA_FROZEN);
        pass p = pass_new(m, 40);
        ra_microbatch *mb = ra_microbatch_new(40);
        int32_t prompt[12], response[2][5] = {{3, 9, 27, 17, 51}, {5, 25, 61, 49, 53}};
        double own[5], changed[5];
        for (int i = 0; i < 12; i++) prompt[i] = 1 + 5 * i;
        ra_sample s = {.prompt_count = 12, .prompt = prompt, .response = {{5, 0, response[0]}, {5, 0, response[1]}}};
        alone(&p, mb, &s, RA_REJECTED, own);
        for (int at = 0; at < 12; at++) {
            prompt[at]++;
            alone(&p, mb, &s, RA_REJECTED, changed);
            prompt[at]--;
            for (int j = 0; j < 5; j++) { /* token j of the response is predicted at position 11 + j */
                bool reached = 11 + j - at <= 6;
                if (reached != (fabs(changed[j] - own[j]) > 1e-9))
                    fail_msg("%s: position %d, token %d: %s", backends[k][0], at, j, reached ? "not reached" : "reached");
            }
        }
        ra_microbatch_free(mb);
        pass_free(&p);
        ra_model_close(m);
        ra_backend_close(b);
    }
    free(path);
    test_dir_remove(dir);
}

/* ---- gradients of packs ---- */
typedef struct {
    double loss, *gradient; /* host */
    int32_t packs, most_head_rows;
} total;

/* One pass of the engine over all packs. */
typedef struct {
    bench *t;
    ra_packing packing;
    pass reference;
    double *logp;
    total *out;
} gradient_pass;

static void fill(void *context, int32_t index, ra_microbatch *mb)
{
    gradient_pass *g = context;
    ra_packing_fill(&g->packing, index, g->t->store, g->t->work, mb);
}

static const void *reference_states(void *context, const ra_microbatch *mb)
{
    gradient_pass *g = context;
    if (mb->kl_first == mb->head_rows) return NULL;
    pass_forward(&g->reference, mb, g->logp);
    const ra_model *m = g->t->m;
    return (const char *)ra_head_hidden(g->reference.head) + (size_t)(mb->kl_first * m->arch.hidden) * m->b->a_size;
}

static ra_err add_loss(void *context, int32_t index, const ra_microbatch *mb, const double *dot)
{
    (void)index, (void)dot;
    total *out = ((gradient_pass *)context)->out;
    for (int32_t i = 0; i < mb->items; i++) out->loss += mb->item[i].weight * mb->item[i].loss;
    if (mb->head_rows > out->most_head_rows) out->most_head_rows = mb->head_rows;
    return RA_OK;
}

/* Loss and gradient of all work, packed so. */
static total over_packs(bench *t, int32_t rows, int32_t minimum)
{
    ra_backend *b = t->b;
    ra_objective o = {.beta = 0.3, .tau = 0.1, .alpha_kl = 0.1, .npo_scale = 1.0};
    int64_t size = ra_model_trainable(t->m)->size;
    total out = {.gradient = ra_alloc((size_t)size, sizeof(double))};
    gradient_pass g = {
        .t = t, .reference = pass_new(t->reference, rows), .logp = ra_alloc((size_t)rows, sizeof(double)), .out = &out};
    const ra_grid grid = ra_grid_alone();
    ra_engine *e;
    CHECK_OK(ra_engine_new(t->m, &grid, &(ra_engine_config){.rows = rows, .keep = true}, NULL, &e));
    ra_engine_set_reference_head(e, (const char *)t->reference->w_a + (size_t)t->reference->head * b->a_size);
    void *gradient = b->ops->alloc(b, (size_t)size * b->r_size);
    CHECK_OK(ra_packing_make(t->store, t->work, t->n, rows, minimum, false, &g.packing));
    out.packs = g.packing.packs;
    const ra_backward backward = {.gradient = gradient};
    const ra_pass all = {.context = &g,
                         .count = g.packing.packs,
                         .fill = fill,
                         .reference = reference_states,
                         .result = add_loss,
                         .backward = &backward};
    CHECK_OK(ra_engine_run(e, &o, &all));
    char *host = ra_alloc((size_t)size, b->r_size);
    b->ops->download(b, host, gradient, (size_t)size * b->r_size);
    ra_dtype_convert(RA_DTYPE_F64, out.gradient, b->r, host, size);
    ra_free(host);
    b->ops->release(b, gradient);
    ra_packing_free(&g.packing);
    ra_engine_free(e);
    pass_free(&g.reference);
    ra_free(g.logp);
    return out;
}

static double distance(const double *a, const double *b, int64_t n)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    return sqrt(difference / size);
}

static void packing_does_not_matter(void **state)
{
    (void)state;
    static const struct {
        const char *family, *backend, *precision;
        double tolerance;
    } cases[] = {{"llama31", "ref", "fp64", 1e-13}, {"gemma2", "cpu", "fp32", 2e-6}, {"qwen25_tied", "cpu", "fp32", 2e-6}};
    static const int32_t shapes[][2] = {{96, 1}, {200, 3}, {200, 8}, {1200, 1}};
    for (int c = 0; c < 3; c++) {
        char name[2][96];
        snprintf(name[0], sizeof name[0], "fixtures/%s/policy", cases[c].family);
        snprintf(name[1], sizeof name[1], "fixtures/%s/reference", cases[c].family);
        char *policy = test_shared_path(name[0]), *reference = test_shared_path(name[1]);
        bench t;
        bench_open(&t, policy, reference, cases[c].backend, cases[c].precision);
        total one = over_packs(&t, 64, 1000); /* every sample a pack of its own */
        assert_int_equal(one.packs, t.n);
        for (int k = 0; k < 4; k++) {
            total packed = over_packs(&t, shapes[k][0], shapes[k][1]);
            assert_true(packed.packs < one.packs && packed.packs >= shapes[k][1]);
            check_close(packed.loss, one.loss, cases[c].tolerance, 0.0, "loss (eq. 6)");
            check_close(distance(packed.gradient, one.gradient, ra_model_trainable(t.m)->size), 0.0, 0.0, cases[c].tolerance,
                        "gradient");
            ra_free(packed.gradient);
        }
        ra_free(one.gradient);
        bench_close(&t);
        free(policy);
        free(reference);
    }
}

/* A vocabulary of several blocks: the head cuts it so that a block of logits stays within 16 MiB, 512 entries at least. */
static void vocabulary_blocks(void **state)
{
    (void)state;
    static const char wide[] = "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 16, "
                               "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, "
                               "\"vocab_size\": 20011, \"max_position_embeddings\": 128, \"tie_word_embeddings\": true}";
    char *dir = test_dir_make(), *path = random_model(dir, wide, 1), *other = random_model(dir, wide, 2);
    bench t;
    bench_open(&t, path, other, "cpu", "fp32");
    total one = over_packs(&t, 64, 1000), all = over_packs(&t, 1200, 1);
    assert_int_equal(all.packs, 1);
    assert_true((int64_t)all.most_head_rows * 20011 * 4 > 16 << 20);  /* several blocks ... */
    assert_true((int64_t)one.most_head_rows * 20011 * 4 <= 16 << 20); /* ... against one */
    check_close(all.loss, one.loss, 1e-6, 0.0, "loss (eq. 6)");
    check_close(distance(all.gradient, one.gradient, ra_model_trainable(t.m)->size), 0.0, 0.0, 2e-6, "gradient");
    ra_free(one.gradient);
    ra_free(all.gradient);
    bench_close(&t);
    free(other);
    free(path);
    test_dir_remove(dir);
}

int main(int argc, char **argv)
{
    ra_comm world;
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (ra_comm_init(&argc, &argv, &world) != RA_OK) return 1;
    ra_log_setup(0, RA_LOG_QUIET);
    const struct CMUnitTest tests[] = {cmocka_unit_test(branches_are_sequences), cmocka_unit_test(windows),
                                       cmocka_unit_test(packing_does_not_matter), cmocka_unit_test(vocabulary_blocks)};
    int failed = cmocka_run_group_tests_name("model", tests, NULL, NULL);
    ra_comm_finalize();
    return failed;
}
