//! Bodies of bulk requests, written straight into bytes: an action line, then the document as it is.

use std::{io::Write as _, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::{super::Mode, fit};
use crate::document::Document;

/// Bytes of an action line beside the index's name.
const ACTION: usize = br#"{"create":{"_index":"","_id":"0123456789abcdef0123456789abcdef"}}"#.len() + 1;

/// Where a document goes and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'d> {
    pub(super) document: &'d Document,
    pub(super) mode: Mode,
}

/// Bytes that a document takes in a body, uncompressed.
pub(super) fn size_of(document: &Document) -> usize {
    ACTION + document.index.len() + document.body.len() + 1
}

/// Why a document cannot stand in a bulk body at all: it would be read as something else, and take its neighbours along.
pub(super) fn fault_of(document: &Document) -> Option<&'static str> {
    if document.body.is_empty() {
        Some("the document is empty")
    } else if memchr::memchr2(b'\n', b'\r', &document.body).is_some() {
        Some("the document holds a line break between its fields")
    } else {
        None
    }
}

/// Writes a body.
#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    /// The beginning of an action line, up to the id, for this index and mode.
    action: Vec<u8>,
    index: Option<(Arc<str>, Mode)>,
    target: Target,
    fit: bool,
}

/// Which index a document goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The one that the document names.
    Daily,
    /// The data stream of the document's tenant; only `create` is allowed there.
    DataStream,
}

impl Target {
    /// How documents are written there, whatever was asked for.
    pub(super) fn mode(self, mode: Mode) -> Mode {
        match self {
            Self::Daily => mode,
            Self::DataStream => Mode::Create,
        }
    }

    /// The name as Elasticsearch knows it.
    pub(super) fn name(self, index: &str) -> String {
        match self {
            Self::Daily => index.to_owned(),
            Self::DataStream => {
                // `-YYYY.MM.DD` goes: a data stream rolls over by itself.
                let name = index.len().checked_sub(11).and_then(|end| index.get(..end)).unwrap_or(index);
                format!("logs-{name}")
            }
        }
    }
}

impl Writer {
    /// `fit`: documents are made to fit OpenSearch.
    pub(super) fn new(target: Target, fit: bool, bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), action: Vec::new(), index: None, target, fit }
    }

    pub(super) fn push(&mut self, entry: Entry<'_>) {
        let Entry { document, mode } = entry;
        let same = |(index, known): &(Arc<str>, Mode)| {
            *known == mode && (Arc::ptr_eq(index, &document.index) || **index == *document.index)
        };
        if !self.index.as_ref().is_some_and(same) {
            self.begin(&document.index, mode);
        }
        self.out.extend_from_slice(&self.action);
        self.out.extend_from_slice(&document.id.hex());
        self.out.extend_from_slice(b"\"}}\n");
        match self.fit.then(|| fit::fit(&document.body)).flatten() {
            Some(body) => self.out.extend_from_slice(&body),
            None => self.out.extend_from_slice(&document.body),
        }
        self.out.push(b'\n');
    }

    fn begin(&mut self, index: &Arc<str>, mode: Mode) {
        let operation = match self.target.mode(mode) {
            Mode::Create => "create",
            Mode::Index => "index",
        };
        let name = serde_json::Value::from(self.target.name(index));
        self.action = format!("{{\"{operation}\":{{\"_index\":{name},\"_id\":\"").into_bytes();
        self.index = Some((Arc::clone(index), mode));
    }

    pub(super) fn finish(self) -> Bytes {
        self.out.into()
    }
}

/// The body with gzip, at the level that costs least.
pub(super) fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::index::contract;

    fn written(target: Target, entries: &[(Document, Mode)]) -> String {
        let mut writer = Writer::new(target, false, 0);
        for (document, mode) in entries {
            writer.push(Entry { document, mode: *mode });
        }
        String::from_utf8(writer.finish().to_vec()).expect("text")
    }

    #[test]
    fn each_document_has_its_action_line_and_stands_as_it_is() {
        let documents = contract::stream_of(1, &["one", "two"]);
        let mut other = documents[1].clone();
        other.index = "logmesh-acme-2026.11.24".into();
        let body = written(
            Target::Daily,
            &[(documents[0].clone(), Mode::Create), (documents[1].clone(), Mode::Create), (other, Mode::Index)],
        );
        let line = |index: &str, operation: &str, at: usize| {
            let id = String::from_utf8(documents[at].id.hex().to_vec()).expect("hex");
            let body = String::from_utf8(documents[at].body.to_vec()).expect("text");
            format!("{{\"{operation}\":{{\"_index\":\"{index}\",\"_id\":\"{id}\"}}}}\n{body}\n")
        };
        let day = "logmesh-default-2026.11.23";
        let expected =
            [line(day, "create", 0), line(day, "create", 1), line("logmesh-acme-2026.11.24", "index", 1)].concat();
        assert_eq!(body, expected);
    }

    #[test]
    fn a_data_stream_only_knows_create_and_no_day() {
        let document = contract::document(1, 0, "one");
        let body = written(Target::DataStream, &[(document, Mode::Index)]);
        assert!(body.starts_with(r#"{"create":{"_index":"logs-logmesh-default","_id":""#), "{body}");
    }

    #[test]
    fn the_foretold_size_is_the_written_size() {
        let document = contract::document(1, 7, "one");
        let body = written(Target::Daily, &[(document.clone(), Mode::Create)]);
        assert_eq!(body.len(), size_of(&document));
    }

    #[test]
    fn what_would_break_the_framing_is_known() {
        let mut document = contract::document(1, 0, "one");
        assert_eq!(fault_of(&document), None);
        document.body = Bytes::from_static(b"{\n}");
        assert!(fault_of(&document).is_some());
        document.body = Bytes::new();
        assert!(fault_of(&document).is_some());
    }

    #[test]
    fn gzip_keeps_the_body() {
        let body = b"{\"a\":1}\n".repeat(1000);
        let packed = gzip(&body).expect("memory does not fail");
        assert!(packed.len() < body.len() / 10);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, body);
    }
}
