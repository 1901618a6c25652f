//! What the applications say: DNS, TLS, HTTP, SSH, SMTP, NTP, SNMP, syslog, ICMP echo, as far as their own
//! specifications let a dissector follow them.

use std::{net::IpAddr, sync::Arc};

use anyhow::Result;

use super::{
    frame::{Body, MadeBody},
    random::Random,
    talk::{MILLI, SECOND, Side, Speech, Talk},
    wire::{Path, Wire},
    world::{Host, internet_address},
};

/// Names that the secretariats' people look up.
pub(super) const NAMES: [&str; 12] = [
    "www.commonwealth.example",
    "mail.commonwealth.example",
    "portal.benefits.example",
    "maps.transport.example",
    "cdn.news.example",
    "fonts.cdn.example",
    "api.weather.example",
    "update.vendor.example",
    "login.identity.example",
    "storage.cloud.example",
    "video.meetings.example",
    "search.example",
];

/// A body of TLS application data.
pub(super) fn tls_data(random: &mut Random, length: u32) -> Speech {
    Speech::Made(MadeBody { tls: true, key: random.bits(), length: length.max(30) })
}

fn handshake_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    let mut message = vec![kind, high, middle, low];
    message.extend_from_slice(body);
    record(22, &message)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
    let mut record = vec![kind, 3, 3, high, low];
    record.extend_from_slice(body);
    record
}

fn extension(kind: u16, body: &[u8], out: &mut Vec<u8>) {
    out.extend(kind.to_be_bytes());
    out.extend(u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(body);
}

/// TLS 1.3 ClientHello (RFC 8446) for this server name.
fn client_hello(random: &mut Random, name: &str) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random.octets::<32>());
    body.push(32);
    body.extend(random.octets::<32>());
    body.extend([0, 8, 0x13, 0x01, 0x13, 0x02, 0x13, 0x03, 0xc0, 0x2f]);
    body.extend([1, 0]);
    let mut extensions = Vec::new();
    let length = u16::try_from(name.len()).unwrap_or(0);
    let mut server_name = Vec::new();
    server_name.extend((length + 3).to_be_bytes());
    server_name.push(0);
    server_name.extend(length.to_be_bytes());
    server_name.extend(name.as_bytes());
    extension(0, &server_name, &mut extensions);
    extension(10, &[0, 4, 0, 29, 0, 23], &mut extensions);
    extension(13, &[0, 6, 4, 3, 8, 4, 4, 1], &mut extensions);
    extension(16, b"\x00\x0c\x02h2\x08http/1.1", &mut extensions);
    extension(43, &[2, 3, 4], &mut extensions);
    let mut key_share = vec![0, 36, 0, 29, 0, 32];
    key_share.extend(random.octets::<32>());
    extension(51, &key_share, &mut extensions);
    body.extend(u16::try_from(extensions.len()).unwrap_or(0).to_be_bytes());
    body.extend(extensions);
    handshake_message(1, &body)
}

/// ServerHello, ChangeCipherSpec and the encrypted rest of the handshake.
fn server_hello(random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend(random.octets::<32>());
    body.push(32);
    body.extend(random.octets::<32>());
    body.extend([0x13, 0x01, 0]);
    let mut extensions = Vec::new();
    extension(43, &[3, 4], &mut extensions);
    let mut key_share = vec![0, 29, 0, 32];
    key_share.extend(random.octets::<32>());
    extension(51, &key_share, &mut extensions);
    body.extend(u16::try_from(extensions.len()).unwrap_or(0).to_be_bytes());
    body.extend(extensions);
    let mut flight = handshake_message(2, &body);
    flight.extend(record(20, &[1]));
    let certificates: Vec<u8> = (0..random.between(40, 100)).flat_map(|_| random.octets::<32>()).collect();
    flight.extend(record(23, &certificates));
    flight
}

/// The TLS handshake of a connection that is open.
pub(super) fn tls_handshake(talk: &mut Talk<'_>, random: &mut Random, name: &str) -> Result<()> {
    let hello = client_hello(random, name);
    talk.say(Side::Client, random, hello)?;
    talk.pause(random.between(MILLI / 5, 4 * MILLI));
    let flight = server_hello(random);
    talk.say(Side::Server, random, flight)?;
    let mut finished = record(20, &[1]);
    finished.extend(record(23, &random.octets::<53>()));
    talk.say(Side::Client, random, finished)
}

/// One TLS request and its answer of about so many octets.
pub(super) fn tls_exchange(
    talk: &mut Talk<'_>,
    random: &mut Random,
    request: u32,
    answer: u32,
) -> Result<()> {
    let request = tls_data(random, request);
    talk.say(Side::Client, random, request)?;
    talk.pause(random.between(MILLI, 40 * MILLI));
    let answer = tls_data(random, answer);
    talk.say(Side::Server, random, answer)
}

/// How a visit to a web server goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    /// Port; 80 is HTTP, all others TLS.
    pub(super) port: u16,
    /// Requests.
    pub(super) requests: u32,
    /// Octets of each answer, about.
    pub(super) answer: u32,
    /// Longest pause between requests in nanoseconds.
    pub(super) think: i64,
}

/// A whole connection to a web server. Returns when it ended.
pub(super) fn visit(
    wire: &mut Wire,
    random: &mut Random,
    path: Path,
    start: i64,
    visit: Visit,
) -> Result<i64> {
    let name = *random.pick(&NAMES);
    let mut talk = Talk::new(wire, path, random, visit.port, start);
    talk.connect()?;
    if visit.port != 80 {
        tls_handshake(&mut talk, random, name)?;
    }
    for number in 0..visit.requests {
        if number > 0 {
            talk.pause(random.between(MILLI, visit.think.max(2 * MILLI)));
        }
        if visit.port == 80 {
            http_exchange(&mut talk, random, name, visit.answer)?;
        } else {
            let request = random.long_tail(300, 2);
            tls_exchange(&mut talk, random, request, visit.answer)?;
        }
    }
    talk.pause(random.between(MILLI, SECOND));
    let first = if random.per_mille(700) { Side::Client } else { Side::Server };
    if random.per_mille(60) {
        talk.reset(first)?
    } else {
        talk.close(first)?
    }
    Ok(talk.now())
}

/// One HTTP/1.1 request and its answer.
pub(super) fn http_exchange(talk: &mut Talk<'_>, random: &mut Random, name: &str, answer: u32) -> Result<()> {
    let page = random.bits() % 5000;
    let request = format!(
        "GET /page/{page} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
    );
    talk.say(Side::Client, random, request.as_str())?;
    talk.pause(random.between(MILLI, 40 * MILLI));
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: httpd\r\nContent-Type: text/plain\r\nContent-Length: {answer}\r\n\r\n"
    );
    talk.say(Side::Server, random, head.as_str())?;
    let body = MadeBody { tls: false, key: random.bits(), length: answer };
    talk.say(Side::Server, random, Speech::Made(body))
}

/// A datagram each way on this path. The answer is left out where it is empty.
pub(super) fn datagrams(
    wire: &mut Wire,
    path: &mut Path,
    ports: (u16, u16),
    start: i64,
    question: Vec<u8>,
    answer: Vec<u8>,
    think: i64,
) -> Result<i64> {
    let body = Body::Udp { source: ports.0, destination: ports.1, payload: question.into() };
    wire.send(start, path, true, body)?;
    let answered = start + path.turnaround(false) + think;
    if !answer.is_empty() {
        let body = Body::Udp { source: ports.1, destination: ports.0, payload: answer.into() };
        wire.send(answered, path, false, body)?;
    }
    Ok(answered)
}

/// A DNS question (RFC 1035) for an address, and its answer of at least `padding` octets of text.
pub(super) fn dns(random: &mut Random, name: &str, kind: u16, padding: usize) -> (Vec<u8>, Vec<u8>) {
    let [high, low]: [u8; 2] = random.octets();
    let mut section = Vec::new();
    for label in name.split('.') {
        section.push(u8::try_from(label.len()).unwrap_or(63));
        section.extend(label.as_bytes());
    }
    section.push(0);
    section.extend(kind.to_be_bytes());
    section.extend([0, 1]);
    let mut question = vec![high, low, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(&section);
    let texts = padding.div_ceil(200);
    let answers = u16::try_from(1 + texts).unwrap_or(1).to_be_bytes();
    let mut answer = vec![high, low, 0x81, 0x80, 0, 1, answers[0], answers[1], 0, 0, 0, 0];
    answer.extend(&section);
    let data: Vec<u8> = match kind {
        1 => internet_address(random).octets().to_vec(),
        _ => [[0x2d, 0x20].as_slice(), &random.octets::<14>()].concat(),
    };
    let mut resource = |kind: u16, data: &[u8]| {
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 1, 44]);
        answer.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        answer.extend_from_slice(data);
    };
    resource(kind, &data);
    for _ in 0..texts {
        let mut text = vec![200];
        text.extend([b'x'; 200]);
        resource(16, &text);
    }
    (question, answer)
}

/// An NTP version 4 exchange (RFC 5905).
pub(super) fn ntp(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let mut question = vec![0x23, 0, 6, 0xec];
    question.extend([0; 36]);
    question.extend(random.octets::<8>());
    let mut answer = vec![0x24, 2, 6, 0xe9, 0, 0, 2, 11, 0, 0, 1, 90, 129, 6, 15, 28];
    answer.extend(random.octets::<8>());
    answer.extend_from_slice(&question[40..48]);
    answer.extend(random.octets::<16>());
    (question, answer)
}

/// An SNMP version 2c GetRequest for sysUpTime and its response (RFC 3416).
pub(super) fn snmp(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let request_id = random.octets::<3>();
    let message = |kind: u8, value: &[u8]| {
        let mut binding = vec![0x06, 0x08, 0x2b, 6, 1, 2, 1, 1, 3, 0];
        binding.extend_from_slice(value);
        let length = |octets: &[u8]| u8::try_from(octets.len()).unwrap_or(0);
        let sequence = |kind: u8, octets: &[u8]| [&[kind, length(octets)], octets].concat();
        let bindings = sequence(0x30, &sequence(0x30, &binding));
        let mut pdu = vec![0x02, 0x04, 0x01];
        pdu.extend(request_id);
        pdu.extend([0x02, 1, 0, 0x02, 1, 0]);
        pdu.extend(bindings);
        let mut whole = vec![0x02, 1, 1, 0x04, 7];
        whole.extend(b"monitor");
        whole.extend(sequence(kind, &pdu));
        sequence(0x30, &whole)
    };
    let [a, b, c] = random.octets::<3>();
    (message(0xa0, &[0x05, 0]), message(0xa2, &[0x43, 4, 1, a, b, c]))
}

/// ICMP echo requests and their answers, one a second.
pub(super) fn ping(
    wire: &mut Wire,
    random: &mut Random,
    path: &mut Path,
    start: i64,
    count: u8,
    answered: bool,
) -> Result<()> {
    let identifier = random.octets::<2>();
    let v4 = matches!(path.client.ip, IpAddr::V4(_));
    let (request, reply) = if v4 { (8, 0) } else { (128, 129) };
    for number in 0..count {
        let message = |kind: u8| -> Arc<[u8]> {
            let mut message = vec![kind, 0, 0, 0, identifier[0], identifier[1], 0, number];
            message.extend((0..48).map(|octet| b'a' + octet % 26));
            message.into()
        };
        let at = start + i64::from(number) * SECOND;
        wire.send(at, path, true, Body::Icmp(message(request)))?;
        if answered {
            wire.send(at + path.turnaround(false), path, false, Body::Icmp(message(reply)))?;
        }
    }
    Ok(())
}

/// An SSH session of so many exchanges (RFC 4253, encrypted after the banners).
pub(super) fn ssh(
    wire: &mut Wire,
    random: &mut Random,
    path: Path,
    start: i64,
    exchanges: u32,
    think: i64,
) -> Result<()> {
    let mut talk = Talk::new(wire, path, random, 22, start);
    talk.connect()?;
    talk.say(Side::Server, random, "SSH-2.0-OpenSSH_9.2p1\r\n")?;
    talk.say(Side::Client, random, "SSH-2.0-OpenSSH_9.6\r\n")?;
    for _ in 0..exchanges {
        talk.pause(random.between(MILLI, think));
        let question = ssh_packet(random, 3);
        talk.say(Side::Client, random, question)?;
        let packets = random.long_tail(2, 4);
        let answer = ssh_packet(random, packets);
        talk.say(Side::Server, random, answer)?;
    }
    talk.close(Side::Client)
}

fn ssh_packet(random: &mut Random, blocks: u32) -> Vec<u8> {
    (0..blocks).flat_map(|_| random.octets::<32>()).collect()
}

/// A mail is handed over (RFC 5321).
pub(super) fn smtp(wire: &mut Wire, random: &mut Random, path: Path, start: i64) -> Result<()> {
    let mut talk = Talk::new(wire, path, random, 25, start);
    talk.connect()?;
    let lines = [
        ("EHLO relay.commonwealth.example\r\n", "250-mx.example\r\n250 SIZE 52428800\r\n"),
        ("MAIL FROM:<notice@commonwealth.example>\r\n", "250 2.1.0 Ok\r\n"),
        ("RCPT TO:<resident@mail.example>\r\n", "250 2.1.5 Ok\r\n"),
        ("DATA\r\n", "354 End data with <CR><LF>.<CR><LF>\r\n"),
    ];
    talk.say(Side::Server, random, "220 mx.example ESMTP\r\n")?;
    for (command, answer) in lines {
        talk.say(Side::Client, random, command)?;
        talk.pause(random.between(MILLI, 20 * MILLI));
        talk.say(Side::Server, random, answer)?;
    }
    let mut mail = String::from("Subject: Your renewal\r\n\r\n");
    for _ in 0..random.long_tail(8, 4) {
        mail.push_str("Your renewal has been received and is being worked on by the office.\r\n");
    }
    mail.push_str(".\r\n");
    talk.say(Side::Client, random, mail.as_str())?;
    talk.say(Side::Server, random, "250 2.0.0 Ok: queued\r\n")?;
    talk.say(Side::Client, random, "QUIT\r\n")?;
    talk.say(Side::Server, random, "221 2.0.0 Bye\r\n")?;
    talk.close(Side::Server)
}

/// A syslog line over UDP (RFC 5424), as devices send it.
pub(super) fn syslog(random: &mut Random, host: &Host) -> Vec<u8> {
    format!("<134>1 - {} ifmond {} - - link utilisation {} %", host.ip, random.below(9000), random.below(100))
        .into()
}
