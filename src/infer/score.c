/* Log-probabilities of given sequences: packs of similar lengths through the engine's forward pass, then the fused head at the scored positions. */
#include "relay.h"

#include <realign/infer.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ra_scorer {
    ra_model *m;
    ra_grid grid;
    int32_t rows, capacity; /* the budget asked for; what the engine takes now */
    ra_engine *engine;
};

static void allocate(ra_scorer *s, int32_t rows)
{
    ra_engine_free(s->engine);
    s->capacity = rows;
    const ra_engine_config config = {.rows = rows};
    if (ra_engine_new(s->m, &s->grid, &config, NULL, &s->engine) != RA_OK) ra_die("scoring: %s", ra_error_message());
}

ra_scorer *ra_scorer_new(ra_model *m, const ra_grid *grid, int32_t rows)
{
    ra_scorer *s = ra_calloc(1, sizeof *s);
    s->m = m;
    s->grid = grid ? *grid : ra_grid_alone();
    s->rows = rows;
    allocate(s, rows);
    return s;
}

void ra_scorer_free(ra_scorer *s)
{
    if (!s) return;
    ra_engine_free(s->engine);
    ra_free(s);
}

ra_err ra_scorer_check(const ra_scorer *s, const ra_scored *q)
{
    if (q->first < 1) return ra_fail(RA_ERR_DATA, "scoring from index %d: nothing stands before the first token", q->first);
    if (q->count - 1 > s->m->rope_positions) {
        return ra_fail(RA_ERR_DATA, "the sequence has %d tokens; the model has %d positions", q->count, s->m->rope_positions);
    }
    for (int32_t i = 0; i < q->count; i++) {
        if (q->token[i] < 0 || q->token[i] >= s->m->arch.vocabulary) {
            return ra_fail(RA_ERR_DATA, "token id %d at index %d; the vocabulary has 0 to %d", q->token[i], i,
                           s->m->arch.vocabulary - 1);
        }
    }
    return RA_OK;
}

static int32_t scored_tokens(int32_t count, int32_t first)
{
    return count > first ? count - first : 0;
}

static int longest_first(const void *x, const void *y)
{
    const ra_scored *a = *(ra_scored *const *)x, *b = *(ra_scored *const *)y;
    return a->count != b->count ? b->count - a->count : (a > b) - (a < b);
}

/* A sequence as a sample: what is given, then one response. The last token is predicted, never read. */
static ra_sample sample_of(const ra_scored *q)
{
    ra_sample sample = {.id = q->id, .prompt_count = q->first, .prompt = q->token};
    sample.response[RA_CHOSEN].count = q->count - q->first;
    sample.response[RA_CHOSEN].token = q->token + q->first;
    return sample;
}

/* ---- packs ---- */
enum { PACKS_OF_A_PASS = 1024 }; /* a pipeline is filled and emptied once for so many; a schedule's table has an end */

typedef struct {
    ra_scored **queue; /* (n) longest first */
    int64_t *begin;    /* (packs + 1) pack p takes queue[begin[p] .. begin[p + 1]) */
    int32_t packs, longest;
    int32_t first; /* of the pass that is under way */
} packing;

static packing packing_of(const ra_scorer *s, ra_scored *all, int64_t n)
{
    packing p = {.queue = ra_alloc((size_t)n, sizeof(ra_scored *)), .begin = ra_alloc((size_t)n + 1, sizeof *p.begin)};
    int64_t used = 0, rows = 0;
    for (int64_t i = 0; i < n; i++) {
        if (all[i].count > all[i].first) p.queue[used++] = &all[i];
    }
    qsort(p.queue, (size_t)used, sizeof(ra_scored *), longest_first);
    for (int64_t i = 0; i < used; i++) {
        ra_sample sample = sample_of(p.queue[i]);
        int32_t more = ra_microbatch_rows(&sample, ra_loss_roles(RA_LOSS_SCORE));
        if (more > p.longest) p.longest = more;
        if (i == 0 || rows + more > s->rows) {
            p.begin[p.packs++] = i;
            rows = 0;
        }
        rows += more;
    }
    p.begin[p.packs] = used;
    return p;
}

static void fill(void *context, int32_t index, ra_microbatch *mb)
{
    const packing *p = context;
    ra_microbatch_clear(mb);
    for (int64_t i = p->begin[p->first + index]; i < p->begin[p->first + index + 1]; i++) {
        ra_sample sample = sample_of(p->queue[i]);
        if (!ra_microbatch_add(mb, &sample, RA_LOSS_SCORE, 0.0, NULL)) ra_die("a sequence does not fit into its pack");
    }
}

static ra_err take_scores(void *context, int32_t index, ra_microbatch *mb, const double *logp, const void *hidden)
{
    (void)hidden;
    const packing *p = context;
    for (int32_t i = 0; i < mb->responses; i++) {
        const ra_response *r = &mb->response[i];
        memcpy(p->queue[p->begin[p->first + index] + r->item]->logprob, logp + r->first, (size_t)r->count * sizeof *logp);
    }
    return RA_OK;
}

static ra_err run(ra_scorer *s, ra_scored *all, int64_t n)
{
    packing p = packing_of(s, all, n);
    if (p.longest > s->capacity) allocate(s, p.longest);
    ra_err err = RA_OK;
    for (; p.first < p.packs && err == RA_OK; p.first += PACKS_OF_A_PASS) {
        int32_t left = p.packs - p.first;
        const ra_pass pass = {
            .context = &p, .count = left < PACKS_OF_A_PASS ? left : PACKS_OF_A_PASS, .fill = fill, .scored = take_scores};
        err = ra_engine_run(s->engine, &(ra_objective){0}, &pass);
    }
    ra_free(p.queue);
    ra_free(p.begin);
    return err;
}

/* ---- sequences ---- */
static ra_err check_all(const ra_scorer *s, const ra_scored *sequence, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        ra_err err = ra_scorer_check(s, &sequence[i]);
        if (err != RA_OK) return ra_fail_in(err, "sequence %lld", (long long)sequence[i].id);
    }
    return RA_OK;
}

static ra_err check_numbers(const ra_scored *sequence, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < sequence[i].count - sequence[i].first; j++) {
            if (!isnan(sequence[i].logprob[j])) continue;
            return ra_fail(RA_ERR_NUMERIC, "sequence %lld: the log-probability of token %d is not a number",
                           (long long)sequence[i].id, sequence[i].first + j);
        }
    }
    return RA_OK;
}

/* The same list on every stage, its log-probabilities in one row at logprob; of how many numbers. */
static int64_t lay_out(const ra_sequence *sequence, int64_t n, ra_scored *all, double **logprob)
{
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) total += scored_tokens(sequence[i].count, sequence[i].first);
    double *at = *logprob = ra_alloc((size_t)total, sizeof *at);
    for (int64_t i = 0; i < n; at += scored_tokens(sequence[i].count, sequence[i].first), i++) {
        all[i] = (ra_scored){.id = sequence[i].id,
                             .token = sequence[i].token,
                             .count = sequence[i].count,
                             .first = sequence[i].first,
                             .logprob = at};
    }
    return total;
}

/* What stage 0 asks goes to all stages; what the last one finds comes back. */
static ra_err run_spread(ra_scorer *s, ra_scored *sequence, int64_t n)
{
    const ra_grid *grid = &s->grid;
    ra_sequence *mine = ra_alloc((size_t)n, sizeof *mine);
    for (int64_t i = 0; i < n; i++)
        mine[i] = (ra_sequence){sequence[i].id, sequence[i].token, sequence[i].count, sequence[i].first};
    ra_sequence *spread = ra_relay_spread(grid, mine, &n);
    ra_scored *all = ra_alloc((size_t)n, sizeof *all);
    double *logprob;
    int64_t total = lay_out(spread, n, all, &logprob);
    ra_err err = run(s, all, n);
    if (err == RA_OK) {
        ra_comm_bcast(&grid->pipeline, logprob, total * (int64_t)sizeof *logprob, grid->stages - 1);
        err = check_numbers(all, n);
    }
    for (int64_t i = 0; i < n && err == RA_OK && grid->stage == 0; i++) {
        int32_t count = scored_tokens(all[i].count, all[i].first);
        if (count > 0) memcpy(sequence[i].logprob, all[i].logprob, (size_t)count * sizeof *logprob);
    }
    ra_free(logprob);
    ra_free(all);
    if (spread != mine) ra_free(spread);
    ra_free(mine);
    return err;
}

ra_err ra_scorer_run(ra_scorer *s, ra_scored *sequence, int64_t n)
{
    if (s->grid.stage > 0) n = 0;
    RA_TRY(ra_grid_agree(&s->grid, check_all(s, sequence, n)));
    if (s->grid.stages > 1) return run_spread(s, sequence, n);
    RA_TRY(run(s, sequence, n));
    return check_numbers(sequence, n);
}

ra_err ra_perplexity_of(ra_scorer *s, const int32_t *ids, int64_t n, int32_t window, ra_perplexity *out)
{
    const ra_comm *copies = &s->grid.data, *world = &s->grid.world;
    int64_t chunks = (n + window - 1) / window, mine = 0;
    ra_scored *part = ra_calloc((size_t)(chunks / copies->size + 1), sizeof *part);
    double *logprob = ra_alloc((size_t)n, sizeof *logprob), *sum = ra_calloc((size_t)chunks, sizeof *sum);
    for (int64_t i = copies->rank; i < chunks && s->grid.stage == 0; i += copies->size) {
        int64_t left = n - i * window;
        part[mine++] = (ra_scored){.id = i,
                                   .token = ids + i * window,
                                   .count = (int32_t)(left < window ? left : window),
                                   .first = 1,
                                   .logprob = logprob + i * window};
    }
    ra_err err = ra_comm_agree(world, ra_scorer_run(s, part, mine));
    if (err == RA_OK) {
        for (int64_t i = 0; i < mine; i++) {
            for (int32_t j = 0; j + 1 < part[i].count; j++) sum[part[i].id] += part[i].logprob[j];
        }
        ra_comm_sum_f64(world, sum, chunks); /* one rank holds each: adding the others' zeros changes nothing */
        *out = (ra_perplexity){.tokens = n - chunks};
        for (int64_t i = 0; i < chunks; i++) out->sum_logprob += sum[i];
        out->perplexity = exp(-out->sum_logprob / (double)out->tokens);
        if (out->tokens < 1) err = ra_fail(RA_ERR_DATA, "perplexity of %lld tokens: at least 2 are needed", (long long)n);
    }
    ra_free(sum);
    ra_free(logprob);
    ra_free(part);
    return err;
}
