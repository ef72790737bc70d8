/* What counts as yes and no. Strict on purpose: "Yes, it violates the policy" begins with the wrong word, so only an answer that is one word, or JSON with one
 * member that decides, is taken; anything else is asked again. */
#include "http.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What may surround the word: white space, quotation marks, Markdown, closing punctuation. */
static const char around[] = " \t\r\n\"'`*_.!";

static void trim(const char **text, size_t *n, const char *set)
{
    while (*n && strchr(set, **text)) {
        (*text)++;
        (*n)--;
    }
    while (*n && strchr(set, (*text)[*n - 1])) (*n)--;
}

static int word_value(const char *text, size_t n)
{
    trim(&text, &n, around);
    if (n == 3 && strncasecmp(text, "yes", 3) == 0) return 1;
    if (n == 2 && strncasecmp(text, "no", 2) == 0) return 0;
    return -1;
}

/* {"compliant": true} and the like: of the keys that decide there is one. */
static int json_value(const char *text, size_t n)
{
    static const char *const keys[] = {"compliant", "answer", "verdict"};
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    int value = -1, found = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *member = json_object_get(root, keys[i]);
        if (!member) continue;
        found++;
        if (json_is_boolean(member)) value = json_is_true(member);
        if (json_is_string(member)) value = word_value(json_string_value(member), json_string_length(member));
    }
    json_decref(root);
    return found == 1 ? value : -1;
}

/* Takes ```json ... ``` off. */
static void unfence(const char **text, size_t *n)
{
    if (*n < 6 || strncmp(*text, "```", 3) != 0 || strncmp(*text + *n - 3, "```", 3) != 0) return;
    *text += 3;
    *n -= 6;
    if (*n >= 4 && strncasecmp(*text, "json", 4) == 0) {
        *text += 4;
        *n -= 4;
    }
}

int ra_http_read_answer(const char *text, const char *finish_reason, const char **why)
{
    static const char open[] = "<think>", close[] = "</think>";
    size_t n = strlen(text);
    trim(&text, &n, " \t\r\n");
    bool cut = strcmp(finish_reason, "length") == 0;
    if (strncmp(text, open, sizeof open - 1) == 0) {
        const char *end = strstr(text, close);
        if (!end) {
            *why = "the answer ends inside the model's reasoning; raise oracle.http.max_tokens, or switch reasoning off by "
                   "oracle.http.extra";
            return -1;
        }
        n -= (size_t)(end + sizeof close - 1 - text);
        text = end + sizeof close - 1;
        trim(&text, &n, " \t\r\n");
    }
    if (n == 0) {
        *why = cut ? "an empty answer that used up its tokens: the model reasons; raise oracle.http.max_tokens, or switch "
                     "reasoning off by oracle.http.extra"
                   : "an empty answer";
        return -1;
    }
    int value = word_value(text, n);
    if (cut && value >= 0) {
        *why = "the answer was cut after its first word; raise oracle.http.max_tokens";
        return -1;
    }
    if (value < 0) {
        unfence(&text, &n);
        value = json_value(text, n);
    }
    *why = value >= 0 ? NULL
           : cut      ? "the answer is neither yes nor no, and was cut at oracle.http.max_tokens"
                      : "the answer is neither yes nor no";
    return value;
}

/* ---- log-probabilities ---- */
typedef struct {
    double yes, no;     /* summed probabilities */
    double lowest, sum; /* of everything listed */
    int n;
} tally;

static void count_token(tally *t, const char *token, double logprob)
{
    if (!token || !(logprob <= 0.1)) return; /* rounding may leave a little above 0; NaN is nothing */
    double p = exp(logprob > 0 ? 0 : logprob);
    int value = word_value(token, strlen(token));
    if (value == 1) t->yes += p;
    if (value == 0) t->no += p;
    t->sum += p;
    if (t->n++ == 0 || p < t->lowest) t->lowest = p;
}

/* A side that is not among the listed tokens has less than the least of them, and less than what all of them leave. */
static bool decide(const tally *t, double *probability, double *margin)
{
    if (t->yes <= 0 && t->no <= 0) return false;
    double rest = 1.0 - t->sum, bound = rest < t->lowest ? rest : t->lowest;
    if (bound < 1e-9) bound = 1e-9;
    double yes = t->yes > 0 ? t->yes : bound, no = t->no > 0 ? t->no : bound;
    *probability = yes / (yes + no);
    *margin = log(yes) - log(no);
    return true;
}

static double number(const json_t *value)
{
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The chat form: {"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}. */
static bool read_chat(const json_t *content, int answer, double *probability, double *margin)
{
    size_t k;
    json_t *other;
    for (size_t i = json_array_size(content); i-- > 0;) {
        const json_t *entry = json_array_get(content, i);
        const char *token = json_string_value(json_object_get(entry, "token"));
        if (!token || word_value(token, strlen(token)) != answer) continue;
        tally t = {0};
        bool own = false;
        json_array_foreach(json_object_get(entry, "top_logprobs"), k, other)
        {
            const char *name = json_string_value(json_object_get(other, "token"));
            own = own || (name && strcmp(name, token) == 0);
            count_token(&t, name, number(json_object_get(other, "logprob")));
        }
        if (t.n == 0) return false;
        if (!own) count_token(&t, token, number(json_object_get(entry, "logprob")));
        return decide(&t, probability, margin);
    }
    return false;
}

/* The older form of text completions: {"tokens": [], "token_logprobs": [], "top_logprobs": [{token: logprob}]}. */
static bool read_completion(const json_t *logprobs, int answer, double *probability, double *margin)
{
    const json_t *tokens = json_object_get(logprobs, "tokens"), *own = json_object_get(logprobs, "token_logprobs");
    for (size_t i = json_array_size(tokens); i-- > 0;) {
        const char *token = json_string_value(json_array_get(tokens, i)), *name;
        if (!token || word_value(token, strlen(token)) != answer) continue;
        json_t *top = json_array_get(json_object_get(logprobs, "top_logprobs"), i), *value;
        tally t = {0};
        json_object_foreach(top, name, value) count_token(&t, name, number(value));
        if (t.n == 0) return false;
        if (!json_object_get(top, token)) count_token(&t, token, number(json_array_get(own, i)));
        return decide(&t, probability, margin);
    }
    return false;
}

/* The last token that says what the answer says: a model that reasons says the words before. */
bool ra_http_read_logprobs(const json_t *logprobs, int answer, double *probability, double *margin)
{
    const json_t *content = json_object_get(logprobs, "content");
    return json_is_array(content) ? read_chat(content, answer, probability, margin)
                                  : read_completion(logprobs, answer, probability, margin);
}
