//! Every way we know to make a server call itself or its neighbours, one a line.

use std::net::IpAddr;

use weft_proto::resource::{Host, WebhookUrl};

use super::address::check;

/// Addresses of webhooks that must lead nowhere: refused as text, or for the address they name.
const URLS: &[&str] = &[
    // Loopback, in all its writings.
    "https://127.0.0.1/",
    "https://127.0.0.2/",
    "https://127.255.255.254/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://127.000.000.001/",
    "https://127.0.0.0x1/",
    "https://00000177.0.0.1/",
    "https://0X7F.1/",
    "https://127.0.0.1:443/",
    "https://127.0.0.1:8443/x",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::1%25lo]/",
    "https://[::1%lo]/",
    "https://[::0001]/",
    "https://::1/",
    "https://[::1/",
    "https://::1]/",
    "https://[[::1]]/",
    // Unspecified: many systems dial themselves.
    "https://0.0.0.0/",
    "https://0/",
    "https://0x0/",
    "https://00/",
    "https://0.1/",
    "https://[::]/",
    // IPv4 in the clothes of IPv6.
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:7f00:1::1]/",
    "https://[2001::1]/",
    "https://[2a00:1450::5efe:127.0.0.1]/",
    "https://[2a00:1450::200:5efe:10.0.0.1]/",
    "https://[::ffff:8.8.8.8]/",
    // Private, shared, link-local.
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://172.16.0.1/",
    "https://172.31.255.1/",
    "https://192.168.0.1/",
    "https://192.168.255.255/",
    "https://100.64.0.1/",
    "https://100.127.9.9/",
    "https://169.254.0.1/",
    "https://167772161/",
    "https://0xa000001/",
    "https://012.0.0.1/",
    "https://[fc00::1]/",
    "https://[fd12:3456::1]/",
    "https://[fe80::1]/",
    "https://[febf::1]/",
    "https://[fec0::1]/",
    // Services of clouds.
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://169.254.43518/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    "https://168.63.129.16/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::a9fe:a9fe]/",
    // Reserved for something else.
    "https://0.1.2.3/",
    "https://192.0.0.1/",
    "https://192.0.2.1/",
    "https://198.51.100.7/",
    "https://203.0.113.7/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.19.255.255/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[2001:2::1]/",
    "https://[2001:10::1]/",
    "https://[2001:20::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[5f00::1]/",
    "https://[4000::1]/",
    "https://[1::1]/",
    "https://[3ffe::1]/",
    "https://[2620:4f:8000::1]/",
    // Who is meant: users, escapes, separators, white space.
    "https://h.example@127.0.0.1/",
    "https://127.0.0.1@h.example/",
    "https://a:b@h.example/",
    "https://@h.example/",
    "https://h.example%40127.0.0.1/",
    "https://127.0.0.1%2f@h.example/",
    "https://h.example\\@127.0.0.1/",
    "https://h.example\\.internal/",
    "https:\\\\h.example/",
    "https://h.example /",
    " https://h.example/",
    "https://h.example/ x",
    "https://h.example/\r\nHost: a",
    "https://h.example\t/",
    "https://h.example\u{0}/",
    "https://h.example/\u{7f}",
    "https://%31%32%37.0.0.1/",
    "https://127%2e0%2e0%2e1/",
    "https://h%00.example/",
    "https://h.example#@127.0.0.1/",
    "https://h.example/#",
    "https://h.example?@127.0.0.1/",
    // Letters that look like others.
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://１２７.0.0.1/",
    "https://ⓛocalhost/",
    "https://h.example\u{200b}/",
    "https://h\u{ad}.example/",
    "https://exämple.org/",
    // Names that are none.
    "https://.h.example/",
    "https://h..example/",
    "https://h.example./",
    "https://-h.example/",
    "https://h-.example/",
    "https://h.example:/",
    "https:///x",
    "https://",
    "https:/h.example/",
    "https:h.example",
    "//h.example/",
    "h.example/",
    "/x",
    "",
    "https://*/",
    "https://h,i/",
    "https://[h.example]/",
    "https://[::1].example/",
    "https://[::1]x/",
    "https://h.1/",
    "https://h.0x1/",
    "https://a.b.c.d.0/",
    // Ports.
    "https://h.example:0/",
    "https://h.example:65536/",
    "https://h.example:+443/",
    "https://h.example:-1/",
    "https://h.example:443:80/",
    "https://h.example:0443/",
    "https://h.example:443x/",
    "https://h.example: 443/",
    "https://h.example:٤٤٣/",
    // Other schemes.
    "http://h.example/",
    "http://93.184.215.14/",
    "HTTPS://h.example/",
    "ftp://h.example/",
    "file:///etc/passwd",
    "gopher://h.example/",
    "unix:/run/x.sock",
    "javascript://h.example/",
    "wss://h.example/",
    "https+unix://x/",
    "http://[::ffff:127.0.0.1]/",
    "http://localhost.example/",
    "http://127.0.0.1.example/",
    "jar:https://h.example/",
];

/// What names may resolve to, and must not be dialled: names say nothing about it.
const RESOLVED: &[&str] = &[
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "0.0.0.0",
    "fe80::1",
    "fd00::1",
    "64:ff9b::a00:1",
    "2002:c0a8:101::1",
    "100.64.1.1",
    "::",
];

const GOOD: &[&str] = &[
    "https://h.example/",
    "https://h.example:8443/a?b=c",
    "https://93.184.215.14/",
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    "https://localhost.example/",
    "https://127.0.0.1.example/",
    "https://xn--exmple-cua.org/",
    "https://h.example/@127.0.0.1",
    "https://h.example/%2e%2e/",
    "https://1.1.1.1/",
    "https://172.32.0.1/",
    "https://100.128.0.1/",
    "https://192.0.1.1/",
    "https://223.255.255.255/",
    "https://9.9.9.9/",
    "https://a1/",
];

fn leads_somewhere(text: &str) -> Result<(), &'static str> {
    let url = WebhookUrl::parse(text)?;
    match url.host() {
        // It is looked at again when it is resolved.
        Host::Name(_) => Ok(()),
        Host::Address(address) => check(*address, &[]),
    }
}

#[test]
fn no_trick_leads_anywhere() {
    assert!(URLS.len() >= 150, "{}", URLS.len());
    for text in URLS {
        assert!(leads_somewhere(text).is_err(), "{text:?} leads somewhere");
    }
    for text in RESOLVED {
        let address: IpAddr = text.parse().unwrap();
        assert!(check(address, &[]).is_err(), "{text} may be dialled");
    }
}

#[test]
fn what_is_meant_well_is_taken() {
    for text in GOOD {
        assert_eq!(leads_somewhere(text), Ok(()), "{text}");
    }
}
