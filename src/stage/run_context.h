/* What weigh and train share: the backend, the model's files, the sample store and the action of every sample. */
#ifndef RA_RUN_CONTEXT_H
#define RA_RUN_CONTEXT_H
#include "triage.h"

#include <realign/engine.h>
#include <realign/runctl.h>
#include <realign/settings.h>

/* Beside the actions of triage: a plain pair, for method dpo. */
enum { RA_ACTION_PAIR = RA_ACTION_RETAIN + 1, RA_ACTIONS };

typedef struct {
    const ra_settings *s;
    const ra_comm *world;
    const char *dir;
    ra_grid grid;
    ra_backend *b;
    ra_modelfile *file;
    ra_engine_config engine; /* rows and keep are the stage's */
    ra_workload work;        /* what a pass over the samples does, but for what is trained: how layers are balanced */
    ra_store *store;         /* shows the corrections that may be used (corrections.h) */
    ra_timers *timers;
    ra_objective objective;
    int64_t n;                      /* samples of the store */
    int8_t *action;                 /* (n) */
    int64_t count[RA_ACTIONS];      /* samples by action */
    int64_t corrected;              /* Punish samples that eq. 2c takes */
    int32_t positions;              /* longest prompt + response */
    int32_t longest;                /* rows a pack must have for the longest sample, and for any gold pair */
    int32_t rows;                   /* of a pack: pack.tokens, or `longest` where that is more */
    double action_rows[RA_ACTIONS]; /* rows of all samples by action */
    uint64_t key;                   /* hash of store, corrections, triage and model files */
} ra_run;

/* Collective. Opens everything; with method dpo every usable sample is a pair and triage is not needed. Errors are the same on all ranks. */
ra_err ra_run_open(const ra_settings *s, const ra_comm *world, ra_run *run);
void ra_run_close(ra_run *run);
/* Not collective. What is known of the data: store, actions, counts, sizes. Uses s and dir alone; of a run that was zeroed otherwise, ra_run_close_data frees it. `guess`, for plans
 * (NULL: none): what is not there yet is made up, and *guess says so in words, static; NULL where all is there: samples take turns in the three sets where there is no triage. */
ra_err ra_run_open_data(ra_run *run, const char **guess);
void ra_run_close_data(ra_run *run);
/* Of `packs` packs, those of this rank's replica: they are dealt in turn. */
int32_t ra_run_packs(const ra_run *run, int32_t packs);
/* When this run stops: run.wall_limit, run.stop_margin, run.stop_file. */
ra_runctl ra_run_control(const ra_settings *s);
/* Not collective. action [out] (samples of the store): that of dir/triage.h5, RA_ACTION_NONE for samples that are unusable or held out. *triage_key: what triage was made from; free with free. */
ra_err ra_run_read_actions(const ra_settings *s, const char *dir, const ra_store *store, int8_t *action, char **triage_key);
/* The loss of a sample: by action, and eq. 2c where a Punish pair has a correction. */
ra_loss_kind ra_run_kind(const ra_run *run, int64_t sample);
/* lora.*, where training is RA_TRAIN_ADAPTER; else no adapter. Errors name the key. */
ra_err ra_run_lora(const ra_settings *s, ra_training training, ra_lora_config *out);
/* Opens this rank's part of the model; the adapter, where lora.enabled or training is RA_TRAIN_ADAPTER, begins from the run's seed. Collective in its errors. */
ra_err ra_run_open_model(ra_run *run, ra_training training, ra_model **out);
/* dir/name, free with free. */
char *ra_run_path(const ra_run *run, const char *name);

#endif
