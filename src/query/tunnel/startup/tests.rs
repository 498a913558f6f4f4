use proptest::prelude::*;

use super::*;

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body: Vec<u8> = pairs.iter().flat_map(|(name, value)| format!("{name}\0{value}\0").into_bytes()).collect();
    body.push(0);
    body
}

fn begin(given: &[(&str, &str)]) -> Result<Startup, Refused> {
    match parse(&packet(3 << 16, &pairs(given)))? {
        Some((First::Start(startup), _)) => Ok(startup),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_kinds_of_first_packet_are_told_apart() {
    let encryption = |code| parse(&packet(code, b""));
    assert_eq!(encryption(SSL), Ok(Some((First::Encryption, 8))));
    assert_eq!(encryption(GSS), Ok(Some((First::Encryption, 8))));
    let key = Key { process: 7, secret: -2 };
    let cancel = packet(CANCEL, &[0, 0, 0, 7, 255, 255, 255, 254]);
    assert_eq!(parse(&cancel), Ok(Some((First::Cancel(key), 16))));
    assert_eq!(parse(&packet(CANCEL, &[0; 7])).unwrap_err().0, "08P01");
    assert_eq!(parse(&packet(2 << 16, &pairs(&[("user", "a")]))).unwrap_err().0, "0A000");
    let trailing = [packet(3 << 16 | 2, &pairs(&[("user", "a"), ("_pq_.x", "1")])), b"p".to_vec()].concat();
    let (First::Start(startup), length) = parse(&trailing).unwrap().unwrap() else { panic!("no start-up") };
    assert_eq!((startup.minor, startup.unknown, length), (2, vec!["_pq_.x".to_owned()], trailing.len() - 1));
}

#[test]
fn a_start_up_says_who_and_how() {
    let all = [
        ("user", "app"),
        ("database", "shop"),
        ("options", r"-c search_path=a\ b -csearch-path=x,y --statement-timeout=5"),
        ("application_name", "it"),
        ("replication", "false"),
    ];
    let startup = begin(&all).unwrap();
    assert_eq!((startup.user.as_str(), startup.database.as_deref()), ("app", Some("shop")));
    let expected =
        [("search_path", "a b"), ("search_path", "x,y"), ("statement_timeout", "5"), ("application_name", "it")];
    let expected: Vec<(String, String)> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(startup.settings, expected);
    assert_eq!(wishes(startup.settings).unwrap(), expected[1..], "the last counts");
    for (given, code) in [
        (&[("database", "shop")][..], "28000"),
        (&[("user", "a"), ("replication", "database")], "0A000"),
        (&[("user", "a"), ("options", "-x")], "42601"),
        (&[("user", "a"), ("options", "-c")], "42601"),
        (&[("user", "a"), ("options", "-c nothing")], "42601"),
    ] {
        assert_eq!(begin(given).unwrap_err().0, code, "{given:?}");
    }
}

#[test]
fn settings_are_of_a_list_and_text_is_utf8() {
    let wish = |name: &str, value: &str| wishes(vec![(name.to_owned(), value.to_owned())]);
    assert_eq!(wish("datestyle", "ISO").unwrap(), [("DateStyle".to_owned(), "ISO".to_owned())]);
    for value in ["UTF8", "'utf-8'", "UNICODE"] {
        assert_eq!(wish("client_encoding", value).unwrap(), []);
    }
    assert_eq!(wish("client_encoding", "LATIN1").unwrap_err().0, "22023");
    for name in ["session_preload_libraries", "role", "session_authorization", "x\u{7}", "row_security"] {
        let refused = wish(name, "x").unwrap_err();
        assert_eq!(refused.0, "42501", "{name}");
        assert!(!refused.1.contains('\u{7}'));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_start_up_is_read_whole_or_not_at_all(
        given in prop::collection::vec(("[a-z_.]{1,12}", "[ -~]{0,20}"), 0..6), user in "[ -~]{1,20}", cut in 0..400_usize,
    ) {
        let given: Vec<(&str, &str)> =
            given.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain([("user", user.as_str())]).collect();
        let bytes = packet(3 << 16, &pairs(&given));
        let part = &bytes[..cut.min(bytes.len() - 1)];
        prop_assert_eq!(parse(part), Ok(None));
        if let Ok(Some((First::Start(startup), length))) = parse(&bytes) {
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(startup.user, user);
        }
    }

    #[test]
    fn noise_never_panics_and_ends(
        length in 0..20_000_u32, code in prop::sample::select(vec![3 << 16, 3 << 16 | 9, CANCEL, SSL, GSS, 0]),
        noise in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>(), 97..123_u8], 0..120),
    ) {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(&noise);
        let parsed = parse(&bytes);
        prop_assert!(length as usize <= LONGEST || parsed.is_err());
        if let Ok(Some((_, taken))) = parsed {
            prop_assert_eq!(taken, length as usize);
        }
        let told = packet(code, &noise);
        prop_assert!(!matches!(parse(&told), Ok(None)), "all of it is there");
        let _ = options(&String::from_utf8_lossy(&noise), &mut Vec::new());
    }
}
