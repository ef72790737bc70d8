#include "prepare_sample.h"
#include <realign/mem.h>

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char *const role_names[RA_ROLES] = {"chosen", "rejected", "correction"};

ra_truncate ra_truncate_of(const char *word)
{
    if (strcmp(word, "drop") == 0) return RA_TRUNCATE_DROP;
    if (strcmp(word, "left") == 0) return RA_TRUNCATE_LEFT;
    if (strcmp(word, "right") == 0) return RA_TRUNCATE_RIGHT;
    if (strcmp(word, "keep") == 0) return RA_TRUNCATE_KEEP;
    ra_die("data.truncate: '%s' has no meaning here", word);
}

/* ---- the row ---- */

static char *keep(char **at, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = memcpy(*at, text, n);
    *at += n;
    return copy;
}

void ra_job_refuse(ra_job *job, ra_sample_state state, const char *why)
{
    job->sample = (ra_sample){.id = job->id, .state = state, .origin = job->origin, .prompt_hash = job->prompt_hash};
    snprintf(job->why, sizeof job->why, "%s", why);
}

static ra_sample_state state_of(ra_row_problem problem)
{
    switch (problem) {
    case RA_PROBLEM_NONE: return RA_SAMPLE_OK;
    case RA_PROBLEM_MALFORMED: return RA_SAMPLE_MALFORMED;
    case RA_PROBLEM_DIALOGUE: return RA_SAMPLE_SKIPPED;
    case RA_PROBLEM_EMPTY: return RA_SAMPLE_EMPTY;
    case RA_PROBLEM_IDENTICAL: return RA_SAMPLE_IDENTICAL;
    case RA_PROBLEM_UNPAIRED: return RA_SAMPLE_UNPAIRED;
    case RA_PROBLEM_DUPLICATE: return RA_SAMPLE_DUPLICATE;
    case RA_PROBLEM_NOT_DRAWN: return RA_SAMPLE_NOT_DRAWN;
    case RA_PROBLEMS: break;
    }
    ra_die("problem %d of a row has no meaning", (int)problem);
}

void ra_job_begin(ra_job *job, const ra_row *row, ra_row_status status)
{
    job->id = row->id;
    job->origin = row->origin;
    job->prompt_hash = row->prompt_hash;
    job->hash = row->hash;
    job->identical = row->identical;
    job->over_long = job->prompt_again = false;
    job->repeats = -1;
    job->err = RA_OK;
    job->why[0] = '\0';
    job->boundary_inside_token = false;
    job->without_correction = RA_SAMPLE_OK;
    job->tokenised = 0;
    if (status != RA_ROW_OK) {
        ra_job_refuse(job, state_of(row->problem), row->why ? row->why : "no reason given");
        return;
    }
    job->sample = (ra_sample){.id = row->id};
    const char *const response[RA_ROLES] = {row->chosen, row->rejected, row->correction};
    size_t bytes = 0;
    for (int i = 0; i < row->n_prompt; i++) bytes += strlen(row->prompt[i].role) + strlen(row->prompt[i].content) + 2;
    for (int r = 0; r < RA_ROLES; r++) bytes += response[r] ? strlen(response[r]) + 1 : 0;
    job->text = ra_alloc(bytes, 1);
    job->n_prompt = row->n_prompt;
    job->message = ra_calloc((size_t)row->n_prompt + 1, sizeof *job->message);
    char *at = job->text;
    for (int i = 0; i < row->n_prompt; i++) {
        job->message[i].role = keep(&at, row->prompt[i].role);
        job->message[i].content = keep(&at, row->prompt[i].content);
    }
    for (int r = 0; r < RA_ROLES; r++) job->response[r] = response[r] ? keep(&at, response[r]) : NULL;
}

void ra_job_end(ra_job *job)
{
    ra_free(job->text);
    ra_free(job->message);
    ra_free(job->kept_prompt);
    job->text = NULL;
    job->message = NULL;
    job->kept_prompt = NULL;
    job->n_prompt = 0;
    for (int r = 0; r < RA_ROLES; r++) job->response[r] = NULL;
}

void ra_job_free(ra_job *job)
{
    ra_job_end(job);
    for (int r = 0; r < RA_ROLES; r++) ra_rendered_free(&job->rendered[r]);
}

/* ---- prompt and branches ---- */

/* Length of the longest common prefix of all branches' ids, at most up to the first response token of any. */
static int64_t common_prefix(const ra_branch branch[RA_ROLES])
{
    const ra_branch *first = &branch[RA_CHOSEN];
    int64_t common = first->start;
    for (int r = RA_CHOSEN + 1; r < RA_ROLES; r++) {
        if (branch[r].end == 0) continue;
        if (branch[r].start < common) common = branch[r].start;
        int64_t i = 0;
        while (i < common && branch[r].id[i] == first->id[i]) i++;
        common = i;
    }
    return common;
}

/* Drops `over` tokens of the prompt, behind a BOS. */
static void cut_prompt(ra_job *job, const ra_sample_rules *rules, int64_t over)
{
    ra_sample *sample = &job->sample;
    int32_t head = rules->bos >= 0 && sample->prompt[0] == rules->bos;
    if (sample->prompt_count - head <= over) {
        ra_job_refuse(job, RA_SAMPLE_TOO_LONG, "nothing of the prompt would be left beside the responses within data.max_tokens");
        return;
    }
    sample->cut = (int32_t)over;
    sample->prompt_count -= (int32_t)over;
    if (head == 0) {
        sample->prompt += over;
        return;
    }
    job->kept_prompt = ra_alloc((size_t)sample->prompt_count, sizeof *job->kept_prompt);
    job->kept_prompt[0] = rules->bos;
    memcpy(job->kept_prompt + 1, sample->prompt + over + 1, (size_t)(sample->prompt_count - 1) * sizeof *job->kept_prompt);
    sample->prompt = job->kept_prompt;
}

/* Cuts every response that is too long to the `room` beside the prompt. */
static void cut_responses(ra_job *job, int64_t room)
{
    ra_sample *sample = &job->sample;
    for (int r = 0; r < RA_ROLES; r++) {
        int32_t count = sample->response[r].count;
        if (count <= room) continue;
        if (room <= sample->response[r].skip) {
            ra_job_refuse(job, RA_SAMPLE_TOO_LONG, "the prompt alone fills data.max_tokens");
            return;
        }
        sample->cut += count - (int32_t)room;
        sample->response[r].count = (int32_t)room;
    }
}

static void fit(ra_job *job, const ra_sample_rules *rules)
{
    int64_t longest = 0;
    for (int r = 0; r < RA_ROLES; r++) {
        if (job->sample.response[r].count > longest) longest = job->sample.response[r].count;
    }
    int64_t total = job->sample.prompt_count + longest, over = total - rules->max_tokens;
    if (over <= 0) return;
    char why[sizeof job->why];
    switch (rules->truncate) {
    case RA_TRUNCATE_DROP:
        snprintf(why, sizeof why, "%lld tokens, more than data.max_tokens = %lld", (long long)total,
                 (long long)rules->max_tokens);
        ra_job_refuse(job, RA_SAMPLE_TOO_LONG, why);
        break;
    case RA_TRUNCATE_LEFT: cut_prompt(job, rules, over); break;
    case RA_TRUNCATE_RIGHT: cut_responses(job, rules->max_tokens - job->sample.prompt_count); break;
    case RA_TRUNCATE_KEEP: job->over_long = true; break;
    }
}

void ra_sample_split(const ra_branch branch[RA_ROLES], const ra_sample_rules *rules, ra_job *job)
{
    for (int r = 0; r < RA_ROLES; r++) {
        bool nothing = branch[r].blank || branch[r].end - branch[r].start <= branch[r].closed;
        if (branch[r].end == 0 || !nothing) continue;
        char why[64];
        snprintf(why, sizeof why, "the %s response has no tokens", role_names[r]);
        ra_job_refuse(job, RA_SAMPLE_EMPTY, why);
        return;
    }
    int64_t common = common_prefix(branch);
    if (common == 0) {
        ra_job_refuse(job, RA_SAMPLE_EMPTY, "no prompt token stands before the responses");
        return;
    }
    ra_sample *sample = &job->sample;
    *sample = (ra_sample){.id = job->id,
                          .origin = job->origin,
                          .prompt_hash = job->prompt_hash,
                          .prompt_count = (int32_t)common,
                          .prompt = branch[RA_CHOSEN].id};
    for (int r = 0; r < RA_ROLES; r++) {
        if (branch[r].end == 0) continue;
        sample->response[r].count = (int32_t)(branch[r].end - common);
        sample->response[r].skip = (int32_t)(branch[r].start - common);
        sample->response[r].token = branch[r].id + common;
    }
    fit(job, rules);
}

/* ---- rendering ---- */

static bool is_stop(const ra_template *tpl, int32_t id)
{
    const int32_t *stop;
    int n = ra_template_stop_ids(tpl, &stop);
    for (int i = 0; i < n; i++) {
        if (stop[i] == id) return true;
    }
    return false;
}

static ra_err render(ra_job *job, const ra_sample_rules *rules, int role, ra_branch *branch)
{
    ra_rendered *out = &job->rendered[role];
    job->message[job->n_prompt] = (ra_message){"assistant", job->response[role]};
    RA_TRY(ra_template_render(rules->tpl, job->message, job->n_prompt + 1, false, out));
    if (out->response_start < 0 || out->response_end < out->response_start || out->response_end > out->ids.count ||
        out->ids.count > INT32_MAX) {
        return ra_fail(RA_ERR_FORMAT, "template %s: response at tokens [%lld, %lld) of %lld", ra_template_name(rules->tpl),
                       (long long)out->response_start, (long long)out->response_end, (long long)out->ids.count);
    }
    bool closed = out->response_end > out->response_start && is_stop(rules->tpl, out->ids.id[out->response_end - 1]);
    *branch = (ra_branch){out->ids.id, out->response_start, out->response_end, closed, out->response_blank};
    job->boundary_inside_token |= out->boundary_inside_token;
    job->tokenised += out->ids.count;
    return RA_OK;
}

/* METHOD section 8, trap 8: a correction that cannot be used costs itself, not its pair. */
static void split_without_correction(ra_branch branch[RA_ROLES], const ra_sample_rules *rules, ra_job *job)
{
    job->without_correction = job->sample.state;
    branch[RA_CORRECTION] = (ra_branch){0};
    ra_free(job->kept_prompt);
    job->kept_prompt = NULL;
    job->why[0] = '\0';
    ra_sample_split(branch, rules, job);
    if (job->sample.state != RA_SAMPLE_OK) job->without_correction = RA_SAMPLE_OK; /* it was not the correction */
}

void ra_job_run(ra_job *job, const ra_sample_rules *rules)
{
    if (job->sample.state != RA_SAMPLE_OK) return; /* the row was refused before */
    ra_branch branch[RA_ROLES] = {{0}};
    bool refused = false; /* the correction, by the template */
    for (int r = 0; r < RA_ROLES; r++) {
        if (!job->response[r]) continue;
        ra_err err = render(job, rules, r, &branch[r]);
        if (err == RA_ERR_DATA && r == RA_CORRECTION) {
            refused = true;
            break;
        }
        if (err == RA_ERR_DATA) {
            ra_job_refuse(job, RA_SAMPLE_SKIPPED, ra_error_message());
            return;
        }
        if (err != RA_OK) {
            job->err = err;
            snprintf(job->why, sizeof job->why, "%s", ra_error_message());
            return;
        }
    }
    if (refused) {
        job->sample.state = RA_SAMPLE_SKIPPED;
    } else {
        ra_sample_split(branch, rules, job);
    }
    if (job->sample.state != RA_SAMPLE_OK && job->response[RA_CORRECTION]) split_without_correction(branch, rules, job);
}
