#include <realign/file.h>
#include <realign/hfdir.h>
#include <realign/log.h>
#include <realign/mem.h>

#include <stdlib.h>
#include <string.h>

static int64_t tensor_bytes(const ra_hf_tensor *t)
{
    return t->elements * (int64_t)ra_dtype_size(t->dtype);
}

/* One file with tensors [first, end). */
static ra_err write_file(const ra_hf_source *s, const char *path, int first, int end)
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
        const ra_hf_tensor *t = &s->tensor[i];
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
            err = s->read(s->context, i, done, count, piece);
            if (err == RA_OK) err = ra_stwriter_put_part(w, t->name, t->dtype, piece, count);
            done += count;
        } while (err == RA_OK && done < t->elements);
        ra_progress(i + 1 == s->count, "%d of %d tensors written", i + 1, s->count);
    }
    ra_free(piece);
    if (err == RA_OK) return ra_stwriter_finish(w);
    ra_stwriter_abort(w);
    return err;
}

/* The end of the shard that begins at `first`: at least one tensor, no more bytes than asked for otherwise. */
static int shard_end(const ra_hf_source *s, int first, int64_t limit)
{
    int64_t bytes = tensor_bytes(&s->tensor[first]);
    int end = first + 1;
    while (end < s->count && bytes + tensor_bytes(&s->tensor[end]) <= limit) bytes += tensor_bytes(&s->tensor[end++]);
    return end;
}

ra_err ra_hf_write_tensors(const ra_hf_source *s, const char *dir, const char *stem, int64_t shard_bytes)
{
    int shards = 0;
    for (int i = 0; i < s->count; i = shard_end(s, i, shard_bytes)) shards++;
    if (shards == 1) {
        char *name = ra_format("%s.safetensors", stem), *path = ra_path_join(dir, name);
        ra_err err = write_file(s, path, 0, s->count);
        free(name);
        free(path);
        return err;
    }
    json_t *weight_map = json_object();
    int64_t total = 0;
    ra_err err = RA_OK;
    for (int k = 0, first = 0; k < shards && err == RA_OK; k++) {
        int end = shard_end(s, first, shard_bytes);
        char *name = ra_format("%s-%05d-of-%05d.safetensors", stem, k + 1, shards), *path = ra_path_join(dir, name);
        err = write_file(s, path, first, end);
        for (; first < end; first++) {
            total += tensor_bytes(&s->tensor[first]);
            json_object_set_new(weight_map, s->tensor[first].name, json_string(name));
        }
        free(name);
        free(path);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", weight_map);
    char *name = ra_format("%s.safetensors.index.json", stem);
    if (err == RA_OK) err = ra_hf_write_json(dir, name, index);
    free(name);
    json_decref(index);
    return err;
}

ra_err ra_hf_write_json(const char *dir, const char *name, const json_t *value)
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

/* The type of most elements, as transformers names it. */
const char *ra_hf_main_dtype(const ra_hf_source *s)
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

ra_err ra_hf_write_config(const ra_hf_source *s, json_t *config, const char *dir)
{
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";
    json_object_set_new(config, key, json_string(ra_hf_main_dtype(s)));
    return ra_hf_write_json(dir, "config.json", config);
}

ra_err ra_hf_write_generation_config(const char *from_dir, const json_t *config, const char *dir)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    if (from_dir && ra_file_is_dir(from_dir)) {
        char *from = ra_path_join(from_dir, "generation_config.json"), *to = ra_path_join(dir, "generation_config.json");
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
    ra_err err = ra_hf_write_json(dir, "generation_config.json", generation);
    json_decref(generation);
    return err;
}
