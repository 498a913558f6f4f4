//! What reads the bytes of strangers, as functions of bytes: each panics where a promise is broken.
//!
//! Their cases grow out of the corpora in `fuzz/corpus`, one directory for each function: a million of them in the tests below,
//! which come out the same on every run; and as many as there is time for, guided by coverage, in `make fuzz`, which keeps what it
//! finds there.

pub use crate::{
    backend::fuzzed::{server_messages, sql},
    query::fuzzed::{cells, connection_string, json_body, neon_body, tunnel_frames, tunnel_startup},
};

/// A function that panics where a promise is broken.
pub type Check = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Check); 8] = [
    ("server_messages", server_messages),
    ("sql", sql),
    ("json_body", json_body),
    ("neon_body", neon_body),
    ("connection_string", connection_string),
    ("cells", cells),
    ("tunnel_frames", tunnel_frames),
    ("tunnel_startup", tunnel_startup),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Cases of each function.
    const CASES: u64 = 1_000_000;
    /// Longest case.
    const LONGEST: usize = 2048;
    /// What a byte is turned into more often than chance would.
    const ODD: &[u8] = b"\0\x01\x7f\x80\xff\"\\{}[],:$'/*-;@%?&= \n";
    /// What is put in whole.
    const WORDS: &[&[u8]] = &[
        b"\"sql\"",
        b"\"query\"",
        b"\"params\"",
        b"\"batch\"",
        b"\"queries\"",
        b"\"arrayMode\"",
        b"null",
        b"[[[[",
        b"\\u0000",
        b"\\ud800",
        b"1e999",
        b"\xf0\x9f\x90\x98",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\x04",
        b"$tag$",
        b"postgres://",
        b"%00",
        b"%zz",
    ];

    /// Numbers in a row that is the same every time (Marsaglia's xorshift64*).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
        }

        fn of<'a, T: ?Sized>(&mut self, many: &[&'a T]) -> &'a T {
            many[self.below(many.len())]
        }

        /// Changes a case a little.
        fn change(&mut self, case: &mut Vec<u8>, seeds: &[&[u8]]) {
            let at = self.below(case.len() + 1);
            let end = at + self.below((case.len() - at).min(64) + 1);
            match self.below(8) {
                0 => case.truncate(at),
                1 => drop(case.drain(at..end)),
                2 => drop(case.splice(at..at, self.of(WORDS).iter().copied())),
                3 => drop(case.splice(at..end, self.of(seeds).iter().copied().skip(at).take(64))),
                4 => {
                    let again = case[at..end].repeat(2);
                    drop(case.splice(at..end, again));
                }
                5 => case.insert(at, ODD[self.below(ODD.len())]),
                _ if at == case.len() => case.push(self.below(256) as u8),
                6 => case[at] = ODD[self.below(ODD.len())],
                _ => case[at] ^= 1 << self.below(8),
            }
            case.truncate(LONGEST);
        }
    }

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty());
        files.into_iter().map(|file| fs::read(file).unwrap()).collect()
    }

    fn a_million(name: &str) {
        let (_, check) = super::TARGETS.iter().find(|(known, _)| *known == name).unwrap();
        let seeds = seeds(name);
        let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
        for seed in &seeds {
            check(seed);
        }
        let mut dice = Dice(0x5157_1ce9_a7e0_0001);
        for _ in 0..CASES {
            let mut case = dice.of(&seeds).to_vec();
            for _ in 0..=dice.below(6) {
                dice.change(&mut case, &seeds);
            }
            let outcome = std::panic::catch_unwind(|| check(&case));
            assert!(outcome.is_ok(), "{name}: {:?}", String::from_utf8_lossy(&case));
        }
    }

    #[test]
    fn a_million_of_what_a_server_might_say() {
        a_million("server_messages");
    }

    #[test]
    fn a_million_texts_of_statements() {
        a_million("sql");
    }

    #[test]
    fn a_million_bodies_of_queries() {
        a_million("json_body");
    }

    #[test]
    fn a_million_bodies_of_the_neon_dialect() {
        a_million("neon_body");
    }

    #[test]
    fn a_million_connection_strings() {
        a_million("connection_string");
    }

    #[test]
    fn a_million_cells() {
        a_million("cells");
    }

    #[test]
    fn a_million_streams_of_frames() {
        a_million("tunnel_frames");
    }

    #[test]
    fn a_million_beginnings_of_a_session() {
        a_million("tunnel_startup");
    }
}
