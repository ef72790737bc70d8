/* Verdicts kept on disk, so that nothing is asked twice. A cache is a directory of segments; each writer appends to a segment of its own, so that ranks and jobs share
 * a directory without locks, on network file systems too. A segment is a row of records of one size, each with a checksum: a torn tail is left alone, a
 * damaged record is passed over and counted. doc/oracles.md has the format. Not collective throughout; one thread at a time. */
#ifndef REALIGN_VERDICTS_H
#define REALIGN_VERDICTS_H
#include <realign/error.h>
#include <realign/hash.h>
#include <realign/oracle.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_verdicts ra_verdicts;

typedef struct {
    int64_t segments;      /* that could be read */
    int64_t foreign;       /* files called *.verdicts that are none of ours, or of another version or byte order */
    int64_t records;       /* sound ones; of other writers and our own */
    int64_t distinct;      /* different questions among them */
    int64_t compliant;     /* answered yes, of the distinct ones */
    int64_t contradictory; /* records that say otherwise than another one of the same question; "not compliant" is then kept */
    int64_t damaged;       /* records whose checksum is wrong, with sound ones after them */
    int64_t torn;          /* segments that end in something that is no sound record: being written, or cut by a crash */
} ra_verdicts_counts;

/* Reads every segment in `dir`; one that does not exist yet is an empty cache. RA_ERR_IO. */
ra_err ra_verdicts_open(const char *dir, ra_verdicts **out);
/* Flushes what was added to the disk; RA_ERR_IO where that fails. Frees in every case. */
ra_err ra_verdicts_close(ra_verdicts *v);
bool ra_verdicts_find(const ra_verdicts *v, ra_hash question, ra_verdict *out);
/* Appends a verdict that is not -1. It is with the operating system on return (a killed process loses nothing), and on disk within seconds. `oracle`: a tag that
 * `realign inspect` counts by. RA_ERR_IO names the file. */
ra_err ra_verdicts_add(ra_verdicts *v, ra_hash question, uint32_t oracle, const ra_verdict *verdict);
/* Between batches: reads what other writers have added, at most every `seconds`; flushes to disk what is older than a second. */
ra_err ra_verdicts_refresh(ra_verdicts *v, double seconds);
ra_verdicts_counts ra_verdicts_count(const ra_verdicts *v);

/* The tags in use, in ascending order: calls `visit` with the records and the compliant ones of each. */
void ra_verdicts_each_oracle(const ra_verdicts *v,
                             void (*visit)(void *context, uint32_t oracle, int64_t records, int64_t compliant), void *context);
/* Does the directory hold segments? */
bool ra_verdicts_is_cache(const char *dir);

#endif
