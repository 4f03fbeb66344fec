//! A word that is changed as somebody begins to listen: no change is lost (INV-5).
#![cfg(loom)]

use corepool::model::Notice;
use loom::sync::Arc;
use loom_tests::{model, spawn};

const PLACE: u64 = 7;

/// INV-5: a change and one that takes its place: it is told, or finds it.
#[test]
fn change_vs_stand_at() {
    model(|| {
        let notice = Arc::new(Notice::new(0));
        let peer = spawn({
            let notice = Arc::clone(&notice);
            move || notice.change(|word| Some(word + 1)).unwrap()
        });
        let found = notice.stand_at(PLACE);
        let (word, told) = peer.join().unwrap();
        assert_eq!(word, 1);
        assert!(told == Some(PLACE) || found == 1, "INV-5: the change is lost");
    });
}

/// INV-5: two changes and one that takes its place: the last of them is told, or found.
#[test]
fn change_vs_change_vs_stand_at() {
    model(|| {
        let notice = Arc::new(Notice::new(0));
        let peers = [1, 2].map(|bit| {
            let notice = Arc::clone(&notice);
            spawn(move || notice.change(|word| Some(word | bit)).unwrap())
        });
        let found = notice.stand_at(PLACE);
        let told = peers.map(|peer| peer.join().unwrap());
        let heard = told.iter().filter(|(_, told)| told.is_some()).map(|(word, _)| *word);
        assert_eq!(heard.chain([found]).max(), Some(3), "INV-5: the last change is lost");
    });
}
