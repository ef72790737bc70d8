/* safetensors: 8 bytes little-endian header length n, n bytes of JSON, then the tensors' bytes without holes.
 * {"name": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}, ..., "__metadata__": {...}} */
#include "stored.h"

#include <jansson.h>
#include <string.h>

static ra_err parse_tensor(const char *path, const char *name, const json_t *entry, const uint8_t *base, uint64_t size,
                           ra_stored_list *out)
{
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !json_is_integer(json_array_get(offsets, 0)) || !json_is_integer(json_array_get(offsets, 1))) {
        return ra_fail(
            RA_ERR_FORMAT,
            "%s: tensor %s: its header entry must be {\"dtype\": text, \"shape\": [..], \"data_offsets\": [begin, end]}", path,
            name);
    }
    const ra_encoding *encoding = ra_encoding_of_safetensors(json_string_value(dtype));
    if (!encoding) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: unknown dtype \"%s\"; readable are F64, F32, F16 and BF16", path, name,
                       json_string_value(dtype));
    }
    size_t ndim = json_array_size(shape);
    int64_t sizes[4];
    if (ndim > 4) return ra_fail(RA_ERR_UNSUPPORTED, "%s: tensor %s: %zu dimensions, at most 4 can be held", path, name, ndim);
    for (size_t d = 0; d < ndim; d++) {
        const json_t *one = json_array_get(shape, d);
        if (!json_is_integer(one) || json_integer_value(one) < 0) {
            return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: shape[%zu] is not a non-negative integer", path, name, d);
        }
        sizes[d] = json_integer_value(one);
    }
    ra_stored *t = ra_stored_add(out, name, strlen(name));
    if (!ra_stored_shape(t, encoding, (int)ndim, sizes)) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: the number of elements overflows", path, name);
    }
    int64_t begin = json_integer_value(json_array_get(offsets, 0)), end = json_integer_value(json_array_get(offsets, 1));
    if (begin < 0 || end < begin) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: data_offsets [%lld, %lld] are not a range", path, name, (long long)begin,
                       (long long)end);
    }
    if ((uint64_t)end > size) {
        return ra_fail(RA_ERR_FORMAT,
                       "%s: tensor %s: its data ends at byte %lld, but only %llu bytes follow the header; the file is truncated "
                       "or its offsets are wrong",
                       path, name, (long long)end, (unsigned long long)size);
    }
    if ((uint64_t)(end - begin) != t->bytes) {
        char text[96];
        ra_shape_text(&t->info, text);
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %s: %lld bytes of data, but %s %s takes %llu", path, name,
                       (long long)(end - begin), encoding->name, text, (unsigned long long)t->bytes);
    }
    t->data = base + begin;
    return RA_OK;
}

ra_err ra_safetensors_parse(const char *path, const ra_map *map, ra_stored_list *out)
{
    uint64_t length = 0;
    if (map->size < 8) {
        return ra_fail(RA_ERR_FORMAT, "%s: %zu bytes, too short for a safetensors file", path, map->size);
    }
    memcpy(&length, map->data, 8);
    if (length > map->size - 8) {
        return ra_fail(
            RA_ERR_FORMAT,
            "%s: the header is said to take %llu bytes, but the file has %zu; truncated, or neither safetensors nor GGUF", path,
            (unsigned long long)length, map->size);
    }
    json_error_t where;
    json_t *header = json_loadb((const char *)map->data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &where);
    if (!header) {
        return ra_fail(RA_ERR_FORMAT, "%s: the header is not valid JSON at byte %d: %s", path, where.position + 8, where.text);
    }
    ra_err err = RA_OK;
    if (!json_is_object(header)) err = ra_fail(RA_ERR_FORMAT, "%s: the header is not a JSON object", path);
    const uint8_t *base = map->data + 8 + length;
    uint64_t size = map->size - 8 - length;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (err != RA_OK) break;
        if (strcmp(name, "__metadata__") != 0) err = parse_tensor(path, name, entry, base, size, out);
    }
    if (err == RA_OK) err = ra_stored_check(out, path, base, size, true);
    json_decref(header);
    return err;
}
