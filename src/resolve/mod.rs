//! From names to addresses: who is asked, and how long an answer holds.

#[cfg(any(test, all(fuzzing, feature = "sim")))]
pub(crate) mod fuzz;
#[cfg(feature = "hickory")]
mod hickory;
mod names;
mod retirement;
mod shared;
mod system;

use core::{fmt, pin::Pin, time::Duration};
use std::{io, net::IpAddr};

#[cfg(feature = "hickory")]
pub use self::hickory::HickoryResolver;
pub use self::system::SystemResolver;
pub(crate) use self::{
    names::{Change, Lifetimes},
    retirement::Retirement,
    shared::{Lookup, SharedNames},
};
use crate::BoxError;

/// Finds the addresses of a host.
///
/// ```
/// use std::{io, net::Ipv4Addr, time::Duration};
///
/// use corepool::{Answer, Resolver, Resolving};
///
/// /// Everything is here, and stays here for a minute.
/// #[derive(Debug)]
/// struct Here;
///
/// impl Resolver for Here {
///     fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
///         Box::pin(async {
///             let minute = Duration::from_secs(60);
///             Ok(Answer::new([Ipv4Addr::LOCALHOST.into()], Some(minute)))
///         })
///     }
/// }
/// ```
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// Looks a name up. Runs on a shard's thread, inside its tokio runtime; must not block it.
    ///
    /// # Errors
    /// When the name has no address or nobody could be asked. The error should name the host.
    ///
    /// # Cancel safety
    /// The future is dropped at the total timeout of the dial.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// A look-up under way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Answer>> + Send + 'a>>;

/// What a resolver found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The addresses, in the order in which the resolver would try them.
    pub addresses: Vec<IpAddr>,
    /// For how long they are valid, from now on: the record's TTL. `None`: not known.
    pub valid_for: Option<Duration>,
}

impl Answer {
    /// An answer.
    pub fn new(addresses: impl Into<Vec<IpAddr>>, valid_for: Option<Duration>) -> Self {
        Self { addresses: addresses.into(), valid_for }
    }
}

/// A resolver's own error, with the name that it was about.
#[derive(Debug, thiserror::Error)]
#[error("host {name}: {source}")]
struct Unresolved {
    name: String,
    source: BoxError,
}

fn unresolved(name: &str, kind: io::ErrorKind, source: impl Into<BoxError>) -> io::Error {
    io::Error::new(kind, Unresolved { name: name.to_owned(), source: source.into() })
}
