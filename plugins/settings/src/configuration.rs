//! What an operator may set, written down once.

use std::fmt::Debug;

/// A policy's settings.
pub trait Configuration: Copy + Debug + PartialEq + 'static {
    /// What holds when nothing is set.
    const DEFAULT: Self;
    /// The configuration as JSON Schema.
    const SCHEMA: &'static str;

    /// Reads the configuration's JSON text.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words for the operator.
    fn parse(json: &str) -> Result<Self, String>;
}

/// Writes a struct of settings and its [`Configuration`] from a table, so that the bounds that are read, those that a refusal
/// names and those of the schema are the same.
///
/// A key is `whole` (a `u32`) or a `number` (an `f64`); its last word goes into the schema, and needs no escapes. Behind the
/// struct, `one < other;` asks for two keys in this order.
///
/// ```
/// use policy_settings::Configuration as _;
///
/// policy_settings::settings! {
///     /// Configuration of the policy.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub struct Settings {
///         /// Connections to begin with.
///         start: whole from 1 to 10_000, default 10, "connections to begin with";
///         /// Share of the target in use above which it grows.
///         grow_above: number from 0.05 to 1, default 0.7, "share in use above which it grows";
///     }
/// }
///
/// assert_eq!(Settings::parse(r#"{"start":3}"#), Ok(Settings { start: 3, grow_above: 0.7 }));
/// assert_eq!(Settings::parse(r#"{"start":0}"#), Err("`start` must be a whole number from 1 to 10000".to_owned()));
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$about:meta])*
        $vis:vis struct $settings:ident {
            $(
                $(#[$doc:meta])*
                $name:ident: $kind:ident from $least:literal to $most:literal, default $default:literal, $says:literal;
            )+
        }
        $($lower:ident < $upper:ident;)*
    ) => {
        $(#[$about])*
        $vis struct $settings {
            $(
                $(#[$doc])*
                $vis $name: $crate::settings!(@type $kind),
            )+
        }

        #[allow(clippy::cast_lossless, reason = "a bound of 1 is written as the schema shows it")]
        impl $settings {
            /// What holds when nothing is set.
            $vis const DEFAULT: Self = Self { $($name: $crate::settings!(@value $kind $default)),+ };
        }

        impl Default for $settings {
            fn default() -> Self {
                Self::DEFAULT
            }
        }

        #[allow(clippy::cast_lossless, reason = "as above")]
        impl $crate::Configuration for $settings {
            const DEFAULT: Self = Self::DEFAULT;
            const SCHEMA: &'static str = $crate::settings!(@schema $([$name $kind $least $most $default $says])+);

            fn parse(json: &str) -> Result<Self, String> {
                let mut settings = Self::DEFAULT;
                $crate::read(
                    json,
                    &mut [$(
                        $crate::Field::$kind(
                            stringify!($name),
                            $crate::settings!(@expects $kind $least $most),
                            &mut settings.$name,
                            $crate::settings!(@value $kind $least),
                            $crate::settings!(@value $kind $most),
                        )
                    ),+],
                )?;
                $(
                    if settings.$lower >= settings.$upper {
                        return Err(String::from(concat!(
                            "`", stringify!($lower), "` must be less than `", stringify!($upper), "`"
                        )));
                    }
                )*
                Ok(settings)
            }
        }
    };
    (@type whole) => { u32 };
    (@type number) => { f64 };
    (@value whole $number:literal) => { $number };
    (@value number $number:literal) => { $number as f64 };
    (@expects whole $least:literal $most:literal) => { concat!("a whole number from ", $least, " to ", $most) };
    (@expects number $least:literal $most:literal) => { concat!("a number from ", $least, " to ", $most) };
    (@json whole) => { "integer" };
    (@json number) => { "number" };
    (@schema [$($first:tt)+] $([$($other:tt)+])*) => {
        concat!(
            r#"{"type":"object","additionalProperties":false,"properties":{"#,
            $crate::settings!(@property $($first)+),
            $(",", $crate::settings!(@property $($other)+),)*
            "}}"
        )
    };
    (@property $name:ident $kind:ident $least:literal $most:literal $default:literal $says:literal) => {
        concat!(
            "\"", stringify!($name), "\":{\"type\":\"", $crate::settings!(@json $kind),
            "\",\"minimum\":", $least, ",\"maximum\":", $most, ",\"default\":", $default,
            ",\"description\":\"", $says, "\"}"
        )
    };
}

#[cfg(test)]
mod tests {
    use super::Configuration as _;

    crate::settings! {
        /// A band, and a step.
        #[derive(Clone, Copy, Debug, PartialEq)]
        struct Example {
            /// The lower edge.
            low: number from 0 to 0.9, default 0.25, "the lower edge";
            /// The upper edge.
            high: number from 0.1 to 1, default 1, "the upper edge";
            /// The step.
            step: whole from 1 to 10_000, default 1_000, "the step";
        }
        low < high;
    }

    #[test]
    fn the_schema_is_written_from_the_table() {
        let schema = concat!(
            r#"{"type":"object","additionalProperties":false,"properties":{"#,
            r#""low":{"type":"number","minimum":0,"maximum":0.9,"default":0.25,"description":"the lower edge"},"#,
            r#""high":{"type":"number","minimum":0.1,"maximum":1,"default":1,"description":"the upper edge"},"#,
            r#""step":{"type":"integer","minimum":1,"maximum":10000,"default":1000,"description":"the step"}}}"#,
        );
        assert_eq!(Example::SCHEMA, schema);
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(Example::parse("null"), Ok(Example { low: 0.25, high: 1.0, step: 1000 }));
        assert_eq!(Example::parse(r#"{"high":0.5}"#), Ok(Example { high: 0.5, ..Example::DEFAULT }));
        assert_eq!(Example::default(), Example::DEFAULT);
    }

    #[test]
    fn a_refusal_names_the_bounds_of_the_table() {
        let refusals = [
            (r#"{"low":0.95}"#, "`low` must be a number from 0 to 0.9"),
            (r#"{"high":0}"#, "`high` must be a number from 0.1 to 1"),
            (r#"{"step":10001}"#, "`step` must be a whole number from 1 to 10000"),
            (r#"{"size":1}"#, "unknown key `size`; known: low, high, step"),
        ];
        for (json, refusal) in refusals {
            assert_eq!(Example::parse(json), Err(refusal.to_owned()), "{json}");
        }
    }

    #[test]
    fn keys_that_must_stand_in_order_are_held_to_it() {
        let refusal = Err("`low` must be less than `high`".to_owned());
        assert_eq!(Example::parse(r#"{"low":0.5,"high":0.4}"#), refusal);
        assert_eq!(Example::parse(r#"{"low":0.5,"high":0.5}"#), refusal, "not even the same");
        assert!(Example::parse(r#"{"low":0.5,"high":0.6}"#).is_ok());
    }
}
