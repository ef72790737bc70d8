/* DPO (Rafailov et al., 2023), eq. 1 and 2c of METHOD:  L = -log sigma(beta m),  m = r+ - r-
 *                                                       dL/dm = -beta sigma(-beta m) */
#include <realign/loss.h>

#include <math.h>

void ra_loss_dpo(double beta, double margin, double *loss, double *slope)
{
    double z = -beta * margin;
    *loss = z > 0.0 ? z + log1p(exp(-z)) : log1p(exp(z)); /* log(1 + e^z) without overflow */
    *slope = -beta / (1.0 + exp(-z));
}
