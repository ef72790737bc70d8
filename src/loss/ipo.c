/* IPO (Azar et al., 2024), eq. 1' of METHOD:  L = (m - 1/(2 tau))^2,  m = r+ - r-
 *                                             dL/dm = 2 (m - 1/(2 tau)) */
#include <realign/loss.h>

void ra_loss_ipo(double tau, double margin, double *loss, double *slope)
{
    double gap = margin - 0.5 / tau;
    *loss = gap * gap;
    *slope = 2.0 * gap;
}
