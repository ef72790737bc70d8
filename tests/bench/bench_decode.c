/* Greedy decoding and scoring speed: 32 prompts of 20 to 200 tokens, 64 new tokens each, none of them ending early.
 *   bench_decode [MODEL [PRECISION]]     MODEL: a directory or a GGUF file; else $REALIGN_DEMO_GGUF
 * Prints tokens/s of wall-clock time, and of processor time times threads, which a busy machine disturbs less. */
#include <realign/infer.h>
#include <realign/mem.h>
#include <realign/modelfile.h>
#include <realign/timer.h>

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { PROMPTS = 32, NEW = 64, REPEATS = 3 };

static double processor_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void report(const char *what, int64_t tokens, double wall, double processor)
{
    printf("%-16s %9.0f tokens/s wall, %9.0f tokens/s of processor time\n", what, (double)tokens / wall,
           (double)tokens / processor * omp_get_max_threads());
}

static void bench(ra_model *m)
{
    ra_continuation c[PROMPTS];
    ra_scored q[PROMPTS];
    ra_rng rng = ra_rng_make(1, RA_STREAM_TEST);
    int64_t prompt_tokens = 0;
    for (int i = 0; i < PROMPTS; i++) {
        int32_t n = 20 + (int32_t)ra_rng_below(&rng, 181), *ids = ra_alloc((size_t)n, sizeof *ids);
        for (int32_t j = 0; j < n; j++) ids[j] = (int32_t)ra_rng_below(&rng, (uint64_t)m->arch.vocabulary);
        c[i] = (ra_continuation){.id = i, .prompt = ids, .prompt_count = n};
        q[i] = (ra_scored){.id = i, .token = ids, .count = n, .first = 1, .logprob = ra_alloc((size_t)n, sizeof(double))};
        prompt_tokens += n;
    }
    ra_generation config = {.batch = PROMPTS, .max_new_tokens = NEW, .prefill_rows = 1024};
    ra_generator *g = ra_generator_new(m, NULL, &config);
    ra_scorer *s = ra_scorer_new(m, NULL, 1024);
    for (int k = 0; k < REPEATS; k++) {
        ra_generation_counts before = *ra_generator_counts(g);
        double wall = ra_now(), processor = processor_seconds();
        if (ra_generator_run(g, c, PROMPTS) != RA_OK) ra_die("%s", ra_error_message());
        wall = ra_now() - wall, processor = processor_seconds() - processor;
        const ra_generation_counts *after = ra_generator_counts(g);
        report("generate", after->new_tokens - before.new_tokens, wall, processor);
        printf("  prefill %.2f s, decoding %.2f s\n", after->prefill_s - before.prefill_s, after->decode_s - before.decode_s);
        for (int i = 0; i < PROMPTS; i++) ra_free(c[i].token);
        wall = ra_now(), processor = processor_seconds();
        if (ra_scorer_run(s, q, PROMPTS) != RA_OK) ra_die("%s", ra_error_message());
        report("score", prompt_tokens, ra_now() - wall, processor_seconds() - processor);
    }
    ra_scorer_free(s);
    ra_generator_free(g);
    for (int i = 0; i < PROMPTS; i++) {
        ra_free((int32_t *)(uintptr_t)c[i].prompt);
        ra_free(q[i].logprob);
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : getenv("REALIGN_DEMO_GGUF");
    if (!path) {
        printf("no model: give one, or REALIGN_DEMO_GGUF\n");
        return 0;
    }
    ra_backend *b = NULL;
    ra_modelfile *file = NULL;
    ra_model *m = NULL;
    if (ra_backend_open("cpu", argc > 2 ? argv[2] : "auto", 0, &b) != RA_OK || ra_modelfile_open(path, &file) != RA_OK ||
        ra_model_open(b, file, RA_FROZEN, NULL, 0, NULL, &m) != RA_OK)
        ra_die("%s", ra_error_message());
    printf("%s\n", ra_backend_describe(b));
    bench(m);
    ra_model_close(m);
    ra_modelfile_close(file);
    ra_backend_close(b);
    return 0;
}
