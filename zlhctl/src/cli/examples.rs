//! What stands below the options in the help of each command.

pub(super) const CRASHES_EXAMPLES: &str = "\
Examples:
  zlhctl crashes lobby
  zlhctl crashes lobby -o json";

pub(super) const EXPLAIN_EXAMPLES: &str = "\
A path that exists is a log; anything else is an agent. With -o json a log gives
one object a line, whether something is wrong or not; the exit code is 0.

Examples:
  zlhctl explain lobby
  zlhctl explain logs/latest.log
  zlhctl explain crash-reports/*.txt -o json
  journalctl -u minecraft | zlhctl explain -
  zlhctl explain latest.log --exit-code 137 --signal 9 --oom-kill 1";

pub(super) const FIX_EXAMPLES: &str = "\
Nothing is done unasked, and nothing while the server runs.

Examples:
  zlhctl fix lobby accept_eula
  zlhctl fix lobby disable_addon --crash 1795342193669-3fa2c1d0";

pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some of several agents failed.
See `zlhctl COMMAND --help` for examples.";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  zlhctl status
  zlhctl status lobby survival -o wide
  zlhctl status -l site=fra -o json";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  zlhctl get lobby
  zlhctl get 10.0.0.11:18888 -o yaml";

pub(super) const START_EXAMPLES: &str = "\
Examples:
  zlhctl start lobby
  zlhctl start -l site=fra --timeout 20m
  zlhctl start lobby --no-wait";

pub(super) const STOP_EXAMPLES: &str = "\
A stop asks the server to save and end; it is never counted as a crash.

Examples:
  zlhctl stop lobby survival
  zlhctl stop lobby --now
  zlhctl stop -l game=minecraft --no-wait";

pub(super) const MAINTENANCE_ON_EXAMPLES: &str = "\
It outlives crashes, the agent and the container: nothing is started after a
crash, at boot, or by anybody else. Once more, it gives another reason.

Examples:
  zlhctl maintenance on lobby --reason 'new disk, back at 18:00'
  zlhctl maintenance on -l site=fra
  zlhctl maintenance on lobby --keep-running";

pub(super) const MAINTENANCE_OFF_EXAMPLES: &str = "\
A server that had failed, or that somebody stopped, stays down.

Examples:
  zlhctl maintenance off lobby
  zlhctl maintenance off -l site=fra --no-start";

pub(super) const CONFIGURE_EXAMPLES: &str = "\
Examples:
  zlhctl configure lobby -f payload.json
  echo '{\"game\":\"minecraft\",\"variant\":\"paper\",\"version\":\"1.21.7\"}' | zlhctl configure lobby -f -";

pub(super) const SHELL_EXAMPLES: &str = "\
Examples:
  zlhctl shell box             the shell `main`, opened if there is none
  zlhctl shell box build       another one beside it
  zlhctl shells list box       which there are, and who looks at them

It runs as the user `dev` of the container (`user` in [shell] of the agent names
another). Who comes back sees the screen as it is. One that nobody looks at ends
after a minute (`detached_s`). Its size is that of its smallest viewer.";

pub(super) const CONSOLE_EXAMPLES: &str = "\
On a terminal every key goes to the server, until the detach key. Otherwise
lines are read from standard input and sent one by one. A console whose connection
breaks, or whose agent is restarted, comes back by itself and misses nothing.

Examples:
  zlhctl console lobby
  zlhctl console lobby --record evening.cast
  zlhctl console lobby --detach-key ctrl-q
  printf 'say backup in 5 minutes\\nsave-all\\n' | zlhctl console lobby";

pub(super) const SEND_EXAMPLES: &str = "\
Examples:
  zlhctl send lobby say dinner is ready
  zlhctl send --wait lobby list
  zlhctl send lobby 'whitelist add Alice'";

pub(super) const LOGS_EXAMPLES: &str = "\
Offsets are bytes and never reset, so a reader can go on where it stopped.

Examples:
  zlhctl logs lobby -n 20
  zlhctl logs lobby -f
  zlhctl logs -f -l site=a --grep ERROR
  zlhctl logs lobby --since 1048576";

pub(super) const WAIT_EXAMPLES: &str = "\
An agent in state `error` ends the wait at once, with the agent's reason.

Examples:
  zlhctl wait lobby
  zlhctl wait lobby --for idle --timeout 2m";

pub(super) const HISTORY_EXAMPLES: &str = "\
Uptime is the time it was ready, of all the time it was meant to be. Times are
local. With -o wide every event is shown; json and yaml are the agent's answer.

Examples:
  zlhctl history lobby
  zlhctl history lobby --window 30d -n 100
  zlhctl history lobby --window 7d -o json";

pub(super) const FLEET_ADD_EXAMPLES: &str = "\
With --token-file the file's path is noted, not the token.

Examples:
  zlhctl fleet add lobby 10.0.0.11
  zlhctl fleet add survival https://mc.example.org -l site=fra --token-file ~/survival.token";

pub(super) const DEMO_EXAMPLES: &str = "\
Needs npm; no root. Everything goes into one folder that can be deleted.

Examples:
  zlhctl demo
  zlhctl demo --dir /tmp/demo --once";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  zlhctl completions bash > ~/.local/share/bash-completion/completions/zlhctl
  zlhctl completions fish > ~/.config/fish/completions/zlhctl.fish";
