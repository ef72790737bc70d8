/* Which device this process computes on, and what a failed call means. */
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>

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

bool ra_cuda_device_present(void)
{
    cudaError_t status;
    return count_devices(&status) > 0;
}

/* As the launcher of the ranks says; 0 where none does. */
static int local_rank(void)
{
    static const char *const name[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                       "SLURM_LOCALID"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        const char *text = getenv(name[i]);
        if (text && *text) return atoi(text);
    }
    return 0;
}

ra_err ra_cuda_device_open(ra_cuda_state *s)
{
    cudaError_t status;
    int devices = count_devices(&status), rank = local_rank();
    if (devices == 0) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "no CUDA device here: %s; a GPU, its driver and CUDA_VISIBLE_DEVICES are what to look at",
                       status == cudaSuccess ? "the runtime counts 0" : cudaGetErrorString(status));
    }
    s->device = (rank < 0 ? 0 : rank) % devices;
    status = cudaSetDevice(s->device);
    if (status != cudaSuccess) {
        return ra_fail(RA_ERR_UNSUPPORTED, "CUDA device %d of %d (rank %d on this host): %s", s->device, devices, rank,
                       cudaGetErrorString(status));
    }
    struct cudaDeviceProp properties;
    RA_CUDA(cudaGetDeviceProperties(&properties, s->device));
    /* machine code for 8.0 runs on 8.x; that for 9.0a on 9.0 alone */
    if (properties.major != 8 && !(properties.major == 9 && properties.minor == 0)) {
        return ra_fail(RA_ERR_UNSUPPORTED,
                       "CUDA device %d is %s, compute capability %d.%d; the kernels are compiled for 8.x and 9.0", s->device,
                       properties.name, properties.major, properties.minor);
    }
    char products[64];
    ra_cuda_products_version(products, sizeof products);
    snprintf(s->library, sizeof s->library, "%s, %s, device %d of %d", products, properties.name, s->device, devices);
    return RA_OK;
}
