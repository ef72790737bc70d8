/* Shared memory whose every access is watched: an element read or written through ra_shared_ptr<T> is checked for bounds, alignment, a value to
 * read, and races: two threads of a block at one cell, one of them writing, with neither a block barrier nor (in one warp) a __syncwarp between them. */
#ifndef CUDASIM_SHARED_H
#define CUDASIM_SHARED_H
#include "execution.h"

#include <type_traits>
#include <vector>

namespace cudasim
{

/* A cell is watched as one: the largest power of two, up to WIDEST_CELL bytes, that divides the elements of the array as it is declared. */
enum { WIDEST_CELL = 16 };

/* When and by whom: bits from the lowest on are how many read (see cell), thread, how many __syncwarp its warp has passed since the last barrier, how many
 * barriers and blocks there have been. */
enum { STAMP_THREAD = 2, STAMP_WARP = 7, STAMP_WARP_INTERVAL = 12, STAMP_INTERVAL = 32 };
extern uint64_t stamp, first_stamp; /* of an access made now; the least one of this block */
extern long until_switch;

/* Lets other threads run; this one stays ready. */
void give_way();

enum { ONE = 0, OF_WARP = 1, OF_BLOCK = 2 };
struct cell {
    uint64_t write; /* the last one */
    uint64_t
        read; /* the last one; in its lowest bits by whom there were reads in its intervals: ONE thread, several OF_WARP, or of the whole BLOCK */
};

static inline bool same_interval(uint64_t a, uint64_t b)
{
    return (a ^ b) >> STAMP_INTERVAL == 0;
}

static inline bool same_thread(uint64_t a, uint64_t b)
{
    return ((a ^ b) >> STAMP_THREAD & 1023) == 0;
}

/* Several threads of this warp are known to have read since its last __syncwarp. */
static inline bool seen_by_warp(uint64_t read)
{
    return (read & 3) == OF_WARP && (read ^ stamp) >> STAMP_WARP == 0;
}

class storage
{
  public:
    storage(const char *name, size_t element, size_t count); /* a static array: lives as long as the program */
    storage() = default;                                     /* dynamic shared memory */
    void resize(size_t bytes);
    storage *enter(const char *name, size_t element); /* at its declaration in a kernel, by every thread */
    char *data()
    {
        return bytes_.data();
    }
    void watch_write(int64_t offset, size_t bytes, size_t alignment)
    {
        begin(offset, bytes, alignment, true);
        for (cell *c = cells_ + (offset >> shift_), *end = c + (bytes >> shift_); c < end; c++) {
            bool unread = !same_interval(c->read, stamp) || (same_thread(c->read, stamp) && (c->read & 3) == ONE);
            if (!unread || (same_interval(c->write, stamp) && !same_thread(c->write, stamp))) judge_write(*c, offset);
            c->write = stamp;
        }
    }
    void watch_read(int64_t offset, size_t bytes, size_t alignment)
    {
        begin(offset, bytes, alignment, false);
        for (cell *c = cells_ + (offset >> shift_), *end = c + (bytes >> shift_); c < end; c++) {
            if (c->write < first_stamp || (same_interval(c->write, stamp) && !same_thread(c->write, stamp)))
                judge_read(*c, offset);
            if (!same_interval(c->read, stamp)) {
                c->read = stamp;
            } else if ((c->read & 3) != OF_BLOCK && c->read != stamp && !seen_by_warp(c->read)) {
                note_reader(*c);
            }
        }
    }

  private:
    void begin(int64_t offset, size_t bytes, size_t alignment, bool write)
    {
        if (--until_switch == 0) give_way();
        if ((uint64_t)offset >= size_ || size_ - (uint64_t)offset < bytes || ((uint64_t)offset & (alignment - 1)) != 0 ||
            bytes >> shift_ == 0)
            fail_place(offset, bytes, alignment, write);
    }
    [[noreturn]] void fail_place(int64_t offset, size_t bytes, size_t alignment, bool write) const;
    [[noreturn]] void fail_at(int64_t offset, const char *verb, const char *why, ...) const __attribute__((format(printf, 4, 5)));
    void judge_write(const cell &c, int64_t offset) const; /* returns where a __syncwarp orders the two */
    void judge_read(const cell &c, int64_t offset) const;
    static void note_reader(cell &c);
    const char *name_ = "";
    size_t element_ = 1, size_ = 0;
    unsigned shift_ = 0; /* log2 of a cell's bytes */
    unsigned launch_ = 0;
    bool fixed_ = false;
    cell *cells_ = nullptr;
    std::vector<char> bytes_;
    std::vector<cell> cell_;
};

extern storage dynamic_shared;

template <class T> class shared_ref
{
    using value_type = std::remove_const_t<T>;
    storage *in;
    int64_t offset;

    value_type get() const
    {
        in->watch_read(offset, sizeof(T), alignof(T));
        value_type value;
        memcpy(&value, in->data() + offset, sizeof value);
        return value;
    }
    void set(const value_type &value) const
    {
        static_assert(!std::is_const_v<T>, "write to shared memory declared const");
        in->watch_write(offset, sizeof(T), alignof(T));
        memcpy(in->data() + offset, &value, sizeof value);
    }

  public:
    shared_ref(storage *s, int64_t o) : in(s), offset(o)
    {
    }
    shared_ref(const shared_ref &) = default;
    operator value_type() const
    {
        return get();
    }
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
#define CUDASIM_COMPOUND(op)                                       \
    template <class V> const shared_ref &operator op##=(V v) const \
    {                                                              \
        set((value_type)(get() op v));                             \
        return *this;                                              \
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

template <class T> class shared_ptr
{
    storage *in = nullptr;
    int64_t offset = 0;
    template <class U> friend class shared_ptr;

  public:
    shared_ptr() = default;
    shared_ptr(storage *s, int64_t o) : in(s), offset(o)
    {
    }
    template <class U, class = std::enable_if_t<std::is_same_v<T, const U>>>
    shared_ptr(const shared_ptr<U> &p) : in(p.in), offset(p.offset)
    {
    }
    shared_ref<T> operator[](int64_t i) const
    {
        return {in, offset + i * (int64_t)sizeof(T)};
    }
    shared_ref<T> operator*() const
    {
        return {in, offset};
    }
    shared_ptr operator+(int64_t n) const
    {
        return {in, offset + n * (int64_t)sizeof(T)};
    }
    shared_ptr operator-(int64_t n) const
    {
        return {in, offset - n * (int64_t)sizeof(T)};
    }
    shared_ptr &operator+=(int64_t n)
    {
        offset += n * (int64_t)sizeof(T);
        return *this;
    }
    shared_ptr &operator-=(int64_t n)
    {
        return *this += -n;
    }
    void copy_async(const void *from, size_t bytes) const;
    template <class U> shared_ptr<U> cast(int64_t elements) const
    {
        return {in, offset + elements * (int64_t)sizeof(T)};
    }
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
