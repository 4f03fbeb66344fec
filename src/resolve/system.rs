//! The system's resolver.

use super::{Answer, Resolver, Resolving, unresolved};

/// Asks the system, by `getaddrinfo(3)` on tokio's pool of blocking threads. The system does not
/// tell how long an answer is valid.
///
/// A look-up that was given up goes on in its thread until the system gives up too.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            match tokio::net::lookup_host((name, 0)).await {
                Ok(found) => {
                    let addresses: Vec<_> = found.map(|address| address.ip()).collect();
                    Ok(Answer::new(addresses, None))
                }
                Err(error) => Err(unresolved(name, error.kind(), error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_host_and_literals_are_found() {
        let resolver: Box<dyn Resolver> = Box::new(SystemResolver);
        let found = resolver.resolve("localhost").await.unwrap();
        assert!(found.addresses.iter().all(|address| address.is_loopback()), "{found:?}");
        assert!(!found.addresses.is_empty());
        assert_eq!(found.valid_for, None);
        for literal in ["192.0.2.1", "2001:db8::1"] {
            let found = resolver.resolve(literal).await.unwrap();
            assert_eq!(found.addresses, [literal.parse::<std::net::IpAddr>().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_failure_names_the_host() {
        // RFC 6761 §6.4: no such name exists.
        let error = SystemResolver.resolve("no-such-host.invalid").await.unwrap_err();
        assert!(error.to_string().starts_with("host no-such-host.invalid: "), "{error}");
    }
}
