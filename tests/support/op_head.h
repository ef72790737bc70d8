/* Runs of the fused head's row operators for the table of cases in op_cases.c; n = vocabulary, k = block. */
#ifndef TESTS_SUPPORT_OP_HEAD_H
#define TESTS_SUPPORT_OP_HEAD_H
#include "op_run.h"

void run_argmax_update(op_run *r, const op_case *c);
void run_softmax_update(op_run *r, const op_case *c);
void run_softmax_grad(op_run *r, const op_case *c);
void run_kl_update(op_run *r, const op_case *c);
void run_kl_grad(op_run *r, const op_case *c);
#endif
