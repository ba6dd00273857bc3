//! What all messages have in common, written once.

/// A message whose fields are all public; those that may be absent are left out when they are.
macro_rules! message {
    ($($(#[$meta:meta])* $name:ident { $($(#[$on_field:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$on_field])*
                #[serde(skip_serializing_if = "crate::mesos::wire::Unset::is_unset")]
                pub $field: $type,
            )*
        }

        impl crate::mesos::wire::Unset for $name {}
    )*};
}

/// An enumeration that keeps a value it does not know.
macro_rules! enumeration {
    ($($(#[$meta:meta])* $name:ident { $($(#[$on_variant:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$on_variant])* $variant,)*
            /// One that this version does not know.
            Other(Box<str>),
        }

        impl $name {
            /// Mesos's name for it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(Box::default())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self::from(&*text))
            }
        }

        impl crate::mesos::wire::Unset for $name {}
    )*};
}

/// Ids: a text that is `{"value": …}` on the wire.
macro_rules! id {
    ($($name:ident,)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            pub value: String,
        }

        impl $name {
            /// The id of that text.
            pub fn new(value: impl Into<String>) -> Self {
                Self { value: value.into() }
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.value
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.value)
            }
        }

        impl crate::mesos::wire::Unset for $name {}
    )*};
}
