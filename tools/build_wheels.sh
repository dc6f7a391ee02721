#!/usr/bin/env bash
# Wheels of helion in dist/: one of pure Python, and one with the extension for every interpreter at hand that has torch.
#
#     tools/build_wheels.sh [directory for wheels]        PYTHONS="python3.11 /opt/py312/bin/python" names interpreters,
#                                                         ONLY_PURE=1 leaves out those with the extension
#
# An extension is for one minor version of Python and exactly the torch that it was built with (it reads at::Tensor): the
# local version of its wheel says which, 0.1.0+torch2.13.0. Another torch makes helion say so, and run without it. Where
# auditwheel is installed it makes the wheels manylinux; torch's own libraries stay outside.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$root/dist}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Built from a copy, so that neither the tree's own extension nor its build/ gets into a wheel.
fresh_tree() {
  rm -rf "$work/tree"
  mkdir "$work/tree"
  (cd "$root" && cp -r helion csrc setup.py pyproject.toml README.md LICENSE "$work/tree")
  rm -f "$work"/tree/helion/_C*.so
  find "$work/tree" -name __pycache__ -prune -exec rm -rf {} +
}

wheel() {  # interpreter
  (cd "$work/tree" && "$1" -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir "$work/out" .)
}

pythons=${PYTHONS:-$(for v in 3.10 3.11 3.12 3.13 3.14 3.14t; do command -v "python$v" || true; done; command -v python3)}
built_pure=
seen=" "
for python in $pythons; do
  "$python" -c 'import setuptools, pip' 2>/dev/null || { echo "skipped $python: it has no pip or no setuptools"; continue; }
  if [ -z "$built_pure" ]; then
    fresh_tree
    HELION_BUILD_EXTENSION=0 wheel "$python"
    built_pure=1
  fi
  [ -z "${ONLY_PURE:-}" ] || continue
  torch=$("$python" -c 'import torch; print(torch.__version__.replace("-", "."))' 2>/dev/null) || {
    echo "skipped $python: it has no torch"
    continue
  }
  tag=$("$python" -c 'import sys, sysconfig; print(sysconfig.get_config_var("SOABI"))')-$torch
  case "$seen" in *" $tag "*) continue ;; esac
  seen="$seen$tag "
  fresh_tree
  local_version=torch$(echo "$torch" | sed 's/+/./; s/[^0-9A-Za-z.]/./g')
  sed -i "s/^__version__ = \"\(.*\)\"/__version__ = \"\1+$local_version\"/" "$work/tree/helion/_version.py"
  HELION_BUILD_EXTENSION=1 wheel "$python"
done
[ -n "$built_pure" ] || { echo "no interpreter with pip and setuptools; name one: PYTHONS=..." >&2; exit 1; }

for made in "$work"/out/*.whl; do
  if [[ $made == *linux_* ]] && command -v auditwheel >/dev/null; then
    auditwheel repair --exclude 'libtorch*.so*' --exclude 'libc10*.so*' --wheel-dir "$out" "$made"
  else
    mv "$made" "$out/"
  fi
done
ls -1 "$out"/*.whl
