//! Settings as text (feature `serde`): what can be off is its value or `"off"`.
//!
//! TOML has no null, and an optional setting may have a default: without a word for it, such a
//! setting could not be switched off in a file.

use core::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        Error, IntoDeserializer, SeqAccess, Visitor,
        value::{self, SeqAccessDeserializer, StrDeserializer},
    },
};

use super::{AtLimit, AtOpen, AtStreamLimit, Order, Peek};

const OFF: &str = "off";

/// How a type of setting is read and written.
pub(super) trait Text: Sized {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
}

macro_rules! as_serde_does {
    ($($type:ty),+) => {$(
        impl Text for $type {
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from)
            }

            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                self.serialize(to)
            }
        }
    )+};
}

as_serde_does!(bool, u32, AtLimit, AtOpen, AtStreamLimit, Order, Peek);

impl<T: for<'de> Deserialize<'de> + Serialize> Text for Option<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ValueOrOff(PhantomData))
    }

    fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(setting) => setting.serialize(to),
            None => to.serialize_str(OFF),
        }
    }
}

struct ValueOrOff<T>(PhantomData<T>);

impl<'de, T: for<'any> Deserialize<'any>> Visitor<'de> for ValueOrOff<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value, or \"{OFF}\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text == OFF {
            return Ok(None);
        }
        // An error of serde's own, because a format may end its messages in its own way.
        let text: StrDeserializer<'_, value::Error> = text.into_deserializer();
        T::deserialize(text)
            .map(Some)
            .map_err(|error| E::custom(format_args!("{error}, or \"{OFF}\"")))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(items)).map(Some)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

/// For `serde(with)`: a setting.
pub(super) mod setting {
    use super::{Deserializer, Serializer, Text};

    pub(in crate::settings) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        T::read(from)
    }

    pub(in crate::settings) fn serialize<T: Text, S: Serializer>(
        setting: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        setting.write(to)
    }
}

/// For `serde(with)`: a setting that an endpoint changes. Left out, it is `None`; off, it is
/// `Some(None)`.
pub(super) mod change {
    use super::{Deserializer, Serializer, Text};

    pub(in crate::settings) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        T::read(from).map(Some)
    }

    pub(in crate::settings) fn serialize<T: Text, S: Serializer>(
        change: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match change {
            Some(setting) => setting.write(to),
            // Not reached where `None` is left out, as it is everywhere.
            None => to.serialize_none(),
        }
    }
}

/// For `serde(with)`: what has a name, by its name.
pub(super) mod name {
    use core::{fmt::Display, str::FromStr};

    use serde::{Deserialize, de::Error};

    use super::{Deserializer, Serializer};

    pub(in crate::settings) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        // Owned, because a format may have to unescape it.
        String::deserialize(from)?.parse().map_err(Error::custom)
    }

    pub(in crate::settings) fn serialize<T: Display, S: Serializer>(
        named: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(named)
    }
}

/// For `skip_serializing_if`: a group of changes that has none.
pub(super) fn changes_nothing<T: Default + PartialEq>(changes: &T) -> bool {
    *changes == T::default()
}
