//! Requests over a pool, whichever version of HTTP their endpoint speaks.

mod attempts;
mod body;
mod client;
mod error;
mod lease;
mod service;
mod uri;

pub use self::{
    attempts::Attempts,
    body::HttpBody,
    client::{HttpClient, HttpOrigin},
    error::{RequestError, RequestErrorKind},
    lease::HttpLease,
    uri::endpoint_of,
};
