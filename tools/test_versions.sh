#!/usr/bin/env bash
# The suite with another torch and Triton, in an environment and a copy of the tree of its own.
#
#     tools/test_versions.sh newest|oldest [arguments for pytest]        PYTHON names the interpreter
#
# newest: what the registry has. For CI, on a schedule: a release that breaks helion is to be seen before users have it;
# helion itself says, once, that these versions are newer than what it was tested with. oldest: what pyproject.toml asks
# for at least (with all of CUDA, gigabytes). What is committed is tested.
set -euo pipefail

which=$1
shift
case $which in
newest) versions=(--upgrade torch triton) ;;
oldest) versions=("torch==2.11.*" "triton==3.6.*") ;;
*)
  echo "$which: newest or oldest" >&2
  exit 2
  ;;
esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/build/$which
mkdir -p "$work"
[ -x "$work/env/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/env"
python=$work/env/bin/python
"$python" -m pip install --quiet "${versions[@]}"
sed 's/#.*//' "$root/requirements/dev.txt" | "$python" -m pip install --quiet --requirement /dev/stdin
rm -rf "$work/tree"
mkdir "$work/tree"
git -C "$root" archive HEAD | tar -x -C "$work/tree"
cd "$work/tree"
HELION_BUILD_EXTENSION=1 "$python" setup.py -q build_ext --inplace
"$python" -m helion doctor || true
exec "$python" -m pytest -n "${JOBS:-2}" --dist loadgroup "${@:-tests}"
