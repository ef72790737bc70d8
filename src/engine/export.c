/* What other programs load: a Hugging Face directory of the trained or merged model, or a PEFT adapter. Rank 0 writes, tensor by tensor, what the stages of its replica hold. */
#include "export_dir.h"
#include "export_stages.h"
#include "redistribute.h"

#include <realign/checkpoint.h>
#include <realign/file.h>
#include <realign/hfdir.h>
#include <realign/mem.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One adapted projection: names and places of its pair. */
typedef struct {
    const ra_param *a, *b; /* (rank, in), (out, rank) */
} pair;

typedef struct {
    ra_model *m;
    const ra_modelfile *file; /* the model training began with */
    const ra_layout *layout;  /* of what is written: all stages' tensors */
    const ra_layout *own;     /* this rank's among them */
    int32_t *own_index;       /* (layout's tensors) in `own`; -1: another stage has it */
    ra_export_kind kind;
    ra_dtype dtype;
    pair *merged; /* by tensor of this rank's base layout, where the kind is RA_EXPORT_MERGED; a = NULL: not adapted */
} export;

/* ---- values ---- */

/* Elements of a flat vector of R, as type `to`. */
static void read_flat(const ra_model *m, const void *flat, int64_t offset, int64_t count, ra_dtype to, void *out)
{
    ra_backend *b = m->b;
    const char *from = (const char *)flat + (size_t)offset * b->r_size;
    if (to == b->r) {
        b->ops->download(b, out, from, (size_t)count * b->r_size);
        return;
    }
    char *host = ra_alloc((size_t)count, b->r_size);
    b->ops->download(b, host, from, (size_t)count * b->r_size);
    ra_dtype_convert(to, out, b->r, host, count);
    ra_free(host);
}

/* w (rows, in) += (alpha / rank) B A, rows [first, first + rows) of the projection. */
static void add_delta(const ra_model *m, const pair *p, int64_t first, int64_t rows, double *w)
{
    int64_t rank = p->a->shape[0], in = p->a->shape[1];
    double scale = m->lora.alpha / (double)rank;
    double *a = ra_alloc((size_t)p->a->count, sizeof *a), *b = ra_alloc((size_t)(rows * rank), sizeof *b);
    read_flat(m, m->adapter_r, p->a->offset, p->a->count, RA_DTYPE_F64, a);
    read_flat(m, m->adapter_r, p->b->offset + first * rank, rows * rank, RA_DTYPE_F64, b);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < rank; k++) {
            double factor = scale * b[i * rank + k];
            for (int64_t j = 0; j < in; j++) w[i * in + j] += factor * a[k * in + j];
        }
    }
    ra_free(b);
    ra_free(a);
}

/* The masters where they were trained, else the file's own values: what a backend keeps of frozen matrices may be rounded. */
static ra_err read_own(const export *e, const ra_param *p, int64_t first, int64_t count, ra_dtype to, void *out)
{
    if (e->kind != RA_EXPORT_ADAPTER && e->m->training != RA_TRAIN_FULL) {
        return ra_modelfile_read(e->file, p->name, first, count, to, out);
    }
    const void *masters = e->kind == RA_EXPORT_ADAPTER ? e->m->adapter_r : e->m->w_r;
    read_flat(e->m, masters, p->offset + first, count, to, out);
    return RA_OK;
}

/* `number`: in the table of all stages' tensors. */
static ra_err read_tensor(const void *context, int number, int64_t first, int64_t count, void *out)
{
    const export *e = context;
    int32_t index = e->own_index[number];
    const ra_param *p = &e->own->param[index];
    if (!e->merged || !e->merged[index].a) return read_own(e, p, first, count, e->dtype, out);
    double *values = ra_alloc((size_t)count, sizeof *values);
    ra_err err = read_own(e, p, first, count, RA_DTYPE_F64, values);
    if (err == RA_OK) {
        add_delta(e->m, &e->merged[index], first / p->shape[1], count / p->shape[1], values);
        ra_dtype_convert(e->dtype, out, RA_DTYPE_F64, values, count);
    }
    ra_free(values);
    return err;
}

/* ---- the table of tensors ---- */

/* Which tensors are here; returns the stage of each. Collective over the pipeline. */
static int32_t *find_tensors(export *e, const ra_comm *pipeline)
{
    int32_t n = e->layout->count, *stage = ra_alloc((size_t)n, sizeof *stage);
    e->own_index = ra_alloc((size_t)n, sizeof *e->own_index);
    for (int32_t i = 0; i < n; i++) stage[i] = e->own_index[i] = -1;
    for (int32_t i = 0; i < e->own->count; i++) {
        const ra_param *p = &e->own->param[i];
        if (p->copy) continue; /* the first stage has it */
        e->own_index[p->number] = i;
        stage[p->number] = pipeline->rank;
    }
    RA_MPI(MPI_Allreduce(MPI_IN_PLACE, stage, n, MPI_INT32_T, MPI_MAX, pipeline->comm));
    return stage;
}

/* Finds the pair of every adapted tensor of the base. */
static pair *find_pairs(const ra_model *m)
{
    pair *pairs = ra_calloc((size_t)m->base.count, sizeof *pairs);
    for (int i = 0; i < m->adapter.count; i++) {
        const ra_param *p = &m->adapter.param[i];
        const char *end = strstr(p->name, ".lora_");
        char *base = ra_format("%.*s.weight", (int)(end - p->name), p->name);
        pair *hit = &pairs[ra_layout_find(&m->base, base)];
        if (strncmp(end, ".lora_A", 7) == 0) {
            hit->a = p;
        } else {
            hit->b = p;
        }
        free(base);
    }
    return pairs;
}

static ra_hf_tensor *make_table(const export *e)
{
    ra_hf_tensor *table = ra_calloc((size_t)e->layout->count, sizeof *table);
    const char *prefix = e->kind == RA_EXPORT_ADAPTER ? "base_model.model." : "";
    for (int i = 0; i < e->layout->count; i++) {
        const ra_param *p = &e->layout->param[i];
        table[i] = (ra_hf_tensor){.name = ra_format("%s%s", prefix, p->name),
                                  .dtype = e->dtype,
                                  .ndim = p->ndim,
                                  .shape = {p->shape[0], p->shape[1]},
                                  .elements = p->count};
    }
    return table;
}

/* ---- configuration ---- */

static ra_err write_adapter_config(const export *e, const char *source, const char *dir)
{
    json_t *targets = json_array();
    for (int i = 0; i < RA_PROJECTIONS; i++) {
        if (e->m->lora.targets >> i & 1) json_array_append_new(targets, json_string(ra_projection_name[i]));
    }
    double alpha = e->m->lora.alpha;
    json_t *alpha_json = alpha == (double)(int64_t)alpha ? json_integer((json_int_t)alpha) : json_real(alpha);
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:i, s:o, s:f, s:s, s:b, s:b, s:b, s:o, s:n, s:o, s:o}", "peft_type", "LORA", "task_type",
                  "CAUSAL_LM", "base_model_name_or_path", source, "r", (int)e->m->lora.rank, "lora_alpha", alpha_json,
                  "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0, "inference_mode", 1, "use_rslora", 0,
                  "target_modules", targets, "modules_to_save", "rank_pattern", json_object(), "alpha_pattern", json_object());
    ra_err err = config ? ra_hf_write_json(dir, "adapter_config.json", config)
                        : ra_fail(RA_ERR_DATA, "%s: adapter_config.json: the path \"%s\" is not UTF-8", dir, source);
    json_decref(config);
    return err;
}

static ra_err write_tokenizer(const export *e, const char *source, const char *dir)
{
    int copied = 0;
    if (ra_modelfile_gguf(e->file)) return ra_hf_gguf_tokenizer(e->file, dir);
    return ra_file_is_dir(source) ? ra_hf_copy_tokenizer(source, dir, &copied) : RA_OK;
}

static ra_err write_model(const export *e, const ra_hf_source *tensors, const char *source, int64_t shard_bytes, const char *dir)
{
    char *text;
    RA_TRY(ra_modelfile_config_json(e->file, &text));
    json_t *config = json_loads(text, 0, NULL); /* checked when the model was opened */
    free(text);
    if (!config) return ra_fail(RA_ERR_FORMAT, "%s: no configuration", source);
    ra_err err = write_tokenizer(e, source, dir);
    if (err == RA_OK) err = ra_hf_write_tensors(tensors, dir, "model", shard_bytes);
    if (err == RA_OK) err = ra_hf_write_generation_config(source, config, dir);
    if (err == RA_OK) err = ra_hf_write_config(tensors, config, dir);
    json_decref(config);
    return err;
}

static ra_err write_directory(const export *e, const ra_stages *stages, const char *source, int64_t shard_bytes, const char *dir)
{
    ra_hf_tensor *table = make_table(e);
    ra_hf_source tensors = {table, e->layout->count, ra_stages_read, stages};
    ra_err err;
    if (e->kind == RA_EXPORT_ADAPTER) {
        err = write_adapter_config(e, source, dir);
        if (err == RA_OK) err = ra_hf_write_tensors(&tensors, dir, "adapter_model", INT64_MAX); /* peft reads one file */
    } else {
        err = write_model(e, &tensors, source, shard_bytes, dir);
    }
    for (int i = 0; i < e->layout->count; i++) free(table[i].name);
    ra_free(table);
    return err;
}

/* On rank 0. */
static ra_err export_all(const export *e, const ra_stages *stages, const char *source, int64_t shard_bytes, const char *dir)
{
    bool adapted = e->m->adapter.size > 0;
    if (e->kind != RA_EXPORT_MODEL && !adapted) return ra_fail(RA_ERR_ARG, "%s: the model has no adapter to export", dir);
    char *name = ra_strdup(dir), *part = NULL;
    for (size_t n = strlen(name); n > 1 && name[n - 1] == '/'; n--) name[n - 1] = '\0'; /* dir.part stands beside, not inside */
    ra_err err = ra_export_dir_begin(name, &part);
    if (err == RA_OK) err = write_directory(e, stages, source, shard_bytes, part);
    err = ra_export_dir_end(name, part, err);
    free(name);
    return err;
}

/* On the ranks of rank 0's replica. */
static ra_err export_replica(const ra_comm *pipeline, export *e, const char *source, int64_t shard_bytes, const char *dir)
{
    ra_model *whole = ra_whole_network(e->m);
    e->layout = e->kind == RA_EXPORT_ADAPTER ? &whole->adapter : &whole->base;
    e->own = e->kind == RA_EXPORT_ADAPTER ? &e->m->adapter : &e->m->base;
    if (e->kind == RA_EXPORT_MERGED) e->merged = find_pairs(e->m);
    int32_t *stage = find_tensors(e, pipeline);
    ra_stages stages = {
        .pipeline = pipeline, .stage = stage, .read = read_tensor, .context = e, .element = ra_dtype_size(e->dtype)};
    ra_err err = RA_OK;
    if (pipeline->rank == 0) {
        err = export_all(e, &stages, source, shard_bytes, dir);
        ra_stages_end(&stages);
    } else {
        ra_stages_serve(&stages);
    }
    ra_free(stage);
    ra_free(e->own_index);
    ra_free(e->merged);
    ra_model_close(whole);
    return err;
}

ra_err ra_export(const ra_grid *grid, ra_model *m, const ra_modelfile *file, const char *source, ra_export_kind kind,
                 ra_dtype dtype, int64_t shard_bytes, const char *dir)
{
    ra_err err = RA_OK;
    export e = {.m = m, .file = file, .kind = kind, .dtype = dtype};
    /* a stage that chose by its own tensors may have chosen differently */
    ra_comm_bcast(&grid->world, &e.dtype, sizeof e.dtype, 0);
    if (grid->data.rank == 0) err = export_replica(&grid->pipeline, &e, source, shard_bytes, dir);
    return ra_comm_agree(&grid->world, err);
}
