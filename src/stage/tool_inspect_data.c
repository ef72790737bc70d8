/* `realign inspect` of preference data: schema, usable rows and the reasons of the others, lengths, sources, categories, a preview of the held-out split,
 * three examples. */
#include "inspect_survey.h"

#include "open_text.h"

#include <realign/tools.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    ra_settings *s;
    const char *model;
    bool show_text;
    char *spool; /* a folder for standard input, or NULL */
    ra_tokenizer *tokenizer;
    ra_template *tpl;
    ra_sample_rules rules;
    ra_job job;
} tool;

static const char usage[] = "usage: realign inspect [--show-text] [--model M] [key=value ...] FILE, FOLDER or - ...";

static ra_err read_words(tool *t, int argc, char **argv, const char **paths, int *n)
{
    RA_TRY(ra_set_put(t->s, "data.malformed_limit", "9007199254740992")); /* all of them are to be counted */
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--show-text") == 0) {
            t->show_text = true;
        } else if (strcmp(argv[i], "--model") == 0 && i + 1 < argc) {
            t->model = argv[++i];
        } else if (argv[i][0] == '-' && argv[i][1]) {
            return ra_fail(RA_ERR_ARG, "%s is not understood; %s", argv[i], usage);
        } else if (strchr(argv[i], '=') && access(argv[i], F_OK) != 0) {
            RA_TRY(ra_settings_read_words(t->s, 1, &argv[i]));
        } else {
            paths[(*n)++] = argv[i];
        }
    }
    return *n ? RA_OK : ra_fail(RA_ERR_ARG, "%s", usage);
}

static ra_err open_model(tool *t)
{
    if (!t->model) return RA_OK;
    RA_TRY(ra_tokenizer_open(t->model, &t->tokenizer));
    RA_TRY(ra_open_template(t->s, t->tokenizer, &t->tpl));
    t->rules = (ra_sample_rules){t->tpl, ra_tokenizer_bos(t->tokenizer), INT32_MAX, RA_TRUNCATE_KEEP};
    return RA_OK;
}

/* Standard input goes to a folder of its own for as long as the tool runs. */
static ra_err spool_input(tool *t, const ra_comm *alone)
{
    const char *base = getenv("TMPDIR");
    t->spool = ra_format("%s/realign-inspect-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(t->spool)) return ra_fail(RA_ERR_IO, "%s: %m", t->spool);
    RA_TRY(ra_set_put(t->s, "run.dir", t->spool));
    return ra_prefdata_spool(t->s, alone);
}

static void remove_spool(tool *t)
{
    static const char *const names[] = {"stdin.data", "stdin.data.xxh3"};
    for (size_t i = 0; t->spool && i < sizeof names / sizeof *names; i++) {
        char *path = ra_format("%s/%s", t->spool, names[i]);
        unlink(path);
        free(path);
    }
    if (t->spool) rmdir(t->spool);
    free(t->spool);
}

static ra_err look_at_all(tool *t, ra_prefdata *data, ra_survey *v)
{
    v->show_text = t->show_text;
    v->held_out_share = ra_set_real(t->s, "data.held_out");
    for (bool more = true;;) {
        const ra_row *row;
        ra_row_status status;
        RA_TRY(ra_prefdata_next(data, 0, 1, 1, &row, &status, &more));
        if (!more) return RA_OK;
        if (t->tpl && status == RA_ROW_OK) {
            ra_job_begin(&t->job, row, status);
            ra_job_run(&t->job, &t->rules);
            if (t->job.err != RA_OK) return ra_fail(t->job.err, "row %lld: %s", (long long)row->id + 1, t->job.why);
        }
        ra_survey_add(v, row, status, status == RA_ROW_OK && ra_row_held_out(t->s, row->prompt_hash),
                      t->tpl ? &t->job.sample : NULL);
        if (t->tpl) ra_job_end(&t->job);
    }
}

static ra_err inspect(tool *t, const char *const *paths, int n)
{
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    RA_TRY(ra_set_put_list(t->s, "data.path", paths, n));
    if (ra_set_real(t->s, "data.held_out") <= 0) RA_TRY(ra_set_put(t->s, "data.held_out", "0.1")); /* a preview */
    RA_TRY(open_model(t));
    for (int i = 0; i < n; i++) {
        if (strcmp(paths[i], "-") == 0 && !t->spool) RA_TRY(spool_input(t, &alone));
    }
    ra_prefdata *data;
    RA_TRY(ra_prefdata_open_settings(t->s, &data));
    ra_survey *v = ra_alloc(1, sizeof *v);
    ra_survey_begin(v, ra_prefdata_origins(data));
    ra_err err = ra_prefdata_find_duplicates(data, t->s, &alone);
    if (err == RA_OK) err = look_at_all(t, data, v);
    if (err == RA_OK) ra_survey_print(v, n == 1 ? paths[0] : "all of them", data);
    ra_survey_free(v);
    ra_free(v);
    ra_prefdata_close(data);
    return err;
}

ra_err ra_tool_inspect_data(int argc, char **argv)
{
    tool t = {.s = ra_settings_new()};
    const char **paths = ra_calloc((size_t)argc + 1, sizeof *paths);
    int n = 0;
    ra_err err = read_words(&t, argc, argv, paths, &n);
    if (err == RA_OK) err = inspect(&t, paths, n);
    remove_spool(&t);
    ra_job_free(&t.job);
    ra_template_close(t.tpl);
    ra_tokenizer_close(t.tokenizer);
    ra_settings_free(t.s);
    ra_free(paths);
    return err;
}
