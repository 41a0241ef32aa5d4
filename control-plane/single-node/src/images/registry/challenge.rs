//! What registries want to see of who asks (RFC 9110 §11.6.1; Docker registry, "Token Authentication").

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use hyper::body::Bytes;

use super::Login;

/// One way to show who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of another place.
    Bearer(Bearer),
    /// User and password.
    Basic,
}

/// Where tokens are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    pub(super) scope: Option<String>,
}

/// A request for a token.
pub(super) struct TokenRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Reads all challenges of an answer.
pub(super) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values
        .filter_map(|it| parse_one(it.to_str().ok()?))
        .collect()
}

fn parse_one(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut bearer = Bearer::default();
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => bearer.realm = value,
            "service" => bearer.service = Some(value),
            "scope" => bearer.scope = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer(bearer))
}

/// Reads `name="value", name=value`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name, value));
        rest = after;
    }
    found
}

/// Returns the string up to its closing quote, and what is after it.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            plain => value.push(plain),
        }
    }
    (value, "")
}

impl Bearer {
    /// Returns the request for a token; the text is why there can be none.
    pub(super) fn request(
        &self,
        scope: &str,
        login: Option<&Login>,
    ) -> Result<TokenRequest, String> {
        let mut fields = Vec::new();
        if let Some(service) = &self.service {
            fields.push(("service", service.as_str()));
        }
        fields.push(("scope", self.scope.as_deref().unwrap_or(scope)));
        let mut headers = HeaderMap::new();
        if let Some(Login::Token(token)) = login {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "ferrovirt"),
                ("refresh_token", token),
            ]);
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
            return Ok(TokenRequest {
                method: Method::POST,
                uri: self.uri(&self.realm)?,
                headers,
                body: encode(&fields).into(),
            });
        }
        if let Some(basic) = login.and_then(Login::basic) {
            headers.insert(header::AUTHORIZATION, basic);
        }
        let mark = if self.realm.contains('?') { '&' } else { '?' };
        Ok(TokenRequest {
            method: Method::GET,
            uri: self.uri(&format!("{}{mark}{}", self.realm, encode(&fields)))?,
            headers,
            body: Bytes::new(),
        })
    }

    fn uri(&self, text: &str) -> Result<Uri, String> {
        let uri: Option<Uri> = text.parse().ok();
        let whole = uri.filter(|it| it.scheme().is_some() && it.host().is_some());
        whole.ok_or_else(|| format!("wants a login at {:?}, which is no address", self.realm))
    }
}

/// Encodes the fields of a query or a form.
fn encode(fields: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| format!("{name}={}", escape(value));
    let fields: Vec<_> = fields.iter().map(field).collect();
    fields.join("&")
}

/// Escapes all but unreserved characters (RFC 3986 §2.1).
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{Bearer, Challenge, Login, parse_one};

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer(bearer)) = parse_one(text) else {
            panic!()
        };
        assert_eq!(bearer.realm, "https://auth.docker.io/token");
        assert_eq!(bearer.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(bearer.scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(parse_one("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse_one("Negotiate"), None);
        let odd = parse_one("Bearer realm=https://x/y , service=\"a\\\"b").unwrap();
        let wanted = Bearer {
            realm: "https://x/y".to_owned(),
            service: Some("a\"b".to_owned()),
            scope: None,
        };
        assert_eq!(odd, Challenge::Bearer(wanted));
    }

    #[test]
    fn tokens_are_asked_for_with_what_there_is() {
        let bearer = Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("a b".to_owned()),
            scope: None,
        };
        let anonymous = bearer.request("repository:x/y:pull", None).unwrap();
        let wanted = "https://auth.example/token?service=a%20b&scope=repository%3Ax%2Fy%3Apull";
        assert_eq!(anonymous.uri.to_string(), wanted);
        assert!(anonymous.headers.is_empty());
        let login = Login::Password {
            user: "me".to_owned(),
            password: "secret".to_owned(),
        };
        let known = bearer.request("x", Some(&login)).unwrap();
        assert_eq!(known.headers["authorization"], "Basic bWU6c2VjcmV0");
        let refresh = bearer
            .request("x", Some(&Login::Token("t&t".to_owned())))
            .unwrap();
        assert_eq!(refresh.method, http::Method::POST);
        assert!(String::from_utf8_lossy(&refresh.body).contains("refresh_token=t%26t"));
        let lost = Bearer::default();
        assert!(lost.request("x", None).is_err());
    }
}
