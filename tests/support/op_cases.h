/* The one table of operator cases: every operator of struct ra_backend_ops, with the shapes that break things. */
#ifndef TESTS_SUPPORT_OP_CASES_H
#define TESTS_SUPPORT_OP_CASES_H
#include "op_run.h"

extern const op_case op_cases[];
extern const int op_case_count;

#endif
