/* The oracle: a policy and an opened kind behind one call. */
#include <realign/hash.h>
#include <realign/mem.h>
#include <realign/oracle.h>

#include <stdlib.h>
#include <string.h>

struct ra_oracle {
    ra_policy *policy;
    ra_oracle_member member;
    uint64_t hash;
};

static uint64_t identity(const ra_oracle *o)
{
    char text[33];
    ra_hash_text(o->policy->hash, text);
    char *whole = ra_format("%s %s %s", o->member.ops->name, text, o->member.identity);
    uint64_t hash = ra_hash_bytes(whole, strlen(whole)).low;
    free(whole);
    return hash;
}

ra_err ra_oracle_new(ra_policy *policy, const ra_oracle_member *member, int n, ra_oracle **out)
{
    (void)n;
    ra_oracle *o = ra_calloc(1, sizeof *o);
    o->policy = policy;
    o->member = *member;
    o->hash = identity(o);
    *out = o;
    return RA_OK;
}

void ra_oracle_close(ra_oracle *o)
{
    if (!o) return;
    o->member.ops->close(o->member.state);
    free(o->member.identity);
    ra_policy_free(o->policy);
    ra_free(o);
}

static void take(void *context, int item, const ra_verdict *verdict)
{
    ((ra_verdict *)context)[item] = *verdict;
}

ra_err ra_oracle_judge(ra_oracle *o, const ra_oracle_item *items, int n, ra_verdict *verdicts)
{
    return o->member.ops->judge(o->member.state, items, n, take, verdicts);
}

const char *ra_oracle_problem(const ra_oracle *o)
{
    return o->member.ops->problem(o->member.state);
}

const ra_policy *ra_oracle_policy(const ra_oracle *o)
{
    return o->policy;
}

int ra_oracle_rule_count(const ra_oracle *o)
{
    return o->member.rules.n;
}

const char *ra_oracle_rule_name(const ra_oracle *o, int rule)
{
    return rule >= 0 && rule < o->member.rules.n ? o->member.rules.name[rule] : NULL;
}

const char *ra_oracle_kind(const ra_oracle *o)
{
    return o->member.ops->name;
}

bool ra_oracle_judges_text(const ra_oracle *o)
{
    return o->member.ops->judges_text;
}

uint64_t ra_oracle_hash(const ra_oracle *o)
{
    return o->hash;
}
