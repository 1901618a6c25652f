//! Evidence: what the sensors sealed can be verified again, offline, from the store or from a bundle that a third party
//! holds. `docs/evidence.md` says what is signed, and the format of bundles.

pub(crate) mod bundle;
pub(crate) mod bundled;
pub(crate) mod check;
pub(crate) mod command;
pub(crate) mod export;
pub(crate) mod stored;
#[cfg(test)]
mod tests;

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}
