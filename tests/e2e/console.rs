//! The status page in a real browser: it shows the shard, follows a failover without reloading, and its
//! button asks back.

use std::process::Command;

use serde_json::{Value, json};
use vtorc_fleet::{Child, Flavor, free_port};

use crate::harness::{Cluster, padded, request, wait_for};

/// A headless Chromium, driven over the WebDriver protocol.
struct Browser {
    _driver: Child,
    session: String,
}

impl Browser {
    /// Starts one, or says why not.
    fn start(cluster: &Cluster, width: u32) -> Option<Self> {
        let found = |name: &str| std::path::Path::new("/usr/bin").join(name).exists();
        if !found("chromium") || !found("chromedriver") {
            eprintln!("skipped: chromium and chromedriver are not installed");
            return None;
        }
        let port = free_port().unwrap();
        let place = cluster.directory.path();
        let mut command = Command::new("/usr/bin/chromedriver");
        command.arg(format!("--port={port}")).env("HOME", place);
        let driver = Child::start(&mut command, &place.join("chromedriver")).unwrap();
        let base = format!("http://127.0.0.1:{port}");
        wait_for(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok())
            .expect("no chromedriver");
        let profile = place.join(format!("profile-{width}"));
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            format!("--window-size={width},900"),
            format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "SEVERE"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let (status, answer) =
            request("POST", &format!("{base}/session"), Some(wanted.to_string()), &[]);
        assert_eq!(status, 200, "{answer}");
        let id = answer["value"]["sessionId"].as_str().unwrap();
        Some(Self { _driver: driver, session: format!("{base}/session/{id}") })
    }

    fn call(&self, path: &str, body: Value) -> Value {
        let (status, answer) =
            request("POST", &format!("{}/{path}", self.session), Some(body.to_string()), &[]);
        assert_eq!(status, 200, "{path}: {answer}");
        answer["value"].clone()
    }

    fn run(&self, script: &str) -> Value {
        self.call("execute/sync", json!({"script": script, "args": []}))
    }

    /// Waits until the script answers true.
    fn until(&self, what: &str, script: &str) {
        let seen =
            wait_for(|| (self.run(&format!("return Boolean({script})")) == true).then_some(()));
        if seen.is_none() {
            panic!("{what}; the page says: {}", self.run("return document.body.innerText"));
        }
    }

    fn close(&self) {
        request("DELETE", &self.session, None, &[]);
    }
}

#[test]
fn the_page_follows_a_failover_and_its_button_asks_back() {
    let mut cluster =
        Cluster::new(Flavor::MariaDb, "semi_sync", &["zone1-101", "zone1-102", "zone1-103"]);
    cluster.start_daemon(&[]);
    let first = cluster.healthy(&[]);
    let Some(browser) = Browser::start(&cluster, 1400) else { return };
    browser.call("url", json!({"url": cluster.daemon().url("/")}));
    browser.until("it is not live", "document.getElementById('live').textContent === 'live'");
    browser.until("the shard is not in order", "document.body.innerText.includes('All in order')");
    let primary = "document.querySelector('tr.is-primary .alias')?.textContent";
    browser.until("the primary is not marked", &format!("{primary} === '{first}'"));
    browser.until(
        "it does not say what would happen",
        "document.querySelector('.prognosis')?.textContent.includes('would promote zone1-')",
    );
    browser.run("window.notReloaded = true");
    // A failover by itself.
    cluster.server_mut(&first).kill();
    let second = cluster.healthy(&[&first]);
    browser.until("the new primary is not shown", &format!("{primary} === '{second}'"));
    browser.until(
        "the recovery is not shown",
        "[...document.querySelectorAll('.story')].some((one) => one.textContent.includes('EmergencyReparent') && one.textContent.includes('succeeded'))",
    );
    // What would go wrong on the bad day, asked for.
    browser.run("document.querySelector('[data-focus=check]').click()");
    browser.until(
        "it does not tell what to put in order",
        "document.querySelector('.preflight')?.textContent.includes('OneHost')",
    );
    // A failover by its button: it asks back, and Cancel does nothing.
    cluster.server_mut(&first).restart().unwrap();
    cluster.healthy(&[]);
    let planned = "document.querySelector('[data-focus=planned]')";
    browser.until("there is no button", planned);
    browser.run(&format!("{planned}.click()"));
    browser.until("it does not ask back", "document.getElementById('dialog').open");
    browser.run("document.getElementById('dialog-cancel').click()");
    browser.until("it stays open", "!document.getElementById('dialog').open");
    assert!(cluster.daemon().recoveries().iter().all(|one| one["kind"] != "PlannedReparent"));
    browser.run(&format!("{planned}.click()"));
    browser.run("document.getElementById('dialog-reason').value = 'by the button'; document.getElementById('dialog-go').click()");
    browser.until("the dialog does not close", "!document.getElementById('dialog').open");
    let recovery = cluster.daemon().recovery(|one| one["kind"] == "PlannedReparent");
    assert_eq!(
        (&recovery["outcome"], &recovery["reason"]),
        (&json!("succeeded"), &json!("by the button"))
    );
    let third = cluster.healthy(&[]);
    browser.until("the move is not shown", &format!("{primary} === '{third}'"));
    assert_eq!(browser.run("return window.notReloaded"), true, "the page was loaded again");
    let (_, log) = request(
        "POST",
        &format!("{}/se/log", browser.session),
        Some(json!({"type": "browser"}).to_string()),
        &[],
    );
    assert_eq!(log["value"], json!([]), "errors in the browser");
    browser.close();
}

#[test]
fn the_page_fits_a_phone() {
    let mut cluster = Cluster::new(Flavor::MariaDb, "none", &["zone1-101", "zone1-102"]);
    cluster.start_daemon(&[]);
    cluster.healthy(&[]);
    let Some(browser) = Browser::start(&cluster, 500) else { return };
    browser.call("url", json!({"url": cluster.daemon().url("/")}));
    browser.until("the shard is not shown", "document.querySelector('.card')");
    let overflow =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(overflow), 0, "the page is wider than the screen");
    // Why nothing is done, in words, while something is to be done.
    let off = json!({"control": "recoveries-off ks/0", "comment": "moving house"});
    assert_eq!(cluster.daemon().post("/api/v1/controls/set", off).0, 202);
    let replica = if cluster.daemon().shard()["primary"] == padded("zone1-101") { 1 } else { 0 };
    cluster.servers[replica].run(&["STOP SLAVE"]).unwrap();
    browser.until(
        "it does not say why nothing is done",
        "[...document.querySelectorAll('details')].some((one) => one.dataset.name === 'why-not' \
         && one.textContent.includes('switched off') && one.textContent.includes('ReplicationStopped'))",
    );
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    assert_eq!(browser.run(overflow), 0, "the page is wider than the screen");
    browser.close();
}
