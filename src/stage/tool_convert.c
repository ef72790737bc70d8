/* `realign convert`: reads tensors from a model (directory, safetensors, GGUF) or draws them, lays an adapter over them, and writes a Hugging Face
 * directory. Tensors stream through in pieces; config.json is written last, so that an interrupted conversion is no model. */
#include "convert.h"

#include <realign/file.h>
#include <realign/log.h>
#include <realign/mem.h>
#include <realign/tools.h>

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: realign convert IN OUT [options]                    IN: a model directory, a .safetensors or a .gguf file\n"
    "       realign convert --random config.json [IN] OUT       weights drawn from normal(0, initializer_range); IN: where "
    "tokenizer files are\n"
    "  --dtype f32|bf16|f16   type of every tensor; without it each keeps its own (--random: as config.json says) and quantised "
    "ones become f32\n"
    "  --adapter DIR          merges a PEFT LoRA adapter: W + alpha/r B A\n"
    "  --tokenizer DIR|none   tokenizer files from elsewhere, or none\n"
    "  --seed N               of --random (default 0)\n"
    "  --shard-size SIZE      splits larger models (default 4GiB); units B, KB, MB, GB, KiB, MiB, GiB\n"
    "  --overwrite            replaces the model files that OUT already holds\n";

typedef struct {
    const char *in, *out, *adapter, *tokenizer, *random;
    bool typed, overwrite;
    ra_dtype dtype;
    uint64_t seed;
    int64_t shard_bytes;
} options;

static ra_err parse_size(const char *text, int64_t *out)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}};
    char *end;
    double value = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (end == text || strcmp(end, units[i].unit) != 0) continue;
        value *= units[i].bytes;
        if (!(value >= 1.0 && value < 9e18)) break;
        *out = (int64_t)value;
        return RA_OK;
    }
    return ra_fail(RA_ERR_ARG, "--shard-size %s: a positive number with one of B, KB, MB, GB, KiB, MiB, GiB is needed", text);
}

static ra_err parse_dtype(const char *text, ra_dtype *out)
{
    static const struct {
        const char *name;
        ra_dtype dtype;
    } names[] = {{"f32", RA_DTYPE_F32}, {"bf16", RA_DTYPE_BF16}, {"f16", RA_DTYPE_F16}};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i].name) == 0) {
            *out = names[i].dtype;
            return RA_OK;
        }
    }
    return ra_fail(RA_ERR_ARG, "--dtype %s: one of f32, bf16, f16 is needed", text);
}

static ra_err parse_option(const char *name, const char *value, options *o)
{
    if (strcmp(name, "--dtype") == 0) {
        o->typed = true;
        return parse_dtype(value, &o->dtype);
    }
    if (strcmp(name, "--shard-size") == 0) return parse_size(value, &o->shard_bytes);
    if (strcmp(name, "--seed") == 0) {
        char *end;
        errno = 0;
        o->seed = strtoull(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || errno)
            return ra_fail(RA_ERR_ARG, "--seed %s: a non-negative integer is needed", value);
        return RA_OK;
    }
    if (strcmp(name, "--adapter") == 0) o->adapter = value;
    if (strcmp(name, "--tokenizer") == 0) o->tokenizer = value;
    if (strcmp(name, "--random") == 0) o->random = value;
    return RA_OK;
}

static ra_err parse(int argc, char **argv, options *o)
{
    static const char *const with_value[] = {"--dtype", "--shard-size", "--seed", "--adapter", "--tokenizer", "--random"};
    *o = (options){.dtype = RA_DTYPE_F32, .shard_bytes = (int64_t)4 << 30};
    const char *path[2] = {NULL, NULL};
    int paths = 0;
    for (int i = 0; i < argc; i++) {
        bool known = false;
        if (strcmp(argv[i], "--overwrite") == 0) {
            o->overwrite = known = true;
        }
        for (size_t k = 0; k < sizeof with_value / sizeof with_value[0] && !known; k++) {
            if (strcmp(argv[i], with_value[k]) != 0) continue;
            if (i + 1 == argc) return ra_fail(RA_ERR_ARG, "%s needs a value\n%s", argv[i], usage);
            RA_TRY(parse_option(argv[i], argv[i + 1], o));
            i++;
            known = true;
        }
        if (known) continue;
        if (argv[i][0] == '-' && argv[i][1]) return ra_fail(RA_ERR_ARG, "unknown option %s\n%s", argv[i], usage);
        if (paths == 2) return ra_fail(RA_ERR_ARG, "one path too many: %s\n%s", argv[i], usage);
        path[paths++] = argv[i];
    }
    if (paths != 2 && !(o->random && paths == 1)) return ra_fail(RA_ERR_ARG, "%s", usage);
    o->in = paths == 2 ? path[0] : NULL;
    o->out = path[paths - 1];
    if (o->random && o->adapter) return ra_fail(RA_ERR_ARG, "--adapter does not go with --random");
    return RA_OK;
}

/* Old model files in OUT would be mixed with the new ones, or be loaded instead of them. */
static ra_err clear_out(const options *o)
{
    RA_TRY(ra_dir_try(o->out));
    char *in_real = o->in ? realpath(o->in, NULL) : NULL, *out_real = realpath(o->out, NULL);
    bool same = in_real && out_real && strcmp(in_real, out_real) == 0;
    free(in_real);
    free(out_real);
    if (same) return ra_fail(RA_ERR_ARG, "%s: IN and OUT are the same directory", o->out);
    DIR *dir = opendir(o->out);
    if (!dir) return ra_fail(RA_ERR_IO, "%s: %s", o->out, strerror(errno));
    ra_err err = RA_OK;
    for (const struct dirent *entry; err == RA_OK && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strcmp(name, "model.safetensors") && strcmp(name, "model.safetensors.index.json") &&
            fnmatch("model-*-of-*.safetensors", name, 0) != 0) {
            continue;
        }
        char *path = ra_path_join(o->out, name);
        if (!o->overwrite) {
            err = ra_fail(RA_ERR_ARG, "%s is already there; name another directory, or give --overwrite", path);
        } else if (unlink(path) != 0) {
            err = ra_fail(RA_ERR_IO, "%s: cannot be removed: %s", path, strerror(errno));
        }
        free(path);
    }
    closedir(dir);
    return err;
}

/* ---- writing ---- */

static int64_t tensor_bytes(const ra_convert_tensor *t)
{
    return t->elements * (int64_t)ra_dtype_size(t->dtype);
}

/* One file with tensors [first, end). */
static ra_err write_file(const ra_convert_source *s, const char *path, int first, int end)
{
    enum { PIECE = 1 << 22 };
    ra_stwriter *w;
    RA_TRY(ra_stwriter_open(path, &w));
    ra_err err = RA_OK;
    for (int i = first; i < end && err == RA_OK; i++) {
        err = ra_stwriter_declare(w, s->tensor[i].name, s->tensor[i].dtype, s->tensor[i].ndim, s->tensor[i].shape);
    }
    void *piece = NULL;
    int64_t capacity = 0;
    for (int i = first; i < end && err == RA_OK; i++) {
        const ra_convert_tensor *t = &s->tensor[i];
        int64_t width = t->ndim > 1 && t->elements ? t->elements / t->shape[0] : 1;
        int64_t step = width < PIECE ? PIECE / width * width : width; /* whole rows */
        if (step > t->elements) step = t->elements;
        if (step * 8 > capacity) {
            ra_free(piece);
            capacity = step * 8;
            piece = ra_alloc((size_t)capacity, 1);
        }
        int64_t done = 0;
        do {
            int64_t count = t->elements - done < step ? t->elements - done : step;
            err = ra_convert_read(s, i, done, count, piece);
            if (err == RA_OK) err = ra_stwriter_put_part(w, t->name, t->dtype, piece, count);
            done += count;
        } while (err == RA_OK && done < t->elements);
        ra_progress(i + 1 == s->count, "convert: %d of %d tensors", i + 1, s->count);
    }
    ra_free(piece);
    if (err == RA_OK) return ra_stwriter_finish(w);
    ra_stwriter_abort(w);
    return err;
}

/* The end of the shard that begins at `first`: at least one tensor, no more bytes than asked for otherwise. */
static int shard_end(const ra_convert_source *s, int first, int64_t limit)
{
    int64_t bytes = tensor_bytes(&s->tensor[first]);
    int end = first + 1;
    while (end < s->count && bytes + tensor_bytes(&s->tensor[end]) <= limit) bytes += tensor_bytes(&s->tensor[end++]);
    return end;
}

static ra_err write_tensors(const ra_convert_source *s, const char *out, int64_t limit)
{
    int shards = 0;
    for (int i = 0; i < s->count; i = shard_end(s, i, limit)) shards++;
    if (shards == 1) {
        char *path = ra_path_join(out, "model.safetensors");
        ra_err err = write_file(s, path, 0, s->count);
        free(path);
        return err;
    }
    json_t *weight_map = json_object();
    int64_t total = 0;
    ra_err err = RA_OK;
    for (int k = 0, first = 0; k < shards && err == RA_OK; k++) {
        int end = shard_end(s, first, limit);
        char *name = ra_format("model-%05d-of-%05d.safetensors", k + 1, shards), *path = ra_path_join(out, name);
        err = write_file(s, path, first, end);
        for (; first < end; first++) {
            total += tensor_bytes(&s->tensor[first]);
            json_object_set_new(weight_map, s->tensor[first].name, json_string(name));
        }
        free(name);
        free(path);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", weight_map);
    if (err == RA_OK) err = ra_convert_write_json(out, "model.safetensors.index.json", index);
    json_decref(index);
    return err;
}

ra_err ra_convert_write_json(const char *dir, const char *name, const json_t *value)
{
    char *path = ra_path_join(dir, name), *text = json_dumps(value, JSON_INDENT(2));
    ra_err err = RA_OK;
    if (!text) {
        err = ra_fail(RA_ERR_FORMAT, "%s: a value cannot be written as JSON", path);
    } else {
        ra_buf line = {0};
        ra_buf_adds(&line, text);
        ra_buf_adds(&line, "\n");
        err = ra_file_write(path, line.data, line.length);
        ra_buf_free(&line);
    }
    free(text);
    free(path);
    return err;
}

/* ---- configuration and tokenizer ---- */

/* The type of most elements, as transformers names it. */
static const char *main_dtype(const ra_convert_source *s)
{
    static const char *const names[] = {
        [RA_DTYPE_F64] = "float64", [RA_DTYPE_F32] = "float32", [RA_DTYPE_F16] = "float16", [RA_DTYPE_BF16] = "bfloat16"};
    int64_t elements[4] = {0};
    for (int i = 0; i < s->count; i++) elements[s->tensor[i].dtype] += s->tensor[i].elements;
    int best = RA_DTYPE_F32;
    for (int d = 0; d < 4; d++) {
        if (elements[d] > elements[best]) best = d;
    }
    return names[best];
}

/* Of random weights: what config.json says, float32 where it says nothing. */
static ra_dtype config_dtype(const json_t *config)
{
    const json_t *value = json_object_get(config, "dtype");
    const char *name = json_string_value(value ? value : json_object_get(config, "torch_dtype"));
    if (name && strcmp(name, "bfloat16") == 0) return RA_DTYPE_BF16;
    return name && strcmp(name, "float16") == 0 ? RA_DTYPE_F16 : RA_DTYPE_F32;
}

static ra_err load_json(const char *path, json_t **out)
{
    json_error_t where;
    *out = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!*out) return ra_fail(RA_ERR_FORMAT, "%s:%d: %s", path, where.line, where.text);
    if (json_is_object(*out)) return RA_OK;
    json_decref(*out);
    *out = NULL;
    return ra_fail(RA_ERR_FORMAT, "%s: not a JSON object", path);
}

static ra_err load_config(const ra_convert_source *s, json_t **out)
{
    char *text;
    RA_TRY(ra_modelfile_config_json(s->model, &text));
    *out = json_loads(text, 0, NULL); /* checked by the reader */
    free(text);
    return *out ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s: no configuration", ra_modelfile_path(s->model));
}

/* The model's own file where it has one, else the special tokens of its configuration. */
static ra_err write_generation_config(const options *o, const json_t *config)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    if (o->in && ra_file_is_dir(o->in)) {
        char *from = ra_path_join(o->in, "generation_config.json"), *to = ra_path_join(o->out, "generation_config.json");
        bool there = ra_file_exists(from);
        ra_err err = there ? ra_file_copy(from, to) : RA_OK;
        free(from);
        free(to);
        if (there) return err;
    }
    json_t *generation = json_pack("{s:b}", "_from_model_config", 1);
    for (int i = 0; i < 3; i++) {
        json_t *value = json_object_get(config, keys[i]);
        if (value && !json_is_null(value)) json_object_set(generation, keys[i], value);
    }
    ra_err err = ra_convert_write_json(o->out, "generation_config.json", generation);
    json_decref(generation);
    return err;
}

static ra_err write_tokenizer(const options *o, const ra_convert_source *s)
{
    int copied = 0;
    if (o->tokenizer) {
        if (strcmp(o->tokenizer, "none") == 0) return RA_OK;
        RA_TRY(ra_convert_copy_tokenizer(o->tokenizer, o->out, &copied));
        return copied ? RA_OK : ra_fail(RA_ERR_DATA, "%s: no tokenizer files in this directory", o->tokenizer);
    }
    if (s->model && ra_modelfile_gguf(s->model)) return ra_convert_gguf_tokenizer(s->model, o->out);
    if (!o->in) return RA_OK;
    if (!ra_file_is_dir(o->in)) {
        ra_info("convert: %s is a file, not a directory; no tokenizer files were written", o->in);
        return RA_OK;
    }
    RA_TRY(ra_convert_copy_tokenizer(o->in, o->out, &copied));
    if (!copied) ra_info("convert: %s has no tokenizer files; none were copied", o->in);
    return RA_OK;
}

static ra_err convert(const options *o, ra_convert_source *s, json_t **config)
{
    if (o->random) {
        RA_TRY(load_json(o->random, config));
        RA_TRY(ra_convert_from_config(o->random, *config, o->typed ? o->dtype : config_dtype(*config), o->seed, s));
    } else {
        RA_TRY(ra_convert_from_model(o->in, !o->typed, o->dtype, s));
        RA_TRY(load_config(s, config));
    }
    if (o->adapter) RA_TRY(ra_convert_add_adapter(s, o->adapter));
    RA_TRY(clear_out(o));
    RA_TRY(write_tokenizer(o, s)); /* before the long part: it may be refused */
    RA_TRY(write_tensors(s, o->out, o->shard_bytes));
    const char *key = json_object_get(*config, "dtype") ? "dtype" : "torch_dtype"; /* newer and older transformers */
    json_object_set_new(*config, key, json_string(main_dtype(s)));
    RA_TRY(write_generation_config(o, *config));
    RA_TRY(ra_convert_write_json(o->out, "config.json", *config));
    int64_t elements = 0;
    for (int i = 0; i < s->count; i++) elements += s->tensor[i].elements;
    ra_info("convert: %s: %d tensors, %.3f million parameters, %s", o->out, s->count, 1e-6 * (double)elements, main_dtype(s));
    return RA_OK;
}

ra_err ra_tool_convert(int argc, char **argv)
{
    options o;
    RA_TRY(parse(argc, argv, &o));
    ra_convert_source source = {0};
    json_t *config = NULL;
    ra_err err = convert(&o, &source, &config);
    json_decref(config);
    ra_convert_source_free(&source);
    return err;
}
