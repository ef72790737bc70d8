/* Log-probabilities of given sequences: packs of similar lengths through the forward pass, then the fused head at the scored positions. */
#include <realign/infer.h>
#include <realign/loss.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>

struct ra_scorer {
    ra_model *m;
    int32_t rows, capacity; /* the budget asked for; what is allocated now */
    ra_microbatch *mb;
    ra_activations *acts;
    ra_head *head;
    double *logp;
};

static void release(ra_scorer *s)
{
    ra_microbatch_free(s->mb);
    ra_activations_free(s->acts);
    ra_head_free(s->head);
    ra_free(s->logp);
}

static void allocate(ra_scorer *s, int32_t rows)
{
    release(s);
    s->capacity = rows;
    s->mb = ra_microbatch_new(rows);
    s->acts = ra_activations_new(s->m, rows, &(ra_keeping){0});
    s->head = ra_head_new(s->m, rows);
    s->logp = ra_alloc((size_t)rows, sizeof *s->logp);
}

ra_scorer *ra_scorer_new(ra_model *m, int32_t rows)
{
    ra_scorer *s = ra_calloc(1, sizeof *s);
    s->m = m;
    s->rows = rows;
    allocate(s, rows);
    return s;
}

void ra_scorer_free(ra_scorer *s)
{
    if (!s) return;
    release(s);
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

/* Runs what is in the micro-batch: sequences queue[from .. from + items). */
static ra_err flush(ra_scorer *s, ra_scored **queue)
{
    ra_model_forward(s->m, 0, &s->mb->pack, s->acts, 0);
    ra_head_forward(s->head, s->mb, ra_activations_last(s->acts, 0), s->logp, NULL);
    for (int32_t i = 0; i < s->mb->responses; i++) {
        const ra_response *r = &s->mb->response[i];
        ra_scored *q = queue[r->item];
        for (int32_t j = 0; j < r->count; j++) {
            q->logprob[j] = s->logp[r->first + j];
            if (isnan(q->logprob[j])) {
                return ra_fail(RA_ERR_NUMERIC, "sequence %lld: the log-probability of token %d is not a number", (long long)q->id,
                               q->first + j);
            }
        }
    }
    ra_microbatch_clear(s->mb);
    return RA_OK;
}

static ra_err run(ra_scorer *s, ra_scored **queue, int64_t n)
{
    int64_t begin = 0;
    for (int64_t i = 0; i < n; i++) {
        ra_sample sample = sample_of(queue[i]);
        int32_t rows = ra_microbatch_rows(&sample, ra_loss_roles(RA_LOSS_SCORE));
        bool full = s->mb->items && s->mb->pack.rows + rows > s->rows;
        if (full) {
            RA_TRY(flush(s, queue + begin));
            begin = i;
        }
        if (rows > s->capacity) allocate(s, rows);
        if (!ra_microbatch_add(s->mb, &sample, RA_LOSS_SCORE, 0.0, NULL)) ra_die("a sequence does not fit into an empty pack");
    }
    return s->mb->items ? flush(s, queue + begin) : RA_OK;
}

ra_err ra_scorer_run(ra_scorer *s, ra_scored *sequence, int64_t n)
{
    ra_scored **queue = ra_alloc((size_t)n, sizeof(ra_scored *));
    int64_t used = 0;
    ra_err err = RA_OK;
    for (int64_t i = 0; i < n && err == RA_OK; i++) {
        err = ra_scorer_check(s, &sequence[i]);
        if (err != RA_OK) ra_fail_in(err, "sequence %lld", (long long)sequence[i].id);
        if (sequence[i].count > sequence[i].first) queue[used++] = &sequence[i];
    }
    if (err == RA_OK) {
        qsort(queue, (size_t)used, sizeof(ra_scored *), longest_first);
        ra_microbatch_clear(s->mb);
        err = run(s, queue, used);
    }
    ra_free(queue);
    return err;
}

ra_err ra_perplexity_of(ra_scorer *s, const ra_comm *comm, const int32_t *ids, int64_t n, int32_t window, ra_perplexity *out)
{
    int64_t chunks = (n + window - 1) / window, mine = 0;
    ra_scored *part = ra_calloc((size_t)(chunks / comm->size + 1), sizeof *part);
    double *logprob = ra_alloc((size_t)n, sizeof *logprob), *sum = ra_calloc((size_t)chunks, sizeof *sum);
    for (int64_t i = comm->rank; i < chunks; i += comm->size) {
        int64_t left = n - i * window;
        part[mine++] = (ra_scored){.id = i,
                                   .token = ids + i * window,
                                   .count = (int32_t)(left < window ? left : window),
                                   .first = 1,
                                   .logprob = logprob + i * window};
    }
    ra_err err = ra_comm_agree(comm, ra_scorer_run(s, part, mine));
    if (err == RA_OK) {
        for (int64_t i = 0; i < mine; i++) {
            for (int32_t j = 0; j + 1 < part[i].count; j++) sum[part[i].id] += part[i].logprob[j];
        }
        ra_comm_sum_f64(comm, sum, chunks); /* one rank holds each: adding the others' zeros changes nothing */
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
