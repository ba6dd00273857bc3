//! Binding the address and serving until told to stop.

use std::future::IntoFuture;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::{Extension, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long open requests may take to end once the server has been told to stop.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// An address that others can reach, and nothing that keeps them out.
    #[error(
        "`{addr}` is reachable from other machines and no token is set: set one, or listen on 127.0.0.1; nothing was started"
    )]
    Unprotected {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// Another process has the port.
    #[error("`{addr}` is in use by another process: stop it, or listen on another port; nothing was started")]
    InUse {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// The system refused for another reason.
    #[error("`{addr}` cannot be listened on; nothing was started")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl HttpError {
    /// The exit code of a command that cannot go on without the API: 77 refused, 69 the port is taken, 74 other
    /// I/O errors.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unprotected { .. } => 77,
            Self::InUse { .. } => 69,
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Bind { .. } => 74,
        }
    }
}

/// Takes the address. Beyond loopback that needs a token.
///
/// # Errors
/// See [`HttpError`].
pub async fn bind(addr: SocketAddr, has_token: bool) -> Result<TcpListener, HttpError> {
    if !has_token && !addr.ip().to_canonical().is_loopback() {
        return Err(HttpError::Unprotected { addr });
    }
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::InUse { addr },
        _ => HttpError::Bind { addr, source },
    })
}

/// Told to event streams when the server stops: they would never end by themselves.
#[derive(Clone, Debug)]
pub(super) struct Closing(pub(super) CancellationToken);

/// Serves until `shutdown` resolves; then event streams end at once and other requests within three seconds.
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let closing = CancellationToken::new();
    let signal = {
        let closing = closing.clone();
        async move {
            shutdown.await;
            closing.cancel();
        }
    };
    let router = router.layer(Extension(Closing(closing.clone())));
    let server = axum::serve(listener, router).with_graceful_shutdown(signal).into_future();
    let overdue = async {
        closing.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
    }
}
