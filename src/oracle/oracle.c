/* The oracle: a policy and its kinds behind one call. */
#include "oracle_impl.h"

#include <realign/file.h>
#include <realign/mem.h>
#include <realign/rng.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double refresh_s = 10.0;
static const char *const combine_names[] = {"all", "any", "majority", "first"};

struct ra_oracle {
    ra_policy *policy;
    ra_asked member[RA_MOST_ORACLES];
    int n;
    ra_combine how;
    ra_verdicts *cache;
    double noise;
    uint64_t noise_seed;
    char *kind;
    char **rule; /* of all members */
    int n_rules;
    ra_oracle_counts counts;
    ra_agreement agreement;
    char problem[400];
};

/* ---- opening ---- */
/* The text is part of a costly kind's identity here, so that no kind can forget it. */
static ra_hash identity_of(const ra_policy *policy, const ra_oracle_member *m)
{
    const char *parts[] = {m->ops->name, m->identity, m->ops->costly && policy->text ? policy->text : ""};
    ra_hasher *h = ra_hasher_new();
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) ra_hasher_add(h, parts[i], strlen(parts[i]) + 1);
    return ra_hasher_end(h);
}

static void add_member(ra_oracle *o, const ra_oracle_member *m, int among)
{
    ra_asked *a = &o->member[o->n++];
    *a = (ra_asked){*m, identity_of(o->policy, m), o->n_rules};
    o->rule = ra_realloc(o->rule, (size_t)(o->n_rules + m->rules.n) + 1, sizeof *o->rule);
    for (int i = 0; i < m->rules.n; i++) {
        o->rule[o->n_rules++] = among > 1 ? ra_format("%s: %s", m->ops->name, m->rules.name[i]) : ra_strdup(m->rules.name[i]);
    }
}

static void name_kind(ra_oracle *o)
{
    ra_buf name = {0};
    if (o->n > 1) ra_buf_addf(&name, "%s(", combine_names[o->how]);
    for (int i = 0; i < o->n; i++) ra_buf_addf(&name, "%s%s", i ? ", " : "", o->member[i].kind.ops->name);
    if (o->n > 1) ra_buf_adds(&name, ")");
    o->kind = name.data;
}

ra_err ra_oracle_new(ra_policy *policy, const ra_oracle_member *member, int n, ra_combine how, const char *cache, ra_oracle **out)
{
    ra_oracle *o = ra_calloc(1, sizeof *o);
    o->policy = policy;
    o->how = how;
    for (int i = 0; i < n; i++) add_member(o, &member[i], n);
    name_kind(o);
    ra_err err = RA_OK;
    if (cache && *cache && ra_oracle_is_costly(o)) {
        err = ra_dir_try(cache);
        if (err == RA_OK) err = ra_verdicts_open(cache, &o->cache);
        if (err != RA_OK) ra_fail_in(err, "oracle.cache");
    }
    *out = err == RA_OK ? o : NULL;
    if (err != RA_OK) ra_oracle_close(o);
    return err;
}

ra_err ra_oracle_close(ra_oracle *o)
{
    if (!o) return RA_OK;
    ra_err err = ra_verdicts_close(o->cache);
    for (int i = 0; i < o->n; i++) {
        o->member[i].kind.ops->close(o->member[i].kind.state);
        free(o->member[i].kind.identity);
    }
    for (int i = 0; i < o->n_rules; i++) free(o->rule[i]);
    free(o->rule);
    free(o->kind);
    ra_policy_free(o->policy);
    ra_free(o);
    return err;
}

void ra_oracle_set_noise(ra_oracle *o, double share, uint64_t seed)
{
    o->noise = share;
    o->noise_seed = seed;
}

/* ---- judging ---- */
static bool is_turned(const ra_oracle *o, const ra_oracle_item *item)
{
    const ra_hash nobody = {0, 0};
    ra_hash hash = ra_item_hash(nobody, item, false);
    ra_rng rng = ra_rng_make(o->noise_seed ^ hash.high, RA_STREAM_NOISE);
    rng.counter = hash.low;
    return ra_rng_uniform(&rng) < o->noise;
}

static void note_problem(ra_oracle *o, const ra_asked *m)
{
    const char *why = m->kind.ops->problem(m->kind.state);
    snprintf(o->problem, sizeof o->problem, "%s%s%s", o->n > 1 ? m->kind.ops->name : "", o->n > 1 ? ": " : "", why);
}

/* All members' verdicts, (members x n), rules renumbered into the oracle's list. Under RA_COMBINE_FIRST a member hears only what the ones before it could not tell, and
 * one that needs rows hears nothing about a text without one. */
static ra_err ask_all(ra_oracle *o, const ra_oracle_item *items, int n, ra_verdict *of)
{
    bool in_turn = o->how == RA_COMBINE_FIRST && o->n > 1, *want = ra_alloc((size_t)n, sizeof *want);
    ra_err err = RA_OK;
    for (int i = 0; i < o->n * n; i++) of[i] = (ra_verdict){.compliant = -1, .rule = -1, .probability = 0.5f};
    for (int k = 0; k < o->n && err == RA_OK; k++) {
        ra_asked *m = &o->member[k];
        ra_verdict *mine = of + (size_t)k * (size_t)n;
        for (int i = 0; i < n && in_turn; i++) {
            want[i] = m->kind.ops->judges_text || items[i].source;
            for (int j = 0; j < k; j++) want[i] = want[i] && of[(size_t)j * (size_t)n + (size_t)i].compliant < 0;
        }
        err = ra_asked_judge(m, o->cache, items, n, in_turn ? want : NULL, &o->counts, mine);
        bool undecided = false;
        for (int i = 0; i < n && err == RA_OK; i++) {
            if (in_turn && !want[i]) continue;
            if (mine[i].rule >= 0) mine[i].rule = (int16_t)(mine[i].rule + m->first_rule);
            undecided |= mine[i].compliant < 0;
        }
        if (undecided) note_problem(o, m);
    }
    ra_free(want);
    return err;
}

ra_err ra_oracle_judge(ra_oracle *o, const ra_oracle_item *items, int n, ra_verdict *verdicts)
{
    if (o->cache) RA_TRY(ra_verdicts_refresh(o->cache, refresh_s));
    ra_verdict *of = ra_alloc((size_t)o->n * (size_t)n, sizeof *of), each[RA_MOST_ORACLES];
    ra_err err = ask_all(o, items, n, of);
    for (int i = 0; i < n && err == RA_OK; i++) {
        int8_t rating[RA_MOST_ORACLES];
        for (int k = 0; k < o->n; k++) {
            each[k] = of[(size_t)k * (size_t)n + (size_t)i];
            rating[k] = each[k].compliant;
        }
        if (o->n > 1) ra_agreement_add(&o->agreement, rating, o->n);
        ra_verdict v = ra_oracle_combine(o->how, each, o->n);
        if (o->noise > 0.0 && v.compliant >= 0 && is_turned(o, &items[i])) {
            v.compliant = !v.compliant;
            v.rule = -1;
            o->counts.flipped++;
        }
        o->counts.judged++;
        o->counts.compliant += v.compliant == 1;
        o->counts.undecided += v.compliant < 0;
        verdicts[i] = v;
    }
    ra_free(of);
    return err;
}

bool ra_oracle_has_followers(const ra_oracle *o)
{
    for (int i = 0; i < o->n; i++) {
        if (o->member[i].kind.ops->follow) return true;
    }
    return false;
}

ra_err ra_oracle_follow(ra_oracle *o)
{
    for (int i = 0; i < o->n; i++) {
        const ra_oracle_member *m = &o->member[i].kind;
        if (m->ops->follow) return m->ops->follow(m->state);
    }
    return RA_OK;
}

/* ---- plans ---- */
void ra_oracle_plan_add(ra_oracle *o, const ra_oracle_item *items, int n, ra_oracle_plan *plan)
{
    for (int k = 0; k < o->n; k++) {
        if (o->member[k].kind.ops->costly)
            ra_asked_missing(&o->member[k], o->cache, items, n, &plan->questions[k], &plan->bytes[k]);
    }
}

int64_t ra_oracle_plan_questions(const ra_oracle_plan *plan)
{
    int64_t sum = 0;
    for (int k = 0; k < RA_MOST_ORACLES; k++) sum += plan->questions[k];
    return sum;
}

ra_err ra_oracle_announce(ra_oracle *o, const ra_oracle_plan *plan)
{
    for (int k = 0; k < o->n; k++) {
        const ra_oracle_member *m = &o->member[k].kind;
        if (m->ops->announce && plan->questions[k] > 0) RA_TRY(m->ops->announce(m->state, plan->questions[k], plan->bytes[k]));
    }
    return RA_OK;
}

/* ---- what it is ---- */
const char *ra_oracle_problem(const ra_oracle *o)
{
    return o->problem;
}

const ra_policy *ra_oracle_policy(const ra_oracle *o)
{
    return o->policy;
}

int ra_oracle_rule_count(const ra_oracle *o)
{
    return o->n_rules;
}

const char *ra_oracle_rule_name(const ra_oracle *o, int rule)
{
    return rule >= 0 && rule < o->n_rules ? o->rule[rule] : NULL;
}

const char *ra_oracle_kind(const ra_oracle *o)
{
    return o->kind;
}

bool ra_oracle_judges_text(const ra_oracle *o)
{
    int able = 0;
    for (int i = 0; i < o->n; i++) able += o->member[i].kind.ops->judges_text;
    return o->how == RA_COMBINE_FIRST ? able > 0 : able == o->n;
}

bool ra_oracle_is_costly(const ra_oracle *o)
{
    for (int i = 0; i < o->n; i++) {
        if (o->member[i].kind.ops->costly) return true;
    }
    return false;
}

bool ra_oracle_has_probability(const ra_oracle *o)
{
    for (int i = 0; i < o->n; i++) {
        if (o->member[i].kind.threshold > 0.0) return true;
    }
    return false;
}

/* A costly kind's wish goes first. */
int ra_oracle_batch(const ra_oracle *o)
{
    int batch = 0;
    for (int i = 0; i < o->n; i++) {
        const ra_oracle_ops *ops = o->member[i].kind.ops;
        if (ops->costly == ra_oracle_is_costly(o) && ops->batch > batch) batch = ops->batch;
    }
    return batch > 0 ? batch : 1;
}

uint64_t ra_oracle_hash(const ra_oracle *o)
{
    ra_hasher *h = ra_hasher_new();
    ra_hasher_add(h, &o->policy->hash, sizeof o->policy->hash);
    ra_hasher_add(h, o->kind, strlen(o->kind) + 1);
    for (int i = 0; i < o->n; i++) {
        ra_hasher_add(h, &o->member[i].identity, sizeof o->member[i].identity);
        ra_hasher_add(h, &o->member[i].kind.threshold, sizeof o->member[i].kind.threshold);
    }
    if (o->noise > 0.0) {
        ra_hasher_add(h, &o->noise, sizeof o->noise);
        ra_hasher_add(h, &o->noise_seed, sizeof o->noise_seed);
    }
    return ra_hasher_end(h).low;
}

const ra_oracle_counts *ra_oracle_counted(const ra_oracle *o)
{
    return &o->counts;
}

int ra_oracle_member_count(const ra_oracle *o)
{
    return o->n;
}

const char *ra_oracle_member_name(const ra_oracle *o, int member)
{
    return o->member[member].kind.ops->name;
}

const ra_agreement *ra_oracle_agreement(const ra_oracle *o)
{
    return &o->agreement;
}
