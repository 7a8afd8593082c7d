//! Whether a worker is under load: whether its waits bring many completions at once.
//!
//! Owns the measure, and how long a finding holds. Refuses to know what is done about it. It is
//! told of every wait, and says when the load is another one.
//!
//! What is done about a heavy load may make batches larger, and so the load look heavy for ever. A
//! finding is therefore never renewed: it ends after a while, and the load is measured as it is
//! without it.

/// What a worker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Waits bring little, or that is not known yet.
    Light,
    /// Waits bring many completions.
    Heavy,
}

/// Measures the load of one worker.
#[derive(Debug, Default)]
pub struct LoadMeter {
    /// Until when the load counts as heavy.
    heavy_until_ms: Option<u64>,
    waits: u32,
    completions: usize,
}

impl LoadMeter {
    /// Takes what a wait has brought, and the time; the load, if it is not what it was.
    #[inline]
    pub fn on_wait(&mut self, completions: usize, now_ms: u64) -> Option<Load> {
        if let Some(until_ms) = self.heavy_until_ms {
            return (now_ms >= until_ms).then(|| {
                *self = Self::default();
                Load::Light
            });
        }
        self.waits += 1;
        self.completions += completions;
        if self.waits < WAITS {
            return None;
        }
        let is_heavy = self.completions >= HEAVY_COMPLETIONS_MIN * WAITS as usize;
        *self = Self {
            heavy_until_ms: is_heavy.then_some(now_ms + HEAVY_MS),
            ..Self::default()
        };
        is_heavy.then_some(Load::Heavy)
    }
}

/// Waits that are looked at together: some milliseconds of a worker that is busy.
const WAITS: u32 = 64;

/// As many completions in a wait, on average, are a heavy load. A request is two of them, and few
/// clients that wait for one another's turn are not to count: it takes more than eight.
const HEAVY_COMPLETIONS_MIN: usize = 12;

/// How long a finding holds. The measure takes some milliseconds of each such time, so that acting
/// on it is what mostly happens; and a mistake lasts no longer.
const HEAVY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the meter says of so many equal waits, a millisecond apart, and when.
    fn changes(
        meter: &mut LoadMeter,
        completions: usize,
        from_ms: u64,
        waits: u64,
    ) -> Vec<(u64, Load)> {
        (from_ms..from_ms + waits)
            .filter_map(|now_ms| Some((now_ms, meter.on_wait(completions, now_ms)?)))
            .collect()
    }

    #[test]
    fn one_connection_is_a_light_load_however_fast_it_is() {
        let mut meter = LoadMeter::default();

        assert_eq!(changes(&mut meter, 1, 0, 10_000), []);
    }

    #[test]
    fn a_load_is_heavy_from_the_measured_average_on() {
        let mut light = LoadMeter::default();
        let mut heavy = LoadMeter::default();

        assert_eq!(changes(&mut light, HEAVY_COMPLETIONS_MIN - 1, 0, 640), []);
        assert_eq!(
            changes(&mut heavy, HEAVY_COMPLETIONS_MIN, 0, 64),
            [(63, Load::Heavy)]
        );
    }

    #[test]
    fn waits_that_bring_nothing_count() {
        let mut meter = LoadMeter::default();

        for round in 0..640 {
            let completions = if round % 4 == 0 { 40 } else { 0 };
            assert_eq!(meter.on_wait(completions, round), None);
        }
    }

    #[test]
    fn a_finding_is_measured_anew_when_its_time_is_up_whatever_it_led_to() {
        let mut meter = LoadMeter::default();
        changes(&mut meter, 20, 0, 64);

        assert_eq!(changes(&mut meter, 500, 64, 999), []);
        assert_eq!(meter.on_wait(500, 63 + HEAVY_MS), Some(Load::Light));
        assert_eq!(changes(&mut meter, 1, 1_064, 640), []);
        assert_eq!(changes(&mut meter, 20, 2_000, 64), [(2_063, Load::Heavy)]);
    }

    #[test]
    fn a_burst_in_front_of_a_rest_is_forgotten_with_the_first_wait_behind_it() {
        let mut meter = LoadMeter::default();
        changes(&mut meter, 20, 0, 64);

        assert_eq!(meter.on_wait(1, 3_600_000), Some(Load::Light));
    }
}
