#include "memory.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const ra_memory_stage_name[RA_MEMORY_STAGES] = {"weigh", "train"};

void ra_pass_list_add(ra_pass_list *list, bool backward, bool contracts, int32_t count)
{
    if (count == 0) return;
    for (int32_t i = 0; i < list->n; i++) {
        const ra_pass_shape *p = &list->shape[i];
        if (p->backward == backward && p->contracts == contracts && p->count == count) return;
    }
    if (list->n == RA_PASS_LIST_MOST) return; /* the engine makes what it lacks when such a pass comes */
    list->shape[list->n++] = (ra_pass_shape){backward, contracts, count};
}

ra_training ra_memory_training(const ra_run *run, ra_memory_stage stage)
{
    const ra_settings *s = run->s;
    if (stage == RA_MEMORY_OF_TRAINING) return ra_set_bool(s, "lora.enabled") ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL;
    bool conflicts = run->count[RA_ACTION_INVERT] + run->count[RA_ACTION_PUNISH] > 0;
    if (!conflicts || !ra_set_bool(s, "weights.enabled")) return RA_FROZEN;
    return strcmp(ra_set_text(s, "weights.parameters"), "adapter") == 0 ? RA_TRAIN_ADAPTER : RA_TRAIN_FULL;
}

const char *ra_memory_adapter_key(ra_memory_stage stage)
{
    return stage == RA_MEMORY_OF_TRAINING ? "lora.enabled=true" : "weights.parameters=adapter";
}

/* Rows of the samples of all actions, and how many samples that are. */
static double mean_rows(const ra_run *run, bool retain, double *samples)
{
    double rows = 0.0;
    *samples = 0.0;
    for (int a = 0; a < RA_ACTIONS; a++) {
        if (a == RA_ACTION_RETAIN && !retain) continue;
        rows += run->action_rows[a];
        *samples += (double)run->count[a];
    }
    return rows / fmax(*samples, 1.0);
}

static void add_loads(const ra_run *run, ra_memory_stage stage, ra_plan_request *q)
{
    const ra_settings *s = run->s;
    double samples, rows;
    if (stage == RA_MEMORY_OF_TRAINING) {
        bool kl = ra_set_bool(s, "train.kl") && ra_set_real(s, "alpha_kl") > 0.0;
        rows = mean_rows(run, kl, &samples) * fmin((double)ra_set_int(s, "train.batch"), samples);
        q->load[q->loads++] = (ra_plan_load){.backward = true, .rows = rows, .minimum = (int32_t)ra_set_int(s, "pack.minimum")};
        return;
    }
    rows = mean_rows(run, false, &samples);
    if (q->keep) {
        q->load[q->loads++] = (ra_plan_load){.backward = true, .rows = rows * (double)ra_set_int(s, "gold.size"), .minimum = 1};
    }
    q->load[q->loads++] =
        (ra_plan_load){.backward = q->keep, .contracts = q->keep, .rows = rows * samples, .minimum = 1, .rounds = true};
    if (run->count[RA_ACTION_RETAIN] > 0)
        q->load[q->loads++] = (ra_plan_load){.rows = run->action_rows[RA_ACTION_RETAIN], .minimum = 1, .rounds = true};
}

ra_err ra_memory_request(const ra_run *run, ra_memory_stage stage, const ra_arch *arch, const ra_backend *types, int32_t ranks,
                         ra_plan_request *out)
{
    const ra_settings *s = run->s;
    bool weighing = stage == RA_MEMORY_OF_WEIGHING;
    *out = (ra_plan_request){.types = types,
                             .arch = arch,
                             .training = ra_memory_training(run, stage),
                             .work = run->work,
                             .longest = run->longest,
                             .positions = run->positions};
    out->keep = out->training != RA_FROZEN;
    out->needs = (ra_memory_needs){.updates = !weighing,
                                   .tangent = weighing && out->keep,
                                   .norms = weighing && out->keep && strcmp(ra_set_text(s, "weights.direction"), "cosine") == 0,
                                   .reference = !weighing && run->count[RA_ACTION_RETAIN] > 0};
    RA_TRY(ra_grid_layout_of(s, ranks, &out->layout));
    RA_TRY(ra_run_lora(s, RA_TRAIN_ADAPTER, &out->lora));
    add_loads(run, stage, out);
    return RA_OK;
}

size_t ra_memory_limit(const ra_settings *s, const ra_backend *b, const char **whose)
{
    int64_t set = ra_set_int(s, "grid.memory");
    *whose = set > 0 ? "grid.memory" : "the backend's memory";
    return set > 0 ? (size_t)set : b ? b->memory.capacity : 0;
}

static void list_kinds(const ra_memory_plan *plan, ra_buf *out)
{
    for (int k = 0; k < RA_MEMORY_KINDS; k++) {
        if ((double)plan->bytes[k] < 0.01 * (double)plan->total) continue;
        ra_buf_addf(out, "%s%s ", out->length ? ", " : "", ra_memory_kind_name[k]);
        ra_plan_write_bytes(out, (double)plan->bytes[k]);
    }
}

static ra_err refuse(const ra_run *run, ra_memory_stage stage, const ra_plan_request *q, const ra_memory_plan *plan, size_t limit,
                     const char *whose)
{
    ra_buf kinds = {0}, fits = {0}, need = {0}, have = {0};
    list_kinds(plan, &kinds);
    ra_plan_write_bytes(&need, (double)plan->total);
    ra_plan_write_bytes(&have, (double)limit);
    ra_plan_suggest(q, ra_memory_adapter_key(stage), limit, &fits);
    ra_err err = ra_fail(RA_ERR_DATA,
                         "%s: stage %d of %d would take %s a rank (%s), and %s allows %s; what would fit: %s; `realign plan` "
                         "shows the rest",
                         ra_memory_stage_name[stage], run->grid.stage, run->grid.stages, need.data, kinds.data, whose, have.data,
                         fits.data);
    ra_buf_free(&kinds);
    ra_buf_free(&fits);
    ra_buf_free(&need);
    ra_buf_free(&have);
    return err;
}

ra_err ra_memory_check(const ra_run *run, ra_memory_stage stage, const ra_pass_list *passes, ra_memory_plan *out)
{
    ra_arch arch;
    ra_plan_request q;
    RA_TRY(ra_arch_of(run->file, &arch));
    ra_err err = ra_memory_request(run, stage, &arch, run->b, run->world->size, &q);
    if (err == RA_OK) err = ra_plan_rank(&q, &run->grid, passes->shape, passes->n, out);
    const char *whose;
    size_t limit = ra_memory_limit(run->s, run->b, &whose);
    if (err == RA_OK && limit > 0 && out->total > limit) err = refuse(run, stage, &q, out, limit, whose);
    ra_arch_free(&arch);
    return err;
}

/* ---- afterwards ---- */

/* What a rank tells of itself: stage, total, peak, then the kinds. */
enum { STAGE, PLANNED, PEAK, KINDS, NUMBERS = KINDS + RA_MEMORY_KINDS };

static ra_err write_table(const ra_run *run, ra_memory_stage stage, const double *all)
{
    ra_buf text = {0};
    ra_buf_adds(&text, "rank\tstage\tplanned\tpeak");
    for (int k = 0; k < RA_MEMORY_KINDS; k++) ra_buf_addf(&text, "\t%s", ra_memory_kind_name[k]);
    ra_buf_adds(&text, "\n");
    for (int r = 0; r < run->world->size; r++) {
        ra_buf_addf(&text, "%d", r);
        for (int k = 0; k < NUMBERS; k++) ra_buf_addf(&text, "\t%.0f", all[r * NUMBERS + k]);
        ra_buf_adds(&text, "\n");
    }
    char *name = ra_format("memory-%s.tsv", ra_memory_stage_name[stage]), *path = ra_run_path(run, name);
    ra_err err = ra_file_write(path, text.data, text.length);
    free(name);
    free(path);
    ra_buf_free(&text);
    return err;
}

static void tell(const ra_run *run, ra_memory_stage stage, const double *all)
{
    double planned = 0.0, peak = 0.0, off = 0.0;
    for (int r = 0; r < run->world->size; r++) {
        const double *mine = &all[r * NUMBERS];
        planned = fmax(planned, mine[PLANNED]);
        peak = fmax(peak, mine[PEAK]);
        double d = mine[PEAK] > 0.0 ? 100.0 * (mine[PLANNED] / mine[PEAK] - 1.0) : 0.0;
        if (fabs(d) > fabs(off)) off = d;
    }
    if (run->world->rank != 0) return;
    ra_buf a = {0}, b = {0};
    ra_plan_write_bytes(&a, planned);
    ra_plan_write_bytes(&b, peak);
    ra_info("%s: backend memory of a rank %s planned, %s at its peak (%+.2f %%)", ra_memory_stage_name[stage], a.data, b.data,
            off);
    if (fabs(off) > 5.0)
        ra_warn("%s: the plan of memory is off by more than 5 %%: please report this", ra_memory_stage_name[stage]);
    ra_buf_free(&a);
    ra_buf_free(&b);
}

ra_err ra_memory_report(const ra_run *run, ra_memory_stage stage, const ra_memory_plan *own)
{
    const ra_comm *world = run->world;
    double *all = ra_calloc((size_t)world->size * NUMBERS, sizeof *all), *mine = &all[world->rank * NUMBERS];
    mine[STAGE] = run->grid.stage;
    mine[PLANNED] = (double)own->total;
    mine[PEAK] = (double)run->b->memory.peak;
    for (int k = 0; k < RA_MEMORY_KINDS; k++) mine[KINDS + k] = (double)own->bytes[k];
    ra_comm_sum_f64(world, all, (int64_t)world->size * NUMBERS);
    tell(run, stage, all);
    ra_err err = world->rank == 0 ? write_table(run, stage, all) : RA_OK;
    ra_free(all);
    return ra_comm_agree(world, err);
}
