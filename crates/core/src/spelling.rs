//! "Did you mean …?": the known word that somebody may have meant, for every place where people write names.

/// The known word nearest to `word`, if one is near enough to be a slip of the hand.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(word, known);
    // Of nothing every short word is a slip away.
    let is_near = |k: &&str| !word.is_empty() && distance(k) <= 1 + k.len().max(word.len()) / 4;
    known.into_iter().filter(is_near).min_by_key(distance)
}

/// ``Did you mean `x`?``, or which words there are; nothing if there are none.
pub fn hint<'k>(word: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("Did you mean `{near}`?");
    }
    let all: Vec<&str> = known.into_iter().collect();
    if all.is_empty() { String::new() } else { format!("Known: {}.", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_told_from_another_word() {
        let known = ["timeout", "concurrency", "encoding", "hash"];
        assert_eq!(nearest("timout", known), Some("timeout"));
        assert_eq!(nearest("concurency", known), Some("concurrency"));
        assert_eq!(nearest("ecnoding", known), Some("encoding"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", ["a"]), None);
        assert_eq!(hint("hahs", known), "Did you mean `hash`?");
        assert_eq!(hint("colour", ["a", "b"]), "Known: a, b.");
        assert_eq!(hint("colour", []), "");
    }
}
