//! Whether a caller may use a route.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{AccessError, Consumers, Denied, Identity, Shown};
use crate::config::model::{Access, Consumer};

/// A route's `access`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Anyone may call.
    #[default]
    Open,
    /// The consumers of these names may call.
    AnyOf(Box<[Arc<str>]>),
}

impl Admission {
    /// The admission of a route; no `access` means open (that query routes must say so is the configuration's check).
    ///
    /// # Errors
    /// Every name that is no consumer.
    pub fn build(access: Option<&Access>, consumers: &BTreeMap<String, Consumer>) -> Result<Self, Vec<AccessError>> {
        let Some(Access::Consumers(names)) = access else { return Ok(Self::Open) };
        let unknown: Vec<AccessError> = names
            .iter()
            .filter(|name| !consumers.contains_key(*name))
            .map(|name| AccessError::Unknown(name.clone()))
            .collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        Ok(Self::AnyOf(names.iter().map(|name| name.as_str().into()).collect()))
    }

    /// Whether anyone may call.
    pub fn is_open(&self) -> bool {
        *self == Self::Open
    }

    /// The same as [`Admission::admit`] for a consumer that has proved by SCRAM who it is.
    ///
    /// # Errors
    /// The consumer may not.
    pub fn admit_proved(&self, consumers: &Consumers, name: &str, shown: &Shown<'_>) -> Result<Identity, Denied> {
        let who = consumers.proved(name, shown, SystemTime::now())?;
        match self {
            Self::AnyOf(names) if !names.contains(who.consumer.name()) => Err(Denied::NotNamed),
            _ => Ok(who),
        }
    }

    /// Who calls, if the caller may. On an open route a key that is not ours, or a token that does not hold, lets its caller
    /// in as nobody: it may be meant for the upstream. One of ours beside another is refused there, too: it is not the upstream's
    /// business. So are more than two, and a consumer who may not do this: who shows a key of ours is held to its bounds.
    ///
    /// # Errors
    /// The caller may not.
    pub fn admit(&self, consumers: &Consumers, shown: &Shown<'_>) -> Result<Option<Identity>, Denied> {
        let now = SystemTime::now();
        match self {
            Self::Open if consumers.is_empty() => Ok(None),
            Self::Open => match consumers.authenticate(shown, now) {
                Err(Denied::TwoKeys) if !consumers.know_none_of(shown, now) => Err(Denied::TwoKeys),
                Err(denied) if denied.leaves_nobody() => Ok(None),
                who => who,
            },
            Self::AnyOf(names) => {
                let who = consumers.authenticate(shown, now)?.ok_or(Denied::NoKey)?;
                if names.contains(who.consumer.name()) { Ok(Some(who)) } else { Err(Denied::NotNamed) }
            }
        }
    }
}
