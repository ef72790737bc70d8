/* The picture of a pipeline schedule as a file. */
#include <realign/file.h>
#include <realign/report.h>

ra_err ra_report_write_schedule(const char *path, const ra_schedule *s, const ra_schedule_costs *costs, const char *unit)
{
    ra_schedule_timing t;
    RA_TRY(ra_schedule_time(s, costs, &t));
    ra_buf out = {0};
    ra_plot_schedule(&out, &(ra_plot){.x_label = unit, .alone = true}, s, &t);
    ra_err err = ra_file_write(path, out.data, out.length);
    ra_buf_free(&out);
    ra_schedule_timing_free(&t);
    return err;
}
