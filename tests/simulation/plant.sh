#!/usr/bin/env bash
# Proves that the simulation can fail: breaks the pool in one place at a time, in a copy of the
# tree, and expects the simulation to notice. Says how many seeds that took.
#
#   tests/simulation/plant.sh            all bugs
#   tests/simulation/plant.sh dead       those whose name matches "dead", a regular expression
#   tests/simulation/plant.sh --check    none: whether each text is found exactly once
#
# A bug is an exact text in one file. If the text is not found exactly once the script stops: a bug
# that no longer applies would count as found or missed for nothing.
#
# COREPOOL_SIM_SEEDS is the budget of each, 4000 seeds by default. PLANT_DIR is where the copy and
# what is built of it are kept, by default a new directory that is removed at the end.
set -euo pipefail

only=${1:-}
check=
if [[ $only == --check ]]; then
    check=yes only=
fi
tree=$(cd "$(dirname "$0")/../.." && pwd)
seeds=${COREPOOL_SIM_SEEDS:-4000}
if [[ -n ${PLANT_DIR:-} ]]; then
    work=$PLANT_DIR
    mkdir -p "$work"
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
rm -rf "$work/tree" "$work/pristine"
mkdir "$work/tree"
tar -C "$tree" --exclude=./target --exclude=./.git --exclude=./fuzz --exclude=./loom-tests/target \
    -cf - . | tar -C "$work/tree" -xf -
cp -r "$work/tree/src" "$work/pristine"
export CARGO_TARGET_DIR=$work/target
export CARGO_INCREMENTAL=1
export RUST_BACKTRACE=0

found=0
missed=0
applied=0

# The test binary of the copy as it is now.
build() {
    if ! (cd "$work/tree" && cargo test --test simulation --no-run) >"$work/build" 2>&1; then
        cat "$work/build" >&2
        echo "$1 does not compile" >&2
        exit 1
    fi
    sed -n 's/^ *Executable.*(\(.*\))$/\1/p' "$work/build"
}

# bug NAME FILE OLD NEW
bug() {
    local name=$1 file=$2
    if [[ ! $name =~ $only ]]; then
        return
    fi
    OLD=$3 NEW=$4 python3 - "$work/tree/src/$file" "$name" <<'PY'
import os, sys
path, name = sys.argv[1:]
text, old = open(path).read(), os.environ["OLD"]
found = text.count(old)
if found != 1:
    sys.exit(f"{name}: found {found} times instead of once in {path}:\n{old}")
if old == os.environ["NEW"]:
    sys.exit(f"{name}: changes nothing")
open(path, "w").write(text.replace(old, os.environ["NEW"]))
PY
    applied=$((applied + 1))
    if [[ -z $check ]]; then
        run "$name"
    fi
    cp "$work/pristine/$file" "$work/tree/src/$file"
}

run() {
    local name=$1 binary began=$SECONDS status=0
    binary=$(build "$name")
    # In a subshell, which keeps the shell's own word on an aborted child out of the report.
    (
        cd "$work/tree"
        COREPOOL_SIM_SEEDS=$seeds timeout 300 "$binary" no_seed_breaks_an_invariant --nocapture
        exit $?
    ) >"$work/run" 2>&1 || status=$?
    local took=$((SECONDS - began)) why
    if ((status == 0 || status == 124)); then
        missed=$((missed + 1))
        printf 'MISSED  %-28s %3ds  not found by %d seeds, or in 300 s\n' "$name" "$took" "$seeds"
        return
    fi
    why=$(grep -am1 '^seed [0-9]*, step' "$work/run" || true)
    if [[ -z $why ]] && ((status < 128)); then
        cat "$work/run"
        echo "$name: failed for another reason than an invariant"
        exit 1
    elif [[ -z $why ]]; then
        # Memory that two owners had: the process may end before it can say which seed it was.
        why="aborted, status $status"
    fi
    found=$((found + 1))
    printf 'found   %-28s %3ds  %s\n' "$name" "$took" "$why"
}

# The four that the simulation was built for, each in the place where it would be made.

bug leaked-permit engine/end.rs \
    '            self.totals.closed(&seat.group, class);' \
    '            let _ = class;'
bug double-hand-out engine/state.rs \
    '(State::Idle, Event::Checkout) => (State::InUse, false, self.generation),' \
    '(State::Idle, Event::Checkout) => (State::Idle, false, self.generation),'
bug lost-wake-up-of-a-shard engine/mod.rs \
    '        shard.duties.push(duty);
        shard.driver.wake();' \
    '        shard.duties.push(duty);'
bug lost-wake-up-of-a-caller engine/line.rs \
    '                    waiter.wake();
                    return Ok(());
                }
                Err(Outcome::Ready(back)) => {
                    group.waiters.forget_one();' \
    '                    return Ok(());
                }
                Err(Outcome::Ready(back)) => {
                    group.waiters.forget_one();'
bug dead-one-handed-out look.rs \
    'let settled = when != When::Checkout || !self.engine.is_dead(lease);' \
    'let settled = true;'

# And others of their kind.

bug dirty-one-put-to-rest pooled.rs \
    'if !touched || lease.tenant.conn.is_clean_on_drop() {' \
    'if touched || lease.tenant.conn.is_clean_on_drop() {'
bug cancelled-caller-keeps-it group.rs \
    '            self.inner.engine.cancel(&waiter, self.seat.group());' \
    '            let _ = waiter;'
bug one-too-many engine/permits.rs \
    '                (live < limit).then_some(live + 1)' \
    '                (live <= limit).then_some(live + 1)'
bug breaker-lets-through engine/breaker.rs \
    'Err(found) => Err(Rejected { state: found.state(), left_ms: found.left(now) }),' \
    'Err(found) => Ok(Pass { ticket: Ticket { epoch: found.epoch, probe: false }, change: None }),'
bug evicted-one-handed-out engine/hit.rs \
    'self.is_marked(lease) || lease.tenant.epoch != lease.tenant.seat.group.epoch()' \
    'self.is_marked(lease)'
bug driver-failed-unmarked worker/fallback.rs \
    '        self.inner.engine.hang_up_all(self.shard, self.now());
' ''
bug failed-dial-still-counted worker/dial.rs \
    '    pub(super) fn abandon(&mut self, dial: Dial<C>, cause: DialError) {
        self.live -= 1;' \
    '    pub(super) fn abandon(&mut self, dial: Dial<C>, cause: DialError) {'
bug hung-ping-keeps-it worker/tend.rs \
    '(Err(_), Some(lease)) => inner.engine.broke_off(lease),' \
    '(Err(_), Some(lease)) => core::mem::forget(lease),'
bug resume-serves-nobody engine/control.rs \
    '        self.settle(group, seat.shard, ANYWHERE);
        self.dial_if_needed(seat, now);
        true' \
    '        let _ = (now, ANYWHERE);
        true'

if [[ $check ]]; then
    echo "$applied bugs apply"
    exit 0
fi
if ((applied == 0)); then
    echo "no bug is called $only"
    exit 1
fi
echo "${SECONDS}s: $found found, $missed missed, of $applied"
((missed == 0))
