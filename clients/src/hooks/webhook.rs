//! Webhooks: one thread and one bounded queue for each address, so that a dead one keeps nobody waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use ring::hmac;
use serde_json::{Map, Value, json};
use vtorc_core::hooks::Hook;

use super::{Complain, Variables};
use crate::mysql::Secret;

/// Waiting deliveries of one address; more are given up.
const QUEUE_MAX: usize = 1000;
/// The pauses between attempts.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(30),
];
/// One attempt takes at most this long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses to be told.
pub(super) struct Webhooks {
    queues: Vec<(String, Sender<Delivery>)>,
    /// Tells deliveries apart, also those of other lives of the process.
    life: u64,
    count: AtomicU64,
    key: Option<hmac::Key>,
    complain: Complain,
}

#[derive(Clone)]
struct Delivery {
    id: String,
    event: &'static str,
    body: String,
    signature: Option<String>,
}

impl Webhooks {
    pub(super) fn start(urls: &[String], secret: &Secret, complain: &Complain) -> Self {
        let secret = secret.reveal();
        let key =
            (!secret.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let queues = urls.iter().filter_map(|url| {
            let (sender, receiver) = bounded(QUEUE_MAX);
            let (target, complaints) = (url.clone(), complain.clone());
            let body = move || deliver_all(&target, &receiver, &complaints);
            let spawned = thread::Builder::new().name("vtorc-webhook".into()).spawn(body);
            if let Err(error) = &spawned {
                complain(&format!("{}: no thread for this webhook: {error}", without_secrets(url)));
            }
            spawned.is_ok().then(|| (url.clone(), sender))
        });
        let life = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        Self {
            queues: queues.collect(),
            life,
            count: AtomicU64::new(0),
            key,
            complain: complain.clone(),
        }
    }

    pub(super) fn post(&self, hook: Hook, variables: &Variables) {
        if self.queues.is_empty() {
            return;
        }
        let event = hook.key().trim_end_matches("Processes");
        let id = format!("{}-{}", self.life, self.count.fetch_add(1, Ordering::Relaxed));
        let details: Map<String, Value> = variables
            .iter()
            .map(|(name, _, value)| ((*name).to_owned(), Value::from(value.as_str())))
            .collect();
        let at = jiff::Timestamp::now().to_string();
        let body = json!({"id": id, "event": event, "at": at, "details": details}).to_string();
        let signature = self.key.as_ref().map(|key| {
            let tag = hmac::sign(key, body.as_bytes());
            let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256={hex}")
        });
        for (url, queue) in &self.queues {
            let delivery = Delivery {
                id: id.clone(),
                event,
                body: body.clone(),
                signature: signature.clone(),
            };
            if queue.try_send(delivery).is_err() {
                let url = without_secrets(url);
                (self.complain)(&format!("{url}: too many deliveries wait; {event} was given up"));
            }
        }
    }
}

fn deliver_all(url: &str, queue: &Receiver<Delivery>, complain: &Complain) {
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(tls)
        .build()
        .into();
    while let Ok(delivery) = queue.recv() {
        if let Err(why) = deliver(&agent, url, &delivery) {
            let url = without_secrets(url);
            complain(&format!("{url}: {} was not delivered: {why}", delivery.event));
        }
    }
}

/// Tries again as long as that may help.
fn deliver(agent: &ureq::Agent, url: &str, delivery: &Delivery) -> Result<(), String> {
    let mut pauses = PAUSES.iter();
    loop {
        let mut request = agent
            .post(url)
            .header("Content-Type", "application/json")
            .header("X-Vtorc-Event", delivery.event)
            .header("X-Vtorc-Delivery", &delivery.id);
        if let Some(signature) = &delivery.signature {
            request = request.header("X-Vtorc-Signature", signature);
        }
        let why = match request.send(&delivery.body) {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let refused = (400..500).contains(&status) && status != 408 && status != 429;
                if refused {
                    return Err(format!("it answered {status}"));
                }
                format!("it answered {status}")
            }
            Err(error) => error.to_string(),
        };
        match pauses.next() {
            Some(pause) => thread::sleep(*pause),
            None => return Err(why),
        }
    }
}

/// Scheme, host and path: a password or a token may stand before the host or after the question mark.
fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;

    /// Answers with each status in turn; hands out what it was sent.
    fn endpoint(statuses: &'static [u16]) -> (String, Receiver<(Vec<String>, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?token=t0psecret", listener.local_addr().unwrap());
        let (sender, receiver) = bounded(16);
        thread::spawn(move || {
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut headers = Vec::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    headers.push(line.trim().to_owned());
                }
                let length = headers.iter().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                let mut body = vec![0; length.unwrap()];
                reader.read_exact(&mut body).unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).unwrap();
                sender.send((headers, String::from_utf8(body).unwrap())).unwrap();
            }
        });
        (url, receiver)
    }

    #[test]
    fn deliveries_are_signed_and_repeated() {
        let (url, received) = endpoint(&[500, 200]);
        let complain: Complain = Arc::new(|text| panic!("{text}"));
        let webhooks = Webhooks::start(&[url], &Secret::new("key"), &complain);
        webhooks.post(Hook::PostFailover, &vec![("failedHost", "ORC_FAILED_HOST", "db\"1".into())]);
        let patience = Duration::from_secs(30);
        let (headers, body) = received.recv_timeout(patience).unwrap();
        let (again, same) = received.recv_timeout(patience).unwrap();
        assert_eq!(body, same);
        let received: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&received["event"], &received["details"]["failedHost"]),
            (&json!("PostFailover"), &json!("db\"1"))
        );
        let value = |headers: &[String], name: &str| {
            let found = headers.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            });
            found.unwrap()
        };
        assert_eq!(value(&headers, "X-Vtorc-Delivery"), value(&again, "X-Vtorc-Delivery"));
        let signature = value(&headers, "X-Vtorc-Signature");
        let bytes: Vec<u8> = (0..32)
            .map(|at| u8::from_str_radix(&signature[7 + 2 * at..9 + 2 * at], 16).unwrap())
            .collect();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        hmac::verify(&key, body.as_bytes(), &bytes).unwrap();
    }

    #[test]
    fn what_is_refused_is_given_up_and_no_token_is_told() {
        let (url, _received) = endpoint(&[403]);
        let (sender, received) = bounded(1);
        let complain: Complain = Arc::new(move |text| sender.send(text.to_owned()).unwrap());
        let webhooks = Webhooks::start(&[url], &Secret::default(), &complain);
        webhooks.post(Hook::PreFailover, &Vec::new());
        let complaint = received.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(
            complaint.contains("PreFailover was not delivered: it answered 403"),
            "{complaint}"
        );
        assert!(!complaint.contains("t0psecret"), "{complaint}");
        assert_eq!(without_secrets("https://u:p@h:1/a?b"), "https://h:1/a");
    }
}
