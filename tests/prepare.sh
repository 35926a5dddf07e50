#!/usr/bin/env bash
# Fetches, once, what the end-to-end suite takes from npm: a real Minecraft-protocol
# server, a real player, and the Node both run on. Everything lands in target/zlh-npm;
# a second call with the same lock file does nothing. The packages are those
# of `zlhctl demo`: what the tests run is what the demo shows.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=$here/../zlhctl/demo
into=${CARGO_TARGET_DIR:-$here/../target}/zlh-npm
stamp=$(cat "$packages/package-lock.json" "$packages/server.cjs" | sha256sum | cut -d' ' -f1)

if [ -f "$into/stamp" ] && [ "$(cat "$into/stamp")" = "$stamp" ]; then
  exit 0
fi
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
