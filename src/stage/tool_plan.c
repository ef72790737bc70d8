/* `realign plan`: what a run would take, from settings and shapes; nothing is computed, and no weights need be there. */
#include "plan_view.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/prefdata.h>
#include <realign/report.h>
#include <realign/tools.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char usage[] =
    "usage: realign plan SETTINGS.yaml|MODEL [key=value ...] [--ranks N] [--schedule FILE.svg] [--json FILE]";

enum { MOST_RANKS = 1 << 20 };

typedef struct {
    int32_t ranks;
    const char *picture, *json;
} options;

/* ---- words ---- */

static ra_err read_ranks(const char *text, int32_t *out)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < 1 || n > MOST_RANKS)
        return ra_fail(RA_ERR_ARG, "--ranks: '%.40s' is not accepted; give a whole number from 1 to %d", text, MOST_RANKS);
    *out = (int32_t)n;
    return RA_OK;
}

static ra_err take_option(const char *name, const char *value, options *o)
{
    bool ranks = strcmp(name, "--ranks") == 0, picture = strcmp(name, "--schedule") == 0, json = strcmp(name, "--json") == 0;
    if (!ranks && !picture && !json) return ra_fail(RA_ERR_ARG, "%s: there is no such option; %s", name, usage);
    if (!value) return ra_fail(RA_ERR_ARG, "%s: a value is missing; %s", name, usage);
    if (ranks) return read_ranks(value, &o->ranks);
    *(picture ? &o->picture : &o->json) = value;
    return RA_OK;
}

/* A model in the place of the settings' file. */
static bool is_model(const char *path)
{
    size_t n = strlen(path);
    return ra_file_is_dir(path) || (n > 5 && strcmp(path + n - 5, ".gguf") == 0);
}

static ra_err read_words(ra_settings *s, int argc, char **argv, options *o)
{
    char **word = ra_alloc((size_t)argc + 1, sizeof *word);
    int words = 0;
    ra_err err = RA_OK;
    for (int i = 0; i < argc && err == RA_OK; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            err = take_option(argv[i], i + 1 < argc ? argv[i + 1] : NULL, o);
            i++;
        } else if (strchr(argv[i], '=')) {
            word[words++] = argv[i];
        } else if (i > 0) {
            err = ra_fail(RA_ERR_ARG, "'%s' is neither key=value nor an option; %s", argv[i], usage);
        } else if (is_model(argv[i])) {
            err = ra_set_put(s, "model", argv[i]);
        } else {
            err = ra_settings_read_file(s, argv[i]);
        }
    }
    if (err == RA_OK) err = ra_settings_read_words(s, words, word);
    ra_free(word);
    return err;
}

/* ---- data ---- */

static void list_files(const ra_settings *s, ra_buf *out)
{
    char **files = NULL;
    int n = 0;
    if (ra_prefdata_list_files(s, &files, &n) != RA_OK) return;
    double bytes = 0.0;
    struct stat info;
    for (int i = 0; i < n; i++) bytes += stat(files[i], &info) == 0 ? (double)info.st_size : 0.0;
    if (n > 0) {
        ra_buf_addf(out, "%d file%s, ", n, n == 1 ? "" : "s");
        ra_plan_write_bytes(out, bytes);
    }
    ra_prefdata_free_files(files, n);
}

/* Pairs of 60 prompt and 2 x 120 response tokens, shorter where data.max_tokens is; with triage a third each Invert, Punish and Retain. */
static void assume_data(ra_run *run)
{
    enum { MANY = 1 << 20 }; /* passes are long */
    const double most = (double)ra_set_int(run->s, "data.max_tokens"), scale = fmin(1.0, most / 180.0);
    const double prompt = fmax(2.0, floor(60.0 * scale)), response = fmax(2.0, floor(120.0 * scale)), branch = response - 1.0;
    const bool trace = strcmp(ra_set_text(run->s, "method"), "trace") == 0;
    double rows = 0.0, keys = 0.0, head = 0.0, kl = 0.0;
    for (int a = 0; a < RA_ACTIONS; a++) {
        if (trace == (a == RA_ACTION_PAIR)) continue;
        const double branches = a == RA_ACTION_RETAIN ? 1.0 : 2.0;
        run->count[a] = MANY;
        run->action_rows[a] = MANY * (prompt + branches * branch);
        rows += prompt + branches * branch;
        keys += prompt * (prompt + 1.0) / 2.0 + branches * branch * (prompt + response / 2.0);
        head += branches * response;
        if (a == RA_ACTION_RETAIN) kl += response;
    }
    run->work = (ra_workload){.context = keys / rows, .head_share = head / rows, .kl_share = kl / rows};
    run->positions = (int32_t)most + 1;
    run->longest = (int32_t)(prompt + 2.0 * response);
    run->rows = (int32_t)ra_set_int(run->s, "pack.tokens");
    if (run->longest > run->rows) run->rows = run->longest;
}

static ra_err find_data(ra_plan_view *v)
{
    ra_run *run = &v->run;
    run->s = v->s;
    run->dir = ra_set_text(v->s, "run.dir");
    char *store = ra_path_join(run->dir, "store.h5");
    v->prepared = ra_file_exists(store);
    free(store);
    if (v->prepared) {
        RA_TRY(ra_run_open_data(run, &v->guess));
    } else {
        assume_data(run);
        list_files(v->s, &v->files);
        v->guess =
            run->count[RA_ACTION_PAIR] > 0
                ? "pairs of 60 prompt and 2 x 120 response tokens, data.max_tokens at most"
                : "pairs of 60 prompt and 2 x 120 response tokens, data.max_tokens at most, a third in each of the three sets";
    }
    const bool kl = ra_set_bool(v->s, "train.kl") && ra_set_real(v->s, "alpha_kl") > 0.0;
    for (int a = 0; a < RA_ACTIONS; a++) {
        if (a == RA_ACTION_RETAIN && !kl) continue;
        v->samples += (double)run->count[a];
        v->rows += run->action_rows[a];
    }
    if (v->samples == 0.0) return ra_fail(RA_ERR_DATA, "%s/store.h5 has no sample that a run could use", run->dir);
    return RA_OK;
}

/* ---- stages ---- */

/* Rows that pass, and their FLOPs: of a step of training; of all of weighing, or a sample of it where nobody knows how many there are. */
static void count_work(const ra_plan_view *v, ra_memory_stage which, ra_plan_stage *p)
{
    const ra_run *run = &v->run;
    ra_workload work = run->work, alone = run->work;
    work.training = p->request.training;
    if (work.training == RA_TRAIN_ADAPTER) work.lora = p->request.lora;
    work.recompute = p->request.layout.recompute;
    const ra_cost cost = ra_cost_model(&v->arch, &work), forward = ra_cost_model(&v->arch, &alone);
    double back = 0.0, ahead = 0.0, samples = 0.0;
    for (int a = 0; a < RA_ACTIONS; a++) {
        *(a == RA_ACTION_RETAIN ? &ahead : &back) += run->action_rows[a];
        samples += (double)run->count[a];
    }
    if (which == RA_MEMORY_OF_TRAINING) {
        back = v->rows / v->samples * fmin((double)ra_set_int(v->s, "train.batch"), v->samples);
        ahead = 0.0;
    } else if (!v->prepared) {
        back /= samples;
        ahead /= samples;
    }
    p->rows = back + ahead;
    p->flops = back * ra_cost_flops(&cost) + ahead * forward.forward;
    p->work = back * ra_cost_work(&cost) + ahead * forward.forward;
}

/* The table of the longest pass, run with this split's costs. */
static ra_err time_schedule(ra_plan_stage *p)
{
    const ra_grid_layout *l = &p->request.layout;
    ra_schedule s;
    ra_schedule_timing t;
    p->kind = ra_plan_schedule(&p->request);
    p->micro_batches = p->plan.most > 0 ? p->plan.most : 1;
    p->cost = ra_calloc((size_t)p->plan.split.stages, sizeof *p->cost);
    p->mean = ra_plan_costs(&p->request, &p->plan, p->cost);
    RA_TRY(ra_schedule_make(p->kind, l->stages, p->micro_batches, l->chunks, &s));
    ra_err err = ra_schedule_time(&s, &p->mean, &t);
    if (err == RA_OK) {
        p->theory = ra_schedule_theory_bubble(p->kind, l->stages, p->micro_batches, l->chunks, &p->mean);
        p->bubble = t.bubble;
        ra_schedule_timing_free(&t);
    }
    ra_schedule_free(&s);
    return err;
}

static ra_err plan_stage(ra_plan_view *v, ra_memory_stage which)
{
    ra_plan_stage *p = &v->stage[which];
    RA_TRY(ra_memory_request(&v->run, which, &v->arch, &v->types, v->ranks, &p->request));
    RA_TRY(ra_plan_make(&p->request, &p->plan));
    count_work(v, which, p);
    RA_TRY(time_schedule(p));
    if (ra_plan_view_fits(v, which)) return RA_OK;
    ra_buf_addf(&v->fits, "%s%s: ", v->fits.length ? "; " : "", ra_memory_stage_name[which]);
    ra_buf words = {0};
    ra_plan_suggest(&p->request, ra_memory_adapter_key(which), v->limit, &words);
    ra_buf_adds(&v->fits, words.data);
    ra_buf_free(&words);
    return RA_OK;
}

/* The ranks that were asked for; else those the program was started on; alone, as many as the settings need. */
static ra_err find_ranks(const ra_settings *s, const options *o, int32_t *out)
{
    const int32_t started = ra_comm_world().size;
    const int64_t stages = ra_set_int(s, "grid.pipeline"),
                  copies = ra_set_int(s, "grid.data") > 0 ? ra_set_int(s, "grid.data") : 1;
    *out = o->ranks > 0 ? o->ranks : started;
    if (*out > 1 || o->ranks > 0) return RA_OK;
    if (copies > MOST_RANKS / stages) {
        return ra_fail(
            RA_ERR_ARG,
            "grid.pipeline, grid.data: %lld copies of %lld stages are more ranks than a plan is made for; accepted: %d",
            (long long)copies, (long long)stages, MOST_RANKS);
    }
    *out = (int32_t)(stages * copies);
    return RA_OK;
}

static ra_err make_view(const ra_settings *s, const options *o, ra_plan_view *v)
{
    v->s = s;
    RA_TRY(find_ranks(s, o, &v->ranks));
    if (!*ra_set_text(s, "model"))
        return ra_fail(RA_ERR_ARG,
                       "model: no model was given; accepted: a Hugging Face directory (config.json will do) or a GGUF file");
    ra_grid grid;
    RA_TRY(ra_grid_imagine(v->ranks, (int32_t)ra_set_int(s, "grid.pipeline"), 0, &grid));
    RA_TRY(ra_grid_check(s, &grid));
    RA_TRY(ra_backend_outline(ra_set_text(s, "backend"), ra_set_text(s, "precision"), &v->types));
    RA_TRY(ra_arch_read(ra_set_text(s, "model"), &v->arch));
    RA_TRY(find_data(v));
    v->limit = ra_memory_limit(s, NULL, &v->whose);
    for (ra_memory_stage i = 0; i < RA_MEMORY_STAGES; i++) RA_TRY(plan_stage(v, i));
    if (!v->prepared) return RA_OK;
    const ra_plan_stage *train = &v->stage[RA_MEMORY_OF_TRAINING];
    v->steps = ceil(v->samples / (double)ra_set_int(s, "train.batch"));
    v->epoch_flops = train->flops / train->rows * v->rows;
    return RA_OK;
}

static void free_view(ra_plan_view *v)
{
    for (int i = 0; i < RA_MEMORY_STAGES; i++) {
        ra_plan_free(&v->stage[i].plan);
        ra_free(v->stage[i].cost);
    }
    ra_run_close_data(&v->run);
    ra_arch_free(&v->arch);
    ra_buf_free(&v->files);
    ra_buf_free(&v->fits);
}

/* A step of training on one replica. */
static ra_err draw_schedule(const ra_plan_view *v, const char *path)
{
    const ra_plan_stage *p = &v->stage[RA_MEMORY_OF_TRAINING];
    const ra_grid_layout *l = &p->request.layout;
    ra_schedule s;
    RA_TRY(ra_schedule_make(p->kind, l->stages, p->micro_batches, l->chunks, &s));
    const int32_t n = p->plan.split.stages;
    ra_schedule_costs *cost = ra_alloc((size_t)n, sizeof *cost), mean = p->mean;
    for (int32_t i = 0; i < n; i++) {
        cost[i] = (ra_schedule_costs){.forward = p->cost[i].forward * 1e-12,
                                      .backward = p->cost[i].backward * 1e-12,
                                      .backward_input = p->cost[i].backward_input * 1e-12,
                                      .backward_weight = p->cost[i].backward_weight * 1e-12};
    }
    mean.stage = cost;
    ra_err err = ra_report_write_schedule(path, &s, &mean, "work of a rank, TFLOP");
    ra_free(cost);
    ra_schedule_free(&s);
    return err;
}

static ra_err show(const ra_plan_view *v, const options *o)
{
    ra_buf text = {0};
    ra_plan_view_text(v, &text);
    fputs(text.data, stdout);
    ra_buf_free(&text);
    if (o->json) RA_TRY(ra_plan_view_json(v, o->json));
    if (o->picture) RA_TRY(draw_schedule(v, o->picture));
    if (v->fits.length == 0) return RA_OK;
    ra_buf limit = {0};
    ra_plan_write_bytes(&limit, (double)v->limit);
    ra_err err = ra_fail(RA_ERR_DATA, "more memory is planned than %s allows (%s); what would fit: %s", v->whose, limit.data,
                         v->fits.data);
    ra_buf_free(&limit);
    return err;
}

ra_err ra_tool_plan(int argc, char **argv)
{
    options o = {0};
    if (argc < 1) return ra_fail(RA_ERR_ARG, "%s", usage);
    if (ra_comm_world().rank != 0) return RA_OK; /* nothing to share */
    ra_settings *s = ra_settings_new();
    ra_plan_view v = {0};
    ra_err err = read_words(s, argc, argv, &o);
    if (err == RA_OK) err = make_view(s, &o, &v);
    if (err == RA_OK) err = show(&v, &o);
    free_view(&v);
    ra_settings_free(s);
    return err;
}
