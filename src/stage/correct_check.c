/* Whether a candidate can be used: does it fit its sample, does it keep the policy? */
#include "correct.h"

#include <realign/mem.h>

#include <math.h>

/* ---- does it fit the sample? ---- */
static bool same_branch(const ra_sample *a, const ra_sample *b, ra_role role)
{
    int64_t n = a->prompt_count + a->response[role].count;
    if (n != b->prompt_count + b->response[role].count) return false;
    for (int64_t i = 0; i < n; i++) {
        int32_t x = i < a->prompt_count ? a->prompt[i] : a->response[role].token[i - a->prompt_count];
        int32_t y = i < b->prompt_count ? b->prompt[i] : b->response[role].token[i - b->prompt_count];
        if (x != y) return false;
    }
    return true;
}

/* A correction is made into a sample together with y_w and y_l, as prepare would have: where it parts from the prompt earlier than they do, so does the sample.
 * Their tokens must come out as they are stored. */
static ra_err check_same(const ra_correct_checker *c, const ra_job *job, int64_t id)
{
    ra_sample stored = ra_store_get(c->store, id);
    if (job->sample.cut > 0 || stored.cut > 0) return RA_OK; /* the correction may have changed what was cut */
    if (job->sample.state == RA_SAMPLE_OK && same_branch(&job->sample, &stored, RA_CHOSEN) &&
        same_branch(&job->sample, &stored, RA_REJECTED))
        return RA_OK;
    return ra_fail(RA_ERR_DATA,
                   "row %lld gives other tokens than %s/store.h5 holds: data, tokenizer or template have changed; run `realign "
                   "prepare` again",
                   (long long)id + 1, c->dir);
}

static ra_correction_outcome outcome_of_text(const ra_candidate *x)
{
    switch (x->end) {
    case RA_TEXT_FAILED: return RA_CORRECTION_FAILED;
    case RA_TEXT_NONE: return RA_CORRECTION_MISSING;
    case RA_TEXT_CUT: return RA_CORRECTION_TOO_LONG;
    case RA_TEXT_WHOLE: break;
    }
    return x->text && *x->text ? RA_CORRECTION_USED : RA_CORRECTION_EMPTY;
}

/* The outcome as far as it is known without the oracle: RA_CORRECTION_USED where it must be asked. */
static void fit(const ra_correct_checker *c, ra_candidate *x, ra_job *job, ra_correction_outcome *outcome)
{
    *outcome = outcome_of_text(x);
    job->err = RA_OK;
    if (*outcome != RA_CORRECTION_USED) return;
    ra_row row = *x->row;
    row.correction = x->text;
    ra_job_begin(job, &row, RA_ROW_OK);
    ra_job_run(job, &c->rules);
    if (job->without_correction == RA_SAMPLE_OK) return; /* it is in the sample */
    *outcome = job->without_correction == RA_SAMPLE_TOO_LONG ? RA_CORRECTION_TOO_LONG : RA_CORRECTION_EMPTY;
}

/* Jobs hold the samples of those that fit. */
static ra_err fit_all(const ra_correct_checker *c, ra_candidate *candidate, int n, ra_correction_outcome *outcome)
{
#pragma omp parallel for schedule(dynamic, 4)
    for (int i = 0; i < n; i++) fit(c, &candidate[i], &c->job[i], &outcome[i]);
    for (int i = 0; i < n; i++) {
        if (c->job[i].err != RA_OK)
            return ra_fail(c->job[i].err, "row %lld: %s", (long long)candidate[i].row->id + 1, c->job[i].why);
        if (outcome[i] == RA_CORRECTION_USED) RA_TRY(check_same(c, &c->job[i], candidate[i].row->id));
    }
    return RA_OK;
}

/* ---- does it keep the policy? ---- */
static ra_err judge(const ra_correct_checker *c, const ra_candidate *candidate, int n, ra_correction_outcome *outcome,
                    ra_verdict *verdict, ra_correct_counts *counts)
{
    ra_oracle_item *item = ra_alloc((size_t)n + 1, sizeof *item);
    ra_verdict *said = ra_alloc((size_t)n + 1, sizeof *said);
    int asked = 0;
    for (int i = 0; i < n && c->judges; i++) {
        const ra_row *row = candidate[i].row;
        if (outcome[i] != RA_CORRECTION_USED) continue;
        item[asked++] = (ra_oracle_item){.prompt = row->prompt_text,
                                         .response = candidate[i].text,
                                         .category = row->category,
                                         .response_index = -1,
                                         .turns = row->prompt,
                                         .n_turns = row->n_prompt};
    }
    ra_err err = asked ? ra_oracle_judge(c->oracle, item, asked, said) : RA_OK;
    for (int i = 0, k = 0; i < n && err == RA_OK; i++) {
        verdict[i] = (ra_verdict){.compliant = -1, .rule = -1, .probability = NAN, .margin = NAN};
        if (outcome[i] != RA_CORRECTION_USED) continue;
        if (c->judges) verdict[i] = said[k++];
        if (verdict[i].compliant < 0) outcome[i] = RA_CORRECTION_UNDECIDED;
        if (verdict[i].compliant == 0) outcome[i] = RA_CORRECTION_REFUSED;
    }
    for (int i = 0; i < asked && err == RA_OK; i++) {
        counts->judged++;
        counts->compliant += said[i].compliant == 1;
        counts->undecided += said[i].compliant < 0;
    }
    ra_free(said);
    ra_free(item);
    return err;
}

ra_err ra_correct_check(const ra_correct_checker *c, ra_candidate *candidate, int n, ra_correction_outcome *outcome,
                        ra_verdict *verdict, ra_correct_counts *counts)
{
    RA_TRY(fit_all(c, candidate, n, outcome));
    return judge(c, candidate, n, outcome, verdict, counts);
}
