/* The new policy as a programmatic oracle, pi_new(x, y) in {0, 1} (METHOD section 1). One interface for every kind; a batch goes in, verdicts come
 * out in order. The kinds here judge by text (`rules`) or by columns of the data (`labels`); judge models, endpoints and programs sit behind the same functions:
 * a kind is a table of functions, ra_oracle_ops. Not collective throughout; one thread at a time. */
#ifndef REALIGN_ORACLE_H
#define REALIGN_ORACLE_H
#include <realign/agreement.h>
#include <realign/error.h>
#include <realign/policy.h>
#include <realign/prefdata.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct ra_oracle ra_oracle;

typedef struct {
    const char *prompt;   /* the last user turn */
    const char *response; /* UTF-8 */
    const char *category; /* or NULL */
    const json_t *source; /* the row, or NULL when judging generated text */
    int response_index;   /* 0/1: which response_k of the row this is; -1 for generated text */
    const ra_message
        *turns; /* the conversation before the response, `prompt` being its last turn; NULL: `prompt` is all there is */
    int n_turns;
} ra_oracle_item;

typedef struct {
    int8_t compliant; /* 1 compliant, 0 not, -1 the oracle cannot tell (an error is counted by the caller) */
    int16_t
        rule; /* index of the deciding rule: the first violated one; -1 where compliant by default, or where the kind knows no rules */
    float probability; /* of compliance; 0 or 1 for programmatic kinds */
    float margin;      /* log-odds of compliance as the oracle gave them, before any threshold; 0 for programmatic kinds */
} ra_verdict;

/* ---- a kind ---- */
/* Takes the verdict on items[item] as soon as it is known, in any order, each item at most once; copies it. Called from the thread that called `judge`. */
typedef void (*ra_verdict_sink)(void *context, int item, const ra_verdict *verdict);

typedef struct {
    const char *name; /* "rules", "labels", "judge", "http", "exec" */
    bool judges_text; /* needs no row (ra_oracle_item.source) */
    bool costly;      /* verdicts are worth a cache on disk and a progress line */
    int batch;        /* items it likes to get at once; more is allowed */
    /* Judges all n items and hands every verdict to the sink. An item that could not be judged (an answer that cannot be read, even after retries) is handed over with compliant = -1,
     * never with a guess. An error ends the call: what was handed over before it stays valid. */
    ra_err (*judge)(void *state, const ra_oracle_item *items, int n, ra_verdict_sink sink, void *context);
    const char *(*problem)(const void *state); /* why the last item with -1 could not be judged; "" when there was none */
    void (*close)(void *state);
    /* NULL, or told before a long job: all ranks together will put at most so many questions, with so many bytes of conversations and responses. For estimates of cost; an error (over a
     * budget) ends the job before anything is asked. */
    ra_err (*announce)(void *state, int64_t questions, int64_t bytes);
    /* NULL, or, where several ranks compute a verdict together: on those that do not put the questions, takes part in one call of `judge`. */
    ra_err (*follow)(void *state);
} ra_oracle_ops;

/* A kind, opened. */
typedef struct {
    const ra_oracle_ops *ops;
    void *state;
    char *
        identity; /* from malloc: what its verdicts depend on besides item and policy text: model, endpoint, form of the prompt */
    ra_rule_names rules; /* what ra_verdict.rule points into; borrowed from the policy */
    double
        threshold; /* a response complies where its probability reaches this; 0: the kind decides. Caches hold what the kind said, so another threshold asks nothing */
} ra_oracle_member;

/* The kinds of this layer. `policy` must outlive the member. RA_ERR_ARG where the policy lacks that body. */
ra_err ra_rules_open(const ra_policy *policy, ra_oracle_member *out);
ra_err ra_labels_open(const ra_policy *policy, ra_oracle_member *out);

/* ---- combinations ---- */
typedef enum {
    RA_COMBINE_ALL,      /* compliant where all say so */
    RA_COMBINE_ANY,      /* ... where one says so */
    RA_COMBINE_MAJORITY, /* ... where more than half do; not, where more than half say not */
    RA_COMBINE_FIRST     /* the first one that can tell decides; the later ones are asked about the rest alone */
} ra_combine;

/* The verdict of n oracles on one item: what holds whatever those would say that cannot tell, else -1; for RA_COMBINE_FIRST that of the first that can. Rule, probability
 * and margin are those of the first one that says what comes out; rules are indices as given. */
ra_verdict ra_oracle_combine(ra_combine how, const ra_verdict *verdict, int n);

/* ---- the oracle ---- */
enum { RA_MOST_ORACLES = RA_MOST_RATERS };

typedef struct {
    int64_t judged;    /* items */
    int64_t compliant; /* of them, as returned */
    int64_t undecided; /* of them */
    int64_t flipped;   /* of them, by ra_oracle_set_noise */
    int64_t asked;     /* questions put to costly kinds */
    int64_t known;     /* questions to costly kinds that the cache, or the same item in the same batch, answered */
} ra_oracle_counts;

/* One kind, or several that are combined. Takes the policy and the members over, in every case. `cache`: a directory for the verdicts of costly kinds (realign/verdicts.h),
 * tried before anything is asked; NULL or "": none. RA_ERR_IO. */
ra_err ra_oracle_new(ra_policy *policy, const ra_oracle_member *member, int n, ra_combine how, const char *cache,
                     ra_oracle **out);
/* RA_ERR_IO where the cache could not be flushed; frees in every case, NULL too. */
ra_err ra_oracle_close(ra_oracle *oracle);
/* From here on each verdict that is not -1 is turned round with this probability, drawn from the seed and the item's texts alone: the same in any order and on any
 * rank. Probabilities and the cache keep what the kind said. For studies of robustness. */
void ra_oracle_set_noise(ra_oracle *oracle, double share, uint64_t seed);

/* n verdicts in order. An item that cannot be judged (a column is missing, a pattern hits its limit, an answer cannot be read) has verdict -1 and names the
 * rule, if any; ra_oracle_problem says why the last one could not. On an error nothing is returned, but the cache holds what was heard until then. */
ra_err ra_oracle_judge(ra_oracle *oracle, const ra_oracle_item *items, int n, ra_verdict *verdicts);
/* Whether a member computes on several ranks together, where there are any; the one that does, takes part in what another rank's ra_oracle_judge asks of it. */
bool ra_oracle_has_followers(const ra_oracle *oracle);
ra_err ra_oracle_follow(ra_oracle *oracle);
/* What costly kinds would be asked, by member; whole numbers alone, to be added over ranks. */
typedef struct {
    int64_t questions[RA_MOST_ORACLES], bytes[RA_MOST_ORACLES];
} ra_oracle_plan;

/* Adds the questions that ra_oracle_judge would put now: those that the cache does not answer. Exact for one kind and one batch; at most so many for RA_COMBINE_FIRST
 * and where batches repeat each other. */
void ra_oracle_plan_add(ra_oracle *oracle, const ra_oracle_item *items, int n, ra_oracle_plan *plan);
int64_t ra_oracle_plan_questions(const ra_oracle_plan *plan); /* of all members */
/* Tells the kinds of a plan that was added over ranks. An error of a kind that will not do it. */
ra_err ra_oracle_announce(ra_oracle *oracle, const ra_oracle_plan *plan);
const char *ra_oracle_problem(const ra_oracle *oracle); /* "" when there was none */

const ra_policy *ra_oracle_policy(const ra_oracle *oracle);
int ra_oracle_rule_count(const ra_oracle *oracle);
const char *ra_oracle_rule_name(const ra_oracle *oracle, int rule); /* NULL: no such rule; "kind: rule" in a combination */
const char *ra_oracle_kind(const ra_oracle *oracle);                /* "rules", "judge", ...; "all(rules, judge)" */
bool ra_oracle_judges_text(const ra_oracle *oracle);                /* can it judge text alone (generations)? labels cannot */
bool ra_oracle_is_costly(const ra_oracle *oracle);
bool ra_oracle_has_probability(const ra_oracle *oracle); /* are probability and margin more than the verdict? */
int ra_oracle_batch(const ra_oracle *oracle);            /* items it likes to get at once */
uint64_t ra_oracle_hash(
    const ra_oracle *oracle); /* of all that its verdicts depend on: kinds, identities, policy, combination, thresholds, noise */
const ra_oracle_counts *ra_oracle_counted(const ra_oracle *oracle);

int ra_oracle_member_count(const ra_oracle *oracle);
const char *ra_oracle_member_name(const ra_oracle *oracle, int member);
/* Of the verdicts so far, before noise; no ratings where there is one member. */
const ra_agreement *ra_oracle_agreement(const ra_oracle *oracle);

#endif
