#!/bin/bash
# `make bundle`: the program with the shared libraries it needs, Open MPI's launcher and plugins included, in a directory that runs wherever it is put (air-gapped clusters, a machine
# that has a GPU and nothing else). Not included: glibc (the host's must be as new as the builder's, see VERSIONS) and NVIDIA's libraries and driver.
# usage: tools/bundle.sh PROGRAM DIRECTORY       writes DIRECTORY and DIRECTORY.tar.gz
set -eu
program=$1 out=$2
rm -rf "$out" "$out.tar.gz"
mkdir -p "$out/bin" "$out/lib"

# Libraries of glibc and of NVIDIA are the host's.
foreign='^(linux-vdso|ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl))\.so|^lib(cuda|cudart|cublas|cublasLt|nccl|nvrtc)[.-]'
collect() { # files: copies what they are linked with
    local file name
    for file in $(ldd "$@" 2> /dev/null | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u); do
        name=${file##*/}
        if [[ $name =~ $foreign ]] || [ -e "$out/lib/$name" ]; then continue; fi
        cp -L "$file" "$out/lib/$name"
    done
}

cp "$program" "$out/bin/realign"
tools=()
for tool in orterun orted; do
    path=$(command -v $tool) && cp -L "$path" "$out/bin/$tool" && tools+=("$path")
done
mpi=$(ldd "$program" | awk '$1 ~ /^libmpi\.so/ {print $3}')
plugin=$(find "$(dirname "$(readlink -f "$mpi")")" -name mca_btl_self.so -type f | head -n 1)
if [ -n "$plugin" ]; then
    mkdir -p "$out/lib/openmpi3"
    cp -L "${plugin%/*}"/mca_*.so "$out/lib/openmpi3/"
fi
help=$(find /usr/share /opt -maxdepth 4 -name help-mpi-runtime.txt 2> /dev/null | head -n 1)
[ -z "$help" ] || { mkdir -p "$out/share" && cp -R "$(dirname "$help")" "$out/share/openmpi"; }
collect "$program" "${tools[@]}" "$out"/lib/openmpi3/*.so
strip --strip-unneeded "$out"/bin/realign "$out"/lib/*.so* 2> /dev/null || true

cat > "$out/realign" << 'SH'
#!/bin/sh
# Runs the program beside this file with the libraries beside it. Ranks: ./mpirun -n 4 ./realign ...
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OPAL_PREFIX="$here"
export OMPI_MCA_mca_base_component_path="$here/lib/openmpi3"
[ -n "${OMPI_COMM_WORLD_SIZE:-}${PMIX_RANK:-}" ] || export OMPI_MCA_ess_singleton_isolated=1 # one rank, started without mpirun
exec "$here/bin/realign" "$@"
SH
cat > "$out/mpirun" << 'SH'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" OPAL_PREFIX="$here" PATH="$here/bin:$PATH"
export OMPI_MCA_mca_base_component_path="$here/lib/openmpi3" OMPI_MCA_plm_rsh_agent="${OMPI_MCA_plm_rsh_agent-}"
exec "$here/bin/orterun" "$@"
SH
chmod 755 "$out/realign" "$out/mpirun"
{
    "$out/realign" version
    ldd --version | head -n 1
} > "$out/VERSIONS"
tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
echo "$out: $(du -sm "$out" | cut -f1) MB in $(find "$out" -type f | wc -l) files; $out.tar.gz: $(du -m "$out.tar.gz" | cut -f1) MB"
