#!/usr/bin/env bash
# The acceptance test in a real LXC container with systemd as PID 1 (tests/src/bin/zlh-lxc).
# Part of `make test`. Builds the root file system once, in target/zlh-lxc; after that it
# takes less than two minutes.
#
# A machine that cannot run it says why, and passes; with ZLH_LXC=require it fails.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
work=$target/zlh-lxc
program=$target/x86_64-unknown-linux-gnu/debug/zlh-lxc
suite=bookworm # systemd 252, as deployed

skip() {
  echo "SKIPPED: the acceptance test in a container: $*" >&2
  [ "${ZLH_LXC:-}" != require ] || exit 1
  exit 0
}

[ "$(id -u)" -eq 0 ] || skip "it needs root; run it with sudo"
for tool in lxc-start lxc-attach lxc-stop lxc-info debootstrap; do
  command -v "$tool" >/dev/null || skip "$tool is missing; apt-get install lxc debootstrap"
done
[ -x "$program" ] || { echo "error: $program is missing; cargo build --workspace --bins" >&2; exit 1; }

mkdir -p "$work"
# One at a time: two would only slow each other down.
exec 9>"$work/lock"
flock 9
rm -rf "$work"/run-* # of a run that was killed

if [ ! -d "$work/$suite" ]; then
  echo "building a root file system with systemd (once, about 200 MB in $work)" >&2
  rm -rf "$work/$suite.new"
  # Without a D-Bus daemon, as small templates come: nothing here may need one.
  if ! debootstrap --variant=minbase --include=systemd-sysv,procps "$suite" "$work/$suite.new" \
    >"$work/debootstrap.log" 2>&1; then
    tail -n 3 "$work/debootstrap.log" >&2
    skip "debootstrap failed (no network?); see $work/debootstrap.log"
  fi
  # Every run copies it.
  (cd "$work/$suite.new" && rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/{doc,man,locale,info})
  mv "$work/$suite.new" "$work/$suite"
fi

code=0
"$program" "$work/$suite" "$work" 9>&- || code=$?
[ "$code" -ne 4 ] || skip "LXC starts no container on this machine"
exit "$code"
