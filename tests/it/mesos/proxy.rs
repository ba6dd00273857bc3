//! Proxies before a genuine master: one that cuts a stream in the middle of a record, one that adds TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use setpoint::mesos::SchedulerConfig;
use setpoint::mesos::Signal;
use setpoint::mesos::wire::TaskState;
use setpoint::mesos::wire::scheduler::{Call, Roles};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::client::{Client, framework};
use crate::support::{Cluster, ClusterSpec};

/// A proxy; it ends when it is dropped.
struct Proxy {
    address: String,
    /// The next bytes from the master on a subscription are cut in half, and the connection with them.
    cut: Arc<AtomicBool>,
    worker: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Proxy {
    async fn start(target: String, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = Arc::new(AtomicBool::new(false));
        let cutting = Arc::clone(&cut);
        let worker = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (target, tls, cut) = (target.clone(), tls.clone(), Arc::clone(&cutting));
                connections.spawn(async move {
                    let Ok(upstream) = TcpStream::connect(target).await else { return };
                    match tls {
                        None => forward(socket, upstream, cut).await,
                        Some(acceptor) => {
                            // A client that does not trust the certificate goes away.
                            if let Ok(socket) = acceptor.accept(socket).await {
                                forward(socket, upstream, cut).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, cut, worker: worker.abort_handle() }
    }
}

async fn forward(client: impl AsyncRead + AsyncWrite + Unpin, master: TcpStream, cut: Arc<AtomicBool>) {
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
                let cuts = subscription && cut.swap(false, Ordering::SeqCst);
                let count = if cuts { count / 2 } else { count };
                if to_client.write_all(&down[..count]).await.is_err() || to_client.flush().await.is_err() || cuts {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_in_the_middle_of_a_record_is_replaced_under_the_same_id() {
    let Some(cluster) = Cluster::start_new(ClusterSpec::default()).await else { return };
    let proxy = Proxy::start(cluster.list(), None).await;
    let mut client = Client::connect(&proxy.address);
    let id = client.subscribed().await.framework_id;
    client.launch("kept").await;
    client.status("kept", TaskState::Running).await;
    for serial in 2..5 {
        proxy.cut.store(true, Ordering::SeqCst);
        // Something comes over the stream then: an offer.
        client.scheduler.call(&Call::Revive(Roles::default())).await.unwrap();
        let why = client.lost().await;
        assert!(why.contains("broke") || why.contains("middle of a record"), "{why}");
        let again = client.subscribed().await;
        assert_eq!((&again.framework_id, again.serial), (&id, serial));
        client.reconcile("kept").await;
        client.status("kept", TaskState::Running).await;
    }
    client.scheduler.call(&Call::Teardown).await.unwrap();
}

#[tokio::test]
async fn masters_behind_tls_are_trusted_by_a_certificate_that_is_given() {
    let Some(cluster) = Cluster::start_new(ClusterSpec { agents: 0, ..ClusterSpec::default() }).await else { return };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let proxy = Proxy::start(cluster.list(), Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let url = format!("https://{}", proxy.address.replace("127.0.0.1", "localhost"));
    let connect = |trusted: bool| {
        let mut config = SchedulerConfig::new(url.parse().unwrap(), framework());
        config.http.ca_pem = trusted.then(|| made.cert.pem().into_bytes());
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
