//! Why nothing of a batch that arrived is handed out, as consumers and consumers of queues tell it.
//!
//! Not here: checking (`consumer::deliver`, `queue::entry`).

use tramline_wire::batch::BatchError;

use super::codec::CodecError;

/// See the module's page.
#[derive(Debug)]
pub(crate) enum BadBatch {
    Batch(BatchError),
    Codec(CodecError),
    OtherPartition {
        uid: u64,
    },
    /// One of the broker's own, where messages of users were asked for.
    Control,
}

impl From<BatchError> for BadBatch {
    fn from(error: BatchError) -> BadBatch {
        BadBatch::Batch(error)
    }
}

impl BadBatch {
    /// What goes behind the place at which it was found.
    pub(crate) fn message(&self) -> String {
        match self {
            BadBatch::Batch(error) => error.to_string(),
            BadBatch::Codec(error) => format!("its values cannot be decompressed: {error}"),
            BadBatch::OtherPartition { uid } => format!("the batch belongs to another partition (uid {uid})"),
            BadBatch::Control => "a control batch was delivered".to_string(),
        }
    }
}
