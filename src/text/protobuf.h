/* A reader of protocol-buffer messages in memory: fields one after the other, nothing copied, nothing believed. */
#ifndef REALIGN_TEXT_PROTOBUF_H
#define REALIGN_TEXT_PROTOBUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at, *end;
    bool bad; /* the message is damaged: a field went beyond its end, or has an unknown wire type */
} ra_proto;

typedef enum { RA_PROTO_VARINT = 0, RA_PROTO_FIXED64 = 1, RA_PROTO_BYTES = 2, RA_PROTO_FIXED32 = 5 } ra_proto_type;

typedef struct {
    uint32_t number;
    ra_proto_type type;
    uint64_t value;       /* VARINT; FIXED32 and FIXED64 as their bits */
    const uint8_t *bytes; /* BYTES */
    size_t length;
} ra_proto_field;

/* The next field; false at the end or where the message is damaged. */
bool ra_proto_next(ra_proto *p, ra_proto_field *out);
float ra_proto_float(const ra_proto_field *f); /* of a FIXED32 */

#endif
