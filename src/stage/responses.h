/* Prompts of the evaluation and what a model answers to them. Every rank holds all of both; the computing is dealt to the replicas prompt by prompt. */
#ifndef RA_STAGE_RESPONSES_H
#define RA_STAGE_RESPONSES_H
#include "inference.h"
#include <realign/engine.h>
#include <realign/hash.h>
#include <realign/oracle.h>
#include <realign/timer.h>

typedef struct {
    int64_t id;     /* row in its file */
    char *category; /* or NULL */
    char *text;     /* the last user turn, what the oracle looks at */
    int n;
    ra_message *turns; /* (n), strings owned */
} ra_prompt;

typedef struct {
    int64_t n;
    ra_prompt *prompt;
    uint64_t hash; /* of ids, turns and categories */
} ra_prompts;

/* Collective in its errors; every rank reads. eval.path, or the held-out rows of data.path; the first eval.limit of them. Rows that cannot be used are counted and reported.
 * RA_ERR_DATA where none is left. */
ra_err ra_prompts_read(const ra_settings *s, const ra_comm *world, ra_prompts *out);
void ra_prompts_free(ra_prompts *p);

typedef struct {
    char *text;
    int32_t tokens; /* the closing token included */
    bool stopped;   /* else cut at max_new_tokens */
    int8_t verdict; /* 1 compliant, 0 not, -1 not judged or undecided */
    int16_t rule;   /* index of the deciding rule, or -1 */
} ra_answer;

typedef struct {
    int64_t n;
    ra_answer *answer; /* (n), in the order of the prompts */
    char key[33];      /* model, prompts and settings they come from */
} ra_answers;

/* A model of this run, opened when it is first needed. */
typedef struct {
    const ra_settings *s;
    const ra_grid *grid;
    const char *name;  /* "before", "after" */
    const char *model; /* a directory or a GGUF file */
    const char *adapter;
    bool open;
    ra_inference inference;
} ra_side;
/* Collective in its errors. Each rank opens its stage's layers. */
ra_err ra_side_open(ra_side *side);
void ra_side_close(ra_side *side);
/* Not collective. Adds what a model is known by: names, sizes and times of its files. NULL adds nothing. */
void ra_model_files_add(ra_hasher *h, const char *path);
/* run.dir/model: "model" and "adapter" of `side` point at it, or at `model` with an adapter beside. False where training has left nothing there. *path: owned by the caller. */
bool ra_side_after(const ra_settings *s, const ra_grid *grid, ra_side *side, char **path);

/* Collective. run.dir/generations-NAME.jsonl: read where it has the same key (and run.resume is not never), else generated and written. */
ra_err ra_answers_get(ra_side *side, const ra_prompts *prompts, ra_answers *out);
void ra_answers_free(ra_answers *a);
/* Collective. Verdicts of all answers, those of each rank that asks in one batch; undecided ones are counted and reported, RA_ERR_DATA where they are more than the limit. */
ra_err ra_answers_judge(const ra_grid *grid, ra_oracle *oracle, int64_t undecided_limit, const ra_prompts *prompts,
                        ra_answers *a);
/* Collective in its errors; rank 0 writes: {"id", "category", "prompt", "response", "tokens", "stopped", "verdict", "rule", "key"} a line. `oracle` names the rules; NULL: not judged. */
ra_err ra_answers_write(const ra_side *side, const ra_prompts *prompts, const ra_oracle *oracle, const ra_answers *a);

#endif
