#include "host.h"

#include <realign/mem.h>

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

ra_link *ra_host_link_open(ra_backend *b, const ra_comm *comm, const char *what)
{
    (void)b;
    (void)comm;
    (void)what;
    return NULL;
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
