/* Which row was the first with a hash. Every hash belongs to one rank, hash mod ranks, which keeps it with the lowest id: no rank holds all of them, and the
 * answer does not depend on how many there are. */
#include <realign/mem.h>
#include <realign/prefdata.h>

#include <stdlib.h>
#include <string.h>

typedef struct {
    ra_hash hash;
    int64_t id; /* -1: the slot is free */
} entry;

struct ra_duplicates {
    ra_comm comm;
    entry *slot; /* (capacity), a power of two, at most two thirds full */
    size_t capacity, used;
};

static void make_slots(ra_duplicates *d, size_t capacity)
{
    d->capacity = capacity;
    d->slot = ra_alloc(capacity, sizeof *d->slot);
    for (size_t i = 0; i < capacity; i++) d->slot[i].id = -1;
}

ra_duplicates *ra_duplicates_new(const ra_comm *comm)
{
    ra_duplicates *d = ra_calloc(1, sizeof *d);
    d->comm = *comm;
    make_slots(d, 1024);
    return d;
}

void ra_duplicates_free(ra_duplicates *d)
{
    if (!d) return;
    ra_free(d->slot);
    ra_free(d);
}

/* The slot of a hash, or the free one where it belongs. */
static entry *find(const ra_duplicates *d, ra_hash hash)
{
    size_t i = (size_t)hash.low & (d->capacity - 1);
    while (d->slot[i].id >= 0 && (d->slot[i].hash.low != hash.low || d->slot[i].hash.high != hash.high))
        i = (i + 1) & (d->capacity - 1);
    return &d->slot[i];
}

static void grow(ra_duplicates *d)
{
    entry *old = d->slot;
    size_t n = d->capacity;
    make_slots(d, 2 * n);
    for (size_t i = 0; i < n; i++) {
        if (old[i].id >= 0) *find(d, old[i].hash) = old[i];
    }
    ra_free(old);
}

/* The lowest id so far with this hash, given that ids come in ascending order. */
static int64_t first_of(ra_duplicates *d, const entry *item)
{
    if (3 * (d->used + 1) > 2 * d->capacity) grow(d);
    entry *slot = find(d, item->hash);
    if (slot->id < 0) {
        *slot = *item;
        d->used++;
    }
    return slot->id;
}

static int owner(const ra_duplicates *d, ra_hash hash)
{
    return (int)(hash.high % (uint64_t)d->comm.size);
}

typedef struct {
    entry item;
    int at; /* its place among those that arrived */
} arrival;

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const arrival *)a)->item.id, y = ((const arrival *)b)->item.id;
    return (x > y) - (x < y);
}

/* Items of all ranks, sorted by id, then looked up. */
static void answer(ra_duplicates *d, const entry *got, int n, int64_t *reply)
{
    arrival *all = ra_alloc((size_t)n + 1, sizeof *all);
    for (int i = 0; i < n; i++) all[i] = (arrival){got[i], i};
    qsort(all, (size_t)n, sizeof *all, by_id);
    for (int i = 0; i < n; i++) reply[all[i].at] = first_of(d, &all[i].item);
    ra_free(all);
}

void ra_duplicates_add(ra_duplicates *d, const ra_hash *hash, const int64_t *id, int n, int64_t *first)
{
    int size = d->comm.size, *plan = ra_calloc((size_t)size * 5, sizeof *plan), *send = plan, *send_at = plan + size,
        *get = plan + 2 * size, *get_at = plan + 3 * size, *next = plan + 4 * size, total = 0;
    for (int i = 0; i < n; i++) send[owner(d, hash[i])]++;
    RA_MPI(MPI_Alltoall(send, 1, MPI_INT, get, 1, MPI_INT, d->comm.comm));
    for (int r = 0; r < size; r++) {
        send_at[r] = next[r] = r ? send_at[r - 1] + send[r - 1] : 0;
        get_at[r] = total;
        total += get[r];
    }
    entry *mine = ra_alloc((size_t)n + 1, sizeof *mine), *got = ra_alloc((size_t)total + 1, sizeof *got);
    int64_t *reply = ra_alloc((size_t)total + 1, sizeof *reply), *back = ra_alloc((size_t)n + 1, sizeof *back);
    for (int i = 0; i < n; i++) mine[next[owner(d, hash[i])]++] = (entry){hash[i], id[i]};
    MPI_Datatype type;
    RA_MPI(MPI_Type_contiguous((int)sizeof(entry), MPI_BYTE, &type));
    RA_MPI(MPI_Type_commit(&type));
    RA_MPI(MPI_Alltoallv(mine, send, send_at, type, got, get, get_at, type, d->comm.comm));
    RA_MPI(MPI_Type_free(&type));
    answer(d, got, total, reply);
    RA_MPI(MPI_Alltoallv(reply, get, get_at, MPI_INT64_T, back, send, send_at, MPI_INT64_T, d->comm.comm));
    memcpy(next, send_at, (size_t)size * sizeof *next);
    for (int i = 0; i < n; i++) first[i] = back[next[owner(d, hash[i])]++];
    ra_free(mine);
    ra_free(got);
    ra_free(reply);
    ra_free(back);
    ra_free(plan);
}
