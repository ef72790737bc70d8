/* evaluate: how the trained model answers held-out prompts under the new policy, against the model it came from; what it lost elsewhere. */
#include "evaluate.h"
#include "oracles.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <stdlib.h>
#include <string.h>

static ra_err open_oracle(ra_evaluation *e)
{
    const char *policy = ra_set_text(e->s, "policy");
    if (!*policy) return ra_fail(RA_ERR_ARG, "policy: none was given; accepted: a YAML policy file");
    RA_TRY(ra_oracle_open_settings(e->s, &e->grid, NULL, &e->oracle));
    if (ra_oracle_judges_text(e->oracle)) return RA_OK;
    return ra_fail(
        RA_ERR_UNSUPPORTED,
        "policy %s judges by columns of the data (oracle.kind %s); generated answers have none: evaluate with rules or "
        "with a kind that reads text",
        policy, ra_oracle_kind(e->oracle));
}

static ra_err check(ra_evaluation *e)
{
    RA_TRY(ra_grid_check(e->s, &e->grid));
    if (!*ra_set_text(e->s, "model"))
        return ra_fail(RA_ERR_ARG, "model: no model was given; accepted: a Hugging Face directory or a GGUF file");
    const char *neutral = ra_set_text(e->s, "eval.perplexity_path");
    if (*neutral && !ra_file_exists(neutral)) return ra_fail(RA_ERR_IO, "eval.perplexity_path: %s is not there", neutral);
    return open_oracle(e);
}

/* ---- counting ---- */

static void list_categories(ra_evaluation *e)
{
    int64_t n = e->prompts.n;
    e->category = ra_calloc((size_t)n, sizeof *e->category);
    e->category_of = ra_alloc((size_t)n, sizeof *e->category_of);
    for (int64_t i = 0; i < n; i++) {
        const char *name = e->prompts.prompt[i].category;
        int k = 0;
        while (name && k < e->categories && strcmp(e->category[k], name) != 0) k++;
        if (name && k == e->categories) e->category[e->categories++] = name;
        e->category_of[i] = name ? k : -1;
    }
}

/* Verdicts of one side; -1 where the answer is of another category (category < 0: all count). */
static void verdicts_of(const ra_evaluation *e, int side, int category, int8_t *out)
{
    for (int64_t i = 0; i < e->prompts.n; i++)
        out[i] = category < 0 || e->category_of[i] == category ? e->answers[side].answer[i].verdict : -1;
}

static ra_share share_of(const int8_t *verdict, int64_t n)
{
    int64_t yes = 0, judged = 0;
    for (int64_t i = 0; i < n; i++) {
        yes += verdict[i] == 1;
        judged += verdict[i] >= 0;
    }
    return ra_share_of(yes, judged);
}

static void count(ra_evaluation *e)
{
    int64_t n = e->prompts.n;
    int rules = ra_oracle_rule_count(e->oracle), sides = 1 + e->trained;
    uint64_t seed = (uint64_t)ra_set_int(e->s, "seed");
    int8_t *verdict = ra_alloc((size_t)n * RA_SIDES, 1);
    list_categories(e);
    e->category_change = ra_calloc((size_t)e->categories, sizeof *e->category_change);
    for (int side = 0; side < sides; side++) {
        e->category_tpa[side] = ra_calloc((size_t)e->categories, sizeof(ra_share));
        e->violations[side] = ra_calloc((size_t)rules, sizeof(int64_t));
        for (int64_t i = 0; i < n; i++) {
            const ra_answer *a = &e->answers[side].answer[i];
            if (a->verdict == 0 && a->rule >= 0 && a->rule < rules) e->violations[side][a->rule]++;
        }
    }
    for (int category = -1; category < e->categories; category++) {
        for (int side = 0; side < sides; side++) {
            verdicts_of(e, side, category, verdict + side * n);
            ra_share *share = category < 0 ? &e->tpa[side] : &e->category_tpa[side][category];
            *share = share_of(verdict + side * n, n);
        }
        if (!e->trained) continue;
        ra_change *change = category < 0 ? &e->change : &e->category_change[category];
        *change = ra_change_of(verdict, verdict + n, n, seed);
    }
    ra_free(verdict);
}

/* ---- perplexity ---- */

static ra_err measure_perplexity(ra_evaluation *e, int which)
{
    ra_side *side = &e->side[which];
    RA_TRY(ra_side_open(side));
    const ra_inference *m = &side->inference;
    ra_buf text = {0};
    ra_ids ids = {0};
    ra_err err = m->tokenizer ? ra_file_read(ra_set_text(e->s, "eval.perplexity_path"), &text)
                              : ra_fail(RA_ERR_UNSUPPORTED, "%s", m->why_no_text);
    if (err == RA_OK) err = ra_tokenizer_encode(m->tokenizer, text.data ? text.data : "", text.length, RA_ENCODE_PLAIN, &ids);
    err = ra_comm_agree(e->world, err);
    if (err == RA_OK) {
        int32_t window = m->m->rope_positions < RA_PERPLEXITY_WINDOW ? m->m->rope_positions : RA_PERPLEXITY_WINDOW;
        ra_scorer *scorer = ra_scorer_new(m->m, &e->grid, (int32_t)ra_set_int(e->s, "pack.tokens"));
        err = ra_perplexity_of(scorer, ids.id, ids.count, window, &e->perplexity[which]);
        ra_scorer_free(scorer);
    }
    ra_ids_free(&ids);
    ra_buf_free(&text);
    return err == RA_OK ? RA_OK : ra_fail_in(err, "eval.perplexity_path: %s", ra_set_text(e->s, "eval.perplexity_path"));
}

/* ---- the stage ---- */

static ra_err answer(ra_evaluation *e, int which)
{
    RA_TRY(ra_answers_get(&e->side[which], &e->prompts, &e->answers[which]));
    RA_TRY(ra_answers_judge(&e->grid, e->oracle, ra_set_int(e->s, "oracle.undecided_limit"), &e->prompts, &e->answers[which]));
    return ra_answers_write(&e->side[which], &e->prompts, e->oracle, &e->answers[which]);
}

static ra_err measure(ra_evaluation *e)
{
    static const char *const answering[RA_SIDES] = {"answers before", "answers after"}, *const reading[RA_SIDES] = {
                                                                                            "perplexity before",
                                                                                            "perplexity after"};
    RA_TRY(ra_prompts_read(e->s, e->world, &e->prompts));
    e->has_perplexity = *ra_set_text(e->s, "eval.perplexity_path") != '\0';
    for (int which = 0; which < 1 + e->trained; which++) {
        ra_timer_begin(e->timers, answering[which]);
        RA_TRY(answer(e, which));
        ra_timer_end(e->timers, answering[which]);
        if (!e->has_perplexity) continue;
        ra_timer_begin(e->timers, reading[which]);
        RA_TRY(measure_perplexity(e, which));
        ra_timer_end(e->timers, reading[which]);
    }
    count(e);
    if (!e->trained) return RA_OK;
    ra_timer_begin(e->timers, "drift");
    RA_TRY(ra_evaluate_drift(e));
    ra_timer_end(e->timers, "drift");
    return RA_OK;
}

static ra_err report(const ra_evaluation *e)
{
    RA_TRY(ra_evaluation_write(e));
    ra_buf table = {0};
    ra_evaluation_table(e, &table);
    ra_info("evaluate:\n%s", table.data);
    ra_buf_free(&table);
    char *path = ra_path_join(ra_set_text(e->s, "run.dir"), "timers.tsv");
    ra_err err = ra_timers_write(e->timers, e->world->comm, "evaluate", path);
    free(path);
    return ra_comm_agree(e->world, err);
}

static void release(ra_evaluation *e)
{
    for (int which = 0; which < RA_SIDES; which++) {
        ra_side_close(&e->side[which]);
        ra_answers_free(&e->answers[which]);
        ra_free(e->violations[which]);
        ra_free(e->category_tpa[which]);
    }
    ra_free(e->category_change);
    ra_free(e->category);
    ra_free(e->category_of);
    ra_drift_free(&e->drift);
    ra_prompts_free(&e->prompts);
    ra_oracle_close(e->oracle);
    ra_timers_free(e->timers);
    ra_grid_free(&e->grid);
}

ra_err ra_stage_evaluate(const ra_settings *s, const ra_comm *world)
{
    char *path = NULL;
    ra_grid grid;
    RA_TRY(ra_grid_make(world, (int32_t)ra_set_int(s, "grid.pipeline"), &grid));
    ra_evaluation e = {.s = s, .world = world, .grid = grid, .timers = ra_timers_new()};
    e.side[RA_BEFORE] = (ra_side){.s = s, .grid = &e.grid, .name = "before", .model = ra_set_text(s, "model")};
    e.trained = ra_side_after(s, &e.grid, &e.side[RA_AFTER], &path);
    if (!e.trained) ra_info("evaluate: %s is not there: only the model before training is measured", path);
    ra_err err = ra_comm_agree(world, check(&e));
    if (err == RA_OK) err = measure(&e);
    if (err == RA_OK) err = report(&e);
    release(&e);
    free(path);
    return err;
}
