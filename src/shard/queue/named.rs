//! Queues on a shard: finding them, and what their settings mean.
//!
//! Not here: creating, changing and deleting them (`shard/admin.rs`).

use super::super::shard::Shard;
use crate::api::{self, ApiError};
use crate::control::{ControlError, QueueView};
use crate::effects::{Caller, Effects};
use crate::mutants::Mutants;
use crate::subscription::queue::QueueRules;
use tramline_wire::frame::Frame;
use tramline_wire::queue::FindQueueRequest;

impl Shard {
    /// Tells what a consumer has to know of a queue.
    pub(in crate::shard) fn find_queue(&mut self, caller: &Caller, frame: &Frame<'_>, effects: &mut Effects) -> Result<(), ApiError> {
        let request = FindQueueRequest::decode(frame.meta)?;
        let Some(queue) = self.view.queue(request.name) else {
            return Err(ApiError::from(&ControlError::UnknownQueue(request.name.to_owned())));
        };
        let rules = rules_of_queue(queue, self.log.mutants());
        effects.reply(caller, 0, &mut Vec::new(), |out| api::queues::found(out, queue, &rules));
        Ok(())
    }
}

/// What a queue's settings mean.
pub(super) fn rules_of_queue(queue: &QueueView, mutants: Mutants) -> QueueRules {
    let settings = &queue.settings;
    let integer = |key: &str| settings.integer(key).expect("this setting has no word for no limit");
    let us = |key: &str| integer(key).saturating_mul(1000);
    let count = |key: &str| u32::try_from(integer(key)).expect("within the setting's range");
    QueueRules {
        visibility_timeout_us: us("visibility.timeout.ms"),
        max_deliveries: settings.integer("max.deliveries").map(|count| u16::try_from(count).expect("within the setting's range")),
        retry_initial_us: us("retry.initial.ms"),
        retry_multiplier_hundredths: settings.hundredths("retry.multiplier"),
        retry_max_us: us("retry.max.ms"),
        retry_jitter_percent: u8::try_from(integer("retry.jitter.percent")).expect("within the setting's range"),
        dedup_window_us: us("dedup.window.ms"),
        max_in_flight: count("max.in.flight"),
        max_in_flight_per_consumer: count("max.in.flight.per.consumer"),
        exclusive: settings.is_set("exclusive"),
        paused: settings.is_set("paused"),
        consumer_timeout_us: us("consumer.timeout.ms"),
        has_dead_letter: queue.dead_letter_topic().is_some(),
        mutants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{QUEUE_SETTINGS, QueueSettings, QueueStart, SettingKind};
    use crate::ids::{SubscriptionUid, TopicUid};

    fn queue(settings: QueueSettings) -> QueueView {
        QueueView {
            name: "q".into(),
            uid: SubscriptionUid(1),
            topic: TopicUid(1),
            topic_name: "t".into(),
            created_us: 0,
            start: QueueStart::Latest,
            partitions_at_creation: 1,
            settings,
        }
    }

    fn rules_of(settings: QueueSettings) -> QueueRules {
        rules_of_queue(&queue(settings), Mutants::default())
    }

    #[test]
    fn defaults_mean_what_the_table_says() {
        assert_eq!(rules_of(QueueSettings::default()), QueueRules::default());
    }

    #[test]
    fn the_ends_of_every_range_have_a_meaning() {
        for setting in QUEUE_SETTINGS {
            let values = match setting.kind {
                SettingKind::Integer { min, max, unlimited } => {
                    let mut values = vec![min.to_string(), max.to_string()];
                    values.extend(unlimited.then(|| "-1".to_owned()));
                    values
                }
                SettingKind::Word(words) => words.iter().map(|word| (*word).to_owned()).collect(),
                SettingKind::Decimal { min, max } => vec![crate::control::decimal(min), crate::control::decimal(max)],
                SettingKind::Topic => vec!["dead".to_owned()],
            };
            let rules: Vec<_> = values
                .iter()
                .map(|value| rules_of(QueueSettings::parse([(setting.key, value.as_str())]).unwrap()))
                .chain([rules_of(QueueSettings::default())])
                .collect();
            assert!(rules.iter().any(|of| *of != rules[0]), "{} means nothing", setting.key);
        }
        let unlimited = rules_of(QueueSettings::parse([("max.deliveries", "-1")]).unwrap());
        assert_eq!(unlimited.max_deliveries, None);
    }
}
