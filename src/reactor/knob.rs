//! The environment knob `ANEL_URING_FLAGS`, which switches features of the ring off.
//!
//! Owns its words. Refuses to know which features a kernel has. It exists so that every rung of the
//! ladder is tested on one machine, and so that an operator can step around a kernel bug without a
//! new release.

use std::env;

use super::config::ConfigError;

/// Features that may be used where the kernel has them. All are on by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlagKnob {
    /// `defer`: completions run only inside our own enter (6.1).
    pub defer: bool,
    /// `noarray`: no indirection between submission queue and entries (6.6).
    pub noarray: bool,
    /// `single`: one thread submits (6.0). `defer` needs it.
    pub single: bool,
    /// `mshot_recv`: one receive, many completions (6.0).
    pub mshot_recv: bool,
    /// `mshot_accept`: one accept, many connections (5.19).
    pub mshot_accept: bool,
    /// `restrict`: the ring refuses every operation that we do not use (5.10).
    pub restrict: bool,
}

impl Default for FlagKnob {
    fn default() -> Self {
        Self {
            defer: true,
            noarray: true,
            single: true,
            mshot_recv: true,
            mshot_accept: true,
            restrict: true,
        }
    }
}

/// Name of the environment variable.
const VARIABLE: &str = "ANEL_URING_FLAGS";

impl FlagKnob {
    /// Reads the environment. An absent variable leaves everything on.
    ///
    /// # Errors
    /// An unknown word, or a value other than 0 and 1, is named: a knob that is ignored misleads.
    pub fn from_environment() -> Result<Self, ConfigError> {
        match env::var(VARIABLE) {
            Ok(text) => Self::parse(&text),
            Err(env::VarError::NotPresent) => Ok(Self::default()),
            Err(env::VarError::NotUnicode(_)) => {
                Err(ConfigError(format!("{VARIABLE} is not valid UTF-8")))
            }
        }
    }

    /// Reads a list like `defer=0,mshot_recv=0`.
    ///
    /// # Errors
    /// As `from_environment`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut knob = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let (name, value) = word.split_once('=').ok_or_else(|| {
                ConfigError(format!(
                    "{VARIABLE}: {word:?} must be written as NAME=0 or NAME=1"
                ))
            })?;
            let on = match value {
                "0" => false,
                "1" => true,
                _ => {
                    return Err(ConfigError(format!(
                        "{VARIABLE}: {name} is {value:?}, but must be 0 or 1"
                    )));
                }
            };
            match name {
                "defer" => knob.defer = on,
                "noarray" => knob.noarray = on,
                "single" => knob.single = on,
                "mshot_recv" => knob.mshot_recv = on,
                "mshot_accept" => knob.mshot_accept = on,
                "restrict" => knob.restrict = on,
                _ => {
                    return Err(ConfigError(format!(
                        "{VARIABLE}: unknown feature {name:?}; known are defer, noarray, single, \
                         mshot_recv, mshot_accept and restrict"
                    )));
                }
            }
        }
        Ok(knob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_switch_features_off_and_on() {
        let knob = FlagKnob::parse("defer=0, noarray=1,mshot_recv=0").unwrap();

        assert_eq!(
            knob,
            FlagKnob {
                defer: false,
                mshot_recv: false,
                ..FlagKnob::default()
            }
        );
        assert_eq!(FlagKnob::parse(""), Ok(FlagKnob::default()));
    }

    #[test]
    fn an_unknown_word_is_named() {
        for (text, words) in [
            ("coop=0", "\"coop\""),
            ("defer", "\"defer\""),
            ("defer=2", "\"2\""),
            ("defer=0;single=0", "\"0;single=0\""),
        ] {
            let error = FlagKnob::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
