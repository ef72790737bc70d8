/* `realign inspect DIR`, of a cache of verdicts. */
#include <realign/tools.h>
#include <realign/verdicts.h>

#include <inttypes.h>
#include <stdio.h>

static void print_oracle(void *context, uint32_t oracle, int64_t records, int64_t compliant)
{
    (void)context;
    printf("  oracle %08" PRIx32 ": %" PRId64 " records, %.1f %% of them compliant\n", oracle, records,
           100.0 * (double)compliant / (double)records);
}

ra_err ra_inspect_verdicts(const char *dir)
{
    ra_verdicts *v = NULL;
    RA_TRY(ra_verdicts_open(dir, &v));
    ra_verdicts_counts c = ra_verdicts_count(v);
    printf("%s: cache of verdicts\n", dir);
    printf("  %" PRId64 " segments, %" PRId64 " records, %" PRId64 " different questions, %" PRId64
           " of them answered with compliant\n",
           c.segments, c.records, c.distinct, c.compliant);
    ra_verdicts_each_oracle(v, print_oracle, NULL);
    printf("  %" PRId64 " contradictory records, %" PRId64 " damaged ones passed over, %" PRId64
           " segments with a torn or growing tail, %" PRId64 " foreign files\n",
           c.contradictory, c.damaged, c.torn, c.foreign);
    return ra_verdicts_close(v);
}
