#!/bin/sh
# A rig that drives echod over REST, with a POSIX shell and curl (7.82 or later).
#
#   rig.sh bin/echod                start a daemon for itself, on a free port
#   rig.sh http://127.0.0.1:7070    use one that runs
#
# It creates a TCP and a UDP endpoint, waits until they serve, probes both, says what was measured, and leaves nothing behind,
# however it ends. Exit code: 0 when every expectation was met, else 1.
set -eu

[ $# -eq 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }

work=$(mktemp -d)
daemon=
names=

cleanup() {
  status=$?
  trap '' HUP INT TERM
  for name in $names; do
    # One that was never created, because the daemon refused it, is not there to be deleted.
    call DELETE "/v1/endpoints/$name" >/dev/null 2>"$work/refused" || grep -q ENDPOINT_NOT_FOUND "$work/refused" ||
      { cat "$work/refused" >&2; status=1; }
  done
  if [ -n "$daemon" ]; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" || status=1 # it ends with 0 when it is stopped
    [ "$status" -eq 0 ] || sed 's/^/echod: /' "$work/log" >&2
  fi
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# call METHOD PATH [BODY] prints the answer. What is refused is said with the daemon's own words, and fails.
call() {
  if ! answer=$(curl -sS --noproxy '*' --max-time 120 --fail-with-body -X "$1" ${3:+--json "$3"} "$url$2" 2>&1); then
    echo "rig.sh: $1 $2: $answer" >&2
    return 1
  fi
  printf '%s\n' "$answer"
}

# field NAME JSON prints the first field of that name: enough for values that are no texts with quotes in them.
field() { printf '%s\n' "$2" | grep -o "\"$1\":\"\{0,1\}[^\",}]*" | head -n 1 | sed 's/^[^:]*:"\{0,1\}//'; }

# wait_for WHAT COMMAND... runs the command every tenth of a second until it succeeds, for half a minute.
wait_for() {
  what=$1
  shift
  tries=300
  until "$@"; do
    [ $((tries -= 1)) -gt 0 ] || { echo "rig.sh: waited 30 s for $what" >&2; return 1; }
    sleep 0.1
  done
}

# ready fails the rig when the daemon has ended, and is false until it is ready.
ready() {
  [ -e "$work/ready" ] && return
  kill -0 "$daemon" 2>/dev/null || { echo "rig.sh: echod did not start" >&2; exit 1; }
  return 1
}

# serves is false until the endpoint answers, and fails the rig when it cannot be asked. (A call in a pipe would fail unseen.)
serves() {
  answer=$(call GET "/v1/endpoints/$1") || exit 1
  [ "$(field state "$answer")" = SERVING ]
}

case $1 in
*://*) url=$1 ;;
*)
  "$1" --grpc-listen= --http-listen=127.0.0.1:0 --socket= --ready-file="$work/ready" >"$work/log" 2>&1 &
  daemon=$!
  wait_for "the daemon" ready
  url=http://$(field http "$(cat "$work/ready")")
  ;;
esac

id=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
status=0
for protocol in TCP UDP; do
  # The name is ours, and noted before it is asked for: if the answer is lost, the endpoint is not. The ttl is for a rig that is
  # killed: it must be longer than the rig runs.
  name=rig-$id-$(echo $protocol | tr A-Z a-z)
  names="$names $name"
  endpoint=$(call POST /v1/endpoints "{\"name\": \"$name\", \"protocol\": \"$protocol\", \"ttl\": \"10m\", \"labels\": {\"rig\": \"example\"}}")
  wait_for "$name" serves "$name"
  report=$(call POST /v1/probes:run "{\"target\": {\"endpoint\": \"$name\"}, \"count\": 3, \"interval\": \"10ms\", \"timeout\": \"30s\", \"expect\": [\"loss == 0%\"]}")
  echo "$protocol $(field address "$endpoint"): $(field sent "$report") sent, $(field received "$report") received"
  case $report in
  *'"met":false'*) echo "  loss == 0%: NOT MET"; status=1 ;;
  *) echo "  loss == 0%: met" ;;
  esac
done

echo "a port that is none:"
if call POST /v1/endpoints '{"protocol": "TCP", "listen": "127.0.0.1:70000"}' 2>"$work/refused"; then
  echo "rig.sh: was taken" >&2
  exit 1
fi
refused=$(cat "$work/refused")
echo "  $(field reason "$refused") $(field field "$refused")"
exit $status
