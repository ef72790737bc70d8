/* The watch over shared memory. */
#include "shared.h"
#include "block.h"

namespace cudasim {

storage dynamic_shared;

storage::storage(const char *name, size_t element, size_t count) : name_(name), element_(element), size_(element * count), fixed_(true)
{
    resize(size_);
}

void storage::resize(size_t bytes)
{
    size_ = bytes;
    if (bytes_.size() < bytes) bytes_.resize(bytes);
    size_t cells = (bytes + GRANULE - 1) / GRANULE;
    if (cell_.size() < cells) cell_.resize(cells);
}

storage *storage::enter(const char *name, size_t element)
{
    name_ = name;
    element_ = element;
    if (launch_ != launch_number && fixed_) {
        shared_used += size_;
        if (shared_used > shared_limit) fail("shared array '%s': %zu bytes of shared memory, %zu allowed", name, shared_used, shared_limit);
    }
    launch_ = launch_number;
    return this;
}

static bool ordered(uint32_t interval, uint32_t warp_interval, int by, int self)
{
    if (interval != block.interval || by == self) return true;
    return by / WARP == self / WARP && warp_interval != block.warps[self / WARP].interval;
}

void storage::watch(int64_t offset, size_t bytes, size_t alignment, bool write)
{
    if (--until_switch == 0) give_way();
    long long index = (long long)(offset / (int64_t)element_);
    const char *verb = write ? "write to" : "read of";
    if (offset < 0 || (size_t)offset + bytes > size_) {
        fail("%s shared array '%s'[%lld] out of bounds: it has %zu elements of %zu bytes", verb, name_, index, size_ / element_, element_);
    }
    if ((size_t)offset % alignment != 0) {
        fail("%s shared array '%s' at byte %lld, which is not aligned to %zu", verb, name_, (long long)offset, alignment);
    }
    int self = block.current;
    uint32_t warp_interval = block.warps[self / WARP].interval;
    size_t last = ((size_t)offset + bytes - 1) / GRANULE;
    for (size_t i = (size_t)offset / GRANULE; i <= last; i++) {
        cell &c = cell_[i];
        bool written = c.write_interval >= block.first_interval;
        if (written && !ordered(c.write_interval, c.write_warp_interval, c.writer, self)) {
            fail("race: %s shared array '%s'[%lld], which thread %d wrote since the last barrier", verb, name_, index, c.writer);
        }
        if (write) {
            bool read_now = c.read_interval == block.interval;
            if (read_now && (c.readers == 2 || !ordered(c.read_interval, c.read_warp_interval, c.reader, self) ||
                             (c.readers == 1 && (c.reader / WARP != self / WARP || c.read_warp_interval == warp_interval)))) {
                fail("race: write to shared array '%s'[%lld], which %sthread %d read since the last barrier", name_, index,
                     c.readers ? "more threads and " : "", c.reader);
            }
            c.write_interval = block.interval;
            c.write_warp_interval = warp_interval;
            c.writer = (uint16_t)self;
            continue;
        }
        if (!written) fail("read of shared array '%s'[%lld], which nobody wrote in this block", name_, index);
        if (c.read_interval != block.interval) {
            c.readers = 0;
        } else if (c.reader / WARP != self / WARP) {
            c.readers = 2;
        } else if (c.read_warp_interval != warp_interval) {
            if (c.readers == 1) c.readers = 0;
        } else if (c.reader != self && c.readers == 0) {
            c.readers = 1;
        }
        c.read_interval = block.interval;
        c.read_warp_interval = warp_interval;
        c.reader = (uint16_t)self;
    }
}

void copy_async(storage *to, int64_t offset, const void *from, size_t bytes)
{
    if (bytes != 4 && bytes != 8 && bytes != 16) fail("an asynchronous copy of %zu bytes: 4, 8 or 16 are allowed", bytes);
    if ((uintptr_t)from % bytes != 0) fail("an asynchronous copy of %zu bytes from %p, which is not aligned to as many", bytes, from);
    to->watch(offset, bytes, bytes, true);
    memset(to->data() + offset, 0xff, bytes); /* a NaN, until the wait */
    thread &t = block.threads[block.current];
    pending_copy copy = {{to, offset}, {}, bytes, t.groups};
    memcpy(copy.bytes, from, bytes);
    t.copies.push_back(copy);
}

void copy_async_commit()
{
    block.threads[block.current].groups++;
}

void copy_async_wait(int groups)
{
    thread &t = block.threads[block.current];
    size_t kept = 0;
    for (size_t i = 0; i < t.copies.size(); i++) {
        const pending_copy c = t.copies[i];
        if (c.group >= t.groups - groups) {
            t.copies[kept++] = c;
            continue;
        }
        c.to.in->watch(c.to.offset, c.size, c.size, true);
        memcpy(c.to.in->data() + c.to.offset, c.bytes, c.size);
    }
    t.copies.resize(kept);
}

} // namespace cudasim
