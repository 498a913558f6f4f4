//! An authenticated caller.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use super::{ConsumerHandle, FailedAuth, Full, Grant, seats::Seat};
use crate::net::ClientCertificate;

/// An authenticated caller. Whatever lasts beyond its request's answer (a tunnel) keeps it: it is what the consumer's count of
/// requests under way goes by, and says when the right to be here ends.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who it is; lives over reloads.
    pub consumer: Arc<ConsumerHandle>,
    /// What the configuration lets this consumer do, as of this generation.
    pub grant: Arc<Grant>,
    /// Of a verified token.
    pub claims: Option<Arc<Map<String, Value>>>,
    /// A token's `exp`, a certificate's end or the consumer's `expires`, whichever is first.
    pub expires: Option<SystemTime>,
    /// Whether it was an API key that said so.
    pub(super) by_key: bool,
    /// What said so, if it was a certificate.
    certificate: Option<Arc<ClientCertificate>>,
    seat: Option<Arc<Seat>>,
}

/// Why an identity does not hold any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The credential was taken out of the configuration, its listener has other authorities now, or its rights were changed.
    Revoked,
    /// Its time is over.
    Expired,
}

/// The wall clock may be set: it is looked at this often.
const CLOCK_LOOK: Duration = Duration::from_secs(30);

/// What a request shows of who calls.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// What a dialect carries elsewhere: the password of a connection string, or of a password message. A key or a token, as one
    /// in `Authorization: Bearer` would be.
    pub secret: Option<&'a [u8]>,
    /// Of its connection, verified.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// Whether it goes on to an upstream, which may have credentials of its own.
    pub upstream: bool,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// Failed authentications so far: an address that has too many has no signature verified. None: all are.
    pub failed: Option<&'a FailedAuth>,
    /// Its method.
    pub method: &'a Method,
}

impl Identity {
    pub(super) fn new(consumer: Arc<ConsumerHandle>, grant: Arc<Grant>) -> Self {
        let expires = grant.expires;
        Self { consumer, grant, claims: None, expires, by_key: false, certificate: None, seat: None }
    }

    /// The same, by an API key.
    pub(super) fn by_key(self) -> Self {
        Self { by_key: true, ..self }
    }

    /// The same, by a certificate.
    pub(super) fn certified_by(self, certificate: &Arc<ClientCertificate>) -> Self {
        Self { certificate: Some(certificate.clone()), ..self }.until(certificate.not_after)
    }

    /// The same by something that ends.
    pub(super) fn until(self, end: SystemTime) -> Self {
        Self { expires: Some(self.expires.map_or(end, |own| own.min(end))), ..self }
    }

    /// The same by a token that claims this.
    pub(super) fn claiming(self, claims: Arc<Map<String, Value>>) -> Self {
        Self { claims: Some(claims), ..self }
    }

    /// An identity for tests of those who are told of one.
    #[cfg(test)]
    pub fn of(name: &str, grant: Grant) -> Self {
        Self::new(Arc::new(ConsumerHandle::new(name)), Arc::new(grant))
    }

    /// The login role on pools that have one connection pool a role.
    pub fn role(&self) -> &Arc<str> {
        self.grant.role.as_ref().unwrap_or_else(|| self.consumer.name())
    }

    /// Whether a consumer may call itself so. Of one that has a role in the configuration, no other may be named.
    pub fn answers_to(&self, user: &str) -> bool {
        self.grant.role.is_none() || [self.role(), self.consumer.name()].iter().any(|name| ***name == *user)
    }

    /// Completes when what lasts must end: the credential is revoked, or its time is over. Cancel safe.
    pub async fn ends(&self) -> Ended {
        tokio::select! {
            biased;
            () = self.consumer.revoked() => Ended::Revoked,
            () = self.disowned() => Ended::Revoked,
            () = self.expires() => Ended::Expired,
        }
    }

    async fn disowned(&self) {
        match &self.certificate {
            Some(certificate) => certificate.disowned().await,
            None => std::future::pending().await,
        }
    }

    /// The same of whoever it is; of nobody in particular, never.
    pub async fn end_of(identity: Option<&Self>) -> Ended {
        match identity {
            Some(identity) => identity.ends().await,
            None => std::future::pending().await,
        }
    }

    async fn expires(&self) {
        let Some(end) = self.expires else { return std::future::pending().await };
        while let Ok(left) = end.duration_since(SystemTime::now()) {
            // The timer is as coarse as a millisecond: never a sleep of nothing in a loop.
            tokio::time::sleep(left.clamp(Duration::from_millis(1), CLOCK_LOOK)).await;
        }
    }

    /// Counts the request as one under way, for as long as this or a clone of it lives.
    ///
    /// # Errors
    /// The consumer has as many as it may.
    pub fn take_seat(&mut self) -> Result<(), Full> {
        if let Some(most) = self.grant.max_concurrent {
            self.seat = Some(Arc::new(self.grant.seats.take(most)?));
        }
        Ok(())
    }
}

impl Ended {
    /// A word for the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_with_a_role_calls_itself_by_that_or_by_its_own_name() {
        let mut grant = Grant::default();
        grant.role = Some("clerk".into());
        let desk = Identity::of("desk", grant);
        let free = Identity::of("app", Grant::default());
        assert!(desk.answers_to("desk") && desk.answers_to("clerk"));
        assert!(!desk.answers_to("Clerk") && !desk.answers_to("app") && !desk.answers_to(""));
        assert!(free.answers_to("app") && free.answers_to("whoever"));
    }
}
