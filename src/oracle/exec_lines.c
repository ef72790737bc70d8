/* The lines that go to the program and come back. */
#include "exec_impl.h"
#include "jsontext.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void ra_exec_write_item(int64_t id, const char *policy_text, const ra_oracle_item *item, ra_buf *out)
{
    const ra_message alone = {"user", item->prompt ? item->prompt : ""};
    json_t *root = json_object();
    json_object_set_new(root, "id", json_integer(id));
    json_object_set_new(root, "policy", ra_json_string_of(policy_text));
    json_object_set_new(root, "prompt", ra_json_string_of(item->prompt));
    json_object_set_new(root, "turns", item->turns ? ra_json_turns(item->turns, item->n_turns) : ra_json_turns(&alone, 1));
    json_object_set_new(root, "response", ra_json_string_of(item->response));
    json_object_set_new(root, "category", item->category ? ra_json_string_of(item->category) : json_null());
    char *text = json_dumps(root, JSON_COMPACT);
    ra_buf_adds(out, text);
    ra_buf_adds(out, "\n");
    free(text);
    json_decref(root);
}

static ra_exec_line senseless(ra_exec_answer *out, const char *what)
{
    ra_buf_adds(&out->problem, what);
    return RA_EXEC_SENSELESS;
}

ra_exec_line ra_exec_read_answer(const char *line, size_t n, ra_exec_answer *out)
{
    enum { QUOTED = 200 };
    ra_buf_clear(&out->problem);
    ra_buf_adds(&out->problem, "");
    out->verdict = (ra_verdict){.compliant = -1, .rule = -1};
    json_error_t error;
    json_t *root = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
    const json_t *id = json_object_get(root, "id"), *compliant = json_object_get(root, "compliant"),
                 *probability = json_object_get(root, "probability");
    const char *reason = json_string_value(json_object_get(root, "reason"));
    ra_exec_line kind = RA_EXEC_VERDICT;
    if (!json_is_integer(id)) {
        ra_buf_addf(&out->problem, "a line of %zu bytes that is %s", n, root ? "no answer with a whole \"id\"" : "no JSON");
        kind = RA_EXEC_GARBAGE;
        json_decref(root);
        return kind;
    }
    out->id = json_integer_value(id);
    if (!compliant) {
        kind = senseless(out, "an answer without \"compliant\"");
    } else if (json_is_null(compliant)) {
        ra_buf_adds(&out->problem, "the program cannot tell");
        if (reason) {
            ra_buf_adds(&out->problem, ": ");
            ra_text_quote(&out->problem, reason, strlen(reason), QUOTED);
        }
    } else if (!json_is_boolean(compliant)) {
        kind = senseless(out, "an answer whose \"compliant\" is neither true, false nor null");
    } else if (probability && !json_is_null(probability) &&
               !(json_is_number(probability) && json_number_value(probability) >= 0 && json_number_value(probability) <= 1)) {
        kind = senseless(out, "an answer whose \"probability\" is no number from 0 to 1");
    } else {
        bool yes = json_is_true(compliant);
        double p = json_is_number(probability) ? json_number_value(probability) : yes;
        out->verdict.compliant = yes;
        out->verdict.probability = (float)p;
        if (json_is_number(probability)) {
            double inside = fmin(fmax(p, 1e-9), 1 - 1e-9); /* certainty has no finite log-odds */
            out->verdict.margin = (float)(log(inside) - log1p(-inside));
        }
    }
    json_decref(root);
    return kind;
}
