/* The memory of weigh and train: planned before anything large is allocated, held against a limit, compared with what it came to. */
#ifndef RA_STAGE_MEMORY_H
#define RA_STAGE_MEMORY_H
#include "run_context.h"
#include <realign/plan.h>

typedef enum { RA_MEMORY_OF_WEIGHING, RA_MEMORY_OF_TRAINING, RA_MEMORY_STAGES } ra_memory_stage;
extern const char *const ra_memory_stage_name[RA_MEMORY_STAGES]; /* "weigh", "train" */

/* Kinds of passes, each once. */
enum { RA_PASS_LIST_MOST = 256 };
typedef struct {
    int32_t n;
    ra_pass_shape shape[RA_PASS_LIST_MOST];
} ra_pass_list;
/* What is there already, and a pass of no micro-batches, is not added. */
void ra_pass_list_add(ra_pass_list *list, bool backward, bool contracts, int32_t count);

/* What a stage of this run trains, or contracts the gradients of; RA_FROZEN where weighing has nothing to weigh. */
ra_training ra_memory_training(const ra_run *run, ra_memory_stage stage);
/* Not collective. What the stage asks of memory, from settings and data (ra_run_open_data, or what stands in for it). `arch` and `types` must outlive it. Errors name the key. */
ra_err ra_memory_request(const ra_run *run, ra_memory_stage stage, const ra_arch *arch, const ra_backend *types, int32_t ranks,
                         ra_plan_request *out);
/* The word that puts an adapter in place of all parameters. */
const char *ra_memory_adapter_key(ra_memory_stage stage);
/* grid.memory, or what the backend says there is; 0: no limit. *whose: the words that name it. */
size_t ra_memory_limit(const ra_settings *s, const ra_backend *b, const char **whose);

/* Not collective. This rank's plan. RA_ERR_DATA where it exceeds the limit: the message says what would fit. */
ra_err ra_memory_check(const ra_run *run, ra_memory_stage stage, const ra_pass_list *passes, ra_memory_plan *out);
/* Collective. Logs the largest planned and real peak over ranks and how far they are apart, a warning where that is more than 5 %; writes dir/memory-STAGE.tsv, a row a rank. */
ra_err ra_memory_report(const ra_run *run, ra_memory_stage stage, const ra_memory_plan *own);

#endif
