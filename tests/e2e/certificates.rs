//! Certificates for a story, and lists of those that were taken back, made by `openssl`.

use std::path::Path;
use std::process::Command;

/// Makes `ca`, `server` and `client` certificates (`.pem`) with keys (`.key`) in a directory.
pub fn certificates(place: &Path) {
    let openssl = |line: &str| {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| word.replace("@", &format!("{}/", place.display())))
            .collect();
        let output = Command::new("openssl").args(words).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout @ca.key -out @ca.pem -days 2 -subj /CN=test-ca",
    );
    std::fs::write(place.join("san"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
    for name in ["server", "client"] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout @{name}.key -out @{name}.csr -subj /CN={name}"
        ));
        openssl(&format!(
            "x509 -req -in @{name}.csr -CA @ca.pem -CAkey @ca.key -CAcreateserial -days 2 -extfile @san -out @{name}.pem"
        ));
    }
}

/// Makes a list, signed by `ca`, of the certificates that were taken back.
pub fn revocation_list(place: &Path, name: &str, taken_back: &[&str]) {
    let directory = place.join(format!("{name}.d"));
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "[ca]\ndefault_ca=it\n[it]\ndatabase={0}/index\ncrlnumber={0}/number\ndefault_md=sha256\n\
         default_crl_days=2\ncertificate={1}/ca.pem\nprivate_key={1}/ca.key\n",
        directory.display(),
        place.display()
    );
    std::fs::write(directory.join("conf"), text).unwrap();
    std::fs::write(directory.join("index"), "").unwrap();
    std::fs::write(directory.join("number"), "01\n").unwrap();
    let ca = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["ca", "-config"]).arg(directory.join("conf")).args(arguments);
        let output = command.current_dir(place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for certificate in taken_back {
        ca(&["-revoke", certificate]);
    }
    ca(&["-gencrl", "-out", name]);
}
