//! CRC-32c (Castagnoli), as SCTP has it (RFC 9260 appendix A): eight bytes at a time by tables.

const POLYNOMIAL: u32 = 0x82f6_3b78;
static TABLES: [[u32; 256]; 8] = tables();

#[expect(clippy::cast_possible_truncation, reason = "a table has 256 entries")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

fn of_byte(table: usize, byte: u8) -> u32 {
    TABLES[table][usize::from(byte)]
}

/// The checksum over parts, one behind the other.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for part in parts {
        let (eights, rest) = part.as_chunks::<8>();
        for &[b0, b1, b2, b3, b4, b5, b6, b7] in eights {
            let [c0, c1, c2, c3] = (crc ^ u32::from_le_bytes([b0, b1, b2, b3])).to_le_bytes();
            crc = of_byte(7, c0)
                ^ of_byte(6, c1)
                ^ of_byte(5, c2)
                ^ of_byte(4, c3)
                ^ of_byte(3, b4)
                ^ of_byte(2, b5)
                ^ of_byte(1, b6)
                ^ of_byte(0, b7);
        }
        for &byte in rest {
            let [low, ..] = crc.to_le_bytes();
            crc = crc >> 8 ^ of_byte(0, low ^ byte);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn vectors_of_rfc_3720_hold() {
        let ascending: Vec<u8> = (0..32).collect();
        let cases: [(&[u8], u32); 4] = [
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
        ];
        for (data, expected) in cases {
            assert_eq!(crc32c(&[data]), expected);
            let (head, tail) = data.split_at(5);
            assert_eq!(crc32c(&[head, tail]), expected, "in two parts");
        }
    }
}
