//! The ring of few words in a lane, alone.
#![cfg(loom)]

use corepool::model::SmallRing;
use loom::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use loom_tests::{bounded, model, sorted, spawn};

fn ring<const N: usize>(words: &[u64]) -> Arc<SmallRing<N>> {
    let ring = SmallRing::default();
    words.iter().for_each(|word| ring.push(*word).unwrap());
    Arc::new(ring)
}

fn drained<const N: usize>(ring: &SmallRing<N>) -> Vec<u64> {
    core::iter::from_fn(|| ring.pop()).collect()
}

/// INV-1: a pop that finds a word sees all that the thread did that pushed it.
#[test]
fn push_vs_pop() {
    model(|| {
        let shared = Arc::new((SmallRing::<2>::default(), AtomicU32::new(0)));
        let pusher = spawn({
            let shared = shared.clone();
            move || {
                shared.1.store(7, Ordering::Relaxed);
                shared.0.push(2).unwrap();
            }
        });
        let got = shared.0.pop();
        if let Some(word) = got {
            assert_eq!((word, shared.1.load(Ordering::Relaxed)), (2, 7));
        }
        pusher.join().unwrap();
        assert_eq!(sorted(got.into_iter().chain(drained(&shared.0))), [2]);
    });
}

/// INV-2: two pushes where one place is left: exactly one has it, and it is behind the older word.
#[test]
fn push_vs_push_for_the_last_place() {
    model(|| {
        let ring = ring::<2>(&[1]);
        let other = spawn({
            let ring = ring.clone();
            move || ring.push(2)
        });
        let ours = ring.push(3);
        let theirs = other.join().unwrap();
        assert!(ours.is_ok() ^ theirs.is_ok(), "ours={ours:?} theirs={theirs:?}");
        assert_eq!(drained(&ring), [1, if ours.is_ok() { 3 } else { 2 }]);
    });
}

/// INV-3: two pops and two words: each has one, the older one first.
#[test]
fn pop_vs_pop() {
    model(|| {
        let ring = ring::<2>(&[1, 2]);
        let other = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let ours = ring.pop();
        let theirs = other.join().unwrap();
        assert_eq!(sorted([ours, theirs].into_iter().flatten()), [1, 2]);
        assert_eq!(ring.pop(), None);
    });
}

/// INV-3: a push comes to the place that a pop has claimed and has not cleared: it is refused, or
/// the pop has its word already.
#[test]
fn pop_vs_push_to_the_same_place() {
    model(|| {
        let ring = ring::<1>(&[1]);
        let popper = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let pushed = ring.push(2).is_ok();
        assert_eq!(popper.join().unwrap(), Some(1));
        assert_eq!(drained(&ring), if pushed { vec![2] } else { vec![] });
    });
}

/// INV-3: a pop comes to the place that a push of the next lap has claimed and has not filled: it
/// finds nothing, and not the word of the lap before.
#[test]
fn pop_and_push_vs_pops() {
    model(|| {
        let ring = ring::<1>(&[1]);
        let other = spawn({
            let ring = ring.clone();
            move || {
                let got = ring.pop();
                (got, ring.push(2))
            }
        });
        let ours = [ring.pop(), ring.pop()];
        let (theirs, pushed) = other.join().unwrap();
        let all = ours.into_iter().chain([theirs]).flatten().chain(drained(&ring));
        assert_eq!(sorted(all), if pushed.is_ok() { vec![1, 2] } else { vec![1] });
    });
}

/// INV-3: a push, its pop and the push of the next lap by a third thread: no word is put where one
/// is that nobody has taken.
#[test]
fn push_vs_pop_vs_push() {
    model(|| {
        let ring = ring::<1>(&[]);
        let one = spawn({
            let ring = ring.clone();
            move || ring.push(1)
        });
        let popper = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let pushed = [(2, ring.push(2)), (1, one.join().unwrap())];
        let got = popper.join().unwrap();
        let expected = pushed.iter().filter(|(_, done)| done.is_ok()).map(|(word, _)| *word);
        assert_eq!(sorted(got.into_iter().chain(drained(&ring))), sorted(expected));
    });
}

/// INV-3: the same with the push on a thread of its own: the second pop sees what the push saw of
/// the first.
#[test]
fn pop_vs_push_vs_pop() {
    model(|| {
        let ring = ring::<1>(&[1]);
        let popper = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let pusher = spawn({
            let ring = ring.clone();
            move || ring.push(2)
        });
        let ours = ring.pop();
        let (theirs, pushed) = (popper.join().unwrap(), pusher.join().unwrap());
        let all = ours.into_iter().chain(theirs).chain(drained(&ring));
        assert_eq!(sorted(all), if pushed.is_ok() { vec![1, 2] } else { vec![1] });
    });
}

/// INV-3: a pop looks again after the ring has gone on by a lap: it sees the marks of that lap.
#[test]
fn pop_vs_a_whole_lap() {
    bounded(2, || {
        let ring = ring::<2>(&[1, 2]);
        let other = spawn({
            let ring = ring.clone();
            move || {
                let got = [ring.pop(), ring.pop()];
                (got, [3, 4].map(|word| (word, ring.push(word).is_ok())))
            }
        });
        let third = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let ours = ring.pop();
        let ((theirs, pushed), third) = (other.join().unwrap(), third.join().unwrap());
        let all = [ours, third].into_iter().chain(theirs).flatten().chain(drained(&ring));
        let put = pushed.iter().filter(|(_, done)| *done).map(|(word, _)| *word);
        assert_eq!(sorted(all), sorted([1, 2].into_iter().chain(put)));
    });
}

/// INV-3: the pop that takes the last word goes on to the next lap beside a push: the word is there
/// afterwards, wherever it was put.
#[test]
fn pop_of_the_last_vs_push() {
    model(|| {
        let ring = ring::<2>(&[1]);
        let popper = spawn({
            let ring = ring.clone();
            move || ring.pop()
        });
        let pushed = ring.push(2).is_ok();
        assert_eq!(popper.join().unwrap(), Some(1));
        assert_eq!(drained(&ring), if pushed { vec![2] } else { vec![] });
        // And as an empty ring goes on, both places are free.
        assert_eq!((ring.push(3), ring.push(4)), (Ok(()), Ok(())));
        assert_eq!(drained(&ring), [3, 4]);
    });
}
