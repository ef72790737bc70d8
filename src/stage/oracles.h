/* The oracle that the settings name, for every stage and tool that judges. */
#ifndef RA_STAGE_ORACLES_H
#define RA_STAGE_ORACLES_H
#include "corrector.h"
#include <realign/engine.h>
#include <realign/oracle.h>
#include <realign/settings.h>

/* `policy` and the oracle.* keys. Collective over grid->world in that every rank calls it; errors are this rank's own, to be agreed on by the caller. grid's communicators must outlive the oracle.
 * askers: the ranks that will ask, who share an endpoint's budget and rate; NULL: those of ra_oracle_askers. */
ra_err ra_oracle_open_settings(const ra_settings *s, const ra_grid *grid, const ra_comm *askers, ra_oracle **out);

/* The ranks that put questions to an oracle: all of them; where a judge's model is spread over a pipeline, stage 0 of each replica. Only they may write to a cache of verdicts. */
static inline bool ra_oracle_is_spread(const ra_oracle *oracle, const ra_grid *grid)
{
    return grid->stages > 1 && ra_oracle_has_followers(oracle);
}
static inline const ra_comm *ra_oracle_askers(const ra_oracle *oracle, const ra_grid *grid)
{
    return ra_oracle_is_spread(oracle, grid) ? &grid->data : &grid->world;
}
/* On the other stages, where work is spread: joins in what stage 0 asks of the oracle and of the corrector (NULL: none) until it calls RA_CALL_END. An error of theirs is stage 0's too;
 * they wait for its end nevertheless, and return the first. */
ra_err ra_oracle_serve(ra_oracle *oracle, ra_corrector *corrector, const ra_grid *grid);

#endif
