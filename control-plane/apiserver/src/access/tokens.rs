//! Tokens: those of service accounts, which this server signs, and one of the node's own components.
//!
//! A service account's token is a JSON web token (RFC 7519) signed with HMAC-SHA-256 (RFC 7515): nobody but this server
//! has to check it, so one secret does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::User;

/// Issuer and default audience of tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// Shortest and longest life of a token in seconds, and what it is when nobody says (`TokenRequest`).
const LIFE: (i64, i64, i64) = (600, 1 << 32, 3600);
/// Longest token that is looked at.
const TOKEN_LEN_MAX: usize = 16 << 10;

/// Signs and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    secret: Vec<u8>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whom the token is for.
    pub audiences: Vec<String>,
    /// The pod that it was made for, with its uid.
    pub pod: Option<(String, String)>,
}

impl Claims {
    /// Returns the user that the token stands for.
    #[must_use]
    pub fn user(&self) -> User {
        let mut user = User::service_account(&self.namespace, &self.name, &self.uid);
        if let Some((name, uid)) = &self.pod {
            let key = |it: &str| format!("authentication.kubernetes.io/{it}");
            user.extra.insert(key("pod-name"), vec![name.clone()]);
            user.extra.insert(key("pod-uid"), vec![uid.clone()]);
        }
        user
    }
}

impl Tokens {
    /// Returns a signer with a secret, which should be 32 random bytes.
    #[must_use]
    pub fn new(secret: Vec<u8>) -> Self {
        Self { secret }
    }

    /// Answers a `TokenRequest` for a service account: the request with its `status`.
    #[must_use]
    pub fn issue(&self, account: &Value, request: &Value, now: Timestamp) -> Value {
        let wanted = request["spec"]["expirationSeconds"]
            .as_i64()
            .unwrap_or(LIFE.2);
        let expires = now.as_second() + wanted.clamp(LIFE.0, LIFE.1);
        let audiences = match request["spec"]["audiences"].as_array() {
            Some(list) if !list.is_empty() => Value::from(list.clone()),
            _ => json!([ISSUER]),
        };
        let bound = &request["spec"]["boundObjectRef"];
        let pod =
            (bound["kind"] == "Pod").then(|| json!({"name": bound["name"], "uid": bound["uid"]}));
        let metadata = &account["metadata"];
        let mut claims = json!({
            "iss": ISSUER,
            "aud": audiences,
            "sub": format!("system:serviceaccount:{}:{}",
                metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default()),
            "iat": now.as_second(),
            "nbf": now.as_second(),
            "exp": expires,
            "kubernetes.io": {
                "namespace": metadata["namespace"],
                "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
            },
        });
        if let Some(pod) = pod {
            claims["kubernetes.io"]["pod"] = pod;
        }
        let expiry = Timestamp::from_second(expires).unwrap_or(Timestamp::MAX);
        let mut answer = request.clone();
        answer["apiVersion"] = json!("authentication.k8s.io/v1");
        answer["kind"] = json!("TokenRequest");
        answer["status"] = json!({
            "token": self.sign(&claims),
            "expirationTimestamp": expiry.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        answer
    }

    /// Returns what a token says; `None` when it is not one of ours or its time is over.
    #[must_use]
    pub fn check(&self, token: &str, now: Timestamp) -> Option<Claims> {
        if token.len() > TOKEN_LEN_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(signed).verify_slice(&signature).ok()?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let second = now.as_second();
        let is_now = claims["nbf"].as_i64()? <= second && second < claims["exp"].as_i64()?;
        is_now.then(|| read(&claims))
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.mac(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mac = Hmac::new_from_slice(&self.secret);
        let mut mac: Hmac<Sha256> = mac.expect("HMAC takes keys of any length");
        mac.update(signed.as_bytes());
        mac
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn read(claims: &Value) -> Claims {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kubernetes = &claims["kubernetes.io"];
    let pod = &kubernetes["pod"];
    Claims {
        namespace: text(&kubernetes["namespace"]),
        name: text(&kubernetes["serviceaccount"]["name"]),
        uid: text(&kubernetes["serviceaccount"]["uid"]),
        audiences: claims["aud"]
            .as_array()
            .into_iter()
            .flatten()
            .map(text)
            .collect(),
        pod: pod
            .is_object()
            .then(|| (text(&pod["name"]), text(&pod["uid"]))),
    }
}
