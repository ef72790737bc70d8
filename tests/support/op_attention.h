/* Runs of the attention operators for the table of cases in op_cases.c. */
#ifndef TESTS_SUPPORT_OP_ATTENTION_H
#define TESTS_SUPPORT_OP_ATTENTION_H
#include "op_run.h"

void run_rope(op_run *r, const op_case *c);
void run_attention(op_run *r, const op_case *c);
void run_attention_grad(op_run *r, const op_case *c);
void run_attention_prefixed(op_run *r, const op_case *c);
void run_attention_cached(op_run *r, const op_case *c);
void run_cache_store(op_run *r, const op_case *c);

#endif
