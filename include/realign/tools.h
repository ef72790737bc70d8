/* The small tools of the command line. Each takes the words after its name and prints to stdout. */
#ifndef REALIGN_TOOLS_H
#define REALIGN_TOOLS_H
#include <realign/error.h>

/* check DIR [key=value ...]: recomputes every quantity of a reference directory; RA_ERR_NUMERIC where one is outside its tolerance. */
ra_err ra_tool_check(int argc, char **argv);

#endif
