/* run: all stages one after the other; each takes up what an earlier run left. Ends with VALID or INVALID and the reasons in verdict.json. */
#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>
#include <realign/timer.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    ra_err (*work)(const ra_settings *s, const ra_comm *world);
    bool trace_only;    /* method dpo needs no policy */
    bool wants_prompts; /* runs where there is something to evaluate */
} stage;

static const stage stages[] = {
    {.name = "prepare", .work = ra_stage_prepare},
    {.name = "triage", .work = ra_stage_triage, .trace_only = true},
    {.name = "correct", .work = ra_stage_correct, .trace_only = true},
    {.name = "weigh", .work = ra_stage_weigh},
    {.name = "train", .work = ra_stage_train},
    {.name = "evaluate", .work = ra_stage_evaluate, .wants_prompts = true},
};

static ra_err write_verdict(const ra_settings *s, const ra_comm *world, ra_err result, const char *where)
{
    if (world->rank != 0) return RA_OK;
    json_t *reasons = json_array(), *root = json_pack("{s:b, s:o}", "valid", result == RA_OK, "reasons", reasons);
    if (result != RA_OK) {
        char *why = ra_format("%s: %s", where, ra_error_message());
        json_array_append_new(reasons, json_string(why));
        free(why);
    }
    char *text = json_dumps(root, JSON_INDENT(1)), *path = ra_path_join(ra_set_text(s, "run.dir"), "verdict.json");
    ra_err err = ra_file_write(path, text, strlen(text));
    free(path);
    free(text);
    json_decref(root);
    return err;
}

ra_err ra_stage_run(const ra_settings *s, const ra_comm *world)
{
    double begun = ra_now();
    ra_err err = RA_OK;
    const char *at = "";
    bool trace = strcmp(ra_set_text(s, "method"), "trace") == 0;
    for (size_t i = 0; i < sizeof stages / sizeof stages[0] && err == RA_OK; i++) {
        const stage *g = &stages[i];
        if (g->trace_only && !trace) continue;
        if (g->wants_prompts && !*ra_set_text(s, "eval.path") && ra_set_real(s, "data.held_out") <= 0.0) {
            ra_info("run: neither eval.path nor data.held_out is set: nothing to evaluate");
            continue;
        }
        at = g->name;
        double stage_begun = ra_now();
        ra_info("---- %s ----", g->name);
        err = g->work(s, world);
        if (err == RA_OK) ra_info("---- %s took %.1f s ----", g->name, ra_now() - stage_begun);
    }
    if (err == RA_ERR_STOPPED) return err;
    char *why = ra_strdup(ra_error_message());
    ra_err written = ra_comm_agree(world, write_verdict(s, world, err, at));
    ra_err reported = written == RA_OK ? ra_stage_report(s, world) : written;
    if (err == RA_OK && reported == RA_OK) {
        ra_info("VALID: all stages and their checks passed in %.1f s; %s/report.html", ra_now() - begun,
                ra_set_text(s, "run.dir"));
    } else {
        ra_info("INVALID: %s", err != RA_OK ? why : ra_error_message());
    }
    err = err != RA_OK ? ra_fail(err, "%s: %s", at, why) : reported;
    free(why);
    return err;
}
