//! Why settings are refused.

/// A setting that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must be {allowed}")]
pub struct SettingsError {
    field: String,
    value: String,
    allowed: String,
}

impl SettingsError {
    pub(crate) fn new(
        field: impl Into<String>,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), value: value.to_string(), allowed: allowed.into() }
    }

    /// The same, seen from one table further out.
    pub(super) fn within(self, table: &str) -> Self {
        Self { field: format!("{table}.{}", self.field), ..self }
    }

    /// The path of the setting, for instance `endpoint.capacity.max_live`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What it is.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What it may be.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}
