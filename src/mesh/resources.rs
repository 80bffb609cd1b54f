//! Kinds as people type them, and what a command line names by them, as kubectl reads both.

use std::fmt;

use meshward_core::api::object::Kind;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::exit::Failure;

/// A kind with all its names; the first one is the plural.
const NAMES: [(Kind, &[&str]); 9] = [
    (Kind::Pod, &["pods", "pod", "po"]),
    (Kind::Service, &["services", "service", "svc"]),
    (
        Kind::Deployment,
        &["deployments", "deployment", "deploy", "deployment.apps"],
    ),
    (Kind::Namespace, &["namespaces", "namespace", "ns"]),
    (
        Kind::ServiceAccount,
        &["serviceaccounts", "serviceaccount", "sa"],
    ),
    (Kind::ConfigMap, &["configmaps", "configmap", "cm"]),
    (
        Kind::PeerAuthentication,
        &["peerauthentications", "peerauthentication", "pa"],
    ),
    (
        Kind::RequestAuthentication,
        &["requestauthentications", "requestauthentication", "ra"],
    ),
    (
        Kind::AuthorizationPolicy,
        &["authorizationpolicies", "authorizationpolicy", "ap"],
    ),
];

/// What kubectl's `all` is of it.
const ALL: [Kind; 3] = [Kind::Pod, Kind::Service, Kind::Deployment];

/// A kind of objects that a mesh holds. Written as `deployment.apps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resource(pub(crate) Kind);

impl Resource {
    /// By any of its names, in any case, with its group behind it or without.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let is = |(kind, names): &&(Kind, &[&str])| {
            let name = match Self(*kind).group() {
                "" => text.as_str(),
                group => match text.strip_suffix(group) {
                    Some(name) => name.strip_suffix('.').unwrap_or(&text),
                    None => &text,
                },
            };
            names.contains(&name)
        };
        NAMES.iter().find(is).map(|(kind, _)| Self(*kind))
    }

    fn group(self) -> &'static str {
        match self.0 {
            Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication => {
                "security.istio.io"
            }
            Kind::Deployment => "apps",
            Kind::ConfigMap
            | Kind::Namespace
            | Kind::Pod
            | Kind::Service
            | Kind::ServiceAccount => "",
        }
    }

    /// `apiVersion` and `kind`.
    pub(crate) fn envelope(self) -> (&'static str, &'static str) {
        match self.0 {
            Kind::AuthorizationPolicy => ("security.istio.io/v1", "AuthorizationPolicy"),
            Kind::ConfigMap => ("v1", "ConfigMap"),
            Kind::Deployment => ("apps/v1", "Deployment"),
            Kind::Namespace => ("v1", "Namespace"),
            Kind::PeerAuthentication => ("security.istio.io/v1", "PeerAuthentication"),
            Kind::Pod => ("v1", "Pod"),
            Kind::RequestAuthentication => ("security.istio.io/v1", "RequestAuthentication"),
            Kind::Service => ("v1", "Service"),
            Kind::ServiceAccount => ("v1", "ServiceAccount"),
        }
    }

    /// Its objects live in namespaces.
    pub(crate) fn is_namespaced(self) -> bool {
        self.0 != Kind::Namespace
    }

    /// `peerauthentications.security.istio.io`, as the server calls it.
    pub(crate) fn plural(self) -> String {
        let names = NAMES.iter().find(|(kind, _)| *kind == self.0);
        let plural = names.and_then(|(_, names)| names.first()).unwrap_or(&"");
        match self.group() {
            "" => (*plural).to_owned(),
            group => format!("{plural}.{group}"),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::named(&text).ok_or_else(|| D::Error::custom(format!("no kind `{text}`")))
    }
}

/// What the words after a command name: kinds, or objects by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Named {
    /// Every object of these kinds.
    Kinds(Vec<Resource>),
    Objects(Vec<(Resource, String)>),
}

impl Named {
    /// `KIND[,KIND]`, `KIND NAME…` or `KIND/NAME…`.
    pub(crate) fn read(words: &[String]) -> Result<Self, Failure> {
        let Some((first, names)) = words.split_first() else {
            return Err(Failure::Usage(
                "you must specify the type of resource\n  hint: pods, services, deployments, namespaces, serviceaccounts, configmaps, peerauthentications, requestauthentications, authorizationpolicies, or all".into(),
            ));
        };
        if words.iter().any(|word| word.contains('/')) {
            return words
                .iter()
                .map(|word| pair(word))
                .collect::<Result<_, _>>()
                .map(Self::Objects);
        }
        let mut kinds = Vec::new();
        for text in first.split(',') {
            let found = if text == "all" {
                ALL.map(Resource).to_vec()
            } else {
                vec![resource(text)?]
            };
            for kind in found {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
        }
        if names.is_empty() {
            return Ok(Self::Kinds(kinds));
        }
        let named = kinds
            .iter()
            .flat_map(|kind| names.iter().map(|name| (*kind, name.clone())));
        Ok(Self::Objects(named.collect()))
    }
}

fn pair(word: &str) -> Result<(Resource, String), Failure> {
    match word.split_once('/') {
        None => Err(Failure::Usage(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form".into(),
        )),
        Some((_, name)) if name.contains('/') => Err(Failure::Usage(
            "arguments in resource/name form may not have more than one slash".into(),
        )),
        Some((kind, name)) if kind.is_empty() || name.is_empty() => Err(Failure::Usage(
            "arguments in resource/name form must have a single resource and name".into(),
        )),
        Some((kind, name)) => Ok((resource(kind)?, name.to_owned())),
    }
}

fn resource(text: &str) -> Result<Resource, Failure> {
    Resource::named(text).ok_or_else(|| {
        Failure::Server(format!(
            "error: the server doesn't have a resource type \"{text}\""
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Named, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Named::read(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn kinds_are_known_by_all_their_names() {
        for (text, kind) in [
            ("po", Kind::Pod),
            ("Deployments.apps", Kind::Deployment),
            ("deploy", Kind::Deployment),
            ("pa", Kind::PeerAuthentication),
            (
                "peerauthentications.security.istio.io",
                Kind::PeerAuthentication,
            ),
            ("ra", Kind::RequestAuthentication),
            ("ap", Kind::AuthorizationPolicy),
        ] {
            assert_eq!(Resource::named(text), Some(Resource(kind)), "{text}");
        }
        for text in ["", "pod.apps", "x.apps", "gateway", "podsecurity.istio.io"] {
            assert_eq!(Resource::named(text), None, "{text}");
        }
        for (kind, _) in NAMES {
            let written = Resource(kind).to_string();
            assert_eq!(Resource::named(&written), Some(Resource(kind)));
            assert_eq!(
                Resource::named(&Resource(kind).plural()),
                Some(Resource(kind))
            );
        }
    }

    #[test]
    fn words_name_kinds_or_objects() {
        let (pod, service) = (Resource(Kind::Pod), Resource(Kind::Service));
        assert_eq!(read(&["po,svc,pods"]), Ok(Named::Kinds(vec![pod, service])));
        assert_eq!(
            read(&["po", "a", "b"]),
            Ok(Named::Objects(vec![(pod, "a".into()), (pod, "b".into())]))
        );
        assert_eq!(
            read(&["po/a", "svc/b"]),
            Ok(Named::Objects(vec![
                (pod, "a".into()),
                (service, "b".into())
            ]))
        );
        for (words, says) in [
            (&[][..], "error: you must specify the type of resource"),
            (&["po/a", "b"], "error: there is no need"),
            (&["po/a/b"], "error: arguments in resource/name form may"),
            (&["po/"], "error: arguments in resource/name form must"),
            (
                &["widgets"],
                "error: the server doesn't have a resource type \"widgets\"",
            ),
        ] {
            let error = read(words).expect_err("they name nothing");
            assert!(error.starts_with(says), "{error}");
        }
    }
}
