/* report: what the run directory holds, as one page. */
#include <realign/log.h>
#include <realign/report.h>
#include <realign/stage.h>

ra_err ra_stage_report(const ra_settings *s, const ra_comm *world)
{
    const char *dir = ra_set_text(s, "run.dir");
    ra_err err = world->rank == 0 ? ra_report_write(dir, ra_set_int(s, "report.samples")) : RA_OK;
    err = ra_comm_agree(world, err);
    if (err == RA_OK) ra_info("report: %s/report.html", dir);
    return err;
}
