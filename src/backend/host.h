/* What backends share whose memory is host memory. */
#ifndef RA_BACKEND_HOST_H
#define RA_BACKEND_HOST_H
#include <realign/backend.h>

/* Operators read the pack where it is. */
void ra_host_place_pack(ra_backend *b, ra_pack *pack);
void ra_host_release_pack(ra_backend *b, ra_pack *pack);

#endif
