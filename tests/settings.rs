//! Settings as text: what a file may say, and what becomes of a file that says anything else.

use std::{collections::BTreeMap, panic};

use corepool::{
    Backend,
    settings::{AtLimit, AtOpen, EndpointOverrides, EndpointSettings, Order, Peek, Settings},
};
use serde_json::{Value, json};

fn from_json(value: &Value) -> Result<Settings, String> {
    let settings: Settings = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    settings.check().map_err(|e| e.to_string())?;
    Ok(settings)
}

fn from_toml(text: &str) -> Result<Settings, String> {
    let settings: Settings = toml::from_str(text).map_err(|e| e.to_string())?;
    settings.check().map_err(|e| e.to_string())?;
    Ok(settings)
}

/// Every setting of an endpoint, as group and name, with its default as text.
fn every_setting() -> Vec<(String, String, Value)> {
    let Value::Object(groups) = serde_json::to_value(EndpointSettings::default()).unwrap() else {
        panic!("a policy is a table");
    };
    let settings: Vec<_> = groups
        .iter()
        .flat_map(|(group, settings)| {
            let settings = settings.as_object().unwrap().iter();
            settings.map(move |(name, value)| (group.clone(), name.clone(), value.clone()))
        })
        .collect();
    assert!(settings.len() > 50, "{}", settings.len());
    settings
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(from_toml("").unwrap(), Settings::default());
    assert_eq!(from_json(&json!({})).unwrap(), Settings::default());
    let own = json!({ "endpoints": { "10.0.0.1:80": { "capacity": {} } } });
    let own = from_json(&own).unwrap();
    assert_eq!(own.endpoints["10.0.0.1:80"], EndpointOverrides::default());
}

#[test]
fn a_file_says_it_in_words() {
    let settings = from_toml(
        r#"
        backend = "io-uring"
        shards = 4
        pin = false
        max_idle_total = 20_000
        max_live_total = "off"

        [endpoint.capacity]
        max_live = 256
        at_limit = "overflow"
        order = "lifo"
        [endpoint.health]
        peek = { idle_longer_than_ms = 500 }
        [endpoint.lifetime]
        max_lifetime_ms = "off"
        [endpoint.failure]
        at_open = "direct"
        [endpoint.sockets]
        source = "192.0.2.7"
        port_range = [20_000, 29_999]
        port_window = 128

        [endpoints."10.0.0.1:80"]
        capacity = { max_live = 64, max_idle = 64 }
        lifetime.max_lifetime_ms = 60_000
        lifetime.retention_period_ms = "off"
        health.peek = "always"
        sockets.source = "off"
        "#,
    )
    .unwrap();
    assert_eq!(settings.backend, Backend::IoUring);
    assert_eq!((settings.shards, settings.pin), (Some(4), false));
    assert_eq!((settings.max_live_total, settings.max_idle_total), (None, Some(20_000)));
    let every = &settings.endpoint;
    assert_eq!(every.capacity.at_limit, AtLimit::Overflow);
    assert_eq!(every.capacity.order, Order::Lifo);
    assert_eq!(every.health.peek, Peek::IdleLongerThanMs(500));
    assert_eq!(every.lifetime.max_lifetime_ms, None);
    assert_eq!(every.failure.at_open, AtOpen::Direct);
    assert_eq!(every.sockets.source, Some("192.0.2.7".parse().unwrap()));
    assert_eq!(every.sockets.port_range, Some((20_000, 29_999)));
    assert_eq!(every.timeouts, EndpointSettings::default().timeouts, "what is left out");

    let one = settings.for_endpoint(&"10.0.0.1:80".parse().unwrap());
    assert_eq!((one.capacity.max_live, one.capacity.max_idle), (64, 64));
    assert_eq!(one.capacity.order, Order::Lifo, "inherited");
    assert_eq!(one.lifetime.max_lifetime_ms, Some(60_000), "on again for this one");
    assert_eq!(one.lifetime.retention_period_ms, None);
    assert_eq!(one.health.peek, Peek::Always);
    assert_eq!(one.sockets.source, None);
}

#[test]
fn what_is_written_reads_the_same() {
    let mut settings = Settings::wan();
    settings.backend = Backend::Epoll;
    settings.shards = Some(3);
    settings.max_dialing_total = Some(9);
    settings.endpoint.lifetime.max_lifetime_ms = None;
    settings.endpoint.health.peek = Peek::IdleLongerThanMs(7);
    settings.endpoint.sockets.source = Some("::1".parse().unwrap());
    settings.endpoint.sockets.port_range = Some((1, 2));
    let own = settings.endpoints.entry("a:1".to_owned()).or_default();
    own.lifetime.max_lifetime_ms = Some(Some(5));
    own.lifetime.max_uses = Some(None);
    own.sockets.port_range = Some(None);
    own.capacity.order = Some(Order::Lifo);
    settings.endpoints.insert("b:1".to_owned(), EndpointOverrides::default());
    for settings in [settings, Settings::default(), Settings::lan()] {
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(from_toml(&text).unwrap(), settings, "{text}");
        let value = serde_json::to_value(&settings).unwrap();
        assert_eq!(from_json(&value).unwrap(), settings, "{value}");
    }
}

#[test]
fn a_change_of_one_setting_is_that_change() {
    let defaults = serde_json::to_value(EndpointSettings::default()).unwrap();
    for (group, name, value) in every_setting() {
        // What is off is said so; everything else gets some other value of its kind.
        let other = match &value {
            Value::Bool(on) => json!(!on),
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::String(_) => match &*name {
                "at_limit" => json!("reject"),
                "order" => json!("lifo"),
                "at_open" => json!("direct"),
                "peek" => json!("always"),
                "source" => json!("192.0.2.1"),
                "port_range" => json!([1, 2]),
                _ => json!(3),
            },
            _ => panic!("{group}.{name} = {value}"),
        };
        let overrides: EndpointOverrides =
            serde_json::from_value(json!({ &group: { &name: &other } })).unwrap();
        let changed = overrides.apply_to(&EndpointSettings::default());
        let mut expected = defaults.clone();
        expected[&group][&name] = other.clone();
        assert_eq!(serde_json::to_value(changed).unwrap(), expected, "{group}.{name}");
        // The change alone is what is written.
        let written = serde_json::to_value(overrides).unwrap();
        assert_eq!(written, json!({ &group: { &name: other } }));
    }
}

#[test]
fn unknown_names_are_refused_everywhere() {
    let mut places = vec![String::new(), "/endpoint".to_owned(), "/endpoints/a:1".to_owned()];
    for (group, ..) in every_setting() {
        places.push(format!("/endpoint/{group}"));
        places.push(format!("/endpoints/a:1/{group}"));
    }
    for place in places {
        let mut file = json!({ "colour": 1 });
        for table in place.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
            file = json!({ table: file });
        }
        let error = from_json(&file).unwrap_err();
        assert!(error.contains("unknown field `colour`"), "{place}: {error}");
    }
}

#[test]
fn values_of_the_wrong_kind_are_refused_everywhere() {
    let wrong = [json!(-1), json!(1.5), json!(u64::MAX), json!("on"), json!({}), json!([[]])];
    for (group, name, _) in every_setting() {
        for value in &wrong {
            for file in [
                json!({ "endpoint": { &group: { &name: value } } }),
                json!({ "endpoints": { "a:1": { &group: { &name: value } } } }),
            ] {
                assert!(from_json(&file).is_err(), "{file}");
            }
        }
    }
    for name in ["backend", "shards", "pin", "slots_per_shard", "steal_threshold", "endpoints"] {
        for value in &wrong[..4] {
            assert!(from_json(&json!({ name: value })).is_err(), "{name} = {value}");
        }
    }
}

#[test]
fn an_error_of_the_format_says_what_would_do() {
    for (file, says) in [
        ("backend = \"uring\"", "expected auto, io-uring or epoll"),
        ("endpoint.lifetime.max_uses = \"on\"", "expected u32, or \"off\""),
        ("endpoint.lifetime.max_uses = true", "expected a value, or \"off\""),
        ("endpoint.sockets.source = \"1.2.3\"", "IP address"),
        ("endpoint.capacity.order = \"random\"", "expected `fifo` or `lifo`"),
    ] {
        let error = from_toml(file).unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(error.contains("line 1"), "{error}");
    }
    let error = from_toml("[endpoints.\"10.0.0.1:80\"]\ncapacity.max_live = 0").unwrap_err();
    let expected = r#"endpoints."10.0.0.1:80".capacity.max_live is 0, but must be 1 to 16777216"#;
    assert_eq!(error, expected);
}

/// xorshift64*, seeded, so that a failure comes back.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }
}

/// Whatever comes, the answer is settings that hold or an error with a message; a panic fails the
/// test with the text that caused it.
fn survives(text: &str, read: fn(&str) -> Result<Settings, String>) -> bool {
    let outcome = panic::catch_unwind(|| {
        read(text).map(|settings| {
            for name in settings.endpoints.keys() {
                let own = settings.for_endpoint(&name.parse().unwrap());
                own.check().unwrap();
            }
        })
    });
    match outcome {
        Ok(Ok(())) => true,
        Ok(Err(message)) => {
            assert!(!message.is_empty());
            false
        }
        Err(_) => panic!("a panic by {text:?}"),
    }
}

fn json_text(text: &str) -> Result<Settings, String> {
    let settings: Settings = serde_json::from_str(text).map_err(|e| e.to_string())?;
    settings.check().map_err(|e| e.to_string())?;
    Ok(settings)
}

#[test]
fn random_values_in_the_right_places_never_panic() {
    let settings = every_setting();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut held, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let mut tables: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
        for _ in 0..=dice.roll(4) {
            let (group, name, default) = &settings[dice.roll(settings.len())];
            let value = match dice.roll(12) {
                0 => json!(0),
                1 => json!(1),
                2 => json!(dice.roll(200)),
                3 => json!(u32::MAX),
                4 => json!(i64::MIN),
                5 => json!([dice.roll(70_000), dice.roll(70_000)]),
                6 => json!({ "idle_longer_than_ms": dice.roll(3) }),
                7 => json!(dice.pick(&["off", "always", "reject", "lifo", "::", "", "\u{0}"])),
                8 => Value::Null,
                9 => json!(dice.roll(2) == 0),
                _ => default.clone(),
            };
            tables.entry(group).or_default().insert(name.clone(), value);
        }
        let file = match dice.roll(3) {
            0 => json!({ "endpoint": tables }),
            _ => {
                let name = dice.pick(&["10.0.0.1:80", "[::1]:1", "a:65535", "a:0", "", "\"\n"]);
                json!({ "endpoints": { name: tables } })
            }
        };
        let text = file.to_string();
        let by_json = survives(&text, json_text);
        if by_json {
            held += 1
        } else {
            refused += 1
        }
        // TOML has no null; the rest means the same in both.
        if let Ok(text) = toml::to_string(&file) {
            assert_eq!(survives(&text, from_toml), by_json, "{text}");
        }
    }
    assert!(held > 200 && refused > 200, "held {held}, refused {refused}");
}

#[test]
fn damaged_files_never_panic() {
    let whole = toml::to_string(&Settings::wan()).unwrap();
    let as_json = serde_json::to_string(&Settings::wan()).unwrap();
    let scraps = [
        "[",
        "]",
        "[[",
        "{",
        "}",
        "=",
        "\"",
        "'''",
        ".",
        ",",
        "\n",
        "#",
        "\\u",
        "0x",
        "1e999",
        "nan",
        "-0",
        "1979-05-27T07:32:00Z",
        "endpoints",
        "off",
        "99999999999999999999",
        "\u{fffd}",
        "é",
    ];
    let mut dice = Dice(7);
    for _ in 0..3_000 {
        for (text, read) in [(&whole, from_toml as fn(&str) -> _), (&as_json, json_text)] {
            let mut damaged: Vec<char> = text.chars().collect();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(damaged.len());
                let end = damaged.len().min(at + dice.roll(20));
                damaged.splice(at..end, dice.pick(&scraps).chars());
            }
            survives(&damaged.into_iter().collect::<String>(), read);
        }
    }
}

#[test]
fn noise_is_refused() {
    let mut dice = Dice(3);
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..=dice.roll(60)).map(|_| dice.roll(256) as u8).collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!survives(&text, json_text), "{text:?}");
        // A comment or blank lines are a TOML file; anything that sets something is not ours.
        if survives(&text, from_toml) {
            assert_eq!(from_toml(&text).unwrap(), Settings::default(), "{text:?}");
        }
    }
}
