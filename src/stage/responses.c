/* Answers of a model to the prompts of the evaluation: generated, cached, judged, written. */
#include "responses.h"
#include "oracles.h"

#include <realign/file.h>
#include <realign/hash.h>
#include <realign/judge.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- a model ---- */

ra_err ra_side_open(ra_side *side)
{
    if (side->open) return RA_OK;
    ra_err err =
        ra_comm_agree(&side->grid->world, ra_inference_open(side->s, side->grid, side->model, side->adapter, &side->inference));
    side->open = err == RA_OK;
    if (err != RA_OK) ra_inference_close(&side->inference);
    return err;
}

void ra_side_close(ra_side *side)
{
    if (side->open) ra_inference_close(&side->inference);
    side->open = false;
}

bool ra_side_after(const ra_settings *s, const ra_grid *grid, ra_side *side, char **path)
{
    const ra_comm *world = &grid->world;
    *path = ra_path_join(ra_set_text(s, "run.dir"), "model");
    *side = (ra_side){.s = s, .grid = grid, .name = "after", .adapter = ra_adapter_in(*path)};
    side->model = side->adapter ? ra_set_text(s, "model") : *path;
    int there = world->rank == 0 && ra_file_is_dir(*path);
    ra_comm_bcast(world, &there, sizeof there, 0);
    return there != 0;
}

/* ---- what answers depend on ---- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void add_file(ra_hasher *h, const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) return;
    int64_t facts[3] = {(int64_t)info.st_size, (int64_t)info.st_mtim.tv_sec, (int64_t)info.st_mtim.tv_nsec};
    ra_hasher_add(h, path, strlen(path));
    ra_hasher_add(h, facts, sizeof facts);
}

void ra_model_files_add(ra_hasher *h, const char *path)
{
    struct dirent **list = NULL;
    int n = path && ra_file_is_dir(path) ? scandir(path, &list, NULL, by_name) : 0;
    for (int i = 0; i < n; i++) {
        char *file = ra_path_join(path, list[i]->d_name);
        add_file(h, file);
        free(file);
        free(list[i]);
    }
    free(list);
    if (path && n <= 0) add_file(h, path);
}

/* Rank 0's view of the files decides. */
static void make_key(const ra_side *side, const ra_prompts *prompts, char key[33])
{
    static const char *const texts[] = {"backend", "precision", "template", "template_date", "tokenizer"};
    const ra_settings *s = side->s;
    ra_hasher *h = ra_hasher_new();
    ra_model_files_add(h, side->model);
    ra_model_files_add(h, side->adapter);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        ra_hasher_add(h, ra_set_text(s, texts[i]), strlen(ra_set_text(s, texts[i])) + 1);
    double reals[] = {ra_set_real(s, "generate.temperature"), ra_set_real(s, "generate.top_p")};
    int64_t numbers[] = {ra_set_int(s, "max_new_tokens"), ra_set_int(s, "seed"), (int64_t)prompts->hash};
    ra_hasher_add(h, reals, sizeof reals);
    ra_hasher_add(h, numbers, reals[0] > 0.0 ? sizeof numbers : sizeof numbers[0]); /* greedy answers do not depend on the seed */
    ra_hasher_add(h, &prompts->hash, sizeof prompts->hash);
    ra_hash_text(ra_hasher_end(h), key);
    ra_comm_bcast(&side->grid->world, key, 33, 0);
}

/* ---- the file ---- */

static char *file_path(const ra_side *side)
{
    char *name = ra_format("generations-%s.jsonl", side->name), *path = ra_path_join(ra_set_text(side->s, "run.dir"), name);
    free(name);
    return path;
}

static json_t *answer_json(const ra_prompt *p, const ra_answer *a, const char *rule, bool judged, const char *key)
{
    json_t *line = json_object();
    json_object_set_new(line, "id", json_integer(p->id));
    json_object_set_new(line, "category", p->category ? json_string(p->category) : json_null());
    json_object_set_new(line, "prompt", json_string(p->text));
    json_object_set_new(line, "response", json_string(a->text));
    json_object_set_new(line, "tokens", json_integer(a->tokens));
    json_object_set_new(line, "stopped", json_boolean(a->stopped));
    json_object_set_new(line, "verdict", judged && a->verdict >= 0 ? json_integer(a->verdict) : json_null());
    json_object_set_new(line, "rule", rule ? json_string(rule) : json_null());
    json_object_set_new(line, "key", json_string(key));
    return line;
}

ra_err ra_answers_write(const ra_side *side, const ra_prompts *prompts, const ra_oracle *oracle, const ra_answers *a)
{
    ra_err err = RA_OK;
    if (side->grid->world.rank == 0) {
        ra_buf text = {0};
        for (int64_t i = 0; i < a->n; i++) {
            const char *rule = oracle && a->answer[i].rule >= 0 ? ra_oracle_rule_name(oracle, a->answer[i].rule) : NULL;
            json_t *line = answer_json(&prompts->prompt[i], &a->answer[i], rule, oracle != NULL, a->key);
            char *dump = json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII);
            ra_buf_addf(&text, "%s\n", dump);
            free(dump);
            json_decref(line);
        }
        char *path = file_path(side);
        err = ra_dir_make(ra_set_text(side->s, "run.dir"));
        if (err == RA_OK) err = ra_file_write(path, text.data, text.length);
        free(path);
        ra_buf_free(&text);
    }
    return ra_comm_agree(&side->grid->world, err);
}

static bool read_answer(const char *text, size_t n, const ra_prompt *p, const char *key, ra_answer *out)
{
    json_t *line = json_loadb(text, n, 0, NULL);
    const char *response = json_string_value(json_object_get(line, "response")),
               *its_key = json_string_value(json_object_get(line, "key"));
    bool same = response && its_key && strcmp(its_key, key) == 0 && json_integer_value(json_object_get(line, "id")) == p->id;
    if (same) {
        *out = (ra_answer){.text = ra_strdup(response),
                           .tokens = (int32_t)json_integer_value(json_object_get(line, "tokens")),
                           .stopped = json_is_true(json_object_get(line, "stopped")),
                           .verdict = -1,
                           .rule = -1};
    }
    json_decref(line);
    return same;
}

/* Not collective. True where the text holds exactly these prompts' answers under this key; then they are in `a`. */
static bool parse_answers(const ra_buf *text, const ra_prompts *prompts, ra_answers *a)
{
    const char *at = text->data, *end = at + text->length;
    int64_t i = 0;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        if (!line_end) line_end = end;
        if (i == prompts->n || !read_answer(at, (size_t)(line_end - at), &prompts->prompt[i], a->key, &a->answer[i])) break;
        i++;
        at = line_end + 1;
    }
    if (at >= end && i == prompts->n) return true;
    for (int64_t k = 0; k < i; k++) {
        free(a->answer[k].text);
        a->answer[k].text = NULL;
    }
    return false;
}

/* Rank 0 reads, all parse. */
static bool read_cached(const ra_side *side, const ra_prompts *prompts, ra_answers *a)
{
    if (strcmp(ra_set_text(side->s, "run.resume"), "never") == 0) return false;
    ra_buf text = {0};
    int64_t length = 0;
    if (side->grid->world.rank == 0) {
        char *path = file_path(side);
        if (ra_file_exists(path) && ra_file_read(path, &text) == RA_OK) length = (int64_t)text.length;
        free(path);
    }
    ra_comm_bcast(&side->grid->world, &length, sizeof length, 0);
    bool same = false;
    if (length > 0) {
        if (side->grid->world.rank != 0) {
            ra_buf_reserve(&text, (size_t)length);
            text.length = (size_t)length;
        }
        ra_comm_bcast(&side->grid->world, text.data, length, 0);
        same = parse_answers(&text, prompts, a);
    }
    ra_buf_free(&text);
    return same;
}

/* ---- generating ---- */

/* Collective over the stages of a replica, whose prompts are those with index % replicas == replica; stage 0 knows them and gets the answers. */
static ra_err generate_mine(ra_side *side, const ra_prompts *prompts, ra_answers *a)
{
    const ra_inference *model = &side->inference;
    const ra_grid *grid = side->grid;
    int64_t first = grid->data.rank, stride = grid->data.size, n = 0;
    size_t most = (size_t)(prompts->n / stride + 1);
    ra_rendered *rendered = ra_calloc(most, sizeof *rendered);
    ra_continuation *c = ra_calloc(most, sizeof *c);
    ra_err err = RA_OK;
    for (int64_t i = first; i < prompts->n && err == RA_OK && grid->stage == 0; i += stride, n++) {
        const ra_prompt *p = &prompts->prompt[i];
        err = ra_turns_render(model, p->turns, p->n, true, &rendered[n]);
        if (err != RA_OK) ra_fail_in(err, "evaluation prompt %lld", (long long)p->id);
        c[n] = (ra_continuation){.id = p->id, .prompt = rendered[n].ids.id, .prompt_count = (int32_t)rendered[n].ids.count};
    }
    ra_generation config = ra_generation_of(side->s, model);
    ra_generator *g = ra_generator_new(model->m, grid, &config);
    err = ra_grid_agree(grid, err);
    if (err == RA_OK) err = ra_generator_run(g, c, n);
    for (int64_t k = 0; k < n && err == RA_OK; k++) {
        ra_buf text = {0};
        err = ra_tokenizer_decode(model->tokenizer, c[k].token, c[k].count, true, &text);
        a->answer[first + k * stride] = (ra_answer){.text = ra_strdup(text.data ? text.data : ""),
                                                    .tokens = c[k].count,
                                                    .stopped = c[k].stopped,
                                                    .verdict = -1,
                                                    .rule = -1};
        ra_buf_free(&text);
    }
    const ra_generation_counts *counts = ra_generator_counts(g);
    if (err == RA_OK && counts->new_tokens > 0) {
        ra_info("generate: %s: %lld prompts of this replica, %.0f prompt tokens/s, %.0f new tokens/s", side->name, (long long)n,
                (double)counts->prompt_tokens / counts->prefill_s, (double)counts->new_tokens / (counts->decode_s + 1e-9));
    }
    ra_generator_free(g);
    for (int64_t k = 0; k < (int64_t)most; k++) {
        ra_free(c[k].token);
        ra_rendered_free(&rendered[k]);
    }
    ra_free(c);
    ra_free(rendered);
    return err;
}

/* Answer i is on stage 0 of replica i % replicas; afterwards on all ranks. */
static void share_answers(const ra_grid *grid, ra_answers *a)
{
    const ra_comm *world = &grid->world;
    for (int64_t i = 0; i < a->n && world->size > 1; i++) {
        ra_answer *x = &a->answer[i];
        int owner = (int)(i % grid->data.size) * grid->stages;
        int64_t facts[3] = {0};
        if (world->rank == owner) facts[0] = (int64_t)strlen(x->text) + 1, facts[1] = x->tokens, facts[2] = x->stopped;
        ra_comm_bcast(world, facts, sizeof facts, owner);
        if (world->rank != owner) {
            *x = (ra_answer){.text = ra_realloc(NULL, (size_t)facts[0], 1),
                             .tokens = (int32_t)facts[1],
                             .stopped = facts[2] != 0,
                             .verdict = -1,
                             .rule = -1};
        }
        ra_comm_bcast(world, x->text, facts[0], owner);
    }
}

ra_err ra_answers_get(ra_side *side, const ra_prompts *prompts, ra_answers *out)
{
    *out = (ra_answers){.n = prompts->n, .answer = ra_calloc((size_t)prompts->n, sizeof *out->answer)};
    make_key(side, prompts, out->key);
    if (read_cached(side, prompts, out)) {
        ra_info("generate: %s: %lld answers are up to date", side->name, (long long)out->n);
        return RA_OK;
    }
    ra_err err = ra_side_open(side);
    if (err == RA_OK) err = ra_comm_agree(&side->grid->world, generate_mine(side, prompts, out));
    if (err != RA_OK) {
        ra_answers_free(out);
        return err;
    }
    share_answers(side->grid, out);
    return ra_answers_write(side, prompts, NULL, out);
}

void ra_answers_free(ra_answers *a)
{
    for (int64_t i = 0; i < a->n; i++) free(a->answer[i].text);
    ra_free(a->answer);
    memset(a, 0, sizeof *a);
}

/* ---- judging ---- */

/* Collective over `askers`. This rank's answers in one batch, announced before; verdict and rule of the others stay 0. */
static ra_err judge_mine(const ra_comm *askers, ra_oracle *oracle, const ra_prompts *prompts, const ra_answers *a,
                         int64_t *verdict, int64_t *rule)
{
    int64_t n = 0;
    ra_oracle_item *items = ra_calloc((size_t)(a->n / askers->size + 1), sizeof *items);
    ra_verdict *v = ra_calloc((size_t)(a->n / askers->size + 1), sizeof *v);
    for (int64_t i = askers->rank; i < a->n; i += askers->size) {
        const ra_prompt *p = &prompts->prompt[i];
        items[n++] = (ra_oracle_item){.prompt = p->text,
                                      .response = a->answer[i].text,
                                      .category = p->category,
                                      .response_index = -1,
                                      .turns = p->turns,
                                      .n_turns = p->n};
    }
    ra_oracle_plan plan = {0};
    ra_oracle_plan_add(oracle, items, (int)n, &plan);
    ra_comm_sum_i64(askers, plan.questions, sizeof plan / sizeof(int64_t));
    ra_err err = ra_comm_agree(askers, ra_oracle_announce(oracle, &plan));
    if (err == RA_OK) err = ra_comm_agree(askers, ra_oracle_judge(oracle, items, (int)n, v));
    for (int64_t k = 0; k < n && err == RA_OK; k++) {
        verdict[askers->rank + k * askers->size] = v[k].compliant;
        rule[askers->rank + k * askers->size] = v[k].rule;
    }
    ra_free(v);
    ra_free(items);
    return err;
}

/* Collective over the grid. */
static ra_err judge_together(const ra_grid *grid, ra_oracle *oracle, const ra_prompts *prompts, const ra_answers *a,
                             int64_t *verdict, int64_t *rule)
{
    bool spread = ra_oracle_is_spread(oracle, grid);
    ra_err err;
    if (spread && grid->stage > 0) {
        err = ra_oracle_serve(oracle, NULL, grid);
    } else {
        err = judge_mine(ra_oracle_askers(oracle, grid), oracle, prompts, a, verdict, rule);
        if (spread) ra_grid_call(grid, RA_CALL_END);
    }
    return spread ? ra_comm_agree(&grid->world, err) : err;
}

ra_err ra_answers_judge(const ra_grid *grid, ra_oracle *oracle, int64_t undecided_limit, const ra_prompts *prompts, ra_answers *a)
{
    const ra_comm *world = &grid->world;
    int64_t *verdict = ra_calloc((size_t)a->n * 2, sizeof *verdict), *rule = verdict + a->n, undecided = 0;
    ra_err err = judge_together(grid, oracle, prompts, a, verdict, rule);
    if (err == RA_OK) {
        ra_comm_sum_i64(world, verdict, 2 * a->n); /* one rank holds each, the others 0 */
        for (int64_t i = 0; i < a->n; i++) {
            a->answer[i].verdict = (int8_t)verdict[i];
            a->answer[i].rule = (int16_t)rule[i];
            undecided += verdict[i] < 0;
        }
        if (undecided > undecided_limit) {
            const char *why = ra_oracle_problem(oracle);
            err = ra_fail(RA_ERR_DATA, "%lld of %lld answers could not be judged, more than oracle.undecided_limit = %lld%s%s",
                          (long long)undecided, (long long)a->n, (long long)undecided_limit, *why ? ": " : "", why);
        } else if (undecided && world->rank == 0) {
            ra_warn("%lld of %lld answers could not be judged and count for nothing", (long long)undecided, (long long)a->n);
        }
    }
    ra_free(verdict);
    return err;
}
