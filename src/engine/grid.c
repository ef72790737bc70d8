#include <realign/engine.h>

void ra_grid_make(const ra_comm *world, ra_grid *out)
{
    out->world = *world;
    out->data = *world;
    out->stage = 0;
    out->stages = 1;
}
