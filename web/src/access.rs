//! Who may do what. Reading is open unless authentication is configured; changing something needs to come
//! from this machine or be authenticated, and never from another site's page.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine;
use subtle::ConstantTimeEq;

use crate::error::ApiError;

/// How callers prove who they are.
#[derive(Clone, Default)]
pub enum Authentication {
    /// They do not: only callers on this machine may change something.
    #[default]
    None,
    /// `AuthenticationMethod: basic`.
    Basic {
        /// `HTTPAuthUser`
        user: String,
        /// `HTTPAuthPassword`
        password: String,
    },
    /// `AuthenticationMethod: token`: a bearer token.
    Token {
        /// `HTTPAuthPassword`
        token: String,
    },
}

/// How much this server lets anybody do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// All that they prove to be allowed.
    #[default]
    Open,
    /// Nobody changes anything: `ReadOnly`, and `--security-policy read-only`.
    ReadOnly,
    /// Nobody sees anything but whether it is well: `--security-policy deny-all`.
    DenyAll,
}

/// The rules of this server.
#[derive(Clone, Default)]
pub struct Access {
    /// How much anybody may do.
    pub policy: Policy,
    /// How callers prove who they are.
    pub authentication: Authentication,
    /// Callers showed a certificate that was checked.
    pub client_certificates: bool,
}

/// Who is asking, as far as known.
pub(crate) struct Caller {
    pub(crate) name: String,
}

impl Access {
    /// Lets a reader in.
    pub(crate) fn may_read(&self, request: &HttpRequest) -> Result<Caller, ApiError> {
        match self.policy {
            Policy::Open | Policy::ReadOnly => {}
            Policy::DenyAll => {
                let why = "--security-policy denies everything but the health checks";
                return Err(ApiError::forbidden(why, "start vtorc without it, or with read-only"));
            }
        }
        let peer = request.peer_addr().map(|address| address.ip());
        let anonymous = || peer.map(|ip| ip.to_string()).unwrap_or_else(|| "unknown".into());
        match &self.authentication {
            Authentication::None => Ok(Caller { name: anonymous() }),
            Authentication::Basic { user, password } => {
                let (given_user, given_password) =
                    basic(request).ok_or_else(ApiError::unauthorized)?;
                let fits = same(&given_user, user) & same(&given_password, password);
                fits.then_some(Caller { name: given_user }).ok_or_else(ApiError::unauthorized)
            }
            Authentication::Token { token } => {
                let given = credentials(request, "Bearer ").ok_or_else(ApiError::unauthorized)?;
                let name = format!("token from {}", anonymous());
                same(&given, token).then_some(Caller { name }).ok_or_else(ApiError::unauthorized)
            }
        }
    }

    /// Lets somebody in who wants to change something.
    pub(crate) fn may_change(&self, request: &HttpRequest) -> Result<Caller, ApiError> {
        let caller = self.may_read(request)?;
        if self.policy == Policy::ReadOnly {
            let why = "nothing is changed over HTTP here: ReadOnly, or --security-policy read-only";
            return Err(ApiError::forbidden(why, "start vtorc without it"));
        }
        own_site(request)?;
        let trusted = match self.authentication {
            Authentication::None => self.client_certificates || from_here(request),
            Authentication::Basic { .. } | Authentication::Token { .. } => true,
        };
        if trusted {
            return Ok(caller);
        }
        Err(ApiError::forbidden(
            "without authentication, changes are taken from this machine only",
            "set AuthenticationMethod to basic (with HTTPAuthUser and HTTPAuthPassword) or token (with \
             HTTPAuthPassword) in the configuration, or UseMutualTLS with SSLCAFile; or call from the \
             machine on which vtorc runs, under a loopback name",
        ))
    }
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn credentials(request: &HttpRequest, scheme: &str) -> Option<String> {
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let start = header.get(..scheme.len())?;
    start
        .eq_ignore_ascii_case(scheme)
        .then(|| header.get(scheme.len()..).unwrap_or("").trim().to_owned())
}

fn basic(request: &HttpRequest) -> Option<(String, String)> {
    let encoded = credentials(request, "Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The caller is on this machine and says so: a page that made its own name point here does not.
fn from_here(request: &HttpRequest) -> bool {
    let peer_here = request.peer_addr().is_some_and(|address| address.ip().is_loopback());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    peer_here && host.is_none_or(|host| is_loopback_name(without_port(host)))
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback_name(name: &str) -> bool {
    let address = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    address || name.eq_ignore_ascii_case("localhost")
}

/// A browser says which site a request comes from; another site's page is turned away.
fn own_site(request: &HttpRequest) -> Result<(), ApiError> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let foreign = || {
        ApiError::forbidden(
            "requests from another site are not taken",
            "the Origin header must name the host that is called",
        )
    };
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(foreign());
    }
    let Some(origin) = text("origin") else { return Ok(()) };
    let origin_host = origin.split_once("://").map_or(origin, |(_, host)| host);
    if text("host").is_some_and(|host| host.eq_ignore_ascii_case(origin_host)) {
        Ok(())
    } else {
        Err(foreign())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn request(peer: &str, headers: &[(&'static str, &str)]) -> HttpRequest {
        let mut request = TestRequest::default().peer_addr(peer.parse().unwrap());
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        request.to_http_request()
    }

    fn changes(access: &Access, peer: &str, headers: &[(&'static str, &str)]) -> u16 {
        use actix_web::ResponseError;
        access
            .may_change(&request(peer, headers))
            .map_or_else(|e| e.status_code().as_u16(), |_| 200)
    }

    #[test]
    fn without_authentication_only_this_machine_changes_things() {
        let access = Access::default();
        let local = "127.0.0.1:5000";
        assert_eq!(changes(&access, local, &[("host", "localhost:3000")]), 200);
        assert_eq!(changes(&access, local, &[("host", "127.0.0.1:3000")]), 200);
        assert_eq!(changes(&access, "[::1]:5000", &[("host", "[::1]:3000")]), 200);
        assert_eq!(changes(&access, "192.0.2.7:5000", &[("host", "localhost:3000")]), 403);
        assert_eq!(changes(&access, local, &[("host", "rebound.example:3000")]), 403);
        assert!(access.may_read(&request("192.0.2.7:5000", &[])).is_ok());
    }

    #[test]
    fn a_policy_goes_before_everything_else() {
        let here = ("127.0.0.1:5000", [("host", "localhost:3000")]);
        for (policy, reads, changed) in [
            (Policy::Open, true, 200),
            (Policy::ReadOnly, true, 403),
            (Policy::DenyAll, false, 403),
        ] {
            let access = Access { policy, ..Access::default() };
            assert_eq!(access.may_read(&request(here.0, &here.1)).is_ok(), reads, "{policy:?}");
            assert_eq!(changes(&access, here.0, &here.1), changed, "{policy:?}");
        }
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let access = Access::default();
        let with = |origin| [("host", "localhost:3000"), ("origin", origin)];
        assert_eq!(changes(&access, "127.0.0.1:5000", &with("http://localhost:3000")), 200);
        assert_eq!(changes(&access, "127.0.0.1:5000", &with("http://evil.example")), 403);
        assert_eq!(changes(&access, "127.0.0.1:5000", &with("null")), 403);
        let cross = [("host", "localhost:3000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(changes(&access, "127.0.0.1:5000", &cross), 403);
    }

    #[test]
    fn passwords_and_tokens() {
        let basic = Access {
            authentication: Authentication::Basic { user: "ann".into(), password: "p:w".into() },
            ..Access::default()
        };
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let good = format!("Basic {}", encode("ann:p:w"));
        let bad = format!("Basic {}", encode("ann:nope"));
        let far = "192.0.2.7:5000";
        assert_eq!(changes(&basic, far, &[("authorization", &good)]), 200);
        assert_eq!(changes(&basic, far, &[("authorization", &bad)]), 401);
        assert_eq!(changes(&basic, far, &[]), 401);
        let token = Access {
            authentication: Authentication::Token { token: "t0ken".into() },
            ..Access::default()
        };
        assert_eq!(changes(&token, far, &[("authorization", "Bearer t0ken")]), 200);
        assert_eq!(changes(&token, far, &[("authorization", "bearer other")]), 401);
    }
}
