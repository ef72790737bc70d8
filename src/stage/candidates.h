/* Texts that a corrector wrote, kept so that none is asked for twice: run.dir/candidates/, a JSON Lines file a rank that is appended to. A killed process loses what it had not
 * finished, no more: a line that is torn or does not match its checksum is passed over. Not collective but for the opening. */
#ifndef RA_STAGE_CANDIDATES_H
#define RA_STAGE_CANDIDATES_H
#include <realign/comm.h>
#include <realign/error.h>
#include <realign/hash.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_candidates ra_candidates;

/* Collective. Reads all that any rank left in `dir`; `fresh`: takes it away first. RA_ERR_IO, the same on all ranks. */
ra_err ra_candidates_open(const char *dir, const ra_comm *comm, bool fresh, ra_candidates **out);
/* RA_ERR_IO where what was added could not be flushed; frees in every case. */
ra_err ra_candidates_close(ra_candidates *c);
/* `key`: of the question, the sample and the attempt. *text is owned by `c`. `cut`: it ended at the limit on its length. */
bool ra_candidates_find(const ra_candidates *c, ra_hash key, const char **text, bool *cut);
/* With the operating system on return. */
ra_err ra_candidates_add(ra_candidates *c, ra_hash key, int64_t sample, int attempt, const char *text, bool cut);
int64_t ra_candidates_count(const ra_candidates *c);   /* different ones */
int64_t ra_candidates_damaged(const ra_candidates *c); /* lines passed over */

#endif
