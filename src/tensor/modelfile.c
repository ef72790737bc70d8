#define _GNU_SOURCE /* qsort_r */
#include "stored.h"

#include <realign/log.h>
#include <realign/mem.h>

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct ra_modelfile {
    char *path, *config_path; /* config_path: NULL where no config.json belongs to it */
    ra_map *map;              /* one a file */
    int maps;
    ra_stored_list tensors;
    int *by_name; /* the tensors' indices in ascending order of their names */
    ra_gguf *gguf;
    float *rope_factors;
    int64_t n_rope_factors;
};

static ra_err map_file(ra_modelfile *file, const char *path, const ra_map **map)
{
    struct stat info; /* looked at before opening: opening a named pipe would wait for its writer */
    if (stat(path, &info) != 0) return ra_fail(RA_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return ra_fail(RA_ERR_IO, "%s: not a regular file", path);
    ra_map opened;
    RA_TRY(ra_map_open(path, &opened));
    file->map = ra_realloc(file->map, (size_t)file->maps + 1, sizeof *file->map);
    file->map[file->maps] = opened;
    *map = &file->map[file->maps++];
    return RA_OK;
}

static ra_err open_gguf(ra_modelfile *file, const char *path, const ra_map *map)
{
    RA_TRY(ra_gguf_parse(path, map, &file->gguf, &file->tensors));
    RA_TRY(ra_gguf_translate(file->gguf, &file->tensors, &file->rope_factors, &file->n_rope_factors));
    return ra_stored_check(&file->tensors, path, map->data, map->size, false); /* translated names must differ as well */
}

static ra_err open_content(ra_modelfile *file, const char *path, const ra_map *map)
{
    if (map->size >= 4 && memcmp(map->data, "GGUF", 4) == 0) return open_gguf(file, path, map);
    return ra_safetensors_parse(path, map, &file->tensors);
}

static ra_err open_file(ra_modelfile *file, const char *path)
{
    const ra_map *map;
    RA_TRY(map_file(file, path, &map));
    return open_content(file, path, map);
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* One shard: the tensors the index places here move to the file's list. `names` (n), sorted, are those; `index` is for messages. */
static ra_err open_shard(ra_modelfile *file, const char *index, const char *path, const char **names, int n)
{
    if (!ra_file_exists(path)) {
        return ra_fail(RA_ERR_IO, "%s: the shard is missing; %s places tensor %s and %d more in it", path, index, names[0],
                       n - 1);
    }
    const ra_map *map;
    ra_stored_list found = {0};
    RA_TRY(map_file(file, path, &map));
    ra_err err = ra_safetensors_parse(path, map, &found);
    char *seen = ra_calloc((size_t)n, 1);
    int extra = 0;
    const char *first_extra = NULL;
    for (int i = 0; i < found.count && err == RA_OK; i++) {
        const char **hit = bsearch(&found.item[i].info.name, names, (size_t)n, sizeof *names, compare_text);
        if (hit) {
            seen[hit - names] = 1;
            ra_stored_move(&file->tensors, &found.item[i]);
        } else if (extra++ == 0) {
            first_extra = found.item[i].info.name;
        }
    }
    for (int i = 0; i < n && err == RA_OK; i++) {
        if (!seen[i]) {
            err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s is not in this shard, but %s places it here", path, names[i], index);
        }
    }
    if (err == RA_OK && extra)
        ra_warn("%s: %d tensors are not in %s and are left out, the first is %s", path, extra, index, first_extra);
    ra_free(seen);
    ra_stored_free(&found);
    return err;
}

static ra_err open_shards(ra_modelfile *file, const char *dir, const char *index, const json_t *weight_map)
{
    int n = (int)json_object_size(weight_map), total = 0;
    const char **shards = ra_alloc((size_t)n + 1, sizeof *shards), **names = ra_alloc((size_t)n + 1, sizeof *names);
    const char *name;
    json_t *value;
    ra_err err = n ? RA_OK : ra_fail(RA_ERR_FORMAT, "%s: weight_map is empty", index);
    json_object_foreach((json_t *)(uintptr_t)weight_map, name, value)
    {
        const char *shard = json_string_value(value);
        if (err == RA_OK && (!shard || !*shard || strchr(shard, '/') || strcmp(shard, "..") == 0)) {
            err =
                ra_fail(RA_ERR_FORMAT, "%s: tensor %s: its shard must be the name of a file in the same directory", index, name);
        }
        shards[total++] = shard;
    }
    if (err == RA_OK) qsort(shards, (size_t)n, sizeof *shards, compare_text);
    for (int s = 0; s < n && err == RA_OK; s++) {
        if (s > 0 && strcmp(shards[s], shards[s - 1]) == 0) continue;
        int here = 0;
        json_object_foreach((json_t *)(uintptr_t)weight_map, name, value)
        {
            if (strcmp(json_string_value(value), shards[s]) == 0) names[here++] = name;
        }
        qsort(names, (size_t)here, sizeof *names, compare_text);
        char *path = ra_path_join(dir, shards[s]);
        err = open_shard(file, index, path, names, here);
        free(path);
    }
    ra_free(shards);
    ra_free(names);
    return err;
}

static ra_err open_index(ra_modelfile *file, const char *dir, const char *path)
{
    ra_buf text = {0};
    json_error_t where;
    RA_TRY(ra_file_read(path, &text));
    json_t *root = json_loadb(text.data ? text.data : "", text.length, JSON_REJECT_DUPLICATES, &where);
    ra_buf_free(&text);
    if (!root) return ra_fail(RA_ERR_FORMAT, "%s:%d: not valid JSON: %s", path, where.line, where.text);
    const json_t *weight_map = json_object_get(root, "weight_map");
    ra_err err = json_is_object(weight_map) ? open_shards(file, dir, path, weight_map)
                                            : ra_fail(RA_ERR_FORMAT, "%s: it has no object weight_map", path);
    json_decref(root);
    return err;
}

/* model.safetensors wins over an index, as in transformers. */
static ra_err open_directory(ra_modelfile *file, const char *dir)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"};
    file->config_path = ra_path_join(dir, "config.json");
    for (int i = 0; i < 3; i++) {
        char *path = ra_path_join(dir, names[i]);
        bool there = ra_file_exists(path);
        ra_err err = !there ? RA_OK : i == 1 ? open_index(file, dir, path) : open_file(file, path);
        free(path);
        if (there) return err;
    }
    return ra_fail(RA_ERR_IO,
                   "%s: no model.safetensors, model.safetensors.index.json or adapter_model.safetensors in this directory", dir);
}

static int compare_items(const void *a, const void *b, void *items)
{
    const ra_stored *item = items;
    return strcmp(item[*(const int *)a].info.name, item[*(const int *)b].info.name);
}

static void sort_names(ra_modelfile *file)
{
    file->by_name = ra_alloc((size_t)file->tensors.count + 1, sizeof *file->by_name);
    for (int i = 0; i < file->tensors.count; i++) file->by_name[i] = i;
    qsort_r(file->by_name, (size_t)file->tensors.count, sizeof *file->by_name, compare_items, file->tensors.item);
}

static ra_err open_anything(const char *path, const ra_map *bytes, ra_modelfile **out)
{
    ra_modelfile *file = ra_calloc(1, sizeof *file);
    file->path = ra_strdup(path);
    ra_err err = bytes                  ? open_content(file, path, bytes)
                 : ra_file_is_dir(path) ? open_directory(file, path)
                                        : open_file(file, path);
    if (err != RA_OK) {
        ra_modelfile_close(file);
        return err;
    }
    sort_names(file);
    *out = file;
    return RA_OK;
}

ra_err ra_modelfile_open(const char *path, ra_modelfile **out)
{
    return open_anything(path, NULL, out);
}

ra_err ra_modelfile_open_bytes(const char *path, const ra_map *bytes, ra_modelfile **out)
{
    return open_anything(path, bytes, out);
}

void ra_modelfile_release_pages(const ra_modelfile *file)
{
    for (int i = 0; i < file->maps; i++) ra_map_release_pages(&file->map[i]);
}

void ra_modelfile_close(ra_modelfile *file)
{
    if (!file) return;
    ra_gguf_free(file->gguf);
    ra_stored_free(&file->tensors);
    for (int i = 0; i < file->maps; i++) ra_map_close(&file->map[i]);
    free(file->map);
    free(file->rope_factors);
    ra_free(file->by_name);
    free(file->path);
    free(file->config_path);
    ra_free(file);
}

const char *ra_modelfile_path(const ra_modelfile *file)
{
    return file->path;
}

int64_t ra_modelfile_bytes(const ra_modelfile *file)
{
    int64_t bytes = 0;
    for (int i = 0; i < file->maps; i++) bytes += (int64_t)file->map[i].size;
    return bytes;
}

ra_err ra_modelfile_hash(const ra_modelfile *file, ra_hash *out)
{
    char *config = NULL;
    RA_TRY(ra_modelfile_config_json(file, &config));
    ra_hasher *h = ra_hasher_new();
    ra_hasher_add(h, config, strlen(config) + 1);
    for (int i = 0; i < file->maps; i++) {
        uint64_t size = file->map[i].size;
        ra_hasher_add(h, &size, sizeof size);
        ra_hasher_add(h, file->map[i].data, file->map[i].size);
        ra_map_release_pages(&file->map[i]);
    }
    free(config);
    *out = ra_hasher_end(h);
    return RA_OK;
}

int ra_modelfile_count(const ra_modelfile *file)
{
    return file->tensors.count;
}

const ra_tensor_info *ra_modelfile_info(const ra_modelfile *file, int index)
{
    return &file->tensors.item[index].info;
}

int ra_modelfile_find(const ra_modelfile *file, const char *name)
{
    int low = 0, high = file->tensors.count;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(file->tensors.item[file->by_name[middle]].info.name, name);
        if (order == 0) return file->by_name[middle];
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}

const ra_gguf *ra_modelfile_gguf(const ra_modelfile *file)
{
    return file->gguf;
}

ra_err ra_modelfile_config_json(const ra_modelfile *file, char **json)
{
    if (file->gguf) return ra_gguf_config(file->gguf, &file->tensors, file->rope_factors, file->n_rope_factors, json);
    if (!file->config_path)
        return ra_fail(RA_ERR_ARG, "%s: a safetensors file alone has no config.json; give its directory", file->path);
    ra_buf text = {0};
    RA_TRY(ra_file_read(file->config_path, &text));
    json_error_t where;
    json_t *root = json_loadb(text.data ? text.data : "", text.length, JSON_REJECT_DUPLICATES, &where);
    ra_err err = RA_OK;
    if (!root) {
        err = ra_fail(RA_ERR_FORMAT, "%s:%d: not valid JSON: %s", file->config_path, where.line, where.text);
    } else if (!json_is_object(root)) {
        err = ra_fail(RA_ERR_FORMAT, "%s: not a JSON object", file->config_path);
    }
    json_decref(root);
    if (err == RA_OK) {
        *json = text.data;
    } else {
        ra_buf_free(&text);
    }
    return err;
}

/* ---- reading ---- */

/* Row r of Hugging Face's order (j * half + i within its head) lies at stored row 2i + j. */
static int64_t stored_row(const ra_stored *t, int64_t row)
{
    if (!t->rope_heads) return row;
    int64_t size = t->info.shape[0] / t->rope_heads, half = size / 2, within = row % size;
    return row - within + within % half * 2 + within / half;
}

/* `count` elements that are contiguous in the file too. */
static void read_span(const ra_stored *t, int64_t first, int64_t count, ra_dtype to, void *out)
{
    if (t->offset == 0.0f) {
        ra_encoding_decode(t->encoding, t->data, first, count, to, out);
        return;
    }
    enum { PIECE = 1024 };
    float piece[PIECE];
    for (int64_t done = 0; done < count; done += PIECE) {
        int64_t n = count - done < PIECE ? count - done : PIECE;
        ra_encoding_decode(t->encoding, t->data, first + done, n, RA_DTYPE_F32, piece);
        for (int64_t i = 0; i < n; i++) piece[i] += t->offset;
        ra_dtype_convert(to, (uint8_t *)out + (size_t)done * ra_dtype_size(to), RA_DTYPE_F32, piece, n);
    }
}

ra_err ra_modelfile_read(const ra_modelfile *file, const char *name, int64_t first, int64_t count, ra_dtype to, void *out)
{
    int index = ra_modelfile_find(file, name);
    if (index < 0) return ra_fail(RA_ERR_FORMAT, "%s: there is no tensor %s", file->path, name);
    const ra_stored *t = &file->tensors.item[index];
    if (first < 0 || count < 0 || first > t->info.elements || count > t->info.elements - first) {
        return ra_fail(RA_ERR_ARG, "%s: tensor %s: elements %lld to %lld asked for, it has %lld", file->path, name,
                       (long long)first, (long long)(first + count), (long long)t->info.elements);
    }
    if (t->encoding->plain < 0 && !t->encoding->decode) {
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: tensor %s: values of type %s cannot be read as weights", file->path, name,
                       t->encoding->name);
    }
    if (count == 0) return RA_OK;
    /* Spans: whole rows where rows are permuted, else pieces of whole blocks. */
    enum { PIECE = 256 * RA_BLOCK_MAX };
    int64_t width = t->rope_heads ? t->info.elements / t->info.shape[0] : PIECE;
    int64_t begin = first / width, end = (first + count - 1) / width + 1;
    size_t size = ra_dtype_size(to);
#pragma omp parallel for schedule(static) if (count > 4 * PIECE)
    for (int64_t row = begin; row < end; row++) {
        int64_t low = row * width > first ? row * width : first;
        int64_t high = (row + 1) * width < first + count ? (row + 1) * width : first + count;
        read_span(t, low + (stored_row(t, row) - row) * width, high - low, to, (uint8_t *)out + (size_t)(low - first) * size);
    }
    return RA_OK;
}
