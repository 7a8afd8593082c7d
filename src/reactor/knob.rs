//! The environment knob `ANEL_URING_FLAGS`: features of the ring to do without, and experiments to
//! do with.
//!
//! Owns its words. Refuses to know which features a kernel has. Features are on by default and can
//! be switched off, so that every rung of the ladder is tested on one machine, and so that an
//! operator can step around a kernel bug without a new release. Experiments are off by default:
//! they were measured and did not help (the README of this folder says how much), and are here so
//! that anybody can measure again.

use std::env;

use super::config::ConfigError;

/// Features that may be used where the kernel has them, and experiments. `Default` has all of the
/// first and none of the second.
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
    /// What is off by default.
    pub experiments: Experiments,
    /// Sizes in place of the configured ones.
    pub sizes: Sizes,
}

/// What the ring can do differently, for measurements. A kernel that lacks what is asked for is an
/// error: a measurement of something else would mislead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Experiments {
    /// `sqpoll=MS`: a thread of the kernel polls the submission queue and falls asleep after so
    /// many milliseconds without submissions (5.11). It replaces `defer`, which excludes it.
    pub sqpoll_ms: Option<u32>,
    /// `sqpoll_cpu=N`: the processor of that thread. Without it, wherever the worker may run.
    pub sqpoll_cpu: Option<u32>,
    /// `send_zc=1`: sends borrow the payload's pages in place of copying them, and end when the
    /// network has let go of them (6.0).
    pub send_zc: bool,
    /// `bundle=1`: a receive fills several buffers at once (6.10; use 6.16, which no longer mixes
    /// up partly filled ones).
    pub bundle: bool,
    /// `files=1`: sockets are registered with the ring, which spares each op a reference to the
    /// file and costs two system calls per connection (5.19).
    pub files: bool,
    /// `batch=N`: a wait goes on until there are so many completions, for `batch_us` (6.12).
    pub batch: Option<u32>,
    /// `batch_us=N`: for so many microseconds; from then on, one completion is enough.
    pub batch_us: Option<u32>,
}

/// Sizes that the knob sets: `submissions=N`, `completions=N`, `buffers=N`, `buffer_bytes=N`. They
/// are those of `Config`, and checked with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Config have the words")]
pub struct Sizes {
    pub submissions: Option<u32>,
    pub completions: Option<u32>,
    pub buffers: Option<u32>,
    pub buffer_bytes: Option<u32>,
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
            experiments: Experiments::default(),
            sizes: Sizes::default(),
        }
    }
}

/// Name of the environment variable.
const VARIABLE: &str = "ANEL_URING_FLAGS";

/// The words, for whoever mistyped one.
const WORDS: &str = "defer, noarray, single, mshot_recv, mshot_accept and restrict (0 or 1, on by \
                     default), send_zc, bundle and files (0 or 1, off by default), sqpoll, \
                     sqpoll_cpu, batch, batch_us, submissions, completions, buffers and \
                     buffer_bytes (numbers)";

/// What a word sets.
enum Place<'a> {
    Switch(&'a mut bool),
    Number(&'a mut Option<u32>),
}

impl FlagKnob {
    /// Reads the environment. An absent variable leaves everything as it is by default.
    ///
    /// # Errors
    /// An unknown word or an impossible value is named: a knob that is ignored misleads.
    pub fn from_environment() -> Result<Self, ConfigError> {
        match env::var(VARIABLE) {
            Ok(text) => Self::parse(&text),
            Err(env::VarError::NotPresent) => Ok(Self::default()),
            Err(env::VarError::NotUnicode(_)) => {
                Err(ConfigError(format!("{VARIABLE} is not valid UTF-8")))
            }
        }
    }

    /// Reads a list like `defer=0,buffers=64`.
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
                    "{VARIABLE}: {word:?} must be written as NAME=VALUE"
                ))
            })?;
            match knob.place(name) {
                Some(Place::Switch(place)) => *place = switch(name, value)?,
                Some(Place::Number(place)) => *place = Some(number(name, value)?),
                None => {
                    return Err(ConfigError(format!(
                        "{VARIABLE}: unknown word {name:?}; known are {WORDS}"
                    )));
                }
            }
        }
        knob.experiments.check()?;
        Ok(knob)
    }

    fn place(&mut self, name: &str) -> Option<Place<'_>> {
        let (experiments, sizes) = (&mut self.experiments, &mut self.sizes);
        Some(match name {
            "defer" => Place::Switch(&mut self.defer),
            "noarray" => Place::Switch(&mut self.noarray),
            "single" => Place::Switch(&mut self.single),
            "mshot_recv" => Place::Switch(&mut self.mshot_recv),
            "mshot_accept" => Place::Switch(&mut self.mshot_accept),
            "restrict" => Place::Switch(&mut self.restrict),
            "send_zc" => Place::Switch(&mut experiments.send_zc),
            "bundle" => Place::Switch(&mut experiments.bundle),
            "files" => Place::Switch(&mut experiments.files),
            "sqpoll" => Place::Number(&mut experiments.sqpoll_ms),
            "sqpoll_cpu" => Place::Number(&mut experiments.sqpoll_cpu),
            "batch" => Place::Number(&mut experiments.batch),
            "batch_us" => Place::Number(&mut experiments.batch_us),
            "submissions" => Place::Number(&mut sizes.submissions),
            "completions" => Place::Number(&mut sizes.completions),
            "buffers" => Place::Number(&mut sizes.buffers),
            "buffer_bytes" => Place::Number(&mut sizes.buffer_bytes),
            _ => return None,
        })
    }
}

impl Experiments {
    /// Half of an experiment is none.
    fn check(&self) -> Result<(), ConfigError> {
        let halves = [
            ("sqpoll_cpu", self.sqpoll_cpu, "sqpoll", self.sqpoll_ms),
            ("batch", self.batch, "batch_us", self.batch_us),
            ("batch_us", self.batch_us, "batch", self.batch),
        ];
        for (name, value, other, other_value) in halves {
            if value.is_some() && other_value.is_none() {
                return Err(ConfigError(format!(
                    "{VARIABLE}: {name} needs {other}, which is not set"
                )));
            }
        }
        Ok(())
    }

    /// Those that are on, as they are written in the knob.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let switches = [
            ("send_zc", self.send_zc),
            ("bundle", self.bundle),
            ("files", self.files),
        ];
        let numbers = [
            ("sqpoll", self.sqpoll_ms),
            ("sqpoll_cpu", self.sqpoll_cpu),
            ("batch", self.batch),
            ("batch_us", self.batch_us),
        ];
        let on = switches.into_iter().filter(|(_, on)| *on);
        let on = on.map(|(name, _)| format!("{name}=1"));
        let set = numbers.into_iter();
        let set = set.filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        on.chain(set).collect()
    }
}

fn switch(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(ConfigError(format!(
            "{VARIABLE}: {name} is {value:?}, but must be 0 or 1"
        ))),
    }
}

fn number(name: &str, value: &str) -> Result<u32, ConfigError> {
    value.parse().map_err(|_| {
        ConfigError(format!(
            "{VARIABLE}: {name} is {value:?}, but must be a number from 0 to {}",
            u32::MAX
        ))
    })
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
    fn experiments_are_read_back_as_they_are_written() {
        let all = "send_zc=1,bundle=1,files=1,sqpoll=50,sqpoll_cpu=1,batch=8,batch_us=100";

        let knob = FlagKnob::parse(all).unwrap();

        assert_eq!(knob.experiments.words().join(","), all);
        assert_eq!(FlagKnob::default().experiments.words(), [""; 0]);
    }

    #[test]
    fn sizes_are_numbers() {
        let sizes = FlagKnob::parse("buffers=64,buffer_bytes=2048")
            .unwrap()
            .sizes;

        assert_eq!((sizes.buffers, sizes.buffer_bytes), (Some(64), Some(2048)));
        assert_eq!((sizes.submissions, sizes.completions), (None, None));
    }

    #[test]
    fn a_word_that_is_wrong_is_named() {
        for (text, words) in [
            ("coop=0", "\"coop\""),
            ("defer", "\"defer\""),
            ("defer=2", "\"2\""),
            ("defer=0;single=0", "\"0;single=0\""),
            ("batch=-1", "\"-1\""),
            ("sqpoll=", "\"\""),
            ("buffers=4294967296", "\"4294967296\""),
        ] {
            let error = FlagKnob::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn half_of_an_experiment_is_refused() {
        for (text, words) in [
            ("sqpoll_cpu=1", "sqpoll_cpu needs sqpoll"),
            ("batch=8", "batch needs batch_us"),
            ("batch_us=100", "batch_us needs batch"),
        ] {
            let error = FlagKnob::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
