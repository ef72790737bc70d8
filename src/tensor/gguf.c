/* GGUF v2 and v3: "GGUF", u32 version, u64 tensors, u64 pairs, the pairs (key, type, value), the tensor table, padding to the alignment, data.
 * Everything is little-endian; a string is a u64 length and bytes. Every length is checked against what is left before it is used. */
#include "stored.h"

#include <realign/mem.h>
#include <stdlib.h>
#include <string.h>

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, KINDS };

static const int kind_bytes[KINDS] = {
    [U8] = 1, [I8] = 1, [U16] = 2, [I16] = 2, [U32] = 4, [I32] = 4, [F32] = 4, [BOOL] = 1, [U64] = 8, [I64] = 8, [F64] = 8};

typedef struct {
    ra_str key;
    uint32_t kind; /* of the value; of its elements where `array` */
    bool array;
    uint64_t count;      /* elements of an array, 1 otherwise */
    const uint8_t *data; /* first byte of the value (after an array's type and length) */
} pair;

struct ra_gguf {
    char *path;
    uint32_t version;
    uint64_t alignment;
    pair *pairs;
    int64_t count;
};

typedef struct {
    const uint8_t *p;
    uint64_t left;
} cursor;

static bool take(cursor *c, void *out, uint64_t n)
{
    if (c->left < n) return false;
    if (out && n) memcpy(out, c->p, n);
    c->p += n;
    c->left -= n;
    return true;
}

static bool take_string(cursor *c, ra_str *out)
{
    uint64_t length;
    if (!take(c, &length, 8) || length > c->left) return false;
    *out = (ra_str){(const char *)c->p, length};
    return take(c, NULL, length);
}

/* Passes over one value. Arrays of arrays exist in the format; `depth` bounds them. */
static bool pass_value(cursor *c, uint32_t kind, int depth)
{
    if (kind >= KINDS) return false;
    ra_str text;
    if (kind == STRING) return take_string(c, &text);
    if (kind != ARRAY) return take(c, NULL, (uint64_t)kind_bytes[kind]);
    uint32_t inner;
    uint64_t n;
    if (depth == 0 || !take(c, &inner, 4) || !take(c, &n, 8) || inner >= KINDS || n > c->left) return false;
    if (inner != STRING && inner != ARRAY) {
        return n <= c->left / (uint64_t)kind_bytes[inner] && take(c, NULL, n * (uint64_t)kind_bytes[inner]);
    }
    for (uint64_t i = 0; i < n; i++) {
        if (!pass_value(c, inner, depth - 1)) return false;
    }
    return true;
}

static ra_err parse_pair(const char *path, cursor *c, int64_t index, pair *out)
{
    uint32_t kind;
    if (!take_string(c, &out->key) || memchr(out->key.data, 0, out->key.length) || !take(c, &kind, 4)) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata entry %lld: its key is cut off or broken; the file is truncated or damaged",
                       path, (long long)index);
    }
    cursor value = *c;
    if (!pass_value(c, kind, 4)) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata %.*s: its value (type %u) does not fit the file or is of an unknown type",
                       path, (int)(out->key.length < 200 ? out->key.length : 200), out->key.data, kind);
    }
    out->array = kind == ARRAY;
    out->kind = kind;
    out->count = 1;
    if (out->array) {
        take(&value, &out->kind, 4);
        take(&value, &out->count, 8);
    }
    out->data = value.p;
    return RA_OK;
}

static int by_key(const void *a, const void *b)
{
    const ra_str x = ((const pair *)a)->key, y = ((const pair *)b)->key;
    int order = memcmp(x.data, y.data, x.length < y.length ? x.length : y.length);
    return order ? order : (x.length > y.length) - (x.length < y.length);
}

static ra_err parse_metadata(const char *path, cursor *c, uint64_t count, ra_gguf *g)
{
    if (count > c->left / 13) { /* key length, type, one byte */
        return ra_fail(RA_ERR_FORMAT, "%s: %llu metadata entries cannot fit the file", path, (unsigned long long)count);
    }
    g->pairs = ra_calloc(count, sizeof *g->pairs);
    g->count = (int64_t)count;
    for (int64_t i = 0; i < g->count; i++) RA_TRY(parse_pair(path, c, i, &g->pairs[i]));
    qsort(g->pairs, (size_t)g->count, sizeof *g->pairs, by_key);
    for (int64_t i = 1; i < g->count; i++) {
        if (by_key(&g->pairs[i - 1], &g->pairs[i]) == 0) {
            return ra_fail(RA_ERR_FORMAT, "%s: metadata %.*s occurs twice", path,
                           (int)(g->pairs[i].key.length < 200 ? g->pairs[i].key.length : 200), g->pairs[i].key.data);
        }
    }
    int64_t alignment = 32;
    bool given = ra_gguf_i64(g, "general.alignment", &alignment);
    if (given && (alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0)) {
        return ra_fail(RA_ERR_FORMAT, "%s: metadata general.alignment is %lld, it must be a power of two up to 2^20", path,
                       (long long)alignment);
    }
    g->alignment = (uint64_t)alignment;
    return RA_OK;
}

/* One row of the tensor table. `data` is left as an offset: where the data begins is known only after the table. */
static ra_err parse_tensor(const char *path, cursor *c, int64_t index, ra_stored_list *out, uint64_t *offset)
{
    ra_str name;
    uint32_t ndim, type;
    int64_t sizes[4], shape[4];
    if (!take_string(c, &name) || name.length == 0 || memchr(name.data, 0, name.length)) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %lld: its name is cut off, empty or broken; the file is truncated or damaged",
                       path, (long long)index);
    }
    int shown = (int)(name.length < 200 ? name.length : 200);
    if (!take(c, &ndim, 4) || ndim > 4 || !take(c, sizes, 8u * ndim) || !take(c, &type, 4) || !take(c, offset, 8)) {
        return ra_fail(RA_ERR_FORMAT, "%s: tensor %.*s: its table row is cut off or has more than 4 dimensions", path, shown,
                       name.data);
    }
    const ra_encoding *encoding = ra_encoding_of_ggml(type);
    if (!encoding) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "%s: tensor %.*s: ggml type %u is not supported; readable are F32, F16, BF16, F64, "
                       "Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K",
                       path, shown, name.data, type);
    }
    for (uint32_t d = 0; d < ndim; d++) shape[d] = sizes[ndim - 1 - d]; /* ggml counts from the innermost */
    ra_stored *t = ra_stored_add(out, name.data, name.length);
    if (!ra_stored_shape(t, encoding, (int)ndim, shape)) {
        return ra_fail(RA_ERR_FORMAT,
                       "%s: tensor %s: its shape is negative or overflows, or its rows are no whole blocks of %d %s", path,
                       t->info.name, encoding->block, encoding->name);
    }
    return RA_OK;
}

static ra_err parse_tensors(const char *path, cursor *c, uint64_t count, const ra_map *map, const ra_gguf *g, ra_stored_list *out)
{
    if (count > c->left / 25 || count > 1 << 24) { /* name of one byte, dimensions, type, offset */
        return ra_fail(RA_ERR_FORMAT, "%s: %llu tensors cannot fit the file", path, (unsigned long long)count);
    }
    uint64_t *offset = ra_calloc(count, sizeof *offset);
    ra_err err = RA_OK;
    for (int64_t i = 0; i < (int64_t)count && err == RA_OK; i++) err = parse_tensor(path, c, i, out, &offset[i]);
    uint64_t begin = (map->size - c->left + g->alignment - 1) / g->alignment * g->alignment;
    uint64_t size = begin < map->size ? map->size - begin : 0;
    const uint8_t *base = map->data + (begin < map->size ? begin : map->size);
    for (int i = 0; i < (int)count && err == RA_OK; i++) {
        ra_stored *t = &out->item[i];
        if (offset[i] % g->alignment != 0) {
            err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s: offset %llu is no multiple of the alignment, %llu", path, t->info.name,
                          (unsigned long long)offset[i], (unsigned long long)g->alignment);
        } else if (offset[i] > size || t->bytes > size - offset[i]) {
            err = ra_fail(
                RA_ERR_FORMAT,
                "%s: tensor %s: %llu bytes at offset %llu, but the data has %llu bytes; the file is truncated or damaged", path,
                t->info.name, (unsigned long long)t->bytes, (unsigned long long)offset[i], (unsigned long long)size);
        }
        t->data = err == RA_OK ? base + offset[i] : NULL;
    }
    ra_free(offset);
    return err == RA_OK ? ra_stored_check(out, path, base, size, false) : err;
}

ra_err ra_gguf_parse(const char *path, const ra_map *map, ra_gguf **gguf, ra_stored_list *out)
{
    cursor c = {map->data, map->size};
    char magic[4];
    uint32_t version = 0;
    uint64_t tensors, pairs;
    if (!take(&c, magic, 4) || memcmp(magic, "GGUF", 4) != 0 || !take(&c, &version, 4)) {
        return ra_fail(RA_ERR_FORMAT, "%s: not a GGUF file", path);
    }
    if (version != 2 && version != 3) {
        bool swapped = version == 2u << 24 || version == 3u << 24;
        return ra_fail(RA_ERR_UNSUPPORTED, "%s: GGUF %s %u; versions 2 and 3, little-endian, can be read", path,
                       swapped ? "big-endian, version" : "version", swapped ? version >> 24 : version);
    }
    if (!take(&c, &tensors, 8) || !take(&c, &pairs, 8)) return ra_fail(RA_ERR_FORMAT, "%s: truncated in the GGUF header", path);
    ra_gguf *g = ra_calloc(1, sizeof *g);
    g->path = ra_strdup(path);
    g->version = version;
    ra_err err = parse_metadata(path, &c, pairs, g);
    if (err == RA_OK) err = parse_tensors(path, &c, tensors, map, g, out);
    if (err != RA_OK) {
        ra_gguf_free(g);
        return err;
    }
    *gguf = g;
    return RA_OK;
}

void ra_gguf_free(ra_gguf *g)
{
    if (!g) return;
    free(g->path);
    ra_free(g->pairs);
    ra_free(g);
}

const char *ra_gguf_path(const ra_gguf *g)
{
    return g->path;
}

static const pair *find(const ra_gguf *g, const char *key)
{
    pair wanted = {.key = {key, strlen(key)}};
    return g->count ? bsearch(&wanted, g->pairs, (size_t)g->count, sizeof *g->pairs, by_key) : NULL;
}

static bool integer_at(uint32_t kind, const uint8_t *p, int64_t *out)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } value;
    if (kind >= KINDS || kind_bytes[kind] == 0) return false;
    memcpy(&value, p, (size_t)kind_bytes[kind]);
    switch (kind) {
    case U8: *out = value.u8; return true;
    case BOOL: *out = value.u8 != 0; return true;
    case I8: *out = value.i8; return true;
    case U16: *out = value.u16; return true;
    case I16: *out = value.i16; return true;
    case U32: *out = value.u32; return true;
    case I32: *out = value.i32; return true;
    case I64: *out = value.i64; return true;
    case U64: *out = (int64_t)value.u64; return value.u64 <= INT64_MAX;
    default: return false;
    }
}

static bool real_at(uint32_t kind, const uint8_t *p, double *out)
{
    float single;
    int64_t integer;
    switch (kind) {
    case F32:
        memcpy(&single, p, 4);
        *out = (double)single;
        return true;
    case F64: memcpy(out, p, 8); return true;
    default:
        if (!integer_at(kind, p, &integer)) return false;
        *out = (double)integer;
        return true;
    }
}

bool ra_gguf_text(const ra_gguf *g, const char *key, ra_str *out)
{
    const pair *found = find(g, key);
    if (!found || found->array || found->kind != STRING) return false;
    uint64_t length;
    memcpy(&length, found->data, 8);
    *out = (ra_str){(const char *)found->data + 8, length};
    return true;
}

bool ra_gguf_i64(const ra_gguf *g, const char *key, int64_t *out)
{
    const pair *found = find(g, key);
    return found && !found->array && integer_at(found->kind, found->data, out);
}

bool ra_gguf_f64(const ra_gguf *g, const char *key, double *out)
{
    const pair *found = find(g, key);
    return found && !found->array && real_at(found->kind, found->data, out);
}

bool ra_gguf_count(const ra_gguf *g, const char *key, int64_t *n)
{
    const pair *found = find(g, key);
    if (!found || !found->array) return false;
    *n = (int64_t)found->count;
    return true;
}

bool ra_gguf_text_array(const ra_gguf *g, const char *key, ra_str **out, int64_t *n)
{
    const pair *found = find(g, key);
    if (!found || !found->array || found->kind != STRING) return false;
    const uint8_t *p = found->data; /* checked when the file was opened */
    *out = ra_realloc(NULL, found->count, sizeof **out);
    *n = (int64_t)found->count;
    for (int64_t i = 0; i < *n; i++) {
        uint64_t length;
        memcpy(&length, p, 8);
        (*out)[i] = (ra_str){(const char *)p + 8, length};
        p += 8 + length;
    }
    return true;
}

bool ra_gguf_i64_array(const ra_gguf *g, const char *key, int64_t **out, int64_t *n)
{
    const pair *found = find(g, key);
    if (!found || !found->array || found->kind >= KINDS) return false;
    int64_t *values = ra_realloc(NULL, found->count, sizeof *values);
    for (uint64_t i = 0; i < found->count; i++) {
        if (!integer_at(found->kind, found->data + i * (uint64_t)kind_bytes[found->kind], &values[i])) {
            free(values);
            return false;
        }
    }
    *out = values;
    *n = (int64_t)found->count;
    return true;
}

bool ra_gguf_f64_array(const ra_gguf *g, const char *key, double **out, int64_t *n)
{
    const pair *found = find(g, key);
    if (!found || !found->array || found->kind >= KINDS) return false;
    double *values = ra_realloc(NULL, found->count, sizeof *values);
    for (uint64_t i = 0; i < found->count; i++) {
        if (!real_at(found->kind, found->data + i * (uint64_t)kind_bytes[found->kind], &values[i])) {
            free(values);
            return false;
        }
    }
    *out = values;
    *n = (int64_t)found->count;
    return true;
}
