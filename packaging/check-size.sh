#!/usr/bin/env bash
# check-size.sh BINARY MEBIBYTES: fails when the file is larger.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: check-size.sh BINARY MEBIBYTES" >&2; exit 2; }
bytes=$(stat --format=%s "$1")
limit=$(($2 * 1024 * 1024))
if [ "$bytes" -gt "$limit" ]; then
  echo "error: $1 has $bytes bytes, more than $2 MiB" >&2
  exit 1
fi
echo "$1: $bytes bytes, $((bytes * 100 / limit)) % of $2 MiB"
