/* Work items into packs, from the global order alone: every rank count sees the same packs. */
#include <realign/engine.h>
#include <realign/mem.h>

#include <stdlib.h>

typedef struct {
    int64_t index;
    int32_t rows;
} sized;

/* Longest first; equal lengths in the items' order. */
static int longest_first(const void *a, const void *b)
{
    const sized *x = a, *y = b;
    if (x->rows != y->rows) return x->rows > y->rows ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static ra_err measure(const ra_store *store, const ra_work *work, int64_t n, int32_t rows, sized *size, int64_t *total)
{
    *total = 0;
    for (int64_t i = 0; i < n; i++) {
        ra_sample s = ra_store_get(store, work[i].sample);
        size[i] = (sized){i, ra_microbatch_rows(&s, ra_loss_roles(work[i].kind))};
        *total += size[i].rows;
        if (size[i].rows > rows) {
            return ra_fail(RA_ERR_DATA, "sample %lld has %d tokens, a pack takes %d: raise pack.tokens or lower data.max_tokens",
                           (long long)work[i].sample, size[i].rows, rows);
        }
    }
    return RA_OK;
}

/* place[i] = pack of item i; returns the number of packs. */
static int32_t place_in_order(const sized *size, int64_t n, int32_t rows, int32_t *place)
{
    int32_t packs = 0, used = 0;
    for (int64_t i = 0; i < n; i++) {
        if (packs == 0 || used + size[i].rows > rows) {
            packs++;
            used = 0;
        }
        place[i] = packs - 1;
        used += size[i].rows;
    }
    return packs;
}

/* Each item, longest first, goes to the emptiest pack; a pack is added while one overflows. */
static int32_t place_balanced(sized *size, int64_t n, int32_t rows, int64_t total, int32_t minimum, int32_t *place)
{
    qsort(size, (size_t)n, sizeof *size, longest_first);
    int64_t packs = (total + rows - 1) / rows;
    if (packs < minimum) packs = minimum;
    if (packs > n) packs = n;
    int32_t *used = NULL;
    for (;; packs++) {
        used = ra_realloc(used, (size_t)packs + 1, sizeof *used);
        for (int64_t p = 0; p < packs; p++) used[p] = 0;
        int64_t i = 0;
        for (; i < n; i++) {
            int64_t best = 0;
            for (int64_t p = 1; p < packs; p++) {
                if (used[p] < used[best]) best = p;
            }
            if (used[best] + size[i].rows > rows) break;
            used[best] += size[i].rows;
            place[size[i].index] = (int32_t)best;
        }
        if (i == n) break;
    }
    free(used);
    return (int32_t)packs;
}

ra_err ra_packing_make(const ra_store *store, const ra_work *work, int64_t n, int32_t rows, int32_t minimum, bool in_order,
                       ra_packing *out)
{
    *out = (ra_packing){0};
    sized *size = ra_alloc((size_t)n, sizeof *size);
    int64_t total;
    ra_err err = measure(store, work, n, rows, size, &total);
    if (err != RA_OK) {
        ra_free(size);
        return err;
    }
    int32_t *place = ra_alloc((size_t)n, sizeof *place);
    out->packs = in_order ? place_in_order(size, n, rows, place) : place_balanced(size, n, rows, total, minimum, place);
    out->begin = ra_calloc((size_t)out->packs + 1, sizeof *out->begin);
    out->order = ra_alloc((size_t)n, sizeof *out->order);
    for (int64_t i = 0; i < n; i++) out->begin[place[i] + 1]++;
    for (int32_t p = 0; p < out->packs; p++) out->begin[p + 1] += out->begin[p];
    int32_t *next = ra_alloc((size_t)out->packs + 1, sizeof *next);
    for (int32_t p = 0; p < out->packs; p++) next[p] = out->begin[p];
    for (int retain = 0; retain < 2; retain++) { /* Retain items stand last in their pack */
        for (int64_t i = 0; i < n; i++) {
            if ((work[i].kind == RA_LOSS_RETAIN) == (retain == 1)) out->order[next[place[i]]++] = i;
        }
    }
    ra_free(next);
    ra_free(place);
    ra_free(size);
    return RA_OK;
}

void ra_packing_free(ra_packing *p)
{
    ra_free(p->begin);
    ra_free(p->order);
    *p = (ra_packing){0};
}

void ra_packing_fill(const ra_packing *p, int32_t pack, const ra_store *store, const ra_work *work, ra_microbatch *mb)
{
    ra_microbatch_clear(mb);
    for (int32_t i = p->begin[pack]; i < p->begin[pack + 1]; i++) {
        const ra_work *w = &work[p->order[i]];
        ra_sample s = ra_store_get(store, w->sample);
        if (!ra_microbatch_add(mb, &s, w->kind, w->weight, w->reference))
            ra_die("packing: sample %lld does not fit where it was placed", (long long)w->sample);
    }
}
