/* What backends share whose memory is host memory. */
#ifndef RA_BACKEND_HOST_H
#define RA_BACKEND_HOST_H
#include <realign/backend.h>

/* Operators read the pack where it is. */
void ra_host_place_pack(ra_backend *b, ra_pack *pack);
void ra_host_release_pack(ra_backend *b, ra_pack *pack);
/* MPI reads host memory itself. */
ra_link *ra_host_link_open(ra_backend *b, const ra_comm *comm, const char *what);
void ra_host_link_close(ra_backend *b, ra_link *link);
void ra_host_link_reduce_scatter(ra_backend *b, ra_link *link, float *values, int64_t n);
void ra_host_link_all_gather(ra_backend *b, ra_link *link, float *values, int64_t n);

/* Counted memory, 64-byte aligned, not zeroed; its size stands in front of it. */
void *ra_host_take(ra_backend *b, size_t bytes);
void ra_host_release(ra_backend *b, void *memory);

#endif
