//! The macro behind the settings of an endpoint: each is written down once.

/// From a table of groups and settings makes the structs, their defaults, the structs of what an
/// endpoint may change, the application of such changes, and the check of the ranges.
///
/// ```text
/// endpoint_settings! {
///     /// What the group is about.
///     group: Group, GroupOverrides {
///         /// What the setting means.
///         setting: u32 = 7, in 1..=10;   // name, type, default, range (of its number, if any)
///         switch: bool = true;
///     }
/// }
/// ```
macro_rules! endpoint_settings {
    ($(
        $(#[doc = $about:literal])+
        $group:ident: $Group:ident, $Overrides:ident {
            $(
                $(#[doc = $doc:literal])+
                $setting:ident: $type:ty = $default:expr $(, in $range:expr)?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            #[cfg_attr(
                feature = "serde",
                derive(serde::Deserialize, serde::Serialize),
                serde(default, deny_unknown_fields)
            )]
            #[non_exhaustive]
            pub struct $Group {
                $(
                    $(#[doc = $doc])+
                    #[doc = concat!(
                        "\n\nDefault: `", stringify!($default), "`."
                        $(, " Range: `", stringify!($range), "`.")?
                    )]
                    #[cfg_attr(feature = "serde", serde(with = "super::text::setting"))]
                    pub $setting: $type,
                )+
            }

            impl Default for $Group {
                fn default() -> Self {
                    Self { $($setting: $default,)+ }
                }
            }

            impl $Group {
                fn check_ranges(&self) -> Result<(), SettingsError> {
                    $($(
                        let field = concat!(stringify!($group), ".", stringify!($setting));
                        in_range(field, &self.$setting, $range)?;
                    )?)+
                    Ok(())
                }
            }

            #[doc = concat!(
                "What an endpoint changes in [`", stringify!($Group), "`]; `None` leaves the setting \
                 as it is."
            )]
            #[derive(Clone, Debug, PartialEq, Eq, Default)]
            #[cfg_attr(
                feature = "serde",
                derive(serde::Deserialize, serde::Serialize),
                serde(default, deny_unknown_fields)
            )]
            #[non_exhaustive]
            pub struct $Overrides {
                $(
                    #[doc = concat!(
                        "Instead of [`", stringify!($Group), "::", stringify!($setting), "`]."
                    )]
                    #[cfg_attr(
                        feature = "serde",
                        serde(with = "super::text::change", skip_serializing_if = "Option::is_none")
                    )]
                    pub $setting: Option<$type>,
                )+
            }

            impl $Overrides {
                /// The settings with these changes made.
                pub fn apply_to(&self, base: &$Group) -> $Group {
                    $Group { $($setting: self.$setting.unwrap_or(base.$setting),)+ }
                }
            }
        )+

        /// The policy of one endpoint.
        #[derive(Clone, Debug, PartialEq, Eq, Default)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Deserialize, serde::Serialize),
            serde(default, deny_unknown_fields)
        )]
        #[non_exhaustive]
        pub struct EndpointSettings {
            $($(#[doc = $about])+ pub $group: $Group,)+
        }

        impl EndpointSettings {
            /// Checks each setting by itself.
            pub(super) fn check_ranges(&self) -> Result<(), SettingsError> {
                $(self.$group.check_ranges()?;)+
                Ok(())
            }
        }

        /// What one endpoint changes in [`EndpointSettings`]. Empty, it changes nothing.
        #[derive(Clone, Debug, PartialEq, Eq, Default)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Deserialize, serde::Serialize),
            serde(default, deny_unknown_fields)
        )]
        #[non_exhaustive]
        pub struct EndpointOverrides {
            $(
                $(#[doc = $about])+
                #[cfg_attr(
                    feature = "serde",
                    serde(skip_serializing_if = "super::text::changes_nothing")
                )]
                pub $group: $Overrides,
            )+
        }

        impl EndpointOverrides {
            /// The policy with these changes made.
            pub fn apply_to(&self, base: &EndpointSettings) -> EndpointSettings {
                EndpointSettings { $($group: self.$group.apply_to(&base.$group),)+ }
            }
        }

        /// Every setting that has a range, by its path.
        #[cfg(any(test, fuzzing))]
        pub(super) const RANGES: &[(&str, core::ops::RangeInclusive<u64>)] = &[
            $($($((concat!(stringify!($group), ".", stringify!($setting)), $range),)?)+)+
        ];
    };
}

pub(super) use endpoint_settings;
