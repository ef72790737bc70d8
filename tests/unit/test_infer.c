/* Decoding and scoring of whole models: goldens of SmolLM2 and stories260K, and independence of what is computed beside a sequence. */
#include "support/support.h"
#include <realign/file.h>
#include <realign/infer.h>
#include <realign/mem.h>
#include <realign/modelfile.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *read_json(const char *relative)
{
    char *path = test_shared_path(relative);
    json_error_t where;
    json_t *root = json_load_file(path, 0, &where);
    if (!root) fail_msg("%s:%d: %s", path, where.line, where.text);
    free(path);
    return root;
}

typedef struct {
    ra_backend *b;
    ra_modelfile *file;
    ra_model *m;
} opened;

static opened open_model(const char *path, const char *backend, const char *precision)
{
    opened o = {0};
    CHECK_OK(ra_backend_open(backend, precision, 0, &o.b));
    CHECK_OK(ra_modelfile_open(path, &o.file));
    CHECK_OK(ra_model_open(o.b, o.file, RA_FROZEN, NULL, 0, NULL, &o.m));
    return o;
}

static void close_model(opened *o)
{
    ra_model_close(o->m);
    ra_modelfile_close(o->file);
    ra_backend_close(o->b);
}

static opened open_stories(const char *backend, const char *precision)
{
    char *path = test_shared_path("data/models/stories260K/hf");
    opened o = open_model(path, backend, precision);
    free(path);
    return o;
}

static int32_t *read_ids(const json_t *list, int32_t *n)
{
    *n = (int32_t)json_array_size(list);
    int32_t *ids = ra_calloc((size_t)*n + 1, sizeof *ids);
    for (int32_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return ids;
}

static int32_t *joined(const json_t *first, const json_t *second, int32_t *n)
{
    int32_t n1, n2, *a = read_ids(first, &n1), *b = read_ids(second, &n2), *both = ra_calloc((size_t)(n1 + n2), sizeof *both);
    memcpy(both, a, (size_t)n1 * sizeof *a);
    memcpy(both + n1, b, (size_t)n2 * sizeof *b);
    ra_free(a);
    ra_free(b);
    *n = n1 + n2;
    return both;
}

/* Scores `ids` from `first` on and compares with the list's numbers. Returns the largest error. */
static double score_against(ra_scorer *s, const int32_t *ids, int32_t n, int32_t first, const json_t *wanted, double tolerance)
{
    double *got = ra_calloc((size_t)n, sizeof *got), worst = 0.0;
    ra_scored q = {.token = ids, .count = n, .first = first, .logprob = got};
    CHECK_OK(ra_scorer_run(s, &q, 1));
    assert_int_equal(json_array_size(wanted), n - first);
    for (int32_t i = 0; i < n - first; i++) {
        double want = json_number_value(json_array_get(wanted, (size_t)i));
        check_close(got[i], want, 0, tolerance, "log-probability");
        worst = fmax(worst, fabs(got[i] - want));
    }
    ra_free(got);
    return worst;
}

static const struct {
    const char *backend, *precision;
    double tolerance;
} instances[] = {{"ref", "fp64", 1e-9}, {"cpu", "fp32", 1e-4}};

static void test_stories_logps(void **state)
{
    (void)state;
    json_t *root = read_json("data/models/stories260K/hf/golden_pref_logps_A.json"), *rows = json_object_get(root, "rows"), *row;
    for (size_t k = 0; k < sizeof instances / sizeof instances[0]; k++) {
        opened o = open_stories(instances[k].backend, instances[k].precision);
        ra_scorer *s = ra_scorer_new(o.m, NULL, 128);
        double worst = 0.0;
        size_t i;
        json_array_foreach(rows, i, row)
        {
            static const char *const role[2][2] = {{"chosen_ids", "chosen_token_logps"},
                                                   {"rejected_ids", "rejected_token_logps"}};
            for (int r = 0; r < 2; r++) {
                int32_t n, *ids = joined(json_object_get(row, "prompt_ids"), json_object_get(row, role[r][0]), &n);
                int32_t first = (int32_t)json_array_size(json_object_get(row, "prompt_ids"));
                worst = fmax(worst, score_against(s, ids, n, first, json_object_get(row, role[r][1]), instances[k].tolerance));
                ra_free(ids);
            }
        }
        print_message("# %s %s: worst error %.2g, tolerance %g\n", instances[k].backend, instances[k].precision, worst,
                      instances[k].tolerance);
        ra_scorer_free(s);
        close_model(&o);
    }
    json_decref(root);
}

enum { MOST = 64 };

typedef struct {
    int32_t n;
    ra_continuation c[MOST];
    int32_t *prompt[MOST];
} queue;

static void free_outputs(queue *q)
{
    for (int32_t i = 0; i < q->n; i++) {
        ra_free(q->c[i].token);
        q->c[i].token = NULL;
    }
}

static void free_queue(queue *q)
{
    free_outputs(q);
    for (int32_t i = 0; i < q->n; i++) ra_free(q->prompt[i]);
}

static queue read_queue(const json_t *list)
{
    queue q = {0};
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        int32_t n;
        q.prompt[i] = read_ids(json_object_get(item, "prompt_ids"), &n);
        q.c[i] = (ra_continuation){.id = (int64_t)i, .prompt = q.prompt[i], .prompt_count = n};
        q.n++;
    }
    return q;
}

static void same_ids(const ra_continuation *c, const json_t *wanted)
{
    int32_t n, *want = read_ids(wanted, &n);
    assert_int_equal(c->count, n);
    assert_memory_equal(c->token, want, (size_t)n * sizeof *want);
    ra_free(want);
}

static void test_stories_greedy(void **state)
{
    (void)state;
    json_t *root = read_json("data/models/stories260K/hf/golden_prompts.json");
    queue q = read_queue(root);
    for (size_t k = 0; k < sizeof instances / sizeof instances[0]; k++) {
        opened o = open_stories(instances[k].backend, instances[k].precision);
        ra_generation config = {.batch = 3, .prefill_rows = 32, .max_new_tokens = 40};
        ra_generator *g = ra_generator_new(o.m, NULL, &config);
        CHECK_OK(ra_generator_run(g, q.c, q.n));
        for (int32_t i = 0; i < q.n; i++) {
            same_ids(&q.c[i], json_object_get(json_array_get(root, (size_t)i), "continuation_ids"));
            assert_false(q.c[i].stopped);
        }
        ra_generator_free(g);
        free_outputs(&q);
        close_model(&o);
    }
    free_queue(&q);
    json_decref(root);
}

/* Prompts of many lengths drawn from the vocabulary. */
static queue random_queue(const ra_model *m, int32_t n, uint64_t seed)
{
    queue q = {.n = n};
    ra_rng rng = ra_rng_make(seed, RA_STREAM_TEST);
    for (int32_t i = 0; i < n; i++) {
        int32_t length = 1 + (int32_t)ra_rng_below(&rng, 60);
        q.prompt[i] = ra_calloc((size_t)length, sizeof(int32_t));
        for (int32_t j = 0; j < length; j++) q.prompt[i][j] = (int32_t)ra_rng_below(&rng, (uint64_t)m->arch.vocabulary);
        q.c[i] = (ra_continuation){.id = i, .prompt = q.prompt[i], .prompt_count = length};
    }
    return q;
}

/* The same tokens for any batch, pack budget and order of the queue, greedy and drawn. */
static void test_independence(void **state)
{
    const char *precision = *state;
    opened o = open_stories("cpu", precision);
    if (!o.b->row_independent) {
        print_message("# SKIP: this processor's products are not row independent in %s: near ties may fall otherwise\n",
                      precision);
        close_model(&o);
        skip();
    }
    enum { N = 40, NEW = 24 };
    static const int32_t stop[] = {403}; /* frequent enough that sequences end at different times */
    queue q = random_queue(o.m, N, 11);
    for (int drawn = 0; drawn < 2; drawn++) {
        int32_t *first[N] = {0}, count[N] = {0}, stopped = 0;
        static const int32_t shape[][2] = {{1, 1}, {N, 100000}, {7, 64}, {16, 200}};
        for (int v = 0; v < 4; v++) {
            ra_generation config = {.sampling = {.temperature = drawn ? 0.9 : 0.0, .top_p = 0.95, .seed = 5},
                                    .batch = shape[v][0],
                                    .prefill_rows = shape[v][1],
                                    .max_new_tokens = NEW,
                                    .stop = stop,
                                    .stops = 1};
            ra_generator *g = ra_generator_new(o.m, NULL, &config);
            ra_continuation order[N];
            for (int i = 0; i < N; i++) order[i] = q.c[v % 2 ? N - 1 - i : i];
            CHECK_OK(ra_generator_run(g, order, N));
            for (int i = 0; i < N; i++) {
                ra_continuation *c = &order[i];
                if (v == 0) {
                    first[c->id] = c->token;
                    count[c->id] = c->count;
                    stopped += c->stopped;
                    assert_int_equal(c->stopped, c->token[c->count - 1] == 403);
                    continue;
                }
                assert_int_equal(c->count, count[c->id]);
                assert_memory_equal(c->token, first[c->id], (size_t)c->count * sizeof(int32_t));
                ra_free(c->token);
            }
            ra_generator_free(g);
        }
        assert_in_range(stopped, 1, N - 1);
        for (int i = 0; i < N; i++) ra_free(first[i]);
    }
    free_queue(&q);
    close_model(&o);
}

/* A sequence's log-probabilities are the same alone and in any pack: bitwise where the backend's rows are independent, else to rounding. */
static void test_score_independence(void **state)
{
    const char *precision = *state;
    opened o = open_stories("cpu", precision);
    enum { N = 40, LONGEST = 61 };
    queue q = random_queue(o.m, N, 12);
    static double logprob[3][N][LONGEST];
    static const int32_t rows[] = {4, 128, 4096};
    for (int v = 0; v < 3; v++) {
        ra_scorer *s = ra_scorer_new(o.m, NULL, rows[v]);
        ra_scored list[N];
        for (int i = 0; i < N; i++) {
            list[i] =
                (ra_scored){.id = i, .token = q.prompt[i], .count = q.c[i].prompt_count, .first = 1, .logprob = logprob[v][i]};
        }
        CHECK_OK(ra_scorer_run(s, list, N));
        ra_scorer_free(s);
    }
    assert_true(logprob[0][0][0] < 0.0);
    if (o.b->row_independent) {
        assert_memory_equal(logprob[0], logprob[1], sizeof logprob[0]);
        assert_memory_equal(logprob[0], logprob[2], sizeof logprob[0]);
    }
    double worst = 0.0, tolerance = strcmp(precision, "bf16") == 0 ? 0.1 : 1e-4; /* doc/performance.md, bf16 against float64 */
    for (int v = 1; v < 3; v++) {
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < LONGEST; j++) worst = fmax(worst, fabs(logprob[v][i][j] - logprob[0][i][j]));
        }
    }
    printf("# %s, rows %sindependent: worst difference %.2g\n", precision, o.b->row_independent ? "" : "not ", worst);
    assert_true(worst <= tolerance);
    free_queue(&q);
    close_model(&o);
}

/* Decoding against the cache and the forward pass over a pack see the same model: the chosen token is the likeliest of the forward pass too. */
static void test_decode_against_score(void **state)
{
    (void)state;
    opened o = open_stories("ref", "fp64");
    enum { N = 12, NEW = 20 };
    queue q = random_queue(o.m, N, 13);
    ra_generation config = {.batch = 5, .prefill_rows = 64, .max_new_tokens = NEW};
    ra_generator *g = ra_generator_new(o.m, NULL, &config);
    CHECK_OK(ra_generator_run(g, q.c, N));
    ra_scorer *s = ra_scorer_new(o.m, NULL, 512);
    for (int i = 0; i < N; i++) {
        const ra_continuation *c = &q.c[i];
        int32_t n = c->prompt_count + c->count, *ids = ra_calloc((size_t)n, sizeof *ids);
        memcpy(ids, c->prompt, (size_t)c->prompt_count * sizeof *ids);
        memcpy(ids + c->prompt_count, c->token, (size_t)c->count * sizeof *ids);
        double chosen[NEW], other[NEW];
        ra_scored as_chosen = {.token = ids, .count = n, .first = c->prompt_count, .logprob = chosen};
        CHECK_OK(ra_scorer_run(s, &as_chosen, 1));
        for (int32_t j = 0; j < c->count; j++) { /* replace the last token of a prefix by another */
            int32_t at = c->prompt_count + j, kept = ids[at];
            ids[at] = (kept + 1 + i) % o.m->arch.vocabulary;
            ra_scored as_other = {.token = ids, .count = at + 1, .first = at, .logprob = other};
            CHECK_OK(ra_scorer_run(s, &as_other, 1));
            ids[at] = kept;
            assert_true(chosen[j] > other[0]);
        }
        ra_free(ids);
    }
    ra_scorer_free(s);
    ra_generator_free(g);
    free_queue(&q);
    close_model(&o);
}

static void test_refusals(void **state)
{
    (void)state;
    opened o = open_stories("cpu", "fp32");
    int32_t ids[1024] = {1, 2, 3};
    ra_generation config = {.batch = 2, .prefill_rows = 64, .max_new_tokens = 8};
    ra_generator *g = ra_generator_new(o.m, NULL, &config);
    ra_continuation c = {.id = 17, .prompt = ids, .prompt_count = 0};
    check_fails(ra_generator_run(g, &c, 1), RA_ERR_DATA, "17", "empty", NULL);
    c.prompt_count = 3;
    ids[2] = o.m->arch.vocabulary;
    check_fails(ra_generator_run(g, &c, 1), RA_ERR_DATA, "17", "vocabulary", "index 2", NULL);
    ids[2] = 3;
    c.prompt_count = o.m->rope_positions;
    check_fails(ra_generator_run(g, &c, 1), RA_ERR_DATA, "17", "positions", NULL);
    c.prompt_count = o.m->rope_positions - 3; /* room for three new tokens */
    CHECK_OK(ra_generator_run(g, &c, 1));
    assert_int_equal(c.count, 3);
    ra_free(c.token);
    ra_generator_free(g);
    double logprob[4];
    ra_scorer *s = ra_scorer_new(o.m, NULL, 16);
    ids[1] = -1;
    ra_scored q = {.id = 4, .token = ids, .count = 3, .first = 1, .logprob = logprob};
    check_fails(ra_scorer_run(s, &q, 1), RA_ERR_DATA, "4", "index 1", NULL);
    ra_scorer_free(s);
    close_model(&o);
}

typedef struct {
    int finished, allowed; /* sequences before `halt` says stop */
    int64_t last;
    int32_t tokens;
} watcher;

static void note_finished(void *context, const ra_continuation *c)
{
    watcher *w = context;
    assert_non_null(c->token);
    w->finished++;
    w->last = c->id;
    w->tokens += c->count;
}

static bool says_halt(void *context)
{
    const watcher *w = context;
    return w->finished >= w->allowed;
}

/* Every sequence is told of when it is complete; a halt keeps what was told of and gives back nothing. */
static void test_hooks(void **state)
{
    (void)state;
    enum { N = 9, NEW = 5 };
    opened o = open_stories("cpu", "fp32");
    queue q = random_queue(o.m, N, 13);
    watcher w = {.allowed = N + 1};
    ra_generation config = {
        .batch = 2, .prefill_rows = 64, .max_new_tokens = NEW, .finished = note_finished, .halt = says_halt, .context = &w};
    ra_generator *g = ra_generator_new(o.m, NULL, &config);
    CHECK_OK(ra_generator_run(g, q.c, N));
    assert_int_equal(w.finished, N);
    assert_int_equal(w.tokens, N * NEW);
    for (int i = 0; i < N; i++) ra_free(q.c[i].token);
    w = (watcher){.allowed = 3};
    check_fails(ra_generator_run(g, q.c, N), RA_ERR_STOPPED, "stopped", NULL);
    assert_in_range(w.finished, 3, 4); /* two are decoded at once */
    for (int i = 0; i < N; i++) assert_null(q.c[i].token);
    w = (watcher){.allowed = N + 1};
    CHECK_OK(ra_generator_run(g, q.c, N)); /* and works again */
    assert_int_equal(w.finished, N);
    ra_generator_free(g);
    free_queue(&q);
    close_model(&o);
}

/* Frequencies of drawn tokens against the probabilities they are drawn from. */
static void test_sampling(void **state)
{
    (void)state;
    enum { V = 6, DRAWS = 40000 };
    const double logits[V] = {0.0, 1.0, -1.0, 2.0, 0.5, -4.0};
    double p[V], want[V], total = 0.0;
    int32_t order[V], count[V] = {0};
    ra_sampling s = {.temperature = 1.5, .top_p = 1.0, .seed = 3};
    for (int i = 0; i < V; i++) total += want[i] = exp(logits[i] / s.temperature);
    for (int i = 0; i < DRAWS; i++) {
        ra_rng rng = ra_sampling_rng(&s, i / 100, i % 100);
        count[ra_sample_token(&s, V, logits, &rng, p, order)]++;
    }
    for (int i = 0; i < V; i++) /* five standard deviations */
        check_close((double)count[i] / DRAWS, want[i] / total, 0, 5.0 * sqrt(want[i] / total / DRAWS), "frequency");
    s.top_p = (want[3] + want[1] + 0.5 * want[4]) / total; /* 3, 1 and 4 are the nucleus */
    double nucleus = want[3] + want[1] + want[4];
    memset(count, 0, sizeof count);
    for (int i = 0; i < DRAWS; i++) {
        ra_rng rng = ra_sampling_rng(&s, i / 100, i % 100);
        count[ra_sample_token(&s, V, logits, &rng, p, order)]++;
    }
    assert_int_equal(count[0] + count[2] + count[5], 0);
    check_close((double)count[4] / DRAWS, want[4] / nucleus, 0, 5.0 * sqrt(want[4] / nucleus / DRAWS), "frequency");
    const double bad[2] = {0.0, NAN}, none[2] = {-INFINITY, -INFINITY};
    ra_rng rng = ra_sampling_rng(&s, 0, 0);
    assert_int_equal(ra_sample_token(&s, 2, bad, &rng, p, order), -1);
    assert_int_equal(ra_sample_token(&s, 2, none, &rng, p, order), -1);
}

/* The model itself is not in the shared folder: REALIGN_DEMO_GGUF names it (tests/run.sh sets it where the demo has fetched it). */
static void test_smollm2(void **state)
{
    (void)state;
    const char *path = getenv("REALIGN_DEMO_GGUF");
    if (!path || !*path) {
        print_message("# SKIP: REALIGN_DEMO_GGUF does not name SmolLM2-135M-Instruct\n");
        skip();
    }
    json_t *root = read_json("data/models/smollm2/golden.json"), *texts = json_object_get(root, "texts"), *item;
    opened o = open_model(path, "cpu", "fp32");
    ra_scorer *s = ra_scorer_new(o.m, NULL, 512);
    double worst = 0.0;
    size_t i;
    json_array_foreach(texts, i, item)
    {
        int32_t n, *ids = read_ids(json_object_get(item, "ids"), &n);
        worst = fmax(worst, score_against(s, ids, n, 1, json_object_get(item, "logprobs_fp64"), 1e-4));
        ra_free(ids);
    }
    print_message("# worst error of log-probabilities against float64: %.2g, tolerance 1e-4\n", worst);
    ra_scorer_free(s);
    json_t *list = json_object_get(root, "continuations");
    static const int32_t stop[] = {2};
    ra_generation config = {.batch = 3, .prefill_rows = 128, .stop = stop, .stops = 1};
    json_array_foreach(list, i, item)
    {
        int32_t n = (int32_t)json_array_size(json_object_get(item, "continuation_ids"));
        if (n > config.max_new_tokens) config.max_new_tokens = n;
    }
    queue q = read_queue(list);
    ra_generator *g = ra_generator_new(o.m, NULL, &config);
    CHECK_OK(ra_generator_run(g, q.c, q.n));
    for (int32_t j = 0; j < q.n; j++) {
        const json_t *want = json_array_get(list, (size_t)j);
        if (json_is_true(json_object_get(want, "stopped_at_eos"))) assert_true(q.c[j].stopped);
        same_ids(&q.c[j], json_object_get(want, "continuation_ids"));
    }
    ra_generator_free(g);
    free_queue(&q);
    close_model(&o);
    json_decref(root);
}

int main(void)
{
    cmocka_set_message_output(CM_OUTPUT_TAP);
    static char fp32[] = "fp32", bf16[] = "bf16";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_stories_logps),
        cmocka_unit_test(test_stories_greedy),
        cmocka_unit_test(test_decode_against_score),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_hooks),
        {"decoding does not depend on the batch, fp32", test_independence, NULL, NULL, fp32},
        {"decoding does not depend on the batch, bf16", test_independence, NULL, NULL, bf16},
        {"scores do not depend on the pack, fp32", test_score_independence, NULL, NULL, fp32},
        {"scores do not depend on the pack, bf16", test_score_independence, NULL, NULL, bf16},
        cmocka_unit_test(test_smollm2),
    };
    return cmocka_run_group_tests_name("decoding and scoring", tests, NULL, NULL);
}
