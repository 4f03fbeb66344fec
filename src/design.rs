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
//! queue, a crossbeam `ArrayQueue`, holds hints `(slot, generation)`; the word is the truth. So
//! closing from the middle is one CAS, and the hint that stays behind is skipped when it is
//! popped. `hang_up` on a slot that is dialing or in use sets the mark: such a connection is
//! neither handed out nor put to rest (INV-6). The whole transition relation is one function,
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
//! INV-1 a connection has one owner. INV-2 live ≤ `max_live`, idle ≤ `max_idle`, and every permit
//! comes back. INV-3 a slot has at most one valid hint. INV-4 every descriptor is closed exactly
//! once, none while a submission refers to it. INV-5 no lost wake-up: an idle connection and a
//! waiter that no dial is under way for never rest together. INV-6 a connection seen dead is never
//! handed out. INV-7 a cancelled future, at any await, leaves all of the above true. INV-8 breaker
//! and backoff take only legal transitions and admit no more than they say. INV-9 after a close:
//! opened = closed, no slot in use.
//!
//! # Flows
//! * **Checkout, hit.** Pop a hint of the own lane, CAS Idle → InUse, compare the group in full.
//!   No allocation, lock, system call, hash, clock read or counter that shards share. A sibling's
//!   lane is tried only when the group has at least `steal_threshold` idle connections; a stolen
//!   connection goes home when it is returned, because its readiness is reported there.
//! * **Miss.** Line up, fence, look again, then dial if more callers wait than dials are under
//!   way and a permit is free. Whatever comes first serves the caller that waits longest: a
//!   return, or a dial. A failed dial fails one caller. The dial belongs to the shard, not to the
//!   caller: a dropped caller loses nothing.
//! * **Return.** Nobody waits: idle credit, CAS InUse → Idle, push the hint, fence, look at the
//!   demand word once more. Somebody waits: straight into its letter box.
//! * **Death at rest.** One poll for RDHUP per life, one-shot: on the ring, or in an epoll set of
//!   the shard's own that tokio's reactor polls. A FIN or RST closes an idle connection without a
//!   checkout and marks one in use. Bytes without a FIN are met by the connection's own look at
//!   return and checkout (`Connection::is_usable`): tokio's cached readiness, no system call as
//!   long as it says "nothing".
//! * **Close.** Never on the caller's path: the slot turns Closing and its shard gets a duty. The
//!   driver cancels the watch first, because an armed poll holds the file and a plain close(2)
//!   sends no FIN then; CANCEL and CLOSE are one hard-linked chain, batched with everything else
//!   of the turn. The slot and its permit come back when the kernel has answered.
//! * **Sweep.** Four times a second each shard that has connections passes over its slots and ends
//!   those whose idle deadline has come. There is no timer per connection, and no timer at all
//!   while a shard has none.
//!
//! # Races
//! Each row has a loom model of about that name in `loom-tests`.
//!
//! | race | outcome |
//! |---|---|
//! | checkout × checkout, also by stealing | one CAS wins; the other tries the next hint |
//! | checkout × hang_up | checkout first: the lease is marked and is closed on return; hang_up first: the checkout skips |
//! | return × hang_up | return first: the idle connection is closed; hang_up first: the return finds the mark and closes |
//! | return × a caller lining up | fences on both sides: the return sees the waiter, or the waiter sees the hint |
//! | hand-off × cancel | the letter box is filled or cancelled; a canceller that comes too late puts the connection back |
//! | fulfil × abandon | the ticket's CAS decides; the loser of a late completion closes its socket |
//! | permit comes back × a caller lining up | permit first, need second, fences between: one of the two starts the dial |
//! | failed dial × a caller lining up | the caller is failed, or a new dial starts for it |
//! | close × return | fences on both sides: the return sees the mark, or the close sees the hint |
//! | close × a caller lining up | likewise; the caller is told Closed |
//! | sweep × checkout | the generation's CAS decides |
//! | stale hint × generation wrapped round | the group is compared in full after the CAS; the slot has one owner whatever its hint's age |
//! | purge of cancelled waiters × hand-off | the purge keeps a live waiter in a place ahead of the queue |
//! | returns × the idle cap | quotas dealt to lanes: their sum never exceeds the cap |
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
//! * **FIFO lanes.** `ArrayQueue` is FIFO: every idle socket stays warm and all are used in turn.
//!   The comparison with LIFO is still to be measured.
//!
//! # Drivers
//! Measured before this was written: per open and close in batches of 64 a ring takes 0.03 to 0.3
//! system calls where tokio takes 7, but only about 0.8 of its CPU; one cross-core wake costs more
//! than a connect, so the ring lives on the consumer's thread; two plain phases (SOCKET for all,
//! then NODELAY linked to CONNECT for all) are as fast as chains with direct descriptors.
//! Set-up flags by a ladder: `SINGLE_ISSUER | COOP_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL` (6.0),
//! the same without `SINGLE_ISSUER` (5.19), none. SOCKET, the SETSOCKOPT command and
//! `CQE_SKIP_SUCCESS` are used where a probe or a trial finds them. ENOSYS, EPERM, EACCES, EINVAL
//! and ENOMEM mean tokio's reactor, said once in the log and in the statistics. A ring that fails
//! under way (a seccomp filter that comes late) is replaced by the reactor; connections that were
//! open then have no watch any more and are closed, those in use when they come back. A `SECCOMP_RET_KILL`
//! filter cannot be survived by trying: set `COREPOOL_BACKEND=epoll` there.
//!
//! # Not yet
//! Circuit breaker, backoff, lifetimes, resizing, DNS refresh, TLS and multiplexed pools; lone
//! dials through tokio where a ring is no gain; LIFO lanes. The README's limits list says what that
//! means for a user.
