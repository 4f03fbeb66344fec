//! How often a request is tried.

use core::time::Duration;

use tokio::time::sleep;

use super::RequestError;

/// Counts the attempts of one request, for whoever checks out and sends by itself
/// ([`HttpOrigin::checkout`](crate::HttpOrigin::checkout)). It does not know whether the request may
/// be sent again at all: ask the error that first.
///
/// An attempt that met nothing but the end of a shared connection
/// ([`RequestError::is_orderly_end`]) does not count, up to [`Self::ENDINGS`] times: it ends under
/// all that share it, and so may the next one. Where 64 callers share connections that end after a
/// hundred requests (nginx's `keepalive_requests`), four of ten meet it each time.
#[derive(Clone, Debug)]
pub struct Attempts {
    most: u32,
    counted: u32,
    endings: u32,
}

impl Attempts {
    /// How many ends of shared connections a request may meet besides its attempts.
    pub const ENDINGS: u32 = 32;

    /// Of a request that is tried so often; of 0, once.
    pub const fn at_most(attempts: u32) -> Self {
        Self { most: attempts, counted: 1, endings: 0 }
    }

    /// How many were begun, those that did not count included: at first 1.
    pub fn made(&self) -> u32 {
        self.counted + self.endings
    }

    /// Whether the one under way is the last, but for such as do not count.
    pub fn is_last(&self) -> bool {
        self.counted >= self.most
    }

    /// Whether there is another after the one that failed by this; it is under way from then on.
    ///
    /// Usually ready at once. From the fourth end of a connection on it waits first, a random time of
    /// up to 1 ms, which doubles each time and stays at 64: those who meet the same ends in the same
    /// order would else come in the same order to the next connection, the last ones for nothing.
    ///
    /// # Cancel safety
    /// The failure is counted by the call. Dropping the future ends the pause.
    ///
    /// # Panics
    /// When it has to wait outside a tokio runtime with time enabled.
    pub fn another<B>(&mut self, error: &RequestError<B>) -> impl Future<Output = bool> + use<B> {
        let is_end = error.is_orderly_end();
        let (counter, most) = match is_end {
            true => (&mut self.endings, Self::ENDINGS),
            false => (&mut self.counted, self.most),
        };
        let is_left = *counter < most;
        *counter += u32::from(is_left);
        let pause = if is_end && is_left { most_pause(self.endings) } else { None };
        async move {
            if let Some(most) = pause {
                sleep(most.mul_f64(fastrand::f64())).await;
            }
            is_left
        }
    }
}

fn most_pause(endings: u32) -> Option<Duration> {
    let doublings = endings.checked_sub(AT_ONCE + 1)?.min(6);
    Some(Duration::from_millis(1 << doublings))
}

/// So many ends are met without a pause.
const AT_ONCE: u32 = 3;

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use super::*;
    use crate::{CheckoutError, Endpoint, http::error::Cause};

    #[test]
    fn pauses_begin_late_double_and_stay_bounded() {
        let pauses: Vec<_> =
            (1..=12).map(|at| most_pause(at).map(|most| most.as_millis())).collect();
        let expected =
            [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 64, 64].map(|most| (most > 0).then_some(most));
        assert_eq!(pauses, expected);
    }

    #[tokio::test]
    async fn attempts_are_as_many_as_were_asked_for() {
        let endpoint: Endpoint = "origin:80".parse().unwrap();
        let error = CheckoutError::Closed { endpoint };
        let error = RequestError::<()>::new(Cause::Checkout(error, None), 1);
        for most in [0, 1, 3] {
            let mut attempts = Attempts::at_most(most);
            while pin!(attempts.another(&error)).await {}
            assert!(attempts.is_last());
            assert_eq!(attempts.made(), most.max(1));
        }
    }
}
