//! A word that one side changes, and where the other stands to hear of it.
#![allow(unreachable_pub)] // re-exported to the models

use crate::sync::{AtomicU64, Ordering, fence, guess};

/// A word, and a place at which its changes are told.
#[derive(Debug)]
pub struct Notice {
    word: AtomicU64,
    place: AtomicU64,
}

const NOWHERE: u64 = u64::MAX;

impl Notice {
    /// Nobody stands anywhere.
    pub fn new(word: u64) -> Self {
        Self { word: AtomicU64::new(word), place: AtomicU64::new(NOWHERE) }
    }

    /// The word at this moment.
    pub fn read(&self) -> u64 {
        // Relaxed: it says all that it has to say, and publishes nothing else.
        self.word.load(Ordering::Relaxed)
    }

    /// Changes the word, if `to` has another one for it. Returns the new one, and where it is to be
    /// told, if somebody stands there.
    pub fn change(&self, to: impl Fn(u64) -> Option<u64>) -> Option<(u64, Option<u64>)> {
        let mut word = guess(&self.word);
        let new = loop {
            let new = to(word)?;
            // Relaxed: see `read`.
            match self.word.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break new,
                Err(found) => word = found,
            }
        };
        // SeqCst: pairs with the fence in `stand_at`. Either we see the place, with all that was done
        // before somebody stood there, or who stands there sees the change.
        fence(Ordering::SeqCst);
        let place = self.place.load(Ordering::Relaxed);
        Some((new, (place != NOWHERE).then_some(place)))
    }

    /// From here on changes are told at `place`, which is any number but the highest; returns what
    /// was changed before.
    pub fn stand_at(&self, place: u64) -> u64 {
        self.place.store(place, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `change`.
        fence(Ordering::SeqCst);
        self.read()
    }
}
