//! A race by the fuzzer's choices, against a plain list of what has to be tried.

use std::collections::BTreeSet;

use super::*;
use crate::{clock, corpus::Bytes};

/// What a race has to do, over a list in the order that RFC 8305 §4 wants.
struct Model {
    order: Vec<SocketAddr>,
    delay: u64,
    /// How many of the list were begun.
    begun: usize,
    running: Vec<usize>,
    /// When the next may begin, in milliseconds; at once, without.
    next_start: Option<u64>,
    last: Option<(SocketAddr, u32)>,
    over: bool,
}

impl Model {
    fn new(addresses: &[SocketAddr], delay: u64) -> Self {
        let mut families = [Vec::new(), Vec::new()];
        let mut met = BTreeSet::new();
        for address in addresses {
            if met.insert(address) {
                families[usize::from(address.is_ipv4())].push(*address);
            }
        }
        let longest = families[0].len().max(families[1].len());
        let turn = |at: usize| families.iter().filter_map(move |family| family.get(at)).copied();
        Self {
            order: (0..longest).flat_map(turn).collect(),
            delay: delay.clamp(10, 2000),
            begun: 0,
            running: Vec::new(),
            next_start: None,
            last: None,
            over: false,
        }
    }

    fn step(&mut self, now: u64, start: Instant) -> Step<u32> {
        let left = self.begun < self.order.len();
        match self.next_start {
            _ if self.over => Step::Done,
            Some(at) if left && now < at => Step::WaitUntil(start + Duration::from_millis(at)),
            _ if left => {
                let attempt = self.attempt(self.begun);
                self.running.push(self.begun);
                self.begun += 1;
                self.next_start = Some(now + self.delay);
                Step::Start(attempt)
            }
            _ if !self.running.is_empty() => Step::Wait,
            _ => {
                self.over = true;
                Step::Failed(self.last.take())
            }
        }
    }

    fn attempt(&self, nth: usize) -> Attempt {
        Attempt { number: nth as u32, address: self.order[nth] }
    }

    /// Whether an attempt was under way; it is not any more.
    fn end(&mut self, nth: usize) -> bool {
        let before = self.running.len();
        self.running.retain(|running| *running != nth);
        self.running.len() < before
    }

    /// Ends the race. What was under way, and the last failure.
    fn give_up(&mut self) -> (Vec<u32>, Option<(SocketAddr, u32)>) {
        self.over = true;
        let running = core::mem::take(&mut self.running);
        (running.into_iter().map(|nth| nth as u32).collect(), self.last.take())
    }
}

/// Races over `addresses` as the bytes say.
///
/// # Panics
/// When the race does not do what it has to.
pub(crate) fn run(addresses: &[SocketAddr], bytes: &mut Bytes<'_>) {
    let delay = u64::from(bytes.number());
    let start = clock::now();
    let mut race = Eyeballs::<u32>::new(addresses.iter().copied(), Duration::from_millis(delay));
    let mut model = Model::new(addresses, delay);
    let (mut now, mut failures) = (0, 0);
    let at = |millis| start + Duration::from_millis(millis);
    while !bytes.is_empty() {
        match bytes.below(8) {
            0..3 => now += u64::from(bytes.byte()) * 10,
            3 => {
                // Over and over, as the worker asks.
                loop {
                    let step = race.next(at(now));
                    assert_eq!(step, model.step(now, start));
                    if !matches!(step, Step::Start(_)) {
                        break;
                    }
                }
            }
            4 | 5 if model.begun > 0 => {
                let nth = usize::from(bytes.byte()) % model.begun;
                failures += 1;
                race.failed(model.attempt(nth), failures);
                if model.end(nth) {
                    model.next_start = None;
                    model.last = Some((model.order[nth], failures));
                }
            }
            6 if model.begun > 0 && bytes.below(4) == 0 => {
                let nth = usize::from(bytes.byte()) % model.begun;
                let losers = race.succeeded(model.attempt(nth));
                assert_eq!(losers.is_some(), model.end(nth), "a late winner");
                if let Some(losers) = losers {
                    assert_eq!(numbers(&losers), model.give_up().0);
                }
            }
            7 if bytes.below(8) == 0 => {
                let (losers, failure) = race.give_up();
                assert_eq!((numbers(&losers), failure), model.give_up());
            }
            _ => {}
        }
        assert_eq!(race.next(at(now)), model.step(now, start));
    }
    finish(race, model, now, start);
}

/// All that is left fails: each address is tried once, and the race says once that it has failed.
fn finish(mut race: Eyeballs<u32>, mut model: Model, mut now: u64, start: Instant) {
    loop {
        let step = race.next(start + Duration::from_millis(now));
        assert_eq!(step, model.step(now, start));
        match step {
            Step::Start(_) => {}
            Step::WaitUntil(at) => now = (at - start).as_millis() as u64,
            Step::Wait => {
                let nth = model.running[0];
                assert!(model.end(nth));
                race.failed(model.attempt(nth), 0);
                (model.next_start, model.last) = (None, Some((model.order[nth], 0)));
            }
            Step::Failed(_) => assert_eq!(model.begun, model.order.len(), "not all were tried"),
            Step::Done => return,
        }
    }
}

fn numbers(attempts: &[Attempt]) -> Vec<u32> {
    let mut numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
    numbers.sort_unstable();
    numbers
}
