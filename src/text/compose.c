#include "compose.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { CLASSES = 256 };

static uint8_t class_of(int32_t c)
{
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

static void reserve(ra_compose_work *w, size_t count)
{
    if (count <= w->capacity) return;
    w->capacity = count + count / 2 + 64;
    w->code = ra_realloc(w->code, w->capacity, sizeof *w->code);
}

/* Counting sort, stable; `sorted` has room for n. */
static void sort_marks(int32_t *mark, size_t n, int32_t *sorted)
{
    size_t place[CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++) place[class_of(mark[i]) + 1]++;
    for (int k = 1; k <= CLASSES; k++) place[k] += place[k - 1];
    for (size_t i = 0; i < n; i++) sorted[place[class_of(mark[i])]++] = mark[i];
    memcpy(mark, sorted, n * sizeof *mark);
}

/* The canonical ordering: every run of characters of classes above 0 by class. */
static void order_marks(ra_compose_work *w, size_t count)
{
    size_t i = 0;
    while (i < count) {
        size_t begin = i;
        uint8_t before = 0, class;
        bool ordered = true;
        for (; i < count && (class = class_of(w->code[i])) > 0; i++) {
            ordered &= class >= before;
            before = class;
        }
        if (!ordered) {
            reserve(w, count + (i - begin));
            sort_marks(w->code + begin, i - begin, w->code + count);
        }
        if (i == begin) i++;
    }
}

int64_t ra_compose(const uint8_t *s, size_t n, int options, ra_compose_work *w)
{
    size_t count = 0, at = 0;
    int bound = 0;
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t length = utf8proc_iterate(s + at, (utf8proc_ssize_t)(n - at), &c), parts;
        if (length <= 0) return -1;
        at += (size_t)length;
        reserve(w, count + 1);
        while ((parts = utf8proc_decompose_char(c, w->code + count, (utf8proc_ssize_t)(w->capacity - count),
                                                (utf8proc_option_t)options, &bound)) > (utf8proc_ssize_t)(w->capacity - count))
            reserve(w, count + (size_t)parts);
        if (parts < 0) return -1;
        count += (size_t)parts;
    }
    order_marks(w, count);
    return count ? utf8proc_normalize_utf32(w->code, (utf8proc_ssize_t)count, (utf8proc_option_t)options) : 0;
}
