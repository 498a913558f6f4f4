//! Opening a connection to an endpoint.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;

use super::{
    connection::{Permit, linger},
    endpoint::Endpoint,
};
use crate::{
    net::{ClientConfig, DialError, Stream, connect_tls, dial_host},
    observe,
};

/// A dial under way. Whoever waits for it gets the permit back. Dropped before, it goes on by itself to its end, within its
/// deadline, and closes what it opened: the server may have accepted it already, and counts it until it is closed.
pub(super) struct Dial(Option<(Dialing, Permit)>);

type Dialing = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

impl Dial {
    /// Dials, with TLS where it is spoken.
    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        tls: Option<&Arc<ClientConfig>>,
        deadline: Instant,
        permit: Permit,
    ) -> Self {
        Self(Some((Box::pin(open(endpoint.clone(), tls.cloned(), deadline)), permit)))
    }
}

async fn open(endpoint: Arc<Endpoint>, tls: Option<Arc<ClientConfig>>, deadline: Instant) -> Result<Stream, DialError> {
    let stream = dial_host(&endpoint.host, None, deadline).await?;
    match (&endpoint.tls_name, tls) {
        (Some(name), Some(config)) => connect_tls(stream, config, name, deadline).await,
        _ => Ok(stream),
    }
}

impl Future for Dial {
    type Output = (Result<Stream, DialError>, Permit);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((dialing, _)) = &mut self.0 else { return Poll::Pending };
        let opened = ready!(dialing.as_mut().poll(cx));
        self.0.take().map_or(Poll::Pending, |(_, permit)| Poll::Ready((opened, permit)))
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some((dialing, permit)) = self.0.take()
            && let Some(runtime) = observe::lasting_runtime()
        {
            runtime.spawn(async move {
                if let Ok(stream) = dialing.await {
                    linger(stream).await;
                }
                drop(permit);
            });
        }
    }
}
