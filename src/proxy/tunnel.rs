//! A WebSocket: a request that becomes a tunnel if the upstream agrees.

use http::{StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    Forward,
    exchange::Exchange,
    failure::Failure,
    splice::{Ended, splice},
};
use crate::{
    access::Identity,
    edge::{Body, HANDOVER, Response, has_token},
};

/// Asks the upstream, on a fresh connection. Its 101 opens the tunnel; any other answer is passed on as it is, and nothing is
/// tunnelled before (CVE-2026-2833 was a proxy that did).
pub(super) async fn open(
    exchange: &mut Exchange<'_>,
    client: OnUpgrade,
    context: &Forward<'_>,
) -> Result<Response, Failure> {
    let upstream = exchange.upstream;
    let permit = upstream.checkout_permit(exchange.now, &exchange.live).await?;
    let (mut connection, _) = exchange.connect(permit, upstream.next_endpoint(exchange.now), false).await?;
    let response = exchange.head(&mut connection, true).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return exchange.answer(response, connection).await.map_err(|(failure, _)| failure);
    }
    if !has_token(response.headers(), &header::UPGRADE, "websocket") {
        return Err(Failure::Switched);
    }
    let Some((held, stream, early)) = connection.into_tunnel().await else { return Err(Failure::Switched) };
    let (mut parts, _) = response.into_parts();
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    super::message::rewrite_answer(&mut parts);
    parts.headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    parts.headers.extend(upgrade.map(|protocol| (header::UPGRADE, protocol)));

    let (entered, tunnels, identity) = (context.tunnels.enter(), context.tunnels.clone(), context.identity.clone());
    let (idle, name) = (exchange.live.upgrade_idle_timeout, upstream.name().clone());
    tokio::spawn(async move {
        // Both counts go when the tunnel does.
        let _counted = (held, entered);
        let mut moved = (0, 0);
        let whole = async {
            let Ok(Ok(client)) = timeout(HANDOVER, client).await else { return "client_gone" };
            match splice(TokioIo::new(client), stream, early, idle, &mut moved).await {
                Ended::Closed => "closed",
                Ended::Idle => "idle",
                Ended::Broken(error) => {
                    tracing::debug!(%error, "tunnel broke");
                    "broken"
                }
            }
        };
        let ended = tokio::select! {
            biased;
            () = tunnels.closing() => "drained",
            why = Identity::end_of(identity.as_ref()) => why.word(),
            ended = whole => ended,
        };
        tracing::debug!(upstream = %name, ended, sent = moved.0, received = moved.1, "tunnel ended");
    });
    Ok(Response::from_parts(parts, Body::empty()))
}
