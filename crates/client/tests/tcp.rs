//! The client over real sockets, against a fake server that hangs up.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, clippy::unwrap_used)]
mod fake;

use fake::Fake;
use naust_client::{Client, Code, Error, Outcome};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// Serves connections one after the other. After `packets_max` packets of a connection it hangs up
/// before it replies.
fn serve(listener: TcpListener, fake: Arc<Mutex<Fake>>, packets_max: usize) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut bytes, mut packets) = (stream.unwrap(), Vec::new(), 0);
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..read]);
                let mut replies = Vec::new();
                while let Ok(Some((_, length))) = naust_wire::packet::read(&bytes) {
                    replies.extend(fake.lock().unwrap().handle(&bytes[..length]));
                    bytes.drain(..length);
                    packets += 1;
                }
                if packets > packets_max || stream.write_all(&replies).is_err() {
                    break;
                }
            }
        }
    });
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn start(packets_max: usize) -> (String, Arc<Mutex<Fake>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Arc::new(Mutex::new(Fake::default()));
    serve(listener, Arc::clone(&fake), packets_max);
    (address, fake)
}

#[test]
fn commits_survive_connections() {
    let (address, fake) = start(20);
    run(async {
        // The first address is nobody's.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let client = Client::connect([nobody, address]).await?;
        let orders = client.namespace("default").stream("orders");
        for i in 0..100_u8 {
            orders.append([i]).await?;
        }
        orders.append(vec![7; 1_000_000]).await?;
        Ok::<_, Error>(())
    })
    .unwrap();
    let mut fake = fake.lock().unwrap();
    assert_eq!(fake.shard().records("orders"), 101);
    assert!(fake.seen.len() > 101, "some were sent again");
}

/// Why: the port of HTTP is the next one, and easily taken for this.
#[test]
fn who_does_not_speak_the_protocol_is_told_from_who_is_slow() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let error = run(async {
        let client = Client::connect([address.clone()]).await?;
        client.namespace("default").kv("users").get("ada").await
    });
    let error = error.unwrap_err();
    assert_eq!((error.code, error.outcome), (Code::Malformed, Outcome::NotDone), "{error:?}");
    assert!(error.detail.contains(&address), "{}", error.detail);
}

#[test]
fn nobody_there_is_unavailable() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = run(Client::connect([nobody])).err().unwrap();
    assert_eq!(error.code, Code::Unavailable);
    let none: [&str; 0] = [];
    assert_eq!(run(Client::connect(none)).err().unwrap().code, Code::BadArgument);
}
