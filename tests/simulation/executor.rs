//! Polls everything there is, one future at a time, in the order that the seed says.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use corepool::sim::Place;

use crate::random::Random;

/// Where a task is, which it may change.
pub type Where = Rc<Cell<Place>>;

/// A future of the simulation.
struct Task {
    name: String,
    future: Pin<Box<dyn Future<Output = ()>>>,
    place: Where,
    waker: Waker,
    frozen: bool,
}

/// Which tasks may get on, and who drives them all.
#[derive(Default)]
struct Ready {
    tasks: Mutex<(BTreeSet<usize>, Option<Waker>)>,
    /// A wake-up to lose, for a test that must notice: of this task, the so many-th from now.
    lose: Mutex<Option<(usize, u32)>>,
}

struct TaskWaker {
    id: usize,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some((id, left)) = &mut *self.ready.lose.lock().unwrap()
            && *id == self.id
        {
            match *left {
                0 => {}
                1 => {
                    *left = 0;
                    return;
                }
                _ => *left -= 1,
            }
        }
        let mut tasks = self.ready.tasks.lock().unwrap();
        tasks.0.insert(self.id);
        if let Some(root) = tasks.1.take() {
            root.wake();
        }
    }
}

/// What a step came to.
pub enum Step {
    /// This task was polled; it is over, or not.
    Polled(usize, bool),
    /// Nothing is ready but what is frozen; so many are.
    Idle { frozen: usize },
}

/// New tasks, on their way to the executor.
type Spawned = (String, Where, Pin<Box<dyn Future<Output = ()>>>);

/// Where tasks come from.
#[derive(Clone, Default)]
pub struct Spawner(Rc<RefCell<Vec<Spawned>>>);

impl Spawner {
    pub fn spawn(
        &self,
        name: impl Into<String>,
        place: Where,
        future: impl Future<Output = ()> + 'static,
    ) {
        self.0.borrow_mut().push((name.into(), place, Box::pin(future)));
    }
}

/// What is frozen or thawed from inside a task, by the number of the shard.
pub type Frost = Rc<RefCell<BTreeSet<usize>>>;

pub struct Executor {
    tasks: Vec<Option<Task>>,
    ready: Arc<Ready>,
    pub spawner: Spawner,
    /// Shards, which are the first tasks, that are not polled for now.
    pub frost: Frost,
}

impl Executor {
    pub fn new() -> Self {
        Self {
            tasks: Vec::new(),
            ready: Arc::default(),
            spawner: Spawner::default(),
            frost: Frost::default(),
        }
    }

    pub fn lose_wake_up(&self, task: usize, which: u32) {
        *self.ready.lose.lock().unwrap() = Some((task, which));
    }

    pub fn take_in(&mut self) {
        for (name, place, future) in self.spawner.0.take() {
            let id = self.tasks.len();
            let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }));
            self.tasks.push(Some(Task { name, future, place, waker, frozen: false }));
            self.ready.tasks.lock().unwrap().0.insert(id);
        }
    }

    pub fn name(&self, task: usize) -> &str {
        self.tasks[task].as_ref().map_or("over", |task| &task.name)
    }

    /// What is not over yet.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().flatten().map(|task| &*task.name)
    }

    /// Polls one of those that are ready or, now and then, one that is not: a future must bear
    /// that.
    pub fn step(
        &mut self,
        root: &Waker,
        random: &mut Random,
        enter: impl FnOnce(&str, Place),
    ) -> Step {
        let frost = self.frost.borrow();
        for (id, task) in self.tasks.iter_mut().enumerate() {
            if let Some(task) = task {
                task.frozen = frost.contains(&id);
            }
        }
        drop(frost);
        let is_able = |id: &usize| self.tasks[*id].as_ref().is_some_and(|task| !task.frozen);
        let mut tasks = self.ready.tasks.lock().unwrap();
        tasks.0.retain(|id| self.tasks[*id].is_some());
        let able: Vec<usize> = tasks.0.iter().copied().filter(|id| is_able(id)).collect();
        if able.is_empty() {
            tasks.1 = Some(root.clone());
            return Step::Idle { frozen: tasks.0.len() };
        }
        let mut chosen = able[random.below(able.len() as u64) as usize];
        if random.chance(20) {
            let any = random.below(self.tasks.len() as u64) as usize;
            chosen = if is_able(&any) { any } else { chosen };
        }
        tasks.0.remove(&chosen);
        drop(tasks);
        let task = self.tasks[chosen].as_mut().expect("an able task is there");
        enter(&task.name, task.place.get());
        let waker = task.waker.clone();
        let over = task.future.as_mut().poll(&mut Context::from_waker(&waker)) != Poll::Pending;
        if over {
            // Dropped where it ran.
            self.tasks[chosen] = None;
        }
        Step::Polled(chosen, over)
    }
}

/// Polls a future so many times at most, and then drops it: a caller that is cancelled somewhere.
pub async fn poll_at_most<F: Future>(times: u32, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = times;
    std::future::poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
