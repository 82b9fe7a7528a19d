use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

/// No authentication, alone among the methods.
const GREETING: &[u8] = &[5, 1, 0];
/// What a request begins with that asks for a tunnel to a name.
const CONNECT_NAME: [u8; 4] = [5, 1, 0, 3];
/// The answer to a greeting that offers no authentication.
const GREETED: &[u8] = &[5, 0];

/// A request for a tunnel to a name, as its bytes.
fn to_name(name: &[u8], port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [
        &CONNECT_NAME[..],
        &[length],
        name,
        port.to_be_bytes().as_slice(),
    ]
    .concat()
}

/// What becomes of a client that sends `bytes` and no more: the request, and all that it is answered.
async fn handshake(bytes: &[u8]) -> (Option<Connect<DuplexStream>>, Vec<u8>) {
    let (mut client, server) = duplex(1024);
    client.write_all(bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let connect = Connect::read(server).await;
    let mut answered = vec![0; 1024];
    // A request that waits for its reply keeps the connection open.
    let length = if connect.is_some() {
        client.read(&mut answered).await.unwrap()
    } else {
        answered.clear();
        client.read_to_end(&mut answered).await.unwrap()
    };
    answered.truncate(length);
    (connect, answered)
}

/// The target of a request that follows a usual greeting.
async fn target(request: &[u8]) -> Option<(String, bool)> {
    let (connect, answered) = handshake(&[GREETING, request].concat()).await;
    assert!(answered.starts_with(GREETED), "{answered:?}");
    connect.map(|connect| (connect.authority().to_string(), connect.is_address()))
}

/// The reply of a request that follows a usual greeting and asks for no tunnel.
async fn reply(request: &[u8]) -> Option<u8> {
    let (connect, answered) = handshake(&[GREETING, request].concat()).await;
    assert!(connect.is_none(), "{request:?}");
    let reply = answered.strip_prefix(GREETED).unwrap();
    if reply.is_empty() {
        return None;
    }
    let [5, code, 0, 1, 0, 0, 0, 0, 0, 0] = *reply else {
        panic!("not a reply: {reply:?}");
    };
    Some(code)
}

#[tokio::test]
async fn a_name_is_passed_on_as_it_came() {
    let some = |authority: &str, is_address| Some((authority.to_owned(), is_address));
    let named = target(&to_name(b"API.stripe.com", 443)).await;
    assert_eq!(named, some("API.stripe.com:443", false));
    let v4 = target(&[5, 1, 0, 1, 192, 0, 2, 7, 0x20, 0xfb]).await;
    assert_eq!(v4, some("192.0.2.7:8443", true));
    let v6 = [
        &[5, 1, 0, 4, 0x20, 1, 0xd, 0xb8][..],
        &[0; 11],
        &[1, 1, 0xbb],
    ]
    .concat();
    assert_eq!(target(&v6).await, some("[2001:db8::1]:443", true));
    let longest = [b'a'; 255];
    let (authority, _) = target(&to_name(&longest, 1)).await.unwrap();
    assert_eq!(authority.len(), 257);
}

#[tokio::test]
async fn no_authentication_is_taken_among_other_methods_and_no_other_is() {
    let request = to_name(b"a.example", 443);
    for methods in [&[3, 2, 0, 1][..], &[1, 0], &[2, 0, 0]] {
        let (connect, answered) = handshake(&[&[5], methods, &request].concat()).await;
        assert!(connect.is_some(), "{methods:?}");
        assert_eq!(answered, GREETED);
    }
    let all_others: Vec<u8> = [5, 255].into_iter().chain(1..=255).collect();
    for greeting in [&[5, 0][..], &[5, 1, 2], &[5, 2, 1, 2], &all_others] {
        let (connect, answered) = handshake(&[greeting, &request].concat()).await;
        assert!(connect.is_none(), "{greeting:?}");
        assert_eq!(answered, [5, 0xff], "{greeting:?}");
    }
}

#[tokio::test]
async fn another_version_ends_the_connection_without_an_answer() {
    let request = to_name(b"a.example", 443);
    for version in (0..=255).filter(|version| *version != VERSION) {
        let (connect, answered) = handshake(&[&[version, 1, 0], &request[..]].concat()).await;
        assert!(connect.is_none(), "{version}");
        assert!(answered.is_empty(), "{version}: {answered:?}");
        let other = [&[version], &request[1..]].concat();
        assert_eq!(reply(&other).await, None, "{version}");
    }
}

#[tokio::test]
async fn every_other_command_and_type_has_its_reply() {
    for command in (0..=255).filter(|command| *command != 1) {
        let mut request = to_name(b"a.example", 443);
        request[1] = command;
        assert_eq!(reply(&request).await, Some(7), "{command}");
    }
    for kind in (0..=255).filter(|kind| ![1, 3, 4].contains(kind)) {
        let mut request = to_name(b"a.example", 443);
        request[3] = kind;
        assert_eq!(reply(&request).await, Some(8), "{kind}");
    }
}

#[tokio::test]
async fn a_name_that_holds_more_than_a_name_is_refused() {
    for name in [
        &b""[..],
        b"a.example:80",
        b"user@a.example",
        b"::1",
        b"a.example/",
        b"a.example?b",
        b"a.example#b",
        b"a example",
        b"a.example\r\nX-Own: 1",
        b"a.example\0",
        b"%61.example",
        "\u{e4}.example".as_bytes(),
    ] {
        assert_eq!(reply(&to_name(name, 443)).await, Some(1), "{name:?}");
    }
    assert_eq!(reply(&to_name(b"\xff.example", 443)).await, Some(5));
}

#[tokio::test]
async fn whatever_breaks_off_opens_nothing() {
    for request in [
        to_name(b"api.stripe.com", 443),
        vec![5, 1, 0, 1, 192, 0, 2, 7, 1, 187],
        [&[5, 1, 0, 4][..], &[7; 18]].concat(),
    ] {
        let whole = [GREETING, &request].concat();
        for length in 0..whole.len() {
            let (connect, answered) = handshake(&whole[..length]).await;
            assert!(connect.is_none(), "{:?}", &whole[..length]);
            let reply = answered.strip_prefix(GREETED).unwrap_or(&answered);
            assert!(
                !reply.starts_with(&[5, 0]),
                "{answered:?} says that a tunnel is open"
            );
        }
        assert!(handshake(&whole).await.0.is_some());
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_more_is_left_after_a_while() {
    for bytes in [&[5][..], GREETING, &[5, 1, 0, 5, 1, 0, 3, 200]] {
        let (mut client, server) = duplex(1024);
        client.write_all(bytes).await.unwrap();
        let read = Connect::read_within(Duration::from_millis(1), server).await;
        assert!(read.is_none(), "{bytes:?}");
    }
}

#[tokio::test]
async fn what_comes_behind_the_request_stays_for_the_tunnel() {
    let (mut client, server) = duplex(1024);
    let request = to_name(b"a.example", 443);
    let early = [GREETING, &request, b"hello"].concat();
    client.write_all(&early).await.unwrap();
    let connect = Connect::read(server).await.unwrap();

    let mut tunnel = connect.accept().await.unwrap();

    let mut read = [0; 5];
    tunnel.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    let mut answered = [0; 12];
    client.read_exact(&mut answered).await.unwrap();
    assert_eq!(answered, [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_refusal_is_a_code_and_the_end() {
    for (status, code) in [
        (400, 1),
        (403, 2),
        (405, 1),
        (407, 2),
        (421, 2),
        (429, 1),
        (500, 1),
        (502, 5),
        (503, 1),
        (504, 4),
    ] {
        let (mut client, server) = duplex(1024);
        let request = to_name(b"a.example", 443);
        client
            .write_all(&[GREETING, &request].concat())
            .await
            .unwrap();
        let connect = Connect::read(server).await.unwrap();

        let status = StatusCode::from_u16(status).unwrap();
        connect.refuse(reply_to(status)).await;

        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        assert_eq!(
            answered,
            [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0],
            "{status}"
        );
    }
}
