/* Devices, streams, copies and launches of the execution model. Everything runs at once, in the order of the calls. Copies from pinned host memory
 * are watched until the next synchronisation, as the real ones may read it until then. */
#include "block.h"
#include "memory.h"
#include "shared.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <vector>

struct copy_under_way {
    const void *from;
    std::vector<char> was;
};

struct cudasim_stream {
    std::vector<copy_under_way> copies;
    size_t ended; /* copies that a synchronisation has seen */
};

struct cudasim_event {
    cudaStream_t stream;
    size_t copies; /* of the stream, when it was recorded */
};

namespace cudasim
{

enum {
    DEFAULT_SHARED = 48 * 1024,
    MOST_SHARED = 163 * 1024,
    SIDE = 65535
}; /* the most that sm_80 has, which is less than sm_90 */
static std::map<const void *, size_t> &allowed_shared = *new std::map<const void *, size_t>;
static std::map<uintptr_t, size_t> &pinned = *new std::map<uintptr_t, size_t>;

void run_blocks(dim3 grid, dim3 size, void (*body)(void *), void *context);

void run(const char *name, const void *entry, dim3 grid, dim3 size, size_t shared_bytes, void (*body)(void *), void *context)
{
    if (block.count && block.current >= 0) fail("launches %s: kernels do not launch kernels here", name);
    kernel_name = name;
    blockIdx = {0, 0, 0};
    block.current = -1;
    uint64_t threads = (uint64_t)size.x * size.y * size.z;
    if (!threads || threads > MOST_THREADS || size.z > 64) fail("a block of (%u, %u, %u) threads", size.x, size.y, size.z);
    if (threads % WARP != 0)
        fail("a block of %llu threads: only whole warps of %d are understood", (unsigned long long)threads, WARP);
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > SIDE || grid.z > SIDE)
        fail("a grid of (%u, %u, %u) blocks; at most (2147483647, %d, %d), and none of them 0", grid.x, grid.y, grid.z, SIDE,
             SIDE);
    auto asked = allowed_shared.find(entry);
    size_t allowed = asked == allowed_shared.end() ? (size_t)DEFAULT_SHARED : asked->second;
    if (shared_bytes > allowed) {
        fail("%zu bytes of dynamic shared memory; %zu are allowed (cudaFuncSetAttribute raises that, up to %d)", shared_bytes,
             allowed, (int)MOST_SHARED);
    }
    launch_number++;
    shared_limit = allowed > DEFAULT_SHARED ? (size_t)MOST_SHARED : (size_t)DEFAULT_SHARED;
    shared_used = shared_bytes;
    dynamic_shared.resize(shared_bytes);
    device_memory_opened open;
    run_blocks(grid, size, body, context);
    kernel_name = NULL;
}

static bool is_pinned(const void *memory)
{
    auto after = pinned.upper_bound((uintptr_t)memory);
    if (after == pinned.begin()) return false;
    --after;
    return (uintptr_t)memory < after->first + after->second;
}

/* The first `count` copies of the stream have ended: what they read must be as it was. */
static void end_copies(cudaStream_t stream, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const copy_under_way &c = stream->copies[i];
        if (memcmp(c.from, c.was.data(), c.was.size()) == 0) continue;
        fprintf(stderr, "cudasim: pinned host memory at %p changed while a copy of %zu bytes from it was under way\n", c.from,
                c.was.size());
        abort();
    }
    stream->copies.erase(stream->copies.begin(), stream->copies.begin() + (long)count);
    stream->ended += count;
}

static std::set<cudaStream_t> &streams = *new std::set<cudaStream_t>;

static void copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) check_device_range("copy to", to, bytes);
    if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) check_device_range("copy from", from, bytes);
    device_memory_opened open;
    memmove(to, from, bytes);
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError: return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    return cudaGetErrorName(error);
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess; /* what a launch gets wrong has ended the program */
}

/* CUDASIM_DEVICES: how many there seem to be; -1: no driver, -2: one too old, -3: CUDA does not start. */
static int devices()
{
    return getenv("CUDASIM_DEVICES") ? atoi(getenv("CUDASIM_DEVICES")) : 1;
}

/* CUDASIM_CAPABILITY: ten times the compute capability, 80 unless it is set. */
static int capability()
{
    return getenv("CUDASIM_CAPABILITY") ? atoi(getenv("CUDASIM_CAPABILITY")) : 80;
}

/* 8.6 and 8.9 have less. */
static int shared_of_a_block()
{
    return capability() == 86 || capability() == 89 ? 99 * 1024 : (int)MOST_SHARED;
}

static int current_device;

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = devices() == -1 ? 0 : devices() == -2 ? 11000 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = devices() > 0 ? devices() : 0;
    return devices() > 0    ? cudaSuccess
           : devices() == 0 ? cudaErrorNoDevice
           : devices() < -2 ? cudaErrorInitializationError
                            : cudaErrorInsufficientDriver;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = capability() / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = capability() % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_of_a_block(); return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    size_t available;
    if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "host execution model");
    properties->major = capability() / 10;
    properties->minor = capability() % 10;
    properties->multiProcessorCount = 4;
    return cudaMemGetInfo(&available, &properties->totalGlobalMem);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new cudasim_stream();
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (stream) end_copies(stream, stream->copies.size());
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return cudaStreamSynchronize(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
    for (cudaStream_t stream : streams) end_copies(stream, stream->copies.size());
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new cudasim_event();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->stream = stream;
    event->copies = stream ? stream->ended + stream->copies.size() : 0;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    cudaStream_t stream = event->stream;
    if (stream && streams.count(stream) && event->copies > stream->ended) end_copies(stream, event->copies - stream->ended);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    *memory = malloc(bytes);
    if (!*memory) return cudaErrorMemoryAllocation;
    pinned[(uintptr_t)*memory] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    if (!memory) return cudaSuccess;
    cudaDeviceSynchronize();
    if (!pinned.erase((uintptr_t)memory)) return cudaErrorInvalidValue;
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    copy(to, from, bytes, kind);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    copy(to, from, bytes, kind);
    if (kind == cudaMemcpyHostToDevice && stream && is_pinned(from))
        stream->copies.push_back({from, std::vector<char>((const char *)from, (const char *)from + bytes)});
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    check_device_range("memset of", memory, bytes);
    device_memory_opened open;
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t)
{
    return cudaMemset(memory, value, bytes);
}

cudaError_t cudaMemset2DAsync(void *memory, size_t pitch, int value, size_t width, size_t height, cudaStream_t)
{
    for (size_t row = 0; row < height; row++) cudaMemset((char *)memory + row * pitch, value, width);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > MOST_SHARED) return cudaErrorInvalidValue;
    allowed_shared[function] = (size_t)value;
    return cudaSuccess;
}
}
