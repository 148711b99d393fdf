#!/usr/bin/env bash
# Packs what a machine with a GPU needs that has Python, torch for CUDA and common packages, but no network:
#
#   pack.sh                 loads of parts in .gpu/load-1, .gpu/load-2, ..., each to be carried by one call, with checksums
#   pack.sh --rehearsal     with warp-clang.so, which only Warp's CPU device needs
#
# PYTHON_VERSION (3.12) is the other machine's; PYTHON (python3) has simreal[gpu] installed, as constraints.txt says, to
# compile kernels for GPU_ARCH (90) ahead of time; MENAGERIE_ROOT names the robots' files; XZ_OPT (-9 -T0) sets the
# compression, PARTS (.gpu) the place, LOAD_BYTES the size of a load. Wheels and kernels are kept in .gpu-work for the next
# time. NO_KERNELS=1 packs only the kernels that are there.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
version=${PYTHON_VERSION:-3.12}
python=${PYTHON:-python3}
arch=${GPU_ARCH:-90}
work=${WORK:-$root/.gpu-work}
parts=${PARTS:-$root/.gpu}
export XZ_OPT=${XZ_OPT:--9 -T0}
robots=(unitree_go1 wonik_allegro)
# What torch's machine lacks, or may have too old (filelock); onnxscript and the like are there.
packages=(
    warp-lang mujoco mujoco-core mujoco-warp mujoco-menagerie gymnasium gymnasium-robotics Farama-Notifications pettingzoo
    pydantic pydantic_core annotated-types typing-inspection typing_extensions glfw PyOpenGL cloudpickle etils filelock
)
# mujoco-studio and imageio-ffmpeg stay at home.
without=(
    'warp/tests/*' 'warp/examples/*' 'mujoco_warp/test_data/*' 'gymnasium_robotics/envs/assets/kitchen_franka/*'
    'gymnasium_robotics/envs/assets/adroit_hand/*'
)
case "${1:-}" in
    '') without+=('warp/bin/warp-clang.so') ;;
    --rehearsal) ;;
    *) echo "pack.sh: unknown option $1" >&2; exit 2 ;;
esac
if [ -z "${MENAGERIE_ROOT:-}" ]; then
    echo "pack.sh: MENAGERIE_ROOT: expected a folder that holds ${robots[*]}" >&2
    exit 2
fi
for robot in "${robots[@]}"; do
    [ -d "$MENAGERIE_ROOT/$robot" ] || { echo "pack.sh: missing: $MENAGERIE_ROOT/$robot" >&2; exit 2; }
done

wheels=$work/wheels-$version
mkdir -p "$wheels"
wanted=()
for package in "${packages[@]}"; do
    pin=$(grep -i "^$package==" "$root/constraints.txt") || { echo "pack.sh: constraints.txt has no $package" >&2; exit 2; }
    wanted+=("$pin")
done
platforms=()
for number in 5 12 17 24 27 28 31 34; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$version" \
    --implementation cp --platform manylinux2014_x86_64 "${platforms[@]}" -d "$wheels" "${wanted[@]}"
have=$(find "$wheels" -name '*.whl' | wc -l)
[ "$have" -eq "${#packages[@]}" ] || { echo "pack.sh: $wheels: $have wheels, expected ${#packages[@]}: empty it" >&2; exit 2; }
"$python" "$here/parts.py" site "${without[@]/#/--without=}" "$work/cargo/site" "$wheels"/*.whl

rm -rf "$work/cargo/robots" "$work/cargo/kernels"
mkdir -p "$work/cargo/robots" "$work/kernels"
for robot in "${robots[@]}"; do cp -r "$MENAGERIE_ROOT/$robot" "$work/cargo/robots/"; done

if [ -z "${NO_KERNELS:-}" ]; then
    WARP_CACHE_PATH=$work/kernels "$python" "$here/kernels.py" --arch "$arch"
fi
(
    cd "$work/kernels"
    find . -path '*_p*_t*' -prune -o -type f \( -name '*.cubin' -o -name '*.meta' -o -name '*.o' \) -print0
) | tar -C "$work/kernels" --null -T - -cf - | (mkdir -p "$work/cargo/kernels" && tar -C "$work/cargo/kernels" -xf -)

archives=()
for content in site kernels robots; do
    archive=$work/$content.tar.xz
    # of the same content the same archive: a load that was carried before need not be carried again
    tar -C "$work/cargo" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/$content.tar" "$content"
    sum=$(sha256sum <"$work/$content.tar")
    if [ ! -f "$archive" ] || [ "$(cat "$archive.of" 2>/dev/null)" != "$sum $XZ_OPT" ]; then
        xz -c "$work/$content.tar" >"$archive"
        echo "$sum $XZ_OPT" >"$archive.of"
    fi
    printf '%s: %s bytes, packed %s\n' "$content" "$(stat -c %s "$work/$content.tar")" "$(stat -c %s "$archive")"
    rm "$work/$content.tar"
    archives+=("$archive")
done
"$python" "$here/parts.py" cut --most "${LOAD_BYTES:-58000000}" "$parts" "${archives[@]}"
