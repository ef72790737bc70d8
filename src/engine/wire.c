/* Messages go by MPI from host memory: the buffers themselves where the backend's memory is host memory, else a copy beside each. */
#include <realign/wire.h>

#include <realign/mem.h>

#include <limits.h>

enum { OUTBOXES = 3 };

typedef struct {
    void *memory; /* backend */
    void *host;   /* the same where that is host memory */
    MPI_Request request;
} inbox;

typedef struct {
    void *host;
    MPI_Request request;
} outbox;

struct ra_wire {
    ra_backend *b;
    const ra_comm *pipeline;
    size_t bytes;
    int32_t inboxes, next;
    inbox *in;
    outbox out[OUTBOXES];
};

ra_wire *ra_wire_new(ra_backend *b, const ra_comm *pipeline, int32_t inboxes, size_t bytes)
{
    ra_wire *w = ra_calloc(1, sizeof *w);
    w->b = b;
    w->pipeline = pipeline;
    w->bytes = bytes;
    w->inboxes = inboxes;
    w->in = ra_calloc((size_t)inboxes + 1, sizeof *w->in);
    if (bytes > INT_MAX) ra_die("a message between stages has %zu bytes, at most %d fit one: lower pack.tokens", bytes, INT_MAX);
    for (int32_t i = 0; i < inboxes; i++) {
        inbox *x = &w->in[i];
        x->memory = b->ops->alloc(b, bytes);
        x->host = b->host ? x->memory : ra_alloc(bytes, 1);
        x->request = MPI_REQUEST_NULL;
    }
    for (int32_t i = 0; i < OUTBOXES; i++) {
        if (pipeline->size > 1) w->out[i].host = ra_alloc(bytes, 1);
        w->out[i].request = MPI_REQUEST_NULL;
    }
    return w;
}

void ra_wire_free(ra_wire *w)
{
    if (!w) return;
    for (int32_t i = 0; i < w->inboxes; i++) {
        if (w->in[i].host != w->in[i].memory) ra_free(w->in[i].host);
        w->b->ops->release(w->b, w->in[i].memory);
    }
    for (int32_t i = 0; i < OUTBOXES; i++) ra_free(w->out[i].host);
    ra_free(w->in);
    ra_free(w);
}

size_t ra_wire_bytes(int32_t inboxes, size_t bytes)
{
    return bytes * (size_t)inboxes;
}

void ra_wire_receive(ra_wire *w, int32_t box, int32_t rank, int32_t tag)
{
    inbox *x = &w->in[box];
    RA_MPI(MPI_Irecv(x->host, (int)w->bytes, MPI_BYTE, rank, tag, w->pipeline->comm, &x->request));
}

void *ra_wire_wait(ra_wire *w, int32_t box)
{
    inbox *x = &w->in[box];
    MPI_Status status;
    int bytes;
    RA_MPI(MPI_Wait(&x->request, &status));
    RA_MPI(MPI_Get_count(&status, MPI_BYTE, &bytes));
    if (x->host != x->memory) w->b->ops->upload(w->b, x->memory, x->host, (size_t)bytes);
    return x->memory;
}

void ra_wire_send(ra_wire *w, int32_t rank, int32_t tag, const void *from, size_t bytes)
{
    outbox *x = &w->out[w->next];
    w->next = (w->next + 1) % OUTBOXES;
    RA_MPI(MPI_Wait(&x->request, MPI_STATUS_IGNORE));
    w->b->ops->download(w->b, x->host, from, bytes);
    RA_MPI(MPI_Isend(x->host, (int)bytes, MPI_BYTE, rank, tag, w->pipeline->comm, &x->request));
}

void ra_wire_drain(ra_wire *w)
{
    for (int32_t i = 0; i < OUTBOXES && w->pipeline->size > 1; i++) RA_MPI(MPI_Wait(&w->out[i].request, MPI_STATUS_IGNORE));
}
