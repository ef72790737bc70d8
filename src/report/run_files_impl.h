/* The two halves of reading a run directory. */
#ifndef RA_REPORT_RUN_FILES_IMPL_H
#define RA_REPORT_RUN_FILES_IMPL_H
#include "run_files.h"

/* store.h5, triage.h5, weights.h5, evaluate.h5 (run_files.c). */
void ra_run_files_read_h5(ra_run_files *r);
void ra_run_files_free_h5(ra_run_files *r);

#endif
