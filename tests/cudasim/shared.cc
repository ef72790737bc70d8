/* The watch over shared memory. */
#include "shared.h"
#include "block.h"

#include <cstdarg>
#include <cstdio>

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

static bool read_before(const cell &c, unsigned self, uint32_t warp_interval)
{
    if (c.read_interval != block.interval) return true;
    if (c.readers == 2) return false;
    bool of_warp = c.reader / WARP == self / WARP;
    if (c.readers == 1) return of_warp && c.read_warp_interval != warp_interval;
    return c.reader == self || (of_warp && c.read_warp_interval != warp_interval);
}

static void note_read(cell &c, unsigned self, uint32_t warp_interval)
{
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

void storage::fail_at(int64_t offset, const char *verb, const char *why, ...) const
{
    char reason[200];
    va_list list;
    va_start(list, why);
    vsnprintf(reason, sizeof reason, why, list);
    va_end(list);
    long long index = offset < 0 ? -(long long)(((size_t)-offset + element_ - 1) / element_) : (long long)((size_t)offset / element_);
    fail("%s shared array '%s'[%lld]%s", verb, name_, index, reason);
}

void storage::watch(int64_t offset, size_t bytes, size_t alignment, bool write)
{
    if (--until_switch == 0) give_way();
    const char *verb = write ? "write to" : "read of";
    if (offset < 0 || (size_t)offset + bytes > size_)
        fail_at(offset, verb, " out of bounds: it has %zu elements of %zu bytes", size_ / element_, element_);
    if (((size_t)offset & (alignment - 1)) != 0)
        fail_at(offset, verb, ", at byte %lld, which is not aligned to %zu", (long long)offset, alignment);
    const unsigned self = (unsigned)block.current;
    const uint32_t warp_interval = block.warps[self / WARP].interval;
    const char *race = write ? "race: write to" : "race: read of";
    for (cell *c = &cell_[(size_t)offset / GRANULE], *last = c + (bytes - 1) / GRANULE; c <= last; c++) {
        bool written = c->write_interval >= block.first_interval;
        bool ordered = c->write_interval != block.interval || c->writer == self ||
                       (c->writer / WARP == self / WARP && c->write_warp_interval != warp_interval);
        if (written && !ordered) fail_at(offset, race, ", which thread %d wrote since the last barrier", c->writer);
        if (write) {
            if (!read_before(*c, self, warp_interval))
                fail_at(offset, race, ", which %sthread %d read since the last barrier", c->readers ? "other threads and " : "", c->reader);
            c->write_interval = block.interval;
            c->write_warp_interval = warp_interval;
            c->writer = (uint16_t)self;
        } else {
            if (!written) fail_at(offset, verb, ", which nobody wrote in this block");
            note_read(*c, self, warp_interval);
        }
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
