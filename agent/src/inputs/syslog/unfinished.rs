//! What connections keep of messages that have not ended: together no more than a part of the agent's memory, beside the
//! room of one read for each, so that many senders that stop within long messages cost little more than one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a connection may hold in any case, in bytes; nearly all messages are shorter.
const FREE_BYTES: usize = 4 * 1024;

/// The part of one connection.
#[derive(Debug)]
pub(super) struct Unfinished {
    room: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Unfinished {
    /// Nothing yet, of the room that all share.
    pub(super) fn new(room: Arc<Semaphore>) -> Self {
        Self { room, held: None }
    }

    /// Holds room for so many bytes instead of what was held before. Where there is none, it says `false` and holds what
    /// it held.
    pub(super) fn hold(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted <= held {
            drop(self.held.as_mut().and_then(|permit| permit.split(held - wanted)));
            return true;
        }
        let Ok(missing) = u32::try_from(wanted - held) else { return false };
        let Ok(more) = Arc::clone(&self.room).try_acquire_many_owned(missing) else { return false };
        match &mut self.held {
            Some(permit) => permit.merge(more),
            held @ None => *held = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_held_for_what_is_unfinished_now_and_given_back_with_the_connection() {
        let room = Arc::new(Semaphore::new(100));
        let mut connections = [0; 3].map(|_| Unfinished::new(Arc::clone(&room)));
        assert!(connections[0].hold(FREE_BYTES) && connections[1].hold(FREE_BYTES + 60));
        assert_eq!(room.available_permits(), 40);
        assert!(!connections[2].hold(FREE_BYTES + 41) && connections[2].hold(FREE_BYTES + 40));
        assert!(!connections[1].hold(FREE_BYTES + 61), "there is no more");
        assert!(connections[1].hold(1) && connections[2].hold(FREE_BYTES + 100));
        assert_eq!(room.available_permits(), 0);
        drop(connections);
        assert_eq!(room.available_permits(), 100);
    }
}
