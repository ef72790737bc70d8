/* Device memory between ranks: what arrives, in which order, and sums with the bits of the sums over MPI. NCCL's transfers run over MPI here (tests/cudasim). */
#include "../../../src/backend/cuda/peer.h"
#include "support/support.h"

#include <realign/mem.h>
#include <realign/rng.h>

#include <stdlib.h>
#include <string.h>

static float *drawn(int64_t n, uint64_t seed)
{
    ra_rng rng = ra_rng_make(seed, RA_STREAM_TEST);
    float *x = ra_alloc((size_t)n + 1, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(ra_rng_normal(&rng) * (i % 7 == 0 ? 1e6 : 1));
    return x;
}

static void *to_device(const void *host, size_t bytes)
{
    void *memory = NULL;
    if (cudaMalloc(&memory, bytes + 1) != cudaSuccess || cudaMemcpy(memory, host, bytes, cudaMemcpyHostToDevice) != cudaSuccess)
        abort();
    return memory;
}

static void to_host(void *host, const void *memory, size_t bytes)
{
    if (cudaMemcpy(host, memory, bytes, cudaMemcpyDeviceToHost) != cudaSuccess) abort();
}

/* Lengths below a rank's sixteen, uneven, and more than one piece of a range (4 Mi floats) with two ranks. */
static const char *test_sums(const ra_comm *world)
{
    const int64_t lengths[] = {0, 1, 15, 16, 33, 1000, 4099, world->size == 2 ? (9 << 20) + 5 : 70001};
    const char *bad = NULL; /* told at the end: a rank that left early would leave the others waiting */
    ra_cuda_peers *peers;
    MPI_EXPECT_OK(ra_cuda_peers_open(world, "data", &peers));
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int64_t n = lengths[k], begin = ra_comm_range_begin(world, n, world->rank),
                end = ra_comm_range_begin(world, n, world->rank + 1);
        float *wanted = drawn(n, (uint64_t)world->rank + 10 * k), *got = ra_calloc((size_t)n + 1, sizeof *got);
        float *device = to_device(wanted, (size_t)n * sizeof *wanted);
        ra_comm_reduce_scatter_f32(world, wanted, n);
        ra_cuda_peers_reduce_scatter_f32(peers, device, n);
        ra_cuda_peers_wait(peers);
        to_host(got, device, (size_t)n * sizeof *got);
        if (memcmp(got + begin, wanted + begin, (size_t)(end - begin) * sizeof *got) != 0)
            bad = test_message("sums of %lld floats differ", (long long)n);
        ra_comm_all_gather_f32(world, wanted, n);
        ra_cuda_peers_all_gather_f32(peers, device, n);
        ra_cuda_peers_wait(peers);
        to_host(got, device, (size_t)n * sizeof *got);
        if (memcmp(got, wanted, (size_t)n * sizeof *got) != 0)
            bad = test_message("what is gathered of %lld floats differs", (long long)n);
        cudaFree(device);
        ra_free(wanted);
        ra_free(got);
    }
    ra_cuda_peers_close(peers);
    return bad;
}

/* A pipeline: each stage adds its number to what comes from the one before; then both directions at once between neighbours. */
static const char *test_neighbours(const ra_comm *world)
{
    enum { N = 1001 };
    int me = world->rank, last = world->size - 1;
    float x[N], back[N];
    const char *bad = NULL;
    ra_cuda_peers *peers;
    cudaStream_t stream;
    MPI_EXPECT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess, "no stream");
    MPI_EXPECT_OK(ra_cuda_peers_open(world, "pipeline", &peers));
    for (int i = 0; i < N; i++) x[i] = (float)i;
    float *device = to_device(x, sizeof x), *other = to_device(x, sizeof x);
    if (me > 0) {
        ra_cuda_peers_receive(peers, device, sizeof x, me - 1);
        ra_cuda_peers_before(peers, stream);
        MPI_EXPECT(cudaStreamSynchronize(stream) == cudaSuccess, "the stream failed");
        to_host(x, device, sizeof x);
        for (int i = 0; i < N; i++) x[i] += (float)me;
        cudaFree(device);
        device = to_device(x, sizeof x);
        ra_cuda_peers_after(peers, stream);
    }
    if (me < last) ra_cuda_peers_send(peers, device, sizeof x, me + 1);
    ra_cuda_peers_wait(peers);
    for (int i = 0; i < N; i++)
        if (x[i] != (float)(i + me * (me + 1) / 2)) bad = test_message("element %d of stage %d is %g", i, me, (double)x[i]);
    int partner = me ^ 1;
    if (partner <= last) {
        ra_cuda_peers_begin(peers);
        ra_cuda_peers_send(peers, device, sizeof x, partner);
        ra_cuda_peers_receive(peers, other, sizeof x, partner);
        ra_cuda_peers_end(peers);
        ra_cuda_peers_wait(peers);
        to_host(back, other, sizeof back);
        for (int i = 0; i < N; i++)
            if (back[i] != (float)(i + partner * (partner + 1) / 2))
                bad = test_message("element %d from %d is %g", i, partner, (double)back[i]);
    }
    cudaFree(device);
    cudaFree(other);
    ra_cuda_peers_close(peers);
    cudaStreamDestroy(stream);
    return bad;
}

/* Two sets of one rank at the same time, as a grid has: rows and columns of the ranks. */
static const char *test_two_dimensions(const ra_comm *world)
{
    int columns = world->size % 2 == 0 ? 2 : 1;
    ra_comm side[2];
    ra_cuda_peers *peers[2];
    for (int d = 0; d < 2; d++) {
        RA_MPI(MPI_Comm_split(world->comm, d ? world->rank % columns : world->rank / columns, world->rank, &side[d].comm));
        RA_MPI(MPI_Comm_rank(side[d].comm, &side[d].rank));
        RA_MPI(MPI_Comm_size(side[d].comm, &side[d].size));
        MPI_EXPECT_OK(ra_cuda_peers_open(&side[d], d ? "data" : "pipeline", &peers[d]));
    }
    enum { N = 50 };
    float x[N];
    for (int i = 0; i < N; i++) x[i] = (float)(world->rank + 1);
    float *device = to_device(x, sizeof x);
    for (int d = 0; d < 2; d++) {
        ra_cuda_peers_reduce_scatter_f32(peers[d], device, N);
        ra_cuda_peers_all_gather_f32(peers[d], device, N);
        ra_cuda_peers_wait(peers[d]);
    }
    to_host(x, device, sizeof x);
    for (int i = 0; i < N; i++)
        MPI_EXPECT(x[i] == (float)(world->size * (world->size + 1) / 2), "element %d of the sum over both is %g", i,
                   (double)x[i]);
    for (int d = 0; d < 2; d++) {
        ra_cuda_peers_close(peers[d]);
        RA_MPI(MPI_Comm_free(&side[d].comm));
    }
    cudaFree(device);
    return NULL;
}

int main(int argc, char **argv)
{
    static const test_mpi tests[] = {
        {"sums and gathering have the bits of MPI's", test_sums},
        {"neighbours", test_neighbours},
        {"a grid's two dimensions", test_two_dimensions},
    };
    return test_mpi_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
