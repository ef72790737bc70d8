/* The watch over shared memory. */
#include "shared.h"
#include "block.h"

#include <cstdarg>
#include <cstdio>

namespace cudasim
{

storage dynamic_shared;

storage::storage(const char *name, size_t element, size_t count) : name_(name), element_(element), fixed_(true)
{
    resize(element * count);
}

void storage::resize(size_t bytes)
{
    size_ = bytes;
    if (bytes_.size() < bytes) {
        bytes_.resize(bytes);
        cell_.resize(bytes);
        cells_ = cell_.data();
    }
}

storage *storage::enter(const char *name, size_t element)
{
    if (launch_ == launch_number) {
        if (element != element_)
            fail("shared array '%s' is declared with elements of %zu and of %zu bytes", name, element_, element);
        return this;
    }
    launch_ = launch_number;
    name_ = name;
    element_ = element;
    for (shift_ = 0; element % ((size_t)2 << shift_) == 0 && (2 << shift_) <= WIDEST_CELL;) shift_++;
    if (fixed_) {
        shared_used += size_;
        if (shared_used > shared_limit)
            fail("shared array '%s': %zu bytes of shared memory, %zu allowed", name, shared_used, shared_limit);
    }
    return this;
}

static bool same_warp(uint64_t a, uint64_t b)
{
    return ((a ^ b) >> STAMP_WARP & 31) == 0;
}

static bool same_warp_interval(uint64_t a, uint64_t b)
{
    return (a ^ b) >> STAMP_WARP_INTERVAL == 0;
}

static int thread_of(uint64_t a)
{
    return (int)(a >> STAMP_THREAD & 1023);
}

void storage::fail_at(int64_t offset, const char *verb, const char *why, ...) const
{
    char reason[200];
    va_list list;
    va_start(list, why);
    vsnprintf(reason, sizeof reason, why, list);
    va_end(list);
    long long index =
        offset < 0 ? -(long long)(((size_t)-offset + element_ - 1) / element_) : (long long)((size_t)offset / element_);
    fail("%s shared array '%s'[%lld]%s", verb, name_, index, reason);
}

void storage::fail_place(int64_t offset, size_t bytes, size_t alignment, bool write) const
{
    const char *verb = write ? "write to" : "read of";
    if (bytes >> shift_ == 0)
        fail_at(offset, verb, ": %zu bytes of an element of %zu; declare the array with the smallest type it is used as", bytes,
                element_);
    if (((size_t)offset & (alignment - 1)) != 0)
        fail_at(offset, verb, ", at byte %lld, which is not aligned to %zu", (long long)offset, alignment);
    fail_at(offset, verb, " out of bounds: it has %zu elements of %zu bytes", size_ / element_, element_);
}

void storage::judge_write(const cell &c, int64_t offset) const
{
    if (same_interval(c.write, stamp) && !same_thread(c.write, stamp) &&
        !(same_warp(c.write, stamp) && !same_warp_interval(c.write, stamp)))
        fail_at(offset, "race: write to", ", which thread %d wrote since the last barrier", thread_of(c.write));
    if (!same_interval(c.read, stamp)) return;
    bool one = (c.read & 3) == ONE && same_thread(c.read, stamp);
    bool ordered = (c.read & 3) != OF_BLOCK && same_warp(c.read, stamp) && !same_warp_interval(c.read, stamp);
    if (!one && !ordered)
        fail_at(offset, "race: write to", ", which %sthread %d read since the last barrier",
                (c.read & 3) == ONE ? "" : "other threads and ", thread_of(c.read));
}

void storage::judge_read(const cell &c, int64_t offset) const
{
    if (c.write < first_stamp) fail_at(offset, "read of", ", which nobody wrote in this block");
    if (!(same_warp(c.write, stamp) && !same_warp_interval(c.write, stamp)))
        fail_at(offset, "race: read of", ", which thread %d wrote since the last barrier", thread_of(c.write));
}

/* Another read in the same interval, by another thread or after a __syncwarp. */
void storage::note_reader(cell &c)
{
    if (!same_warp(c.read, stamp)) {
        c.read = stamp | OF_BLOCK;
    } else if (!same_warp_interval(c.read, stamp)) {
        c.read =
            stamp; /* what the warp read before is ordered before whatever it does now, and for other warps one reader is as bad as many */
    } else if (!same_thread(c.read, stamp)) {
        c.read = stamp | OF_WARP;
    }
}

void copy_async(storage *to, int64_t offset, const void *from, size_t bytes)
{
    if (bytes != 4 && bytes != 8 && bytes != 16) fail("an asynchronous copy of %zu bytes: 4, 8 or 16 are allowed", bytes);
    if ((uintptr_t)from % bytes != 0)
        fail("an asynchronous copy of %zu bytes from %p, which is not aligned to as many", bytes, from);
    to->watch_write(offset, bytes, bytes);
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
        c.to.in->watch_write(c.to.offset, c.size, c.size);
        memcpy(c.to.in->data() + c.to.offset, c.bytes, c.size);
    }
    t.copies.resize(kept);
}

} // namespace cudasim
