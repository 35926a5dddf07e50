#!/bin/sh
# As the releases of code-server have it: a Node of its own beside it, wherever the tree lies.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
exec "$root/lib/node" "$root/node_modules/code-server/out/node/entry.js" "$@"
