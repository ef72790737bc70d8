/* The cache of verdicts: segments on disk, a table in memory. */
#define _GNU_SOURCE /* O_CLOEXEC */
#include <realign/verdicts.h>

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/timer.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* All fields in the byte order of the writer, which the head tells. */
typedef struct {
    uint64_t high, low; /* the question */
    float probability, margin;
    int16_t rule;
    int8_t compliant;
    uint8_t unused;
    uint32_t oracle;
    uint64_t checksum; /* of the bytes before it */
} record;

typedef struct {
    char magic[8];
    uint32_t version, record_size, byte_order, pid;
    int64_t created; /* seconds since 1970 */
    uint64_t checksum;
} head;
_Static_assert(sizeof(record) == 40 && sizeof(head) == sizeof(record), "segments are rows of 40 bytes");

static const char magic[8] = {'R', 'A', 'V', 'E', 'R', 'D', 'C', 'T'}, suffix[] = ".verdicts";
enum { VERSION = 1, BYTE_ORDER_MARK = 0x01020304, READ_RECORDS = 4096, LEAST_SLOTS = 1024 };
static const double sync_interval_s = 5.0, sync_after_s = 1.0;

typedef struct {
    char *name;
    int64_t read; /* bytes that are done with */
    bool pending; /* there are more, but no sound record yet */
    bool foreign;
} segment;

typedef struct {
    uint64_t high, low;
    ra_verdict verdict;
    bool used;
} slot;

typedef struct {
    uint32_t oracle;
    int64_t records, compliant;
} tag;

struct ra_verdicts {
    char *dir;
    segment *segment;
    int n_segments;
    slot *slot; /* open addressing, a power of two of them */
    size_t slots;
    tag *tag; /* in ascending order */
    int n_tags;
    ra_verdicts_counts counts;
    char *own; /* name of the own segment; NULL: nothing was added yet */
    int file;
    double read_at, synced_at;
    bool dirty;  /* written, not yet synced */
    bool broken; /* a row was cut: nothing may follow it */
};

static uint64_t checksum_of(const void *row)
{
    return ra_hash_bytes(row, sizeof(record) - sizeof(uint64_t)).low;
}

/* ---- the table ---- */
static slot *find_slot(const ra_verdicts *v, uint64_t high, uint64_t low)
{
    size_t at = (size_t)low & (v->slots - 1);
    while (v->slot[at].used && (v->slot[at].high != high || v->slot[at].low != low)) at = (at + 1) & (v->slots - 1);
    return &v->slot[at];
}

static void grow(ra_verdicts *v)
{
    slot *old = v->slot;
    size_t n = v->slots;
    v->slots = n ? 2 * n : LEAST_SLOTS;
    v->slot = ra_calloc(v->slots, sizeof *v->slot);
    for (size_t i = 0; i < n; i++) {
        if (old[i].used) *find_slot(v, old[i].high, old[i].low) = old[i];
    }
    ra_free(old);
}

static int order(const ra_verdict *a, const ra_verdict *b)
{
    if (a->compliant != b->compliant) return a->compliant - b->compliant;
    if (a->probability != b->probability) return a->probability < b->probability ? -1 : 1;
    if (a->margin != b->margin) return a->margin < b->margin ? -1 : 1;
    return a->rule - b->rule;
}

static void count_tag(ra_verdicts *v, uint32_t oracle, bool compliant)
{
    int at = 0;
    while (at < v->n_tags && v->tag[at].oracle < oracle) at++;
    if (at == v->n_tags || v->tag[at].oracle != oracle) {
        v->tag = ra_realloc(v->tag, (size_t)v->n_tags + 1, sizeof *v->tag);
        memmove(&v->tag[at + 1], &v->tag[at], (size_t)(v->n_tags - at) * sizeof *v->tag);
        v->tag[at] = (tag){.oracle = oracle};
        v->n_tags++;
    }
    v->tag[at].records++;
    v->tag[at].compliant += compliant;
}

/* Two writers may have asked the same at the same time and heard different answers. Which one is kept must not depend on the order of reading. */
static void insert(ra_verdicts *v, const record *r)
{
    if ((size_t)v->counts.distinct * 2 >= v->slots) grow(v);
    const ra_verdict verdict = {r->compliant, r->rule, r->probability, r->margin};
    slot *at = find_slot(v, r->high, r->low);
    v->counts.records++;
    count_tag(v, r->oracle, r->compliant == 1);
    if (at->used) {
        v->counts.contradictory += at->verdict.compliant != verdict.compliant;
        if (order(&verdict, &at->verdict) >= 0) return;
        v->counts.compliant -= at->verdict.compliant;
    } else {
        v->counts.distinct++;
    }
    *at = (slot){r->high, r->low, verdict, true};
    v->counts.compliant += verdict.compliant;
}

bool ra_verdicts_find(const ra_verdicts *v, ra_hash question, ra_verdict *out)
{
    const slot *at = find_slot(v, question.high, question.low);
    if (at->used) *out = at->verdict;
    return at->used;
}

/* ---- reading ---- */
static bool is_sound(const record *r)
{
    return r->checksum == checksum_of(r) && (r->compliant == 0 || r->compliant == 1);
}

/* Rows from s->read on. A row that is not sound counts as damaged only where a sound one follows: the last ones may be on their way, and are looked at
 * again next time. */
static void take_rows(ra_verdicts *v, segment *s, const record *row, int n, int64_t *behind)
{
    for (int i = 0; i < n; i++) {
        if (!is_sound(&row[i])) {
            ++*behind;
            continue;
        }
        v->counts.damaged += *behind;
        s->read += (*behind + 1) * (int64_t)sizeof *row;
        *behind = 0;
        insert(v, &row[i]);
    }
}

static bool read_head(segment *s, int file, int64_t size)
{
    head h;
    if (s->read > 0 || s->foreign) return !s->foreign;
    s->pending = true;
    if (size < (int64_t)sizeof h || pread(file, &h, sizeof h, 0) != (ssize_t)sizeof h) return false;
    s->pending = false;
    s->foreign = memcmp(h.magic, magic, sizeof magic) != 0 || h.version != VERSION || h.record_size != sizeof(record) ||
                 h.byte_order != BYTE_ORDER_MARK || h.checksum != checksum_of(&h);
    if (!s->foreign) s->read = sizeof h;
    return !s->foreign;
}

static ra_err read_segment(ra_verdicts *v, segment *s)
{
    char *path = ra_path_join(v->dir, s->name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    ra_err err = RA_OK;
    if (file < 0 || fstat(file, &info) != 0) {
        if (errno != ENOENT && errno != ESTALE)
            err = ra_fail(RA_ERR_IO, "%s: %m", path); /* taken away since the directory was read */
    } else if (info.st_size > s->read && read_head(s, file, (int64_t)info.st_size)) {
        record *rows = ra_alloc(READ_RECORDS, sizeof *rows);
        int64_t behind = 0;
        for (off_t at = s->read;;) {
            ssize_t got = pread(file, rows, READ_RECORDS * sizeof *rows, at);
            if (got < 0) err = ra_fail(RA_ERR_IO, "%s: %m", path);
            int n = got < 0 ? 0 : (int)((size_t)got / sizeof *rows);
            take_rows(v, s, rows, n, &behind);
            at += (off_t)((size_t)n * sizeof *rows);
            if (n == 0) break;
        }
        s->pending = info.st_size > s->read;
        ra_free(rows);
    }
    if (file >= 0) close(file);
    free(path);
    return err;
}

static bool is_segment(const char *name)
{
    size_t n = strlen(name), m = sizeof suffix - 1;
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static segment *segment_called(ra_verdicts *v, const char *name)
{
    for (int i = 0; i < v->n_segments; i++) {
        if (strcmp(v->segment[i].name, name) == 0) return &v->segment[i];
    }
    v->segment = ra_realloc(v->segment, (size_t)v->n_segments + 1, sizeof *v->segment);
    v->segment[v->n_segments] = (segment){.name = ra_strdup(name)};
    return &v->segment[v->n_segments++];
}

static ra_err read_all(ra_verdicts *v)
{
    DIR *dir = opendir(v->dir);
    if (!dir) return errno == ENOENT ? RA_OK : ra_fail(RA_ERR_IO, "%s: %m", v->dir);
    ra_err err = RA_OK;
    for (struct dirent *entry; err == RA_OK && (entry = readdir(dir));) {
        if (!is_segment(entry->d_name) || (v->own && strcmp(v->own, entry->d_name) == 0)) continue;
        err = read_segment(v, segment_called(v, entry->d_name));
    }
    closedir(dir);
    v->read_at = ra_now();
    return err;
}

bool ra_verdicts_is_cache(const char *path)
{
    DIR *dir = opendir(path);
    bool found = false;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) found = is_segment(entry->d_name);
    if (dir) closedir(dir);
    return found;
}

ra_err ra_verdicts_open(const char *dir, ra_verdicts **out)
{
    ra_verdicts *v = ra_calloc(1, sizeof *v);
    v->dir = ra_strdup(dir);
    v->file = -1;
    grow(v);
    ra_err err = read_all(v);
    *out = v;
    if (err == RA_OK) return RA_OK;
    ra_verdicts_close(v);
    *out = NULL;
    return err;
}

/* ---- writing ---- */
/* A name of its own on any node and in any job; the file system has the last word. */
static ra_err make_own(ra_verdicts *v)
{
    char host[64] = "";
    gethostname(host, sizeof host - 1);
    RA_TRY(ra_dir_make(v->dir));
    for (int attempt = 0; attempt < 100 && v->file < 0; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        free(v->own);
        v->own = ra_format("%.60s-%ld-%llx%s", host, (long)getpid(),
                           (unsigned long long)now.tv_sec * 1000000000ULL + (unsigned long long)now.tv_nsec, suffix);
        char *path = ra_path_join(v->dir, v->own);
        v->file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
        if (v->file < 0 && errno != EEXIST) attempt = 100;
        free(path);
    }
    if (v->file < 0) return ra_fail(RA_ERR_IO, "%s/%s: %m", v->dir, v->own);
    v->synced_at = ra_now();
    v->counts.segments++;
    return RA_OK;
}

static ra_err append(ra_verdicts *v, const void *row)
{
    ssize_t written;
    do written = write(v->file, row, sizeof(record));
    while (written < 0 && errno == EINTR);
    v->dirty = true;
    if (written == (ssize_t)sizeof(record)) return RA_OK;
    v->broken = true;
    if (written >= 0) errno = ENOSPC; /* a short write to a file is a full disk or quota */
    return ra_fail(RA_ERR_IO, "%s/%s: write failed: %m", v->dir, v->own);
}

static ra_err sync_own(ra_verdicts *v, double older_than)
{
    double now = ra_now();
    if (!v->dirty || now - v->synced_at < older_than) return RA_OK;
    v->dirty = false;
    v->synced_at = now;
    return fdatasync(v->file) == 0 ? RA_OK : ra_fail(RA_ERR_IO, "%s/%s: %m", v->dir, v->own);
}

ra_err ra_verdicts_add(ra_verdicts *v, ra_hash question, uint32_t oracle, const ra_verdict *verdict)
{
    if (v->broken) return ra_fail(RA_ERR_IO, "%s/%s: an earlier write failed", v->dir, v->own);
    if (v->file < 0) {
        RA_TRY(make_own(v));
        head h = {.version = VERSION,
                  .record_size = sizeof(record),
                  .byte_order = BYTE_ORDER_MARK,
                  .pid = (uint32_t)getpid(),
                  .created = (int64_t)time(NULL)};
        memcpy(h.magic, magic, sizeof magic);
        h.checksum = checksum_of(&h);
        RA_TRY(append(v, &h));
    }
    record r = {.high = question.high,
                .low = question.low,
                .probability = verdict->probability,
                .margin = verdict->margin,
                .rule = verdict->rule,
                .compliant = verdict->compliant,
                .oracle = oracle};
    r.checksum = checksum_of(&r);
    insert(v, &r);
    RA_TRY(append(v, &r));
    return sync_own(v, sync_interval_s);
}

ra_err ra_verdicts_refresh(ra_verdicts *v, double seconds)
{
    RA_TRY(sync_own(v, sync_after_s));
    return ra_now() - v->read_at < seconds ? RA_OK : read_all(v);
}

ra_err ra_verdicts_close(ra_verdicts *v)
{
    if (!v) return RA_OK;
    ra_err err = sync_own(v, 0.0);
    if (v->file >= 0 && close(v->file) != 0 && err == RA_OK) err = ra_fail(RA_ERR_IO, "%s/%s: %m", v->dir, v->own);
    for (int i = 0; i < v->n_segments; i++) free(v->segment[i].name);
    free(v->segment);
    free(v->tag);
    free(v->own);
    free(v->dir);
    ra_free(v->slot);
    ra_free(v);
    return err;
}

/* ---- counts ---- */
ra_verdicts_counts ra_verdicts_count(const ra_verdicts *v)
{
    ra_verdicts_counts c = v->counts;
    for (int i = 0; i < v->n_segments; i++) {
        c.segments += !v->segment[i].foreign;
        c.foreign += v->segment[i].foreign;
        c.torn += v->segment[i].pending;
    }
    return c;
}

void ra_verdicts_each_oracle(const ra_verdicts *v,
                             void (*visit)(void *context, uint32_t oracle, int64_t records, int64_t compliant), void *context)
{
    for (int i = 0; i < v->n_tags; i++) visit(context, v->tag[i].oracle, v->tag[i].records, v->tag[i].compliant);
}
