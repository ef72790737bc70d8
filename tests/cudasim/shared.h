/* Shared memory whose every access is watched: an element read or written through ra_shared_ptr<T> is checked for bounds, alignment, a value to
 * read, and races: two threads of a block at one cell, one of them writing, with neither a block barrier nor (in one warp) a __syncwarp between them. */
#ifndef CUDASIM_SHARED_H
#define CUDASIM_SHARED_H
#include "execution.h"

#include <type_traits>
#include <vector>

namespace cudasim {

enum { GRANULE = 2 }; /* bytes of a cell; a 1-byte element shares its cell with a neighbour's and is refused */

struct cell {
    uint32_t write_interval, write_warp_interval; /* of the last write */
    uint32_t read_interval, read_warp_interval;   /* of the last read */
    uint16_t writer, reader;                      /* threads */
    uint8_t readers;                              /* since then: 0 one thread, 1 several of a warp, 2 several warps */
};

class storage {
  public:
    storage(const char *name, size_t element, size_t count); /* a static array: lives as long as the program */
    storage() = default;                                     /* dynamic shared memory */
    void resize(size_t bytes);
    storage *enter(const char *name, size_t element); /* at its declaration in a kernel, by every thread */
    void watch(int64_t offset, size_t bytes, size_t alignment, bool write);
    char *data() { return bytes_.data(); }

  private:
    [[noreturn]] void fail_at(int64_t offset, const char *verb, const char *why, ...) const __attribute__((format(printf, 4, 5)));
    const char *name_ = "";
    size_t element_ = 1, size_ = 0;
    unsigned launch_ = 0;
    bool fixed_ = false;
    std::vector<char> bytes_;
    std::vector<cell> cell_;
};

extern storage dynamic_shared;

template <class T> class shared_ref {
    using value_type = std::remove_const_t<T>;
    storage *in;
    int64_t offset;

    value_type get() const
    {
        in->watch(offset, sizeof(T), alignof(T), false);
        value_type value;
        memcpy(&value, in->data() + offset, sizeof value);
        return value;
    }
    void set(const value_type &value) const
    {
        static_assert(!std::is_const_v<T>, "write to shared memory declared const");
        in->watch(offset, sizeof(T), alignof(T), true);
        memcpy(in->data() + offset, &value, sizeof value);
    }

  public:
    shared_ref(storage *s, int64_t o) : in(s), offset(o) {}
    shared_ref(const shared_ref &) = default;
    operator value_type() const { return get(); }
    const shared_ref &operator=(const value_type &value) const
    {
        set(value);
        return *this;
    }
    const shared_ref &operator=(const shared_ref &other) const
    {
        set(other.get());
        return *this;
    }
#define CUDASIM_COMPOUND(op)                                        \
    template <class V> const shared_ref &operator op##=(V v) const  \
    {                                                               \
        set((value_type)(get() op v));                              \
        return *this;                                               \
    }
    CUDASIM_COMPOUND(+)
    CUDASIM_COMPOUND(-)
    CUDASIM_COMPOUND(*)
    CUDASIM_COMPOUND(/)
    CUDASIM_COMPOUND(|)
    CUDASIM_COMPOUND(&)
    CUDASIM_COMPOUND(^)
#undef CUDASIM_COMPOUND
};

template <class T> class shared_ptr {
    storage *in = nullptr;
    int64_t offset = 0;
    template <class U> friend class shared_ptr;

  public:
    static_assert(sizeof(T) % GRANULE == 0, "elements of shared memory have an even number of bytes");
    shared_ptr() = default;
    shared_ptr(storage *s, int64_t o) : in(s), offset(o) {}
    template <class U, class = std::enable_if_t<std::is_same_v<T, const U>>> shared_ptr(const shared_ptr<U> &p) : in(p.in), offset(p.offset) {}
    shared_ref<T> operator[](int64_t i) const { return {in, offset + i * (int64_t)sizeof(T)}; }
    shared_ref<T> operator*() const { return {in, offset}; }
    shared_ptr operator+(int64_t n) const { return {in, offset + n * (int64_t)sizeof(T)}; }
    shared_ptr operator-(int64_t n) const { return {in, offset - n * (int64_t)sizeof(T)}; }
    shared_ptr &operator+=(int64_t n)
    {
        offset += n * (int64_t)sizeof(T);
        return *this;
    }
    shared_ptr &operator-=(int64_t n) { return *this += -n; }
    void copy_async(const void *from, size_t bytes) const;
    template <class U> shared_ptr<U> cast(int64_t elements) const { return {in, offset + elements * (int64_t)sizeof(T)}; }
};

/* Asynchronous copies to shared memory, for the emulation of cp.async (4, 8 or 16 bytes): what the copy brings is there after the wait; until then the cells hold
 * rubbish. `groups` of the wait: how many of the thread's newest groups may still be under way. */
void copy_async(storage *to, int64_t offset, const void *from, size_t bytes);
void copy_async_commit();
void copy_async_wait(int groups);

template <class T> void shared_ptr<T>::copy_async(const void *from, size_t bytes) const
{
    cudasim::copy_async(in, offset, from, bytes);
}

} // namespace cudasim

template <class T> using ra_shared_ptr = cudasim::shared_ptr<T>;

/* Bytes at `from` to the shared memory at `to`: 4, 8 or 16, both aligned to as many. */
template <class T> static inline void cudasim_copy_async(const ra_shared_ptr<T> &to, const void *from, size_t bytes)
{
    to.copy_async(from, bytes);
}
static inline void cudasim_copy_async_commit()
{
    cudasim::copy_async_commit();
}
static inline void cudasim_copy_async_wait(int groups)
{
    cudasim::copy_async_wait(groups);
}

template <class U, class T> static inline ra_shared_ptr<U> ra_shared_cast(const ra_shared_ptr<T> &p, int64_t offset)
{
    return p.template cast<U>(offset);
}

#endif
