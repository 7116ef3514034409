//! Commands: lines that change the line while the proxy runs.
//!
//! Job: reads a line, and applies it to the weather. Invariants: a line that is refused changes nothing; every line gets one line as an
//! answer, which begins with `ok` or with `error:`.
//! Not here: where lines come from (`proxy.rs`).

use crate::line::{Direction, Weather};
use crate::units::{parse_bytes, parse_time};
use std::time::Duration;

/// What the proxy can be told.
pub const HELP: &str = "Commands, one a line on standard input, each answered by a line on standard output:
  delay [up|down] TIME     what every byte takes from now on (up: from who connected); without a direction both
  jitter [up|down] TIME    at most this is added at random; order is kept
  rate [up|down] BYTES     bytes per second, shared by all connections; 'none' is as fast as it goes
  stall BYTES              a connection that has carried so many bytes, both ways together, carries no more
  cut [up|down]            nothing moves, silently: neither bytes nor ends, and no new connection is made
  heal                     ends cuts and stalls; what was held goes on
  reset                    resets all connections
  status                   tells all of it
  quit                     ends the proxy";

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets the delay of these directions.
    Delay(Vec<Direction>, Duration),
    /// Sets the jitter.
    Jitter(Vec<Direction>, Duration),
    /// Sets the rate.
    Rate(Vec<Direction>, Option<u64>),
    /// Connections stop after so many bytes.
    Stall(u64),
    /// Cuts.
    Cut(Vec<Direction>),
    /// Ends cuts and stalls.
    Heal,
    /// Resets all connections.
    Reset,
    /// Asks.
    Status,
    /// Ends the proxy.
    Quit,
}

impl Command {
    /// Reads a line.
    pub fn parse(line: &str) -> Result<Command, String> {
        let mut words = line.split_whitespace();
        let verb = words.next().ok_or("an empty line is no command")?;
        let mut rest: Vec<&str> = words.collect();
        let directions = match rest.first() {
            Some(&"up") => vec![Direction::Up],
            Some(&"down") => vec![Direction::Down],
            _ => Direction::BOTH.to_vec(),
        };
        let named = directions.len() == 1;
        if named && ["delay", "jitter", "rate", "cut"].contains(&verb) {
            rest.remove(0);
        }
        match (verb, &rest[..]) {
            ("delay", [time]) => Ok(Command::Delay(directions, parse_time(time)?)),
            ("jitter", [time]) => Ok(Command::Jitter(directions, parse_time(time)?)),
            ("rate", ["none"]) => Ok(Command::Rate(directions, None)),
            ("rate", [bytes]) => Ok(Command::Rate(directions, Some(parse_bytes(bytes)?))),
            ("stall", [bytes]) => Ok(Command::Stall(parse_bytes(bytes)?)),
            ("cut", []) => Ok(Command::Cut(directions)),
            ("heal", []) => Ok(Command::Heal),
            ("reset", []) => Ok(Command::Reset),
            ("status", []) => Ok(Command::Status),
            ("quit", []) => Ok(Command::Quit),
            ("delay" | "jitter" | "rate" | "stall" | "cut" | "heal" | "reset" | "status" | "quit", _) => {
                Err(format!("'{verb}' has too many or too few words (see --help)"))
            }
            _ => Err(format!("'{verb}' is no command: write delay, jitter, rate, stall, cut, heal, reset, status or quit")),
        }
    }

    /// Changes the weather by it; commands that are about something else change nothing.
    pub fn apply(&self, weather: &mut Weather) {
        match self {
            Command::Delay(directions, time) => directions.iter().for_each(|direction| weather.line_mut(*direction).delay = *time),
            Command::Jitter(directions, time) => directions.iter().for_each(|direction| weather.line_mut(*direction).jitter = *time),
            Command::Rate(directions, rate) => directions.iter().for_each(|direction| weather.line_mut(*direction).set_rate(*rate)),
            Command::Stall(bytes) => weather.stall_after = Some(*bytes),
            Command::Cut(directions) => directions.iter().for_each(|direction| weather.line_mut(*direction).cut = true),
            Command::Heal => {
                weather.stall_after = None;
                Direction::BOTH.into_iter().for_each(|direction| weather.line_mut(direction).cut = false);
            }
            Command::Reset | Command::Status | Command::Quit => {}
        }
    }
}

/// The weather in one line of `name=value`.
pub fn tell(weather: &Weather) -> String {
    let none = || "none".to_owned();
    let mut words: Vec<String> = Vec::new();
    for direction in Direction::BOTH {
        let (line, name) = (weather.line(direction), direction.name());
        let rate = line.rate.map_or_else(none, |rate| rate.to_string());
        words.push(format!("{name}_delay_us={} {name}_jitter_us={}", line.delay.as_micros(), line.jitter.as_micros()));
        words.push(format!("{name}_rate={rate} {name}_cut={}", if line.cut { "yes" } else { "no" }));
    }
    words.push(format!("stall_after={}", weather.stall_after.map_or_else(none, |bytes| bytes.to_string())));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let both = || Direction::BOTH.to_vec();
        let ms = Duration::from_millis;
        for (line, expected) in [
            ("delay 2ms", Command::Delay(both(), ms(2))),
            ("  delay   down 0ms ", Command::Delay(vec![Direction::Down], ms(0))),
            ("jitter up 1ms", Command::Jitter(vec![Direction::Up], ms(1))),
            ("rate 1M", Command::Rate(both(), Some(1_000_000))),
            ("rate up none", Command::Rate(vec![Direction::Up], None)),
            ("stall 64KiB", Command::Stall(65_536)),
            ("cut", Command::Cut(both())),
            ("cut up", Command::Cut(vec![Direction::Up])),
            ("heal", Command::Heal),
            ("reset", Command::Reset),
            ("status", Command::Status),
            ("quit", Command::Quit),
        ] {
            assert_eq!(Command::parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_a_reason() {
        for line in
            ["", " ", "slow", "delay", "delay 2", "delay up", "delay sideways 2ms", "rate 0", "cut 3", "heal up", "stall", "quit now"]
        {
            let refusal = Command::parse(line).unwrap_err();
            assert!(refusal.len() > 10, "{line}: {refusal}");
        }
        assert!(Command::parse("heal up").unwrap_err().contains("too many"));
    }

    #[test]
    fn commands_change_the_weather_and_heal_leaves_the_delay() {
        let mut weather = Weather::default();
        for line in ["delay 2ms", "jitter up 1ms", "rate down 9k", "stall 5", "cut down"] {
            Command::parse(line).unwrap().apply(&mut weather);
        }
        assert!(!weather.connects() && !weather.line(Direction::Up).cut);
        assert_eq!(
            tell(&weather),
            "up_delay_us=2000 up_jitter_us=1000 up_rate=none up_cut=no down_delay_us=2000 down_jitter_us=0 down_rate=9000 down_cut=yes \
             stall_after=5"
        );
        Command::Heal.apply(&mut weather);
        assert!(weather.connects() && weather.stall_after.is_none());
        assert_eq!(weather.line(Direction::Up).delay, Duration::from_millis(2));
    }
}
