//! Reading numbers out of bytes whose end may come at any place.

/// The `N` bytes at `at`.
#[inline]
pub(super) fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// The 16 bits at `at`, network byte order.
#[inline]
pub(super) fn be16(data: &[u8], at: usize) -> Option<u16> {
    array(data, at).map(u16::from_be_bytes)
}

/// The 32 bits at `at`, network byte order.
#[inline]
pub(super) fn be32(data: &[u8], at: usize) -> Option<u32> {
    array(data, at).map(u32::from_be_bytes)
}

/// The bytes from `at` on; none where there are fewer than `at`.
#[inline]
pub(super) fn rest(data: &[u8], at: usize) -> &[u8] {
    data.get(at..).unwrap_or_default()
}

/// Text out of a packet: control characters and what is not UTF-8 become U+FFFD, NUL bytes at the end go.
/// None where nothing is left.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let text = String::from_utf8_lossy(bytes.get(..end)?);
    Some(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
}

/// A domain name in labels (RFC 1035 section 3.1, no compression), which may lack its root label (RFC 4704
/// section 4.2), written with dots.
pub(super) fn domain_name(bytes: &[u8]) -> Option<String> {
    let mut name = String::new();
    let mut left = bytes;
    while let [length @ 1..=63, after @ ..] = left {
        let (label, behind) = after.split_at_checked(usize::from(*length))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&text(label)?);
        left = behind;
    }
    (!name.is_empty() && matches!(left, [] | [0, ..])).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_labels_reads_with_and_without_its_root() {
        assert_eq!(domain_name(b"\x04host\x03gov\0").as_deref(), Some("host.gov"));
        assert_eq!(domain_name(b"\x04host").as_deref(), Some("host"));
    }

    #[test]
    fn a_name_that_is_cut_or_compressed_is_none() {
        for bad in [&b""[..], b"\0", b"\x05host", b"\xc0\x0c", b"\x04host\xc0\x0c"] {
            assert_eq!(domain_name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn text_carries_no_control_characters() {
        assert_eq!(text(b"PC-\x1b[31m\xff\0\0").as_deref(), Some("PC-\u{fffd}[31m\u{fffd}"));
        assert_eq!(text(b"\0\0"), None);
    }
}
