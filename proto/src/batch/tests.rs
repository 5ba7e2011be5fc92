use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::v1;

const CODECS: [v1::Codec; 3] = [v1::Codec::None, v1::Codec::Snappy, v1::Codec::Zstd];

fn meta(first_offset: u64, records: &RecordsBuilder, flags: Flags) -> BatchMeta {
    BatchMeta {
        stream_id: Bytes::from_static(b"0123456789abcdef"),
        first_offset,
        end_offset: first_offset + records.source_bytes(),
        observed_unix_nano: 1_000,
        flags,
    }
}

fn sealed(codec: v1::Codec, bodies: &[&[u8]]) -> v1::Batch {
    let mut records = RecordsBuilder::new();
    for body in bodies {
        records.push(body, u32::try_from(body.len()).expect("short") + 1);
    }
    let meta = meta(10, &records, Flags::NONE);
    Sealer::new(codec).expect("memory").seal(meta, &mut records).expect("seals")
}

fn open(batch: &v1::Batch) -> Result<OpenBatch, BatchFault> {
    Opener::new(Limits::default()).open(batch)
}

/// Mends the checksum, so that the check behind it is the one that speaks.
fn resealed(mut batch: v1::Batch, change: impl FnOnce(&mut v1::Batch)) -> v1::Batch {
    change(&mut batch);
    batch.crc32c = crc(&batch);
    batch
}

#[test]
fn records_come_back_from_every_codec_with_offsets_times_and_marks() {
    for codec in CODECS {
        let mut records = RecordsBuilder::new();
        records.push(b"first", 7); // with CRLF
        records.push(b"", 1);
        records.push_at(b"\xff\x00 bytes", 9, -5);
        let flags = Flags::LAST_PARTIAL.union(Flags::FIRST_CONTINUED);
        let meta = meta(100, &records, flags);
        let batch = Sealer::new(codec).expect("memory").seal(meta, &mut records).expect("seals");
        let opened = open(&batch).expect("opens");
        let read: Vec<_> = opened.records().collect();
        assert_eq!(opened.len(), 3);
        assert_eq!(read.iter().map(|r| r.body).collect::<Vec<_>>(), [b"first".as_slice(), b"", b"\xff\x00 bytes"]);
        assert_eq!(
            read.iter().map(|r| (r.offset, r.end_offset)).collect::<Vec<_>>(),
            [(100, 107), (107, 108), (108, 117)]
        );
        assert_eq!(read.iter().map(|r| r.observed_unix_nano).collect::<Vec<_>>(), [1000, 1000, 995]);
        assert_eq!(read.iter().map(|r| r.marks.continued).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(read.iter().map(|r| r.marks.partial).collect::<Vec<_>>(), [false, false, true]);
    }
}

#[test]
fn source_lengths_are_absent_where_each_is_a_line_with_its_lf() {
    let batch = sealed(v1::Codec::None, &[b"a", b"bc"]);
    let records = v1::Records::decode(batch.payload).expect("decodes");
    assert!(records.source_lengths.is_empty());
    assert_eq!(records.body_lengths, [1, 2]);
}

#[test]
fn a_sealed_builder_can_be_sealed_again_and_reused() {
    let mut records = RecordsBuilder::new();
    let mut sealer = Sealer::new(v1::Codec::Zstd).expect("memory");
    records.push(b"one", 4);
    let first = sealer.seal(meta(0, &records, Flags::NONE), &mut records).expect("seals");
    let second = sealer.seal(meta(0, &records, Flags::NONE), &mut records).expect("seals");
    assert_eq!(first, second);
    records.clear();
    records.push(b"two", 4);
    let third = sealer.seal(meta(4, &records, Flags::NONE), &mut records).expect("seals");
    assert_eq!(open(&third).expect("opens").bodies(), &Bytes::from_static(b"two"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    for codec in CODECS {
        let batch = sealed(codec, &[b"some text, some text", b"more"]);
        for bit in 0..batch.payload.len() * 8 {
            let mut payload = batch.payload.to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            let damaged = v1::Batch { payload: payload.into(), ..batch.clone() };
            assert!(matches!(check(&damaged, &Limits::default()), Err(BatchFault::Corrupt { .. })));
        }
    }
}

#[test]
fn every_field_of_the_header_is_under_the_checksum() {
    let batch = sealed(v1::Codec::None, &[b"some text"]);
    let changes: [fn(&mut v1::Batch); 7] = [
        |batch| batch.stream_id = Bytes::from_static(b"other"),
        |batch| batch.first_offset += 1,
        |batch| batch.end_offset += 1,
        |batch| batch.record_count += 1,
        |batch| batch.observed_time_unix_nano += 1,
        |batch| batch.flags ^= 4,
        |batch| batch.codec = v1::Codec::Snappy.into(),
    ];
    for change in changes {
        let mut damaged = batch.clone();
        change(&mut damaged);
        assert!(check(&damaged, &Limits::default()).is_err());
    }
    let mut sent_again = batch;
    sent_again.sequence = 99;
    assert_eq!(check(&sent_again, &Limits::default()), Ok(()));
}

#[test]
fn a_thousand_to_one_bomb_is_refused_before_memory_is_taken() {
    let zeros = vec![0; 64 << 20];
    let bombs = [
        (v1::Codec::Zstd, zstd::bulk::compress(&zeros, 1).expect("compresses")),
        (v1::Codec::Snappy, snap::raw::Encoder::new().compress_vec(&zeros).expect("compresses")),
    ];
    for (codec, payload) in bombs {
        let honest = resealed(sealed(v1::Codec::None, &[b"x"]), |batch| {
            batch.codec = codec.into();
            batch.payload = payload.clone().into();
            batch.uncompressed_size = 64 << 20;
        });
        assert!(matches!(
            check(&honest, &Limits { encoded_bytes_max: u32::MAX, ..Limits::default() }),
            Err(BatchFault::TooLarge { .. })
        ));
        let lying = resealed(honest, |batch| batch.uncompressed_size = 1000);
        assert!(matches!(
            check(&lying, &Limits { encoded_bytes_max: u32::MAX, ..Limits::default() }),
            Err(BatchFault::Corrupt { .. })
        ));
    }
}

#[test]
fn a_payload_that_inflates_to_more_than_its_own_header_says_is_refused() {
    let mut payload = snap::raw::Encoder::new().compress_vec(&[7; 5000]).expect("compresses");
    payload[0] = 100; // the preamble's varint 5000 = 0x88 0x27
    payload.remove(1);
    let batch = resealed(sealed(v1::Codec::None, &[b"x"]), |batch| {
        batch.codec = v1::Codec::Snappy.into();
        batch.payload = payload.into();
        batch.uncompressed_size = 100;
    });
    assert!(matches!(open(&batch), Err(BatchFault::Corrupt { .. })));
}

#[test]
fn counts_and_sums_that_do_not_fit_are_refused() {
    let cases: [fn(&mut v1::Records, &mut v1::Batch); 6] = [
        |records, _| records.body_lengths.push(0),
        |records, _| records.body_lengths[0] += 1,
        |records, _| records.source_lengths = vec![3],
        |records, _| records.source_lengths = vec![0, 7],
        |_, batch| batch.end_offset += 1,
        |records, _| records.observed_time_deltas_nano = vec![1, 2, 3],
    ];
    for (place, change) in cases.into_iter().enumerate() {
        let batch = sealed(v1::Codec::None, &[b"ab", b"cd"]);
        let mut records = v1::Records::decode(batch.payload.clone()).expect("decodes");
        let mut batch = batch;
        change(&mut records, &mut batch);
        let batch = resealed(batch, |batch| {
            batch.payload = records.encode_to_vec().into();
            batch.uncompressed_size = u32::try_from(batch.payload.len()).expect("short");
        });
        assert!(matches!(open(&batch), Err(BatchFault::Corrupt { .. })), "case {place}");
    }
}

#[test]
fn impossible_headers_are_refused() {
    let cases: [fn(&mut v1::Batch); 6] = [
        |batch| batch.record_count = 0,
        |batch| batch.end_offset = batch.first_offset,
        |batch| batch.end_offset = 0,
        |batch| batch.stream_id = Bytes::new(),
        |batch| batch.stream_id = vec![1; 65].into(),
        |batch| batch.codec = 77,
    ];
    for change in cases {
        let batch = resealed(sealed(v1::Codec::None, &[b"x"]), change);
        assert!(matches!(check(&batch, &Limits::default()), Err(BatchFault::Corrupt { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_come_back(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..50),
                             extra in 1_u32..4, codec in 0_usize..3) {
        let mut records = RecordsBuilder::new();
        for body in &bodies {
            records.push(body, u32::try_from(body.len()).expect("short") + extra);
        }
        let meta = meta(5, &records, Flags::NONE);
        let batch = Sealer::new(CODECS[codec]).expect("memory").seal(meta, &mut records).expect("seals");
        let opened = open(&batch).expect("opens");
        let read: Vec<_> = opened.records().map(|record| record.body.to_vec()).collect();
        prop_assert_eq!(read, bodies);
    }

    #[test]
    fn arbitrary_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..300), codec in 0_i32..5, size in 0_u32..400) {
        let batch = resealed(sealed(v1::Codec::None, &[b"x"]), |batch| {
            batch.payload = payload.into();
            batch.codec = codec;
            batch.uncompressed_size = size;
        });
        let _ = open(&batch);
    }
}
