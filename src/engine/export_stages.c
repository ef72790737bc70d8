#include "export_stages.h"

#include <realign/mem.h>

#include <stdio.h>

enum { TAG = 74, END = -1, MESSAGE = 1 << 30 /* bytes, at most */ };

typedef struct {
    int64_t index, first, count;
} question;

typedef struct {
    int32_t code; /* of ra_err; the data follow where it is RA_OK */
    char why[4096];
} answer;

static void send_bytes(const ra_comm *comm, const void *bytes, size_t n, int to)
{
    for (size_t at = 0; at < n; at += MESSAGE) {
        size_t piece = n - at < MESSAGE ? n - at : MESSAGE;
        RA_MPI(MPI_Send((const char *)bytes + at, (int)piece, MPI_BYTE, to, TAG, comm->comm));
    }
}

static void receive_bytes(const ra_comm *comm, void *bytes, size_t n, int from)
{
    for (size_t at = 0; at < n; at += MESSAGE) {
        size_t piece = n - at < MESSAGE ? n - at : MESSAGE;
        RA_MPI(MPI_Recv((char *)bytes + at, (int)piece, MPI_BYTE, from, TAG, comm->comm, MPI_STATUS_IGNORE));
    }
}

ra_err ra_stages_read(const void *stages, int index, int64_t first, int64_t count, void *out)
{
    const ra_stages *s = stages;
    int from = s->stage[index];
    if (from == 0) return s->read(s->context, index, first, count, out);
    question q = {index, first, count};
    answer a;
    send_bytes(s->pipeline, &q, sizeof q, from);
    receive_bytes(s->pipeline, &a, sizeof a, from);
    if (a.code != RA_OK) return ra_fail((ra_err)a.code, "stage %d: %s", from, a.why);
    receive_bytes(s->pipeline, out, (size_t)count * s->element, from);
    return RA_OK;
}

void ra_stages_end(const ra_stages *s)
{
    question q = {.index = END};
    for (int stage = 1; stage < s->pipeline->size; stage++) send_bytes(s->pipeline, &q, sizeof q, stage);
}

void ra_stages_serve(const ra_stages *s)
{
    void *piece = NULL;
    int64_t capacity = 0;
    for (;;) {
        question q;
        receive_bytes(s->pipeline, &q, sizeof q, 0);
        if (q.index == END) break;
        if (q.count > capacity) {
            ra_free(piece);
            capacity = q.count;
            piece = ra_alloc((size_t)capacity, s->element);
        }
        answer a = {.code = (int32_t)s->read(s->context, (int)q.index, q.first, q.count, piece)};
        if (a.code != RA_OK) snprintf(a.why, sizeof a.why, "%s", ra_error_message());
        send_bytes(s->pipeline, &a, sizeof a, 0);
        if (a.code == RA_OK) send_bytes(s->pipeline, piece, (size_t)q.count * s->element, 0);
    }
    ra_free(piece);
}
