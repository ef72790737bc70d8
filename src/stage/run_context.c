#include "run_context.h"
#include "corrections.h"
#include "open_text.h"
#include "responses.h"

#include <realign/file.h>
#include <realign/h5.h>
#include <realign/hash.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/stage.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *ra_run_path(const ra_run *run, const char *name)
{
    return ra_path_join(run->dir, name);
}

static ra_err read_triage(const char *path, int64_t n, int8_t *action, char **key)
{
    ra_h5 *h5 = NULL;
    int rank;
    int64_t shape[4];
    ra_err err = ra_file_exists(path)
                     ? ra_h5_open(path, NULL, &h5)
                     : ra_fail(RA_ERR_IO, "%s is missing: run `realign triage` first, or `realign run` for all stages", path);
    if (err == RA_OK) err = ra_h5_shape(h5, "action", &rank, shape);
    if (err == RA_OK && shape[0] != n) {
        err = ra_fail(RA_ERR_DATA,
                      "%s has %lld rows, the sample store has %lld: they come from different data; run triage and prepare again",
                      path, (long long)shape[0], (long long)n);
    }
    if (err == RA_OK) err = ra_h5_verify(h5, "action");
    if (err == RA_OK) err = ra_h5_read(h5, "action", H5T_NATIVE_INT8, 0, -1, action);
    if (err == RA_OK && ra_h5_read_attr_text(h5, "/", "depends_on", key) != RA_OK) *key = ra_strdup("");
    ra_h5_close(h5);
    return err;
}

ra_err ra_run_read_actions(const ra_settings *s, const char *dir, const ra_store *store, int8_t *action, char **triage_key)
{
    char *path = ra_path_join(dir, "triage.h5");
    int64_t n = ra_store_count(store);
    *triage_key = NULL;
    ra_err err = read_triage(path, n, action, triage_key);
    free(path);
    RA_TRY(err);
    for (int64_t i = 0; i < n; i++) {
        if (ra_store_state(store, i) != RA_SAMPLE_OK || ra_row_held_out(s, ra_store_get(store, i).prompt_hash))
            action[i] = RA_ACTION_NONE;
    }
    return RA_OK;
}

/* Actions of all samples, and the corrections that go with them. */
static ra_err read_actions(ra_run *run)
{
    char *triage_key = NULL;
    ra_err err = ra_run_read_actions(run->s, run->dir, run->store, run->action, &triage_key);
    if (err == RA_OK) err = ra_corrections_apply(run->s, run->dir, run->store, run->action, triage_key);
    free(triage_key);
    return err;
}

static int32_t rows_of(const ra_run *run, int64_t sample)
{
    ra_sample s = ra_store_get(run->store, sample);
    return ra_microbatch_rows(&s, ra_loss_roles(ra_run_kind(run, sample)));
}

/* Adds a sample to averages over rows: keys attended to, head rows. */
static void add_workload(const ra_run *run, int64_t sample, double sums[4])
{
    ra_sample s = ra_store_get(run->store, sample);
    unsigned roles = ra_loss_roles(ra_run_kind(run, sample));
    double prompt = s.prompt_count;
    sums[0] += prompt;
    sums[1] += prompt * (prompt + 1.0) / 2.0;
    for (int r = 0; r < RA_ROLES; r++) {
        double n = s.response[r].count, head = n - s.response[r].skip;
        if (!(roles >> r & 1) || n < 1.0) continue;
        sums[0] += n - 1.0;
        sums[1] += (n - 1.0) * (prompt + n / 2.0);
        sums[2] += head;
        if (run->action[sample] == RA_ACTION_RETAIN) sums[3] += head;
    }
}

/* Sizes that buffers must have, how many samples each set holds, and what work they are. */
static void measure(ra_run *run)
{
    int32_t longest_prompt = 0, longest_response = 0;
    double sums[4] = {0};
    for (int64_t i = 0; i < run->n; i++) {
        if (run->action[i] == RA_ACTION_NONE) continue;
        int32_t rows = rows_of(run, i);
        run->count[run->action[i]]++;
        run->action_rows[run->action[i]] += rows;
        run->corrected += ra_run_kind(run, i) == RA_LOSS_PUNISH_CORRECTED;
        ra_sample s = ra_store_get(run->store, i);
        for (int r = 0; r < RA_ROLES; r++) {
            if (s.response[r].count > longest_response) longest_response = s.response[r].count;
        }
        if (s.prompt_count > longest_prompt) longest_prompt = s.prompt_count;
        if (rows > run->longest) run->longest = rows;
        add_workload(run, i, sums);
    }
    run->work = (ra_workload){.context = sums[1] / fmax(sums[0], 1.0),
                              .head_share = sums[2] / fmax(sums[0], 1.0),
                              .kl_share = sums[3] / fmax(sums[0], 1.0)};
    run->positions = longest_prompt + longest_response + 1; /* a gold pair may join any prompt with any response */
    if (longest_prompt + 2 * longest_response > run->longest) run->longest = longest_prompt + 2 * longest_response;
    run->rows = (int32_t)ra_set_int(run->s, "pack.tokens");
    if (run->longest > run->rows) run->rows = run->longest;
}

static void guess_actions(ra_run *run)
{
    int64_t turn = 0;
    for (int64_t i = 0; i < run->n; i++) {
        bool out =
            ra_store_state(run->store, i) != RA_SAMPLE_OK || ra_row_held_out(run->s, ra_store_get(run->store, i).prompt_hash);
        run->action[i] = out ? RA_ACTION_NONE : (int8_t)(turn++ % 3);
    }
}

/* As read_actions, whatever is there. */
static const char *read_or_guess_actions(ra_run *run)
{
    char *key = NULL;
    const char *guess = NULL;
    if (ra_run_read_actions(run->s, run->dir, run->store, run->action, &key) != RA_OK) {
        guess_actions(run);
        guess = "no triage yet: samples take turns in the three sets";
    } else if (ra_corrections_apply(run->s, run->dir, run->store, run->action, key) != RA_OK) {
        guess = "no corrections yet";
    }
    free(key);
    return guess;
}

ra_err ra_run_open_data(ra_run *run, const char **guess)
{
    const ra_settings *s = run->s;
    if (guess) *guess = NULL;
    RA_TRY(ra_store_open(run->dir, &run->store));
    run->n = ra_store_count(run->store);
    run->action = ra_alloc((size_t)run->n, 1);
    if (strcmp(ra_set_text(s, "method"), "dpo") == 0) {
        for (int64_t i = 0; i < run->n; i++) {
            bool out =
                ra_store_state(run->store, i) != RA_SAMPLE_OK || ra_row_held_out(s, ra_store_get(run->store, i).prompt_hash);
            run->action[i] = out ? RA_ACTION_NONE : RA_ACTION_PAIR;
        }
    } else if (guess) {
        *guess = read_or_guess_actions(run);
    } else {
        RA_TRY(read_actions(run));
    }
    measure(run);
    return RA_OK;
}

void ra_run_close_data(ra_run *run)
{
    ra_store_close(run->store);
    ra_free(run->action);
    run->store = NULL;
    run->action = NULL;
}

int32_t ra_run_packs(const ra_run *run, int32_t packs)
{
    int32_t left = packs - run->grid.data.rank, replicas = run->grid.data.size;
    return left > 0 ? (left + replicas - 1) / replicas : 0;
}

/* The model is known by the names, sizes and times of its files. */
static uint64_t model_key(const char *path)
{
    ra_hasher *h = ra_hasher_new();
    ra_model_files_add(h, path);
    return ra_hasher_end(h).low;
}

/* Before anything is computed: that no sample holds an id beyond the model's rows would be luck. The stages here need no tokenizer, so
 * one that is not there is no error. */
static ra_err check_tokenizer(const ra_run *run)
{
    ra_tokenizer *t;
    if (ra_tokenizer_open(ra_set_text(run->s, "tokenizer"), &t) != RA_OK) return RA_OK;
    ra_err err = ra_check_tokenizer(t, run->file);
    ra_tokenizer_close(t);
    return err;
}

static ra_err open_all(ra_run *run)
{
    const ra_settings *s = run->s;
    RA_TRY(ra_backend_open(ra_set_text(s, "backend"), ra_set_text(s, "precision"), (int)ra_set_int(s, "run.threads"), &run->b));
    if (!*ra_set_text(s, "model"))
        return ra_fail(RA_ERR_ARG, "model: no model was given; accepted: a Hugging Face directory or a GGUF file");
    if (strcmp(ra_set_text(s, "reference"), ra_set_text(s, "model")) != 0) {
        return ra_fail(
            RA_ERR_UNSUPPORTED,
            "reference: %s is not the model; training begins at the reference (theta = theta_ref), so give the same path or none",
            ra_set_text(s, "reference"));
    }
    RA_TRY(ra_modelfile_open(ra_set_text(s, "model"), &run->file));
    RA_TRY(ra_grid_check(s, &run->grid));
    RA_TRY(ra_engine_configure(s, &run->engine));
    if (run->world->rank == 0) RA_TRY(check_tokenizer(run));
    RA_TRY(ra_run_open_data(run, NULL));
    struct {
        uint64_t store, actions, model;
    } parts = {ra_store_hash(run->store), ra_hash_bytes(run->action, (size_t)run->n).low, model_key(ra_set_text(s, "model"))};
    run->key = ra_hash_bytes(&parts, sizeof parts).low;
    return RA_OK;
}

ra_err ra_run_open(const ra_settings *s, const ra_comm *world, ra_run *run)
{
    memset(run, 0, sizeof *run);
    run->s = s;
    run->world = world;
    run->dir = ra_set_text(s, "run.dir");
    run->timers = ra_timers_new();
    run->objective = (ra_objective){.beta = ra_set_real(s, "beta"),
                                    .tau = ra_set_real(s, "tau"),
                                    .alpha_kl = ra_set_real(s, "alpha_kl"),
                                    .npo_scale = ra_set_real(s, "npo_scale"),
                                    .ipo = strcmp(ra_set_text(s, "invert_loss"), "ipo") == 0};
    ra_err err = ra_grid_make(world, (int32_t)ra_set_int(s, "grid.pipeline"), &run->grid);
    if (err == RA_OK) err = ra_comm_agree(world, open_all(run));
    if (err != RA_OK) ra_run_close(run);
    return err;
}

void ra_run_close(ra_run *run)
{
    ra_run_close_data(run);
    ra_modelfile_close(run->file);
    if (run->b) ra_backend_close(run->b);
    ra_timers_free(run->timers);
    ra_grid_free(&run->grid);
    memset(run, 0, sizeof *run);
}

ra_runctl ra_run_control(const ra_settings *s)
{
    const char *file = ra_set_text(s, "run.stop_file");
    return (ra_runctl){.wall_limit_s = ra_set_real(s, "run.wall_limit"),
                       .margin_s = ra_set_real(s, "run.stop_margin"),
                       .stop_file = *file ? file : NULL};
}

ra_loss_kind ra_run_kind(const ra_run *run, int64_t sample)
{
    switch (run->action[sample]) {
    case RA_ACTION_INVERT: return RA_LOSS_INVERT;
    case RA_ACTION_RETAIN: return RA_LOSS_RETAIN;
    case RA_ACTION_PUNISH: {
        ra_sample s = ra_store_get(run->store, sample);
        return s.response[RA_CORRECTION].count > 0 ? RA_LOSS_PUNISH_CORRECTED : RA_LOSS_PUNISH;
    }
    default: return RA_LOSS_PAIR;
    }
}

ra_err ra_run_lora(const ra_settings *s, ra_training training, ra_lora_config *out)
{
    *out = (ra_lora_config){0};
    if (training != RA_TRAIN_ADAPTER) return RA_OK;
    *out = (ra_lora_config){.rank = (int32_t)ra_set_int(s, "lora.rank"), .alpha = ra_set_real(s, "lora.alpha")};
    const char *const *names;
    int n = ra_set_list(s, "lora.targets", &names);
    for (int i = 0; i < n; i++) {
        int p = 0;
        while (p < RA_PROJECTIONS && strcmp(names[i], ra_projection_name[p]) != 0) p++;
        if (p == RA_PROJECTIONS) {
            return ra_fail(RA_ERR_ARG,
                           "lora.targets: \"%s\"; accepted: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
                           names[i]);
        }
        out->targets |= 1u << p;
    }
    return out->targets ? RA_OK : ra_fail(RA_ERR_ARG, "lora.targets: the list is empty");
}

/* The layers of this rank's stage, balanced for what this stage of the run does. */
static ra_err find_part(const ra_run *run, ra_training training, const ra_lora_config *lora, ra_part *part)
{
    ra_workload work = run->work;
    work.training = training;
    work.lora = *lora;
    ra_arch arch;
    RA_TRY(ra_arch_of(run->file, &arch));
    ra_err err = ra_grid_part(run->s, &run->grid, &arch, &work, part);
    ra_arch_free(&arch);
    return err;
}

ra_err ra_run_open_model(ra_run *run, ra_training training, ra_model **out)
{
    ra_lora_config lora;
    ra_part part;
    ra_err err = ra_run_lora(run->s, training, &lora);
    if (err == RA_OK) err = find_part(run, training, &lora, &part);
    if (err == RA_OK)
        err = ra_model_open(run->b, run->file, training, training == RA_TRAIN_ADAPTER ? &lora : NULL, run->positions, &part, out);
    if (err == RA_OK && ra_store_highest_token(run->store) >= (*out)->arch.vocabulary) {
        err = ra_fail(RA_ERR_DATA,
                      "%s/store.h5 holds token id %d, the model's vocabulary has %d: the store was made with another tokenizer",
                      run->dir, ra_store_highest_token(run->store), (*out)->arch.vocabulary);
    }
    err = ra_comm_agree(run->world, err);
    if (err != RA_OK) return err;
    if (training == RA_TRAIN_ADAPTER) ra_model_init_adapter(*out, (uint64_t)ra_set_int(run->s, "seed"));
    return RA_OK;
}

ra_err ra_stage_write_used(const ra_settings *s, const ra_comm *world)
{
    const char *dir = ra_set_text(s, "run.dir");
    ra_err err = RA_OK;
    if (world->rank == 0) {
        ra_buf text = {0};
        ra_settings_write_yaml(s, &text);
        err = ra_dir_try(dir);
        char *path = ra_path_join(dir, "used.yaml");
        if (err == RA_OK) err = ra_file_write(path, text.data, text.length);
        free(path);
        ra_buf_free(&text);
    }
    return ra_comm_agree(world, err);
}
