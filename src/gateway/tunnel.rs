//! The gateway's part in a tunnel: who may open one, and who may come in by it.

use std::{net::IpAddr, path::Path, sync::Arc};

use http::{HeaderMap, Method, StatusCode};

use super::{
    generation::{Generation, RouteEntry, Target},
    handler::{TOO_MANY_FAILED, shown_by},
    shared::Shared,
    source::Source,
};
use crate::{
    access::{self, Denied, Exchange, Identity, NotProved},
    backend::Database,
    config::model::{Query, TunnelAuth, TunnelMode},
    edge::{Peer, Request, Response, answer, wants_websocket},
    limit::{Caller, Tally},
    query::{
        Wanted,
        tunnel::{self, Admitted, Gate, Opening, Proof, TurnedAway, Wish},
    },
};

/// What `request` asks of a query route, if that is a tunnel and tunnels are had there.
pub(super) fn asked<'r>(generation: &Generation, route: &'r RouteEntry, request: &Request) -> Option<&'r Query> {
    let Target::Query { settings, .. } = &route.target else { return None };
    let mut pools = settings.endpoints.values().chain([&settings.pool]);
    let wants = wants_websocket(request) && pools.any(|pool| mode_to(generation, settings, pool) != TunnelMode::Off);
    wants.then_some(settings)
}

/// Looks at a request for a tunnel, before it is one: which database it is for.
///
/// # Errors
/// The answer to a request that may not become one.
pub(super) fn check(
    generation: &Generation,
    request: &Request,
    opening: &Opening<'_>,
) -> Result<Wanted, Box<Response>> {
    let wanted = tunnel::check(request, opening)?;
    match mode(generation, opening.settings, &wanted) {
        // Of one of its other pools there is a tunnel.
        TunnelMode::Off => {
            let detail = "there is no tunnel to this endpoint";
            Err(answer::problem(StatusCode::FORBIDDEN, "No tunnel", detail).into())
        }
        _ => Ok(wanted),
    }
}

/// For how long a tunnel holds a connection to the pool that it leads to.
fn mode(generation: &Generation, settings: &Query, wanted: &Wanted) -> TunnelMode {
    let endpoint = wanted.endpoint.as_ref().and_then(|endpoint| settings.endpoints.get(endpoint));
    mode_to(generation, settings, endpoint.unwrap_or(&settings.pool))
}

fn mode_to(generation: &Generation, settings: &Query, pool: &str) -> TunnelMode {
    let pool = generation.config().pool.get(pool);
    pool.map_or(TunnelMode::Off, |pool| settings.tunnel_to(pool))
}

/// What the salts of names that nobody has are made of: were they others after a restart, they could be told from those of consumers.
/// Kept in the state directory; where that cannot be, it lasts as long as the process. Blocks on the file.
pub(super) fn scram_secret(state: &Path) -> Box<[u8]> {
    let kept = access::kept_key(&state.join("scram.secret"));
    match kept.and_then(|text| if text.is_empty() { Err("scram.secret: it is empty".to_owned()) } else { Ok(text) }) {
        Ok(text) => text.into_bytes().into(),
        Err(error) => {
            tracing::warn!(
                error,
                "no secret for SCRAM is kept: after a restart it can be told which names are consumers'"
            );
            Box::new(rand::random::<[u8; 32]>())
        }
    }
}

/// Lets clients in by the generation that their request began with. It is dropped when the client is in, or not.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) generation: Arc<Generation>,
    /// Its index.
    pub(super) route: usize,
    pub(super) headers: HeaderMap,
    pub(super) client: IpAddr,
    pub(super) peer: Arc<Peer>,
    /// What the request's head says of the database.
    pub(super) wanted: Wanted,
}

impl Door {
    fn route(&self) -> &RouteEntry {
        &self.generation.routes[self.route]
    }

    fn target(&self) -> Result<(&Source, &Query), TurnedAway> {
        match &self.route().target {
            Target::Query { source, settings, .. } => Ok((source, settings)),
            _ => Err(TurnedAway::new("3D000", "there is no database here")),
        }
    }

    fn identify(&self, user: &str, proof: Proof<'_>) -> Result<Option<Identity>, Denied> {
        let secret = if let Proof::Secret(secret) = proof { secret } else { &[] };
        let secret = Some(secret).filter(|secret| !secret.is_empty());
        let (head, failed) = ((&self.headers, &Method::GET), &self.shared.failed_auth);
        let shown = shown_by(head, self.client, &self.peer, self.route(), secret, failed);
        let (admission, consumers) = (&self.route().admission, &self.generation.consumers);
        match proof {
            Proof::Secret(_) => admission.admit(consumers, &shown),
            Proof::Scram(Ok(())) => admission.admit_proved(consumers, user, &shown).map(Some),
            Proof::Scram(Err(_)) => Err(Denied::UnknownKey),
        }
    }

    /// As PostgreSQL puts it, where that has words for it.
    fn denied(&self, denied: Denied, user: &str) -> TurnedAway {
        if denied.is_suspicious() && !self.shared.failed_auth.failed(self.client).allowed {
            return TurnedAway::new("28000", TOO_MANY_FAILED);
        }
        match denied {
            Denied::NoKey | Denied::UnknownKey | Denied::TwoKeys => {
                TurnedAway::new("28P01", format!("password authentication failed for user \"{user}\""))
            }
            other => TurnedAway::new("28000", other.public()),
        }
    }

    /// Past the limits of the consumer, and counted.
    fn count(&self, identity: &mut Option<Identity>) -> Result<(), TurnedAway> {
        let consumer = identity.as_ref().map(|identity| identity.consumer.id());
        let caller = Caller { address: self.client, consumer, headers: &self.headers };
        let mut tally = Tally::default();
        let own = identity.as_ref().and_then(|identity| identity.grant.limits());
        own.map_or(Ok(()), |limits| limits.check_before_access(&caller, &mut tally))
            .and_then(|()| self.route().limits.check_after_access(&caller, &mut tally))
            .map_err(|refused| TurnedAway::new("53400", format!("limit \"{}\" is used up", refused.policy)))?;
        let seated = identity.as_mut().map_or(Ok(()), Identity::take_seat);
        seated.map_err(|full| TurnedAway::new("53300", full.to_string()))
    }

    fn database(&self, identity: Option<&Identity>, wish: &Wish<'_>) -> Result<(Database, Wanted), TurnedAway> {
        let (source, _) = self.target()?;
        let (database, role) = (Some(wish.database.to_owned()), source.role_of(identity));
        let wanted = Wanted { database, role, ..self.wanted.clone() };
        match source.find(&wanted, identity) {
            Ok(database) => Ok((database, wanted)),
            Err(error) => Err(TurnedAway::of(&error, &wanted)),
        }
    }
}

impl Gate for Door {
    fn way(&self) -> TunnelAuth {
        self.target().map(|(_, settings)| settings.tunnel_auth).unwrap_or_default()
    }

    fn challenge(&self, user: &str, first: &str) -> Result<(Exchange, String), NotProved> {
        Exchange::begin(self.generation.consumers.verifier(user), user, self.shared.scram_secret(), first)
    }

    fn admit(&self, wish: &Wish<'_>, proof: Proof<'_>) -> Result<Admitted, TurnedAway> {
        let mut identity = self.identify(wish.user, proof).map_err(|denied| self.denied(denied, wish.user))?;
        if identity.as_ref().is_some_and(|identity| !identity.answers_to(wish.user)) {
            return Err(self.denied(Denied::UnknownKey, wish.user));
        }
        self.count(&mut identity)?;
        let (_, settings) = self.target()?;
        let mode = may_tunnel(identity.as_ref(), mode(&self.generation, settings, &self.wanted))?;
        let (database, wanted) = self.database(identity.as_ref(), wish)?;
        Ok(Admitted { identity, mode, database, wanted })
    }
}

/// For how long a client may have a connection. What cannot be held to in a tunnel is not let in.
fn may_tunnel(identity: Option<&Identity>, route: TunnelMode) -> Result<TunnelMode, TurnedAway> {
    let Some(grant) = identity.map(|identity| &identity.grant) else { return Ok(route) };
    let why = if grant.named_only {
        "this consumer may send named queries alone, and a tunnel takes any"
    } else if grant.read_only {
        "this consumer may only read, to which a tunnel cannot be held"
    } else {
        match grant.tunnel.map_or(route, |own| own.max(route)) {
            TunnelMode::Off => "this consumer may open no tunnel",
            mode => return Ok(mode),
        }
    };
    Err(TurnedAway::new("42501", why))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_secret_of_nobodys_salts_outlives_the_process_and_is_read_by_nobody_else() {
        let (state, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = scram_secret(&state.path().join("var"));
        assert_eq!(scram_secret(&state.path().join("var")), secret);
        assert_ne!(scram_secret(other.path()), secret);
        let file = state.path().join("var/scram.secret");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "").unwrap();
        let made_up = scram_secret(&state.path().join("var"));
        assert!(made_up.len() >= 32 && made_up != secret, "nothing is no secret");
    }
}
