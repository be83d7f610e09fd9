//! The keys of who may look and who may change something over HTTP.

use serde::Deserialize;
use vtorc_web::{Authentication, TrustedProxy};

use super::Password;
use crate::Failure;

/// How callers prove who they are.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct AuthConfig {
    authentication_method: String,
    #[serde(rename = "HTTPAuthUser")]
    http_auth_user: String,
    #[serde(rename = "HTTPAuthPassword")]
    http_auth_password: Password,
    auth_user_header: String,
    auth_proxy_addresses: Vec<String>,
    power_auth_users: Vec<String>,
    power_auth_groups: Vec<String>,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            authentication_method: String::new(),
            http_auth_user: String::new(),
            http_auth_password: Password::default(),
            auth_user_header: "X-Forwarded-User".into(),
            auth_proxy_addresses: Vec::new(),
            power_auth_users: vec!["*".into()],
            power_auth_groups: Vec::new(),
        }
    }
}

impl AuthConfig {
    pub(crate) fn authentication(&self) -> Result<Authentication, Failure> {
        let password = self.http_auth_password.resolve("HTTPAuthPassword")?.reveal().to_owned();
        let needs = |what: &str| Failure(format!("AuthenticationMethod needs {what}"));
        let user = self.http_auth_user.clone();
        match self.authentication_method.to_ascii_lowercase().as_str() {
            "" | "none" => Ok(Authentication::None),
            "basic" | "multi" if user.is_empty() || password.is_empty() => {
                Err(needs("HTTPAuthUser and HTTPAuthPassword"))
            }
            "basic" => Ok(Authentication::Basic { user, password }),
            "multi" => Ok(Authentication::Multi { user, password }),
            "proxy" => self.proxy().map(Authentication::Proxy),
            "token" if password.is_empty() => Err(needs("HTTPAuthPassword, the token")),
            "token" => Ok(Authentication::Token { token: password }),
            other => Err(Failure(format!(
                "AuthenticationMethod {other:?} is not supported; use basic, multi, proxy or token"
            ))),
        }
    }

    fn proxy(&self) -> Result<TrustedProxy, Failure> {
        let address = |text: &String| {
            text.parse().map_err(|error| Failure(format!("AuthProxyAddresses, {text:?}: {error}")))
        };
        let addresses: Result<_, _> = self.auth_proxy_addresses.iter().map(address).collect();
        Ok(TrustedProxy {
            header: self.auth_user_header.clone(),
            addresses: addresses?,
            users: self.power_auth_users.clone(),
            groups: self.power_auth_groups.clone(),
        })
    }
}
