//! A proxy before a server: it passes everything on, hears what clients say, and may lead to another server one day.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Hears a client's words before they are passed on; one for each connection.
pub type Ear = Box<dyn FnMut(&[u8]) + Send>;

/// Ends with the process; each connection has two threads.
pub struct Proxy {
    pub address: String,
    target: Arc<Mutex<String>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Passes everything on to this address.
    pub fn before(server: String) -> Self {
        Self::with_ears(server, || Box::new(|_| {}))
    }

    /// The same, with an ear for each connection.
    pub fn with_ears(server: String, ear: impl Fn() -> Ear + Send + 'static) -> Self {
        Self::with_both_ears(server, move || (ear(), Box::new(|_| {})))
    }

    /// The same, with an ear for what each connection's client says and one for what its server says.
    pub fn with_both_ears(server: String, ears: impl Fn() -> (Ear, Ear) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, open) = (Arc::new(Mutex::new(server)), Arc::default());
        let proxy = Self { address, target, open };
        let (target, open) = (proxy.target.clone(), proxy.open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(lock(&target).as_str()) else { continue };
                let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                lock(&open).extend(both);
                let (back, forth) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let (of_client, of_server) = ears();
                std::thread::spawn(move || pass(back, forth, of_server));
                std::thread::spawn(move || pass(client, server, of_client));
            }
        });
        proxy
    }

    /// Leads to another server from now on; whoever was connected is cut off.
    pub fn lead_to(&self, server: String) {
        *lock(&self.target) = server;
        for stream in lock(&self.open).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut ear: Ear) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        ear(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side may have hung up before.
    let _ = to.shutdown(Shutdown::Both);
}
