/* The question and the reading of its answer. */
#ifndef RA_ORACLE_HTTP_H
#define RA_ORACLE_HTTP_H
#include <realign/oracle.h>
#include <realign/mem.h>

/* ---- the question (http_question.c) ---- */
/* Part of the identity: a change of the question's form takes a new number. */
enum { RA_HTTP_QUESTION_FORM = 2 };
/* Appends the question about `item`. What does not depend on the item comes first, so that a server can keep its state after it. `remind`: an answer could not be used. */
void ra_http_write_question(const char *policy_text, const ra_oracle_item *item, bool remind, ra_buf *out);
/* Appends a text between markers, <name> and </name>, numbered where the text holds them itself. */
void ra_question_add_marked(ra_buf *out, const char *name, const char *text);
/* Bytes of a question without its item. */
size_t ra_http_question_overhead(const char *policy_text);

/* ---- the answer (http_answer.c) ---- */
/* 1 yes, 0 no, -1 neither: then *why is a static text. What counts as yes and no: doc/endpoints.md. */
int ra_http_read_answer(const char *text, const char *finish_reason, const char **why);
/* Probability and log-odds of yes at the token that decides. False: the log-probabilities do not tell. */
bool ra_http_read_logprobs(const json_t *logprobs, int value, double *probability, double *margin);

#endif
