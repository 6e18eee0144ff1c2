//! `/livez`, `/readyz` and `/metrics`, for the kubelet and for Prometheus.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How long a client may take for its request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Serves until it is aborted. `ready`: the listeners take connections and the bundles are written.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, ready: Arc<AtomicBool>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // no descriptors: others will be closed
            continue;
        };
        let (metrics, ready) = (Arc::clone(&metrics), Arc::clone(&ready));
        let answer = service_fn(move |request: Request<Incoming>| {
            let response = answer(&request, &metrics, ready.load(Ordering::Acquire));
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .serve_connection(TokioIo::new(socket), answer);
            let _ = connection.await; // a client that went away needs no word
        });
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, ready: bool) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "alive\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") if ready => (StatusCode::OK, "ready\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the bundles are being written\n".to_owned())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, metrics.text()),
        (_, "/livez" | "/readyz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = match request.uri().path() {
        "/metrics" => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::{Request, StatusCode};

    use super::{Metrics, answer};

    #[test]
    fn each_path_says_its_own() {
        let metrics = Metrics::registered();
        metrics.carried("bound");
        for (path, ready, wanted) in [
            ("/livez", false, StatusCode::OK),
            ("/readyz", false, StatusCode::SERVICE_UNAVAILABLE),
            ("/readyz", true, StatusCode::OK),
            ("/metrics", true, StatusCode::OK),
            ("/", true, StatusCode::NOT_FOUND),
        ] {
            let request = Request::builder().uri(path).body(()).unwrap();
            assert_eq!(answer(&request, &metrics, ready).status(), wanted, "{path}");
        }
        assert!(metrics.text().contains("hawser_sidecar_connections_total{how=\"bound\"} 1"), "{}", metrics.text());
    }
}
