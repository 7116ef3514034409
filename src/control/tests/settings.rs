//! Settings of topics and queues.

use crate::control::*;

#[test]
fn the_tables_are_in_order_and_their_defaults_are_allowed() {
    fn check<T: SettingTable>() {
        assert!(T::TABLE.windows(2).all(|w| w[0].key < w[1].key), "{} settings in order of keys", T::OF);
        for setting in T::TABLE {
            let set = Settings::<T>::parse([(setting.key, setting.default)]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(set.word(setting.key), setting.default);
        }
    }
    check::<OfTopic>();
    check::<OfQueue>();
}

#[test]
fn an_error_names_whose_setting_it_is_and_what_would_be_right() {
    let of_queue = |key, value| QueueSettings::parse([(key, value)]).expect_err("refused").to_string();
    assert!(
        of_queue("retention.ms", "1")
            .starts_with("unknown queue setting \"retention.ms\"; known are consumer.timeout.ms, dead.letter.topic")
    );
    assert_eq!(of_queue("paused", "yes"), "queue setting paused: \"yes\" is not one of false, true");
    assert_eq!(
        of_queue("retry.multiplier", "0.99"),
        "queue setting retry.multiplier: \"0.99\" is not a number from 1 to 100 with at most two decimals"
    );
    assert_eq!(of_queue("dead.letter.topic", "a b"), "queue setting dead.letter.topic: \"a b\" is not the name of a topic, or empty");
    assert_eq!(
        of_queue("max.deliveries", "0"),
        "queue setting max.deliveries: \"0\" is not an integer from 1 to 65535 (deliveries), or -1 for no limit"
    );
    let of_topic = TopicSettings::parse([("queue.retention.ms", "59999")]).expect_err("refused").to_string();
    assert_eq!(
        of_topic,
        "topic setting queue.retention.ms: \"59999\" is not an integer from 60000 to 9223372036854775807 (milliseconds), or -1 for no limit"
    );
}

#[test]
fn decimals_have_at_most_two_decimals() {
    let multiplier = |text| QueueSettings::parse([("retry.multiplier", text)]).map(|s| s.hundredths("retry.multiplier")).ok();
    for (text, expected) in [("1", 100), ("1.5", 150), ("1.05", 105), ("2.50", 250), ("100", 10_000), ("100.00", 10_000), ("007", 700)] {
        assert_eq!(multiplier(text), Some(expected), "{text}");
    }
    for text in ["0.99", "100.01", "1.555", "1.", ".5", "-2", "+2", "1e2", "1,5", " 2", "two", "99999999999", "42949673"] {
        assert_eq!(multiplier(text), None, "{text}");
    }
    assert_eq!(QueueSettings::default().hundredths("retry.multiplier"), 200);
    assert_eq!([100, 150, 105, 10_000].map(decimal), ["1", "1.5", "1.05", "100"]);
}

#[test]
fn an_empty_value_goes_back_to_the_default_and_an_error_changes_nothing() {
    let mut settings = QueueSettings::parse([("paused", "true"), ("dead.letter.topic", "dead")]).unwrap();
    assert!(settings.is_set("paused") && !settings.is_set("exclusive"));
    let before = settings.clone();
    assert!(settings.change([("paused", ""), ("max.deliveries", "x")]).is_err());
    assert_eq!(settings, before);
    settings.change([("paused", ""), ("dead.letter.topic", ""), ("max.deliveries", "-1")]).unwrap();
    assert_eq!(settings.explicit().collect::<Vec<_>>(), [("max.deliveries", "-1")]);
    assert_eq!((settings.word("dead.letter.topic"), settings.integer("max.deliveries")), ("", None));
}
