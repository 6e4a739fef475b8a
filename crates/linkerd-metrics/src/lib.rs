//! Metric families with handles that are resolved once, and their text form.
//!
//! A series is found by its labels once, when a connection or a stack is built; after that its holder has an `Arc`
//! of the value and counting is one atomic addition. Labels are kept as the text that a scrape prints.

mod encode;
mod family;
mod http;
mod labels;
mod native;
mod protobuf;
mod route;
mod tcp;
mod value;

pub use self::{
    encode::{Counts, Encode, Kind, Number, Text},
    family::{Family, Registry},
    http::{Classification, HttpFamilies, HttpSeries, ResponseEnd},
    labels::{Bounded, Labels},
    native::SCHEMA,
    protobuf::{PROTOBUF_TYPE, Protobuf},
    route::{
        ByProtocol, RetryFamilies, RetrySeries, RouteProtocol, StreamEnd, StreamFamilies, StreamSeries,
        inbound_routes, outbound_backends, outbound_routes,
    },
    tcp::{TcpFamilies, TcpOpen, TcpSeries},
    value::{Buckets, Counter, DURATION_SECONDS, Gauge, Histogram, LATENCY_MS, SECOND},
};
