//! Certificates where they do not belong: each kind against each port.

use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::node::{Files, HANGS, Running, client, configs};
use crate::pki::{Authority, BOTH, Signed, connector};

const FOR_SERVERS: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ServerAuth];
const FOR_CLIENTS: &[ExtendedKeyUsagePurpose] = &[ExtendedKeyUsagePurpose::ClientAuth];

/// Whether a port goes on after the handshake with somebody who shows this.
async fn is_let_in(address: &str, trusted: &Authority, shown: Option<&Signed>) -> bool {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = connector(trusted, shown);
    let Ok(mut stream) = timeout(HANGS, connector.connect(name, tcp)).await.unwrap() else {
        return false;
    };
    // Preface and empty settings; those of the server are the answer.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    if stream.write_all(hello).await.is_err() {
        return false;
    }
    let mut head = [0; 9];
    let answer = timeout(HANGS, stream.read_exact(&mut head)).await.unwrap();
    answer.is_ok() && head[3] == 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_opens_the_ports_that_it_is_for() {
    let files = Files::new();
    let [servers, clients, peers, foreign] =
        ["servers", "clients", "peers", "peers"].map(Authority::new);
    let mut config = configs(1, &files).remove(0);
    config.security = files.security(&servers.node(), &peers.pem, &peers.node());
    config.security.client_ca = Some(files.write("client-ca.pem", &clients.pem));
    let running = Running::start(config.clone());
    // The client speaks to the port that opens last.
    client(&config, &servers, None).status().await.unwrap();

    let host = &["127.0.0.1"];
    let rows = [
        ("nothing", None, [true, true, false]),
        ("a node", Some(peers.node()), [false, false, true]),
        ("a client", Some(clients.sign(host, FOR_CLIENTS)), [true, true, false]),
        ("a client and server of clients", Some(clients.sign(host, BOTH)), [true, true, false]),
        ("a server of clients", Some(clients.sign(host, FOR_SERVERS)), [false, false, false]),
        ("a server of nodes", Some(peers.sign(host, FOR_SERVERS)), [false, false, false]),
        ("a client of nodes", Some(peers.sign(host, FOR_CLIENTS)), [false, false, true]),
        ("the client port itself", Some(servers.node()), [false, false, false]),
        ("another authority of that name", Some(foreign.node()), [false, false, false]),
    ];
    let listen = &config.listen;
    let ports = [(&listen.grpc, &servers), (&listen.http, &servers), (&listen.peer, &peers)];
    let mut wrong = Vec::new();
    for (name, shown, expected) in &rows {
        for ((address, trusted), expected) in ports.iter().zip(expected) {
            let found = is_let_in(address, trusted, shown.as_ref()).await;
            if found != *expected {
                wrong.push(format!("{name} at {address}: {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{listen:?}: {wrong:?}");
    // Each server shows the certificate of its own side.
    assert!(!is_let_in(&listen.peer, &servers, rows[1].1.as_ref()).await);
    assert!(!is_let_in(&listen.grpc, &peers, None).await);
    running.stop().await;
}
