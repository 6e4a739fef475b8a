//! Buffers of the worker: a connection borrows them while it reads or writes, and holds none while it is idle.

use std::cell::{Cell, RefCell};

thread_local! {
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static WRITE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer that reads go into.
pub(super) fn with_read<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buf = READ.take();
    buf.resize(READ_SIZE, 0);
    let result = read(&mut buf);
    READ.set(buf);
    result
}

/// An empty buffer to write from.
pub(super) fn take_write() -> Vec<u8> {
    let spare = WRITE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(WRITE_SIZE))
}

/// Gives it back.
pub(super) fn give_write(mut buf: Vec<u8>) {
    if buf.capacity() == 0 || buf.capacity() > MAX_SPARE_SIZE {
        return;
    }
    buf.clear();
    // A worker that ends has no more use for it.
    let _ = WRITE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(buf);
        }
    });
}

const READ_SIZE: usize = 32 * 1024;
const WRITE_SIZE: usize = 2 * 1024;
const MAX_SPARE: usize = 32;
const MAX_SPARE_SIZE: usize = 32 * 1024;
