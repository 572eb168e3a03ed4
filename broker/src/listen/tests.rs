//! The accept loop over real sockets: limits, slow and silent ones, what is known of a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::handshakes::HANDSHAKES_MAX;
use super::{ClientCertificate, Limits, Listener, Port, Tls};

/// Nothing here takes that long unless it hangs.
const HANGS: Duration = Duration::from_mins(1);
/// So long that nothing is closed for it.
const LONG: Duration = Duration::from_hours(1);
const MANY: Limits = Limits { connections: 10_000, per_address: 10_000, prove_max: LONG };

async fn listener(limits: Limits, tls: Option<Tls>) -> (Listener, SocketAddr) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    (Listener::new(tcp, Port::Grpc, limits, tls), address)
}

/// A certificate for a server, and the settings of a client that trusts it.
fn certificate() -> (Tls, TlsConnector) {
    let key = KeyPair::generate().unwrap();
    let signed =
        CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], private)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signed.der().clone()).unwrap();
    let client =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let server = Arc::new(server);
    (Arc::new(move || Arc::clone(&server)), TlsConnector::from(Arc::new(client)))
}

/// Whether the other end has hung up.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let end = timeout(HANGS, stream.read_u8()).await.unwrap();
    end.is_err()
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_the_next_is_taken_once_one_has_left() {
    let limits = Limits { per_address: 2, ..MANY };
    let (mut listener, address) = listener(limits, None).await;
    let _first = TcpStream::connect(address).await.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let held = (listener.accept().await, listener.accept().await);

    let mut third = TcpStream::connect(address).await.unwrap();
    let refused = tokio::select! {
        _ = listener.accept() => false,
        closed = is_closed(&mut third) => closed,
    };
    assert!(refused);

    drop(held.1);
    let _fourth = TcpStream::connect(address).await.unwrap();
    let taken = timeout(HANGS, listener.accept()).await.unwrap();
    assert!(taken.connection().remote().ip().is_loopback());
    drop(second);
}

#[tokio::test]
async fn who_proves_nothing_is_cut_off_and_who_does_is_not() {
    let limits = Limits { prove_max: Duration::from_millis(50), ..MANY };
    let (mut listener, address) = listener(limits, None).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut silent = listener.accept().await;
    let mut known = TcpStream::connect(address).await.unwrap();
    let mut proven = listener.accept().await;
    proven.connection().prove();

    let cut = timeout(HANGS, silent.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::TimedOut);
    let cut = silent.write_u8(1).await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::TimedOut);
    // It is read from for as long as the other was, before anything comes.
    let nothing = timeout(Duration::from_millis(100), proven.read_u8()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    known.write_u8(7).await.unwrap();
    assert_eq!(timeout(HANGS, proven.read_u8()).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn silent_handshakes_keep_nobody_out() {
    let (tls, connector) = certificate();
    let (mut listener, address) = listener(MANY, Some(tls)).await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 8 {
        silent.push(TcpStream::connect(address).await.unwrap());
        // Accepted, but not more than that.
        let accepted = timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(accepted.is_err());
    }

    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let (client, server) = tokio::join!(connector.connect(name, tcp), listener.accept());

    client.unwrap();
    assert!(server.connection().certificate().is_none());
    // The oldest ones had to go, the newest are still there.
    assert!(is_closed(&mut silent[0]).await);
    let newest = silent.last_mut().unwrap();
    assert!(timeout(Duration::from_millis(20), newest.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_failed_handshake_gives_its_place_back() {
    let (tls, _connector) = certificate();
    let (mut listener, address) = listener(Limits { connections: 1, ..MANY }, Some(tls)).await;

    for _ in 0..3 {
        let mut junk = TcpStream::connect(address).await.unwrap();
        junk.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        tokio::select! {
            _ = listener.accept() => unreachable!("no handshake"),
            _ = junk.read_to_end(&mut answer) => {}
        }
        // An alert, not a refusal for want of a place.
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    }
}

#[test]
fn names_are_read_exactly_and_expiry_with_them() {
    let mut params =
        CertificateParams::new(["10.0.0.1".to_owned(), "a.example".to_owned()]).unwrap();
    for uri in ["weft://node/7", "spiffe://x/A b"] {
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    }
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();

    let read = ClientCertificate::read(signed.der()).unwrap();

    assert_eq!(read.uris, ["weft://node/7", "spiffe://x/A b"]);
    assert_eq!(read.not_after.as_micros(), 1_893_542_400_000_000);
    for (host, covered) in [
        ("10.0.0.1", true),
        ("a.example", true),
        ("10.0.0.2", false),
        ("b.a.example", false),
        ("", false),
        ("weft://node/7", false),
    ] {
        assert_eq!(read.covers(host), covered, "{host}");
    }
    let longer = [&signed.der()[..], b"x"].concat().into();
    assert!(ClientCertificate::read(&longer).is_err());
}

#[test]
fn limits_stay_below_what_the_process_may_open() {
    let listen = crate::config::Listen { connections: usize::MAX, ..Default::default() };
    let limits = Limits::new(Port::Grpc, &listen);
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;

    assert!(open.is_none_or(|open| limits.connections as u64 <= open / 4), "{limits:?}");
    assert!(limits.per_address <= limits.connections);
}

/// The peer port has a limit of its own, which no key of the configuration changes.
#[tokio::test]
async fn the_peer_port_takes_so_many_connections_and_no_more() {
    let few =
        crate::config::Listen { connections: 1, connections_per_address: 1, ..Default::default() };
    let limits = Limits::new(Port::Peer, &few);
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = open.map_or(usize::MAX, |open| usize::try_from(open / 4).unwrap());
    assert_eq!((limits.connections, limits.per_address), (share.min(1_024), share.min(1_024)));

    // As many as that would be more than other tests leave over.
    let limits = Limits { connections: 3, per_address: 3, prove_max: LONG };
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (tls, connector) = certificate();
    let mut listener = Listener::new(tcp, Port::Peer, limits, Some(tls));
    let name = || ServerName::try_from("127.0.0.1").unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let connecting = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            connector.connect(name(), tcp).await.unwrap()
        };
        held.push(tokio::join!(connecting, listener.accept()));
    }

    let mut more = TcpStream::connect(address).await.unwrap();
    let refused = tokio::select! {
        _ = listener.accept() => false,
        closed = is_closed(&mut more) => closed,
    };
    assert!(refused);
}

/// The limit of a process is for all of its threads, so this is a process of its own.
#[test]
fn a_process_without_file_descriptors_accepts_again_once_it_has_some() {
    let name = "listen::tests::without_file_descriptors";
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();

    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}\n{}", String::from_utf8_lossy(&ended.stderr));
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn without_file_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut listener, address) = listener(MANY, None).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
        let mut files = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            files.push(file);
        }

        // The connection waits in the queue of the system, where it makes the port readable: without
        // a pause each look at it would end in the same error at once.
        let pausing = async {
            while listener.paused_until.is_none() {
                let accepted = timeout(Duration::from_millis(10), listener.accept()).await;
                assert!(accepted.is_err(), "there was no file descriptor for it");
            }
        };
        timeout(HANGS, pausing).await.unwrap();
        assert!(!files.is_empty());

        drop(files);
        let mut accepted = timeout(HANGS, listener.accept()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(timeout(HANGS, accepted.read_u8()).await.unwrap().unwrap(), b'x');
        assert!(listener.paused_until.is_none());
    });
}
