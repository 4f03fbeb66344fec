//! What the simulator knows by itself of every connection, and what has gone wrong so far.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    hash::{DefaultHasher, Hasher},
};

/// Lines of the trace that are kept for the report.
const KEPT: usize = 40;

/// What happened, step by step.
pub struct Trace {
    pub step: u64,
    last: VecDeque<String>,
    hash: DefaultHasher,
    /// Print all of it as it comes.
    print: bool,
}

impl Trace {
    pub fn new() -> Self {
        Self {
            step: 0,
            last: VecDeque::new(),
            hash: DefaultHasher::new(),
            print: std::env::var_os("COREPOOL_SIM_TRACE").is_some(),
        }
    }

    pub fn line(&mut self, now_ms: u128, what: fmt::Arguments<'_>) {
        let line = format!("{:>6} {now_ms:>8} ms  {what}", self.step);
        if self.print {
            println!("{line}");
        }
        self.hash.write(line.as_bytes());
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    pub fn last(&self) -> String {
        Vec::from(self.last.clone()).join("\n")
    }
}

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub group: usize,
    /// The connector has made it.
    pub made: bool,
    /// Which caller has it.
    pub owner: Option<usize>,
    /// How often its near end was closed.
    pub closed: u32,
    pub detached: bool,
    /// The peer has sent something that nobody asked for.
    pub unasked: bool,
    /// The pool saw it become ready when its group had been evicted so often.
    pub evictions: Option<u64>,
    /// It is being pinged.
    pub asked: bool,
}

/// Where the network's side of a breaker stands: what an open one may still let through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gate {
    /// It was open when it was last looked at.
    pub open: bool,
    /// Dials that were on their way when it was seen to open and have not come by yet.
    pub left: u64,
    /// Dials under way that began while it was half open.
    pub probes: u64,
    /// Dials that have reached the network and are not over.
    pub out: u64,
}

impl Gate {
    /// It is open, and so many dials are under way that began before, of which so many have come
    /// by already.
    pub fn shut(&mut self, dialing: u64, out: u64) {
        if !self.open {
            (self.open, self.left) = (true, dialing.saturating_sub(out));
        }
    }

    /// It is closed: whatever was on its way may come by.
    pub fn reset(&mut self) {
        *self = Self { out: self.out, ..Self::default() };
    }
}

/// One endpoint, whatever groups it has had.
#[derive(Clone, Debug, Default)]
pub struct Side {
    pub evictions: u64,
    pub held: bool,
    pub closed: bool,
    pub gate: Gate,
    /// The most probes at once that its policies have let a half-open breaker have.
    pub most_probes: u64,
    /// Some policy of it has let callers dial past an open breaker.
    pub direct: bool,
}

/// How often what happened, over any number of seeds.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn join(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// All of it.
pub struct Account {
    pub records: BTreeMap<u64, Record>,
    pub sides: Vec<Side>,
    pub tally: Tally,
    pub trace: Trace,
    pub violation: Option<String>,
    /// The connection that was handed out last, which its caller has not looked at yet.
    pub handed: Option<Handed>,
    /// What the observer heard of: connections made, and connections closed.
    pub opened: u64,
    pub ended: u64,
}

/// How a connection was as it was handed out.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    pub id: u64,
    /// The shard knew that the peer was gone.
    pub reported: bool,
    /// The peer was gone.
    pub gone: bool,
}

impl Account {
    pub fn new(groups: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            sides: vec![Side::default(); groups],
            tally: Tally::default(),
            trace: Trace::new(),
            violation: None,
            handed: None,
            opened: 0,
            ended: 0,
        }
    }

    /// Notes what must not be. The first one counts.
    pub fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(what());
        }
    }

    /// Callers' connections, by the account.
    pub fn held(&self) -> usize {
        self.records.values().filter(|it| it.owner.is_some() && !it.detached).count()
    }

    pub fn asked(&self) -> usize {
        self.records.values().filter(|it| it.asked).count()
    }

    /// A caller got a connection.
    pub fn hand_out(&mut self, caller: usize, group: usize, sees: bool) -> Option<u64> {
        let Some(Handed { id, reported, gone }) = self.handed.take() else {
            self.violate(format!("caller {caller} got a guard that was never handed out"));
            return None;
        };
        let evictions = self.sides[group].evictions;
        let Some(record) = self.records.get_mut(&id) else {
            self.violate(format!("connection {id} was never made"));
            return None;
        };
        let was = record.clone();
        record.owner = Some(caller);
        self.require(was.owner.is_none(), || {
            format!("INV-1: connection {id} of caller {:?} was given to {caller}", was.owner)
        });
        self.require(was.group == group, || {
            format!("INV-1: connection {id} of endpoint {} was given for {group}", was.group)
        });
        self.require(!was.asked, || format!("INV-1: connection {id} was given while pinged"));
        self.require(was.closed == 0, || format!("INV-4: connection {id} was given closed"));
        self.require(!reported, || {
            format!("INV-6: connection {id} was given to caller {caller} after its peer's end was reported")
        });
        self.require(!(sees && gone), || {
            format!("INV-6: connection {id} was given although it saw that its peer was gone")
        });
        self.require(was.evictions == Some(evictions), || {
            format!(
                "INV-6: connection {id} of eviction {:?} was given after {evictions}",
                was.evictions
            )
        });
        Some(id)
    }

    /// The near end of a connection was closed.
    pub fn close(&mut self, id: u64) {
        let record = self.records.entry(id).or_default();
        record.closed += 1;
        record.asked = false;
        let record = record.clone();
        self.require(record.closed == 1, || format!("INV-4: connection {id} was closed twice"));
        self.require(record.owner.is_none() || record.detached, || {
            format!("INV-1: connection {id} was closed while caller {:?} has it", record.owner)
        });
    }
}
