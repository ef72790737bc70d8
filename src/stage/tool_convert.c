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

static ra_err write_tokenizer(const options *o, const ra_convert_source *s)
{
    int copied = 0;
    if (o->tokenizer) {
        if (strcmp(o->tokenizer, "none") == 0) return RA_OK;
        RA_TRY(ra_hf_copy_tokenizer(o->tokenizer, o->out, &copied));
        return copied ? RA_OK : ra_fail(RA_ERR_DATA, "%s: no tokenizer files in this directory", o->tokenizer);
    }
    if (s->model && ra_modelfile_gguf(s->model)) return ra_hf_gguf_tokenizer(s->model, o->out);
    if (!o->in) return RA_OK;
    if (!ra_file_is_dir(o->in)) {
        ra_info("convert: %s is a file, not a directory; no tokenizer files were written", o->in);
        return RA_OK;
    }
    RA_TRY(ra_hf_copy_tokenizer(o->in, o->out, &copied));
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
    ra_hf_source tensors = {s->tensor, s->count, ra_convert_read, s};
    RA_TRY(ra_hf_write_tensors(&tensors, o->out, "model", o->shard_bytes));
    RA_TRY(ra_hf_write_generation_config(o->in, *config, o->out));
    RA_TRY(ra_hf_write_config(&tensors, *config, o->out));
    int64_t elements = 0;
    for (int i = 0; i < s->count; i++) elements += s->tensor[i].elements;
    ra_info("convert: %s: %d tensors, %.3f million parameters, %s", o->out, s->count, 1e-6 * (double)elements,
            ra_hf_main_dtype(&tensors));
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
