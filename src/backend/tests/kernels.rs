//! io_uring as older kernels have it: what they lack is taken away, and must not be asked for.

use std::{env, fs, process::Command};

use io_uring::opcode;

use super::{
    super::uring::{Offer, Ring, Rung, Tally, Uring},
    *,
};

/// A kernel, by what it has less than the newest.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// The highest rung of the ladder of set-up flags that it takes.
    top: Rung,
    lose: fn(&mut Offer),
}

/// Each rung of the ladder, and each thing that is used where it is found on its own.
pub(super) const KERNELS: [Kernel; 7] = [
    Kernel { name: "this one", top: Rung::SingleIssuer, lose: |_| {} },
    Kernel { name: "6.0 to 6.6", top: Rung::SingleIssuer, lose: |offer| offer.setsockopt = false },
    Kernel { name: "5.19", top: Rung::CoopTaskrun, lose: |offer| offer.setsockopt = false },
    Kernel { name: "5.17, 5.18", top: Rung::Plain, lose: lose_operations },
    Kernel {
        name: "5.7 to 5.16",
        top: Rung::Plain,
        lose: |offer| {
            lose_operations(offer);
            offer.skip_success = false;
        },
    },
    Kernel {
        name: "one without SOCKET",
        top: Rung::SingleIssuer,
        lose: |offer| offer.lose(opcode::Socket::CODE),
    },
    Kernel {
        name: "one without CQE_SKIP_SUCCESS",
        top: Rung::SingleIssuer,
        lose: |offer| offer.skip_success = false,
    },
];

fn lose_operations(offer: &mut Offer) {
    offer.lose(opcode::Socket::CODE);
    offer.lose(opcode::SetSockOpt::CODE);
}

/// Runs a body on a ring as a kernel would have it, which must not be asked for what it lacks.
pub(super) fn on_kernel(kernel: &Kernel, body: &impl AsyncFn(Rig)) -> Tally {
    let mut asked = None;
    let open = |conflicts: &_| -> Box<dyn Driver> {
        let ring = Ring::on_older(kernel.top, kernel.lose).unwrap();
        asked = Some((ring.features(), ring.tally()));
        Box::new(Uring::new(ring, SLOTS, Arc::clone(conflicts)))
    };
    on_driver(kernel.name, open, body);
    let (features, tally) = asked.unwrap();
    for (has, operation) in
        [(features.socket, opcode::Socket::CODE), (features.setsockopt, opcode::SetSockOpt::CODE)]
    {
        assert!(has || tally.of(operation) == 0, "{}: {features}: {tally:?}", kernel.name);
    }
    assert!(features.rung >= kernel.top, "{}: {features}", kernel.name);
    tally
}

const COUNTING: &str = "COREPOOL_TEST_COUNTS_DESCRIPTORS";

/// The descriptors of this process, where no other test runs beside: in the child of
/// [`no_run_keeps_a_descriptor`]. Always as many elsewhere.
pub(super) fn open_descriptors() -> usize {
    match env::var_os(COUNTING) {
        Some(_) => fs::read_dir("/proc/self/fd").unwrap().count(),
        None => 0,
    }
}

/// Every test of the drivers once more, in a process where nothing else opens or closes.
#[test]
fn no_run_keeps_a_descriptor() {
    if env::var_os(COUNTING).is_some() {
        return;
    }
    let all = module_path!().strip_prefix("corepool::").unwrap();
    let all = all.strip_suffix("::kernels").unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args([all, "--test-threads=1"])
        .env(COUNTING, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("a_fin_is_told_from_a_reset ... ok"), "it ran nothing: {text}");
}

/// One connection from its dial to its end, by an RST under a watch, and nothing under way after;
/// beside it a dial that is refused, because only the second of two is worth a SOCKET.
async fn one_life(mut rig: Rig) {
    let origin = listener();
    let nobody = listener().local_addr().unwrap();
    rig.dial(2, nobody);
    let (to, options) = (origin.local_addr().unwrap(), Arc::default());
    let slot = SlotIndex::new(0);
    let target = Target { to: Destination::Ip(to), options };
    let is_watched = rig.driver.dial_and_watch(DialId(1), &target, slot);
    let mut outcomes = [rig.dialed().await, rig.dialed().await];
    outcomes.sort_by_key(|(id, _)| *id);
    let [(1, Ok(socket)), (2, Err(_))] = outcomes else { panic!("{outcomes:?}") };
    let mut peer = origin.accept().unwrap().0;
    if !is_watched {
        rig.driver.watch(slot, &socket);
    }
    rig.driver.close(slot, Some(socket), Ending::Reset);
    assert!(matches!(rig.next().await, Event::Closed(_)));
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    rig.quiet().await;
}

#[test]
fn each_thing_is_used_where_it_is_found_and_only_there() {
    if env::var_os("COREPOOL_TEST_NO_URING").is_some() {
        return;
    }
    for kernel in &KERNELS {
        let mut features = None;
        // The same questions, for the answers.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            features = Some(Ring::on_older(kernel.top, kernel.lose).unwrap().features());
        });
        let features = features.unwrap();
        let tally = on_kernel(kernel, &one_life);
        let count = |operation| tally.of(operation);
        let name = kernel.name;
        assert_eq!(count(opcode::Socket::CODE), usize::from(features.socket), "{name}");
        // NODELAY for both at the beginning and LINGER for one at the end.
        assert_eq!(count(opcode::SetSockOpt::CODE), 3 * usize::from(features.setsockopt), "{name}");
        for (operation, times) in [
            (opcode::Connect::CODE, 2),
            (opcode::PollAdd::CODE, 1),
            (opcode::AsyncCancel::CODE, 1),
            (opcode::Close::CODE, 2),
        ] {
            assert_eq!(count(operation), times, "{name}: operation {operation}");
        }
        // Without CQE_SKIP_SUCCESS every entry has its completion; with it, the cancel, the options
        // and the close of what was refused have none.
        let silent = if features.skip_success { 2 + count(opcode::SetSockOpt::CODE) } else { 0 };
        assert_eq!(tally.silent(), silent, "{name}");
    }
}

#[test]
fn a_ring_of_less_than_the_least_is_refused() {
    if env::var_os("COREPOOL_TEST_NO_URING").is_some() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // A connect that waits is of 5.7; before, every dial would end with EINPROGRESS.
        let old: fn(&mut Offer) = |offer| offer.fast_poll = false;
        for (lose, why) in [
            (old, "5.7"),
            (|offer| offer.lose(opcode::Close::CODE), "CLOSE"),
            (|offer| offer.lose(opcode::AsyncCancel::CODE), "ASYNC_CANCEL"),
        ] {
            let error = Ring::on_older(Rung::Plain, lose).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains(why), "{error}");
        }
    });
}
