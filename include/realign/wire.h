/* Backend memory between neighbouring stages of a pipeline. */
#ifndef REALIGN_WIRE_H
#define REALIGN_WIRE_H
#include <realign/backend.h>
#include <realign/comm.h>

typedef struct ra_wire ra_wire;
/* `inboxes` buffers that can wait for a message each, and a few from which messages leave; `bytes`: the largest message. */
ra_wire *ra_wire_new(ra_backend *b, const ra_comm *pipeline, int32_t inboxes, size_t bytes);
void ra_wire_free(ra_wire *w);
size_t ra_wire_bytes(int32_t inboxes, size_t bytes); /* of backend memory that ra_wire_new takes */
/* Of any length. Never waits. */
void ra_wire_receive(ra_wire *w, int32_t inbox, int32_t rank, int32_t tag);
/* Waits for what was last asked for there; returns it, in backend memory, the caller's until the next ra_wire_receive into the same inbox. */
void *ra_wire_wait(ra_wire *w, int32_t inbox);
/* Copies `from`, which may change afterwards. Waits only where all messages sent before are still on their way. */
void ra_wire_send(ra_wire *w, int32_t rank, int32_t tag, const void *from, size_t bytes);
/* Waits until all sent messages have left. */
void ra_wire_drain(ra_wire *w);
#endif
