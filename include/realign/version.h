/* What was compiled: version, git hash with "-dirty" where the tree had changes, compiler and flags, libraries. */
#ifndef REALIGN_VERSION_H
#define REALIGN_VERSION_H
const char *ra_version(void);
const char *ra_version_git(void);
const char *ra_version_flags(void);
const char *ra_version_compiler(void);
/* "Open MPI 4.1.4, HDF5 1.10.8, ...": a line for logs and provenance. The string is static. */
const char *ra_version_libraries(void);
#endif
