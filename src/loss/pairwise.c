/* Which formula a sample takes, and how its slope spreads over the sample's responses. */
#include <realign/loss.h>

static ra_loss_value preference(const ra_objective *o, bool ipo, const double r[RA_ROLES], ra_role better, ra_role worse)
{
    ra_loss_value v = {0};
    double slope;
    if (ipo) {
        ra_loss_ipo(o->tau, r[better] - r[worse], &v.loss, &slope);
    } else {
        ra_loss_dpo(o->beta, r[better] - r[worse], &v.loss, &slope);
    }
    v.slope[better] = slope;
    v.slope[worse] = -slope;
    return v;
}

ra_loss_value ra_loss_pairwise(const ra_objective *o, ra_loss_kind kind, const double r[RA_ROLES])
{
    ra_loss_value v = {0};
    double half;
    switch (kind) {
    case RA_LOSS_PAIR: return preference(o, false, r, RA_CHOSEN, RA_REJECTED);
    case RA_LOSS_INVERT: return preference(o, o->ipo, r, RA_REJECTED, RA_CHOSEN);
    case RA_LOSS_PUNISH_CORRECTED: return preference(o, false, r, RA_CORRECTION, RA_CHOSEN);
    case RA_LOSS_PUNISH:
        ra_loss_npo(o->beta, o->npo_scale, r[RA_CHOSEN], &v.loss, &v.slope[RA_CHOSEN]);
        ra_loss_npo(o->beta, o->npo_scale, r[RA_REJECTED], &half, &v.slope[RA_REJECTED]);
        v.loss += half;
        return v;
    case RA_LOSS_RETAIN:
    case RA_LOSS_SCORE: break;
    }
    return v;
}

unsigned ra_loss_roles(ra_loss_kind kind)
{
    switch (kind) {
    case RA_LOSS_PAIR:
    case RA_LOSS_INVERT:
    case RA_LOSS_PUNISH: return 1u << RA_CHOSEN | 1u << RA_REJECTED;
    case RA_LOSS_PUNISH_CORRECTED: return 1u << RA_CHOSEN | 1u << RA_CORRECTION;
    case RA_LOSS_RETAIN: return 1u << RA_CHOSEN;
    case RA_LOSS_SCORE: return 1u << RA_CHOSEN | 1u << RA_REJECTED | 1u << RA_CORRECTION;
    }
    return 0;
}
