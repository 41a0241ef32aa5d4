//! Objects for parts of this process, without sockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::access::User;
use crate::server::ApiServer;

/// Longest answer that is read.
const ANSWER_LEN_MAX: usize = 64 << 20;
/// Who writes fields, for server-side apply.
const MANAGER: &str = "ferrovirt";

/// What the API server said no to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// HTTP status.
    pub code: u16,
    /// What it said.
    pub message: String,
}

/// What was made of each object of a resource ([`Objects::project`]), by the object's revision.
#[derive(Debug)]
pub struct Projection<T> {
    resource: &'static str,
    made: BTreeMap<u64, Arc<T>>,
}

impl<T> Projection<T> {
    /// Returns a projection of a resource, of which nothing was made yet.
    #[must_use]
    pub fn new(resource: &'static str) -> Self {
        Self {
            resource,
            made: BTreeMap::new(),
        }
    }
}

/// Objects as one user sees them.
#[derive(Clone)]
pub struct Objects {
    api: ApiServer,
    user: User,
}

impl Objects {
    /// Returns the objects for a part of this process, which may do everything.
    #[must_use]
    pub fn new(api: ApiServer, name: &str) -> Self {
        Self {
            api,
            user: User::master(name),
        }
    }

    /// Returns the objects of a resource from the store itself, to read.
    #[must_use]
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let stored = self.api.store().list(resource, None).objects;
        let read = stored
            .iter()
            .filter_map(|it| serde_json::from_slice(&it.json).ok());
        read.collect()
    }

    /// Returns what `make` makes of each object of a resource. It is asked again only about objects that changed since the
    /// last time. They come in the order of their last change.
    pub fn project<T>(
        &self,
        projection: &mut Projection<T>,
        make: impl Fn(Value) -> T,
    ) -> Vec<Arc<T>> {
        let stored = self.api.store().list(projection.resource, None).objects;
        let mut before = std::mem::take(&mut projection.made);
        for it in &stored {
            let known = before.remove(&it.revision);
            let made = known.unwrap_or_else(|| Arc::new(make(it.value())));
            projection.made.insert(it.revision, made);
        }
        projection.made.values().cloned().collect()
    }

    /// Creates or changes an object to have what is given (server-side apply).
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        let target = format!("{path}?fieldManager={MANAGER}&force=true");
        self.send(
            Method::PATCH,
            &target,
            "application/apply-patch+yaml",
            object,
        )
        .await
    }

    /// Creates an object.
    ///
    /// # Errors
    ///
    /// What the API server says; 409 when there is one.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Refused> {
        let target = format!("{path}?fieldManager={MANAGER}");
        self.send(Method::POST, &target, "application/json", object)
            .await
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Refused> {
        let target = format!("{path}?fieldManager={MANAGER}");
        self.send(
            Method::PATCH,
            &target,
            "application/merge-patch+json",
            patch,
        )
        .await
    }

    /// Changes an object by a JSON patch.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn json_patch(&self, path: &str, patch: &Value) -> Result<Value, Refused> {
        let target = format!("{path}?fieldManager={MANAGER}");
        self.send(Method::PATCH, &target, "application/json-patch+json", patch)
            .await
    }

    /// Deletes an object; that it is gone already is no error.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn delete(&self, path: &str) -> Result<(), Refused> {
        self.delete_with(path, &Value::Null).await
    }

    /// Deletes an object with `DeleteOptions`; that it, or the one that is meant, is gone already is no error.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub async fn delete_with(&self, path: &str, options: &Value) -> Result<(), Refused> {
        match self
            .send(Method::DELETE, path, "application/json", options)
            .await
        {
            Err(refused) if !matches!(refused.code, 404 | 409) => Err(refused),
            _ => Ok(()),
        }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        content: &str,
        body: &Value,
    ) -> Result<Value, Refused> {
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("content-type", content)
            .extension(self.user.clone())
            .body(body);
        let wrong = |error: &dyn std::fmt::Display| Refused {
            code: 0,
            message: format!("{target}: {error}"),
        };
        let request = request.map_err(|error| wrong(&error))?;
        let response = self.api.call(request).await;
        let status = response.status();
        let collected = Limited::new(response.into_body(), ANSWER_LEN_MAX)
            .collect()
            .await;
        let bytes = collected.map_err(|error| wrong(&error))?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer["message"].as_str().unwrap_or("no message");
        Err(Refused {
            code: status.as_u16(),
            message: message.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::{Value, json};

    use super::{Objects, Projection};
    use crate::server::{ApiServer, Options};

    #[tokio::test]
    async fn a_projection_is_made_again_of_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let server = ApiServer::open(Options::new(folder.path(), vec![7; 32])).unwrap();
        let objects = Objects::new(server, "tester");
        let mut projection = Projection::new("namespaces");
        let made = Cell::new(0);
        let mut names = || {
            made.set(0);
            let all = objects.project(&mut projection, |it: Value| {
                made.set(made.get() + 1);
                it["metadata"]["labels"]["n"].as_str().map(str::to_owned)
            });
            let labels: Vec<_> = all.iter().filter_map(|it| it.as_deref()).collect();
            (labels.concat(), made.get())
        };
        assert_eq!(names(), (String::new(), 0));
        for (name, label) in [("one", "a"), ("two", "b")] {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"n": label}},
            });
            objects.create("/api/v1/namespaces", &object).await.unwrap();
        }
        assert_eq!(names(), ("ab".to_owned(), 2));
        assert_eq!(names(), ("ab".to_owned(), 0));
        let patch = json!({"metadata": {"labels": {"n": "c"}}});
        objects
            .merge("/api/v1/namespaces/one", &patch)
            .await
            .unwrap();
        assert_eq!(names(), ("bc".to_owned(), 1));
    }
}
