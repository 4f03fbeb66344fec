//! The address part of an endpoint, and its text form.

use core::{fmt, str::FromStr};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Ip(SocketAddr),
    Host(Arc<str>, u16),
    Unix(Arc<Path>),
}

/// Text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an endpoint: expected host:port, 1.2.3.4:port or [::1]:port with port 1 to \
     65535, or unix:/path with a path of at most 107 bytes"
)]
pub struct ParseEndpointError(String);

/// What stands before the path of a unix socket.
const UNIX: &str = "unix:";
/// The longest host name in text form, RFC 1035 §2.3.4.
const MAX_NAME: usize = 253;
/// The longest path of a unix socket: `sun_path` of 108 bytes, less the zero at its end, unix(7).
pub(super) const MAX_PATH: usize = 107;

impl Address {
    /// A path in one spelling: `/a//b` and `/a/./b` compare as `/a/b`, and have its text.
    ///
    /// An abstract name, which begins with a zero (unix(7)), is no path: each of its bytes counts.
    pub(super) fn unix(path: &Path) -> Self {
        if path.as_os_str().as_encoded_bytes().first() == Some(&0) {
            return Self::Unix(path.into());
        }
        Self::Unix(path.components().collect::<PathBuf>().into())
    }
}

impl FromStr for Address {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseEndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix(UNIX) {
            // Absolute, so that the place where the process was started makes no difference.
            let sound = path.starts_with('/')
                && path.len() <= MAX_PATH
                && !path.ends_with('/')
                && !path.contains(char::is_control)
                && Path::new(path).file_name().is_some();
            return if sound { Ok(Self::unix(Path::new(path))) } else { Err(error()) };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(Self::Ip(address)) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        // `u16` would take a sign as well, and the text of the endpoint would be another's.
        let digits = Some(port).filter(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
        let port = digits.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let port = port.ok_or_else(error)?;
        if is_name(name) { Ok(Self::Host(name.into(), port)) } else { Err(error()) }
    }
}

/// Whether a text may be a host's name.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(allowed)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}
