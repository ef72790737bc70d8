/* The gold batch of METHOD section 4, Algorithm 2: pairs (y+, y-) that say where the new policy wants the model. Drawn from the run's seed: the same on every rank. Not collective. */
#ifndef REALIGN_GOLD_H
#define REALIGN_GOLD_H
#include <realign/store.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t sample; /* whose prompt and y- */
    ra_role worse;  /* y-: y_w of Invert and Punish pairs, y_l of Retain pairs */
    int64_t donor;  /* whose response is y+; another sample's for Punish pairs without y_c */
    ra_role better;
} ra_gold_pair;

/* action: (N) 0 invert, 1 punish, 2 retain, -1 not used. pair: (size). Returns how many were drawn: min(|D_R|, size / 3) Retain, min(|D_I|, size / 3) Invert, the rest Punish pairs;
 * fewer where a set is short. A Punish pair whose sample has a correction takes it as y+; others take a compliant response drawn uniformly from {y_w of D_R} u {y_l of D_I} - none where both are empty. */
int64_t ra_gold_draw(const ra_store *store, const int8_t *action, int64_t size, uint64_t seed, ra_gold_pair *pair);

/* The pair as a sample with y+ as y_w and y- as y_l. Token arrays point into the store, but for a branch that must be joined: `joined` (capacity ids) then holds it. */
ra_sample ra_gold_sample(const ra_store *store, const ra_gold_pair *pair, int32_t *joined, int32_t capacity);

#endif
