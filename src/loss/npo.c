/* NPO (Zhang et al., 2024), one half of eq. 2 of METHOD:  L = -s log sigma(-beta r)
 *                                                         dL/dr = s beta sigma(beta r)
 * s = 1 as published in TRACE; 2 / beta in NPO's own paper. */
#include <realign/loss.h>

#include <math.h>

void ra_loss_npo(double beta, double scale, double r, double *loss, double *slope)
{
    double z = beta * r;
    *loss = scale * (z > 0.0 ? z + log1p(exp(-z)) : log1p(exp(z)));
    *slope = scale * beta / (1.0 + exp(-z));
}
