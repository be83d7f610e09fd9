//! The daemon: starts everything, then waits for signals.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use slog::{Logger, info, warn};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use vtorc_web::{Access, Streams, Tls, WebContext};

use crate::cli::DaemonOptions;
use crate::config::{self, Config, Loaded};
use crate::wiring::{self, Running};
use crate::{Failure, files, logging};

/// Runs until it is told to end.
pub(crate) fn run(options: DaemonOptions) -> Result<(), Failure> {
    let loaded = load(&options)?;
    if options.strict_config && !loaded.unknown.is_empty() {
        return Err(Failure(loaded.warnings.join("; ")));
    }
    let logging = logging::start(
        options.log_dir.as_deref(),
        options.log_format,
        options.alsologtostderr,
        loaded.config.debug,
    )?;
    let log = logging.log.clone();
    actix::System::new().block_on(serve(options, loaded, log))
}

async fn serve(options: DaemonOptions, loaded: Loaded, log: Logger) -> Result<(), Failure> {
    info!(log, "vtorc starts"; "version" => env!("CARGO_PKG_VERSION"));
    let files = files::raise_limit();
    let connections = files::share_of_http(files);
    info!(log, "files that may be open"; "limit" => files, "http_connections" => connections);
    tell(&loaded, &log);
    for flag in &options.without_effect {
        info!(log, "flag without effect here"; "flag" => flag);
    }
    let config = loaded.config;
    let listener = wiring::listen(&config, &options)?;
    let address = listener.local_addr().map_err(|error| Failure::while_doing("listen", error))?;
    let running = wiring::start(&config, &options, log.clone()).await?;
    let context = WebContext {
        services: running.services.clone(),
        registry: running.registry.clone(),
        access: Access {
            policy: options.vitess.policy(&config),
            authentication: config.authentication()?,
            client_certificates: config.use_mutual_tls && !config.ssl_skip_verify,
        },
        config: serde_json::to_value(&config).unwrap_or_default(),
        started: Instant::now().into_std(),
        console_directory: options.orc_web_dir.clone(),
        streams: Streams::at_most(connections / 2),
    };
    let server = vtorc_web::serve(context, listener, tls(&config)?, connections);
    let server = server.map_err(|error| Failure::while_doing("serve HTTP", error))?;
    let handle = server.handle();
    let serving = actix::spawn(server);
    if let Some(file) = &options.address_file {
        let failure = |error| Failure::while_doing("write the address file", error);
        std::fs::write(file, address.to_string()).map_err(failure)?;
    }
    when_ready(running.services.clone());
    wait_for_end(&options, &config, &running, &log).await?;
    finish(&running, options.vitess.shutdown_wait_time, &log).await;
    handle.stop(false).await;
    serving.abort();
    info!(log, "vtorc ends");
    Ok(())
}

/// The configuration, with what the flags say instead.
pub(crate) fn load(options: &DaemonOptions) -> Result<Loaded, Failure> {
    let loaded = config::load(options.config.as_deref())?;
    Ok(Loaded { config: options.vitess.over(loaded.config), ..loaded })
}

fn tell(loaded: &Loaded, log: &Logger) {
    for note in &loaded.notes {
        info!(log, "configuration key without effect here"; "key" => note);
    }
    for warning in &loaded.warnings {
        warn!(log, "configuration"; "warning" => warning);
    }
}

/// Tells systemd when the topology was read and the shards are being watched.
fn when_ready(services: vtorc_actors::services::Services) {
    actix::spawn(async move {
        while !services.board.is_ready() {
            sleep(Duration::from_millis(50)).await;
        }
        // Not started by systemd: nobody to tell.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    });
}

async fn wait_for_end(
    options: &DaemonOptions,
    config: &Config,
    running: &Running,
    log: &Logger,
) -> Result<(), Failure> {
    let failure = |error| Failure::while_doing("listen for signals", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failure)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failure)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failure)?;
    let mut config = config.clone();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hang_up.recv() => config = reload(options, config, running, log),
        }
    }
}

/// Takes the new configuration if all of it is right; says what changed.
fn reload(options: &DaemonOptions, old: Config, running: &Running, log: &Logger) -> Config {
    let read = load(options).and_then(|loaded| {
        let hooks = loaded.config.hooks.settings()?;
        Ok((wiring::settings(&loaded.config, options)?, hooks, loaded))
    });
    match read {
        Ok((mut settings, hooks, loaded)) => {
            // Whom replicas log in as changes with the next start.
            settings.recovery.keeps_logins = running.settings.borrow().recovery.keeps_logins;
            tell(&loaded, log);
            let changes = config::changes(&old, &loaded.config);
            if changes.is_empty() {
                info!(log, "configuration read again: nothing changed");
            }
            for (key, at_once) in changes {
                if at_once {
                    info!(log, "configuration changed"; "key" => key);
                } else {
                    warn!(log, "configuration changed; this key takes effect at the next start"; "key" => key);
                }
            }
            running.hooks.reconfigure(hooks);
            // Fails only without receivers, and the services hold one.
            let _ = running.settings.send(Arc::new(settings));
            loaded.config
        }
        Err(error) => {
            warn!(log, "the configuration could not be read again; the old one stays"; "error" => %error);
            old
        }
    }
}

/// Lets running recoveries end; starts none.
async fn finish(running: &Running, patience: Duration, log: &Logger) {
    let services = &running.services;
    services.ending.store(true, Ordering::Release);
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    let deadline = Instant::now() + patience;
    let busy = || services.board.running().len() + services.hooks.running();
    let mut waiting = busy();
    if waiting > 0 {
        info!(log, "finishing recoveries"; "running" => waiting);
    }
    while waiting > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
        waiting = busy();
    }
    if waiting > 0 {
        warn!(log, "recoveries did not end in time"; "running" => waiting);
    }
    // What was told to the auditor last is written before the process ends.
    sleep(Duration::from_millis(50)).await;
}

fn tls(config: &Config) -> Result<Option<Tls>, Failure> {
    if !config.use_ssl && !config.use_mutual_tls {
        return Ok(None);
    }
    let certificates = pem_certificates(&config.ssl_cert_file)?;
    let key = pem_key(&config.ssl_private_key_file)?;
    let builder = rustls::ServerConfig::builder();
    let failure = |error: &dyn std::fmt::Display| {
        Failure(format!("SSLCertFile and SSLPrivateKeyFile: {error}"))
    };
    let builder = if config.use_mutual_tls {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in pem_certificates(&config.ssl_ca_file)? {
            roots.add(certificate).map_err(|error| Failure::while_doing("SSLCAFile", error))?;
        }
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let verifier = verifier.map_err(|error| Failure::while_doing("SSLCAFile", error))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let server = builder.with_single_cert(certificates, key).map_err(|error| failure(&error))?;
    Ok(Some(Arc::new(server)))
}

fn pem_certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failure = |error| Failure::while_doing(&format!("read certificates from {file}"), error);
    CertificateDer::pem_file_iter(file).map_err(failure)?.collect::<Result<_, _>>().map_err(failure)
}

fn pem_key(file: &str) -> Result<PrivateKeyDer<'static>, Failure> {
    let failure = |error| Failure::while_doing(&format!("read a private key from {file}"), error);
    PrivateKeyDer::from_pem_file(file).map_err(failure)
}
