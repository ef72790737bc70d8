#include "redistribute.h"

#include <realign/mem.h>

enum { BLOCK = 1 << 20, TAG = 73 }; /* elements of a message, at most */

ra_model *ra_whole_network(const ra_model *m)
{
    ra_model *whole = ra_calloc(1, sizeof *whole);
    whole->b = m->b;
    whole->arch = m->arch;
    whole->arch.layer_windowed = NULL; /* the model's own; no shape depends on it */
    whole->training = m->training;
    whole->lora = m->lora;
    ra_model_lay_out(whole);
    return whole;
}

/* ---- pieces ---- */

/* The first tensor behind `i` that does not follow its neighbour as it does in the whole network. */
static int end_of_run(const ra_layout *l, int i)
{
    int64_t shift = l->param[i].canonical - l->param[i].offset;
    bool copy = l->param[i].copy;
    while (i < l->count && l->param[i].canonical - l->param[i].offset == shift && l->param[i].copy == copy) i++;
    return i;
}

ra_pieces ra_pieces_of(const ra_layout *l, const ra_backend *b, void *memory, int64_t begin, int64_t end, bool copies)
{
    ra_pieces out = {0};
    for (int i = 0, next; i < l->count; i = next) {
        next = end_of_run(l, i);
        const ra_param *p = &l->param[i];
        int64_t first = p->offset, last = next < l->count ? l->param[next].offset : l->size;
        if (first < begin) first = begin;
        if (last > end) last = end;
        if (first >= last || (p->copy && !copies)) continue;
        if (out.count == RA_PIECES_MOST) ra_die("a part of the network has more than %d runs of tensors", RA_PIECES_MOST);
        out.piece[out.count++] = (ra_piece){.canonical = p->canonical + first - p->offset,
                                            .count = last - first,
                                            .memory = (char *)memory + (size_t)(first - begin) * b->r_size};
    }
    return out;
}

void *ra_range_in_place(const ra_comm *comm, const ra_backend *b, int64_t size, const ra_pieces *own)
{
    int64_t begin = ra_comm_range_begin(comm, size, comm->rank), end = ra_comm_range_begin(comm, size, comm->rank + 1);
    for (int32_t i = 0; i < own->count && b->host; i++) {
        const ra_piece *p = &own->piece[i];
        if (begin >= p->canonical && end <= p->canonical + p->count)
            return (char *)p->memory + (size_t)(begin - p->canonical) * b->r_size;
    }
    return NULL;
}

/* ---- exchange ---- */
typedef struct {
    int64_t canonical, count;
} place; /* a piece, as other ranks know it */

typedef struct {
    const ra_comm *comm;
    ra_backend *b;
    int64_t size;
    const ra_pieces *own;
    char *range;
    bool gathers;
    place *places;    /* (ranks, RA_PIECES_MOST) */
    char *staging[2]; /* host copies of a block that leaves and of one that arrives; NULL where pieces are in host memory */
} exchange;

/* What the pieces of one rank have in common with the range of another, block by block: the same blocks on both. */
typedef struct {
    int holder, keeper; /* of pieces; of a range */
    int32_t piece;
    int64_t done; /* elements of the piece's part */
} walk;

typedef struct {
    int32_t piece;
    int64_t first, count; /* elements of the whole network's vector */
} block;

static bool next_block(const exchange *x, walk *w, block *out)
{
    int64_t begin = ra_comm_range_begin(x->comm, x->size, w->keeper), end = ra_comm_range_begin(x->comm, x->size, w->keeper + 1);
    for (; w->piece < RA_PIECES_MOST; w->piece++, w->done = 0) {
        const place *p = &x->places[(int64_t)w->holder * RA_PIECES_MOST + w->piece];
        int64_t first = p->canonical > begin ? p->canonical : begin;
        int64_t last = p->canonical + p->count < end ? p->canonical + p->count : end;
        if (first + w->done >= last) continue;
        first += w->done;
        *out = (block){w->piece, first, last - first < BLOCK ? last - first : BLOCK};
        w->done += out->count;
        return true;
    }
    return false;
}

static char *in_piece(const exchange *x, const block *k)
{
    const ra_piece *p = &x->own->piece[k->piece];
    return (char *)p->memory + (size_t)(k->first - p->canonical) * x->b->r_size;
}

static char *in_range(const exchange *x, const block *k)
{
    return x->range + (size_t)(k->first - ra_comm_range_begin(x->comm, x->size, x->comm->rank)) * x->b->r_size;
}

static size_t bytes_of(const exchange *x, const block *k)
{
    return (size_t)k->count * x->b->r_size;
}

static void copy_own(const exchange *x)
{
    ra_backend *b = x->b;
    walk w = {.holder = x->comm->rank, .keeper = x->comm->rank};
    for (block k; next_block(x, &w, &k);) {
        char *piece = in_piece(x, &k), *range = in_range(x, &k);
        if (piece == range) continue;
        if (x->gathers) {
            b->ops->download(b, range, piece, bytes_of(x, &k));
        } else {
            b->ops->upload(b, piece, range, bytes_of(x, &k));
        }
    }
}

/* Memory that a block leaves from. */
static char *outgoing(const exchange *x, const block *k)
{
    char *from = x->gathers ? in_piece(x, k) : in_range(x, k);
    if (!x->gathers || x->b->host) return from;
    x->b->ops->download(x->b, x->staging[0], from, bytes_of(x, k));
    return x->staging[0];
}

static char *incoming(const exchange *x, const block *k)
{
    if (x->gathers) return in_range(x, k);
    return x->b->host ? in_piece(x, k) : x->staging[1];
}

/* Blocks to one rank and from another, one of each at a time. Whoever is behind all others waits for none that waits itself, so that some rank always goes on. */
static void trade(const exchange *x, int to, int from)
{
    int me = x->comm->rank;
    walk out = {.holder = x->gathers ? me : to, .keeper = x->gathers ? to : me};
    walk in = {.holder = x->gathers ? from : me, .keeper = x->gathers ? me : from};
    for (;;) {
        block leaving, arriving;
        bool sends = next_block(x, &out, &leaving), receives = next_block(x, &in, &arriving);
        if (!sends && !receives) return;
        MPI_Request request[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        char *landing = receives ? incoming(x, &arriving) : NULL;
        if (receives) RA_MPI(MPI_Irecv(landing, (int)bytes_of(x, &arriving), MPI_BYTE, from, TAG, x->comm->comm, &request[0]));
        if (sends) {
            RA_MPI(MPI_Isend(outgoing(x, &leaving), (int)bytes_of(x, &leaving), MPI_BYTE, to, TAG, x->comm->comm, &request[1]));
        }
        RA_MPI(MPI_Waitall(2, request, MPI_STATUSES_IGNORE));
        if (landing && landing == x->staging[1]) x->b->ops->upload(x->b, in_piece(x, &arriving), landing, bytes_of(x, &arriving));
    }
}

/* Every rank's pieces on all ranks. */
static place *share_places(const ra_comm *comm, const ra_pieces *own)
{
    place mine[RA_PIECES_MOST] = {{0}}, *all = ra_alloc((size_t)comm->size * RA_PIECES_MOST, sizeof *all);
    for (int32_t i = 0; i < own->count; i++) mine[i] = (place){own->piece[i].canonical, own->piece[i].count};
    RA_MPI(MPI_Allgather(mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, comm->comm));
    return all;
}

static void check_whole(const exchange *x)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < (int64_t)x->comm->size * RA_PIECES_MOST; i++) sum += x->places[i].count;
    if (sum != x->size) ra_die("ranks hold %lld elements of a vector of %lld", (long long)sum, (long long)x->size);
}

static void run(exchange *x)
{
    int size = x->comm->size, me = x->comm->rank;
    x->places = share_places(x->comm, x->own);
    if (x->gathers) check_whole(x);
    for (int i = 0; i < 2 && !x->b->host; i++) x->staging[i] = ra_alloc(BLOCK, x->b->r_size);
    copy_own(x);
    for (int d = 1; d < size; d++) trade(x, (me + d) % size, (me - d + size) % size);
    for (int i = 0; i < 2; i++) ra_free(x->staging[i]);
    ra_free(x->places);
}

void ra_gather_range(const ra_comm *comm, ra_backend *b, int64_t size, const ra_pieces *own, void *range)
{
    exchange x = {.comm = comm, .b = b, .size = size, .own = own, .range = range, .gathers = true};
    run(&x);
}

void ra_scatter_range(const ra_comm *comm, ra_backend *b, int64_t size, const ra_pieces *own, void *range)
{
    exchange x = {.comm = comm, .b = b, .size = size, .own = own, .range = range};
    run(&x);
}
