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
    /// `AuthenticationMethod: multi`: the user may change everything; whoever calls himself `readonly` may only look,
    /// with any password, as in Orchestrator.
    Multi {
        /// `HTTPAuthUser`
        user: String,
        /// `HTTPAuthPassword`
        password: String,
    },
    /// `AuthenticationMethod: proxy`: a reverse proxy says in a header who asks. Everybody may look.
    Proxy(TrustedProxy),
    /// `AuthenticationMethod: token`: a bearer token.
    Token {
        /// `HTTPAuthPassword`
        token: String,
    },
}

/// A reverse proxy that says who asks.
#[derive(Clone, Default)]
pub struct TrustedProxy {
    /// `AuthUserHeader`: the header in which it says so.
    pub header: String,
    /// `AuthProxyAddresses`: from where it calls; this machine where there are none. Nobody else is believed.
    pub addresses: Vec<IpAddr>,
    /// `PowerAuthUsers`: who may change something; `*` for everybody whom the proxy lets in.
    pub users: Vec<String>,
    /// `PowerAuthGroups`: whose members may as well, by the groups of this machine.
    pub groups: Vec<String>,
}

impl TrustedProxy {
    /// Whom the proxy names: once, and nobody where somebody else than the proxy asks.
    fn names(&self, request: &HttpRequest) -> Option<String> {
        let peer = request.peer_addr()?.ip().to_canonical();
        let trusted = match self.addresses.is_empty() {
            true => peer.is_loopback(),
            false => self.addresses.contains(&peer),
        };
        let mut given = request.headers().get_all(self.header.as_str());
        let (first, more) = (given.next()?, given.next());
        let user = first.to_str().ok().filter(|user| !user.is_empty())?;
        (trusted && more.is_none()).then(|| user.to_owned())
    }

    fn lets_change(&self, user: &str) -> bool {
        self.users.iter().any(|one| one == "*" || one == user) || is_member(user, &self.groups)
    }
}

/// Whether a user of this machine is in one of its groups, as its first one or as a further one.
fn is_member(user: &str, groups: &[String]) -> bool {
    let known = || nix::unistd::User::from_name(user).ok().flatten();
    let own = if groups.is_empty() { None } else { known() };
    groups.iter().any(|name| {
        let group = nix::unistd::Group::from_name(name).ok().flatten();
        group.is_some_and(|group| {
            own.as_ref().is_some_and(|own| own.gid == group.gid)
                || group.mem.iter().any(|member| member == user)
        })
    })
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
                let (name, fits) = by_password(request, user, password)?;
                fits.then_some(Caller { name }).ok_or_else(ApiError::unauthorized)
            }
            Authentication::Multi { user, password } => {
                let (name, fits) = by_password(request, user, password)?;
                let fits = fits || name == ONLY_READS;
                fits.then_some(Caller { name }).ok_or_else(ApiError::unauthorized)
            }
            Authentication::Proxy(proxy) => {
                Ok(Caller { name: proxy.names(request).unwrap_or_else(anonymous) })
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
        let trusted = match &self.authentication {
            Authentication::None => self.client_certificates || from_here(request),
            Authentication::Multi { .. } if caller.name == ONLY_READS => {
                let why = "the user readonly changes nothing";
                return Err(ApiError::forbidden(why, "ask as HTTPAuthUser"));
            }
            Authentication::Multi { .. } => true,
            Authentication::Proxy(proxy) => return changes_by_proxy(proxy, request, caller),
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

/// Who asks as this user may only look (`AuthenticationMethod: multi`).
const ONLY_READS: &str = "readonly";

fn changes_by_proxy(
    proxy: &TrustedProxy,
    request: &HttpRequest,
    caller: Caller,
) -> Result<Caller, ApiError> {
    match proxy.names(request) {
        Some(user) if proxy.lets_change(&user) => Ok(caller),
        Some(user) => Err(ApiError::forbidden(
            format!("{user} may only look"),
            "name the user in PowerAuthUsers, or a group of this machine in PowerAuthGroups",
        )),
        None => Err(ApiError::forbidden(
            format!(
                "changes are taken through the proxy only, which says in {} who asks",
                proxy.header
            ),
            "call through the proxy; AuthProxyAddresses says from where it calls (default: this machine)",
        )),
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

/// As whom somebody asks, and whether that is this user, with the password.
fn by_password(
    request: &HttpRequest,
    user: &str,
    password: &str,
) -> Result<(String, bool), ApiError> {
    let (given_user, given_password) = basic(request).ok_or_else(ApiError::unauthorized)?;
    let fits = same(&given_user, user) & same(&given_password, password);
    Ok((given_user, fits))
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
    fn a_proxy_says_who_asks() {
        let proxy = |users: &[&str], addresses: &[&str]| Access {
            authentication: Authentication::Proxy(TrustedProxy {
                header: "X-Forwarded-User".into(),
                addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
                users: users.iter().map(ToString::to_string).collect(),
                groups: Vec::new(),
            }),
            ..Access::default()
        };
        let (here, far) = ("127.0.0.1:5000", "192.0.2.7:5000");
        let ann = [("x-forwarded-user", "ann")];
        assert_eq!(changes(&proxy(&["ann"], &[]), here, &ann), 200);
        assert_eq!(changes(&proxy(&["*"], &[]), here, &ann), 200);
        assert_eq!(changes(&proxy(&["bob"], &[]), here, &ann), 403);
        assert_eq!(changes(&proxy(&["*"], &[]), here, &[]), 403);
        assert_eq!(changes(&proxy(&["*"], &[]), here, &[("x-forwarded-user", "")]), 403);
        // Nobody but the proxy is believed.
        assert_eq!(changes(&proxy(&["ann"], &[]), far, &ann), 403);
        assert_eq!(changes(&proxy(&["ann"], &["192.0.2.7"]), far, &ann), 200);
        assert_eq!(changes(&proxy(&["ann"], &["192.0.2.7"]), here, &ann), 403);
        let twice = TestRequest::default()
            .peer_addr(here.parse().unwrap())
            .append_header(("x-forwarded-user", "ann"))
            .append_header(("x-forwarded-user", "bob"))
            .to_http_request();
        assert!(proxy(&["*"], &[]).may_change(&twice).is_err());
        assert!(proxy(&[], &[]).may_read(&request(far, &[])).is_ok());
        let other_site = [("x-forwarded-user", "ann"), ("sec-fetch-site", "cross-site")];
        assert_eq!(changes(&proxy(&["ann"], &[]), here, &other_site), 403);
    }

    #[test]
    fn members_of_groups_are_found_on_this_machine() {
        let groups = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(is_member("root", &groups(&["no-such-group", "root"])));
        assert!(!is_member("root", &groups(&["no-such-group"])));
        assert!(!is_member("no-such-user", &groups(&["root"])) && !is_member("root", &[]));
    }

    #[test]
    fn the_user_readonly_changes_nothing() {
        let multi = Access {
            authentication: Authentication::Multi { user: "ann".into(), password: "p".into() },
            ..Access::default()
        };
        let encode = |text: &str| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        };
        let far = "192.0.2.7:5000";
        let as_whom = |text: &str| changes(&multi, far, &[("authorization", &encode(text))]);
        assert_eq!(as_whom("ann:p"), 200);
        assert_eq!(as_whom("ann:q"), 401);
        assert_eq!(as_whom("readonly:anything"), 403);
        let looks =
            |text: &str| multi.may_read(&request(far, &[("authorization", &encode(text))])).is_ok();
        assert!(looks("readonly:anything") && looks("ann:p") && !looks("bob:p"));
        assert!(multi.may_read(&request(far, &[])).is_err());
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
