/* Pipeline schedules as tables: what every rank of a pipeline computes, in which order, what it receives before and sends after. Pure functions: no MPI, no
 * backend, the same table on every rank. Not collective throughout.
 *
 * p ranks hold the layers in v chunks each: the virtual stage of (rank r, chunk c) is c p + r, so the last rank's chunk c sends to chunk c + 1 of rank 0.
 * m micro-batches pass all p v virtual stages forward and, but for RA_PIPELINE_FORWARD, backward. Weighing (a backward pass that contracts) runs
 * RA_PIPELINE_1F1B: a whole backward pass, whatever it ends in.
 *
 * How a rank walks its table, slot after slot:
 *   1. posts the receives that the table lists for this slot (ra_schedule_rank.post); posting never waits,
 *   2. waits until the slot's own input has come,
 *   3. computes,
 *   4. sends the output.
 * Step 4 may wait until the receiver has posted (a rendezvous: MPI_Ssend) or complete later (MPI_Isend, any number of send buffers from 1 on). Neither can
 * deadlock, whatever the slots cost: run the table in lockstep, each slot one unit of time. A receive is posted with the last slot of its rank that begins no later than the sender's slot, so before
 * the send, which begins a unit later; ordered by lockstep time, everything waits only for what stands before it. For the same reason no send waits at all
 * in lockstep. From one rank to another, receives are posted in the order of the sends, so a transport without tags serves too. */
#ifndef REALIGN_SCHEDULE_H
#define REALIGN_SCHEDULE_H
#include <realign/error.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    RA_PIPELINE_GPIPE,       /* all forward, then all backward */
    RA_PIPELINE_1F1B,        /* one forward, one backward: at most p - r micro-batches in flight */
    RA_PIPELINE_INTERLEAVED, /* 1F1B over v chunks a rank, messages hidden behind work: the bubble is v times smaller */
    RA_PIPELINE_ZERO_BUBBLE, /* ZB-H1: backward split; weight gradients fill the bubble */
    RA_PIPELINE_FORWARD,     /* forward alone, any v: scoring, hidden states of the reference */
    RA_PIPELINE_KINDS
} ra_pipeline_kind;

/* "gpipe", "1f1b", "interleaved", "zero-bubble", "forward". */
extern const char *const ra_pipeline_kind_name[RA_PIPELINE_KINDS];
/* RA_ERR_ARG lists what is accepted. */
ra_err ra_pipeline_kind_parse(const char *name, ra_pipeline_kind *out);

typedef enum {
    RA_SLOT_FORWARD,         /* receives an activation, sends one */
    RA_SLOT_BACKWARD,        /* whole: gradients of input and weights; receives a gradient, sends one */
    RA_SLOT_BACKWARD_INPUT,  /* gradient of the input alone; receives a gradient, sends one */
    RA_SLOT_BACKWARD_WEIGHT, /* gradients of the weights, from what BACKWARD_INPUT left; no message */
    RA_SLOT_OPS
} ra_slot_op;

/* One end of a message; the other end names this one. An activation goes to the next virtual stage, a gradient to the one before. */
typedef struct {
    int32_t rank;  /* the other end's; -1: no message. The rank itself where p = 1 and v > 1: the message need not leave it */
    int32_t chunk; /* the other end's; -1: no message */
    int32_t tag;   /* the same at both ends, unique from one rank to another: 0 .. 2 m v - 1; -1: no message */
} ra_slot_message;

typedef struct {
    ra_slot_op op;
    int32_t micro_batch; /* 0 .. m - 1 */
    int32_t chunk;       /* 0 .. v - 1 */
    int32_t
        activation; /* 0 .. peak - 1: where this (micro-batch, chunk) keeps its activations, the same in its forward and backward slots */
    int32_t
        inbox; /* 0 .. inboxes - 1: the buffer its input is received into, its own from post to the end of this slot; -1: none */
    ra_slot_message receive, send;
} ra_slot;

typedef struct {
    int32_t slots;
    ra_slot *slot;
    /* Receives to be posted before slot i computes, in this order: those of slots post[post_begin[i] .. post_begin[i + 1]), each >= i. */
    int32_t *post_begin; /* (slots + 1) */
    int32_t *post;
    /* (micro-batch, chunk) activations held at once, at most: from the begin of the forward slot to the end of BACKWARD, or of BACKWARD_WEIGHT where the backward pass is
     * split. RA_PIPELINE_FORWARD keeps nothing: 1. */
    int32_t peak;
    int32_t inboxes; /* receive buffers, (rows, hidden) each: at most 3, with v > 1 at most 2 p + 1, fewer where p divides m */
} ra_schedule_rank;

typedef struct {
    ra_pipeline_kind kind;
    int32_t ranks, micro_batches, chunks; /* p, m, v */
    ra_schedule_rank *rank;               /* (p) */
} ra_schedule;

enum { RA_SCHEDULE_MOST_TAGS = 32768 /* MPI's least upper bound of tags + 1: 2 m v must not exceed it */ };

/* The table of all ranks. On every rank and chunk micro-batches run in ascending order, forward, backward and weight gradients alike: gradients are summed in one order
 * whatever the kind. v must be 1 but for INTERLEAVED and FORWARD.
 * INTERLEAVED takes any m: micro-batches go in groups of at least p, as even as possible, larger ones first. Where p divides m these are groups of p: Megatron's order. It runs 2 (p - 1 - r) forwards
 * ahead where 1F1B runs p - 1 - r, so that messages travel while their receivers have other work; with v = 1 it is 1F1B with that slack.
 * RA_ERR_ARG names the argument and what is accepted; *out is then empty. Free with ra_schedule_free. */
ra_err ra_schedule_make(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, ra_schedule *out);
void ra_schedule_free(ra_schedule *s);

/* ---- analysis ---- */

/* Times of one micro-batch through one chunk, any unit. backward: whole. */
typedef struct ra_schedule_costs {
    double forward, backward, backward_input, backward_weight;
    double latency; /* from the end of a slot until its message has arrived at another rank */
    const struct ra_schedule_costs
        *stage; /* (p v) times of each virtual stage in place of the four above, for uneven stages; NULL: all alike */
} ra_schedule_costs;

typedef struct {
    int32_t ranks;
    double makespan, bubble; /* bubble: idle share of all ranks' time, 1 - sum busy / (p makespan) */
    double *busy;            /* (p) */
    double **start, **end;   /* (p)(slots of the rank) */
} ra_schedule_timing;

/* When every slot runs if each begins as soon as its rank is free and its input has come (sends do not wait). RA_ERR_DATA where the table cannot run to its end. Free with
 * ra_schedule_timing_free. */
ra_err ra_schedule_time(const ra_schedule *s, const ra_schedule_costs *costs, ra_schedule_timing *out);
void ra_schedule_timing_free(ra_schedule_timing *t);

/* ---- theory, for the arguments that ra_schedule_make accepts ---- */

/* ra_schedule_rank.peak of rank r in closed form:
 *   GPIPE        m
 *   1F1B         min(m, p - r)
 *   INTERLEAVED  min(m v, 2 (p - 1 - r) + (v - 1) g + 1), each 1 / v of a rank's layers; g: the largest group, p where p divides m
 *   ZERO_BUBBLE  min(m, p) on every rank: 1F1B's on rank 0. Rank r runs p - 1 - r forwards ahead, as 1F1B does, and holds r weight gradients back. A micro-batch that
 *                waits for its weight gradient counts whole; what BACKWARD_INPUT no longer needs may be given back, so this is an upper bound
 *   FORWARD      1 */
int32_t ra_schedule_theory_peak(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, int32_t r);

/* ra_schedule_timing.bubble for balanced stages without latency, F, B, Bi, Bw a chunk's times:
 *   GPIPE        (p - 1) / (m + p - 1)                                Huang et al. 2019, GPipe, arXiv:1811.06965
 *   1F1B         the same                                             Narayanan et al. 2021, PipeDream-Flush, arXiv:2006.09503
 *   INTERLEAVED  (p - 1) / (m v + p - 1)                              Narayanan et al. 2021, Megatron-LM, arXiv:2104.04473 (there relative to the ideal time)
 *   ZERO_BUBBLE  idle time (p - 1)(F + Bi - Bw) of each rank's total  Qi et al. 2023, Zero bubble pipeline parallelism, arXiv:2401.10241, ZB-H1;
 *                with F = Bi = Bw (p - 1) / (3 m + p - 1)
 *   FORWARD      (p - 1) / (m v + p - 1)
 * The sources assume m >= p. For fewer micro-batches, ours: with v > 1 a micro-batch crosses p v stages before the next chunk's work is there, which takes
 * (v p + m - 1)(F + B) in all; in ZERO_BUBBLE m - 1 weight gradients instead of p - 1 fill the gaps. ZERO_BUBBLE needs Bw <= F and Bw <= Bi; longer weight gradients
 * delay the ranks behind, and the table takes longer than this. */
double ra_schedule_theory_bubble(ra_pipeline_kind kind, int32_t p, int32_t m, int32_t v, const ra_schedule_costs *costs);

#endif
