/* Which device this process computes on, and what a failed call means. */
#include "cuda.h"

#include <realign/log.h>

#include <stdio.h>
#include <stdlib.h>

/* What 8.0 and 9.0 give a block at least, and the tiles of attention are cut for; 8.6 and 8.9 have 99 KiB. */
enum { SHARED_NEEDED = 163 << 10 };

void ra_cuda_check(cudaError_t status, const char *call, const char *file, int line)
{
    if (status != cudaSuccess)
        ra_die("%s:%d: %s: %s (%s)", file, line, call, cudaGetErrorString(status), cudaGetErrorName(status));
}

/* The error is asked for again, so that the next call of somebody else does not find it. */
static int count_devices(cudaError_t *status)
{
    int devices = 0;
    *status = cudaGetDeviceCount(&devices);
    if (*status == cudaSuccess) return devices;
    (void)cudaGetLastError();
    return 0;
}

/* This process among those of its host. */
typedef struct {
    int rank, size;
} local_ranks;

/* The launcher's word. Not asked of MPI: splitting a communicator is for all ranks together, and a backend may be opened by some alone (a corrector's, by the
 * stages of one replica, when they first need it). */
static local_ranks find_local_ranks(void)
{
    static const struct {
        const char *rank, *size;
    } known[] = {{"OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
                 {"MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"},
                 {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
                 {"PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"},
                 {"SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"}}; /* "4(x2)": the first host's */
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *rank = getenv(known[i].rank), *size = getenv(known[i].size);
        if (!rank || !*rank) continue;
        local_ranks here = {atoi(rank), size ? atoi(size) : 1};
        if (here.rank < 0) here.rank = 0;
        if (here.size < 1) here.size = 1;
        return here;
    }
    return (local_ranks){0, 1};
}

/* Ranks take devices in turn. */
static int sharing(local_ranks here, int devices, int device)
{
    int more = here.size % devices > device;
    int ranks = here.size / devices + more;
    return ranks > 0 ? ranks : 1;
}

/* Whether the kernels run on it: machine code for 8.0 runs on 8.x, that for 9.0a on 9.0 alone. */
static ra_err check_device(int device)
{
    struct cudaDeviceProp properties;
    int shared = 0;
    cudaError_t status = cudaGetDeviceProperties(&properties, device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        return ra_fail(RA_ERR_UNSUPPORTED, "CUDA device %d does not say what it is: %s (%s)", device, cudaGetErrorString(status),
                       cudaGetErrorName(status));
    }
    if (properties.major != 8 && !(properties.major == 9 && properties.minor == 0)) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "CUDA device %d is %s, compute capability %d.%d; the kernels are compiled for 8.0 and 9.0", device,
                       properties.name, properties.major, properties.minor);
    }
    if (shared < SHARED_NEEDED) {
        return ra_fail(
            RA_ERR_UNSUPPORTED,
            "CUDA device %d is %s, compute capability %d.%d, with %d KiB of shared memory a block; the kernels take up to "
            "%d KiB, which 8.0 and 9.0 have",
            device, properties.name, properties.major, properties.minor, shared >> 10, SHARED_NEEDED >> 10);
    }
    return RA_OK;
}

/* No GPU, or no driver. A driver that is there and too old for the runtime gives the same error as none. */
static bool nothing_there(cudaError_t status)
{
    int driver = 0;
    if (status == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) != cudaSuccess) (void)cudaGetLastError();
    return status == cudaSuccess || status == cudaErrorNoDevice || (status == cudaErrorInsufficientDriver && driver == 0);
}

bool ra_cuda_device_present(void)
{
    cudaError_t status;
    int devices = count_devices(&status);
    if (devices == 0) {
        if (!nothing_there(status))
            ra_warn("backend auto: no CUDA, as its runtime fails: %s (%s)", cudaGetErrorString(status), cudaGetErrorName(status));
        return false;
    }
    /* whichever of them this rank will be given */
    for (int device = 0; device < devices; device++) {
        if (check_device(device) == RA_OK) continue;
        ra_warn("backend auto: no CUDA: %s", ra_error_message());
        return false;
    }
    return true;
}

/* What this rank may count on: modules, libraries and their workspaces come out of what is free too. */
static size_t capacity_of(int ranks)
{
    size_t available, total, reserve = (size_t)1 << 30;
    RA_CUDA(cudaMemGetInfo(&available, &total));
    if (reserve > available / 8) reserve = available / 8;
    return (available - reserve) / (size_t)ranks;
}

ra_err ra_cuda_device_open(ra_cuda_state *s)
{
    cudaError_t status;
    local_ranks here = find_local_ranks();
    int devices = count_devices(&status);
    if (devices == 0) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "no CUDA device here: %s; a GPU, its driver and CUDA_VISIBLE_DEVICES are what to look at",
                       status == cudaSuccess ? "the runtime counts 0" : cudaGetErrorString(status));
    }
    s->device = here.rank % devices;
    RA_TRY(check_device(s->device));
    status = cudaSetDevice(s->device);
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        return ra_fail(RA_ERR_UNSUPPORTED, "CUDA device %d of %d (rank %d on this host): %s", s->device, devices, here.rank,
                       cudaGetErrorString(status));
    }
    int ranks = sharing(here, devices, s->device);
    if (here.rank == 0 && here.size > devices) {
        ra_warn("%d ranks on this host share %d CUDA device%s: they wait for each other, and each has its part of the memory",
                here.size, devices, devices == 1 ? "" : "s");
    }
    s->b->memory.capacity = capacity_of(ranks);
    struct cudaDeviceProp properties;
    char products[64];
    RA_CUDA(cudaGetDeviceProperties(&properties, s->device));
    ra_cuda_products_version(products, sizeof products);
    snprintf(s->library, sizeof s->library, "%s, %s, device %d of %d", products, properties.name, s->device, devices);
    return RA_OK;
}
