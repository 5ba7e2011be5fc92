//! Finds the documents that have a field: those whose shape names its path.
//!
//! A segment holds few shapes, one term each, so all of them are read.

use memchr::memmem::Finder;
use tantivy::{
    DocId, DocSet, Score, SegmentReader, TantivyError,
    query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight},
    schema::{Field, IndexRecordOption},
};

/// A query for documents that have any of some paths.
#[derive(Clone, Debug)]
pub(crate) struct HasPath {
    shape: Field,
    /// Each between line feeds, as in a shape.
    lines: Vec<Finder<'static>>,
}

impl HasPath {
    pub(crate) fn new<'a>(shape: Field, paths: impl IntoIterator<Item = &'a String>) -> Self {
        // A path with a line feed would read as several; no document is indexed under one.
        let paths = paths.into_iter().filter(|path| !path.contains('\n'));
        Self { shape, lines: paths.map(|path| Finder::new(&format!("\n{path}\n")).into_owned()).collect() }
    }
}

impl Query for HasPath {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for HasPath {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut documents = tantivy::BitSet::with_max_value(reader.max_doc());
        let inverted = reader.inverted_index(self.shape)?;
        let mut shapes = inverted.terms().stream()?;
        while shapes.advance() {
            if !self.lines.iter().any(|line| line.find(shapes.key()).is_some()) {
                continue;
            }
            let mut postings = inverted.read_block_postings_from_terminfo(shapes.value(), IndexRecordOption::Basic)?;
            while !postings.docs().is_empty() {
                for doc in postings.docs() {
                    documents.insert(*doc);
                }
                postings.advance();
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(documents), boost)))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        if self.scorer(reader, 1.0)?.seek(doc) == doc {
            return Ok(Explanation::new("the document has the field", 1.0));
        }
        Err(TantivyError::InvalidArgument(format!("document {doc} does not match")))
    }
}
