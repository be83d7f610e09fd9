//! Certificates from files, for what speaks TLS by rustls.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What a PEM file has of this kind; the error names the file.
pub(crate) fn pem<T: PemObject>(file: &Path) -> Result<Vec<T>, String> {
    let failure = |error| format!("{}: {error}", file.display());
    T::pem_file_iter(file).map_err(failure)?.collect::<Result<_, _>>().map_err(failure)
}

/// The authorities of a file, or those of the system.
pub(crate) fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'_>> = match ca {
        Some(ca) => pem(ca)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    match roots.is_empty() {
        true => Err("there is no certificate authority to trust".into()),
        false => Ok(roots),
    }
}
