#!/usr/bin/env bash
# check-static.sh BINARY [BINARY…]: static-pie, without an interpreter, and free of
# the calls that make a static glibc binary load NSS modules. Wants the symbols in:
# it looks at what was linked, so call it before strip.
#
# getpwuid and getaddrinfo are linked by dependencies that never call them here; a
# test proves it by running under a hostile nsswitch.conf.
set -euo pipefail

banned='^_*(getpwnam|getgrnam|initgroups|getgrouplist)(_r)?$'

for tool in file readelf nm; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; apt-get install binutils file" >&2; exit 1; }
done
[ $# -gt 0 ] || { echo "usage: check-static.sh BINARY…" >&2; exit 2; }

failed=0
complain() {
  echo "error: $1" >&2
  failed=1
}

for binary in "$@"; do
  file --brief "$binary" | grep -q 'static-pie linked' || complain "$binary is not static-pie: $(file --brief "$binary")"
  if readelf --program-headers --wide "$binary" | grep -q INTERP; then
    complain "$binary asks for a loader"
  fi
  if readelf --dynamic --wide "$binary" | grep -q NEEDED; then
    complain "$binary needs shared libraries"
  fi
  symbols=$(nm "$binary" 2>/dev/null | awk '{ print $NF }' | sed 's/@.*//' | sort -u)
  # An empty list would make the next check pass for the wrong reason.
  [ "$(wc -l <<<"$symbols")" -gt 1000 ] || complain "$binary has no symbols to look at: check it before strip"
  if grep -aq ZLH_FAULTS "$binary"; then
    complain "$binary lets tests break it: build it without the feature faults"
  fi
  found=$(grep -E "$banned" <<<"$symbols" || true)
  [ -z "$found" ] || complain "$binary has NSS calls: $(tr '\n' ' ' <<<"$found")"
done
exit "$failed"
