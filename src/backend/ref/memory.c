/* Memory of the reference backend is host memory, and both its types are double: transfers and casts are copies. */
#include "ref.h"

#include <string.h>

void *ra_ref_alloc(ra_backend *b, size_t bytes)
{
    return memset(ra_host_take(b, bytes), 0, bytes);
}

void ra_ref_move(ra_backend *b, void *to, const void *from, size_t bytes)
{
    (void)b;
    if (bytes) memmove(to, from, bytes);
}

void ra_ref_zero(ra_backend *b, void *memory, size_t bytes)
{
    (void)b;
    if (bytes) memset(memory, 0, bytes);
}

void ra_ref_cast(ra_backend *b, int64_t n, const void *x, void *y)
{
    ra_ref_move(b, y, x, (size_t)n * sizeof(double));
}
