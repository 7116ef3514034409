//! The percentile distribution as HdrHistogram's tools print it (`.hgrm`), for their plotters and for eyes.
//!
//! ```text
//!        Value     Percentile TotalCount 1/(1-Percentile)
//!
//!        0.150 0.000000000000        990           1.00
//! ...
//! #[Mean    =        0.150, StdDeviation   =        0.000]
//! #[Max     =        0.150, Total count    =         1000]
//! #[Buckets =           32, SubBuckets     =         2048]
//! ```
//! Invariants: column widths and digits are those of the Java library; values are milliseconds, as wrk2 prints them and as
//! HistogramLogProcessor does by default; five steps per halving of the distance to 100 %. Words of our own (the tag, a closed loop)
//! stand below the footer in lines that begin with `#`, which the tools skip.

use hdrhistogram::Histogram;
use std::fmt::Write as _;

/// Steps per halving of the distance to 100 %: the default of HistogramLogProcessor.
const STEPS_PER_HALF: u32 = 5;
/// Nanoseconds in the unit of the file.
const NS_PER_MS: f64 = 1e6;

/// The text of a histogram of nanoseconds; each of `remarks` becomes a line at its end.
pub fn text(histogram: &Histogram<u64>, remarks: &[String]) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    for step in steps(histogram) {
        let (value, quantile) = (step.value_ns as f64 / NS_PER_MS, step.quantile);
        let _ = write!(text, "{value:12.3} {quantile:.12} {:>10}", step.total_count);
        // The last line is 100 %, and one divided by nothing is left out.
        let _ = if quantile < 1.0 { writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let ms = |ns: f64| ns / NS_PER_MS;
    let _ = writeln!(text, "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]", ms(histogram.mean()), ms(histogram.stdev()));
    let _ = writeln!(text, "#[Max     = {:12.3}, Total count    = {:12}]", ms(histogram.max() as f64), histogram.len());
    let _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), sub_buckets(histogram));
    for remark in remarks {
        let _ = writeln!(text, "# {}", remark.replace(['\n', '\r'], " "));
    }
    text
}

/// A line of the distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// At most this much time was taken, nanoseconds ...
    pub value_ns: u64,
    /// ... by at least this share of the records, from 0 to 1.
    pub quantile: f64,
    /// Records that took at most that.
    pub total_count: u64,
}

/// The distribution in steps that become finer towards 100 %; the last one is 100 %.
///
/// As the Java library counts, in per cent and by adding up: `Histogram::iter_quantiles` counts in shares of one, and where a share falls
/// exactly on a record the two differ by that record.
pub fn steps(histogram: &Histogram<u64>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut percent = 0.0f64;
    let mut total_count = 0;
    let mut value_ns = 0;
    for bucket in histogram.iter_recorded() {
        value_ns = bucket.value_iterated_to();
        total_count = bucket.count_at_value().saturating_add(total_count);
        while 100.0 * total_count as f64 / histogram.len() as f64 >= percent {
            steps.push(Step { value_ns, quantile: percent / 100.0, total_count });
            let halvings = ((100.0 / (100.0 - percent)).ln() / std::f64::consts::LN_2) as i32;
            let next = percent + 100.0 / (f64::from(STEPS_PER_HALF) * 2f64.powi(halvings + 1));
            // With some 10^13 records and more a step is too small for the number it is added to.
            if total_count >= histogram.len() || next <= percent || next >= 100.0 {
                break;
            }
            percent = next;
        }
    }
    if total_count > 0 {
        steps.push(Step { value_ns, quantile: 1.0, total_count });
    }
    steps
}

/// The library does not tell it; it follows from how many different values there are: half a sub-bucket count per bucket and one more half.
fn sub_buckets(histogram: &Histogram<u64>) -> usize {
    2 * histogram.distinct_values() / (usize::from(histogram.buckets()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{histogram, record};

    /// The golden text is what the Java library (HdrHistogram 2.2.2, outputPercentileDistribution) printed for the same values, and our remark.
    #[test]
    fn the_text_is_that_of_the_public_tools() {
        let mut histogram = histogram();
        for (ms, count) in [(1u64, 90), (2, 9), (40, 1)] {
            (0..count).for_each(|_| record(&mut histogram, ms * 1_000_000));
        }
        let golden = include_str!("testdata/golden.hgrm");
        assert_eq!(text(&histogram, &["ack of a test".to_owned()]), golden);
    }

    #[test]
    fn every_line_has_its_columns_and_counts_only_grow() {
        let mut histogram = histogram();
        (1..=100_000u64).for_each(|n| record(&mut histogram, n * 1_000));
        let text = text(&histogram, &[]);
        let lines: Vec<Vec<f64>> = text.lines().skip(2).take_while(|line| !line.starts_with('#')).map(numbers).collect();
        assert!(lines.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1] && pair[0][2] <= pair[1][2]));
        let (last, others) = lines.split_last().unwrap();
        assert!(others.iter().all(|line| line.len() == 4));
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 100_000.0));
        assert_eq!(text.lines().filter(|line| line.starts_with("#[")).count(), 3);
    }

    #[test]
    fn steps_end_for_any_number_of_equal_values() {
        for count in [1u64, 2, 3, 1_000, 1 << 40] {
            let mut histogram = histogram();
            histogram.record_n(5, count).unwrap();
            assert_eq!(steps(&histogram).iter().map(|step| step.quantile).collect::<Vec<_>>(), [0.0, 1.0], "{count}");
        }
        assert!(steps(&histogram()).is_empty());
        let mut many = histogram();
        many.record_n(5, 1 << 62).unwrap();
        many.record_n(7, 1).unwrap();
        assert!(steps(&many).len() < 1_000, "steps too small to count end too");
    }

    fn numbers(line: &str) -> Vec<f64> {
        line.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn an_empty_histogram_has_a_head_and_a_footer() {
        let text = text(&histogram(), &["two\nlines".to_owned()]);
        assert!(text.contains("Total count    =            0") && text.ends_with("# two lines\n"), "{text}");
    }
}
