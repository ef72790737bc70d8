/* The stages of a run, one function each. All are collective over `world` and read what they need from the run directory. */
#ifndef REALIGN_STAGE_H
#define REALIGN_STAGE_H
#include <realign/comm.h>
#include <realign/error.h>
#include <realign/settings.h>

/* Preference rows to the sample store (realign/store.h) in run.dir. A finished store that was made from the same tokenizer, template, files and settings is
 * reused, unless run.resume is never. */
ra_err ra_stage_prepare(const ra_settings *s, const ra_comm *world);

/* The new policy's verdict on both responses of every row, and the action that follows (METHOD section 2): triage.h5 and triage.jsonl in run.dir. Files that
 * were made from the same data, policy and keys are reused, unless run.resume is never. */
ra_err ra_stage_triage(const ra_settings *s, const ra_comm *world);

/* Impact weights, log p_ref and the reference's hidden states: weights.h5 and hidden.bin in run.dir. */
ra_err ra_stage_weigh(const ra_settings *s, const ra_comm *world);
/* TRACE or DPO training: steps.tsv, checkpoints/ and the result in run.dir/model. RA_ERR_STOPPED after an orderly stop. */
ra_err ra_stage_train(const ra_settings *s, const ra_comm *world);

/* Answers of the model, and of the trained one in run.dir/model where there is one, to the prompts of the evaluation: generations-before.jsonl, generations-after.jsonl in
 * run.dir. Files that were made from the same model, prompts and keys are reused, unless run.resume is never. */
ra_err ra_stage_generate(const ra_settings *s, const ra_comm *world);
/* Verdicts on those answers, Target Policy Agreement before and after, drift on Retain samples, perplexity: evaluate.h5 in run.dir. */
ra_err ra_stage_evaluate(const ra_settings *s, const ra_comm *world);

#endif
