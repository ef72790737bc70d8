/* The oracle that the settings name, for every stage and tool that judges. */
#ifndef RA_STAGE_ORACLES_H
#define RA_STAGE_ORACLES_H
#include <realign/comm.h>
#include <realign/oracle.h>
#include <realign/settings.h>

/* `policy` and the oracle.* keys. Collective over `world` in that every rank calls it (a judge's model is opened on all); errors are this rank's own, to be agreed on by the caller. */
ra_err ra_oracle_open_settings(const ra_settings *s, const ra_comm *world, ra_oracle **out);

#endif
