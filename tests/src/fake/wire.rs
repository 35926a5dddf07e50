//! The few primitives of Minecraft's protocol that a Server List Ping needs,
//! with ceilings: shared by the fake server and the tests' own ping client.

use std::io::{self, Read, Write};

/// Longest packet either side accepts, bytes.
pub const MAX_PACKET: usize = 1 << 20;

/// Appends a VarInt.
pub fn put_varint(out: &mut Vec<u8>, value: i32) {
    let mut rest = value.cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Reads a VarInt of at most five bytes.
pub fn read_varint(from: &mut impl Read) -> io::Result<i32> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        let [byte] = byte;
        value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value.cast_signed());
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a VarInt of more than five bytes"))
}

/// Appends a string with its length.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Reads a string with its length.
pub fn read_string(from: &mut impl Read) -> io::Result<String> {
    let bytes = read_block(from)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes `body` as one packet.
pub fn write_packet(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    to.write_all(&frame(body))
}

/// `body` as one packet.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    put_length(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// Reads the body of one packet.
pub fn read_packet(from: &mut impl Read) -> io::Result<Vec<u8>> {
    read_block(from)
}

fn read_block(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = usize::try_from(read_varint(from)?).unwrap_or(usize::MAX);
    if length > MAX_PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a block of {length} bytes")));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(body)
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, i32::try_from(length).unwrap_or(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_the_protocol_s_own_examples() {
        for (value, bytes) in [
            (0, vec![0x00]),
            (127, vec![0x7f]),
            (128, vec![0x80, 0x01]),
            (25565, vec![0xdd, 0xc7, 0x01]),
            (i32::MAX, vec![0xff, 0xff, 0xff, 0xff, 0x07]),
            (-1, vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(read_varint(&mut out.as_slice()).unwrap(), value);
        }
        assert!(read_varint(&mut [0x80; 6].as_slice()).is_err());
    }

    #[test]
    fn a_length_over_the_ceiling_is_refused_before_it_is_allocated() {
        let mut packet = Vec::new();
        put_varint(&mut packet, i32::MAX);
        assert_eq!(read_packet(&mut packet.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
