//! Metric families with handles that are resolved once, and their text form.
//!
//! A series is found by its labels once, when a connection or a stack is built; after that its holder has an `Arc`
//! of the value and counting is one atomic addition. Labels are kept as the text that a scrape prints.

mod family;
mod http;
mod labels;
mod tcp;
mod value;

pub use self::{
    family::{Family, Registry},
    http::{Classification, HttpFamilies, HttpSeries, ResponseEnd},
    labels::{Bounded, Labels},
    tcp::{TcpFamilies, TcpOpen, TcpSeries},
    value::{Buckets, Counter, Gauge, Histogram, LATENCY_MS},
};
