#include "host.h"

#include <realign/comm.h>
#include <realign/mem.h>

enum { FRONT = 64 }; /* bytes before what is handed out: its size, and the alignment kept */

void *ra_host_take(ra_backend *b, size_t bytes)
{
    if (bytes > SIZE_MAX - FRONT) ra_die("%zu bytes are more than there can be", bytes);
    char *block = ra_alloc(bytes + FRONT, 1);
    *(size_t *)(void *)block = bytes;
    b->memory.live += bytes;
    if (b->memory.live > b->memory.peak) b->memory.peak = b->memory.live;
    return block + FRONT;
}

void ra_host_release(ra_backend *b, void *memory)
{
    if (!memory) return;
    char *block = (char *)memory - FRONT;
    b->memory.live -= *(const size_t *)(const void *)block;
    ra_free(block);
}

void ra_host_place_pack(ra_backend *b, ra_pack *pack)
{
    (void)b;
    (void)pack;
}

void ra_host_release_pack(ra_backend *b, ra_pack *pack)
{
    (void)b;
    (void)pack;
}

struct ra_link {
    const ra_comm *comm;
};

ra_link *ra_host_link_open(ra_backend *b, const ra_comm *comm, const char *what)
{
    (void)b;
    (void)what;
    ra_link *link = ra_calloc(1, sizeof *link);
    link->comm = comm;
    return link;
}

void ra_host_link_close(ra_backend *b, ra_link *link)
{
    (void)b;
    ra_free(link);
}

void ra_host_link_reduce_scatter(ra_backend *b, ra_link *link, float *values, int64_t n)
{
    (void)b;
    ra_comm_reduce_scatter_f32(link->comm, values, n);
}

void ra_host_link_all_gather(ra_backend *b, ra_link *link, float *values, int64_t n)
{
    (void)b;
    ra_comm_all_gather_f32(link->comm, values, n);
}

ra_host_view ra_host_view_of(ra_backend *b, void *memory, size_t bytes)
{
    ra_host_view view = {.host = memory, .memory = memory, .bytes = bytes};
    if (b->host) return view;
    view.host = ra_alloc(bytes, 1);
    b->ops->download(b, view.host, memory, bytes);
    return view;
}

void ra_host_view_end(ra_backend *b, ra_host_view *view, bool changed)
{
    if (view->host == view->memory) return;
    if (changed) b->ops->upload(b, view->memory, view->host, view->bytes);
    ra_free(view->host);
}
