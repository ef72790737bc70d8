/* The checkpoint directory: names, order, what stays and what goes. Nothing here is collective: rank 0 looks after the directory. */
#ifndef REALIGN_ENGINE_CHECKPOINT_FILES_H
#define REALIGN_ENGINE_CHECKPOINT_FILES_H
#include <realign/checkpoint.h>

/* dir/step-00000100.h5 and dir/best.h5; free with free. */
char *ra_checkpoint_path(const char *dir, int64_t step);
char *ra_checkpoint_best_path(const char *dir);
/* Steps of the checkpoints in `dir`, newest first; none where there is no such directory. Free *steps with free. */
ra_err ra_checkpoint_list(const char *dir, int64_t **steps, int64_t *n);
/* Makes the directory and removes what killed writes left: *.part. */
ra_err ra_checkpoint_prepare(const char *dir);
/* The checkpoint of `step` is complete: best.h5 and `latest` follow it, then those older than the last `keep` go. A file that cannot be removed is a warning. */
ra_err ra_checkpoint_settle(const ra_checkpoint_policy *policy, const ra_train_state *state);

#endif
