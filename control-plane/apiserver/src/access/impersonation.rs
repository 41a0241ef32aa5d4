//! Acting as somebody else (`kubectl --as`): the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…`.

use http::{HeaderMap, HeaderName};

use super::authorizer::Authorizer;
use super::{AUTHENTICATED, Attributes, UNAUTHENTICATED, User};
use crate::failure::Failure;
use crate::request::decode;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// Group of the resources that stand for what is neither a user nor a group.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Takes the headers out of a request and returns whom its sender acts as: usually nobody else.
///
/// # Errors
///
/// 400 when the headers name no user; 403 when the sender may not act as what they name.
pub fn act_as(
    authorizer: &Authorizer,
    sender: User,
    headers: &mut HeaderMap,
) -> Result<User, Failure> {
    let Some((user, rights)) = asked(&take(headers))? else {
        return Ok(sender);
    };
    for right in rights {
        authorizer.authorize(&sender, &right)?;
    }
    Ok(user)
}

/// Takes the headers out, as nobody behind may believe them.
fn take(headers: &mut HeaderMap) -> HeaderMap {
    let is_one = |it: &&HeaderName| it.as_str().starts_with(PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(is_one).cloned().collect();
    let mut taken = HeaderMap::new();
    for name in names {
        for value in headers.get_all(&name) {
            taken.append(name.clone(), value.clone());
        }
        headers.remove(&name);
    }
    taken
}

/// Returns whom a request is to be answered as, and the rights that this takes; `None` without any of the headers.
fn asked(headers: &HeaderMap) -> Result<Option<(User, Vec<Attributes>)>, Failure> {
    if headers.is_empty() {
        return Ok(None);
    }
    let name = texts(headers, USER)?.pop().unwrap_or_default();
    if name.is_empty() {
        return Err(Failure::bad_request(
            "Impersonate-User: required beside the other headers of that kind (--as)",
        ));
    }
    let mut rights = vec![right_to_user(&name)];
    let groups = texts(headers, GROUP)?;
    rights.extend(groups.iter().map(|group| right("", "groups", "", group)));
    let mut user = match service_account(&name) {
        Some((namespace, account)) if groups.is_empty() => {
            User::service_account(namespace, account, "")
        }
        _ => User {
            groups: with_own_group(&name, groups),
            name,
            ..User::default()
        },
    };
    if let Some(uid) = texts(headers, UID)?.pop() {
        rights.push(right(AUTHENTICATION, "uids", "", &uid));
        user.uid = uid;
    }
    for header in headers.keys() {
        let Some(key) = header.as_str().strip_prefix(EXTRA) else {
            continue;
        };
        let key = decoded(key)?;
        let values = texts(headers, header.as_str())?;
        let of_key = values
            .iter()
            .map(|value| right(AUTHENTICATION, "userextras", &key, value));
        rights.extend(of_key);
        user.extra.insert(key, values);
    }
    Ok(Some((user, rights)))
}

fn texts(headers: &HeaderMap, name: &str) -> Result<Vec<String>, Failure> {
    let values = headers.get_all(name).iter();
    let texts = values.map(|value| std::str::from_utf8(value.as_bytes()).map(str::to_owned));
    let wrong = |_| Failure::bad_request(format!("the header {name} is not written in UTF-8"));
    texts.collect::<Result<_, _>>().map_err(wrong)
}

/// Returns the key of an extra fact: `example.org%2fscope` stands for `example.org/scope`.
fn decoded(key: &str) -> Result<String, Failure> {
    decode(key, false).ok_or_else(|| {
        Failure::bad_request(format!("the header {EXTRA}{key} is not encoded UTF-8"))
    })
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Adds the group of everybody who proved who they are, or of those who did not, unless it is said.
fn with_own_group(name: &str, mut groups: Vec<String>) -> Vec<String> {
    let own = if name == User::anonymous().name {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    let is_said = groups
        .iter()
        .any(|it| it == AUTHENTICATED || it == UNAUTHENTICATED);
    if !is_said {
        groups.push(own.to_owned());
    }
    groups
}

fn right_to_user(name: &str) -> Attributes {
    match service_account(name) {
        Some((namespace, account)) => Attributes {
            namespace: namespace.to_owned(),
            ..right("", "serviceaccounts", "", account)
        },
        None => right("", "users", "", name),
    }
}

fn right(group: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
    Attributes {
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        ..Attributes::default()
    }
}

#[cfg(test)]
mod tests;
