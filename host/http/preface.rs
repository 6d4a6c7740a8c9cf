//! `preface`: what a proxy says before the first byte of a connection, by the PROXY protocol of
//! HAProxy, version 1 or 2: for whom it connects.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Bytes of a header of version 1, its end of line included (section 2.1).
const MAX_TEXT: usize = 107;

/// Bytes of a header of version 2 after its first 16: addresses of sockets have 216, and what else
/// proxies tell (names, the certificate's subject, identifiers of clouds) a few hundred.
const MAX_BINARY: usize = 4096;

/// What version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Of version 2: the signature, version and command, family, length.
const BINARY_HEAD: usize = 16;

/// What version 1 begins with.
const WORD: &[u8] = b"PROXY ";

/// Why a connection has no preface that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPreface {
    #[error("it does not begin with the PROXY protocol")]
    Missing,
    #[error("its PROXY header has more than {0} bytes")]
    TooLong(usize),
    #[error("its PROXY header of version 1 cannot be read: {0}")]
    Text(#[from] v1::BinaryParseError),
    #[error("its PROXY header of version 2 cannot be read: {0}")]
    Binary(#[from] v2::ParseError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads the preface, and nothing that follows it: who the proxy speaks for, or none if for itself
/// (a health check) or for somebody without an address.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, BadPreface> {
    let mut bytes = [0; BINARY_HEAD + MAX_BINARY];
    // The shortest header of either version is longer.
    let mut length = 0;
    while length < SIGNATURE.len() {
        let read = stream.read(&mut bytes[length..SIGNATURE.len()]).await?;
        length += read;
        let start = &bytes[..length];
        let is_text = WORD.iter().zip(start).all(|(word, byte)| word == byte);
        if read == 0 || !(is_text || SIGNATURE.starts_with(start)) {
            return Err(BadPreface::Missing);
        }
    }
    if !bytes.starts_with(SIGNATURE) {
        return text(stream, &mut bytes[..MAX_TEXT], length).await;
    }
    stream.read_exact(&mut bytes[length..BINARY_HEAD]).await?;
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if rest > MAX_BINARY {
        return Err(BadPreface::TooLong(BINARY_HEAD + MAX_BINARY));
    }
    let whole = BINARY_HEAD + rest;
    stream.read_exact(&mut bytes[BINARY_HEAD..whole]).await?;
    Ok(binary(&v2::Header::try_from(&bytes[..whole])?))
}

/// Version 1 has no length: what has come is looked at before it is taken.
async fn text(
    stream: &mut TcpStream,
    bytes: &mut [u8],
    mut length: usize,
) -> Result<Option<SocketAddr>, BadPreface> {
    while !bytes[..length].ends_with(b"\n") {
        if length == bytes.len() {
            return Err(BadPreface::TooLong(MAX_TEXT));
        }
        let seen = stream.peek(&mut bytes[length..]).await?;
        if seen == 0 {
            return Err(BadPreface::Missing);
        }
        let new = &bytes[length..length + seen];
        let line = new.iter().position(|byte| *byte == b'\n');
        let taken = line.map_or(seen, |end| end + 1);
        stream
            .read_exact(&mut bytes[length..length + taken])
            .await?;
        length += taken;
    }
    let header = v1::Header::try_from(&bytes[..length])?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(v4) => Some((v4.source_address, v4.source_port).into()),
        v1::Addresses::Tcp6(v6) => Some((v6.source_address, v6.source_port).into()),
    })
}

fn binary(header: &v2::Header<'_>) -> Option<SocketAddr> {
    match (header.command, &header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (_, v2::Addresses::IPv4(v4)) => Some((v4.source_address, v4.source_port).into()),
        (_, v2::Addresses::IPv6(v6)) => Some((v6.source_address, v6.source_port).into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// What is read of `pieces`, sent one after the other, and what is left of them.
    async fn told(pieces: &[&[u8]]) -> (Result<String, String>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent = async {
            for piece in pieces {
                // Who has closed takes no more.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
        };
        let (read, ()) = tokio::join!(read(&mut stream), sent);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        let source =
            |source: Option<SocketAddr>| source.map_or("-".to_owned(), |it| it.to_string());
        (read.map(source).map_err(|bad| bad.to_string()), rest)
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend(body);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 127, 0, 0, 1, 0x12, 0x34, 0, 80];

    fn v6() -> Vec<u8> {
        let mut body = vec![0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        body.extend([0; 16]);
        body.extend([0x12, 0x34, 0, 80]);
        body
    }

    #[tokio::test]
    async fn both_versions_say_for_whom_they_connect() {
        let mut with_more = V4.to_vec();
        with_more.extend([4, 0, 2, 1, 2]);
        let mut long = V4.to_vec();
        long.resize(MAX_BINARY, 0);
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 127.0.0.1 4660 80\r\n".to_vec(),
                "192.0.2.1:4660",
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n".to_vec(),
                "[2001:db8::1]:4660",
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), "-"),
            (b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n".to_vec(), "-"),
            (v2(1, 0x11, &V4), "192.0.2.1:4660"),
            (v2(1, 0x12, &V4), "192.0.2.1:4660"),
            (v2(1, 0x21, &v6()), "[2001:db8::1]:4660"),
            (v2(1, 0x11, &with_more), "192.0.2.1:4660"),
            (v2(1, 0x11, &long), "192.0.2.1:4660"),
            (v2(0, 0x11, &V4), "-"),
            (v2(0, 0, &[]), "-"),
            (v2(1, 0, &[]), "-"),
            (v2(1, 0x31, &[0; 216]), "-"),
        ] {
            let after = b"GET / HTTP/1.1\r\n\r\n";
            let whole = told(&[&header, after]).await;
            assert_eq!(
                whole,
                (Ok(expected.to_owned()), after.to_vec()),
                "{header:?}"
            );
            let together = told(&[&[&header[..], after].concat()]).await;
            assert_eq!(together, whole, "{header:?}");
            // Cut at every byte: in two pieces it is the same, and a part of it is nothing.
            if header.len() > MAX_TEXT + BINARY_HEAD {
                continue;
            }
            for cut in 1..header.len() {
                let (start, end) = header.split_at(cut);
                assert_eq!(told(&[start, end, after]).await, whole, "{header:?} {cut}");
                assert!(told(&[start]).await.0.is_err(), "{header:?} {cut}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_preface_is_refused() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; 200], b"\r\n"].concat();
        let mut too_long = v2(1, 0x11, &V4);
        too_long[14..16].copy_from_slice(&u16::try_from(MAX_BINARY + 1).unwrap().to_be_bytes());
        for header in [
            b"".to_vec(),
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1 80\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 127.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 127.0.0.1 01 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 127.0.0.1 1 80 9\r\n".to_vec(),
            b"PROXY TCP4  192.0.2.1 127.0.0.1 1 80\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 127.0.0.1 1 80\r\n".to_vec(),
            b"proxy tcp4 192.0.2.1 127.0.0.1 1 80\r\n".to_vec(),
            long,
            too_long,
            v2(2, 0x11, &V4),
            v2(1, 0x41, &V4),
            v2(1, 0x13, &V4),
            v2(1, 0x11, &V4[..11]),
            v2(1, 0x21, &V4),
            [SIGNATURE.as_slice(), &[0x11, 0x11, 0, 0]].concat(),
        ] {
            let (told, _) = told(&[&header]).await;
            assert!(told.is_err(), "{}: {told:?}", header.escape_ascii());
        }
    }
}
