//! What the dialect reads of strangers' bytes, for [`crate::fuzz`].

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::{
    body::{self, Asked},
    connection::ConnectionString,
    head::Head,
    prepare,
};

/// Queries in a batch.
const MOST: usize = 16;

/// A request's body: what is taken is JSON, and no more than is allowed; nothing of it is lost on the way to the database; what is
/// refused is told why.
pub fn neon_body(bytes: &[u8]) {
    match body::parse(bytes, MOST) {
        Ok(asked) => {
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok());
            let queries = match &asked {
                Asked::Single(_) => 1,
                Asked::Batch(queries) => queries.len(),
            };
            let single = matches!(asked, Asked::Single(_));
            let (work, _) = prepare(asked, Head::default());
            assert!(work.statements().len() == queries && queries <= MOST);
            assert_eq!(work.is_single(), single);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A connection string: what is taken names a user, a host and a database, and says the same when it is written anew.
pub fn connection_string(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = ConnectionString::parse(text) else { return };
    assert!(!read.user.is_empty() && !read.host.is_empty() && !read.database.is_empty());
    assert!(!read.endpoint().contains(|c: char| c == '.' || c.is_ascii_uppercase()));
    let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    let password = read.password.as_deref().map_or_else(String::new, |password| format!(":{}", encode(password)));
    let (user, database) = (encode(read.user.as_bytes()), encode(read.database.as_bytes()));
    let again = format!("postgresql://{user}{password}@{}/{database}", read.host);
    assert_eq!(ConnectionString::parse(&again), Ok(read));
}
