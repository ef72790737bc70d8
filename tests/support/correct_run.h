/* A small run for corrections: a random model with a byte-level tokenizer, rows of all three sets, a policy of rules. Written without the shared folder. */
#ifndef REALIGN_TESTS_CORRECT_RUN_H
#define REALIGN_TESTS_CORRECT_RUN_H
#include <realign/error.h>
#include <realign/settings.h>
#include <stdbool.h>

enum { CORRECT_ROWS = 60 };

/* What the column holds in row i of a Punish pair. */
typedef enum { COLUMN_GOOD, COLUMN_BAD, COLUMN_NONE, COLUMN_LONG, COLUMN_KINDS } column_kind;
column_kind correct_run_column(int i);
bool correct_run_punished(int i);

/* Writes dir/model, dir/policy.yaml, dir/labels.yaml, dir/rows.jsonl (no corrections) and dir/column.jsonl (with them). */
ra_err correct_run_make(const char *dir);
/* Settings of a run in dir/NAME on dir/DATA; words: "key=value" more, NULL at the end. */
ra_settings *correct_run_settings(const char *dir, const char *name, const char *data, const char *const *words);

#endif
