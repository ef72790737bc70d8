/* Inference in a pipeline gives what one rank with the whole model gives: scores, generations greedy and drawn, answers to questions, a judge's margins; on every grid that the rank
 * count allows, also where a backend's memory is not host memory. Errors and halts are the same on all stages, and leave everything in working order. */
#include "../../src/infer/ask.h"
#include "support/island.h"
#include "support/support.h"
#include "support/tinytok.h"
#include <realign/file.h>
#include <realign/infer.h>
#include <realign/judge.h>
#include <realign/mem.h>
#include <realign/modelfile.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 10, LONGEST = 90, ROWS = 64, NEW = 9, ANSWERS = 3, ROOT = 21, SEED = 9 };

static const char *const families[] = {"gemma2", "llama31", "qwen25"}; /* 4, 4 and 3 layers */
static const struct {
    const char *backend, *precision;
    double tolerance;
} instances[] = {{"ref", "fp64", 1e-10}, {"cpu", "fp32", 1e-5}};
enum { ISLAND }; /* the stages' backend of this instance is ref with memory that is not host memory */

/* Collective: a failure on one rank is everyone's, so that nobody waits for a rank that has given up. */
#define AGREED(condition, ...)                                                                                \
    do {                                                                                                      \
        if (ra_comm_agree(&grid->world, (condition) ? RA_OK : ra_fail(RA_ERR_DATA, "" __VA_ARGS__)) != RA_OK) \
            return test_message("%s", ra_error_message());                                                    \
    } while (0)
#define AGREED_OK(call)                                                               \
    do {                                                                              \
        if (ra_comm_agree(&grid->world, call) != RA_OK)                               \
            return test_message("%s:%d: %s", __FILE__, __LINE__, ra_error_message()); \
    } while (0)

/* The whole model, and this stage's part of it. */
typedef struct {
    ra_backend *host, *b; /* of the whole model, of the part */
    ra_model *whole, *part;
} models;

static ra_err open_models(const ra_grid *grid, const char *path, int instance, models *out)
{
    ra_modelfile *file = NULL;
    ra_arch arch = {0};
    ra_part part;
    *out = (models){0};
    ra_err err = ra_backend_open(instances[instance].backend, instances[instance].precision, 1, &out->host);
    if (err == RA_OK && instance == ISLAND) err = island_open(&out->b);
    if (err == RA_OK && instance != ISLAND) out->b = out->host;
    if (err == RA_OK) err = ra_modelfile_open(path, &file);
    if (err == RA_OK) err = ra_arch_of(file, &arch);
    if (err == RA_OK) err = ra_grid_share(grid, &arch, &part);
    if (err == RA_OK) err = ra_model_open(out->host, file, RA_FROZEN, NULL, 256, NULL, &out->whole);
    if (err == RA_OK) err = ra_model_open(out->b, file, RA_FROZEN, NULL, 256, &part, &out->part);
    ra_arch_free(&arch);
    ra_modelfile_close(file);
    return err;
}

static void close_models(models *m)
{
    ra_model_close(m->whole);
    ra_model_close(m->part);
    if (m->b && m->b != m->host) island_close(m->b);
    if (m->host) ra_backend_close(m->host);
}

/* Sequences of a replica: of every length up to LONGEST, more than a pack's rows too. */
typedef struct {
    int32_t token[N][LONGEST], count[N];
} texts;

static void draw_texts(texts *t, int32_t vocabulary, int replica)
{
    ra_rng rng = ra_rng_make(SEED, (uint64_t)RA_STREAM_TEST << 32 | (uint64_t)replica);
    for (int i = 0; i < N; i++) {
        t->count[i] = i == 0 ? 2 : i == 1 ? LONGEST : 2 + (int32_t)ra_rng_below(&rng, LONGEST - 2);
        for (int32_t j = 0; j < t->count[i]; j++) t->token[i][j] = (int32_t)ra_rng_below(&rng, (uint64_t)vocabulary);
    }
}

/* ---- every grid ---- */
typedef const char *(*on_grid)(const ra_grid *grid, const char *model, int instance);

/* All pipelines with these ranks, all families, both backends. A model with fewer layers than stages is refused. */
static const char *everywhere(const ra_comm *world, on_grid test)
{
    if (!test_shared()) {
        if (world->rank == 0) printf("# SKIP: the shared folder with the fixture models is not here\n");
        return NULL;
    }
    const char *failed = NULL;
    for (int32_t stages = world->size > 1 ? 2 : 1; stages <= world->size && !failed; stages++) {
        ra_grid grid;
        if (world->size % stages != 0) continue;
        MPI_EXPECT_OK(ra_grid_make(world, stages, &grid));
        for (size_t f = 0; f < sizeof families / sizeof *families && !failed; f++) {
            char *model = ra_format("%s/fixtures/%s/policy", test_shared(), families[f]);
            for (int k = 0; k < 2 && !failed; k++) failed = test(&grid, model, k);
            free(model);
        }
        ra_grid_free(&grid);
    }
    return failed;
}

/* True where the model is too short for the grid, which is then said so. */
static bool too_short(const ra_grid *grid, const char *model, int k, models *m, const char **failed)
{
    ra_err err = ra_comm_agree(&grid->world, open_models(grid, model, k, m));
    *failed = NULL;
    if (err == RA_OK) return false;
    if (err != RA_ERR_ARG || grid->stages < 4 || !strstr(ra_error_message(), "grid.pipeline 4: the model has 3 layers"))
        *failed = test_message("%s: %s", model, ra_error_message());
    close_models(m);
    return true;
}

/* ---- scores ---- */
static const char *compare_scores(const ra_grid *grid, const models *m, double tolerance)
{
    texts *t = ra_calloc(1, sizeof *t);
    draw_texts(t, m->part->arch.vocabulary, grid->data.rank);
    ra_scorer *alone = ra_scorer_new(m->whole, NULL, ROWS), *piped = ra_scorer_new(m->part, grid, ROWS);
    static double want[N][LONGEST], got[N][LONGEST];
    ra_scored a[N], p[N];
    for (int i = 0; i < N; i++) {
        int32_t first = i == 2 ? t->count[i] : 1 + i % t->count[i]; /* of one sequence nothing is scored */
        a[i] = p[i] = (ra_scored){.id = i, .token = t->token[i], .count = t->count[i], .first = first};
        a[i].logprob = want[i];
        p[i].logprob = got[i];
    }
    AGREED_OK(ra_scorer_run(alone, a, N));
    bool leads = grid->stage == 0;
    AGREED_OK(ra_scorer_run(piped, leads ? p : NULL, leads ? N : 0));
    double worst = 0.0;
    for (int i = 0; i < N && leads; i++) {
        for (int32_t j = 0; j < a[i].count - a[i].first; j++) worst = fmax(worst, fabs(got[i][j] - want[i][j]));
    }
    AGREED(worst <= tolerance, "log-probabilities differ by %.2e", worst);
    ra_perplexity y;
    AGREED(ra_perplexity_of(piped, t->token[1], 1, 30, &y) == RA_ERR_DATA, "one token has a perplexity");
    draw_texts(t, m->part->arch.vocabulary, 0); /* the same ids on all ranks */
    AGREED_OK(ra_perplexity_of(piped, t->token[1], LONGEST, 30, &y));
    ra_scored chunk[3];
    double sum = 0.0;
    for (int i = 0; i < 3; i++)
        chunk[i] = (ra_scored){.token = t->token[1] + 30 * i, .count = 30, .first = 1, .logprob = want[i]};
    AGREED_OK(ra_scorer_run(alone, chunk, 3));
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 29; j++) sum += want[i][j];
    }
    AGREED(y.tokens == 87 && fabs(y.sum_logprob - sum) <= 87 * tolerance, "%lld tokens of %g, not 87 of %g", (long long)y.tokens,
           y.sum_logprob, sum);
    if (leads) p[3].first = 0;
    ra_err err = ra_scorer_run(piped, leads ? p : NULL, leads ? N : 0);
    AGREED(err == RA_ERR_DATA && strstr(ra_error_message(), "sequence 3"), "a bad sequence: %s", ra_error_message());
    ra_scorer_free(alone);
    ra_scorer_free(piped);
    ra_free(t);
    return NULL;
}

static const char *scores_on(const ra_grid *grid, const char *model, int k)
{
    models m;
    const char *failed;
    if (too_short(grid, model, k, &m, &failed)) return failed;
    failed = compare_scores(grid, &m, instances[k].tolerance);
    close_models(&m);
    return failed;
}

static const char *scores(const ra_comm *world)
{
    return everywhere(world, scores_on);
}

/* ---- generations ---- */
typedef struct {
    int finished, allowed; /* halts after so many; 0: never */
} watcher;

static void note_finished(void *context, const ra_continuation *c)
{
    watcher *w = context;
    w->finished += c->token != NULL;
}

static bool says_halt(void *context)
{
    const watcher *w = context;
    return w->allowed && w->finished >= w->allowed;
}

static void fill_prompts(const texts *t, int32_t n, ra_continuation *c)
{
    for (int32_t i = 0; i < n; i++)
        c[i] = (ra_continuation){.id = 100 + i, .prompt = t->token[i], .prompt_count = t->count[i] / 2};
}

static bool same_tokens(const ra_continuation *a, const ra_continuation *b)
{
    return a->count == b->count && a->stopped == b->stopped && !memcmp(a->token, b->token, (size_t)a->count * sizeof *a->token);
}

static void free_tokens(ra_continuation *c, int32_t n)
{
    for (int32_t i = 0; i < n; i++) ra_free(c[i].token);
}

/* One sequence a slot, few slots, more slots than sequences, fewer sequences than stages. */
static const char *compare_generations(const ra_grid *grid, const models *m, const texts *t, double temperature)
{
    static const struct {
        int32_t n, batch, rows;
    } shape[] = {{N, 1, 1}, {N, 2, 40}, {N, 64, 1000}, {1, 4, 40}};
    int32_t stop[4];
    for (int i = 0; i < 4; i++) stop[i] = 3 + 7 * i;
    int stopped = 0;
    for (size_t v = 0; v < sizeof shape / sizeof *shape; v++) {
        watcher w = {0};
        ra_generation config = {.sampling = {.temperature = temperature, .top_p = 0.95, .seed = 4},
                                .batch = shape[v].batch,
                                .prefill_rows = shape[v].rows,
                                .max_new_tokens = NEW,
                                .stop = stop,
                                .stops = 4,
                                .finished = note_finished,
                                .halt = says_halt,
                                .context = &w};
        ra_generator *piped = ra_generator_new(m->part, grid, &config);
        config.finished = NULL;
        config.halt = NULL;
        ra_generator *alone = ra_generator_new(m->whole, NULL, &config);
        ra_continuation a[N], p[N];
        bool leads = grid->stage == 0;
        int32_t n = shape[v].n;
        fill_prompts(t, n, a);
        fill_prompts(t, n, p);
        AGREED_OK(ra_generator_run(alone, a, n));
        AGREED_OK(ra_generator_run(piped, leads ? p : NULL, leads ? n : 0));
        int other = 0;
        for (int32_t i = 0; i < n && leads; i++) {
            other += !same_tokens(&a[i], &p[i]);
            stopped += a[i].stopped;
        }
        AGREED(other == 0, "%d of %d prompts, temperature %g, shape %zu: other tokens than from one rank", other, n, temperature,
               v);
        AGREED(w.finished == (leads ? n : 0), "%d of %d sequences were told of", w.finished, n);
        if (leads) free_tokens(p, n);
        w = (watcher){.allowed = n > 3 ? 3 : 0};
        ra_err err = ra_generator_run(piped, leads ? p : NULL, leads ? n : 0); /* once more, and a halt in the middle */
        bool at_once = v > 1; /* all of them end together, before anybody can halt, unless one met a stop id */
        AGREED(err == RA_ERR_STOPPED || (at_once && err == RA_OK), "a halt: %s", ra_error_message());
        if (leads && err == RA_OK) free_tokens(p, n);
        free_tokens(a, n);
        ra_generator_free(alone);
        ra_generator_free(piped);
    }
    int64_t met = stopped;
    ra_comm_sum_i64(&grid->world, &met, 1);
    AGREED(met > 0, "no sequence met a stop id");
    return NULL;
}

/* Logits that are no numbers, and a prompt that cannot be: the same error on all stages, and a generator that works afterwards. */
static const char *generations_fail(const ra_grid *grid, const models *m, texts *t)
{
    bool leads = grid->stage == 0;
    ra_generation config = {.batch = 3, .prefill_rows = 40, .max_new_tokens = NEW};
    ra_generator *g = ra_generator_new(m->part, grid, &config);
    ra_continuation c[N];
    fill_prompts(t, N, c);
    ra_backend *b = m->b;
    size_t bytes = (size_t)m->part->base.vector_size * b->r_size;
    void *kept = ra_alloc(bytes, 1), *bad = ra_alloc(bytes, 1);
    b->ops->download(b, kept, m->part->vectors, bytes);
    memset(bad, 0xff, bytes); /* NaN in either type */
    if (m->part->last) b->ops->upload(b, m->part->vectors, bad, bytes);
    ra_err err = ra_generator_run(g, leads ? c : NULL, leads ? N : 0);
    AGREED(err == RA_ERR_NUMERIC && strstr(ra_error_message(), "prompt 10"), "no numbers: %s", ra_error_message());
    b->ops->upload(b, m->part->vectors, kept, bytes);
    int32_t token = t->token[5][0];
    t->token[5][0] = m->part->arch.vocabulary;
    err = ra_generator_run(g, leads ? c : NULL, leads ? N : 0);
    AGREED(err == RA_ERR_DATA && strstr(ra_error_message(), "prompt 105"), "a bad prompt: %s", ra_error_message());
    t->token[5][0] = token;
    AGREED_OK(ra_generator_run(g, leads ? c : NULL, leads ? N : 0));
    if (leads) free_tokens(c, N);
    AGREED_OK(ra_generator_run(g, NULL, 0)); /* nothing at all */
    ra_generator_free(g);
    ra_free(kept);
    ra_free(bad);
    return NULL;
}

static const char *generations_on(const ra_grid *grid, const char *model, int k)
{
    models m;
    const char *failed;
    if (too_short(grid, model, k, &m, &failed)) return failed;
    texts *t = ra_calloc(1, sizeof *t);
    draw_texts(t, m.part->arch.vocabulary, grid->data.rank);
    /* near ties fall otherwise where a row of a product depends on the other rows */
    if (k == ISLAND || m.b->row_independent) failed = compare_generations(grid, &m, t, 0.0);
    if (!failed && (k == ISLAND || m.b->row_independent)) failed = compare_generations(grid, &m, t, 0.9);
    if (!failed) failed = generations_fail(grid, &m, t);
    ra_free(t);
    close_models(&m);
    return failed;
}

static const char *generations(const ra_comm *world)
{
    return everywhere(world, generations_on);
}

/* ---- questions ---- */
typedef struct {
    double logit[N][ANSWERS], lse[N];
    int times[N], refuse; /* refuse: the sink's own error at this many */
} answers;

static ra_err keep(void *context, int64_t id, const double *logit, double lse)
{
    answers *a = context;
    if (a->refuse && --a->refuse == 0) return ra_fail(RA_ERR_NUMERIC, "refused %d", (int)id);
    memcpy(a->logit[id], logit, sizeof a->logit[id]);
    a->lse[id] = lse;
    a->times[id]++;
    return RA_OK;
}

static ra_err ask(ra_asker *a, const ra_grid *grid, const texts *t, const int32_t *root)
{
    if (grid->stage > 0) {
        ra_asker_follow(a);
        return RA_OK;
    }
    ra_err err = RA_OK;
    for (int i = 0; i < N && err == RA_OK; i++) {
        int32_t whole[ROOT + LONGEST], shared = i % 5 ? ROOT : i;
        memcpy(whole, root, (size_t)shared * sizeof *whole);
        memcpy(whole + shared, t->token[i], (size_t)t->count[i] * sizeof *whole);
        err = ra_asker_add(a, i, whole, shared + t->count[i], shared + t->count[i] / 3);
    }
    if (err == RA_OK) err = ra_asker_flush(a);
    ra_err late = ra_asker_end(a);
    return err == RA_OK ? late : err;
}

static const char *compare_answers(const ra_grid *grid, const models *m, double tolerance)
{
    texts *t = ra_calloc(1, sizeof *t);
    int32_t root[ROOT], answer[ANSWERS] = {5, 0, 11};
    draw_texts(t, m->part->arch.vocabulary, grid->data.rank);
    memcpy(root, t->token[1] + 3, sizeof root);
    answers want = {0}, got = {0}, again = {.refuse = 4};
    const ra_grid self = ra_grid_alone();
    ra_asker *alone = ra_asker_new(m->whole, NULL, ROWS, root, ROOT, answer, ANSWERS, keep, &want),
             *piped = ra_asker_new(m->part, grid, ROWS, root, ROOT, answer, ANSWERS, keep, &got);
    AGREED_OK(ask(alone, &self, t, root));
    for (int round = 0; round < 2; round++) {
        AGREED_OK(ask(piped, grid, t, root));
        double worst = 0.0;
        int once = 0;
        for (int i = 0; i < N && grid->stage == 0; i++) {
            once += got.times[i] == 1;
            worst = fmax(worst, fabs(got.lse[i] - want.lse[i]));
            for (int k = 0; k < ANSWERS; k++) worst = fmax(worst, fabs(got.logit[i][k] - want.logit[i][k]));
        }
        AGREED(once == (grid->stage ? 0 : N) && worst <= tolerance, "%d of %d answered once, off by %.2e", once, N, worst);
        memset(&got, 0, sizeof got);
    }
    ra_asker_free(piped);
    piped = ra_asker_new(m->part, grid, ROWS, root, ROOT, answer, ANSWERS, keep, &again);
    ra_err err = ask(piped, grid, t, root);
    AGREED(err == (grid->stage ? RA_OK : RA_ERR_NUMERIC), "a sink that refuses: %s", ra_error_message());
    AGREED_OK(ask(piped, grid, t, root));
    ra_asker_free(alone);
    ra_asker_free(piped);
    ra_free(t);
    return NULL;
}

static const char *answers_on(const ra_grid *grid, const char *model, int k)
{
    models m;
    const char *failed;
    if (too_short(grid, model, k, &m, &failed)) return failed;
    failed = compare_answers(grid, &m, instances[k].tolerance);
    close_models(&m);
    return failed;
}

static const char *questions(const ra_comm *world)
{
    return everywhere(world, answers_on);
}

/* ---- a judge ---- */
enum { ITEMS = 7 };
static const ra_oracle_item items[ITEMS] = {
    {.prompt = "Tell me about a cat.", .response = "Once there was a cat."},
    {.prompt = "Tell me about a cat.", .response = "The sea is blue, and it is very big, and we went there with mom and dad."},
    {.prompt = "Tell me about a cat.", .response = ""},
    {.prompt = "", .response = "A dog."},
    {.prompt = "A story about a dog.", .response = "There was a dog."},
    {.prompt = "A story about a dog.", .response = "\nNo dog\n"},
    {.prompt = "What?", .response = "5"},
};

typedef struct {
    float margin[ITEMS];
    int times[ITEMS], judged, stop_after; /* 0: never */
} verdicts;

static void note(void *context, int item, const ra_verdict *verdict)
{
    verdicts *v = context;
    v->margin[item] = verdict->margin;
    v->times[item]++;
}

static bool must_stop(void *context)
{
    verdicts *v = context;
    return v->stop_after && ++v->judged > v->stop_after;
}

/* A small trained model (5 layers) with a tokenizer of its own and room for a policy. */
static const char *make_judge_model(const char *dir)
{
    static const char *const names[] = {"model.safetensors"};
    char *stories = ra_path_join(test_shared(), "data/models/stories260K/hf"), *from = ra_path_join(stories, "config.json"),
         *to = ra_path_join(dir, "config.json");
    json_t *config = json_load_file(from, 0, NULL);
    MPI_EXPECT(config, "%s cannot be read", from);
    json_object_set_new(config, "max_position_embeddings", json_integer(2048));
    MPI_EXPECT(json_dump_file(config, to, 0) == 0, "%s cannot be written", to);
    json_decref(config);
    ra_buf bytes = {0};
    char *source = ra_path_join(stories, names[0]), *copy = ra_path_join(dir, names[0]);
    MPI_EXPECT_OK(ra_file_read(source, &bytes));
    MPI_EXPECT_OK(ra_file_write(copy, bytes.data, bytes.length));
    ra_buf_free(&bytes);
    tinytok_write(dir, &(tinytok){0});
    char *used[] = {stories, from, to, source, copy};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
    return NULL;
}

static ra_err judge(const ra_judge_config *config, const ra_grid *grid, verdicts *v)
{
    static const char policy[] = "A reply is about a dog or a cat. It is not about the sea.";
    const ra_oracle_ops *ops;
    void *state;
    ra_err err = ra_judge_open(config, policy, &ops, &state);
    if (err != RA_OK) return err;
    for (int round = 0; round < 2 && err == RA_OK; round++) {
        if (!grid || grid->stage == 0) {
            err = ops->judge(state, items, ITEMS, note, v);
        } else {
            err = ra_grid_await(grid) == RA_CALL_ORACLE ? ops->follow(state) : ra_fail(RA_ERR_DATA, "not what was called for");
        }
        v->stop_after = 0;
        if (err == RA_ERR_STOPPED) err = RA_OK;
    }
    ops->close(state);
    return err;
}

static const char *compare_judges(const ra_grid *grid, const char *model)
{
    static const char *const yes[] = {"hello", "y"}, *const no[] = {"ab", "n"};
    verdicts want = {0}, got = {0}, stopped = {.stop_after = 3};
    ra_judge_config config = {.model = model,
                              .tokenizer = model,
                              .chat_template = "auto",
                              .backend = "cpu",
                              .precision = "fp32",
                              .yes = yes,
                              .no = no,
                              .n_yes = 2,
                              .n_no = 2,
                              .max_tokens = 1024,
                              .pack_tokens = 150,
                              .threads = 1,
                              .threshold = 0.5,
                              .least_share = 1e-12,
                              .stop = must_stop,
                              .stop_context = &want};
    AGREED_OK(judge(&config, NULL, &want));
    config.grid = grid;
    config.stop_context = &got;
    AGREED_OK(judge(&config, grid, &got));
    double worst = 0.0;
    int twice = 0;
    for (int i = 0; i < ITEMS && grid->stage == 0; i++) {
        twice += got.times[i] == 2;
        worst = fmax(worst, fabs((double)(got.margin[i] - want.margin[i])));
    }
    AGREED(twice == (grid->stage ? 0 : ITEMS) && worst <= 1e-4, "%d of %d judged twice, margins off by %.2e", twice, ITEMS,
           worst);
    config.stop_context = &stopped;
    AGREED_OK(judge(&config, grid, &stopped));
    AGREED(grid->stage > 0 || stopped.times[ITEMS - 1] == 1, "the judge did not stop");
    return NULL;
}

static const char *judges(const ra_comm *world)
{
    if (!test_shared()) {
        if (world->rank == 0) printf("# SKIP: the shared folder with a small model is not here\n");
        return NULL;
    }
    char *dir = test_mpi_dir_make(world);
    const char *failed = world->rank == 0 ? make_judge_model(dir) : NULL;
    MPI_EXPECT_OK(ra_comm_agree(world, failed ? ra_fail(RA_ERR_DATA, "%s", failed) : RA_OK));
    for (int32_t stages = world->size > 1 ? 2 : 1; stages <= world->size && !failed; stages++) {
        ra_grid grid;
        if (world->size % stages != 0) continue;
        MPI_EXPECT_OK(ra_grid_make(world, stages, &grid));
        failed = compare_judges(&grid, dir);
        ra_grid_free(&grid);
    }
    test_mpi_dir_remove(world, dir);
    return failed;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {{"scores", scores},
                                     {"generations, greedy and drawn, halts and errors", generations},
                                     {"answers to questions", questions},
                                     {"a judge's margins", judges}};
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
