#!/bin/bash
# Checkpoints on a full disk: a tmpfs of 2 MiB in a mount namespace of its own, which vanishes with this test.
set -u
cd "$(dirname "$0")/../.." || exit 1
export BUILD=${BUILD:-build}
# shellcheck source=tools/mpi-env.sh
. tools/mpi-env.sh

isolate=(unshare --mount)
[ "$(id -u)" -eq 0 ] || isolate=(unshare --mount --map-root-user)
disk=$(mktemp -d) || exit 1
trap 'rmdir "$disk"' EXIT
if ! "${isolate[@]}" mount -t tmpfs -o size=2m tmpfs "$disk" 2> /dev/null; then
    echo "1..1"
    echo "ok 1 - checkpoints on a full disk # SKIP mounting a small tmpfs is not permitted here"
    exit 0
fi
status=0
for ranks in 1 2 3; do
    # shellcheck disable=SC2016 # expanded inside the namespace
    REALIGN_SMALL_DISK=$disk RANKS=$ranks "${isolate[@]}" bash -c '
        mount -t tmpfs -o size=2m tmpfs "$REALIGN_SMALL_DISK" || exit 1
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 exec timeout 100 mpirun -n "$RANKS" "$BUILD/tests/mpi/test_checkpoint"' || status=1
done
exit $status
