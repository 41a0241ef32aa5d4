//! Which form of an answer a client takes (`Accept`).

use http::HeaderMap;
use http::header::ACCEPT;

use crate::failure::Failure;
use crate::request::Query;
use crate::table::IncludeObject;

/// Forms that are named in one header.
const RANGES_MAX: usize = 32;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accept {
    pub(crate) projection: Projection,
    pub(crate) is_pretty: bool,
    is_yaml: bool,
}

/// How much of objects is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Projection {
    /// All.
    #[default]
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// A `Table`.
    Table(IncludeObject),
}

impl Accept {
    /// Reads the headers of a request.
    ///
    /// # Errors
    ///
    /// 406 when the client takes no form that there is.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Failure> {
        let named = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|it| it.to_str().ok());
        let ranges: Vec<_> = named
            .flat_map(|it| it.split(','))
            .take(RANGES_MAX)
            .collect();
        let is_pretty = query.is_set("pretty");
        if ranges.iter().all(|it| it.trim().is_empty()) {
            return Ok(Self {
                is_pretty,
                ..Self::default()
            });
        }
        let found = ranges.iter().find_map(|it| Self::range(it, query));
        let found = found.ok_or_else(|| {
            let message =
                "only the following media types are accepted: application/json, application/yaml";
            Failure::new(406, "NotAcceptable", message)
        })?;
        Ok(Self { is_pretty, ..found })
    }

    fn range(text: &str, query: &Query) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let is_yaml = match parts.next()? {
            "application/json" | "application/*" | "*/*" => false,
            "application/yaml" => true,
            _ => return None,
        };
        let parameters: Vec<_> = parts.filter_map(|it| it.split_once('=')).collect();
        let parameter = |name: &str| {
            let found = parameters.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| *value)
        };
        let projection = match parameter("as") {
            None => Projection::Whole,
            Some(_) if parameter("v") != Some("v1") => return None,
            Some("Table") => Projection::Table(include(query)),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Projection::Metadata,
            Some(_) => return None,
        };
        Some(Self {
            projection,
            is_pretty: false,
            is_yaml,
        })
    }

    /// Whether stored JSON can be sent as it is.
    pub(crate) fn is_verbatim(&self) -> bool {
        self.projection == Projection::Whole && !self.is_pretty
    }

    pub(crate) fn content_type(&self) -> &'static str {
        if self.is_yaml {
            "application/yaml"
        } else {
            "application/json"
        }
    }
}

fn include(query: &Query) -> IncludeObject {
    match query.get("includeObject") {
        Some("Object") => IncludeObject::Object,
        Some("None") => IncludeObject::None,
        _ => IncludeObject::Metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(header: &str) -> Result<Accept, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header.parse().unwrap());
        Accept::of(&headers, &Query::default())
    }

    #[test]
    fn the_first_form_that_there_is_counts() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            accept(kubectl).unwrap().projection,
            Projection::Table(IncludeObject::Metadata)
        );
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(typed).unwrap(), Accept::default());
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(accept(metadata).unwrap().projection, Projection::Metadata);
        assert_eq!(
            accept("application/yaml").unwrap().content_type(),
            "application/yaml"
        );
        assert!(accept("*/*").unwrap().is_verbatim());
    }

    #[test]
    fn other_forms_are_not_acceptable() {
        assert_eq!(
            accept("application/vnd.kubernetes.protobuf")
                .unwrap_err()
                .code,
            406
        );
    }
}
