//! Every consumer of a configuration, and how one is known.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::{
    ConsumerHandle, Denied, Grant, Identity, Shown, SourceStatus,
    jwt::{self, Issuer, KeySource, Known, Sound, Verified},
    key::{self, Digest},
    scram::Verifier,
};
use crate::{
    config::model::{self, Config, Consumer, Tokens},
    net::ClientCertificate,
};

/// Every consumer of a configuration, by what it shows.
#[derive(Debug, Default)]
pub struct Consumers {
    grants: BTreeMap<Arc<str>, Arc<Grant>>,
    keys: Vec<(Digest, Arc<ConsumerHandle>)>,
    issuers: BTreeMap<String, Arc<Issuer>>,
    tokens: Vec<Rule>,
    /// By the names of certificates.
    certificates: BTreeMap<Box<str>, Held>,
    /// By the consumers' names.
    verifiers: BTreeMap<Box<str>, (Verifier, Arc<ConsumerHandle>)>,
    verified: Verified,
}

/// Whose tokens of an issuer are, by what they claim.
#[derive(Debug)]
struct Rule {
    issuer: Arc<Issuer>,
    tokens: Tokens,
    handle: Arc<ConsumerHandle>,
}

/// Whose a certificate of some name is.
#[derive(Debug)]
struct Held {
    /// Only if it came by this listener; none: by any that asks for one.
    listener: Option<Box<str>>,
    handle: Arc<ConsumerHandle>,
}

/// Why consumers cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Not 64 hexadecimal digits. The text is not repeated: it may be a key, pasted by mistake.
    #[error(
        "consumer `{consumer}`: `key_sha256[{index}]` is not 64 hexadecimal digits; `sluicegate key new` prints them"
    )]
    NotADigest {
        /// The consumer.
        consumer: String,
        /// Which of its keys.
        index: usize,
    },
    /// Two entries for one key: it would be unclear who calls.
    #[error("consumer `{consumer}`: `key_sha256[{index}]` is also a key of `{other}`")]
    Shared {
        /// The consumer.
        consumer: String,
        /// Which of its keys.
        index: usize,
        /// Who has it already.
        other: String,
    },
    /// A bound that cannot be held to.
    #[error("consumer `{consumer}`: {what}")]
    Bound {
        /// The consumer.
        consumer: String,
        /// What is wrong.
        what: String,
    },
    /// An issuer whose keys cannot be had.
    #[error("issuer `{issuer}`: {what}")]
    Issuer {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        what: String,
    },
    /// A route lets in somebody who does not exist.
    #[error("no consumer is called `{0}`")]
    Unknown(String),
}

impl AccessError {
    /// The table of the configuration that is wrong.
    pub fn key(&self) -> String {
        match self {
            Self::NotADigest { consumer, .. } | Self::Shared { consumer, .. } | Self::Bound { consumer, .. } => {
                format!("consumer.{consumer}")
            }
            Self::Issuer { issuer, .. } => format!("issuer.{issuer}"),
            Self::Unknown(_) => "consumer".to_owned(),
        }
    }
}

impl Consumers {
    /// Reads the consumers.
    ///
    /// # Errors
    /// Every key that is malformed or given twice, every bound that cannot be held to, every issuer without keys that can be had.
    pub fn build(config: &Config) -> Result<Self, Vec<AccessError>> {
        Self::build_after(config, &Self::default())
    }

    /// Reads the consumers of a new configuration; credentials that stay, with the same rights, keep their handle, and issuers
    /// their keys.
    ///
    /// # Errors
    /// As [`Consumers::build`].
    pub fn build_after(config: &Config, before: &Self) -> Result<Self, Vec<AccessError>> {
        let mut made = Self::default();
        let mut errors = Vec::new();
        for (name, settings) in &config.issuer {
            errors.extend(made.add_issuer(name, settings, before).err());
        }
        for (name, consumer) in &config.consumer {
            match Grant::build(name, consumer, before.grants.get(name.as_str()).map(|grant| &**grant)) {
                Ok(grant) => drop(made.grants.insert(name.as_str().into(), Arc::new(grant))),
                Err(error) => errors.push(error),
            }
            for (index, text) in consumer.key_sha256.iter().flatten().enumerate() {
                errors.extend(made.add_key(name, index, text, before).err());
            }
            made.add_tokens(name, consumer, before);
            made.add_certificates(name, consumer, before);
            errors.extend(made.add_verifier(name, consumer, before).err());
        }
        if errors.is_empty() { Ok(made) } else { Err(errors) }
    }

    fn add_issuer(&mut self, name: &str, settings: &model::Issuer, before: &Self) -> Result<(), AccessError> {
        let known = before.issuers.get(name);
        let source = KeySource::open(name, settings, known.map(|issuer| &issuer.source));
        let source = source.map_err(|what| AccessError::Issuer { issuer: name.to_owned(), what })?;
        let kept = known.filter(|known| known.settings == *settings && Arc::ptr_eq(&known.source, &source));
        let issuer = kept.cloned().unwrap_or_else(|| Arc::new(Issuer { settings: settings.clone(), source }));
        self.issuers.insert(name.to_owned(), issuer);
        Ok(())
    }

    fn add_key(&mut self, name: &str, index: usize, text: &str, before: &Self) -> Result<(), AccessError> {
        let consumer = || name.to_owned();
        let digest = Digest::from_hex(text).ok_or_else(|| AccessError::NotADigest { consumer: consumer(), index })?;
        if let Some((_, holder)) = self.keys.iter().find(|(known, _)| *known == digest) {
            return Err(AccessError::Shared { consumer: consumer(), index, other: holder.name().to_string() });
        }
        let known = before.keys.iter().find(|(known, _)| *known == digest);
        self.keys.push((digest, self.handle(name, known.map(|(_, handle)| handle), before)));
        Ok(())
    }

    /// That the issuer is there was checked with the names of all tables.
    fn add_tokens(&mut self, name: &str, consumer: &Consumer, before: &Self) {
        let Some(tokens) = &consumer.jwt else { return };
        let Some(issuer) = self.issuers.get(&tokens.issuer).cloned() else { return };
        let same =
            |rule: &&Rule| rule.tokens == *tokens && rule.issuer.is_same_as(&issuer) && **rule.handle.name() == *name;
        let handle = self.handle(name, before.tokens.iter().find(same).map(|rule| &rule.handle), before);
        self.tokens.push(Rule { issuer, tokens: tokens.clone(), handle });
    }

    fn add_certificates(&mut self, name: &str, consumer: &Consumer, before: &Self) {
        for certificate in consumer.certificate.iter().flatten() {
            let listener = consumer.certificate_listener.as_deref().map(Box::from);
            let known = before.certificates.get(certificate.as_str()).filter(|known| known.listener == listener);
            let handle = self.handle(name, known.map(|known| &known.handle), before);
            self.certificates.insert(certificate.as_str().into(), Held { listener, handle });
        }
    }

    fn add_verifier(&mut self, name: &str, consumer: &Consumer, before: &Self) -> Result<(), AccessError> {
        let Some(text) = &consumer.scram else { return Ok(()) };
        let verifier = Verifier::parse(text).ok_or_else(|| AccessError::Bound {
            consumer: name.to_owned(),
            what: "`scram` is no verifier of SCRAM-SHA-256; `sluicegate key new --scram` prints one".to_owned(),
        })?;
        let known = before.verifiers.get(name).filter(|(known, _)| *known == verifier);
        let handle = self.handle(name, known.map(|(_, handle)| handle), before);
        self.verifiers.insert(name.into(), (verifier, handle));
        Ok(())
    }

    /// What is kept of the key of the consumer of this name, for SCRAM.
    pub fn verifier(&self, name: &str) -> Option<&Verifier> {
        self.verifiers.get(name).map(|(verifier, _)| verifier)
    }

    /// The consumer of this name, which has proved that it knows its key, within its own bounds.
    ///
    /// # Errors
    /// The consumer may not do this.
    pub(super) fn proved(&self, name: &str, shown: &Shown<'_>, now: SystemTime) -> Result<Identity, Denied> {
        let (_, handle) = self.verifiers.get(name).ok_or(Denied::UnknownKey)?;
        let identity = self.identity(handle)?;
        identity.grant.check(shown.client, shown.method, now)?;
        Ok(identity)
    }

    /// The handle from before, if it was this consumer's, and what is open under it may stay so.
    fn handle(&self, name: &str, known: Option<&Arc<ConsumerHandle>>, before: &Self) -> Arc<ConsumerHandle> {
        let keeps_rights = match (self.grants.get(name), before.grants.get(name)) {
            (Some(now), Some(then)) => now.keeps(then),
            _ => false,
        };
        let kept = known.filter(|known| **known.name() == *name && keeps_rights);
        kept.cloned().unwrap_or_else(|| Arc::new(ConsumerHandle::new(name)))
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = &Arc<ConsumerHandle>> {
        let keys = self.keys.iter().map(|(_, handle)| handle);
        let proved = self.verifiers.values().map(|(_, handle)| handle);
        let certified = self.certificates.values().map(|held| &held.handle);
        keys.chain(self.tokens.iter().map(|rule| &rule.handle)).chain(certified).chain(proved)
    }

    /// Tells the handles that are not in `after` that their credential is gone. Called when `after` has taken over.
    pub fn revoke_missing(&self, after: &Self) {
        for handle in self.handles() {
            if !after.handles().any(|kept| Arc::ptr_eq(kept, handle)) {
                handle.revoke();
            }
        }
    }

    /// Who calls, within the consumer's own bounds; none for a caller who shows nothing. An `Authorization` of another scheme than
    /// `Bearer` is not ours. What the request itself says goes before what its connection says: a key that is no key any more, or a
    /// wrong password, is refused whatever the connection's certificate. Only an `Authorization` that is nothing of ours, and may be
    /// meant for the upstream, leaves the word to the certificate.
    ///
    /// # Errors
    /// What was shown is not known, not good, or contradictory, or the consumer may not do this.
    pub fn authenticate(&self, shown: &Shown<'_>, now: SystemTime) -> Result<Option<Identity>, Denied> {
        let said = key::shown(shown)?.map(|credential| self.identify(credential, shown, now));
        let identity = match said {
            Some(Ok(identity)) => Some(identity),
            Some(Err(denied)) if !(denied.is_strange() && key::may_be_foreign(shown)) => return Err(denied),
            said => match (self.certified(shown.certificate, now)?, said) {
                (None, Some(Err(denied))) => return Err(denied),
                (identity, _) => identity,
            },
        };
        if let Some(identity) = &identity {
            identity.grant.check(shown.client, shown.method, now)?;
        }
        Ok(identity)
    }

    /// Whose key or token it is.
    fn identify(&self, credential: &[u8], shown: &Shown<'_>, now: SystemTime) -> Result<Identity, Denied> {
        let digest = Digest::of(credential);
        if let Some(handle) = self.holder(&digest) {
            return Ok(self.identity(handle)?.by_key());
        }
        if self.issuers.is_empty() || !jwt::looks_like_one(credential) {
            return Err(Denied::UnknownKey);
        }
        let known = match self.verified.get(&digest.bytes(), now) {
            Some(known) => known,
            None => self.verify(credential, &digest, shown, now)?,
        };
        Ok(self.identity(&known.handle)?.claiming(known.claims).until(known.ends))
    }

    /// Verifies a token, finds whose it is, and remembers both.
    fn verify(&self, token: &[u8], digest: &Digest, shown: &Shown<'_>, now: SystemTime) -> Result<Known, Denied> {
        let may_try = || shown.failed.is_none_or(|failed| !failed.is_over(shown.client));
        let Sound { issuer, keys, claims, ends } =
            jwt::verify(token, self.issuers.values(), may_try, now).map_err(Denied::Token)?;
        let mut rules = self
            .tokens
            .iter()
            .filter(|rule| Arc::ptr_eq(&rule.issuer, &issuer) && jwt::matches(rule.tokens.claims.as_ref(), &claims));
        let handle = match (rules.next(), rules.next()) {
            (Some(rule), None) => rule.handle.clone(),
            (None, _) => return Err(Denied::NoConsumer),
            (Some(_), Some(_)) => return Err(Denied::Ambiguous),
        };
        let known = Known { handle, claims: Arc::new(claims), ends, issuer, keys, at: now, length: token.len() };
        self.verified.put(digest.bytes(), known.clone());
        Ok(known)
    }

    /// Whose certificate it is; none if it is no consumer's, or is one's only where it comes by another listener: an authority's
    /// word counts where its listener asks for it.
    fn certified(
        &self,
        certificate: Option<&Arc<ClientCertificate>>,
        now: SystemTime,
    ) -> Result<Option<Identity>, Denied> {
        let Some(certificate) = certificate.filter(|_| !self.certificates.is_empty()) else { return Ok(None) };
        let whole = certificate.fingerprint();
        let names = certificate.names.iter().map(|name| &**name).chain([whole.as_str()]);
        let vouched = |held: &&Held| held.listener.as_deref().is_none_or(|listener| *listener == *certificate.listener);
        let mut holders = names.filter_map(|name| self.certificates.get(name)).filter(vouched).map(|held| &held.handle);
        let Some(handle) = holders.next() else { return Ok(None) };
        if holders.any(|other| other.name() != handle.name()) {
            return Err(Denied::Ambiguous);
        }
        if certificate.not_after <= now {
            return Err(Denied::CertificateExpired);
        }
        Ok(Some(self.identity(handle)?.certified_by(certificate)))
    }

    fn identity(&self, handle: &Arc<ConsumerHandle>) -> Result<Identity, Denied> {
        let grant = self.grants.get(handle.name()).ok_or(Denied::UnknownKey)?;
        Ok(Identity::new(handle.clone(), grant.clone()))
    }

    /// Whether all that a request shows may be the upstream's business: no more than two keys, none of which is ours.
    pub(super) fn know_none_of(&self, shown: &Shown<'_>, now: SystemTime) -> bool {
        let is_foreign = |credential| match self.identify(credential, shown, now) {
            Ok(_) => false,
            Err(denied) => denied.leaves_nobody(),
        };
        key::all_shown(shown).is_ok_and(|all| all.into_iter().flatten().all(is_foreign))
    }

    /// Takes as long whoever it is, and if it is nobody.
    fn holder(&self, digest: &Digest) -> Option<&Arc<ConsumerHandle>> {
        let mut found = None;
        for (known, handle) in &self.keys {
            if bool::from(known.ct_eq(digest)) {
                found = Some(handle);
            }
        }
        found
    }

    /// Whether nobody can be known at all.
    pub fn is_empty(&self) -> bool {
        self.handles().next().is_none()
    }

    /// Looks whether issuers' keys should be read anew. Called a few times a second, on the background.
    pub fn look(&self, now: Instant) {
        for issuer in self.issuers.values() {
            issuer.source.look(now, issuer.settings.refresh.0);
        }
    }

    /// How the keys of each issuer are.
    pub fn issuers(&self) -> BTreeMap<String, SourceStatus> {
        self.issuers.iter().map(|(name, issuer)| (name.clone(), issuer.source.status())).collect()
    }
}
