//! What a run has come to, as text for people or as one JSON object for programs.
//!
//! Owns the arithmetic of rates and the names of the fields; refuses to know how they were
//! measured.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::idle::Survivors;
use super::usage::CpuUsage;

/// The measured window.
pub struct Window {
    /// Its true length.
    pub elapsed: Duration,
    /// What this client used of its processor meanwhile.
    pub cpu: CpuUsage,
}

/// Everything that went wrong in the whole run, warm-up included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors {
    /// Responses with another status.
    pub wrong_status: u64,
    /// Responses with another body.
    pub wrong_body: u64,
    /// Bytes that are no response, or one without a length.
    pub malformed: u64,
    /// Connections on which more came than was asked for.
    pub surplus: u64,
    /// Responses missing when the server closed without having announced it.
    pub closed_early: u64,
    /// Responses that did not come before the end of the drain.
    pub unanswered: u64,
    /// Failed sends and receives.
    pub socket: u64,
    /// Failed connects.
    pub connect: u64,
    /// Idle connections that did not survive.
    pub idle_lost: u64,
}

/// The result of a run.
pub struct Report {
    /// The measured window.
    pub window: Window,
    /// Checked responses in the window.
    pub responses: u64,
    /// Received bytes in the window.
    pub bytes: u64,
    /// Nanoseconds from the send of a batch to its last response.
    pub latency: Histogram<u64>,
    /// Checked responses of the whole run, with warm-up and drain.
    pub responses_total: u64,
    /// Responses that were not byte for byte the learned one.
    pub parsed_in_full: u64,
    /// Connections made.
    pub connects: u64,
    /// Active connections at a time.
    pub connections: usize,
    /// Requests per write.
    pub depth: u32,
    /// Idle connections.
    pub idle: Survivors,
    /// What went wrong.
    pub errors: Errors,
    /// The first of it in words.
    pub first_fault: Option<String>,
}

impl Errors {
    fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("wrong_status", self.wrong_status),
            ("wrong_body", self.wrong_body),
            ("malformed", self.malformed),
            ("surplus", self.surplus),
            ("closed_early", self.closed_early),
            ("unanswered", self.unanswered),
            ("socket", self.socket),
            ("connect", self.connect),
            ("idle_lost", self.idle_lost),
        ]
    }

    fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

impl Report {
    /// Whether responses came and nothing went wrong.
    pub fn is_clean(&self) -> bool {
        self.responses > 0 && self.errors.total() == 0
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |words: String| {
            text.push_str(&words);
            text.push('\n');
        };
        line(format!(
            "{:.0} requests/s   {} requests in {:.3} s, {} connections x {}",
            self.rate(),
            self.responses,
            self.seconds(),
            self.connections,
            self.depth
        ));
        let micros: Vec<String> = self
            .percentiles()
            .iter()
            .map(|(name, value)| format!("{name} {value:.1}"))
            .collect();
        line(format!("batch latency us: {}", micros.join("  ")));
        line(format!(
            "client cpu: {:.0} % ({:.3} s user, {:.3} s system)",
            100.0 * self.client_load(),
            self.window.cpu.user.as_secs_f64(),
            self.window.cpu.system.as_secs_f64()
        ));
        line(format!(
            "{} bytes received, {} responses parsed in full, {} connects, {} of {} idle alive",
            self.bytes, self.parsed_in_full, self.connects, self.idle.alive, self.idle.opened
        ));
        let errors: Vec<String> = self
            .errors
            .named()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let _ = write!(
            text,
            "errors: {} {}",
            self.errors.total(),
            errors.join(", ")
        );
        if let Some(fault) = &self.first_fault {
            let _ = write!(text, "\nfirst: {fault}");
        }
        text
    }

    /// For programs: one object on one line.
    pub fn to_json(&self) -> String {
        let list = |pairs: Vec<String>| pairs.join(",");
        let errors = self.errors.named();
        let errors = list(
            errors
                .iter()
                .map(|(name, count)| format!("\"{name}\":{count}"))
                .collect(),
        );
        let latency = self.percentiles();
        let latency = list(
            latency
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value:.1}"))
                .collect(),
        );
        let fault = self
            .first_fault
            .as_deref()
            .map_or(String::from("null"), quoted);
        format!(
            concat!(
                "{{\"requests\":{},\"seconds\":{:.6},\"requests_per_second\":{:.1},",
                "\"bytes\":{},\"requests_total\":{},\"parsed_in_full\":{},\"connects\":{},",
                "\"connections\":{},\"depth\":{},\"idle_opened\":{},\"idle_alive\":{},",
                "\"client_cpu_user_s\":{:.6},\"client_cpu_system_s\":{:.6},\"client_load\":{:.4},",
                "\"latency_us\":{{{}}},\"errors\":{},\"errors_by_kind\":{{{}}},\"first_fault\":{}}}"
            ),
            self.responses,
            self.seconds(),
            self.rate(),
            self.bytes,
            self.responses_total,
            self.parsed_in_full,
            self.connects,
            self.connections,
            self.depth,
            self.idle.opened,
            self.idle.alive,
            self.window.cpu.user.as_secs_f64(),
            self.window.cpu.system.as_secs_f64(),
            self.client_load(),
            latency,
            self.errors.total(),
            errors,
            fault
        )
    }

    fn seconds(&self) -> f64 {
        self.window.elapsed.as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.responses as f64 / self.seconds()
    }

    /// Share of its processor that this client used: near 1, the client is what was measured.
    fn client_load(&self) -> f64 {
        (self.window.cpu.user + self.window.cpu.system).as_secs_f64() / self.seconds()
    }

    /// Microseconds; zeroes when no batch ended in the window.
    fn percentiles(&self) -> [(&'static str, f64); 7] {
        let at = |quantile: f64| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        [
            ("p50", at(0.5)),
            ("p75", at(0.75)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99_9", at(0.999)),
            ("p99_99", at(0.9999)),
            ("max", self.latency.max() as f64 / 1000.0),
        ]
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            // JSON allows no bare control characters in strings.
            control if u32::from(control) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_quoted_as_json() {
        assert_eq!(quoted("a \"b\" \\ \n"), "\"a \\\"b\\\" \\\\ \\u000a\"");
    }
}
