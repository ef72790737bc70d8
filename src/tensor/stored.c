#include "stored.h"

#include <realign/mem.h>
#include <stdio.h>
#include <stdlib.h>

static ra_stored *grow(ra_stored_list *list)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->item = ra_realloc(list->item, (size_t)list->capacity, sizeof *list->item);
    }
    return &list->item[list->count++];
}

ra_stored *ra_stored_add(ra_stored_list *list, const char *name, size_t length)
{
    ra_stored *t = grow(list);
    *t = (ra_stored){.info.name = ra_strndup(name, length), .name_in_file = ra_strndup(name, length)};
    return t;
}

void ra_stored_move(ra_stored_list *to, ra_stored *from)
{
    *grow(to) = *from;
    from->info.name = from->name_in_file = NULL;
}

void ra_stored_free(ra_stored_list *list)
{
    for (int i = 0; i < list->count; i++) {
        free((char *)(uintptr_t)list->item[i].info.name);
        free((char *)(uintptr_t)list->item[i].name_in_file);
    }
    free(list->item);
    *list = (ra_stored_list){0};
}

bool ra_stored_shape(ra_stored *t, const ra_encoding *encoding, int ndim, const int64_t *shape)
{
    int64_t elements = 1, bytes;
    for (int d = 0; d < ndim; d++) {
        if (shape[d] < 0 || __builtin_mul_overflow(elements, shape[d], &elements)) return false;
        t->info.shape[d] = shape[d];
    }
    int64_t row = ndim > 0 ? shape[ndim - 1] : 1;
    if (row % encoding->block != 0) return false;
    if (__builtin_mul_overflow(elements / encoding->block, (int64_t)encoding->bytes, &bytes)) return false;
    t->info.ndim = ndim;
    t->info.elements = elements;
    t->info.stored = encoding->name;
    t->encoding = encoding;
    t->bytes = (uint64_t)bytes;
    return true;
}

void ra_shape_text(const ra_tensor_info *info, char text[96])
{
    int n = snprintf(text, 96, "(");
    for (int d = 0; d < info->ndim; d++) {
        n += snprintf(text + n, (size_t)(96 - n), "%s%lld", d ? ", " : "", (long long)info->shape[d]);
    }
    snprintf(text + n, (size_t)(96 - n), ")");
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(ra_stored *const *)a)->info.name, (*(ra_stored *const *)b)->info.name);
}

/* Ascending begin; empty tensors before the others that begin there. */
static int by_place(const void *a, const void *b)
{
    const ra_stored *x = *(ra_stored *const *)a, *y = *(ra_stored *const *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

ra_err ra_stored_check(const ra_stored_list *list, const char *path, const uint8_t *base, uint64_t size, bool packed)
{
    ra_err err = RA_OK;
    const ra_stored **order = ra_alloc((size_t)list->count + 1, sizeof *order);
    for (int i = 0; i < list->count; i++) order[i] = &list->item[i];
    qsort(order, (size_t)list->count, sizeof *order, by_name);
    for (int i = 1; i < list->count && err == RA_OK; i++) {
        if (strcmp(order[i - 1]->info.name, order[i]->info.name) == 0) {
            err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s: the name occurs twice", path, order[i]->info.name);
        }
    }
    qsort(order, (size_t)list->count, sizeof *order, by_place);
    uint64_t end = 0;
    for (int i = 0; i < list->count && err == RA_OK; i++) {
        uint64_t begin = (uint64_t)(order[i]->data - base);
        if (begin < end) {
            err = ra_fail(RA_ERR_FORMAT, "%s: tensor %s begins at byte %llu and overlaps tensor %s, which ends at %llu", path,
                          order[i]->info.name, (unsigned long long)begin, order[i - 1]->info.name, (unsigned long long)end);
        } else if (packed && begin > end) {
            err =
                ra_fail(RA_ERR_FORMAT, "%s: tensor %s begins at byte %llu after a hole of %llu bytes; tensors must be contiguous",
                        path, order[i]->info.name, (unsigned long long)begin, (unsigned long long)(begin - end));
        }
        end = begin + order[i]->bytes;
    }
    if (err == RA_OK && packed && end != size) {
        err = ra_fail(RA_ERR_FORMAT, "%s: %llu bytes follow the last tensor%s%s; they belong to none", path,
                      (unsigned long long)(size - end), list->count ? ", " : "",
                      list->count ? order[list->count - 1]->info.name : "");
    }
    ra_free(order);
    return err;
}
