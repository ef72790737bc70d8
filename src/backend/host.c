#include "host.h"

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
