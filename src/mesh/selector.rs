//! Label selectors, as `-l` takes them: `app=web`, `app!=web`, `app in (web, db)`, `app notin (web)`, `app`, `!app`, and
//! several of them with commas between.

use meshward_core::api::load::grammar::{is_label_value, is_qualified_name};
use meshward_core::api::meta::Labels;
use serde::{Deserialize, Serialize};

/// All requirements have to be met; none: everything is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Test {
    Exists,
    IsMissing,
    In(Vec<String>),
    /// A label that is not there has none of the values.
    NotIn(Vec<String>),
}

impl Selector {
    /// As a value parser of arguments: the error is one clause.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for part in parts(text) {
            requirements.push(requirement(part.trim())?);
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement { key, test }| {
            let value = labels.get(key);
            match test {
                Test::Exists => value.is_some(),
                Test::IsMissing => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

/// Cut at the commas that stand in no parentheses.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .filter(|part| !part.trim().is_empty())
}

fn requirement(text: &str) -> Result<Requirement, String> {
    if let Some(key) = text.strip_prefix('!') {
        return checked(key, Test::IsMissing);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return checked(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return checked(key, Test::In(vec![value.trim().to_owned()]));
    }
    let Some((key, set)) = text.split_once(char::is_whitespace) else {
        return checked(text, Test::Exists);
    };
    let set = set.trim();
    let (is_in, values) = match (set.strip_prefix("notin"), set.strip_prefix("in")) {
        (Some(values), _) => (false, values),
        (_, Some(values)) => (true, values),
        (None, None) => return Err(format!("`{text}` is no selector of labels")),
    };
    let values = values.trim().strip_prefix('(');
    let values = values.and_then(|values| values.strip_suffix(')'));
    let values = values.ok_or_else(|| format!("`{text}`: values stand in parentheses"))?;
    let values = values.split(',').map(|value| value.trim().to_owned());
    let values = values.collect();
    checked(
        key,
        if is_in {
            Test::In(values)
        } else {
            Test::NotIn(values)
        },
    )
}

fn checked(key: &str, test: Test) -> Result<Requirement, String> {
    let key = key.trim();
    if !is_qualified_name(key) {
        return Err(format!("`{key}` is no key of a label"));
    }
    if let Test::In(values) | Test::NotIn(values) = &test
        && let Some(value) = values.iter().find(|value| !is_label_value(value))
    {
        return Err(format!("`{value}` is no value of a label"));
    }
    Ok(Requirement {
        key: key.to_owned(),
        test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubectl_says() {
        let labels: Labels = [("app", "web"), ("tier", "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        for (text, selects) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app=db", false),
            ("app!=web", false),
            ("zone!=a", true),
            ("app", true),
            ("zone", false),
            ("!app", false),
            ("!zone", true),
            ("tier=", true),
            ("app in (db, web)", true),
            ("app in (db,x),tier", false),
            ("app notin (db)", true),
            ("app notin (web)", false),
            ("app=web,!zone", true),
            ("app=web, tier=x", false),
        ] {
            let selector = Selector::read(text).unwrap();
            assert_eq!(selector.selects(&labels), selects, "{text}");
        }
        for text in ["=a", "a b", "a in b", "a in (b", "a=b=c", "-x", "a=_"] {
            assert!(Selector::read(text).is_err(), "{text}");
        }
    }
}
