//! DNS by hickory, which tells how long an answer is valid.

use core::time::Duration;
use std::{fmt, io, net::SocketAddr, sync::Arc};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup_ip::LookupIp,
    net::{NetError, runtime::TokioRuntimeProvider},
    system_conf::read_system_conf,
};

use super::{Answer, Resolver, Resolving, unresolved};

/// Asks DNS servers itself, without a thread, and tells the TTL of what they answer.
///
/// A and AAAA records are asked for at the same time; when only one of the two can be had, the
/// answer has only that family. `/etc/hosts` goes first; it and the configuration are read once.
/// Nothing is cached: each look-up asks.
///
/// Clones share the configuration. They may be used on any thread and by any runtime: a look-up
/// has sockets of its own, which close with it.
#[derive(Clone)]
pub struct HickoryResolver(Arc<Settings>);

struct Settings {
    config: ResolverConfig,
    options: ResolverOpts,
    hosts: Arc<Hosts>,
}

impl HickoryResolver {
    /// Asks as the system's configuration says: `/etc/resolv.conf` on unix, with its servers,
    /// search list and options.
    ///
    /// # Errors
    /// When the configuration cannot be read or makes no sense.
    pub fn system() -> io::Result<Self> {
        let (config, options) = read_system_conf().map_err(|error| {
            io::Error::other(format!("the system's resolver configuration: {error}"))
        })?;
        Ok(Self::new(config, options))
    }

    /// Asks these servers, by UDP and where that does not do by TCP. Names are complete: there is
    /// no search list.
    ///
    /// # Errors
    /// When there is no server.
    pub fn with_name_servers(servers: &[SocketAddr]) -> io::Result<Self> {
        if servers.is_empty() {
            let message = "0 name servers, but must be at least 1";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut by| {
                by.port = server.port();
                by
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Ok(Self::new(config, ResolverOpts::default()))
    }

    fn new(config: ResolverConfig, mut options: ResolverOpts) -> Self {
        let hosts = match options.use_hosts_file {
            ResolveHosts::Never => Hosts::default(),
            // Without the file there is nothing in it.
            _ => Hosts::from_system().unwrap_or_default(),
        };
        // A resolver is built for each look-up, from here on without reading a file.
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        Self(Arc::new(Settings { config, options, hosts: Arc::new(hosts) }))
    }

    /// hickory's resolver has its sockets served by tasks of the runtime that first asked. Shared
    /// by several runtimes it fails when one of them ends, so each look-up gets its own.
    fn build(&self) -> Result<TokioResolver, NetError> {
        let Settings { config, options, hosts } = &*self.0;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config.clone(), provider);
        let mut resolver = builder.with_options(options.clone()).build()?;
        resolver.set_hosts(Arc::clone(hosts));
        Ok(resolver)
    }

    async fn look_up(&self, name: &str) -> Result<Answer, NetError> {
        Ok(answer(&self.build()?.lookup_ip(name).await?))
    }
}

fn answer(found: &LookupIp) -> Answer {
    // Of all records, also of the aliases that led there.
    let ttl = found.as_lookup().answers().iter().map(|record| record.ttl).min();
    let valid_for = ttl.map(|seconds| Duration::from_secs(seconds.into()));
    Answer::new(found.iter().collect::<Vec<_>>(), valid_for)
}

impl Resolver for HickoryResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            self.look_up(name).await.map_err(|error| unresolved(name, kind(&error), error))
        })
    }
}

fn kind(error: &NetError) -> io::ErrorKind {
    match error {
        NetError::Timeout => io::ErrorKind::TimedOut,
        NetError::Io(error) => error.kind(),
        error if error.is_no_records_found() => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    }
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// The bytes of a server's answer, from where hickory has read them to what the pool is told.
#[cfg(any(test, all(fuzzing, feature = "sim")))]
pub(super) mod fuzz {
    use std::net::IpAddr;

    use hickory_resolver::{
        lookup::Lookup,
        net::DnsError,
        proto::{
            op::{DnsResponse, Query},
            rr::RData,
        },
    };

    use super::*;

    /// # Panics
    /// When an answer is not what its records say, or an error cannot be told.
    pub(in crate::resolve) fn run(message: &[u8]) {
        let Ok(response) = DnsResponse::from_buffer(message.to_vec()) else {
            return;
        };
        let response = match DnsError::from_response(response) {
            Ok(response) => response,
            Err(error) => {
                let error = NetError::from(error);
                let kind = kind(&error);
                assert_eq!(kind == io::ErrorKind::NotFound, error.is_no_records_found());
                let told = unresolved("name", kind, error).to_string();
                assert!(told.starts_with("host name: "), "{told}");
                return;
            }
        };
        let records = response.answers.clone();
        let query = response.queries.first().cloned().unwrap_or_else(Query::default);
        let found = LookupIp::from(Lookup::new_with_max_ttl(query, records.iter().cloned()));
        let addresses = records.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        let ttl = records.iter().fold(None, |least: Option<u32>, record| {
            Some(least.map_or(record.ttl, |least| least.min(record.ttl)))
        });
        let answer = answer(&found);
        assert_eq!(answer.addresses, addresses.collect::<Vec<_>>());
        assert_eq!(answer.valid_for.map(|time| time.as_secs()), ttl.map(u64::from));
    }
}
