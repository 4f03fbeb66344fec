//! Any answer about a name, against plain models of those who use it.
#![allow(unreachable_pub)] // re-exported to fuzz

mod shared;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use tokio::time::Instant;

use super::{
    names::{Names, Refresh},
    *,
};
use crate::{clock, corpus::Bytes, eyeballs};

/// The first byte says which part it is about.
///
/// # Panics
/// When that part does not keep its contract.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.below(5) {
        0 => names(&mut bytes),
        1 => retirement(&mut bytes),
        2 => shared::run(&mut bytes),
        3 => {
            let addresses = addresses(&mut bytes);
            let ports = addresses.into_iter().map(|address| (address, 443).into());
            eyeballs::fuzz::run(&ports.collect::<Vec<_>>(), &mut bytes);
        }
        #[cfg(feature = "hickory")]
        _ => hickory::fuzz::run(bytes.0),
        #[cfg(not(feature = "hickory"))]
        _ => {}
    }
}

/// None, a few of a small choice, some of them twice, or thousands.
fn addresses(bytes: &mut Bytes<'_>) -> Vec<IpAddr> {
    let count = bytes.below(64);
    if count == 63 {
        let count = u32::from(bytes.byte()) * 8;
        return (0..count).map(|last| Ipv4Addr::from_bits(0x0a00_0000 + last).into()).collect();
    }
    (0..count % 9).map(|_| address(bytes.byte())).collect()
}

fn address(which: u8) -> IpAddr {
    let v4 = Ipv4Addr::new(192, 0, 2, which & 7);
    match which >> 3 & 3 {
        0 | 1 => v4.into(),
        2 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(which & 7)).into(),
        _ => v4.to_ipv6_mapped().into(),
    }
}

fn ttl(bytes: &mut Bytes<'_>) -> Option<Duration> {
    Some(match bytes.below(8) {
        0 => return None,
        1 => Duration::ZERO,
        2 => Duration::from_secs(u32::MAX.into()),
        3 => Duration::MAX,
        4 => Duration::from_millis(bytes.number().into()),
        _ => Duration::from_secs(bytes.byte().into()),
    })
}

/// As the settings allow them: from no time at all to 24 days.
fn lifetimes(bytes: &mut Bytes<'_>) -> Lifetimes {
    let mut time = |shift: u32| Duration::from_millis(u64::from(bytes.byte()) << (shift % 24));
    let mut times = [time(3), time(8), time(23)];
    times.sort_unstable();
    let [min_ttl, default_ttl, max_ttl] = times;
    Lifetimes { min_ttl, max_ttl, default_ttl, ..Lifetimes::default() }
}

/// What is known of a name, said once more.
struct Known {
    addresses: Vec<IpAddr>,
    /// Milliseconds from the start; `None`: now.
    due: Option<Duration>,
    asking: bool,
    failures: u32,
}

fn names(bytes: &mut Bytes<'_>) {
    let start = clock::now();
    let mut now = Duration::ZERO;
    let mut rules = lifetimes(bytes);
    let mut names = Names::new(rules);
    let mut model = Known { addresses: Vec::new(), due: None, asking: false, failures: 0 };
    while !bytes.is_empty() {
        match bytes.below(8) {
            0 => now += Duration::from_millis(u64::from(bytes.number()) << (bytes.byte() % 16)),
            1 => now += Duration::from_millis(bytes.byte().into()),
            2 => {
                rules = lifetimes(bytes);
                names.set_lifetimes(rules);
            }
            3 | 4 if model.asking => {
                let answer = Answer::new(addresses(bytes), ttl(bytes));
                model.asking = false;
                let change = names.answered(answer.clone(), start + now);
                let old = model.addresses.clone();
                if answer.addresses.is_empty() {
                    assert_eq!(change, Change::default(), "an empty answer takes nothing away");
                    model.fail(now, &rules);
                } else {
                    model.answer(&answer, now, &rules);
                    check_change(&change, &old, &model.addresses);
                }
            }
            5 if model.asking => {
                model.asking = false;
                names.failed(start + now);
                model.fail(now, &rules);
            }
            _ => {
                let is_due = !model.asking && model.due.is_none_or(|due| due <= now);
                assert_eq!(names.is_due(start + now), is_due);
                let expected = match model.due {
                    _ if model.asking => Refresh::UnderWay,
                    Some(due) if !is_due => Refresh::WaitUntil(start + due),
                    _ => Refresh::Start,
                };
                assert_eq!(names.refresh(start + now), expected);
                model.asking |= is_due;
            }
        }
        assert_eq!(names.addresses(), model.addresses);
    }
}

impl Known {
    fn answer(&mut self, answer: &Answer, now: Duration, rules: &Lifetimes) {
        let ttl = answer.valid_for.unwrap_or(rules.default_ttl);
        self.due = Some(now + ttl.clamp(rules.min_ttl, rules.max_ttl));
        self.addresses = answer.addresses.clone();
        self.failures = 0;
    }

    /// The wait doubles from 1 s to 30 s, but only while an old answer serves.
    fn fail(&mut self, now: Duration, rules: &Lifetimes) {
        let mut wait = rules.min_retry;
        for _ in 0..if self.addresses.is_empty() { 0 } else { self.failures.min(40) } {
            wait = (wait * 2).min(rules.max_retry);
        }
        self.failures += 1;
        self.due = Some(now + wait.min(rules.max_retry));
    }
}

/// What vanished is nowhere in the new answer, and what stayed is in neither list.
fn check_change(change: &Change, old: &[IpAddr], new: &[IpAddr]) {
    let Change { appeared, vanished } = change;
    let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<HashSet<_>>();
    let (old, new) = (set(old), set(new));
    assert_eq!(set(vanished), &old - &new, "vanished");
    assert_eq!(set(appeared), &new - &old, "appeared");
}

/// Connections to vanished addresses, some of which arrive or end by themselves meanwhile.
fn retirement(bytes: &mut Bytes<'_>) {
    let start = clock::now();
    let over = u64::from(bytes.number()) << (bytes.byte() % 16);
    let count = usize::from(bytes.number());
    let (mut now, mut left) = (0, count);
    let retirement = Retirement::new(count, start, Duration::from_millis(over));
    while !bytes.is_empty() {
        match bytes.below(8) {
            0 => left += bytes.below(256),
            1 => left -= bytes.below(256).min(left),
            2 => now += u64::from(bytes.number()) << (bytes.byte() % 16),
            3 => {
                // A clock that was read before.
                let early = start.checked_sub(Duration::from_millis(1)).unwrap_or(start);
                assert!(retirement.due(left, early) <= left);
            }
            _ => now += 250,
        }
        let closed = retirement.due(left, at(start, now));
        assert!(closed <= left, "{closed} of {left}");
        assert!(closed > 0 || left == 0, "none of {left}");
        assert!(now < over || closed == left, "left over at the end");
        let to_come = u128::from(over.saturating_sub(now));
        let may_stay = (count as u128 * to_come).checked_div(over.into()).unwrap_or(0) as usize;
        // At an even pace, and one at least.
        assert_eq!(left - closed, may_stay.min(left.saturating_sub(1)), "{left} left at {now}");
        left -= closed;
    }
    assert_eq!(retirement.due(left, at(start, over)), left, "left over at the end");
}

fn at(start: Instant, millis: u64) -> Instant {
    start + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_fuzz_corpus_keeps_the_contract() {
        crate::corpus::replay("dns", super::run);
    }
}
