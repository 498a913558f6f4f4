//! Answers to what was composed: asked of the database, or kept.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Place,
    cache::{Ended, Filling, Kept, Look},
    compose::{Job, Single},
    conditional::{Get, Origin, etag, passing, whole},
    params,
};
use crate::{
    backend::{BackendError, Work},
    config::model::{OnExhausted, Query},
    edge::{Request, Response},
    query::{
        problem::Problem,
        request::{Ask, Wish},
    },
};

/// For so long nobody waits for an answer that turned out too large to keep, where answers are not given again.
const PASS: Duration = Duration::from_secs(1);

/// What a GET asks for: the query that its path names, with the parameters of its query string. None: it is no GET of that
/// kind.
///
/// # Errors
/// 404, 405, or 400.
pub(in crate::query) fn wish_of(request: &Request, settings: &Query, place: &Place) -> Result<Option<Wish>, Problem> {
    let (Some(begins), true) = (place.path, matches!(*request.method(), Method::GET | Method::HEAD)) else {
        return Ok(None);
    };
    let missing = || Problem::new(StatusCode::NOT_FOUND, "No such query", "name a query in the path: `…/NAME?id=1`");
    let rest = request.uri().path().get(begins..).and_then(|rest| rest.strip_prefix('/')).ok_or_else(missing)?;
    // In front of the name may stand a database's, which others read.
    let name = rest.rsplit('/').next().filter(|name| !name.is_empty()).ok_or_else(missing)?;
    let deeper = rest.matches('/').count() > usize::from(place.named_by_path);
    let known = place.catalogue.get(name).filter(|_| settings.named.has(name) && !deeper);
    if known.is_some_and(|entry| !entry.settings.read_only) {
        let detail = format!("`{name}` is not read only: send it with POST");
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail).allowing("POST"));
    }
    let name = if deeper { rest } else { name };
    let params = params::of_query(request.uri().query())?;
    Ok(Some(Wish { asks: vec![Ask::Name(name.to_owned(), params)], read_only: true, ..Wish::default() }))
}

/// Does a job. `ask` puts it to the database; it is called once at most. `get`: the fields of the request, if it is a GET.
///
/// # Errors
/// There is no answer.
pub(in crate::query) async fn run<F: Future<Output = Result<Response, Problem>>>(
    job: Job,
    place: &Place,
    get: Option<&HeaderMap>,
    deadline: Instant,
    ask: impl FnOnce(Work, u32) -> F,
) -> Result<Response, Problem> {
    let Job { work, more, named, .. } = job;
    let Some(single) = named else { return ask(work, more).await };
    let figures = single.entry.figures.clone();
    let get = get.map(|headers| Get { headers, private: single.private });
    let answered = kept_or_asked(&single, place, get, deadline, || ask(work, more)).await;
    let answered = match answered {
        Err(problem) => stand_in(&single, place, get, problem),
        answered => answered,
    };
    if answered.is_err() {
        figures.failed.fetch_add(1, Ordering::Relaxed);
    }
    answered
}

async fn kept_or_asked<F: Future<Output = Result<Response, Problem>>>(
    single: &Single,
    place: &Place,
    get: Option<Get<'_>>,
    deadline: Instant,
    ask: impl FnOnce() -> F,
) -> Result<Response, Problem> {
    let figures = &single.entry.figures;
    let Some(key) = single.key else {
        figures.misses.fetch_add(1, Ordering::Relaxed);
        return asked(single, None, get, ask().await?).await;
    };
    loop {
        let filling = match place.cache.look(key, Instant::now()) {
            Look::Fresh(kept) => {
                figures.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(whole(&kept, Origin::Hit, get, Instant::now()));
            }
            Look::Wait(mut flight) => {
                let ended = timeout_at(deadline, flight.wait_for(Option::is_some)).await;
                let ended = ended.map_err(|_| Problem::from(BackendError::Timeout))?.map(|ended| ended.clone());
                match ended {
                    Ok(Some(Ended::Kept(kept))) => {
                        figures.hits.fetch_add(1, Ordering::Relaxed);
                        return Ok(whole(&kept, Origin::Collapsed, get, Instant::now()));
                    }
                    Ok(Some(Ended::Failed(problem))) => return Err(*problem),
                    Ok(Some(Ended::Passed)) => None,
                    // Whoever was to fill it has left: somebody else does.
                    Ok(None) | Err(_) => continue,
                }
            }
            Look::Fill(filling) => Some(filling),
            Look::Pass => None,
        };
        figures.misses.fetch_add(1, Ordering::Relaxed);
        return match ask().await {
            Ok(response) => asked(single, filling, get, response).await,
            Err(problem) => {
                // Nor is it theirs that this one had less time than they have.
                let personal = problem.is_personal() || Instant::now() >= deadline;
                if let Some(filling) = filling.filter(|_| !personal) {
                    filling.fail(problem.clone());
                }
                Err(problem)
            }
        };
    }
}

/// An answer of the database's. It is kept if it came whole before its head was sent.
async fn asked(
    single: &Single,
    filling: Option<Filling>,
    get: Option<Get<'_>>,
    mut response: Response,
) -> Result<Response, Problem> {
    let named = &single.entry.settings;
    let (now, fresh) = (Instant::now(), named.cache.0);
    let is_whole = response.status() == StatusCode::OK && response.body().len().is_some();
    if !is_whole || (get.is_none() && filling.is_none()) {
        if let Some(filling) = filling {
            filling.pass(now, fresh.max(PASS));
        }
        if get.is_some() || single.key.is_some() {
            passing(
                &mut response,
                if single.key.is_some() { Origin::Miss { kept: false } } else { Origin::Bypass },
                get,
            );
        }
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body: Bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(Problem::from(BackendError::Timeout)),
    };
    let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or_else(|| http::HeaderValue::from_static("application/json"));
    let stale = if named.on_exhausted == OnExhausted::Stale { named.max_stale.0 } else { Duration::ZERO };
    let kept = std::sync::Arc::new(Kept { etag: etag(&body), body, content_type, at: now, fresh, stale });
    let from = match filling {
        Some(filling) => {
            let stays = filling.keep(kept.clone());
            Origin::Miss { kept: stays }
        }
        None if single.key.is_some() => Origin::Miss { kept: false },
        None => Origin::Bypass,
    };
    Ok(whole(&kept, from, get, now))
}

/// The last good answer, where there is no connection to be had and the query is to be answered all the same.
fn stand_in(single: &Single, place: &Place, get: Option<Get<'_>>, problem: Problem) -> Result<Response, Problem> {
    let may = single.entry.settings.on_exhausted == OnExhausted::Stale && problem.is_outage();
    let now = Instant::now();
    match single.key.filter(|_| may).and_then(|key| place.cache.last(key, now)) {
        Some(kept) => {
            single.entry.figures.stale.fetch_add(1, Ordering::Relaxed);
            Ok(whole(&kept, Origin::Stale(problem.status), get, now))
        }
        None => Err(problem),
    }
}
