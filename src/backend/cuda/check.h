/* A CUDA call that fails ends the program: arguments are checked before, so it means a broken device, lost memory or a mistake of ours. */
#ifndef RA_BACKEND_CUDA_CHECK_H
#define RA_BACKEND_CUDA_CHECK_H
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif
void ra_cuda_check(cudaError_t status, const char *call, const char *file, int line);
#ifdef __cplusplus
}
#endif

#define RA_CUDA(call) ra_cuda_check((call), #call, __FILE__, __LINE__)

#endif
