//! What the operator chooses about a reactor, and which choices are refused.
//!
//! Owns sizes with their reasons. Refuses to know the kernel: that a size fits it is found out by
//! opening. Refusals that protect us from peers are in `protocol::limits`.

use std::fmt;
use std::str::FromStr;

use super::knob::FlagKnob;

/// Sizes of a reactor. `Default` suits a worker that serves thousands of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries of the submission queue: only batching space, since a full queue is flushed. 256
    /// together with 4,096 completions lets 97 workers of one user share 8 MiB of locked memory
    /// (6.18, measured).
    pub submissions: u32,
    /// Entries of the completion queue: as many connections may complete in one turn without an
    /// overflow, which is survived but costs a system call. 4,096 was never exceeded with 10,000
    /// connections.
    pub completions: u32,
    /// Receive buffers, shared by all connections of a worker. They are in use from the kernel's
    /// write to the end of the handler, so 512 is plenty; more only helps handlers that keep
    /// request bytes.
    pub buffers: u16,
    /// Size of one receive buffer. 8 KiB holds 24 pipelined requests with browser-sized heads'
    /// smaller cousins (about 300 bytes) in one piece; larger input arrives in several.
    pub buffer_bytes: u32,
    /// Features of the ring that are switched off, for tests and diagnosis, and experiments.
    pub flags: FlagKnob,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            submissions: 256,
            completions: 4096,
            buffers: 512,
            buffer_bytes: 8192,
            flags: FlagKnob::default(),
        }
    }
}

/// A ring has at most so many submissions (IORING_MAX_ENTRIES), and a buffer ring so many buffers.
const ENTRIES_MAX: u32 = 32_768;
/// IORING_MAX_CQ_ENTRIES: twice the submissions.
const COMPLETIONS_MAX: u32 = 2 * ENTRIES_MAX;
/// Below this a buffer costs more than it carries.
const BUFFER_BYTES_MIN: u32 = 64;
/// Arbitrary: larger buffers would only move the copy.
const BUFFER_BYTES_MAX: u32 = 1024 * 1024;

impl Config {
    /// This configuration with the knob's features and experiments, and with its sizes where it
    /// has any.
    ///
    /// # Errors
    /// As `validate`.
    pub fn with_flags(self, flags: FlagKnob) -> Result<Self, ConfigError> {
        let sizes = flags.sizes;
        let buffers = sizes.buffers.unwrap_or(u32::from(self.buffers));
        power_of_two("buffers", buffers, 1, ENTRIES_MAX)?;
        let config = Self {
            submissions: sizes.submissions.unwrap_or(self.submissions),
            completions: sizes.completions.unwrap_or(self.completions),
            buffers: buffers as u16,
            buffer_bytes: sizes.buffer_bytes.unwrap_or(self.buffer_bytes),
            flags,
        };
        config.validate()?;
        Ok(config)
    }

    /// Refuses sizes that no kernel takes.
    ///
    /// # Errors
    /// Names the first field that is wrong, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        power_of_two("submissions", self.submissions, 1, ENTRIES_MAX)?;
        power_of_two("completions", self.completions, 2, COMPLETIONS_MAX)?;
        power_of_two("buffers", u32::from(self.buffers), 1, ENTRIES_MAX)?;
        if self.completions < self.submissions {
            return Err(ConfigError(format!(
                "completions is {}, but must not be less than submissions ({})",
                self.completions, self.submissions
            )));
        }
        if !(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&self.buffer_bytes) {
            return Err(ConfigError(format!(
                "buffer_bytes is {}, but must be from {BUFFER_BYTES_MIN} to {BUFFER_BYTES_MAX}",
                self.buffer_bytes
            )));
        }
        self.validate_batch()
    }

    /// A wait for more completions than their queue holds would always take its full time.
    fn validate_batch(&self) -> Result<(), ConfigError> {
        match self.flags.experiments.batch {
            Some(batch) if !(1..=self.completions).contains(&batch) => Err(ConfigError(format!(
                "batch is {batch}, but must be from 1 to the number of completions ({})",
                self.completions
            ))),
            _ => Ok(()),
        }
    }
}

/// Which reactor to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring where it works, epoll otherwise.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// epoll: the control in every benchmark.
    Epoll,
}

impl FromStr for Choice {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(ConfigError(format!(
                "reactor is {text:?}, but must be \"auto\", \"io_uring\" or \"epoll\""
            ))),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// A choice that cannot be: one line that names the field and the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

fn power_of_two(name: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{name} is {value}, but must be a power of two from {min} to {max}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn a_refused_size_is_named_with_its_value() {
        let cases = [
            (
                Config {
                    submissions: 100,
                    ..Config::default()
                },
                "submissions is 100",
            ),
            (
                Config {
                    completions: 0,
                    ..Config::default()
                },
                "completions is 0",
            ),
            (
                Config {
                    completions: 128,
                    ..Config::default()
                },
                "completions is 128",
            ),
            (
                Config {
                    buffers: 3,
                    ..Config::default()
                },
                "buffers is 3",
            ),
            (
                Config {
                    buffer_bytes: 8,
                    ..Config::default()
                },
                "buffer_bytes is 8",
            ),
        ];

        for (config, words) in cases {
            let error = config.validate().unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn the_knob_replaces_the_sizes_it_names() {
        let flags = FlagKnob::parse("buffers=64,buffer_bytes=2048,defer=0").unwrap();

        let config = Config::default().with_flags(flags).unwrap();

        assert_eq!((config.buffers, config.buffer_bytes), (64, 2048));
        assert_eq!((config.submissions, config.completions), (256, 4096));
        assert!(!config.flags.defer);
    }

    #[test]
    fn a_knob_that_cannot_be_is_refused_with_its_value() {
        for (text, words) in [
            ("buffers=65536", "buffers is 65536"),
            ("submissions=7", "submissions is 7"),
            ("batch=0,batch_us=10", "batch is 0"),
            ("batch=5000,batch_us=10", "batch is 5000"),
        ] {
            let flags = FlagKnob::parse(text).unwrap();
            let error = Config::default().with_flags(flags).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_choice_is_read_back_as_it_is_written() {
        for choice in [Choice::Auto, Choice::IoUring, Choice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        let error = "iouring".parse::<Choice>().unwrap_err();
        assert!(error.to_string().contains("\"iouring\""));
    }
}
