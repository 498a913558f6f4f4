//! Which database a tunnel is for, as far as its URL says. No address is ever dialled that a client names.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use crate::{
    config::model::Query,
    edge::Authority,
    query::{Wanted, label, problem::Problem},
};

/// A client that was told one gateway for all databases says which it means in `?address=HOST:PORT`; another goes to the
/// database's own name. The host's first label is then one of the route's endpoints. Where it has none, or the client came by a
/// name that is none, it is the route's pool; an address must then be the gateway's own, or have the pool's name.
pub(super) fn check(query: Option<&str>, authority: &Authority, settings: &Query) -> Result<Wanted, Problem> {
    let known = |host: &str| Some(label(host)).filter(|label| settings.endpoints.contains_key(label));
    let endpoint = match address(query)? {
        None => known(&authority.host),
        Some(address) => {
            let host = Authority::parse(address.as_bytes()).map(|address| address.host);
            let host = host.ok_or_else(elsewhere)?;
            let endpoint = known(&host);
            let own = settings.endpoints.is_empty() && (host == authority.host || label(&host) == settings.pool);
            if endpoint.is_none() && !own {
                return Err(elsewhere());
            }
            endpoint
        }
    };
    Ok(Wanted { endpoint, ..Wanted::default() })
}

/// The one `address` of a query. Two are refused: others may have read the other.
fn address(query: Option<&str>) -> Result<Option<String>, Problem> {
    let pairs = query.unwrap_or_default().split('&');
    let mut addresses = pairs.filter_map(|pair| pair.strip_prefix("address="));
    match (addresses.next(), addresses.next()) {
        (None, _) => Ok(None),
        (Some(address), None) => Ok(Some(percent_decode_str(address).decode_utf8_lossy().into_owned())),
        (Some(_), Some(_)) => Err(elsewhere()),
    }
}

fn elsewhere() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Foreign address", "a tunnel leads to the databases of this route alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoints: &[&str]) -> Query {
        let endpoints: serde_json::Map<_, _> = endpoints.iter().map(|name| ((*name).to_owned(), "p".into())).collect();
        serde_json::from_value(serde_json::json!({"dialect": "neon", "pool": "shop", "endpoints": endpoints})).unwrap()
    }

    #[test]
    fn only_databases_of_the_route_are_led_to() {
        let authority = Authority::parse(b"gate.example.com:8443").unwrap();
        for (endpoints, query, expected) in [
            (&[][..], None, Some(None)),
            (&[], Some("address=gate.example.com:5432"), Some(None)),
            (&[], Some("address=shop.internal:5432"), Some(None)),
            (&[], Some("address=db.internal:5432"), None),
            (&[], Some("address=127.0.0.1:5432"), None),
            (&[], Some("address=169.254.169.254:80"), None),
            (&[], Some("address=[::1]:5432"), None),
            (&[], Some("address="), None),
            (&[], Some("address=shop:1&address=db:1"), None),
            (&["db1"], Some("x=1&address=DB1.example.com:5432"), Some(Some("db1"))),
            (&["db1"], Some("address=db1%2eexample.com%3a5432"), Some(Some("db1"))),
            (&["db1"], Some("address=gate.example.com:5432"), None),
            (&["db1"], Some("address=shop:5432"), None),
            (&["db1"], Some("address=db2.example.com:5432"), None),
            (&["db1"], Some("address=db1@evil.example.com:5432"), None),
            (&["gate", "db1"], None, Some(Some("gate"))),
            (&["db1"], None, Some(None)),
        ] {
            let found = check(query, &authority, &settings(endpoints)).ok();
            let expected =
                expected.map(|endpoint| Wanted { endpoint: endpoint.map(str::to_owned), ..Wanted::default() });
            assert_eq!(found, expected, "{endpoints:?} {query:?}");
        }
    }
}
