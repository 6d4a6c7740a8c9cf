//! `plural`: a counted noun, as people write it.

/// What a regular noun ends in after `count`: `1 page`, `0 pages`, `2 pages`.
pub fn plural<N: PartialEq + From<u8>>(count: N) -> &'static str {
    if count == N::from(1) { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_nothing_else_is() {
        assert_eq!([0_u64, 1, 2].map(plural), ["s", "", "s"]);
        assert_eq!(plural(1_usize), "");
    }
}
