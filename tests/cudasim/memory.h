/* Device memory of the execution model. */
#ifndef CUDASIM_MEMORY_H
#define CUDASIM_MEMORY_H
#include <cstddef>

namespace cudasim
{

/* Device memory may be touched between these two alone, where the processor can protect it (protection keys): host code that follows a device pointer
 * ends the program as it would with a GPU. Calls nest. */
void open_device_memory();
void close_device_memory();

struct device_memory_opened {
    device_memory_opened()
    {
        open_device_memory();
    }
    ~device_memory_opened()
    {
        close_device_memory();
    }
};

/* Ends the program unless [memory, memory + bytes) lies in one allocation. */
void check_device_range(const char *what, const void *memory, size_t bytes);
bool in_device_memory(const void *memory);

} // namespace cudasim

#endif
