#include "protobuf.h"

#include <string.h>

static bool varint(ra_proto *p, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 70 && p->at < p->end; shift += 7) {
        uint8_t byte = *p->at++;
        if (shift < 64) *out |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool fixed(ra_proto *p, int n, uint64_t *out)
{
    *out = 0;
    if (p->end - p->at < n) return false;
    for (int i = 0; i < n; i++) *out |= (uint64_t)*p->at++ << 8 * i;
    return true;
}

static bool read_value(ra_proto *p, ra_proto_field *out)
{
    switch (out->type) {
    case RA_PROTO_VARINT: return varint(p, &out->value);
    case RA_PROTO_FIXED64: return fixed(p, 8, &out->value);
    case RA_PROTO_FIXED32: return fixed(p, 4, &out->value);
    case RA_PROTO_BYTES:
        if (!varint(p, &out->value) || out->value > (uint64_t)(p->end - p->at)) return false;
        out->bytes = p->at, out->length = (size_t)out->value;
        p->at += out->length;
        return true;
    }
    return false; /* groups and reserved types */
}

bool ra_proto_next(ra_proto *p, ra_proto_field *out)
{
    uint64_t key;
    if (p->bad || p->at == p->end) return false;
    *out = (ra_proto_field){0};
    p->bad = !varint(p, &key) || key >> 3 == 0 || key >> 3 > 0x1FFFFFFF;
    if (!p->bad) {
        out->number = (uint32_t)(key >> 3), out->type = (ra_proto_type)(key & 7);
        p->bad = !read_value(p, out);
    }
    return !p->bad;
}

float ra_proto_float(const ra_proto_field *f)
{
    uint32_t bits = (uint32_t)f->value;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
