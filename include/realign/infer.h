/* Inference: batched decoding against a KV cache, and log-probabilities of given sequences. Callers deal sequences to the replicas of a grid (grid->data); the stages of
 * a replica compute together, each with its own layers.
 *
 * In a pipeline every stage makes the object and calls `run`; work is given and results are had on stage 0 alone, the others pass NULL and 0. Stage 0's sequences are sent to all stages
 * first, so that they all know what comes; then the residual stream goes down the stages, and what the last one finds (a token, a log-probability) goes to all of them. Errors are
 * the same on all stages. grid NULL: this rank alone, which holds the whole model. A grid's communicators must outlive what is made with it.
 *
 * The result of a sequence depends on the sequence alone, not on what is decoded or scored beside it: rows of a product, of a norm and of attention are computed
 * from that row's (or that tree's) numbers in one order. This is bitwise where the backend's rows are
 * independent (ra_backend.row_independent; the cpu backend with AVX-512), else to rounding (AVX2): tests/unit/test_infer.c asks it of whole models. */
#ifndef REALIGN_INFER_H
#define REALIGN_INFER_H
#include <realign/comm.h>
#include <realign/engine.h>
#include <realign/error.h>
#include <realign/model.h>
#include <realign/rng.h>
#include <realign/settings.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- the last step of a forward pass: final norm, head, a choice ---- */
typedef struct {
    double temperature; /* 0: greedy, the lowest id among equals */
    double top_p;       /* drawn from the smallest set of tokens with this total probability; 1: all */
    uint64_t seed;
} ra_sampling;

/* Draws from softmax(logits / temperature) cut to the nucleus; tokens of equal probability are ordered by id. `order` and `p` are scratch of n.
 * Returns -1 where a logit is not a number or all are -infinity. */
int32_t ra_sample_token(const ra_sampling *s, int64_t n, const double *logits, ra_rng *rng, double *p, int32_t *order);
/* The generator of prompt `id`'s token number `step`: it depends on nothing else. */
ra_rng ra_sampling_rng(const ra_sampling *s, int64_t id, int32_t step);

/* ---- generation ---- */
struct ra_continuation;
typedef struct {
    ra_sampling sampling;
    int32_t batch;          /* sequences decoded at once; in a pipeline in each of as many groups as there are stages */
    int32_t max_new_tokens; /* a response is cut here */
    int32_t prefill_rows;   /* token budget of a pack of prompts */
    const int32_t *stop;    /* ids that end a response; they belong to it */
    int32_t stops;
    /* Both may be NULL; stage 0's; called from the thread that generates. */
    void (*finished)(void *context, const struct ra_continuation *sequence); /* as soon as one is complete, in any order */
    bool (*halt)(void *context);                                             /* asked before each step; true: RA_ERR_STOPPED */
    void *context;
} ra_generation;

typedef struct ra_continuation {
    int64_t id; /* keys the random numbers */
    const int32_t *prompt;
    int32_t prompt_count;
    int32_t *token; /* [out] new ids, the closing token included; free with ra_free */
    int32_t count;  /* [out] */
    bool stopped;   /* [out] by a stop id; else cut at max_new_tokens */
} ra_continuation;

typedef struct {
    int64_t prompt_tokens, new_tokens, steps;
    double prefill_s, decode_s;
} ra_generation_counts;

typedef struct ra_generator ra_generator;
/* Collective over grid->pipeline, with the same config but for the last three members. config.stop is borrowed. */
ra_generator *ra_generator_new(ra_model *m, const ra_grid *grid, const ra_generation *config);
void ra_generator_free(ra_generator *g);
/* RA_ERR_DATA where the prompt is empty, holds an id outside of the vocabulary, or leaves no room within the model's positions. */
ra_err ra_generator_check(const ra_generator *g, const ra_continuation *sequence);
/* Collective over grid->pipeline. Fills the outputs of all n. Errors name the prompt by `id`: what ra_generator_check refuses, and RA_ERR_NUMERIC where logits are not numbers; RA_ERR_STOPPED when
 * config.halt said so. On failure no outputs are held; what config.finished saw before was complete. */
ra_err ra_generator_run(ra_generator *g, ra_continuation *sequence, int64_t n);
const ra_generation_counts *ra_generator_counts(const ra_generator *g);

/* ---- scoring ---- */
typedef struct {
    int64_t id; /* for messages */
    const int32_t *token;
    int32_t count, first;
    double *logprob; /* [out] (count - first) log p(token[i] | token[0 .. i)), i from `first` >= 1; the caller's memory */
} ra_scored;

typedef struct ra_scorer ra_scorer;
/* Collective over grid->pipeline. Packs of `rows` rows; a longer sequence gets a pack of its own. */
ra_scorer *ra_scorer_new(ra_model *m, const ra_grid *grid, int32_t rows);
void ra_scorer_free(ra_scorer *s);
/* RA_ERR_DATA where the sequence holds an id outside of the vocabulary or more tokens than the model has positions. */
ra_err ra_scorer_check(const ra_scorer *s, const ra_scored *sequence);
/* Collective over grid->pipeline. Errors name the sequence by `id`. */
ra_err ra_scorer_run(ra_scorer *s, ra_scored *sequence, int64_t n);

typedef struct {
    int64_t tokens;     /* scored */
    double sum_logprob; /* over them */
    double perplexity;  /* exp(-sum / tokens) */
} ra_perplexity;
/* Collective over grid->world, with the same ids everywhere; the same on every rank and for every number of ranks. The ids are cut into chunks of `window`, the last one shorter; each is scored from its
 * second token on, with nothing before its first. */
ra_err ra_perplexity_of(ra_scorer *s, const int32_t *ids, int64_t n, int32_t window, ra_perplexity *out);

#endif
