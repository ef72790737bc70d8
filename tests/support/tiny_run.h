/* A run directory for weigh and train without text or tokenizer: a sample store of random ids for one of the small shared models, and the triage of it. */
#ifndef REALIGN_TESTS_TINY_RUN_H
#define REALIGN_TESTS_TINY_RUN_H
#include <realign/comm.h>
#include <realign/settings.h>
#include <stdint.h>

/* NO_DONOR: Punish alone, uncorrected. CONTRADICTION: one pair over and over, kept each time but the first, where it is inverted. */
typedef enum { TINY_ALL_SETS, TINY_NO_RETAIN, TINY_NO_CONFLICT, TINY_NO_DONOR, TINY_CONTRADICTION } tiny_sets;

typedef struct {
    const char *model; /* a directory with config.json, whose vocab_size the ids respect */
    int64_t samples;
    uint64_t seed;
    tiny_sets sets;
    bool one_token_prompts; /* every prompt is its first token alone, every response one token: two head rows per pack row */
} tiny_run;

/* What sample i is made of: a pure function of `run`. Every seventh sample or so is an edge case: one-token prompts and responses, long beside short, branches whose first
 * tokens belong to the prompt, corrections and corrections that came back empty, samples that the store calls unusable (which have an action in triage.h5 all the same). */
int8_t tiny_run_action(const tiny_run *run, int64_t i);

/* Collective. Writes store.h5, tokens.bin, triage.h5 and corrections.h5 into `dir`. */
ra_err tiny_run_make(const ra_comm *comm, const char *dir, const tiny_run *run);
/* Default settings of a quick run on it: cpu in fp32, one thread, 4 samples a step, packs of at most 96 rows. words: "key=value" more, NULL at the end. */
ra_settings *tiny_run_settings(const char *dir, const tiny_run *run, char *const *words);

#endif
