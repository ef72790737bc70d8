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

/* Corrections of Punish pairs, checked by the oracle: corrections.h5 and corrections.jsonl in run.dir. Nothing where correct.source gives none. RA_ERR_STOPPED after an orderly
 * stop: what was written is in run.dir/candidates. */
ra_err ra_stage_correct(const ra_settings *s, const ra_comm *world);

/* Impact weights, log p_ref and the reference's hidden states: weights.h5 and hidden.bin in run.dir. */
ra_err ra_stage_weigh(const ra_settings *s, const ra_comm *world);
/* TRACE or DPO training: steps.tsv, checkpoints/ and the result in run.dir/model. RA_ERR_STOPPED after an orderly stop. */
ra_err ra_stage_train(const ra_settings *s, const ra_comm *world);

/* Answers to the evaluation prompts: generations-before.jsonl, and -after.jsonl where run.dir/model exists. */
ra_err ra_stage_generate(const ra_settings *s, const ra_comm *world);
/* Target policy agreement before and after, drift on Retain samples, perplexity: evaluate.h5 in run.dir. */
ra_err ra_stage_evaluate(const ra_settings *s, const ra_comm *world);

/* report.html in run.dir, from what the other stages left there. */
ra_err ra_stage_report(const ra_settings *s, const ra_comm *world);

/* All stages; verdict.json and the report at the end. */
ra_err ra_stage_run(const ra_settings *s, const ra_comm *world);

/* Tries the run directory and writes used.yaml: every setting and where it came from. */
ra_err ra_stage_write_used(const ra_settings *s, const ra_comm *world);

#endif
