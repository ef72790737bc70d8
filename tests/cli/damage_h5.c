/* Damages one dataset of an HDF5 file in place. usage: damage_h5 FILE DATASET INDEX FACTOR   multiplies one value
 *                                                     damage_h5 FILE DATASET --shorten        drops the last value of a list */
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int scale_one(hid_t set, hsize_t index, double factor)
{
    double value;
    hid_t space = H5Dget_space(set);
    hsize_t shape[4], at[4], one[4] = {1, 1, 1, 1};
    int rank = H5Sget_simple_extent_dims(space, shape, NULL);
    for (int d = rank - 1; d >= 0; d--) {
        at[d] = index % shape[d];
        index /= shape[d];
    }
    hid_t memory = H5Screate_simple(rank, one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, at, NULL, one, NULL);
    if (H5Dread(set, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, &value) < 0) return 1;
    value *= factor;
    int failed = H5Dwrite(set, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, &value) < 0;
    H5Sclose(memory);
    H5Sclose(space);
    return failed;
}

static int shorten(hid_t file, hid_t set, const char *name)
{
    hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    hsize_t n = 0;
    if (H5Sget_simple_extent_ndims(space) != 1) return 1;
    H5Sget_simple_extent_dims(space, &n, NULL);
    char *values = malloc(n * H5Tget_size(type));
    H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    n--;
    H5Ldelete(file, name, H5P_DEFAULT);
    hid_t shorter = H5Screate_simple(1, &n, NULL),
          again = H5Dcreate2(file, name, type, shorter, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    int failed = H5Dwrite(again, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0;
    free(values);
    H5Dclose(again);
    H5Sclose(shorter);
    H5Sclose(space);
    H5Tclose(type);
    return failed;
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    hid_t file = H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT), set = H5Dopen2(file, argv[2], H5P_DEFAULT);
    if (set < 0) return 2;
    int failed = strcmp(argv[3], "--shorten") == 0 ? shorten(file, set, argv[2])
                                                   : scale_one(set, strtoull(argv[3], NULL, 10), argc > 4 ? atof(argv[4]) : 2.0);
    H5Dclose(set);
    H5Fclose(file);
    return failed;
}
