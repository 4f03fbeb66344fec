//! Many at once, and one after the other in the same slot.

use super::*;

/// As many connections as that to a listener, and their other ends in the same order.
async fn connections(
    rig: &mut Rig,
    listener: &TcpListener,
    many: usize,
) -> Vec<(Socket, TcpStream)> {
    let to = listener.local_addr().unwrap();
    (0..many as u32).for_each(|id| rig.dial(id, to));
    let mut sockets = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..many {
        sockets.push(rig.dialed().await.1.unwrap());
        peers.push(listener.accept().unwrap().0);
    }
    let near = |peer: &TcpStream| peer.peer_addr().unwrap();
    let mut pairs = Vec::new();
    for socket in sockets {
        let socket = socket.into_std().unwrap();
        let own = socket.local_addr().unwrap();
        let peer = peers.iter().position(|peer| near(peer) == own).unwrap();
        pairs.push((socket.into(), peers.swap_remove(peer)));
    }
    pairs
}

fn ends_as(peer: &mut TcpStream, how: Ending) {
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match (how, peer.read(&mut [0; 1])) {
        (Ending::Fin, Ok(0)) => {}
        (Ending::Reset, Err(error)) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        (how, other) => panic!("{how:?}: {other:?}"),
    }
}

/// Dials, watches and closes that many at once: every other by an RST.
async fn batch(mut rig: Rig, many: usize) {
    let origin = listener();
    let mut peers = Vec::new();
    let mut sockets = Vec::new();
    for (slot, (socket, peer)) in connections(&mut rig, &origin, many).await.into_iter().enumerate()
    {
        rig.driver.watch(SlotIndex::new(slot as u32), &socket);
        sockets.push(socket);
        peers.push(peer);
    }
    let how = |slot: usize| if slot.is_multiple_of(2) { Ending::Fin } else { Ending::Reset };
    for (slot, socket) in sockets.into_iter().enumerate() {
        rig.driver.close(SlotIndex::new(slot as u32), Some(socket), how(slot));
    }
    let mut open = vec![true; many];
    for _ in 0..many {
        let event = rig.next().await;
        let Event::Closed(slot) = event else { panic!("{event:?}") };
        assert!(std::mem::take(&mut open[slot.get()]), "closed twice: {slot:?}");
    }
    for (slot, peer) in peers.iter_mut().enumerate() {
        ends_as(peer, how(slot));
    }
    rig.quiet().await;
}

#[test]
fn a_batch_of_64_is_dialled_watched_and_closed() {
    on_both(async |rig| batch(rig, 64).await);
}

/// A close under a watch is up to three entries, and the submission queue has 256.
#[test]
fn a_batch_larger_than_the_ring_is_too() {
    on_both(async |rig| batch(rig, 120).await);
}

/// The watch of a slot's last life says nothing in the next.
#[test]
fn a_slot_is_used_again_and_again() {
    on_both(async |mut rig| {
        let origin = listener();
        let slot = SlotIndex::new(5);
        let mut last = None;
        for life in 0..8 {
            let (socket, peer) = rig.connection(&origin).await;
            rig.driver.watch(slot, &socket);
            // The end of the last life's peer, which only its own watch would have told of.
            drop(last.replace(peer));
            rig.quiet().await;
            let how = if life % 2 == 0 { Ending::Fin } else { Ending::Reset };
            if life % 3 == 0 {
                // Its peer ends first, and is told of once.
                drop(last.take());
                let event = rig.next().await;
                let Event::HungUp(told, Departure::Finished) = event else { panic!("{event:?}") };
                assert_eq!(told, slot);
            }
            rig.driver.close(slot, Some(socket), how);
            assert!(matches!(rig.next().await, Event::Closed(closed) if closed == slot));
            if let Some(peer) = &mut last {
                ends_as(peer, how);
            }
        }
        rig.quiet().await;
    });
}

/// The FIN of a close that follows the peer's at once, while its completion may still be on the way.
#[test]
fn a_close_races_with_the_departure_it_was_about_to_hear_of() {
    on_both(async |mut rig| {
        let origin = listener();
        let slot = SlotIndex::new(2);
        for _ in 0..32 {
            let (socket, peer) = rig.connection(&origin).await;
            rig.driver.watch(slot, &socket);
            // Arms the watch.
            rig.quiet().await;
            drop(peer);
            rig.driver.close(slot, Some(socket), Ending::Fin);
            loop {
                match rig.next().await {
                    Event::HungUp(told, _) => assert_eq!(told, slot),
                    Event::Closed(closed) => break assert_eq!(closed, slot),
                    other @ Event::Dialed(..) => panic!("{other:?}"),
                }
            }
        }
        rig.quiet().await;
    });
}

/// The slot is dialled again after each way for that to end.
#[test]
fn a_watch_that_follows_the_connect_tells_of_a_departure_and_of_nothing_else() {
    on_both(async |mut rig| {
        let origin = listener();
        let nobody = listener().local_addr().unwrap();
        let slot = SlotIndex::new(3);
        let target = |to| Target { to: Destination::Ip(to), options: Arc::default() };
        for round in 0..3 {
            rig.driver.dial_and_watch(DialId(round), &target(nobody), slot);
            let (_, refused) = rig.dialed().await;
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let to = target(origin.local_addr().unwrap());
            let is_watched = rig.driver.dial_and_watch(DialId(round), &to, slot);
            let socket = rig.dialed().await.1.unwrap();
            if !is_watched {
                rig.driver.watch(slot, &socket);
            }
            rig.quiet().await;
            drop(origin.accept().unwrap());
            let event = rig.next().await;
            assert!(matches!(event, Event::HungUp(at, _) if at == slot), "{event:?}");
            rig.driver.close(slot, Some(socket), Ending::Fin);
            assert!(matches!(rig.next().await, Event::Closed(at) if at == slot));
        }
    });
}
