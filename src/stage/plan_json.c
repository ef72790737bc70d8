/* A plan for programs. */
#include "plan_view.h"

#include <realign/file.h>
#include <realign/mem.h>

#include <jansson.h>
#include <stdlib.h>

static json_t *data_of(const ra_plan_view *v)
{
    static const char *const name[RA_ACTIONS] = {"invert", "punish", "retain", "pairs"};
    const ra_run *r = &v->run;
    json_t *data = json_pack("{s:b, s:f, s:f, s:f, s:i, s:i}", "prepared", v->prepared, "context", r->work.context, "head_share",
                             r->work.head_share, "kl_share", r->work.kl_share, "pack_rows", r->rows, "positions", r->positions);
    json_object_set_new(data, "assumed", v->guess ? json_string(v->guess) : json_null());
    for (int a = 0; a < RA_ACTIONS && v->prepared; a++) json_object_set_new(data, name[a], json_integer(r->count[a]));
    return data;
}

static json_t *split_of(const ra_plan_stage *p)
{
    const ra_split *s = &p->plan.split;
    json_t *list = json_array();
    for (int32_t i = 0; i < s->stages; i++) {
        json_array_append_new(list,
                              json_pack("{s:i, s:i, s:i, s:I, s:I, s:f}", "rank", i % p->plan.stages, "first", s->begin[i],
                                        "layers", s->begin[i + 1] - s->begin[i], "parameters", (json_int_t)s->cost[i].parameters,
                                        "trainable", (json_int_t)s->cost[i].trainable, "flops_a_row", ra_cost_work(&s->cost[i])));
    }
    return list;
}

static json_t *memory_of(const ra_plan *p)
{
    json_t *list = json_array();
    for (int32_t s = 0; s < p->stages; s++) {
        const ra_memory_plan *m = &p->stage[s];
        json_t *row = json_pack("{s:i, s:i, s:I}", "stage", s, "held", m->slots, "total", (json_int_t)m->total);
        for (int k = 0; k < RA_MEMORY_KINDS; k++)
            json_object_set_new(row, ra_memory_kind_name[k], json_integer((json_int_t)m->bytes[k]));
        json_array_append_new(list, row);
    }
    return list;
}

static json_t *stage_of(const ra_plan_view *v, ra_memory_stage which)
{
    static const char *const trained[] = {"nothing", "all", "adapter"};
    const ra_plan_stage *p = &v->stage[which];
    return json_pack("{s:s, s:o, s:f, s:{s:s, s:i, s:f, s:f}, s:{s:f, s:f, s:f}, s:o, s:i, s:b}", "trains",
                     trained[p->request.training], "split", split_of(p), "imbalance", ra_split_imbalance(&p->plan.split),
                     "schedule", "kind", ra_pipeline_kind_name[p->kind], "micro_batches", p->micro_batches, "bubble", p->bubble,
                     "bubble_even", p->theory, "work", "rows", p->rows, "flops", p->flops, "flops_with_recomputation", p->work,
                     "memory", memory_of(&p->plan), "fullest", p->plan.fullest, "fits", ra_plan_view_fits(v, which));
}

ra_err ra_plan_view_json(const ra_plan_view *v, const char *path)
{
    const ra_grid_layout *l = &v->stage[0].request.layout;
    json_t *root =
        json_pack("{s:s, s:I, s:{s:s, s:s}, s:{s:i, s:i, s:i, s:i}, s:I, s:o, s:o, s:o}", "model", ra_set_text(v->s, "model"),
                  "parameters", (json_int_t)ra_arch_parameters(&v->arch), "backend", "name", v->types.name, "precision",
                  v->types.precision, "grid", "ranks", l->ranks, "data", l->ranks / l->stages, "pipeline", l->stages, "chunks",
                  l->chunks, "limit", (json_int_t)v->limit, "data", data_of(v), ra_memory_stage_name[0], stage_of(v, 0),
                  ra_memory_stage_name[1], stage_of(v, 1));
    if (v->prepared)
        json_object_set_new(root, "epoch",
                            json_pack("{s:f, s:f, s:f}", "rows", v->rows, "steps", v->steps, "flops", v->epoch_flops));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text) return ra_fail(RA_ERR_FORMAT, "%s: the plan cannot be written as JSON", path);
    ra_buf line = {0};
    ra_buf_addf(&line, "%s\n", text);
    ra_err err = ra_file_write(path, line.data, line.length);
    ra_buf_free(&line);
    free(text);
    return err;
}
