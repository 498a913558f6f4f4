//! Streaming standbys of a server of the test's own.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{
    eventually, mortal,
    postgres::{PASSWORD, Postgres, binary},
};

/// A hot standby, which streams from its primary from when it is there.
pub async fn standby_of(primary: &Postgres) -> Postgres {
    let dir = tempfile::Builder::new().prefix("sg-standby-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut backup = mortal(&binary("pg_basebackup"), Some("postgres"));
    backup.args(["-h", "127.0.0.1", "-p", &primary.port.to_string(), "-U", "postgres", "-w", "-R", "-X", "stream"]);
    backup.args(["-c", "fast", "-D"]).arg(dir.path().join("data")).env("PGPASSWORD", PASSWORD).current_dir(dir.path());
    let made = tokio::task::spawn_blocking(move || backup.output()).await.unwrap().unwrap();
    assert!(made.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&made.stderr));
    let standby = Postgres::start_on(dir, primary.settings()).await;
    caught_up(primary, &standby).await;
    standby
}

/// Waits until `standby` has replayed all that `primary` has written by now.
pub async fn caught_up(primary: &Postgres, standby: &Postgres) {
    let (primary, standby) = (primary.admin().await, standby.admin().await);
    let written: String = primary.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let sql = format!("select coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
    let replayed = || async { standby.query_one(sql.as_str(), &[]).await.unwrap().get::<_, bool>(0) };
    eventually("the standby has caught up", replayed, |replayed| *replayed).await;
}
