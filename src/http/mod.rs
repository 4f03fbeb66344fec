//! Requests over a pool, whichever version of HTTP their endpoint speaks.

mod body;
mod client;
mod error;
mod lease;
mod service;
mod uri;

pub use self::{
    body::HttpBody,
    client::{HttpClient, HttpOrigin},
    error::{RequestError, RequestErrorKind},
    lease::HttpLease,
    uri::endpoint_of,
};
