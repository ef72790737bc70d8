/* Sums over ranks as the engine asks for them, through the backend's table: the bits of the sums over MPI, in order with what the stream computes. */
#include "support/support.h"

#include <realign/backend.h>
#include <realign/comm.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <string.h>

static const char *test_link(const ra_comm *world)
{
    const int64_t lengths[] = {0, 1, 33, 4099, 70001};
    const char *bad = NULL; /* told at the end: a rank that left early would leave the others waiting */
    ra_backend *b = NULL;
    MPI_EXPECT_OK(ra_backend_open("cuda", "fp32", 0, &b));
    ra_link *link = b->ops->link_open(b, world, "data");
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int64_t n = lengths[k], begin = ra_comm_range_begin(world, n, world->rank),
                end = ra_comm_range_begin(world, n, world->rank + 1);
        size_t bytes = (size_t)n * sizeof(float);
        ra_rng rng = ra_rng_make((uint64_t)world->rank + 10 * k, RA_STREAM_TEST);
        float *wanted = ra_calloc((size_t)n + 1, sizeof *wanted), *got = ra_calloc((size_t)n + 1, sizeof *got);
        for (int64_t i = 0; i < n; i++) wanted[i] = (float)(ra_rng_normal(&rng) * (i % 7 == 0 ? 1e6 : 1));
        float *device = b->ops->alloc(b, bytes + 1), *one = b->ops->alloc(b, bytes + 1);
        b->ops->upload(b, one, wanted, bytes);
        b->ops->axpy(b, n, 2.0, one, device); /* queued, and not waited for */
        for (int64_t i = 0; i < n; i++) wanted[i] *= 2;
        ra_comm_reduce_scatter_f32(world, wanted, n);
        b->ops->link_reduce_scatter(b, link, device, n);
        b->ops->download(b, got, device, bytes);
        if (memcmp(got + begin, wanted + begin, (size_t)(end - begin) * sizeof *got) != 0)
            bad = test_message("sums of %lld floats differ", (long long)n);
        ra_comm_all_gather_f32(world, wanted, n);
        b->ops->link_all_gather(b, link, device, n);
        b->ops->download(b, got, device, bytes);
        if (memcmp(got, wanted, bytes) != 0) bad = test_message("what is gathered of %lld floats differs", (long long)n);
        b->ops->release(b, device);
        b->ops->release(b, one);
        ra_free(wanted);
        ra_free(got);
    }
    b->ops->link_close(b, link);
    ra_backend_close(b);
    return bad;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {{"a link's sums have the bits of MPI's", test_link}};
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
