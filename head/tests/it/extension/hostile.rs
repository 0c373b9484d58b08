//! Requests that are made to hurt: values, sizes and files that no honest client sends.

use super::*;

/// F45, S23: requests that are made to hurt are refused with the path of what is wrong, and the head answers the next one.
#[tokio::test]
async fn f45_hostile_requests_are_refused_with_a_path() {
    let rig = Rig::new("");
    let (_head, mut client) = rig.start().await;
    extend(&mut client, SITE).await.unwrap();
    add(&mut client, vec![node("n1", &[])]).await.unwrap();
    let value = |kind| v1::Value { kind: Some(kind) };
    let of = |url: &str, kind| v1::ValueChange {
        url: url.into(),
        value: Some(value(kind)),
    };
    use v1::value::Kind;
    let list_of = |items| Kind::ListValue(v1::ValueList { items });
    let cases = [
        (
            of("/site/inlet/a", Kind::FloatValue(f64::NAN)),
            "changes[0]: /site/inlet/a cannot be \"NaN\"",
        ),
        (
            of("/site/inlet/a", Kind::FloatValue(f64::NEG_INFINITY)),
            "a number (in Cel) is wanted",
        ),
        (
            of("/site/position", Kind::IntValue(i64::MAX)),
            "a whole number",
        ),
        (
            of("/site/position", Kind::TextValue("9".repeat(400))),
            "a whole number",
        ),
        (
            of("/site/rack", Kind::TextValue("x".repeat(70_000))),
            "changes[0]: value has 70000 bytes, more than 65536",
        ),
        (
            of(
                "/ipv4/dns",
                list_of(vec![value(Kind::TextValue("10.0.0.1".into())); 1025]),
            ),
            "more than 1024",
        ),
        (
            of("/ipv4/dns", list_of(vec![value(list_of(vec![]))])),
            "is a list inside a list",
        ),
        (
            of(
                "/site/rack",
                list_of(vec![value(Kind::TextValue("a".into()))]),
            ),
            "/site/rack cannot be",
        ),
        (
            of("/site/../rack", Kind::TextValue("a".into())),
            "is not a state url",
        ),
        (
            of(&"/x".repeat(300), Kind::TextValue("a".into())),
            "longer than 256 bytes",
        ),
        (
            v1::ValueChange {
                url: "/site/rack".into(),
                value: Some(v1::Value { kind: None }),
            },
            "changes[0]: value is missing",
        ),
    ];
    for (bad, expect) in cases {
        let error = change(&mut client, "n1", vec![bad]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(expect), "{error} lacks {expect:?}");
        assert!(
            error.message().len() < 1024,
            "an error is no echo: {}",
            error.message().len()
        );
    }
    let twice = vec![set("/site/rack", "a"), set("/site/rack", "b")];
    let twice = change(&mut client, "n1", twice).await.unwrap_err();
    assert!(
        twice
            .message()
            .contains("changes[1]: /site/rack is named twice"),
        "{twice}"
    );
    let many = vec![set("/site/rack", "a"); 5000];
    let many = change(&mut client, "n1", many).await.unwrap_err();
    assert!(
        many.message()
            .contains("changes has 5000 items, more than 4096"),
        "{many}"
    );

    // Bytes that no client of ours would send.
    let varint = |mut n: usize| {
        let mut out = Vec::new();
        while n > 127 {
            out.push(n as u8 & 127 | 128);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    let field = |tag: u8, body: &[u8]| [&[tag << 3 | 2][..], &varint(body.len()), body].concat();
    let request = |value: &[u8]| field(2, &[field(1, b"/site/rack"), field(2, value)].concat());
    let mut deep = field(4, b"x");
    for _ in 0..10_000 {
        deep = field(6, &field(1, &deep));
    }
    let huge = [&[2 << 3 | 2][..], &[0x80, 0x80, 0x80, 0x80, 0x04], b"x"].concat();
    for (what, bytes, expect) in [
        ("depth 10k", request(&deep), "recursion limit"),
        ("1 GiB declared", huge, "changes"),
        (
            "bad UTF-8",
            request(&field(4, b"\xff\xfe")),
            "SetNodesRequest.changes",
        ),
        ("a tag of nothing", vec![0], "invalid tag"),
    ] {
        let error = raw(&rig, bytes).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{what}: {error}");
        assert!(
            error.message().contains(expect),
            "{what}: {error} lacks {expect:?}"
        );
    }
    // An `Any` of some later version is a field that nobody here knows: it is passed over.
    let known = [field(1, b"n1"), request(&field(4, b"r1"))].concat();
    let any = field(15, &field(1, b"type.googleapis.com/none"));
    raw(&rig, [known, any].concat()).await.unwrap();
    assert_eq!(
        cfg(&mut client, "n1", "/site/rack").await.as_deref(),
        Some("r1")
    );
    assert_eq!(list(&mut client, "n1").await.unwrap().len(), 1);
    let limit = extend(&mut client, &format!("// {}", "x".repeat(300 << 10)))
        .await
        .unwrap_err();
    assert!(
        limit.message().contains("is larger than 262144 bytes"),
        "{limit}"
    );
    let depth = format!("syntax = \"proto3\";\n{}", "message A {".repeat(10_000));
    let depth = extend(&mut client, &depth).await.unwrap_err();
    assert!(
        depth
            .message()
            .contains("upload.proto:2: is nested more than 32 deep"),
        "{depth}"
    );
    eventually("the head still answers", || {
        let mut client = client.clone();
        async move { client.get_version(v1::GetVersionRequest {}).await.ok() }
    })
    .await;
}

/// Sends these bytes as a `SetNodesRequest`.
async fn raw(rig: &Rig, bytes: Vec<u8>) -> Result<(), tonic::Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!(
        "unix:{}",
        rig.path("run/api.sock").display()
    ))
    .unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/kraken.v1.Admin/SetNodes".parse().unwrap();
    grpc.unary(tonic::Request::new(bytes), path, Bytes)
        .await
        .map(drop)
}

/// Bytes as they are.
struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        input: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Vec<u8>>, tonic::Status> {
        let length = bytes::Buf::remaining(input);
        Ok(Some(bytes::Buf::copy_to_bytes(input, length).to_vec()))
    }
}
