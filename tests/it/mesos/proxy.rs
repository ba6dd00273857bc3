//! Proxies before a genuine master: one that cuts connections in the middle of what they carry, one that adds TLS.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::scene::now;

/// A proxy; it ends when it is dropped.
pub(super) struct Proxy {
    pub(super) address: String,
    cuts: Arc<Cuts>,
    worker: AbortHandle,
}

/// What is to be cut.
#[derive(Default)]
struct Cuts {
    /// The next bytes from the master on a subscription are cut in half, and the connection with them.
    stream: AtomicBool,
    /// So many calls reach the master, and their answers come to nothing.
    answers: AtomicU32,
    /// When something was last cut, in seconds since 1970.
    last: Mutex<f64>,
}

impl Cuts {
    /// Whether the answer that is there now is one of those.
    fn takes_answer(&self) -> bool {
        self.noted(self.answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok())
    }

    /// Whether what is there now of a subscription is the last.
    fn cuts_stream(&self) -> bool {
        self.noted(self.stream.swap(false, Ordering::SeqCst))
    }

    fn noted(&self, cut: bool) -> bool {
        if cut {
            *self.last.lock().unwrap() = now();
        }
        cut
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Proxy {
    pub(super) async fn start(target: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cuts = Arc::new(Cuts::default());
        let cutting = Arc::clone(&cuts);
        let worker = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (target, tls, cuts) = (target.clone(), tls.clone(), Arc::clone(&cutting));
                connections.spawn(async move {
                    let Ok(upstream) = TcpStream::connect(target).await else { return };
                    match tls {
                        None => forward(socket, upstream, &cuts).await,
                        Some(acceptor) => {
                            // A client that does not trust the certificate goes away.
                            if let Ok(socket) = acceptor.accept(socket).await {
                                forward(socket, upstream, &cuts).await;
                            }
                        }
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, cuts, worker: worker.abort_handle() }
    }

    /// Breaks the subscription in the middle of what comes next over it, and keeps back the answers to the next calls.
    pub(super) fn cut(&self, answers: u32) {
        self.cuts.answers.store(answers, Ordering::SeqCst);
        self.cuts.stream.store(true, Ordering::SeqCst);
    }

    /// Whether the subscription has been cut.
    pub(super) fn has_cut(&self) -> bool {
        !self.cuts.stream.load(Ordering::SeqCst)
    }

    /// Nothing more is cut; tells when the last thing was.
    pub(super) fn mend(&self) -> f64 {
        self.cuts.stream.store(false, Ordering::SeqCst);
        self.cuts.answers.store(0, Ordering::SeqCst);
        *self.cuts.last.lock().unwrap()
    }
}

async fn forward(client: impl AsyncRead + AsyncWrite + Unpin, master: TcpStream, cuts: &Cuts) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_master, mut to_master) = master.into_split();
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut subscription = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let Some(count) = read.ok().filter(|count| *count > 0) else { return };
                subscription |= up[..count].windows(11).any(|window| window == b"\"SUBSCRIBE\"");
                if to_master.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = from_master.read(&mut down) => {
                let Some(count) = read.ok().filter(|count| *count > 0) else { return };
                if !subscription && cuts.takes_answer() {
                    return;
                }
                let cut = subscription && cuts.cuts_stream();
                let count = if cut { count / 2 } else { count };
                if to_client.write_all(&down[..count]).await.is_err() || to_client.flush().await.is_err() || cut {
                    return;
                }
            }
        }
    }
}

/// What adds TLS under a certificate of its own for `localhost`, and that certificate in PEM.
#[cfg(feature = "tls")]
pub(super) fn self_signed() -> (TlsAcceptor, String) {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(tls)), made.cert.pem())
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn masters_behind_tls_are_trusted_by_a_certificate_that_is_given() {
    use setpoint::mesos::wire::scheduler::{Call, Roles};
    use setpoint::mesos::{SchedulerConfig, Signal};

    use super::client::{Client, framework};
    use crate::support::{Cluster, ClusterSpec};

    let Some(cluster) = Cluster::start_new(ClusterSpec { agents: 0, ..ClusterSpec::default() }).await else { return };
    let (tls, certificate) = self_signed();
    let proxy = Proxy::start(cluster.list(), Some(tls)).await;
    let url = format!("https://{}", proxy.address.replace("127.0.0.1", "localhost"));
    let connect = |trusted: bool| {
        let mut config = SchedulerConfig::new(url.parse().unwrap(), framework());
        config.http.ca_pem = trusted.then(|| certificate.clone().into_bytes());
        Client::with(config)
    };
    let mut client = connect(true);
    client.subscribed().await;
    client.scheduler.call(&Call::Suppress(Roles::default())).await.unwrap();
    client.scheduler.call(&Call::Teardown).await.unwrap();
    let mut stranger = connect(false);
    let failed = |signal| if let Signal::Failed(why) = signal { Some(why) } else { None };
    let why = stranger.wait("the failure", failed).await;
    assert!(why.contains("certificate"), "{why}");
}
