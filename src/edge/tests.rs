//! Over real sockets and real TLS. What is waited for is an event, with a generous limit; what is timed is configured short.

mod deadlines;
mod draining;
mod http1;
mod http2;
mod leaving;
mod support;
mod tls;
