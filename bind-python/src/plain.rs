//! Classes that are nothing but their fields.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use pyo3::pybacked::PyBackedBytes;

/// How a field stands in a `repr`.
pub(crate) trait Show {
    fn show(&self) -> String;
}

/// Keys and tokens may be in there, so the length alone is shown.
impl Show for PyBackedBytes {
    fn show(&self) -> String {
        format!("<{} bytes>", self.len())
    }
}

impl Show for bool {
    fn show(&self) -> String {
        if *self { "True" } else { "False" }.into()
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "None".into(), T::show)
    }
}

macro_rules! show_as_display {
    ($($type:ty)*) => {
        $(impl Show for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        })*
    };
}

/// As Rust quotes it, which differs from Python in escapes of what is not printable alone.
impl Show for String {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

show_as_display!(usize u16 u64 f64 NonZeroU16);

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(T::show).collect();
        format!("[{}]", items.join(", "))
    }
}

impl<K: Show, V: Show> Show for BTreeMap<K, V> {
    fn show(&self) -> String {
        let items: Vec<String> = self
            .iter()
            .map(|(key, value)| format!("{}: {}", key.show(), value.show()))
            .collect();
        format!("{{{}}}", items.join(", "))
    }
}

/// A frozen class: made from its fields in their order, compared, matched and printed by them. A constructor behind the
/// fields stands for the one that would be made.
macro_rules! plain {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        crate::plain::plain! {
            $(#[$doc])*
            $name { $($field: $type),* }
            #[new]
            fn new($($field: $type),*) -> Self {
                Self { $($field),* }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? } $($new:tt)+) => {
        #[pyo3::pyclass(module = "meshward", frozen, eq, get_all)]
        #[derive(PartialEq)]
        $(#[$doc])*
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        #[pyo3::pymethods]
        impl $name {
            #[classattr]
            fn __match_args__(
                py: pyo3::Python<'_>,
            ) -> pyo3::PyResult<pyo3::Bound<'_, pyo3::types::PyTuple>> {
                let fields: &[&str] = &[$(stringify!($field)),*];
                pyo3::types::PyTuple::new(py, fields)
            }

            $($new)+

            fn __repr__(&self) -> String {
                let fields: Vec<String> = vec![$(
                    format!("{}={}", stringify!($field), crate::plain::Show::show(&self.$field))
                ),*];
                format!("{}({})", stringify!($name), fields.join(", "))
            }
        }
    };
}

pub(crate) use plain;
