//! What the edge counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::net::HandshakeFailure;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one listener, or of several that share them. All only grow but `active`.
        #[derive(Debug, Default)]
        pub struct EdgeCounters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// [`EdgeCounters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct EdgeFigures {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl EdgeFigures {
            /// Everything that is counted, by name; the gauge `active` is left out.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter().filter(|(name, _)| *name != "active")
            }
        }

        impl EdgeCounters {
            /// The figures now.
            pub fn snapshot(&self) -> EdgeFigures {
                EdgeFigures { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted, those refused by a cap included.
    accepted,
    /// Connections open now, upgraded ones included. A gauge.
    active,
    /// Connections closed at once because of the cap on all.
    refused_total,
    /// Connections closed at once because of the cap on one address.
    refused_address,
    /// Pauses in accepting because the process ran out of file descriptors or memory.
    accept_pauses,
    /// Handshakes that took too long.
    handshake_timeout,
    /// Clients that left during the handshake.
    handshake_closed,
    /// Handshakes for a name without a certificate.
    handshake_unknown_name,
    /// Handshakes without a version, suite, group or protocol in common.
    handshake_incompatible,
    /// Handshakes that the client ended with an alert.
    handshake_refused,
    /// Handshakes without the client's certificate where one must be, or with one that does not hold.
    handshake_certificate,
    /// Handshakes that broke the protocol.
    handshake_malformed,
    /// Plain HTTP on a TLS port, answered with 400.
    handshake_plain_http,
    /// Connections that brought no request in time.
    timeout_first_request,
    /// HTTP/1 heads that began and did not end in time.
    timeout_header,
    /// Connections closed after carrying no request for a while.
    timeout_idle,
    /// Connections asked to leave because of their age.
    timeout_age,
    /// Request bodies that came too slowly.
    timeout_request_body,
    /// Connections whose client accepted no bytes in time.
    timeout_write,
    /// HTTP/2 answers, and connections all of whose answers, waited too long for the client's window.
    timeout_window,
    /// HTTP/2 connections asked to end because their client gave up too many answers.
    abandoned,
    /// Connections cut because they did not end after they were asked to.
    timeout_closing,
    /// Requests that the edge answered itself: malformed, misdirected, too large a head.
    rejected,
    /// Connections that ended with a protocol error or in the middle of a message.
    broken,
}

impl EdgeCounters {
    pub(super) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn handshake(&self, failure: HandshakeFailure) {
        Self::bump(match failure {
            HandshakeFailure::Timeout => &self.handshake_timeout,
            HandshakeFailure::Closed => &self.handshake_closed,
            HandshakeFailure::UnknownName => &self.handshake_unknown_name,
            HandshakeFailure::Incompatible => &self.handshake_incompatible,
            HandshakeFailure::Refused => &self.handshake_refused,
            HandshakeFailure::Certificate => &self.handshake_certificate,
            HandshakeFailure::Malformed => &self.handshake_malformed,
        });
    }
}
