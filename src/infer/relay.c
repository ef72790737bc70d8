#include "relay.h"

#include <realign/wire.h>

#include <realign/mem.h>

#include <string.h>

enum { TAG_ORDER = 1, TAG_ROWS, TAG_FINDING }; /* beside the engine's, in passes of their own */
enum { OUTBOXES = 4 };

/* Host memory that is on its way to one stage or several. */
typedef struct {
    void *bytes;
    size_t capacity;
    MPI_Request *request; /* (stages) */
} outbox;

typedef struct {
    outbox *box;
    int32_t boxes, next;
} tray;

struct ra_relay {
    ra_model *m;
    const ra_grid *grid;
    ra_wire *wire;
    size_t row_bytes;
    tray orders, findings;
    int32_t *order; /* the last one */
    int32_t order_capacity;
};

static tray tray_new(const ra_grid *grid, int32_t boxes)
{
    tray t = {.box = ra_calloc((size_t)boxes, sizeof *t.box), .boxes = boxes};
    for (int32_t i = 0; i < boxes; i++) {
        t.box[i].request = ra_calloc((size_t)grid->stages, sizeof(MPI_Request));
        for (int32_t s = 0; s < grid->stages; s++) t.box[i].request[s] = MPI_REQUEST_NULL;
    }
    return t;
}

static void wait_for(const ra_grid *grid, outbox *x)
{
    RA_MPI(MPI_Waitall(grid->stages, x->request, MPI_STATUSES_IGNORE));
}

static void tray_free(const ra_grid *grid, tray *t)
{
    for (int32_t i = 0; i < t->boxes; i++) {
        wait_for(grid, &t->box[i]);
        ra_free(t->box[i].bytes);
        ra_free(t->box[i].request);
    }
    ra_free(t->box);
}

/* To stages [first, end). */
static void post(const ra_grid *grid, tray *t, const void *bytes, size_t n, int tag, int32_t first, int32_t end)
{
    outbox *x = &t->box[t->next];
    t->next = (t->next + 1) % t->boxes;
    wait_for(grid, x);
    if (n > x->capacity) {
        ra_free(x->bytes);
        x->bytes = ra_alloc(n, 1);
        x->capacity = n;
    }
    memcpy(x->bytes, bytes, n);
    for (int32_t s = first; s < end; s++)
        RA_MPI(MPI_Isend(x->bytes, (int)n, MPI_BYTE, s, tag, grid->pipeline.comm, &x->request[s]));
}

static void release_wire(ra_relay *r)
{
    if (!r->wire) return;
    ra_wire_drain(r->wire);
    ra_wire_free(r->wire);
}

void ra_relay_make_room(ra_relay *r, int32_t rows)
{
    if (r->grid->stages == 1) return;
    release_wire(r);
    r->wire = ra_wire_new(r->m->b, &r->grid->pipeline, 1, (size_t)rows * r->row_bytes);
}

ra_relay *ra_relay_new(ra_model *m, const ra_grid *grid, int32_t rows)
{
    ra_relay *r = ra_calloc(1, sizeof *r);
    r->m = m;
    r->grid = grid;
    r->row_bytes = (size_t)m->arch.hidden * m->b->r_size;
    if (grid->stages == 1) return r;
    ra_relay_make_room(r, rows);
    r->orders = tray_new(grid, OUTBOXES);
    r->findings = tray_new(grid, grid->stages + 2);
    return r;
}

void ra_relay_free(ra_relay *r)
{
    if (!r) return;
    release_wire(r);
    tray_free(r->grid, &r->orders);
    tray_free(r->grid, &r->findings);
    ra_free(r->order);
    ra_free(r);
}

static void hand_on(ra_relay *r, const int32_t *word, int32_t n)
{
    int32_t to = r->grid->stage + 1;
    if (to < r->grid->stages) post(r->grid, &r->orders, word, (size_t)n * sizeof *word, TAG_ORDER, to, to + 1);
}

void ra_relay_order(ra_relay *r, const int32_t *word, int32_t n)
{
    hand_on(r, word, n);
}

const int32_t *ra_relay_next(ra_relay *r, int32_t *n)
{
    MPI_Message message;
    MPI_Status status;
    RA_MPI(MPI_Mprobe(r->grid->stage - 1, TAG_ORDER, r->grid->pipeline.comm, &message, &status));
    RA_MPI(MPI_Get_count(&status, MPI_INT32_T, n));
    if (*n > r->order_capacity) {
        ra_free(r->order);
        r->order = ra_alloc((size_t)*n, sizeof *r->order);
        r->order_capacity = *n;
    }
    RA_MPI(MPI_Mrecv(r->order, *n, MPI_INT32_T, &message, MPI_STATUS_IGNORE));
    hand_on(r, r->order, *n);
    return r->order;
}

void ra_relay_enter(ra_relay *r, int32_t rows, ra_activations *acts)
{
    if (r->grid->stage == 0) return;
    ra_wire_receive(r->wire, 0, r->grid->stage - 1, TAG_ROWS);
    const void *x = ra_wire_wait(r->wire, 0);
    r->m->b->ops->copy(r->m->b, ra_activations_entry(acts, 0), x, (size_t)rows * r->row_bytes);
}

void ra_relay_leave(ra_relay *r, int32_t rows, ra_activations *acts)
{
    if (r->grid->stage + 1 == r->grid->stages) return;
    ra_wire_send(r->wire, r->grid->stage + 1, TAG_ROWS, ra_activations_last(acts, 0), (size_t)rows * r->row_bytes);
}

void ra_relay_publish(ra_relay *r, const void *bytes, size_t n)
{
    if (r->grid->stages > 1) post(r->grid, &r->findings, bytes, n, TAG_FINDING, 0, r->grid->stages - 1);
}

void ra_relay_hear(ra_relay *r, void *bytes, size_t n)
{
    RA_MPI(MPI_Recv(bytes, (int)n, MPI_BYTE, r->grid->stages - 1, TAG_FINDING, r->grid->pipeline.comm, MPI_STATUS_IGNORE));
}

ra_sequence *ra_relay_spread(const ra_grid *grid, ra_sequence *mine, int64_t *n)
{
    if (grid->stages == 1) return mine;
    int64_t size[2] = {*n, 0};
    for (int64_t i = 0; grid->stage == 0 && i < *n; i++) size[1] += mine[i].count;
    ra_comm_bcast(&grid->pipeline, size, sizeof size, 0);
    size_t heads = (size_t)size[0] * sizeof(ra_sequence), tokens = (size_t)size[1] * sizeof(int32_t);
    char *block = ra_alloc(heads + tokens, 1);
    ra_sequence *all = (ra_sequence *)(void *)block;
    int32_t *token = (int32_t *)(void *)(block + heads), *at = token;
    if (grid->stage == 0) {
        if (heads) memcpy(all, mine, heads);
        for (int64_t i = 0; i < *n; at += mine[i++].count)
            if (mine[i].count) memcpy(at, mine[i].token, (size_t)mine[i].count * sizeof *at);
    }
    ra_comm_bcast(&grid->pipeline, block, (int64_t)(heads + tokens), 0);
    *n = size[0];
    for (int64_t i = 0; i < *n; token += all[i++].count) all[i].token = token;
    if (grid->stage > 0) return all;
    ra_free(block);
    return mine;
}
