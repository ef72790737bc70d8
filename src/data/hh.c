/* HH-RLHF: whole dialogues as one text with "\n\nHuman:" and "\n\nAssistant:" before each turn. The prompt is everything up to
 * the last assistant turn, which both dialogues of a pair must share; the responses are the last turns. */
#define _GNU_SOURCE /* memmem */
#include "schema.h"

#include <string.h>

static const char human[] = "\n\nHuman:", assistant[] = "\n\nAssistant:";
enum { HUMAN = sizeof human - 1, ASSISTANT = sizeof assistant - 1 };

bool ra_hh_is_dialogue(const char *text)
{
    return strncmp(text, human, HUMAN) == 0 && strstr(text, assistant);
}

static const char *find(const char *from, const char *end, const char *marker, size_t n)
{
    return from < end ? memmem(from, (size_t)(end - from), marker, n) : NULL;
}

static const char *find_last(const char *text, const char *marker, size_t n)
{
    const char *last = NULL;
    for (const char *at = strstr(text, marker); at; at = strstr(at + n, marker)) last = at;
    return last;
}

/* Adds one turn, or joins it to the one before when the same side speaks on. */
static void add_turn(ra_row_space *space, const char *role, const char *text, size_t n)
{
    ra_message *last = space->n ? &space->messages[space->n - 1] : NULL;
    if (!last || strcmp(last->role, role) != 0) {
        ra_row_add_message(space, role, ra_row_keep(space, text, n));
        return;
    }
    size_t end = space->used - 1; /* the NUL of the turn before: its text is the last thing in the space */
    memcpy(space->text + end, "\n\n", 2);
    space->used = end + 2;
    if (*ra_row_keep(space, text, n)) return;
    space->text[end] = '\0'; /* nothing was said */
    space->used = end + 1;
}

ra_row_status ra_hh_add_turns(const char *text, size_t n, ra_row_space *space, ra_row *row)
{
    const char *end = text + n, *at = text;
    const char *next_human = find(at, end, human, HUMAN), *next_assistant = find(at, end, assistant, ASSISTANT);
    if (n && next_human != at && next_assistant != at) {
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the dialogue does not begin with \"\\n\\nHuman:\"");
    }
    while (at < end) {
        bool is_human = at == next_human;
        const char *turn = at + (is_human ? HUMAN : ASSISTANT);
        if (is_human) next_human = find(turn, end, human, HUMAN);
        if (!is_human) next_assistant = find(turn, end, assistant, ASSISTANT);
        at = next_human && (!next_assistant || next_human < next_assistant) ? next_human : next_assistant ? next_assistant : end;
        add_turn(space, is_human ? "user" : "assistant", turn, (size_t)(at - turn));
    }
    return RA_ROW_OK;
}

ra_row_status ra_hh_read(const char *chosen, const char *rejected, ra_row_space *space, ra_row *row)
{
    size_t n_chosen = strlen(chosen), n_rejected = strlen(rejected);
    ra_row_reserve(space, 2 * n_chosen + n_rejected + 64);
    const char *last_chosen = find_last(chosen, assistant, ASSISTANT), *last_rejected = find_last(rejected, assistant, ASSISTANT);
    if (!last_chosen || !last_rejected) {
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "%s has no \"\\n\\nAssistant:\" turn",
                             last_chosen ? "rejected" : "chosen");
    }
    const char *answer_chosen = last_chosen + ASSISTANT, *answer_rejected = last_rejected + ASSISTANT;
    if (strstr(answer_chosen, human) || strstr(answer_rejected, human)) {
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "a dialogue ends with a Human turn");
    }
    size_t n_prompt = (size_t)(last_chosen - chosen);
    if (n_prompt != (size_t)(last_rejected - rejected) || memcmp(chosen, rejected, n_prompt) != 0) {
        return ra_row_refuse(space, row, RA_ROW_SKIPPED, "the dialogues diverge before the last turn");
    }
    ra_row_status status = ra_hh_add_turns(chosen, n_prompt, space, row);
    row->chosen = ra_row_keep(space, answer_chosen, strlen(answer_chosen));
    row->rejected = ra_row_keep(space, answer_rejected, strlen(answer_rejected));
    return status;
}
