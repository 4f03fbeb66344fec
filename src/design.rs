//! The design: figures, flows, races and trade-offs. Documentation only.
//!
//! # The layers
//! ```text
//! proxy ──▶ Pool, Group, Pooled            the face: handles, guards, errors, statistics
//!              │ checkout, release
//!              ▼
//!           engine                         who owns what, who is owed what; sans-I/O, lock-free
//!              │ duties                ▲ fulfil, abandon, vacate, hang_up, sweep
//!              ▼                       │
//!           worker (one per shard) ────┘   a task on the shard's pinned thread
//!              │ dial, watch, close    ▲ dialed, hung up, closed
//!              ▼                       │
//!           driver ────────────────────┘   io_uring | tokio's reactor | a script
//! ```
//! Imports go down only. The engine names no socket, clock, thread or task; time comes in as a
//! tick, work goes out as duties to the shard that owns the slot.
//!
//! # The life of a connection
//! ```text
//!             reserve              fulfil                checkout
//!    Vacant ───────────▶ Dialing ─────────▶ InUse ◀──────────────── Idle
//!      ▲ ◀────────────────  │ abandon         │ ──────────────────▶  │
//!      │                                      │  return              │ hang_up | expire
//!      └─────────────── Closing ◀─────────────┴──────────────────────┘
//!         vacate                    discard
//! ```
//! Each slot has one atomic word: state, a mark that its peer was seen to go, and a generation.
//! The generation names one idle period; it grows on return and on vacate (and abandon). A lane's
//! queue, a small ring and, once that has overflowed, a large one, holds hints `(slot, generation)`;
//! the word is the truth. So closing from the middle is one CAS, and the hint that stays behind is
//! skipped when it is popped. `hang_up` gives a connection up, because its peer went or because its owner wants it
//! gone, and leaves the reason beside the word. On a slot that is dialing or in use it sets the
//! mark: such a connection is neither handed out nor put to rest (INV-6). The whole transition relation is one function,
//! pinned as text by a test.
//!
//! | event | legal from | to |
//! |---|---|---|
//! | reserve | Vacant | Dialing |
//! | fulfil | Dialing, not marked | InUse |
//! | abandon | Dialing | Vacant, generation + 1 |
//! | return | InUse, not marked | Idle, generation + 1 |
//! | checkout | Idle | InUse |
//! | hang_up | Dialing, InUse | the same, marked |
//! | hang_up | Idle | Closing |
//! | expire | Idle | Closing |
//! | discard | InUse | Closing |
//! | vacate | Closing | Vacant, generation + 1 |
//!
//! # Invariants
//! INV-1 a connection has one owner. INV-2 live ≤ `max_live`, idle ≤ `max_idle`, the same for the
//! whole pool, and every permit comes back; a limit that is lowered under way holds again once what
//! was above it has come back. INV-3 a slot has at most one valid hint. INV-4 every descriptor is
//! closed exactly once, none while a submission refers to it. INV-5 no lost wake-up: an idle
//! connection and a waiter that no dial is under way for never rest together. INV-6 a connection
//! seen dead, or evicted, is never handed out. INV-7 a cancelled future, at any await, leaves all
//! of the above true. INV-8 breaker, backoff, slow start, retention and retry budget take only
//! legal transitions and admit no more than they say. INV-9 after a close: opened = closed, no slot
//! in use. INV-10 of no shared connection more streams are leased than its peer allows at that moment
//! and than was set, and its last lease, or who finds that there is none, takes it out exactly once.
//!
//! # Flows
//! * **Checkout, hit.** Pop a hint of the own lane, CAS Idle → InUse, compare the group in full.
//!   No allocation, lock, system call, hash, clock read or counter that shards share. A sibling's
//!   lane is tried only when the group has at least `steal_threshold` idle connections; a stolen
//!   connection goes home when it is returned, because its readiness is reported there.
//! * **Miss.** Line up, fence, look again, then dial if more callers wait than dials are under
//!   way, the permits are free (to live and to dial, of the group and of the pool) and the breaker
//!   admits it. Whatever comes first serves the caller that waits longest: a
//!   return, or a dial. A failed dial fails one caller. The dial belongs to the shard, not to the
//!   caller: a dropped caller loses nothing.
//! * **Return.** Nobody waits: idle credit, CAS InUse → Idle, push the hint, fence, look at the
//!   demand word once more. Somebody waits: straight into its letter box.
//! * **Death at rest.** One poll for RDHUP per life, one-shot: on the ring, or in an epoll set of
//!   the shard's own that tokio's reactor polls. A FIN or RST closes an idle connection without a
//!   checkout and marks one in use. Bytes without a FIN are met by the connection's own look at
//!   return and checkout (`Connection::inspect`): tokio's cached readiness, no system call as
//!   long as it says "nothing". A real look, `recv(MSG_PEEK)`, is taken by policy, and at
//!   connections whose sibling died by reset since they last gave a sign of life.
//! * **Close.** Never on the caller's path: the slot turns Closing and its shard gets a duty. The
//!   driver cancels the watch first, because an armed poll holds the file and a plain close(2)
//!   sends no FIN then; CANCEL and CLOSE are one hard-linked chain, batched with everything else
//!   of the turn. The slot and its permit come back when the kernel has answered.
//! * **Sweep.** Four times a second each shard that has connections passes over its slots and takes
//!   out those whose time has come: the idle timeout, the end of their life, or a ping. There is no
//!   timer per connection, and no timer at all while a shard has nothing to look after.
//! * **Tend.** Each group has a home shard, which looks after it as often: closes what rests above
//!   a lowered limit or above the need of late, dials what is to be at rest, has another look at
//!   what time lets through (a recovery's ramp, the pool's limits), and asks for names again. A
//!   shard that sleeps is roused when one of its groups gets a connection or a caller.
//! * **Dial of a name.** One look-up serves all dials (an answer is kept for its TTL, and an old one
//!   while no new one can be had). The addresses race after RFC 8305. When the answer changes, each
//!   shard retires its connections to vanished addresses over `retire_over_ms`.
//! * **Streams.** A connection that several use at once stands in a cell of its endpoint's table; to the
//!   group it is one in use. A caller takes a stream of the one that has the fewest: a look over the
//!   cells and one CAS, which counts the stream against the peer's limit. If there is none it lines up,
//!   fences, looks again, and wakes the keeper. A stream that ends serves who waits longest. The keeper,
//!   a task on the group's home shard, finds connections as a caller does, at rest or by a dial, and
//!   four times a second looks which are not needed, too old or dead. What is not needed takes no more
//!   streams and goes back to the group after its last one; what drains, at its peer's word or its
//!   owner's, ends after it. Only then is the cell vacant: who sees no cell that moves finds the
//!   connection at rest.
//!
//! # Limits, and who is owed what
//! A dial needs up to four permits, and takes all or none. What was taken before the one that
//! lacks is put back, and then the one that lacks is looked at again behind a fence: either it is
//! free now, or whoever frees it later looks after this group and finds the others back. Everybody
//! who gives a permit back looks: at the callers of its own group, and, where the pool as a whole
//! has limits, at the group that starves longest. At the pool's `max_live` the connection that
//! rests longest anywhere makes room.
//!
//! The cap on what rests in the whole pool is dealt out to shards as the group's is dealt out to
//! its lanes. A return above it evicts the oldest: a look over all slots keeps the 64 that rested
//! longest, and they stay the oldest until they are used up.
//!
//! # Failure control
//! ```text
//!            trip                    time over, first probe
//!  Closed ─────────▶ Open ─────────────────────────────────▶ HalfOpen
//!    ▲                ▲                 probe failed            │ │
//!    │                └──────────────────────────────────────────┘ │
//!    └────────────────── as many successes as asked ───────────────┘
//! ```
//! The breaker judges dials, not requests: one word a group holds the state, the last 32 outcomes
//! (closed), the time that is left (open) or the probes that are out (half-open), and an epoch that
//! tells outcomes of dials begun in an earlier period. It trips on failures in a row, on a share of
//! failures, and slow connects count as failures. It stays open for a delay of the backoff, which
//! grows from trip to trip (gRPC's `connection-backoff.md`: 1 s, × 1.6, ± 20 %, at most 120 s).
//! A dial carries its pass in its reservation, and the ticket that decides who ends a dial decides
//! who ends the pass, so a probe's place comes back exactly once. Failures of our own (no
//! descriptor, no port, no driver) are no verdict.
//!
//! When it trips, those in line that no dial is under way for are told at once, and so is whoever
//! comes while nothing rests. Idle connections are handed out all the same: a dead origin's are
//! closed by the watch, and a living origin that takes no new connections may well serve on old
//! ones. The backoff alone holds off dials in the background.
//!
//! # Races
//! Each row has loom models, `loom-tests/tests/FILE.rs::MODEL`, whose words begin with the row's
//! invariant. A test holds this table against them (`tests/house.rs`).
//!
//! | race | INV | outcome | models |
//! |---|---|---|---|
//! | checkout × checkout, also by stealing | 1 | one CAS wins; the other tries the next hint | `checkout::checkout_vs_checkout`, `checkout::checkout_vs_steal`, `stack::checkout_vs_steal` |
//! | return × steal | 1 | the thief sees all that the last user did | `checkout::return_vs_steal`, `slot::return_publishes_to_checkout` |
//! | checkout × hang_up | 1, 6 | checkout first: the lease is marked and is closed on return; hang_up first: the checkout skips | `checkout::checkout_vs_hang_up`, `slot::checkout_vs_hang_up` |
//! | an end in mid-queue × checkouts | 1, 6 | the hint stays behind and is skipped; its neighbours are found | `checkout::hang_up_mid_queue_vs_checkouts`, `stack::checkout_vs_hang_up_of_the_youngest` |
//! | return × hang_up | 1, 6 | return first: the idle connection is closed; hang_up first: the return finds the mark and closes | `checkout::return_vs_hang_up`, `slot::return_vs_hang_up` |
//! | return × a caller lining up | 5 | fences on both sides: the return sees the waiter, or the waiter sees the hint | `waiters::return_vs_wait`, `stack::return_vs_wait` |
//! | hand-off × cancel | 7 | the letter box is filled or cancelled; a canceller that comes too late puts the connection back | `waiters::cancel_vs_hand_off`, `waiters::cancel_vs_hand_off_to_the_next` |
//! | two callers × the last place in line | 2 | one CAS counts; the other is refused | `waiters::wait_vs_wait_for_the_last_place`, `waiters::cancel_vs_wait_for_the_last_place` |
//! | fulfil × abandon | 1, 4 | the ticket's CAS decides; the loser of a late completion closes its socket | `dial::fulfil_vs_abandon`, `dial::late_fulfil_vs_next_dial`, `slot::fulfil_vs_abandon` |
//! | dial for one caller alone × its cancel | 1, 7 | the connection is the caller's to put back, or rests | `dial::fulfil_alone_vs_cancel` |
//! | permit comes back × a caller lining up | 5 | permit first, need second, fences between: one of the two starts the dial | `dial::vacate_vs_wait`, `dial::vacate_vs_cancel_then_wait` |
//! | failed dial × a caller lining up | 5 | the caller is failed, or a new dial starts for it | `dial::failed_dial_vs_wait`, `dial::given_up_dial_vs_wait` |
//! | dials ahead of need × those of a tending pass | 2 | one at a time, below the number that the ratio asks for | `spare::dial_ahead_vs_tend` |
//! | spare dial × a caller lining up | 5 | the caller counts on it and has it, or is told | `adopt::spare_dial_vs_wait`, `adopt::refused_spare_dial_vs_wait` |
//! | close × return | 5, 9 | fences on both sides: the return sees the mark, or the close sees the hint | `close::close_vs_return`, `stack::close_vs_return` |
//! | close × a caller lining up | 5 | likewise; the caller is told Closed | `close::close_vs_wait`, `close::close_vs_wait_that_dials` |
//! | drain × a late dial | 4, 9 | the ticket decides once more; what comes late is closed, and its slot comes back | `close::late_dial_vs_drain` |
//! | sweep × checkout | 1 | the generation's CAS decides | `checkout::checkout_vs_sweep`, `slot::expire_vs_next_period` |
//! | stale hint × generation wrapped round | 1, 3 | the group is compared in full after the CAS; the slot has one owner whatever its hint's age | `checkout::stale_hint_vs_other_group`, `checkout::stale_hint_vs_valid_hint` |
//! | purge of cancelled waiters × hand-off | 5 | the purge keeps a live waiter in a place ahead of the queue | `waiters::purge_vs_return`, `waiters::purge_vs_close` |
//! | returns × the idle cap | 2 | quotas dealt to lanes: their sum never exceeds the cap | `credits::return_vs_return_on_one_lane`, `credits::return_vs_raid` |
//! | returns × the pool's idle cap | 2 | the same, dealt to shards; who is above it evicts the oldest | `totals::return_vs_return_at_the_total_idle_cap` |
//! | eviction for another group × checkout | 1 | the generation's CAS decides; the evictor looks for the next oldest | `totals::eviction_vs_checkout`, `totals::eviction_vs_eviction` |
//! | a permit of the pool comes back × another group's caller lining up | 2, 5 | the queue of the starving and fences: one of the two starts the dial | `totals::vacate_vs_wait_of_another_group`, `totals::fulfil_vs_wait_of_another_group` |
//! | permits taken and put back × others that need them | 5 | the one that lacked is looked at again after a fence | `totals::rolled_back_permit_vs_fulfil`, `totals::rolled_back_total_vs_feed` |
//! | evict × return, × checkout, × fulfil | 6 | the epoch is compared on both: what is older ends | `evict::evict_vs_return`, `evict::evict_vs_checkout`, `evict::evict_vs_fulfil` |
//! | retain × checkout, × a caller lining up | 1, 5 | the generation's CAS decides; what is kept goes back as a return does | `evict::retain_vs_checkout`, `evict::retain_vs_wait` |
//! | hold × return, resume × a caller lining up | 5 | as for close; a resume looks at both | `hold::hold_vs_return`, `hold::resume_vs_wait` |
//! | adopt × close, × a caller lining up | 2, 5, 9 | an adoption is a dial that has ended already | `adopt::adopt_vs_close`, `adopt::adopt_vs_wait` |
//! | a lowered cap × returns | 2 | a debt, paid as credits come free | `resize::max_idle_lowered_vs_return`, `resize::max_idle_total_lowered_vs_return` |
//! | a raised limit × a caller lining up | 5 | limit first, need second, a fence between | `resize::max_live_raised_vs_wait`, `resize::max_live_total_raised_vs_wait` |
//! | two dials at the end of the open time | 8 | one CAS takes the last probe | `breaker::admit_vs_admit_at_the_expiry`, `gate::wait_vs_wait_at_the_expiry` |
//! | probe × cancel | 7, 8 | the dial's ticket ends the pass, not the caller: the place comes back once | `gate::probe_vs_cancel`, `gate::given_up_probe_vs_cancel`, `breaker::withdrawn_vs_admit` |
//! | late verdict × the breaker's next period | 8 | the epoch refuses it | `breaker::late_success_vs_probe`, `breaker::late_withdrawal_vs_probe` |
//! | backoff's failure × success | 8 | one CAS: the series has ended, or this is its first failure | `backoff::success_vs_failure`, `backoff::failure_vs_failure_of_one_step` |
//! | trip × a caller lining up | 5 | the caller is told, or was admitted before | `gate::trip_vs_wait`, `gate::force_open_vs_wait` |
//! | sweep's ping × a caller lining up | 5 | an answer goes back as a return does | `evict::answered_ping_vs_wait`, `evict::unanswered_ping_vs_wait` |
//! | something comes on an HTTP/1 connection × one who begins to wait for it, or lets go | 5 | a flag first, the waker second; who waits registers first and looks second | `bell::ring_vs_listen`, `bell::ring_vs_ring`, `bell::ring_vs_hush` |
//! | lease × lease of a shared connection's last stream | 10 | one CAS counts; the other finds no room | `streams::lease_vs_lease_for_the_last_place` |
//! | a shared connection drains × lease, × its last streams' ends | 10 | the lease is counted or refused; who makes the count zero ends the connection | `streams::lease_vs_drain`, `streams::last_return_vs_drain`, `streams::return_vs_return_of_a_connection_that_drains` |
//! | a peer's lowered limit × lease, × an older word that is told late | 10 | one word holds count, limit and the limit's version | `streams::lease_vs_settings_shrink`, `streams::change_vs_older_change` |
//! | a peer's raised limit × a caller lining up | 5 | fences on both sides | `streams::settings_raised_vs_wait` |
//! | a stream ends × a caller lining up | 5, 10 | the same, also where callers share beyond what was set | `streams::return_vs_wait_for_a_stream`, `streams::return_vs_stream_waiter_that_polls`, `streams::return_vs_wait_beyond_the_limit` |
//! | a stream is handed over × its caller leaves, × callers are turned away | 5, 7 | the letter box decides; what comes too late goes to the next | `streams::cancel_vs_return_with_another_in_line`, `streams::turned_away_vs_return` |
//! | a shared connection goes to rest × lease, × its last stream's end, × a caller that wants it after all | 10 | one CAS each: leased and rests later, rests once, or stays | `streams::lease_vs_shrink`, `streams::last_return_vs_shrink`, `streams::last_return_vs_stay` |
//! | a shared connection is taken out × a caller lining up | 5 | vacant first, then a fence and the keeper's waker: the keeper finds no cell that moves | `streams::last_return_of_one_that_leaves_vs_keeper`, `streams::unusable_at_lease_vs_wait` |
//! | a connection is put in × a caller lining up, × its peer's word | 5, 10 | the word is known by the cell that moves already; what ended is never open | `streams::put_in_vs_wait`, `streams::put_in_vs_change`, `streams::put_in_vs_drain` |
//! | a late word about a connection × the next in its cell | 10 | the generation refuses it | `streams::late_drain_vs_next_connection` |
//! | a table of streams is closed × a caller lining up, × a connection put in, × lease | 5, 9, 10 | fences on both sides; what is leased goes on | `streams::close_vs_wait_for_a_stream`, `streams::close_vs_put_in`, `streams::close_vs_lease` |
//! | a table of streams is resumed × a caller lining up | 5 | fences on both sides | `streams::resume_vs_wait_for_a_stream` |
//! | purge of callers that left a line for streams × a stream's end, × a close | 5 | who purges looks after the line | `streams::purge_of_the_line_vs_return`, `streams::purge_of_the_line_vs_close` |
//! | a meter's change × its connection is put in | 5 | place first, word second, fences between: it is told, or found | `notice::change_vs_stand_at`, `notice::change_vs_change_vs_stand_at` |
//! | a push to a lane's near ring × push, × pop | 1, 2, 3 | head and length in one word that only grows; a mark tells whether a place's word is there | `small_ring::push_vs_pop`, `small_ring::push_vs_push_for_the_last_place`, `small_ring::pop_vs_pop` |
//! | a lane's near ring goes on to the next lap × push, × pop | 3 | who claims a place sees the marks of those before: a place in another's hands is not waited for, and its word not taken twice | `small_ring::pop_vs_push_to_the_same_place`, `small_ring::pop_of_the_last_vs_push`, `small_ring::pop_and_push_vs_pops`, `small_ring::push_vs_pop_vs_push`, `small_ring::pop_vs_push_vs_pop`, `small_ring::pop_vs_a_whole_lap` |
//! | a push makes a lane's far ring × push, × pop | 1, 3 | one pointer counts, the other ring is dropped empty; a hint stays in the ring that it was pushed to | `fifo::push_vs_push_that_make_the_far_ring`, `fifo::push_that_makes_the_far_ring_vs_pops`, `fifo::push_vs_pop_of_the_far_rings_last` |
//! | a return to a lane's far ring × a caller lining up | 5 | the same fences: the return sees the waiter, or the waiter sees the ring and the hint in it | `fifo::push_that_makes_the_far_ring_vs_caller`, `fifo::push_to_the_far_ring_vs_caller`, `fifo::return_to_the_far_ring_vs_waiter_that_polls` |
//! | the stack's pop × pop, pop, push (ABA) | 3 | a tag in the word that holds the top | `stack::stalled_pop_vs_pop_pop_push`, `stack::stalled_push_vs_push_push_pop` |
//!
//! A worker's panic × whatever it was at has no model but tests (`src/worker/tests/panics.rs`,
//! `tests/shard_panics.rs`): all of it happens on one thread.
//!
//! # Decisions
//! * **Waiters without a lock.** A waiter is a small allocation with a one-place letter box in a
//!   queue; a cancelled one stays until its turn. The count of those is bounded: above four times
//!   `max_waiters` the head of the queue is cleared, and if a live caller at the head keeps that
//!   from helping, newcomers are refused as if the queue were full.
//! * **Waiting and dialing in one word**, so that "a dial for every waiter and no more" is a single
//!   CAS. A dial that ends and the waiter that it serves leave the word together.
//! * **The idle cap is exact and not shared.** It is dealt out to lanes as quotas; a lane that runs
//!   short takes from the undealt part, then from siblings with room.
//! * **A connection's reference to its group is counted per shard** (a *seat*), so that neither a
//!   checkout nor a return writes a count that other shards write.
//! * **Time is the connection's own.** A connection that was handed to a caller that has left goes
//!   back with the rest it had: the caller's shard may have a clock that stands still.
//! * **Coarse time.** A hit and a return read the shard's last clock reading, at most 100 ms old.
//! * **A fresh connection for a retry takes the permit of what it replaces.** For the moment that
//!   the old socket takes to close there is one socket more than permits.
//! * **Off-shard callers** keep to one shard per thread and share from one idle connection on:
//!   they have no lane of their own to keep warm.
//! * **A FIFO lane has a near ring and a far one.** A ring walks round all of its places, whatever
//!   rests there: one of 256 is 4 KiB of cache for each endpoint and shard. So eight places stand in
//!   the lane itself, a ring of our own, and the others, as many as twice the idle cap and 256 at
//!   least, in an `ArrayQueue` that comes with the first return that finds no place in the lane: the
//!   one return that allocates. While the far ring has hints, what returns goes there, and the near one
//!   is emptied first, so the order stays. Nothing is moved from ring to ring, and nobody waits for the
//!   one that makes the far ring. A lane that has one keeps it.
//! * **A ring of our own near, because it is lines that a hit waits for.** `ArrayQueue` keeps its head,
//!   its tail and its places in lines of their own, against threads that share it; a lane is one
//!   shard's. Ours stands with the lane's counts in two lines, of which a lane with one connection at
//!   rest uses one, and nobody waits in it for another who has claimed a place and goes no further: to
//!   him the ring is empty or full. What a hit touches in all is some seven lines, aligned where that
//!   keeps one from being two: the handle, the list of seats, the seat, the group, the lane, the slot,
//!   the connection.
//! * **FIFO lanes by default, LIFO by choice** (`capacity.order`). FIFO is a small ring and
//!   crossbeam's `ArrayQueue`; LIFO is a Treiber stack over a preallocated array, 7 to 10 % dearer per checkout and return on
//!   one thread (75 against 83 ns, both alternated in one run) and as much on two. After a burst
//!   that left 128 at rest, ten minutes of a low load (`cargo test --lib engine::order --
//!   --nocapture`; 50 ms of use, 0.95 s of thought on average; idle timeout 60 s):
//!
//!   | users | order | retention | live after 1, 2, 10 min | mean age at checkout |
//!   |---|---|---|---|---|
//!   | 4 | FIFO | off | 128, 128, 128 | 31.0 s |
//!   | 4 | LIFO | off | 2, 3, 3 | 0.6 s |
//!   | 4 | FIFO | 30 s | 33, 9, 2 | 2.7 s |
//!   | 16 | FIFO | off | 128, 128, 128 | 8.0 s |
//!   | 16 | LIFO | off | 6, 5, 6 | 0.3 s |
//!   | 16 | FIFO | 30 s | 34, 11, 6 | 0.9 s |
//!
//!   Alone, FIFO keeps a burst for ever; with retention, which is on by default, it shrinks as far
//!   as LIFO does, without the cliff, and spreads the load over a balancer's backends meanwhile.
//!   LIFO hands out the youngest: for an origin that closes early, where there is no watch.
//! * **Settings are atomics of their own.** A group reads its limits one by one; who decides while
//!   they change may see some of them changed, which no invariant depends on.
//! * **A limit of the whole pool is counted only where there is one**, so that a pool without
//!   shares no count between shards.
//! * **The breaker is on by default**, for dials only. A proxy's own verdict on responses belongs to
//!   the proxy, which can force the breaker.
//! * **An HTTP/1 connection has no task.** Who waits for the response polls hyper's connection, so that
//!   a request costs no switch between tasks, and one at rest is a socket like any other: watched,
//!   looked at, closed in a batch. It is polled as a task would be, only after its own waker was
//!   called: a look at one at rest is a look at a flag. An upload that outlasts its response's head
//!   gets a task, because who reads the response may stop for as long as the upload does not go on.
//! * **An HTTP/2 connection has one task**, on the shard that dialled it: its peer may say something
//!   at any time (SETTINGS, PING, GOAWAY), and many wait for it. It tells the pool by atomics how many
//!   streams there are and how it ended, so that a look costs no system call. Its socket lies in a
//!   cell between the task and the pool, because h2 keeps what it is given: the pool takes it out and
//!   closes it in a batch like any other. A dial is done when the peer's first SETTINGS have come.
//!   `Http2::send` never waits for a stream: h2 would queue the request, and send a cancelled one all
//!   the same, head and reset, once a stream came free.
//! * **A TLS session belongs to one identity.** Each TLS identity has a configuration of rustls of its
//!   own, and with it its own sessions: what was agreed on without verification, or with another
//!   client certificate, is resumed by nobody else. The tables behind are immutable and swapped as a
//!   whole, so that a dial takes no lock and a certificate can be replaced under way; a
//!   configuration remembers what its labels meant and is made anew when they mean something else.
//! * **A look at a TLS connection reads.** Under TLS 1.3 a ticket and a response look alike until
//!   they are decrypted, so what has come at rest is given to the session, without waiting and no
//!   more than 64 KiB, and judged by what it was. HTTP/1 looks through its transport: hyper's next
//!   read asks the stream first.
//! * **Handshakes under way are capped** (256, over all shards). Nothing else here takes so much of a
//!   shard's thread: 0.4 ms, 0.16 for a resumed one (ring, P-256). Thousands at once would all end
//!   late, and those that run out of time have cost as much.
//! * **hyper-util's client gets what nobody used.** It keeps connections and reuses them by rules of
//!   its own, and does not send a request again that failed on what is a fresh one to it. So
//!   `ConnectService` gives it spares and dials alone, and what it drops is closed.
//! * **Shared connections have cells beside the group's slots.** A slot has one owner at a time, and its
//!   word and its lanes live off that; a cell is looked at by many. The table is one more user of the
//!   group, which holds whole connections: limits, breaker, watch, eviction and statistics are the
//!   group's, once, for both ways of use.
//! * **The keeper is a task, not a caller.** A caller that dialled for itself would dial once for each of
//!   a hundred that come at once, and take its dial along when it leaves. The keeper counts them, begins
//!   with one connection and at most doubles, and its finds are nobody's to cancel.
//! * **A shared connection stays in its cell for a while.** Between two requests that come one after the
//!   other it would go to rest and come back, by way of the keeper. It goes when no stream was leased at
//!   a round of 250 ms, so an idle one is out of its group's reach for up to two rounds.
//! * **A peer's limit comes with a version.** Its driver and who puts the connection in tell it at the
//!   same time, from two threads, and the older may arrive last. What was set (`streams.max_streams`) is
//!   compared at each lease: it holds from the next on, and sharing beyond it is counted as exactly.
//! * **Leaks are looked for only where a policy asks**: two stores at a checkout then.
//!
//! # Drivers
//! Measured before this was written: per open and close in batches of 64 a ring takes 0.03 to 0.3
//! system calls where tokio takes 7, but only about 0.8 of its CPU; one cross-core wake costs more
//! than a connect, so the ring lives on the consumer's thread; two plain phases (SOCKET for all,
//! then NODELAY linked to CONNECT for all) are as fast as chains with direct descriptors.
//! Where no dial is under way the socket is made by socket(2), which costs less than a round of the
//! ring; the ring makes those of the rest of a batch. The watch of a dial to one address is linked to
//! its CONNECT and costs no submission (an address of a name may lose its race, and a slot has one
//! watch). The worker hands a socket to the connector once its watch is submitted, and polls the
//! connector itself: one that has nothing to wait for costs no task.
//! Set-up flags by a ladder: `SINGLE_ISSUER | COOP_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL` (6.0),
//! the same without `SINGLE_ISSUER` (5.19), none (5.7, the first where a CONNECT waits for a
//! non-blocking socket). SOCKET, the SETSOCKOPT command and
//! `CQE_SKIP_SUCCESS` are used where a probe or a trial finds them. ENOSYS, EPERM, EACCES, EINVAL
//! and ENOMEM mean tokio's reactor, said once in the log and in the statistics. A ring that fails
//! under way (a seccomp filter that comes late) is replaced by the reactor; connections that were
//! open then have no watch any more and are closed, those in use when they come back. A `SECCOMP_RET_KILL`
//! filter cannot be survived by trying: set `COREPOOL_BACKEND=epoll` there. The zero of a CONNECT is
//! not all there is to it: Linux 6.18 also gives it where an ICMP error ended the connect. One address
//! of a name without a peer loses the race, and a dial whose watch fires before its first use asks the
//! socket why; no other dial pays a system call for that.
//!
//! # A worker that panics
//! A bug of ours, or of a `tracing` subscriber inside one of our log lines. (What is known to be
//! someone else's code, hooks, connectors, the text of their errors, is guarded where it is called.) The
//! panic is caught around the worker's poll; the worker is dropped whole, and another one with a driver of its own takes
//! over on the same thread and runtime.
//!
//! | what the worker had | outcome |
//! |---|---|
//! | the driver | dropped: it closes what the kernel was never told to close and the sockets that it made and nobody fetched (INV-4) |
//! | dials begun | abandoned as failures of our own, no verdict on the endpoint; the caller is told (`DialErrorKind::Backend`), and so is who adopts |
//! | dials that wait for their turn | begun by the next worker; failed while there is none |
//! | closes under way | the descriptors are closed with the driver; slots and permits come back |
//! | connections at rest | closed, as [`Unwatched`](crate::CloseReason::Unwatched) |
//! | connections in use | marked, closed when they come back |
//! | jobs and tasks of the shard | go on |
//! | pings and look-ups | go on |
//!
//! A dial and a place are in a guard while the worker has them. Unwinding, the guard leaves them in
//! a list of the pool's, so that what was on the stack is not lost either; a ticket that is used up
//! already makes the second abandon a step that does nothing. What a slot's word says is not enough
//! for that: whom a dial is for, its permits and its pass are in the reservation alone.
//!
//! Five panics in a row are each followed by a new worker at once. After more the shard is down for
//! a second, two, four, up to 32: dials on it fail at once, connections that come back are closed,
//! jobs are started, nothing is tended. A worker that lasted a minute ends the row. A panic outside
//! the worker takes the runtime along; then the thread stays to answer callers, and the shard is
//! down for good. Panics are counted ([`ShardStats`](crate::ShardStats)) and told
//! ([`PoolEvent::ShardPanicked`](crate::PoolEvent::ShardPanicked)).
//!
//! # Not yet
//! Lone dials through tokio where a ring is no gain. The README's limits
//! list says what that means for a user.
