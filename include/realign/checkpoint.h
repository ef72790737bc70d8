/* Checkpoints: one HDF5 file of the training state in one logical namespace, readable by any layout of ranks over data and pipeline. All functions are collective over grid->world.
 * dir/step-00000100.h5 holds /master, /adam_m, /adam_v in R as (size / 16, 16) rows of the canonical flat vector (ra_layout of the trainable parameters of the whole network: the
 * adapter's alone where only an adapter trains), the table of logical tensors (/tensor/name, /tensor/offset, /tensor/shape), the members of ra_train_state as
 * attributes, and /provenance. Nothing in it says which rank held what. Written as .part, flushed, re-opened and verified, renamed; then `latest` (a text file with the name) is
 * replaced, and only then are older files removed. */
#ifndef REALIGN_CHECKPOINT_H
#define REALIGN_CHECKPOINT_H
#include <realign/engine.h>

typedef struct {
    int64_t step, epoch, next; /* steps done; epoch and position in its order of the next batch */
    double best;               /* best validation value so far, this state's included; NaN: none */
    uint64_t key;              /* hash of what must agree to resume: data, weights, settings that change the result */
} ra_train_state;

typedef struct {
    const char *dir; /* checkpoints/ of the run */
    int keep;        /* last k files stay; 0: all */
    bool keep_best;  /* a state whose `best` is not best.h5's becomes best.h5, a hard link that stays whatever `keep` says */
    const char *used_yaml;
} ra_checkpoint_policy;

/* Needs host memory for one vector's even share (size / ranks) where this rank's own part of it does not lie in host memory as it is; none where there is one stage. On failure (RA_ERR_IO: no space, an unwritable directory) the files from before stay. */
ra_err ra_checkpoint_write(const ra_grid *grid, const ra_checkpoint_policy *policy, ra_model *m, ra_optimiser *o,
                           const ra_train_state *state);
/* The newest good checkpoint of `dir`, loaded into model and optimiser, each byte read once by one rank; *found = false where there is none. One that cannot be read on
 * every rank or fails its checksums is reported (ra_warn) and the one before is tried, best.h5 last. RA_ERR_ARG where it is another run's (its key is not `key`, other tensors,
 * another precision); RA_ERR_FORMAT or RA_ERR_IO where there are checkpoints and none is good: model and optimiser are then undefined. */
ra_err ra_checkpoint_load(const ra_grid *grid, const char *dir, uint64_t key, ra_model *m, ra_optimiser *o, ra_train_state *state,
                          bool *found);

/* ---- results: what other programs load ---- */
typedef enum { RA_EXPORT_MODEL, RA_EXPORT_ADAPTER, RA_EXPORT_MERGED } ra_export_kind;
/* Writes `dir`: a Hugging Face directory (config.json, safetensors in shards of at most shard_bytes, tokenizer files and generation_config copied from source, or made from the
 * GGUF's metadata) or a PEFT adapter (adapter_config.json, adapter_model.safetensors, base_model_name_or_path = source). RA_EXPORT_MERGED: W + (alpha / rank) B A, summed in
 * double. Rank 0 writes, tensor by tensor, and asks the stages of its replica for theirs piece by piece: the bytes are the same on any layout. `file`: what the model was opened from;
 * `dtype`: rank 0's counts. The directory appears whole or not at all (dir.part, then rename); it takes the place of an
 * earlier export, and RA_ERR_ARG refuses one that holds anything else. */
ra_err ra_export(const ra_grid *grid, ra_model *m, const ra_modelfile *file, const char *source, ra_export_kind kind,
                 ra_dtype dtype, int64_t shard_bytes, const char *dir);

#endif
