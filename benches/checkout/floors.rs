//! Floors: the containers that a pool could be made of, without a pool. Neither limits nor expiry
//! nor health nor keys; of 1000 keys each has a container of its own, found by its index.

use std::{cell::RefCell, hint::black_box, sync::Mutex};

use crossbeam_queue::ArrayQueue;

use crate::{
    case::{Candidate, Case, Pairs, Shape},
    crew::Crew,
};

/// The floors.
pub const CANDIDATES: [Candidate; 3] = [
    Candidate { name: "array-queue", prepare: array_queue },
    Candidate { name: "mutex-vec", prepare: mutex_vec },
    Candidate { name: "thread-local-vec", prepare: thread_local_vec },
];

/// What a candidate pools that needs no socket.
pub type Dummy = [u64; 4];

struct Queues(Vec<ArrayQueue<Dummy>>);

impl Pairs for Queues {
    #[inline]
    async fn pair(&self, key: usize) {
        let conn = self.0[key].pop().expect("one for each thread");
        self.0[key].push(black_box(conn)).expect("room");
    }
}

fn array_queue(shape: Shape) -> Case {
    let queue = |_| {
        let queue = ArrayQueue::new(shape.threads.next_power_of_two().max(16));
        for _ in 0..shape.threads {
            queue.push(Dummy::default()).expect("room");
        }
        queue
    };
    let queues = (0..shape.keys).map(queue).collect();
    Case::new(Crew::of(shape.threads), shape, Queues(queues))
}

struct Locked(Vec<Mutex<Vec<Dummy>>>);

impl Pairs for Locked {
    #[inline]
    async fn pair(&self, key: usize) {
        let conn = self.0[key].lock().expect("unpoisoned").pop().expect("one for each thread");
        self.0[key].lock().expect("unpoisoned").push(black_box(conn));
    }
}

fn mutex_vec(shape: Shape) -> Case {
    let full = |_| Mutex::new(vec![Dummy::default(); shape.threads]);
    let locked = (0..shape.keys).map(full).collect();
    Case::new(Crew::of(shape.threads), shape, Locked(locked))
}

thread_local! {
    /// One vector a key.
    static OWN: RefCell<Vec<Vec<Dummy>>> = const { RefCell::new(Vec::new()) };
}

struct Local(Shape);

impl Pairs for Local {
    fn enter(&self) {
        OWN.set(vec![vec![Dummy::default()]; self.0.keys]);
    }

    #[inline]
    async fn pair(&self, key: usize) {
        let conn = OWN.with_borrow_mut(|own| own[key].pop()).expect("one a thread");
        OWN.with_borrow_mut(|own| own[key].push(black_box(conn)));
    }
}

fn thread_local_vec(shape: Shape) -> Case {
    Case::new(Crew::of(shape.threads), shape, Local(shape))
}
