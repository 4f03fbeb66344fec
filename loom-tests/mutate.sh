#!/usr/bin/env bash
# Proves that the models can fail: breaks the engine in one place at a time, in a copy of the tree,
# and expects a model to notice.
#
#   loom-tests/mutate.sh            all mutants
#   loom-tests/mutate.sh fence      those whose name matches "fence", a regular expression
#   loom-tests/mutate.sh --part 1/4 every fourth, from the second on
#   loom-tests/mutate.sh --check    none: whether each text is found exactly once, and each model
#   loom-tests/mutate.sh --compile  the same, and whether each compiles; some minutes
#
# A mutant is an exact text in one file. If the text is not found exactly once the script stops:
# a mutant that no longer applies would count as killed or survived for nothing.
set -euo pipefail

only=${1:-} check= compile= part=0 parts=1
case $only in
--check) check=yes only= ;;
--compile) check=yes compile=yes only= ;;
--part) part=${2%/*} parts=${2#*/} only= ;;
esac

# Two at once, each with a tree of its own: one for models, one for the library's own tests.
workers=2
if [[ -z ${MUTATE_SHARE:-} && -z $check ]]; then
    shares=() failed=0
    scores=$(mktemp -d)
    trap 'rm -rf "$scores"' EXIT
    for ((share = 0; share < workers; share++)); do
        MUTATE_SHARE=$share MUTATE_SCORE=$scores/$share "$0" "$@" &
        shares+=($!)
    done
    for share in "${shares[@]}"; do
        wait "$share" || failed=1
    done
    read -r killed excused wrong < <(
        cat "$scores"/* | awk '{ k += $1; e += $2; w += $3 } END { print k + 0, e + 0, w + 0 }'
    )
    if ((killed + excused + wrong == 0)); then
        echo "no mutant is called $only"
        exit 1
    fi
    echo "score: $killed killed of $((killed + excused + wrong)), $excused survived for a reason" \
        "that is given above, $wrong wrong, in ${SECONDS}s"
    exit "$failed"
fi
share=${MUTATE_SHARE:-}

tree=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tree"
tar -C "$tree" --exclude=./target --exclude=./.git --exclude=./fuzz --exclude=./loom-tests/target \
    -cf - . | tar -C "$work/tree" -xf -
cp -r "$work/tree/src" "$work/pristine"

export CARGO_TARGET_DIR=$work/target
export RUSTFLAGS="--cfg loom"
# A mutant mostly waits for the compiler.
export CARGO_INCREMENTAL=1
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export RUST_BACKTRACE=0
export MODELS_FAIL_FAST=1

units=
if [[ $check ]]; then
    export SPANS=$work/spans
    units=$(cd "$tree" && env -u RUSTFLAGS -u CARGO_TARGET_DIR cargo test --quiet --lib -- --list)
fi

killed=0
excused=0
wrong=0
found=0
number=-1
declare -A excuse

# Mutants that no model can kill, each with the reason. A mutant listed here that dies is an error
# too: then the reason is wrong.
equivalent() {
    excuse[$1]=$2
}

# mutant NAME "TEST..." FILE OLD NEW
# Runs the test files named; a file may carry a filter, "waiters:purge", and a bound on preemptions
# other than the models' own, "waiters:purge@2". "unit:engine::breaker" stands for the library's own
# tests of that name, built without loom: what a single thread can tell needs no model.
# "shuttle:queue" stands for the scenario of that name under shuttle: what takes more steps, or more
# of the engine at once, than a model has.
mutant() {
    local name=$1 tests=$2 file=$3
    if [[ ! $name =~ $only ]]; then
        return
    fi
    number=$((number + 1))
    if ((number % parts != part)); then
        return
    fi
    local mine=0
    if [[ $tests == unit:* || $tests == shuttle:* ]]; then
        mine=1
    fi
    if [[ $share && $share != "$mine" ]]; then
        return
    fi
    OLD=$4 NEW=$5 python3 - "$work/tree/src/$file" "$name" <<'PY'
import os, sys
path, name = sys.argv[1:]
text, old = open(path).read(), os.environ["OLD"]
if log := os.environ.get("SPANS"):
    at = text.find(old)
    print(path, at, at + len(old), file=open(log, "a"))
found = text.count(old)
if found != 1:
    sys.exit(f"{name}: found {found} times instead of once in {path}:\n{old}")
if old == os.environ["NEW"]:
    sys.exit(f"{name}: changes nothing")
open(path, "w").write(text.replace(old, os.environ["NEW"]))
PY
    if [[ $check ]]; then
        found=$((found + 1))
        local entry
        for entry in $tests; do
            exists "$name" "$entry"
        done
        if [[ $compile ]]; then
            compiles "$name" "$tests"
        fi
        cp "$work/pristine/$file" "$work/tree/src/$file"
        return
    fi
    local began=$SECONDS verdict=survived
    local entry
    for entry in $tests; do
        if ! red "$name" "${entry%%:*}" "${entry#"${entry%%:*}"}"; then
            continue
        fi
        verdict=killed
        break
    done
    cp "$work/pristine/$file" "$work/tree/src/$file"
    local took=$((SECONDS - began))
    if [[ $verdict == killed && ! -v excuse[$name] ]]; then
        killed=$((killed + 1))
        printf 'killed    %-34s %3ds  by %s\n' "$name" "$took" "$by"
    elif [[ $verdict == killed ]]; then
        wrong=$((wrong + 1))
        printf 'KILLED    %-34s %3ds  by %s\n' "$name" "$took" "$by"
        echo "          and yet it is listed as equivalent: ${excuse[$name]}"
    elif [[ -v excuse[$name] ]]; then
        excused=$((excused + 1))
        printf 'survived  %-34s %3ds  %s\n' "$name" "$took" "${excuse[$name]}"
    else
        wrong=$((wrong + 1))
        printf 'SURVIVED  %-34s %3ds\n' "$name" "$took"
    fi
}

# Ends the script unless there is a test that an entry names.
exists() {
    local name=$1 test=${2%%:*} filter
    filter=${2#"$test"}
    filter=${filter#:}
    filter=${filter%@*}
    if [[ $test == unit ]]; then
        grep -qF -- "$filter" <<<"$units" && return
    elif [[ $test == shuttle ]]; then
        grep -qF "(\"$filter\", " "$tree/loom-tests/src/scenarios/table.rs" && return
    else
        grep -q "^fn [a-z0-9_]*$filter" "$tree/loom-tests/tests/$test.rs" && return
    fi
    echo "$name: no test is called $2"
    exit 1
}

# Notes what does not compile, by itself: that ends no check of the others.
compiles() {
    local flags="--cfg loom"
    if [[ $2 == unit:* || $2 == shuttle:* ]]; then
        flags=
    fi
    if ! (cd "$work/tree" && RUSTFLAGS=$flags cargo check --package corepool --lib) \
        >"$work/build" 2>&1; then
        cat "$work/build"
        echo "$1 does not compile"
        wrong=$((wrong + 1))
    fi
}

# Seconds for the tests of one mutant.
limit=300

# Ends the script where that was not enough: a machine that is busy looks no different from a mutant
# that hangs.
in_time() {
    if (($1 == 124)); then
        echo "$2: $3 took longer than $limit s"
        exit 1
    fi
}

# Whether a test file turns red; `by` names the first model that did. A mutant that does not
# compile stops the script.
red() {
    local name=$1 test=$2 filter=${3#:} models
    if [[ $test == unit ]]; then
        red_unit "$name" "$filter"
        return
    fi
    if [[ $test == shuttle ]]; then
        red_shuttle "$name" "$filter"
        return
    fi
    if ! (cd "$work/tree/loom-tests" && cargo test --release --test "$test" --no-run) \
        >"$work/build" 2>&1; then
        cat "$work/build"
        echo "$name does not compile"
        exit 1
    fi
    models=$(sed -n 's/^ *Executable.*(\(.*\))$/\1/p' "$work/build")
    # In a subshell, which keeps the shell's own word on an aborted child out of the report.
    local status=0
    (
        if [[ $filter == *@* ]]; then
            export LOOM_MAX_PREEMPTIONS=${filter#*@}
        fi
        timeout "$limit" "$models" ${filter:+"${filter%@*}"}
        exit $?
    ) >"$work/run" 2>&1 || status=$?
    in_time "$status" "$name" "$test:$filter"
    if ((status == 0)); then
        if grep -q '^running 0 tests' "$work/run"; then
            echo "$name: no model is called $test:$filter"
            exit 1
        fi
        return 1
    fi
    by=$test/$(sed -n 's/^RED //p' "$work/run" | head -n 1)
    if [[ $by == "$test/" ]]; then
        # A deadlock that loom meets while it unwinds ends the process before we hear of it.
        by="$test, aborted"
    fi
}

# As `red`, for the library's own tests, in a target directory of their own.
red_unit() {
    local name=$1 filter=$2 tests
    if ! (cd "$work/tree" && env -u RUSTFLAGS CARGO_TARGET_DIR="$work/unit" \
        cargo test --lib --no-run) >"$work/build" 2>&1; then
        cat "$work/build"
        echo "$name does not compile"
        exit 1
    fi
    tests=$(sed -n 's/^ *Executable.*(\(.*\))$/\1/p' "$work/build")
    local status=0
    (
        cd "$work/tree"
        timeout "$limit" "$tests" "$filter"
        exit $?
    ) >"$work/run" 2>&1 || status=$?
    in_time "$status" "$name" "unit:$filter"
    if ((status == 0)); then
        if grep -q '^running 0 tests' "$work/run"; then
            echo "$name: no test is called $filter"
            exit 1
        fi
        return 1
    fi
    by=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$work/run" | head -n 1)
    by=${by:-unit:$filter, aborted}
}

# As `red`, for a scenario under shuttle, in both sizes.
red_shuttle() {
    local name=$1 filter=$2 tests
    if ! (cd "$work/tree/loom-tests" && RUSTFLAGS="--cfg model --cfg shuttle" \
        CARGO_TARGET_DIR="$work/shuttle" cargo test --release --test shuttle --no-run) \
        >"$work/build" 2>&1; then
        cat "$work/build"
        echo "$name does not compile"
        exit 1
    fi
    tests=$(sed -n 's/^ *Executable.*(\(.*\))$/\1/p' "$work/build")
    local status=0
    (
        timeout "$limit" "$tests" --exact "long::$filter" "short::$filter"
        exit $?
    ) >"$work/run" 2>&1 || status=$?
    in_time "$status" "$name" "shuttle:$filter"
    if ((status == 0)); then
        if grep -q '^running 0 tests' "$work/run"; then
            echo "$name: no scenario is called $filter"
            exit 1
        fi
        return 1
    fi
    by=shuttle/$(sed -n 's/^RED //p' "$work/run" | head -n 1)
    if [[ $by == shuttle/ ]]; then
        by="shuttle:$filter, aborted"
    fi
}

# Covered twice: the mutant is as right as the original, in production too.
equivalent look-in-vain-is-kept 'the look that follows evicts whatever was looked for in vain'
equivalent fence-in-resume-off \
    'the look for a dial that follows fences, and settles again where no dial may start'
equivalent starving-flag-relaxed \
    'the fences in `permit` and `dial_if_needed` order what the flag orders'
equivalent closed-check-in-return-off \
    'a shortcut: rest, fence and settle close it within the same call'
equivalent hand-off-gives-up \
    'who gets the connection back puts it to rest, fences and settles: the next in line is served'
fenced='popping an empty queue fences inside, in crossbeam as in the model; kept, because'
equivalent purge-fence-off "$fenced the engine must not live off that"
equivalent stream-close-fence-off "$fenced the table must not live off that"
counted='a count guards nothing by itself: its changes are RMWs, and the fences order them'
for count in permits-take permits-take-anyway permits-put demand-add demand-sub demand-close \
    demand-hold demand-resume demand-leave-undialed; do
    equivalent "$count-relaxed" "$counted"
done
# Not covered, and not visible to loom, which runs the writes of one thread in their order and lets
# a read-modify-write see the latest value: only weakly ordered hardware tells the difference.
in_order='invisible: the letter box is a queue with edges of its own, and loom keeps its push and'
for weaker in Relaxed Release Acquire; do
    equivalent "fill-$weaker" "$in_order the change of state in order"
done
equivalent poll-relaxed "$in_order the change of state in order"
equivalent cancel-relaxed "$in_order the change of state in order"
equivalent purge-flag-relaxed 'invisible: loom does not move the store up past the push before it'
equivalent ring-place-unpublished 'invisible: loom does not move the store up past the load before it'
set_apart='invisible: what it publishes are limits, which loom does not follow (see `Setting`)'
equivalent recheck-seen-relaxed "$set_apart"
equivalent recheck-relaxed "$set_apart"
# Not reached.
equivalent settle-rests-unseen \
    'out of reach: needs three threads and two preemptions, which takes minutes'
equivalent settle-once \
    'out of reach: needs a caller that leaves, one that arrives and a return within five preemptions'
equivalent purge-dials-for-nobody \
    'out of reach: needs a purge, a table that fills and a connection that ends, on three threads'

# --- the slot's word ---------------------------------------------------------------------------
swap='next.pack(),
                Ordering::AcqRel,'
for weaker in Relaxed Release Acquire; do
    mutant "slot-step-$weaker" slot engine/slot.rs "$swap" "${swap/AcqRel/$weaker}"
done
mutant slot-take-relaxed 'slot checkout' engine/slot.rs \
    'next, Ordering::Acquire, Ordering::Relaxed' 'next, Ordering::Relaxed, Ordering::Relaxed'
mutant period-check-off 'slot checkout' engine/slot.rs \
    'let resting = Word { state: State::Idle, dead: false, generation: period };' \
    'let period = Generation::from_bits(period.bits() & 0 | guess(&self.word) >> 4);
        let resting = Word { state: State::Idle, dead: false, generation: period };'
mutant slot-resting-relaxed slot engine/slot.rs \
    'self.word.load(Ordering::Acquire)' 'self.word.load(Ordering::Relaxed)'
mutant generation-check-off 'slot checkout' engine/slot.rs \
    'generation != word.generation' 'generation != word.generation && false'
mutant bump-on-return-off 'slot checkout' engine/state.rs \
    '(State::Idle, false, self.generation.next())' '(State::Idle, false, self.generation)'
mutant bump-on-abandon-off 'slot dial' engine/state.rs \
    'Event::Abandon) => (State::Vacant, false, self.generation.next())' \
    'Event::Abandon) => (State::Vacant, false, self.generation)'
mutant bump-on-vacate-off 'slot dial' engine/state.rs \
    'Event::Vacate) => (State::Vacant, false, self.generation.next())' \
    'Event::Vacate) => (State::Vacant, false, self.generation)'
mutant dead-check-in-return-off slot engine/state.rs \
    'Event::Return) if !self.dead' 'Event::Return)'
mutant dead-check-in-fulfil-off 'slot dial' engine/state.rs \
    'Event::Fulfil) if !self.dead' 'Event::Fulfil)'
mutant no-mark-in-use 'slot checkout' engine/state.rs \
    'Event::HangUp) if !self.dead => (State::InUse, true,' \
    'Event::HangUp) if !self.dead => (State::InUse, false,'
mutant no-mark-on-a-dial 'slot dial' engine/state.rs \
    'Event::HangUp) => (State::Dialing, true,' 'Event::HangUp) => (State::Dialing, false,'

# --- rest and checkout -------------------------------------------------------------------------
mutant other-group-check-off checkout:stale engine/hit.rs \
    'if core::ptr::eq(&raw const *lease.tenant.seat.group, group)
            && lease' \
    'if lease'
mutant put-right-off checkout:stale engine/hit.rs \
    'self.put_right(group, lease);' 'self.discard(lease, CloseReason::Surplus);'
mutant full-ring-drops-hint checkout engine/hit.rs \
    'self.make_room(group, shard, hint);' 'let _ = hint;'
mutant hang-up-keeps-credit checkout engine/end.rs \
    'if let HangUp::Idle(tenant) = self.slot(shard, index).hang_up(reason as u32, now) {
            self.unrest(&tenant);' \
    'if let HangUp::Idle(tenant) = self.slot(shard, index).hang_up(reason as u32, now) {'
mutant dead-return-keeps-credit checkout engine/hit.rs \
    'Err(tenant) => {
                self.unrest(&tenant);' \
    'Err(tenant) => {'
mutant credits-cap-off credits engine/credits.rs \
    '(balance.idle < balance.quota).then(|| bits' 'true.then(|| bits'
mutant credits-raid-check-off credits engine/credits.rs \
    '(balance.idle < balance.quota)
                        .then(' \
    '(balance.quota > 0)
                        .then('

# --- nobody sleeps while a connection rests ----------------------------------------------------
recheck='if group.demand.is_contended() {
            self.settle(group, seat.shard, ANYWHERE);
        }'
# One fence for all that comes to rest: after a return, a slow return and a settling pass.
insight='fence(Ordering::SeqCst);
        if group.epoch() != epoch {'
mutant fence-after-rest-off 'waiters close hold evict' engine/hit.rs \
    "$insight" 'if group.epoch() != epoch {'
mutant recheck-after-rest-off 'waiters close' engine/hit.rs "$recheck" ''
mutant settle-in-slow-return-off 'waiters close hold dial' engine/hit.rs \
    'self.rest_in_sight(lease, seat, now);
            self.settle(group, seat.shard, ANYWHERE);' \
    'self.rest_in_sight(lease, seat, now);'
mutant closed-check-in-return-off 'close' engine/hit.rs \
    'if group.demand.wanted().closed {
            return self.discard(lease, CloseReason::PoolClosed);
        }' ''
mutant dead-check-in-hand-over-off 'waiters' engine/hit.rs \
    'if self.is_marked(&lease) {
            return self.discard(lease, CloseReason::PeerClosed);
        }' ''
mutant fence-in-wait-off 'close waiters:sibling waiters:polls dial:vacate' engine/line.rs \
    'fence(Ordering::SeqCst);
        self.settle(group, seat.shard, steal_min);' \
    'self.settle(group, seat.shard, steal_min);'
mutant settle-in-wait-off 'close dial waiters' engine/line.rs \
    'self.settle(group, seat.shard, steal_min);' 'let _ = steal_min;'
mutant settle-rests-unseen 'waiters:cancel' engine/line.rs \
    'self.rest_in_sight(lease, &seat, rested);' 'self.rest(lease, &seat, rested);'
mutant settle-once 'waiters:cancel waiters:checkout_vs_wait' engine/line.rs \
    'self.rest_in_sight(lease, &seat, rested);' \
    'self.rest_in_sight(lease, &seat, rested);
                break;'
mutant closed-check-in-settle-off close engine/line.rs \
    'if group.demand.wanted().closed {
            while let Some(lease)' \
    'if false {
            while let Some(lease)'
mutant closed-leaves-waiters 'close' engine/line.rs \
    'while let Some(waiter) = group.waiters.next() {
                match waiter.fill(Outcome::Closed)' \
    'while let Some(waiter) = group.waiters.next().filter(|_| false) {
                match waiter.fill(Outcome::Closed)'
mutant fence-in-close-off 'close' engine/end.rs \
    'fence(Ordering::SeqCst);
            self.settle(group, group.first, ANYWHERE);' \
    'self.settle(group, group.first, ANYWHERE);'
mutant cancel-keeps-the-lease waiters:cancel engine/line.rs \
    'Cancelled::InTime => {}
            Cancelled::TooLate(Some(Outcome::Ready(lease))) => self.put_back(lease)' \
    'Cancelled::InTime => {}
            Cancelled::TooLate(Some(Outcome::Ready(lease))) => self.discard(lease, CloseReason::Dirty)'
mutant cancel-stays-counted waiters:cancel engine/line.rs \
    'group.waiters.note_cancelled();
        group.demand.left();' \
    'group.waiters.note_cancelled();'
mutant hand-off-gives-up 'waiters:cancel' engine/line.rs \
    'group.waiters.forget_one();
                    lease = back;' \
    'group.waiters.forget_one();
                    return Err(back);
                    #[allow(unreachable_code)]
                    { lease = self.take(group, seat.shard).unwrap(); }'
mutant hand-off-does-not-wake waiters engine/line.rs \
    'waiter.wake();
                    return Ok(());' \
    'return Ok(());'
mutant purge-looks-after-nobody waiters:purge engine/line.rs \
    'self.settle(group, seat.shard, ANYWHERE);
            self.dial_if_needed(seat, now);
            if group' \
    'if group'
mutant purge-fence-off waiters:purge engine/line.rs \
    'fence(Ordering::SeqCst);
            self.settle(group, seat.shard, ANYWHERE);
            self.dial_if_needed(seat, now);' \
    'self.settle(group, seat.shard, ANYWHERE);
            self.dial_if_needed(seat, now);'
mutant purge-dials-for-nobody waiters:purge engine/line.rs \
    'self.dial_if_needed(seat, now);
            if group' \
    'if group'
mutant purge-flag-off waiters:purge engine/waiters.rs \
    'if self.purging.swap(true, Ordering::Acquire) {' \
    'if self.purging.swap(true, Ordering::Acquire) && false {'
mutant purge-flag-relaxed waiters:purge engine/waiters.rs \
    'self.purging.store(false, Ordering::Release)' 'self.purging.store(false, Ordering::Relaxed)'

# --- the bound of the line ----------------------------------------------------------------------
mutant waiters-unbounded waiters:last_place engine/demand.rs \
    'if wanted.waiting >= limit {' 'if wanted.waiting >= limit && false {'
mutant waiters-one-over waiters:last_place engine/demand.rs \
    'if wanted.waiting >= limit {' 'if wanted.waiting > limit {'
mutant left-stays-counted waiters:last_place engine/demand.rs \
    'self.sub(WAITING);
    }

    /// A caller waits no more, unless' \
    '}

    /// A caller waits no more, unless'

# --- the letter box ----------------------------------------------------------------------------
fill='compare_exchange(WAITING, FILLED, Ordering::AcqRel, Ordering::Relaxed)'
for weaker in Relaxed Release Acquire; do
    mutant "fill-$weaker" 'waiters:cancel_vs_hand waiters:sibling close:fulfil dial:alone' engine/waiters.rs "$fill" "${fill/AcqRel/$weaker}"
done
mutant poll-relaxed 'waiters:sibling close:fulfil dial:alone' engine/waiters.rs \
    'if self.state.load(Ordering::Acquire) != FILLED {' \
    'if self.state.load(Ordering::Relaxed) != FILLED {'
mutant poll-looks-first waiters engine/waiters.rs \
    'register_waker(&self.waker, cx.waker());' \
    'let early = self.state.load(Ordering::Acquire);
        register_waker(&self.waker, cx.waker());
        if early != FILLED {
            return Poll::Pending;
        }'
mutant cancel-relaxed 'waiters:cancel_vs_hand close:cancel dial:cancel' engine/waiters.rs \
    'Ordering::AcqRel,
            // Acquire: sees the outcome that `fill` released.
            Ordering::Acquire,' \
    'Ordering::Relaxed, Ordering::Relaxed,'

# --- dials and permits -------------------------------------------------------------------------
mutant fence-in-dial-off 'dial:vacate dial:failed dial:alone dial:full_table' engine/dial.rs \
    'fence(Ordering::SeqCst);
            if !group.demand.wanted().needs_dial() {' \
    'if !group.demand.wanted().needs_dial() {'
mutant dial-in-wait-off 'dial' engine/line.rs \
    'let lack = self.dial_if_needed(seat, now);' 'let lack = None;'
mutant dial-in-vacate-off 'dial' engine/end.rs \
    'self.dial_if_needed(&seat, now);' ''
mutant dial-in-abandon-off 'dial' engine/dial.rs \
    'self.dial_if_needed(seat, moment.now);' ''
mutant settle-without-permit-off 'waiters:sibling dial' engine/dial.rs \
    'self.settle(group, seat.shard, ANYWHERE);
                    if lack' \
    'if lack'
mutant no-second-look-at-permit dial engine/dial.rs \
    '*returned = true;
                continue;' \
    '*returned = true;
                return None;'
mutant full-table-spins dial:full_table engine/dial.rs \
    'if !told && group.waiters.is_empty() {' 'if !told && group.waiters.is_empty() && false {'
mutant full-table-stops dial:full_table engine/dial.rs \
    'if !told && group.waiters.is_empty() {' 'if !told {'
mutant failed-dial-tells-nobody dial engine/dial.rs \
    'self.fail_one(group, Outcome::Failed(cause));' \
    '{ drop(cause); group.demand.dial_over(); }'
mutant dial-for-nobody-stays-counted dial engine/dial.rs \
    'Served::ByDial) {
                    group.demand.dial_over();' \
    'Served::ByDial) {'
mutant dial-alone-forgets-its-lease dial engine/dial.rs \
    'Err(Outcome::Ready(lease)) => self.put_back(lease),' \
    'Err(Outcome::Ready(lease)) => self.discard(lease, CloseReason::Dirty),'
mutant redial-frees-its-permit dial:redial engine/dial.rs \
    'life, permit: None };' 'life, permit: Some(class) };'
mutant served-in-two-steps dial engine/demand.rs \
    'self.sub(WAITING + DIALING);' 'self.sub(WAITING); self.sub(DIALING);'
mutant one-dial-too-many dial engine/demand.rs \
    'self.waiting > self.dialing' 'self.waiting >= self.dialing && self.waiting > 0'
mutant permits-check-off dial engine/permits.rs '(live < limit).then_some' 'true.then_some'
mutant permits-take-relaxed 'dial:vacate dial:failed dial:alone dial:one_permit' engine/permits.rs \
    'fetch_update(Ordering::AcqRel, Ordering::Acquire,' \
    'fetch_update(Ordering::Relaxed, Ordering::Relaxed,'
mutant permits-put-relaxed 'dial:vacate dial:failed dial:alone dial:one_permit' engine/permits.rs \
    'fetch_sub(1, Ordering::AcqRel)' 'fetch_sub(1, Ordering::Relaxed)'
mutant demand-add-relaxed 'close waiters:sibling dial:failed' engine/demand.rs \
    'bits + what,
                Ordering::AcqRel,' \
    'bits + what,
                Ordering::Relaxed,'
mutant demand-sub-relaxed 'close waiters:cancel_vs_hand dial:alone' engine/demand.rs \
    'fetch_sub(what, Ordering::AcqRel)' 'fetch_sub(what, Ordering::Relaxed)'
mutant demand-close-relaxed 'close' engine/demand.rs \
    'fetch_or(CLOSED, Ordering::AcqRel)' 'fetch_or(CLOSED, Ordering::Relaxed)'

mutant demand-leave-undialed-relaxed 'adopt:wait_for' engine/demand.rs \
    'bits - WAITING,
                Ordering::AcqRel,' \
    'bits - WAITING,
                Ordering::Relaxed,'
mutant demand-hold-relaxed hold engine/demand.rs \
    'fetch_or(HELD, Ordering::AcqRel)' 'fetch_or(HELD, Ordering::Relaxed)'
mutant demand-resume-relaxed hold engine/demand.rs \
    'fetch_and(!HELD, Ordering::AcqRel)' 'fetch_and(!HELD, Ordering::Relaxed)'
mutant permits-take-anyway-relaxed 'dial:redial' engine/permits.rs \
    'self.live.fetch_add(1, Ordering::AcqRel);' 'self.live.fetch_add(1, Ordering::Relaxed);'
mutant permits-leaving-seen-relaxed resize:vacate engine/permits.rs \
    'self.leaving.load(Ordering::Acquire)' 'self.leaving.load(Ordering::Relaxed)'
mutant permits-left-relaxed resize:vacate engine/permits.rs \
    'self.leaving.fetch_sub(1, Ordering::Release)' 'self.leaving.fetch_sub(1, Ordering::Relaxed)'
mutant permits-left-first resize:vacate engine/permits.rs \
    'self.put();
        // Release: see `excess`.
        self.leaving.fetch_sub(1, Ordering::Release);' \
    'self.leaving.fetch_sub(1, Ordering::Release);
        self.put();'
mutant permits-leaving-uncounted resize:vacate engine/permits.rs \
    '.saturating_sub(leaving)' '.saturating_sub(leaving & 0)'

# --- dials in the background --------------------------------------------------------------------
mutant owed-uncounted spare:owed engine/tend.rs \
    'let have = owed + idle' 'let have = (owed & 0) + idle'
mutant background-dials-by-two spare engine/tend.rs \
    'in_background.swap(true, Ordering::Acquire)' 'in_background.swap(true, Ordering::Acquire) && false'
mutant background-turn-taken-relaxed spare engine/tend.rs \
    'in_background.swap(true, Ordering::Acquire)' 'in_background.swap(true, Ordering::Relaxed)'
mutant background-turn-left-relaxed spare engine/tend.rs \
    'self.0.swap(false, Ordering::Release)' 'self.0.swap(false, Ordering::Relaxed)'
mutant spare-dials-beside-callers spare:ahead engine/tend.rs \
    'permit_below(seat, Class::Pooled, most, now)' 'permit(seat, Class::Pooled, now)'
mutant permits-in-flight-are-in-use spare:ahead engine/tend.rs \
    'saturating_sub(waiting.max(dialing))' 'saturating_sub(dialing)'
mutant fence-in-abandon-off 'dial gate totals' engine/dial.rs \
    'fence(Ordering::SeqCst);
        if !group.waiters.is_empty() {
            // Also' \
    'if !group.waiters.is_empty() {
            // Also'
mutant fence-after-exhausted-off 'dial gate totals' engine/dial.rs \
    'fence(Ordering::SeqCst);
                    if !told' 'if !told'
mutant recheck-seen-relaxed resize engine/tend.rs \
    'recheck.swap(false, Ordering::AcqRel)' 'recheck.swap(false, Ordering::Relaxed)'
mutant recheck-relaxed resize engine/control.rs \
    'shard.recheck.store(true, Ordering::Release)' 'shard.recheck.store(true, Ordering::Relaxed)'

# --- lanes that hand out the oldest first: two rings -------------------------------------------
# The models' stand-in for the pointer has the orderings of the real one.
mutant fifo-far-unpublished 'fifo' sync.rs \
    'compare_exchange(false, true, Ordering::Release, Ordering::Acquire)' \
    'compare_exchange(false, true, Ordering::Relaxed, Ordering::Acquire)'
mutant fifo-far-seen-relaxed 'fifo' sync.rs \
    'self.is_made.load(Ordering::Acquire)' 'self.is_made.load(Ordering::Relaxed)'
mutant fifo-far-of-another-relaxed 'fifo' sync.rs \
    'compare_exchange(false, true, Ordering::Release, Ordering::Acquire)' \
    'compare_exchange(false, true, Ordering::Release, Ordering::Relaxed)'
mutant fifo-pushes-before-it-publishes 'fifo' engine/fifo.rs \
    'let far = self.far.get_or_make(|| Ring::new(self.capacity));' \
    'if self.far.get().is_none() {
            let far = Ring::new(self.capacity);
            let pushed = far.push(value);
            self.far.get_or_make(|| far);
            return pushed;
        }
        let far = self.far.get_or_make(|| Ring::new(self.capacity));'
mutant fifo-pop-looks-near-only 'fifo' engine/fifo.rs \
    'None => self.far.get().and_then(pop_far),' 'None => None,'
mutant fifo-no-last-resort 'fifo' engine/fifo.rs \
    'first.push(value).or_else(|value| second.push(value))' \
    '{ let _ = second; first.push(value) }'
mutant fifo-near-beside-far 'unit:engine::fifo' engine/fifo.rs \
    'if far.is_empty() { tiers }' 'if true { tiers }'
mutant fifo-far-at-once 'unit:engine::fifo' engine/fifo.rs \
    'None => match self.near.push(value) {' 'None => match Err(value) {'
mutant fifo-far-for-a-small-one 'unit:engine::fifo' engine/fifo.rs \
    'if self.capacity <= NEAR {' 'if self.capacity < NEAR {'
mutant fifo-make-room-near-only 'unit:engine::fifo' engine/fifo.rs \
    'self.far.get().map(|far| far as &dyn Tier).into_iter().chain([near])' '[near]'
mutant fifo-make-room-far-only 'unit:engine::fifo' engine/fifo.rs \
    'self.far.get().map(|far| far as &dyn Tier).into_iter().chain([near])' \
    '[self.far.get().map_or(near, |far| far as &dyn Tier)]'
mutant fifo-expires-beside-a-place 'unit:engine::fifo' engine/fifo.rs \
    '// All lived when we passed. Others may have taken some since.
        spare(value);' 'expire(value);'
mutant fifo-crowded-out-is-expired 'unit:engine::fifo' engine/fifo.rs \
    'Err(crowded_out) => spare(crowded_out),' 'Err(crowded_out) => drop(crowded_out),'
mutant fifo-recheck-after-rest-off 'fifo:return' engine/hit.rs "$recheck" ''

# --- the ring of few words in a lane -----------------------------------------------------------
mutant ring-look-relaxed 'small_ring' engine/small_ring.rs \
    'let mut head = look(&self.head);' 'let mut head = crate::sync::guess(&self.head);'
mutant ring-claim-relaxed 'small_ring' engine/small_ring.rs \
    'Ordering::Release,
                    Ordering::Acquire,' \
    'Ordering::Relaxed,
                    Ordering::Acquire,'
mutant ring-claim-failure-relaxed 'small_ring' engine/small_ring.rs \
    'Ordering::Release,
                    Ordering::Acquire,' \
    'Ordering::Release,
                    Ordering::Relaxed,'
mutant ring-mark-seen-relaxed 'small_ring' engine/small_ring.rs \
    'self.marks[place].load(Ordering::Acquire)' 'self.marks[place].load(Ordering::Relaxed)'
mutant ring-word-unpublished 'small_ring' engine/small_ring.rs \
    'self.marks[place].store(true, Ordering::Release)' 'self.marks[place].store(true, Ordering::Relaxed)'
mutant ring-place-unpublished 'small_ring' engine/small_ring.rs \
    'self.marks[place].store(false, Ordering::Release)' 'self.marks[place].store(false, Ordering::Relaxed)'
mutant ring-second-look-off 'small_ring' engine/small_ring.rs \
    'found if found == head => return None,' '_ => return None,'
mutant ring-second-look-relaxed 'small_ring' engine/small_ring.rs \
    'match look(&self.head) {' 'match crate::sync::guess(&self.head) {'
mutant ring-mark-unread 'small_ring' engine/small_ring.rs \
    'load(Ordering::Acquire) == marked {' 'load(Ordering::Acquire) == marked || true {'
mutant ring-marks-before-it-puts 'small_ring' engine/small_ring.rs \
    '        // Relaxed: published by the Release below.
        self.words[place].store(word, Ordering::Relaxed);
        // Release: pairs with the Acquire in `claim` of the pop that reads the word.
        self.marks[place].store(true, Ordering::Release);' \
    '        self.marks[place].store(true, Ordering::Release);
        self.words[place].store(word, Ordering::Relaxed);'
mutant ring-one-too-many 'unit:engine::small_ring' engine/small_ring.rs \
    '(len < N as u64)' '(len <= N as u64)'
mutant ring-laps-not-skipped 'unit:engine::small_ring' engine/small_ring.rs \
    '1 => (head | Self::LAP) + 1,' '1 => head + Self::LEN,'

# --- lanes that hand out the youngest first ----------------------------------------------------
for list in pop push; do
    mutant "stack-tag-off-$list" "stack:stalled_$list" engine/stack.rs \
        'tag: self.tag.wrapping_add(1)' 'tag: self.tag'
done
mutant stack-look-relaxed 'stack' engine/stack.rs \
    '        look(&self.0)' '        crate::sync::guess(&self.0)'
mutant stack-take-failure-relaxed 'stack' engine/stack.rs \
    'top.then(next).pack(),
                Ordering::Relaxed,
                Ordering::Acquire,' \
    'top.then(next).pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,'
mutant stack-put-relaxed 'stack' engine/stack.rs \
    'top.then(first).pack(),
                Ordering::Release,' \
    'top.then(first).pack(),
                Ordering::Relaxed,'
mutant stack-take-all-relaxed 'stack' engine/stack.rs \
    'top.then(NONE).pack(),
                Ordering::Acquire,' \
    'top.then(NONE).pack(),
                Ordering::Relaxed,'
mutant stack-pop-keeps-the-node 'stack:pop_vs' engine/stack.rs \
    'self.free.put(&self.nodes, index, index);
        Some(value)' \
    'Some(value)'
mutant stack-frees-before-it-reads 'stack' engine/stack.rs \
    'let value = self.node(index).value.load(Ordering::Relaxed);
        self.free.put(&self.nodes, index, index);' \
    'self.free.put(&self.nodes, index, index);
        let value = self.node(index).value.load(Ordering::Relaxed);'
mutant stack-make-room-drops-the-live 'stack:make_room' engine/stack.rs \
    'if let Some((first, last)) = kept {' 'if let Some((first, last)) = kept.filter(|_| false) {'
mutant stack-make-room-loses-places 'stack:make_room' engine/stack.rs \
    'Some(_) => self.free.put(&self.nodes, index, index),' 'Some(_) => {}'
mutant full-stack-drops-hint 'stack:return_vs_return' engine/hints.rs \
    'expire(Hint::from_bits(word));' 'let _ = expire;'
# Popping an empty stack fences nothing, so here the engine's own fences are all there are.
mutant lifo-fence-in-wait-off 'stack:return_vs stack:close' engine/line.rs \
    'fence(Ordering::SeqCst);
        self.settle(group, seat.shard, steal_min);' \
    'self.settle(group, seat.shard, steal_min);'
mutant lifo-fence-in-close-off 'stack:close' engine/end.rs \
    'fence(Ordering::SeqCst);
            self.settle(group, group.first, ANYWHERE);' \
    'self.settle(group, group.first, ANYWHERE);'
mutant lifo-fence-after-rest-off 'stack:return_vs stack:close' engine/hit.rs \
    "$insight" 'if group.epoch() != epoch {'
mutant lifo-recheck-after-rest-off 'stack:return' engine/hit.rs "$recheck" ''

# --- limits of the pool and on dials -----------------------------------------------------------
# A long sequence on one thread tells what a permit or a counter is worth; the models, what an order.
oracle=unit:engine::oracle
mutant totals-rollback-keeps-live totals engine/totals.rs \
    'put(&self.live);
        false' 'false'
mutant totals-rollback-keeps-dial "$oracle" engine/totals.rs \
    'if capped {
                        group.dials.put();
                    }
                    lives.put();' \
    'lives.put();'
mutant no-second-look-at-what-lacks 'totals:rolled totals:fulfil' engine/totals.rs \
    'if !free {
                return Err(lack);' \
    'if !free || true {
                return Err(lack);'
mutant fence-in-permit-off 'totals dial:vacate' engine/totals.rs \
    'fence(Ordering::SeqCst);
            let free = match lack {' 'let free = match lack {'
mutant nobody-starves totals engine/totals.rs \
    'self.starve(seat);
                    Lack::Total' 'Lack::Total'
mutant starving-flag-stays totals engine/totals.rs \
    'seat.group.starving.swap(false, Ordering::AcqRel);' ''
mutant starving-flag-relaxed totals:feed engine/totals.rs \
    'if !seat.group.starving.swap(true, Ordering::AcqRel) {' \
    'if !seat.group.starving.swap(true, Ordering::Relaxed) {'
mutant dial-over-keeps-the-pools-permit totals engine/totals.rs \
    'put(&self.dials);
    }' '}'
mutant nobody-makes-room totals:return_vs_wait engine/totals.rs \
    '< hungry && !live' '< hungry && false && !live'
mutant ends-uncounted "$oracle" engine/totals.rs \
    'self.leaving.fetch_sub(1, Ordering::Relaxed);' ''
mutant fence-in-feed-off totals engine/dial.rs \
    'fence(Ordering::SeqCst);
            if !self.totals.are_free() {' 'if !self.totals.are_free() {'
mutant feed-after-fulfil-off totals engine/dial.rs \
    'self.feed(now);
        Ok(())' 'Ok(())'
mutant feed-after-abandon-off totals engine/dial.rs \
    'self.feed(moment.now);' ''
mutant feed-after-vacate-off totals engine/end.rs \
    'self.feed(now);' ''
mutant look-in-vain-is-kept totals:return_vs_wait engine/evict.rs \
    'self.oldest.in_vain.set(0);' ''
mutant vain-look-beside-a-rest totals:return_vs_wait engine/evict.rs \
    '== Some(Lack::Total)' '!= Some(Lack::Total)'
mutant feed-makes-no-room totals:two_starving engine/dial.rs \
    'return self.make_room_if_wanted(now);' 'return;'
mutant dial-after-fulfil-off totals:max_dialing engine/dial.rs \
    'if changed || group.dials.is_limited() {' 'if changed {'
mutant return-leaves-the-starving totals:return_vs_wait engine/hit.rs \
    'self.make_room_if_wanted(now);' ''
mutant total-idle-cap-off totals:cap engine/hit.rs \
    '&& !total.take(shard.get())' '&& false'
mutant total-idle-credit-stays totals:cap engine/hit.rs 'total.put(shard.get());' 'let _ = total;'
mutant make-way-takes-nothing totals:cap engine/evict.rs \
    '&& total.take(shard.get()))' '&& total.total_idle() < u32::MAX)'
mutant eviction-keeps-credit totals:eviction engine/evict.rs \
    'self.unrest(&tenant);
                    self.doom(' 'self.doom('

# --- hold, resume, resize, evict ---------------------------------------------------------------
mutant fence-in-resume-off hold engine/control.rs \
    'fence(Ordering::SeqCst);
        self.settle(group, seat.shard, ANYWHERE);' 'self.settle(group, seat.shard, ANYWHERE);'
mutant resume-settles-nobody hold engine/control.rs \
    'self.settle(group, seat.shard, ANYWHERE);
        self.dial_if_needed(seat, now);
        true' 'true'
mutant resume-dials-for-nobody hold engine/control.rs \
    'self.dial_if_needed(seat, now);
        true' 'true'
mutant held-serves-a-return hold engine/hit.rs \
    'match group.demand.wanted().held {' 'match group.demand.wanted().held && false {'
mutant held-serves-a-dial "$oracle" engine/dial.rs \
    'Goal::Line if group.demand.wanted().held =>' 'Goal::Line if group.demand.wanted().held && false =>'
mutant held-serves-from-above-the-limit "$oracle" engine/hit.rs \
    'wanted.waiting > 0 && !wanted.held' 'wanted.waiting > 0'
mutant held-dials hold engine/demand.rs '!self.closed && !self.held' '!self.closed'
mutant refused-spare-dial-looks-at-nobody hold:spare engine/tend.rs \
    'self.dial_if_needed(seat, now);
            self.feed(now);
        }
        started' \
    'self.feed(now);
        }
        started'
mutant spare-dial-stays-counted adopt:spare engine/tend.rs \
    '.inspect_err(|_| group.demand.dial_over())' ''
mutant refused-dial-alone-keeps-its-slot "$oracle" engine/dial.rs \
    'self.unreserve(seat, place.0, place.1);
                seat.group.withdraw(pass);' 'seat.group.withdraw(pass);'
mutant refused-dial-alone-keeps-its-probe unit:engine::oracle::tests::what engine/dial.rs \
    'self.unreserve(seat, place.0, place.1);
                seat.group.withdraw(pass);' \
    'self.unreserve(seat, place.0, place.1);
                drop(pass);'
mutant resize-dials-for-nobody resize engine/control.rs \
    'self.shrink(group);
        self.dial_if_needed(seat, now);' 'self.shrink(group);'
mutant resize-tends-no-totals resize:total engine/control.rs \
    'self.tend_totals(now);' 'let _ = now;'
mutant resize-shrinks-nothing "$oracle" engine/control.rs \
    'self.shrink(group);
        self.dial_if_needed(seat, now);' 'self.dial_if_needed(seat, now);'
mutant tend-shrinks-nothing resize engine/tend.rs \
    'self.shrink(group);
        if group.limits' 'if group.limits'
mutant shrunk-is-handed-over unit:engine::oracle::tests::what engine/hit.rs \
    'if group.permits.excess() > 0 {' 'if false {'
mutant evict-keeps-the-epoch evict engine/control.rs \
    'group.epoch.fetch_add(1, Ordering::AcqRel);' 'group.epoch.fetch_add(0, Ordering::AcqRel);'
mutant fence-in-evict-off evict engine/control.rs \
    'fence(Ordering::SeqCst);
        self.purge_resting(group);' 'self.purge_resting(group);'
mutant evict-leaves-those-at-rest evict engine/control.rs \
    'fence(Ordering::SeqCst);
        self.purge_resting(group);' 'fence(Ordering::SeqCst);'
mutant epoch-check-after-rest-off evict engine/hit.rs \
    'if group.epoch() != epoch {' 'if false && seat.group.epoch() != epoch {'
mutant epoch-check-in-take-off evict engine/hit.rs \
    'group, group)
            && lease.tenant.epoch == group.epoch()' \
    'group, group)'
mutant epoch-check-in-is-dead-off evict engine/hit.rs \
    'self.is_marked(lease) || lease.tenant.epoch != lease.tenant.seat.group.epoch()' \
    'self.is_marked(lease)'
mutant epoch-check-in-return-off "$oracle" engine/hit.rs \
    '|| tenant.epoch != group.epoch()
}' '}'
mutant sweep-keeps-credit evict:ping engine/tend.rs \
    'self.unrest(&tenant);
            let lease' 'let lease'

# --- spent connections, those above the limit ---------------------------------------------------
mutant spent-by-use-rests unit:engine::oracle::tests::what engine/hit.rs \
    '|| tenant.uses >= group.limits.max_uses()
        || tenant.ends' '|| tenant.ends'
mutant spent-by-age-rests unit:engine::oracle::tests::what_has engine/hit.rs \
    '|| tenant.ends.is_past(now)
        || tenant.epoch' '|| tenant.epoch'
mutant overflow-rests adopt engine/hit.rs \
    'tenant.class != Class::Pooled
        ||' ''
mutant overflow-keeps-both-permits adopt engine/hit.rs \
    'group.overflow.put();
                lease.tenant.class' 'lease.tenant.class'
mutant overflow-unbounded adopt:overflow engine/group.rs \
    'Class::Overflow => &self.overflow,' 'Class::Overflow => &self.permits,'
mutant adoption-in-a-closed-group "$oracle" engine/dial.rs \
    'if seat.group.demand.wanted().closed {
            return Err(NoDial::Closed);' \
    'if seat.group.demand.wanted().closed && false {
            return Err(NoDial::Closed);'
mutant wait-for-dial-stays-counted adopt:wait_for engine/demand.rs \
    'bits - WAITING,' 'bits,'

# --- the breaker and callers --------------------------------------------------------------------
mutant refused-callers-stay-in-line gate engine/dial.rs \
    'let told = self.fail_one(group, why);' \
    'let told = { drop::<Outcome<T, E, K>>(why); group.demand.dial_over(); false };'
mutant forced-open-tells-nobody gate:pools_limit engine/dial.rs \
    'self.note_change(seat, change, now);
        self.dial_if_needed(seat, now);' 'self.note_change(seat, change, now);'
mutant given-up-probe-keeps-its-place gate:given_up engine/dial.rs \
    'group.breaker.withdrawn(pass);
                None' \
    'drop(pass);
                None'
mutant our-own-failure-trips "gate:local" engine/dial.rs \
    'Failure::Local(_) => Judgement::Local,' 'Failure::Local(_) => Judgement::Bad,'

# --- breaker: no more than it says -------------------------------------------------------------
mutant breaker-cas-off breaker engine/breaker.rs \
    'self.0.compare_exchange_weak(
                bits,
                to.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {' \
    'Ok::<u64, u64>(self.0.swap(to.pack(), Ordering::Relaxed)) {'
mutant breaker-epoch-check-off breaker engine/breaker/word.rs \
    'if ticket.epoch != self.epoch =>' 'if ticket.epoch != self.epoch && false =>'
mutant breaker-epoch-stays breaker engine/breaker/word.rs \
    'Self { phase, epoch: self.epoch.next(), ..self }' 'Self { phase, ..self }'
mutant breaker-epoch-stays-on-force unit:engine::breaker engine/breaker/word.rs \
    'Self { phase, epoch: self.epoch.next(), trips: 0 }' 'Self { phase, trips: 0, ..self }'
mutant breaker-expiry-off breaker engine/breaker/word.rs \
    'if until.left(now) > 0 {' 'if until.left(now) > 0 && false {'
mutant breaker-first-probe-uncounted breaker engine/breaker/word.rs \
    'HalfOpen { out: 1, passed: 0 }' 'HalfOpen { out: 0, passed: 0 }'
mutant breaker-probes-unbounded breaker engine/breaker/word.rs \
    'if out >= rules.probes.max(1) {' 'if out >= rules.probes.max(1) && false {'
mutant breaker-one-probe-too-many breaker engine/breaker/word.rs \
    'if out >= rules.probes.max(1) {' 'if out > rules.probes.max(1) {'
mutant breaker-probe-uncounted unit:engine::breaker engine/breaker/word.rs \
    'HalfOpen { out: out + 1, passed }' 'HalfOpen { out, passed }'
mutant breaker-withdrawal-keeps-place breaker engine/breaker/word.rs \
    'if t.probe =>
            {
                self.with(Phase::HalfOpen { out: out.saturating_sub(1), passed })' \
    'if t.probe =>
            {
                self.with(Phase::HalfOpen { out, passed })'
mutant breaker-success-keeps-place unit:engine::breaker engine/breaker/word.rs \
    '} else {
                    self.with(Phase::HalfOpen { out: out.saturating_sub(1), passed })' \
    '} else {
                    self.with(Phase::HalfOpen { out, passed })'
mutant breaker-one-success-too-many breaker engine/breaker/word.rs \
    'if passed >= rules.successes {' 'if passed > rules.successes {'
mutant breaker-failed-probe-counts-nothing breaker engine/breaker/word.rs \
    'Failure(_)) if on => self.tripped(rules, now, random),' \
    'Failure(_)) if false => self.tripped(rules, now, random),'
mutant breaker-forced-open-admits breaker engine/breaker/word.rs \
    '(Phase::ForcedOpen, Admit) => return None,' '(Phase::ForcedOpen, Admit) => self,'
mutant breaker-force-told-twice unit:engine::breaker engine/breaker.rs \
    '(change.from != change.to).then_some(change)' 'Some(change)'
mutant breaker-trips-stay breaker engine/breaker/word.rs \
    'Self::MOST_TRIPS.min(self.trips + 1)' 'Self::MOST_TRIPS.min(self.trips)'
mutant breaker-trips-overflow unit:engine::breaker engine/breaker/word.rs \
    'Self::MOST_TRIPS.min(self.trips + 1)' '(self.trips + 1)'
mutant breaker-trips-never-forgiven unit:engine::breaker engine/breaker/word.rs \
    'if outcomes.is_full() { 0 } else { trips }' 'trips'
mutant breaker-trips-forgiven-at-once unit:engine::breaker engine/breaker/word.rs \
    'if outcomes.is_full() { 0 } else { trips }' '0'
mutant breaker-quiet-keeps-trips unit:engine::breaker engine/breaker/word.rs \
    '(Outcomes::NONE, 0)' '(Outcomes::NONE, self.trips)'
mutant breaker-outcomes-do-not-age unit:engine::breaker engine/breaker/word.rs \
    'if stamp.is_old(now, rules.window_s) {' 'if false {'
mutant breaker-success-trips unit:engine::breaker engine/breaker/word.rs \
    'if failed && outcomes.trip(rules) {' 'if outcomes.trip(rules) {'
mutant breaker-success-uncounted unit:engine::breaker engine/breaker/word.rs \
    'self.counted(outcomes, stamp, false, rules, now, random)' 'self'
mutant breaker-off-still-trips unit:engine::breaker engine/breaker/word.rs \
    'Failure(_)) if on => {' 'Failure(_)) => {'
mutant breaker-off-still-rejects unit:engine::breaker engine/breaker/word.rs \
    '(Phase::Open { until }, Admit) if on =>' '(Phase::Open { until }, Admit) =>'
mutant breaker-any-pass-is-a-probe unit:engine::breaker engine/breaker/word.rs \
    'if !ticket.probe => {' 'if !ticket.probe && false => {'
mutant breaker-reset-undoes-force unit:engine::breaker engine/breaker/word.rs \
    '(Phase::ForcedOpen | Phase::ForcedClosed, Reset) => return None,' ''
mutant breaker-glance-stays-open unit:engine::breaker engine/breaker.rs \
    'State::Open && word.left(now) == 0 =>' 'State::Open && false =>'
mutant window-end-is-a-failure unit:engine::breaker engine/breaker/window.rs \
    'if row > self.count() { self.count() } else { row }' 'row'
mutant window-loses-its-end unit:engine::breaker engine/breaker/window.rs \
    'Self(more & (end - 1) | end)' 'Self(more & (end - 1))'
mutant window-row-unbounded unit:engine::breaker engine/breaker/window.rs \
    'u32::from(rules.consecutive).min(Self::MOST)' 'u32::from(rules.consecutive)'
mutant window-min-dials-off unit:engine::breaker engine/breaker/window.rs \
    '&& self.count() >= enough' '&& self.count() >= enough.min(1)'
mutant window-rate-must-be-exceeded unit:engine::breaker engine/breaker/window.rs \
    'self.failures() * 100 >= rate' 'self.failures() * 100 > rate'
mutant stamp-one-unit-short unit:engine::breaker engine/breaker/window.rs \
    'age > units && age' 'age >= units && age'
mutant stamp-from-a-lagging-clock-is-old unit:engine::breaker engine/breaker/window.rs \
    '&& age <= Self::MASK - Self::SKEW' ''
mutant stamp-units-too-coarse unit:engine::breaker engine/breaker/window.rs \
    'if bits > coarsest { coarsest } else { bits }' 'bits'

# --- backoff -----------------------------------------------------------------------------------
mutant backoff-cas-off backoff engine/backoff.rs \
    'self.0.compare_exchange_weak(
                bits,
                next.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {' \
    'Ok::<u64, u64>(self.0.swap(next.pack(), Ordering::Relaxed)) {'
mutant backoff-parallel-failures-escalate backoff engine/backoff.rs \
    'if self.covers(started, now) {' 'if self.covers(started, now) && false {'
mutant backoff-end-told-twice backoff engine/backoff.rs \
    'self.0.swap(Word::CLEAR.pack(), Ordering::Relaxed)) != Word::CLEAR' \
    'self.0.swap(Word::CLEAR.pack(), Ordering::Relaxed)) != Word::CLEAR || true'
mutant backoff-success-is-not-heard backoff engine/backoff.rs \
    'self.word() != Word::CLEAR && self.reset()' 'self.word() != Word::CLEAR'
mutant backoff-starts-with-the-failure unit:engine::backoff engine/backoff.rs \
    'started.after(rules.delay' 'now.after(rules.delay'
mutant backoff-ends-in-the-past unit:engine::backoff engine/backoff.rs \
    'if due.is_past(now) { now } else { due }' 'due'
mutant backoff-attempt-comes-round unit:engine::backoff engine/backoff.rs \
    'self.attempt.saturating_add(1)' 'self.attempt.wrapping_add(1)'
mutant backoff-comes-back unit:engine::backoff engine/backoff.rs \
    'if self.is_long_past(now) { 0 } else' 'if false { 0 } else'
mutant backoff-old-step-covers unit:engine::backoff engine/backoff.rs \
    '&& !self.until.is_long_past(now) &&' '&&'
mutant backoff-reach-too-short unit:engine::backoff engine/backoff.rs \
    '(33 - ahead.leading_zeros()).min(31)' '(32 - ahead.leading_zeros()).min(31)'
mutant backoff-jitter-one-sided unit:engine::backoff engine/backoff.rs \
    'wait - swing + ((' 'wait + (('
mutant backoff-jitter-uneven unit:engine::backoff engine/backoff.rs \
    '(2 * swing + 1)' '(2 * swing)'
mutant backoff-without-fraction unit:engine::backoff engine/backoff.rs \
    'FRACTION: u32 = 16;' 'FRACTION: u32 = 0;'
mutant backoff-unbounded unit:engine::backoff engine/backoff.rs \
    '(self.multiplier_percent.into()) / 100).min(max)' '(self.multiplier_percent.into()) / 100)'
mutant backoff-vanishes unit:engine::backoff engine/backoff.rs \
    'varied.clamp(1, Tick::FAR.into())' 'varied.clamp(0, Tick::FAR.into())'

# --- slow start and retention ------------------------------------------------------------------
mutant ramp-ends-another-start ramp engine/ramp.rs \
    'self.0.compare_exchange(bits, 0, Ordering::Relaxed, Ordering::Relaxed)' \
    'self.0.swap(0, Ordering::Relaxed)'
mutant ramp-begins-with-nothing unit:engine::ramp engine/ramp.rs \
    'if part == 0 && full > 0 { 1 }' 'if part == 0 && false { 1 }'
mutant ramp-never-ends unit:engine::ramp engine/ramp.rs \
    'if since >= window_ms {' 'if false {'
mutant ramp-lagging-clock-ends-it unit:engine::ramp engine/ramp.rs \
    'if since > u32::MAX - SKEW_MS {' 'if false {'
mutant retention-cas-off retention engine/retention.rs \
    '.compare_exchange_weak(bits, next.pack(), Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())' \
    '.swap(next.pack() | (bits & 0), Ordering::Relaxed);
        Ok(())'
mutant retention-forgets-the-peak unit:engine::retention engine/retention.rs \
    'Some(Self { peak: in_use,' 'Some(Self { peak: 0,'
mutant retention-drops-at-once unit:engine::retention engine/retention.rs \
    'peak.max(u32::midpoint(self.estimate, peak))' 'peak'
mutant retention-rises-by-half unit:engine::retention engine/retention.rs \
    'peak.max(u32::midpoint(self.estimate, peak))' 'u32::midpoint(self.estimate, peak)'
mutant retention-closes-all unit:engine::retention engine/retention.rs \
    '.saturating_sub(kept).div_ceil(2)' '.saturating_sub(kept)'
mutant retention-leaves-one-over unit:engine::retention engine/retention.rs \
    '.saturating_sub(kept).div_ceil(2)' '.saturating_sub(kept) / 2'
mutant retention-below-min-idle unit:engine::retention engine/retention.rs \
    'self.estimate.max(in_use.saturating_add(min_idle))' 'self.estimate.max(in_use)'
mutant retention-without-periods retention engine/retention.rs \
    'if !self.is_over(now, period_ms) {' 'if !self.is_over(now, period_ms) && false {'
mutant retention-lagging-clock-ends-it unit:engine::retention engine/retention.rs \
    'age <= longest && age' 'age'

# --- the bell ----------------------------------------------------------------------------------
mutant bell-ring-relaxed bell bell.rs \
    'self.rung.swap(true, Ordering::Release)' 'self.rung.swap(true, Ordering::Relaxed)'
mutant bell-ring-by-a-store bell bell.rs \
    '        if !self.rung.swap(true, Ordering::Release) {
            self.hearer.wake();
        }
' '        self.rung.store(true, Ordering::Release);
        self.hearer.wake();
'
mutant bell-answer-relaxed bell bell.rs \
    'self.rung.swap(false, Ordering::Acquire)' 'self.rung.swap(false, Ordering::Relaxed)'
mutant bell-ring-does-not-wake bell bell.rs '            self.hearer.wake();
' ''
mutant bell-listen-does-not-look bell bell.rs '        !self.is_rung()
' '        true
'
mutant bell-listen-looks-first bell bell.rs \
    '        register(&self.hearer, waker);
        // After the registration: who rings in between is seen here, or wakes the waker.
        !self.is_rung()
' '        let is_silent = !self.is_rung();
        register(&self.hearer, waker);
        is_silent
'
mutant bell-answer-keeps-ringing bell bell.rs \
    'self.is_rung() && self.rung.swap(false, Ordering::Acquire)' 'self.is_rung()'

# --- what scenarios show -----------------------------------------------------------------------
mutant scenario-permit-kept shuttle:dials engine/totals.rs \
    '        group.lives(class).put();
        put(&self.live);' '        put(&self.live);'
mutant scenario-dead-may-rest shuttle:death engine/state.rs \
    '(State::InUse, Event::Return) if !self.dead =>' '(State::InUse, Event::Return) =>'
mutant scenario-hand-off-does-not-wake shuttle:queue engine/line.rs \
    '                            seat.lane.reused.add();
                        }
                    }
                    waiter.wake();' \
    '                            seat.lane.reused.add();
                        }
                    }'
mutant scenario-evicted-is-handed-out shuttle:evict engine/hit.rs \
    'group, group)
            && lease.tenant.epoch == group.epoch()' \
    'group, group)'
mutant scenario-late-cancel-drops shuttle:queue engine/line.rs \
    'Cancelled::TooLate(Some(Outcome::Ready(lease))) => self.put_back(lease),' \
    'Cancelled::TooLate(Some(Outcome::Ready(lease))) => drop(lease),'

# The table of streams.
mutant stream-swap-relaxed "streams:return_vs_return_of streams:put_in_vs_wait" engine/streams/cell.rs \
    '.compare_exchange_weak(bits, next.pack(), Ordering::AcqRel, Ordering::Relaxed)' \
    '.compare_exchange_weak(bits, next.pack(), Ordering::Relaxed, Ordering::Relaxed)'
mutant stream-swap-acquire "streams:return_vs_return_of streams:put_in_vs_wait" engine/streams/cell.rs \
    '.compare_exchange_weak(bits, next.pack(), Ordering::AcqRel, Ordering::Relaxed)' \
    '.compare_exchange_weak(bits, next.pack(), Ordering::Acquire, Ordering::Relaxed)'
mutant stream-swap-release "streams:return_vs_return_of streams:put_in_vs_wait" engine/streams/cell.rs \
    '.compare_exchange_weak(bits, next.pack(), Ordering::AcqRel, Ordering::Relaxed)' \
    '.compare_exchange_weak(bits, next.pack(), Ordering::Release, Ordering::Relaxed)'
mutant stream-generation-ignored "streams:late_drain" engine/streams/cell.rs \
    'word.on(event).filter(|_| word.generation == generation)' 'word.on(event)'
mutant stream-moved-twice "streams:put_in_vs_drain" engine/streams/cell.rs \
    'if moved_before { None } else { self.taken_out(word) }' \
    'let _ = moved_before;
        self.taken_out(word)'
mutant stream-version-ignored "streams:change_vs_older" engine/streams/word.rs \
    'version.wrapping_sub(known) % VERSIONS < VERSIONS / 2' 'version != known || true'
mutant stream-ended-is-opened "streams:put_in_vs_drain" engine/streams/word.rs \
    '(Event::Open(capacity), Moving) if !self.draining =>' '(Event::Open(capacity), Moving) =>'
mutant stream-drained-stays "unit:engine::streams" engine/streams/word.rs \
    '(Event::Stay, Leaving) if !self.draining =>' '(Event::Stay, Leaving) =>'
mutant stream-lease-beyond-the-set-limit "unit:engine::streams::oracle" engine/streams/word.rs \
    'if self.limit < most { self.limit } else { most }' \
    'let _ = most;
        self.limit'
mutant stream-lease-of-one-that-leaves "unit:engine::streams" engine/streams/word.rs \
    '(Event::Lease(most), Open) if self.has_room(most) => next.leases += 1,' \
    '(Event::Lease(most), Open | Leaving) if self.leases < self.room(most) => next.leases += 1,'
mutant stream-line-up-fence-off "streams:return_vs" engine/streams/line.rs \
    '        // see us in line, or we see what they changed.
        fence(Ordering::SeqCst);' '        // see us in line, or we see what they changed.'
mutant stream-look-fence-off "streams:return_vs_stream_waiter" engine/streams/line.rs \
    '        // line, or who lines up sees what we changed.
        fence(Ordering::SeqCst);' '        // line, or who lines up sees what we changed.'
mutant stream-hand-out-fence-off "streams:_wait streams:purge" engine/streams/line.rs \
    '                // stream is seen here.
                fence(Ordering::SeqCst);' '                // stream is seen here.'
mutant stream-hand-out-once "streams:_wait streams:purge" engine/streams/line.rs \
    '                if self.line.is_empty() {
                    return;
                }
                continue;' '                return;'
mutant stream-close-fence-off "streams:close_vs" engine/streams/line.rs \
    '        // SeqCst: pairs with the fences in `line_up` and `serve_line`.
        fence(Ordering::SeqCst);' ''
mutant stream-call-fence-off "streams:last_return_of_one_that_leaves streams:unusable" engine/streams/mod.rs \
    '        // keeper after this, which finds no cell that moves.
        fence(Ordering::SeqCst);' '        // keeper after this, which finds no cell that moves.'
mutant stream-taken-out-unheard "streams:last_return_of_one_that_leaves" engine/streams/mod.rs \
    '        self.cells[at].vacate(moving);
        self.call_keeper();' '        self.cells[at].vacate(moving);'
mutant stream-unusable-unheard "unit:engine::streams::oracle" engine/streams/mod.rs \
    '            self.let_go(lease);
            self.call_keeper();' '            self.let_go(lease);'
mutant stream-vacated-before-rest "streams:last_return_of_one_that_leaves" engine/streams/mod.rs \
    '        let _ = catch_unwind(AssertUnwindSafe(goes));
        self.vacate(at, moving);' '        self.vacate(at, moving);
        let _ = catch_unwind(AssertUnwindSafe(goes));'
mutant stream-moves-after-a-panic "unit:engine::streams::tests" engine/streams/mod.rs \
    '                self.vacate(at, moving);
                resume_unwind(panic);' '                resume_unwind(panic);'
mutant stream-put-in-unseen "streams:put_in_vs_wait" engine/streams/mod.rs \
    '        self.look_after_line();
        // After the fence in there' '        // After the fence in there'
mutant stream-stays-in-a-closed-table "streams:close_vs_put_in" engine/streams/mod.rs \
    '        if self.is_closed() {
            self.leave(at);
        }' ''
mutant stream-change-unseen "streams:settings_raised" engine/streams/mod.rs \
    '            && cell.change(at.generation, capacity)
        {
            self.look_after_line();
        }' '            && cell.change(at.generation, capacity)
        {
        }'
mutant stream-served-while-held "unit:engine::streams::oracle" engine/streams/line.rs \
    'wanted.waiting > 0 && wanted.is_open()' 'wanted.waiting > 0'
mutant stream-closed-line-is-left "streams:purge_of_the_line_vs_close streams:close_vs_wait" \
    engine/streams/line.rs '        self.hand_out();
        if self.is_closed() {
            self.tell_closed();
        }' '        self.hand_out();'
mutant stream-purged-line-is-left "streams:purge_of_the_line" engine/streams/line.rs \
    '        // It had the first in line in its hands for a moment.
        self.look_after_line();' ''
mutant stream-line-is-unbounded "unit:engine::streams" engine/streams/line.rs \
    '                return Err(Refused::Full);' '                drop(());'
mutant stream-late-comers-turned-away "unit:engine::streams" engine/streams/line.rs \
    'count.min(self.demand.wanted().waiting)' 'count'
mutant stream-line-up-wakes-nobody "streams:last_return_of_one_that_leaves unit:engine::streams" \
    engine/streams/line.rs '        if !waiter.is_filled() {
            self.keeper.wake();
        }' ''
mutant stream-wanted-stays-unseen "unit:engine::streams::oracle" engine/streams/keep.rs \
    '            self.look_after_line();
        }
    }' '        }
    }'
mutant stream-need-rounded-down "unit:engine::streams::growth" engine/streams/growth.rs \
    '.div_ceil(room);' '/ room;'
mutant notice-change-fence-off "notice" notice.rs \
    '        // before somebody stood there, or who stands there sees the change.
        fence(Ordering::SeqCst);' '        // before somebody stood there, or who stands there sees the change.'
mutant notice-stand-fence-off "notice" notice.rs \
    '        // SeqCst: pairs with the fence in `change`.
        fence(Ordering::SeqCst);' '        // SeqCst: pairs with the fence in `change`.'

# Prints the orderings of the engine and its like, other than Relaxed, that no mutant weakens or removes.
untouched() {
    python3 - "$work/tree/src" "$SPANS" <<'PY'
import pathlib, re, sys
root, spans = pathlib.Path(sys.argv[1]), {}
for line in open(sys.argv[2]):
    path, start, end = line.rsplit(maxsplit=2)
    spans.setdefault(path, []).append(range(int(start), int(end)))
tests = {"order.rs", "regressions.rs", "seeded.rs"}
for path in [root / "bell.rs", root / "notice.rs", root / "retry_budget.rs", *sorted((root / "engine").rglob("*.rs"))]:
    if path.name in tests or "oracle" in path.parts:
        continue
    code = re.split(r"#\[cfg\((?:all\()?test", path.read_text())[0]
    for found in re.finditer(r"Ordering::(?:Acquire|Release|AcqRel|SeqCst)", code):
        line = code.count("\n", 0, found.start()) + 1
        comment = code.splitlines()[line - 1].lstrip().startswith("//")
        if not comment and not any(found.start() in span for span in spans.get(str(path), [])):
            print(f"{path.relative_to(root)}:{line}: no mutant touches this {found.group()}")
PY
}

if [[ $check ]]; then
    left=$(untouched)
    if [[ $left ]]; then
        echo "$left"
        exit 1
    fi
    if ((wrong > 0)); then
        echo "$wrong do not compile"
        exit 1
    fi
    echo "$found mutants apply, and one at least to each ordering"
    exit 0
fi
echo "$killed $excused $wrong" >"${MUTATE_SCORE:-/dev/stdout}"
if ((wrong > 0)); then
    echo "$wrong without a valid excuse"
    exit 1
fi
