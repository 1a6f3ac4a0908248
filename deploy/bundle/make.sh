#!/usr/bin/env bash
# Makes one file that installs rooflight on nodes without internet: wheels of the agent and of all that
# it needs (no torch: the agent needs none), and install.sh.
#   deploy/bundle/make.sh [FOLDER]    writes FOLDER/rooflight-VERSION-PYTHON-MACHINE.tar.gz (FOLDER: dist)
# The nodes need the same Python version and machine as this one; PYTHON names another interpreter
# (default: that of .venv, or what deploy/bootstrap.sh finds). It needs nothing but pip or venv.
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder=${1:-dist}
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=$(deploy/bootstrap.sh python)

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
platform=$("$python" -c 'import platform, sys
print("cp%d%d-%s" % (*sys.version_info[:2], platform.machine()))')
name=rooflight-$version-$platform

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/$name
mkdir -p "$bundle/wheels" "$folder"

if ! "$python" -m pip --version >/dev/null 2>&1; then  # Debian has pip in a package of its own
  "$python" -m venv "$work/venv" || { echo "rooflight: $python has neither pip nor venv" >&2; exit 1; }
  python=$work/venv/bin/python
fi
# the build back-end, which pip installs by itself, is constrained by the environment
PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  "$python" -m pip wheel -qq --disable-pip-version-check --no-input \
  --constraint constraints.txt --wheel-dir "$bundle/wheels" .
cp deploy/bundle/install.sh LICENSE "$bundle"
printf '%s\n' "$version" >"$bundle/VERSION"
(cd "$bundle" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$work/sums"
mv "$work/sums" "$bundle/SHA256SUMS"

# whatever umask this runs under, everybody may read what it holds
tar --create --gzip --file "$folder/$name.tar.gz" --owner=0 --group=0 --mode=u+rwX,go+rX,go-w \
  --directory "$work" "$name"
du -h "$folder/$name.tar.gz"
