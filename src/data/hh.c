/* HH-RLHF: whole dialogues as one text with "\n\nHuman:" and "\n\nAssistant:" before each turn. The prompt is everything up to
 * the last assistant turn, which both dialogues of a pair must share; the responses are the last turns. */
#define _GNU_SOURCE /* memmem */
#include "schema.h"

#include <string.h>

static const char human[] = "\n\nHuman:", assistant[] = "\n\nAssistant:";
enum { HUMAN = sizeof human - 1, ASSISTANT = sizeof assistant - 1 };

static bool begins(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

bool ra_hh_is_dialogue(const char *text)
{
    return (begins(text, human + 2) || strstr(text, human)) && strstr(text, assistant);
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

/* The first turn of [text, end). White space before it, or the lack of it, does not matter. NULL: there is none. */
static const char *first_turn(const char *text, const char *end, bool *is_human, ra_row_space *space)
{
    const char *at = text + strspn(text, " \t\r\n");
    *is_human = begins(at, human + 2);
    if (*is_human) return at + HUMAN - 2;
    if (begins(at, assistant + 2)) return at + ASSISTANT - 2;
    const char *next_human = find(text, end, human, HUMAN), *next_assistant = find(text, end, assistant, ASSISTANT);
    if (!next_human || (next_assistant && next_assistant < next_human)) return NULL;
    if (begins(at, "System:")) at += strlen("System:");
    const char *content = ra_row_keep(space, at, (size_t)(next_human - at));
    if (*content) ra_row_add_message(space, "system", content);
    *is_human = true;
    return next_human + HUMAN;
}

ra_row_status ra_hh_add_turns(const char *text, size_t n, ra_row_space *space, ra_row *row)
{
    const char *end = text + n, *next_human = text, *next_assistant = text;
    bool is_human;
    if (n == 0) return RA_ROW_OK;
    const char *turn = first_turn(text, end, &is_human, space);
    if (!turn || turn > end) {
        return ra_row_refuse(space, row, RA_PROBLEM_DIALOGUE, "the dialogue does not begin with \"\\n\\nHuman:\"");
    }
    while (turn) {
        if (next_human && next_human < turn) next_human = find(turn, end, human, HUMAN);
        if (next_assistant && next_assistant < turn) next_assistant = find(turn, end, assistant, ASSISTANT);
        bool human_next = next_human && (!next_assistant || next_human < next_assistant);
        const char *stop = human_next ? next_human : next_assistant ? next_assistant : end;
        add_turn(space, is_human ? "user" : "assistant", turn, (size_t)(stop - turn));
        turn = human_next ? stop + HUMAN : next_assistant ? stop + ASSISTANT : NULL;
        is_human = human_next;
    }
    return RA_ROW_OK;
}

ra_row_status ra_hh_read(const char *chosen, const char *rejected, ra_row_space *space, ra_row *row)
{
    const char *last_chosen = find_last(chosen, assistant, ASSISTANT), *last_rejected = find_last(rejected, assistant, ASSISTANT);
    if (!last_chosen || !last_rejected) {
        return ra_row_refuse(space, row, RA_PROBLEM_DIALOGUE, "%s has no \"\\n\\nAssistant:\" turn",
                             last_chosen ? "rejected" : "chosen");
    }
    const char *answer_chosen = last_chosen + ASSISTANT, *answer_rejected = last_rejected + ASSISTANT;
    if (strstr(answer_chosen, human) || strstr(answer_rejected, human)) {
        return ra_row_refuse(space, row, RA_PROBLEM_DIALOGUE, "a dialogue ends with a Human turn");
    }
    size_t n_prompt = (size_t)(last_chosen - chosen);
    if (n_prompt != (size_t)(last_rejected - rejected) || memcmp(chosen, rejected, n_prompt) != 0) {
        return ra_row_refuse(space, row, RA_PROBLEM_DIALOGUE, "the dialogues diverge before the last turn");
    }
    ra_row_status status = ra_hh_add_turns(chosen, n_prompt, space, row);
    row->chosen = ra_row_keep(space, answer_chosen, strlen(answer_chosen));
    row->rejected = ra_row_keep(space, answer_rejected, strlen(answer_rejected));
    return status;
}
