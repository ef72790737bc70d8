#include "oraclemake.h"

#include "../../src/stage/oracles.h"

#include <stdlib.h>

ra_err test_oracle_open(const char *kind, const char *policy, ra_oracle **out)
{
    const ra_comm alone = {MPI_COMM_SELF, 0, 1};
    ra_settings *s = ra_settings_new();
    ra_err err = ra_set_put(s, "policy", policy);
    if (err == RA_OK) err = ra_set_put(s, "oracle.kind", kind);
    if (err == RA_OK) err = ra_oracle_open_settings(s, &alone, out);
    ra_settings_free(s);
    return err;
}
