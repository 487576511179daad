//! Counts in words, for people to read.

/// Nouns that the programs count, singular and plural, where an `s` is not all.
const IRREGULAR: [(&str, &str); 1] = [("entry", "entries")];

/// `1 sample`, `2 samples`; `noun` is the singular.
pub fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {}", plural(noun)) }
}

fn plural(noun: &str) -> String {
    let irregular = IRREGULAR.iter().find(|(one, _)| *one == noun);
    irregular.map_or_else(|| format!("{noun}s"), |(_, many)| (*many).to_owned())
}

/// Puts a description in the plural, such as `samples that are empty`, into the singular: its first
/// plural noun, if that is one of `nouns`, and the verb after `that`.
pub(crate) fn singular(what: &str, nouns: &[&str]) -> String {
    let plural_of = |word: &str| nouns.iter().find(|noun| plural(noun) == word);
    let mut words: Vec<&str> = what.split(' ').collect();
    let mut tail = String::new();
    for word in &mut words {
        let bare = word.trim_end_matches([',', ':']);
        if let Some(noun) = plural_of(bare) {
            tail = format!("{noun}{}", &word[bare.len()..]);
            *word = "";
            break;
        }
    }
    let Some(at) = words.iter().position(|word| word.is_empty()) else { return what.to_owned() };
    words[at] = &tail;
    if let Some(that) = words.iter().position(|word| *word == "that")
        && let Some(verb) = words.get_mut(that + 1)
    {
        *verb = match *verb {
            "are" => "is",
            "have" => "has",
            "do" => "does",
            "go" => "goes",
            "stand" => "stands",
            other => other,
        };
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_told_in_the_singular() {
        assert_eq!(counted(1, "sample"), "1 sample");
        assert_eq!(counted(0, "sample"), "0 samples");
        assert_eq!(counted(2, "entry"), "2 entries");
        let nouns = ["sample", "value", "word", "entry", "id"];
        for (many, one) in [
            ("samples that are empty", "sample that is empty"),
            ("audio values that are NaN, left out", "audio value that is NaN, left out"),
            ("words that two aligned entries repeat", "word that two aligned entries repeat"),
            ("ids that stand twice in a split", "id that stands twice in a split"),
            ("samples padded in front, moved", "sample padded in front, moved"),
            ("entries of a split", "entry of a split"),
            ("metadata that cannot be read", "metadata that cannot be read"),
        ] {
            assert_eq!(singular(many, &nouns), one);
        }
    }
}
