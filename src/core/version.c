#include <realign/version.h>

#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>

#ifndef RA_VERSION
#error "RA_VERSION, RA_GIT and RA_FLAGS come from the Makefile"
#endif

const char *ra_version(void)
{
    return RA_VERSION;
}

const char *ra_version_git(void)
{
    return RA_GIT;
}

const char *ra_version_flags(void)
{
    return RA_FLAGS;
}

const char *ra_version_compiler(void)
{
    return "gcc-compatible " __VERSION__;
}

const char *ra_version_libraries(void)
{
    static char line[MPI_MAX_LIBRARY_VERSION_STRING + 64];
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(mpi, &n);
    for (int i = 0; i < n; i++) {
        if (mpi[i] == ',' || mpi[i] == '\n') mpi[i] = '\0';
    }
    snprintf(line, sizeof line, "%s, HDF5 %d.%d.%d", mpi, H5_VERS_MAJOR, H5_VERS_MINOR, H5_VERS_RELEASE);
    return line;
}
