use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
};

use governor::clock::FakeRelativeClock;
use http::HeaderMap;
use proptest::prelude::*;

use super::*;

fn settings(text: &str) -> Limit {
    toml_edit::de::from_str(text).unwrap()
}

fn limiter(text: &str) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (Limiter::with_clock("test", &settings(text), clock.clone()).unwrap(), clock)
}

fn v4(last: u32) -> IpAddr {
    Ipv4Addr::from_bits(last).into()
}

#[test]
fn burst_at_once_and_rate_in_the_long_run() {
    let (limiter, clock) = limiter("key = \"client-address\"\nrate = \"10/s\"\nburst = 3");
    let key = Key::address(v4(1));
    let remaining: Vec<u32> = (0..3).map(|_| limiter.check(key).remaining).collect();
    assert_eq!(remaining, [2, 1, 0]);
    let refused = limiter.check(key);
    assert_eq!(refused, Outcome { allowed: false, burst: 3, remaining: 0, reset_seconds: 1 });
    assert!(limiter.check(Key::address(v4(2))).allowed, "another address has a bucket of its own");
    clock.advance(Duration::from_millis(99));
    assert!(!limiter.check(key).allowed);
    clock.advance(Duration::from_millis(1));
    assert!(limiter.check(key).allowed);
    assert!(!limiter.check(key).allowed);
}

#[test]
fn the_wait_is_rounded_up_and_never_zero() {
    let (limiter, clock) = limiter("key = \"all\"\nrate = \"2/m\"\nburst = 1");
    let passed = limiter.check(Key::All);
    assert_eq!((passed.remaining, passed.reset_seconds), (0, 30));
    assert_eq!(limiter.check(Key::All).reset_seconds, 30);
    clock.advance(Duration::from_millis(1));
    assert_eq!(limiter.check(Key::All).reset_seconds, 30);
    clock.advance(Duration::from_millis(29_998));
    assert_eq!(limiter.check(Key::All).reset_seconds, 1);
    clock.advance(Duration::from_millis(1));
    assert!(limiter.check(Key::All).allowed);
}

#[test]
fn keys_are_what_the_configuration_says() {
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", "blue".parse().unwrap());
    let caller = |address: &str| Caller { address: address.parse().unwrap(), consumer: Some(7), headers: &headers };
    let plain = HeaderMap::new();
    let nobody = Caller { address: v4(9), consumer: None, headers: &plain };
    let by = |text: &str, caller: &Caller<'_>| key::of(&LimitKey::try_from(text.to_owned()).unwrap(), caller);

    let same = by("client-address", &caller("2001:db8:1:2::1"));
    assert_eq!(same, by("client-address", &caller("2001:db8:1:2:ffff::2")), "one /64 is one client");
    assert_ne!(same, by("client-address", &caller("2001:db8:1:3::1")));
    assert_eq!(by("client-address", &caller("::ffff:10.0.0.1")), Key::address("10.0.0.1".parse().unwrap()));
    assert_eq!(by("consumer", &caller("10.0.0.1")), Key::Consumer(7));
    assert_eq!(by("consumer", &nobody), Key::address(v4(9)));
    assert_eq!(by("header:X-Tenant", &caller("10.0.0.1")), Key::header(b"blue"));
    assert_ne!(Key::header(b"blue"), Key::header(b"green"));
    assert_eq!(by("header:x-tenant", &nobody), Key::NoHeader);
    assert_eq!(by("all", &nobody), Key::All);
    assert!(size_of::<Key>() <= 24);
}

#[test]
fn a_flood_of_keys_stays_within_its_bounds() {
    let (limiter, clock) = limiter("key = \"client-address\"\nrate = \"1/m\"\nburst = 2\nmax_keys = 5000");
    let known = Key::address(v4(1));
    assert!(limiter.check(known).allowed);
    // Unoptimised, ten million take longer than a test may.
    let flood = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000_u64 };
    let mut passed = 0;
    for host in 0..flood {
        passed += u32::from(limiter.check(Key::V6(host)).allowed);
    }
    assert_eq!(limiter.len(), 5000);
    assert_eq!(passed, 4999 + 2, "all beyond share one bucket");
    let bytes = limiter.buckets.into_state_store().bytes();
    assert!(bytes <= 5000 * 100, "{bytes} bytes");
    drop(clock);
}

#[test]
fn a_known_key_keeps_its_bucket_in_a_flood_and_a_sweep_makes_room() {
    let (limiter, clock) = limiter("key = \"client-address\"\nrate = \"1/s\"\nburst = 2\nmax_keys = 100");
    let known = Key::address(v4(1));
    assert_eq!(limiter.check(known).remaining, 1);
    for host in 0..1000 {
        limiter.check(Key::V6(host));
    }
    assert_eq!(limiter.check(known).remaining, 0, "its own bucket, not the shared one");
    assert!(!limiter.check(Key::V6(5000)).allowed, "the shared one is empty");
    limiter.sweep();
    assert_eq!(limiter.len(), 100, "no bucket is full yet");
    clock.advance(Duration::from_millis(2001));
    limiter.sweep();
    assert_eq!(limiter.len(), 1, "only the one that spent two");
    clock.advance(Duration::from_secs(2));
    limiter.sweep();
    assert!(limiter.is_empty());
    assert!(limiter.check(Key::V6(5000)).allowed);
    assert_eq!(limiter.len(), 1);
}

#[test]
fn memory_is_given_back() {
    let (limiter, clock) = limiter("key = \"client-address\"\nrate = \"1/s\"");
    for host in 0..70_000 {
        limiter.check(Key::V6(host));
    }
    assert_eq!(limiter.len(), 65_536);
    clock.advance(Duration::from_secs(3));
    limiter.sweep();
    assert!(limiter.is_empty());
    assert!(limiter.buckets.into_state_store().bytes() < 70_000);
}

#[test]
fn threads_together_pass_no_more_than_the_burst() {
    let limiter = Limiter::new("test", &settings("key = \"all\"\nrate = \"1/h\"\nburst = 1000\nmax_keys = 4")).unwrap();
    let passed: usize = thread::scope(|scope| {
        let count = || (0..2000).filter(|n| limiter.check(Key::V6(n % 3)).allowed).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 3000);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |text: &str| Limiter::new("x", &settings(text)).unwrap_err();
    assert_eq!(refused("key = \"all\"\nrate = \"1/s\"\nburst = 0"), LimitError::NoBurst("x".to_owned()));
    assert_eq!(refused("key = \"all\"\nrate = \"1/h\"\nburst = 4000000000"), LimitError::Window("x".to_owned()));
    // The steepest rate there is counts without overflow.
    let limiter = Limiter::new("x", &settings("key = \"all\"\nrate = \"4294967295/s\"\nburst = 4294967295")).unwrap();
    assert!(limiter.check(Key::All).allowed);
    assert_eq!(limiter.window_seconds(), 5);
}

// === answers ===

fn limits(texts: &[(&str, &str)]) -> RouteLimits {
    RouteLimits::new(texts.iter().map(|(name, text)| Arc::new(Limiter::new(name, &settings(text)).unwrap())).collect())
}

fn caller(headers: &HeaderMap) -> Caller<'_> {
    Caller { address: IpAddr::V6(Ipv6Addr::LOCALHOST), consumer: Some(1), headers }
}

#[test]
fn several_limits_are_told_in_one_field() {
    let limits = limits(&[
        ("per-client", "key = \"client-address\"\nrate = \"100/s\"\nburst = 200"),
        ("quiet", "key = \"all\"\nrate = \"100/s\"\nheaders = false"),
        ("per \"key\" ü", "key = \"consumer\"\nrate = \"600/h\"\nburst = 10"),
    ]);
    let none = HeaderMap::new();
    let mut tally = Tally::default();
    limits.check_before_access(&caller(&none), &mut tally).unwrap();
    limits.check_after_access(&caller(&none), &mut tally).unwrap();
    let mut headers = HeaderMap::new();
    limits.render(tally, &mut headers);
    assert_eq!(headers["ratelimit-policy"], r#""per-client";q=200;w=2, "per \"key\" _";q=10;w=60"#);
    assert_eq!(headers["ratelimit"], r#""per-client";r=199;t=1, "per \"key\" _";r=9;t=6"#);
}

#[test]
fn a_refusal_says_which_and_when() {
    let limits = limits(&[
        ("wide", "key = \"client-address\"\nrate = \"100/s\""),
        ("narrow", "key = \"client-address\"\nrate = \"1/m\""),
    ]);
    let none = HeaderMap::new();
    limits.check_before_access(&caller(&none), &mut Tally::default()).unwrap();
    let mut tally = Tally::default();
    let refused = limits.check_before_access(&caller(&none), &mut tally).unwrap_err();
    assert_eq!((&*refused.policy, refused.retry_after), ("narrow", 60));
    let mut headers = HeaderMap::new();
    limits.render(tally, &mut headers);
    refused.render(&mut headers);
    assert_eq!(headers["ratelimit"], r#""wide";r=98;t=1, "narrow";r=0;t=60"#);
    assert_eq!(headers["retry-after"], "60");
    assert_eq!(
        serde_json::Value::from(refused.problem()),
        serde_json::json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "violated-policies": ["narrow"],
        })
    );
}

#[test]
fn no_limits_no_fields() {
    let limits = RouteLimits::default();
    let mut headers = HeaderMap::new();
    limits.render(Tally::default(), &mut headers);
    assert!(headers.is_empty());
}

proptest! {
    /// Within any stretch of time, no more pass than the burst and what came back in it.
    #[test]
    fn never_more_than_the_bucket_holds(
        count in 1_u32..50,
        burst in 1_u32..20,
        pauses in prop::collection::vec(0_u64..200, 1..200),
    ) {
        let (limiter, clock) = limiter(&format!("key = \"all\"\nrate = \"{count}/s\"\nburst = {burst}"));
        let mut passed = 0_u64;
        let mut elapsed = 0;
        for pause in pauses {
            clock.advance(Duration::from_millis(pause));
            elapsed += pause;
            let outcome = limiter.check(Key::All);
            passed += u64::from(outcome.allowed);
            prop_assert!(outcome.remaining < burst);
            prop_assert!(outcome.reset_seconds >= 1);
            // An interval is cut to whole nanoseconds, so that a permit may come back that much early.
            let refilled = (elapsed * 1_000_000 + 1_000) * u64::from(count) / 1_000_000_000;
            prop_assert!(passed <= u64::from(burst) + refilled);
        }
    }
}

#[test]
fn what_costs_more_takes_more_all_or_none() {
    let (limiter, clock) = limiter("key = \"all\"\nrate = \"1/s\"\nburst = 10");
    let take = |permits| limiter.check_for(Key::All, NonZeroU32::new(permits).unwrap());
    assert_eq!((take(4).remaining, take(5).remaining), (6, 1));
    let refused = take(3);
    assert_eq!(refused, Outcome { allowed: false, burst: 10, remaining: 0, reset_seconds: 2 });
    assert!(take(1).allowed, "what was refused took nothing");
    let never = take(11);
    assert_eq!((never.allowed, never.reset_seconds), (false, 10), "more than there ever are");
    clock.advance(Duration::from_secs(3));
    assert!(take(3).allowed && !take(1).allowed);
}

#[test]
fn a_charge_says_what_is_left_now() {
    let limits: Vec<Arc<Limiter>> = ["a", "b"]
        .map(|name| Arc::new(Limiter::new(name, &settings("key = \"all\"\nrate = \"1/h\"\nburst = 5")).unwrap()))
        .into();
    let limits = RouteLimits::new(limits);
    let headers = HeaderMap::new();
    let caller = Caller { address: v4(1), consumer: None, headers: &headers };
    let mut tally = Tally::default();
    limits.check_before_access(&caller, &mut tally).unwrap();
    limits.charge(&caller, 2, &mut tally).unwrap();
    let refused = limits.charge(&caller, 3, &mut tally).unwrap_err();
    assert_eq!(&*refused.policy, "a");
    limits.charge(&caller, 0, &mut tally).unwrap();
    limits.charge(&caller, 2, &mut tally).unwrap();
    let mut told = HeaderMap::new();
    limits.render(tally, &mut told);
    let standing = told["ratelimit"].to_str().unwrap();
    assert!(standing.starts_with("\"a\";r=0;t=") && standing.contains(", \"b\";r=0;t="), "{standing}");
}
