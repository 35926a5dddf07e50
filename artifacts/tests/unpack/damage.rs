//! Containers that were cut, flipped, continued or that ask for too much.

use zlh_artifacts::{Limits, UnpackError};
use zlh_catalog::MediaType::{self, TarGz, TarXz, TarZst, Zip};

use crate::bench::Bench;
use crate::support::zip::zip;
use crate::support::*;
use crate::{good, good_zip};

/// The same release in every format.
fn every_format() -> [(Vec<u8>, MediaType); 4] {
    let whole = tar(&good());
    [(gz(&whole), TarGz), (zst(&whole), TarZst), (xz(&whole), TarXz), (zip(&good_zip()), Zip)]
}

/// What a compressed tar may not be.
#[test]
fn damage_to_the_container_is_noticed() {
    let whole = tar(&good());
    let flipped = {
        let mut data = whole.clone();
        data[0] ^= 1;
        data
    };
    let html = b"<!DOCTYPE html><html>not found</html>".to_vec();
    for (media_type, pack) in [(TarGz, gz as fn(&[u8]) -> Vec<u8>), (TarZst, zst), (TarXz, xz)] {
        let packed = pack(&whole);
        let table: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("a page", html.clone()),
            ("plain tar", whole.clone()),
            ("no end", pack(&whole[..whole.len() - 1024])),
            ("half an end", pack(&whole[..whole.len() - 512])),
            ("cut in an entry", pack(&whole[..700])),
            ("garbage after the end", pack(&[&whole[..], b"garbage"].concat())),
            ("an entry after the end", pack(&[&whole[..], &whole[..]].concat())),
            ("checksum of a header", pack(&flipped)),
            ("second member", [packed.clone(), packed.clone()].concat()),
            ("empty second member", [packed.clone(), pack(b"")].concat()),
            ("garbage after the member", [packed.clone(), b"garbage".to_vec()].concat()),
            ("one byte after the member", [packed.clone(), b"\0".to_vec()].concat()),
            ("zeros after the member", [packed.clone(), vec![0; 512]].concat()),
            ("nothing at all in it", pack(b"")),
        ];
        for (case, data) in table {
            refused(&format!("{media_type:?}: {case}"), &data, media_type);
        }
        for (other, name) in every_format().iter().filter(|(_, name)| *name != media_type) {
            refused(&format!("{media_type:?}: it is {name:?}"), other, media_type);
        }
    }
}

#[test]
fn checksums_are_held_to() {
    let whole = tar(&good());
    let mut gzip = gz(&whole);
    let (crc, length) = (gzip.len() - 8, gzip.len() - 4);
    gzip[crc] ^= 1;
    refused("gzip crc", &gzip, TarGz);
    (gzip[crc], gzip[length]) = (gzip[crc] ^ 1, gzip[length] ^ 1);
    refused("gzip length", &gzip, TarGz);
    // Block check, index and footer of an xz stream are at its end, in this order.
    let stream = xz(&whole);
    for back in 1..=40 {
        let mut data = stream.clone();
        let at = data.len() - back;
        data[at] ^= 1;
        refused(&format!("xz, {back} bytes from its end"), &data, TarXz);
    }
    let mut without = liblzma::stream::Stream::new_easy_encoder(0, liblzma::stream::Check::None).unwrap();
    let mut data = Vec::with_capacity(1 << 20);
    without.process_vec(&whole, &mut data, liblzma::stream::Action::Finish).unwrap();
    let error = refused("xz without a check", &data, TarXz);
    assert!(error.to_string().contains("no checksum"), "{error}");
}

#[test]
fn a_truncated_archive_fails_wherever_it_ends() {
    for (whole, media_type) in every_format() {
        for at in (0..100).map(|part| whole.len() * part / 100).chain([whole.len() - 1]) {
            refused(&format!("{media_type:?}: {at} of {} bytes", whole.len()), &whole[..at], media_type);
        }
    }
}

#[test]
fn flipped_bits_are_survived() {
    for (whole, media_type) in every_format() {
        for at in (0..whole.len()).step_by(3) {
            let bench = Bench::new();
            let mut data = whole.clone();
            data[at] ^= 1 << (at / 3 % 8);
            let result = bench.unpack(&data, media_type, 1, &Limits::default());
            bench.assert_contained(&format!("{media_type:?}: bit in byte {at}: {result:?}"), result.is_ok());
        }
    }
}

/// Magic, a frame header that asks for a window of 2 GiB, an empty last block.
#[test]
fn a_huge_zstd_window_is_refused() {
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let bench = Bench::new();
    let error = bench.unpack(&frame, TarZst, 0, &Limits::default()).unwrap_err();
    assert!(matches!(&error, UnpackError::Limit(why) if why.contains("memory")), "{error:?}");
}

/// The dictionary of an xz block is one byte of its header: 2 or 3 to a power of two.
#[test]
fn a_huge_xz_dictionary_is_refused() {
    let whole = tar(&good());
    for (mebibytes, accepted) in [(64, true), (96, true), (128, false), (1024, false)] {
        let bench = Bench::new();
        let result = bench.unpack(&with_dictionary(&xz(&whole), mebibytes), TarXz, 1, &Limits::default());
        match result {
            Ok(_) => assert!(accepted, "{mebibytes} MiB"),
            Err(UnpackError::Limit(why)) => assert!(!accepted && why.contains("of memory"), "{why}"),
            Err(other) => panic!("{mebibytes} MiB: {other:?}"),
        }
        bench.assert_contained("dictionary", accepted);
    }
}

/// The header of the first block behind the 12 bytes of the stream's: its size, flags, one
/// filter (LZMA2, one byte of properties), padding, CRC-32. No size is known, so the index
/// does not change.
fn with_dictionary(stream: &[u8], mebibytes: u32) -> Vec<u8> {
    let mut data = stream.to_vec();
    assert_eq!(data[12..16], [2, 0, 0x21, 1], "the header is as it was");
    let exponent = mebibytes.ilog2() * 2 + 16;
    let odd = mebibytes.count_ones() - 1;
    data[16] = u8::try_from(exponent + odd).unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(&data[12..20]);
    data[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    data
}

fn refused(case: &str, data: &[u8], media_type: MediaType) -> UnpackError {
    let bench = Bench::new();
    let error = bench.unpack(data, media_type, 1, &Limits::default()).expect_err(case);
    assert!(matches!(error, UnpackError::Damaged(_)), "{case}: {error:?}");
    bench.assert_contained(case, false);
    error
}
