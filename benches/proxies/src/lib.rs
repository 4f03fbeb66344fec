//! The Rust candidates of `./run`, one binary each, and the report that it ends with.
//!
//! Every candidate, nginx and HAProxy too, does the same job: one worker, HTTP/1.1 on both sides,
//! fields that concern one connection removed, `X-Forwarded-For`, `X-Forwarded-Proto`,
//! `X-Forwarded-Host` and `Via` added to the request and `Via` to the response.

pub mod args;
pub mod fields;
pub mod samples;
pub mod spread;
