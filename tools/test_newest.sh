#!/usr/bin/env bash
# The suite with the newest torch and Triton that the registry has, in an environment and a copy of the tree of its own.
#
#     tools/test_newest.sh [arguments for pytest]        PYTHON names the interpreter
#
# For CI, on a schedule: a release that breaks helion is to be seen before users have it. What is committed is tested.
# helion itself says, once, that these versions are newer than what it was tested with.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$root/build/newest
mkdir -p "$work"
[ -x "$work/env/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/env"
python=$work/env/bin/python
"$python" -m pip install --quiet --upgrade torch triton
sed 's/#.*//' "$root/requirements/dev.txt" | "$python" -m pip install --quiet --requirement /dev/stdin
rm -rf "$work/tree"
mkdir "$work/tree"
git -C "$root" archive HEAD | tar -x -C "$work/tree"
cd "$work/tree"
HELION_BUILD_EXTENSION=1 "$python" setup.py -q build_ext --inplace
"$python" -m helion doctor || true
exec "$python" -m pytest -n "${JOBS:-2}" --dist loadgroup "${@:-tests}"
