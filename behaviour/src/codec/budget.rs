//! How much memory a decoded value may take.

use std::cell::Cell;

/// What a value may take in memory once it is decoded. The bytes are an estimate from above: what lists, maps, texts and
/// byte strings allocate. While a list grows it may take half as much again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Values in what is decoded without a type of its own (`serde_json::Value`, say), each list, map and key included.
    pub values: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Budget {
    /// What any message is decoded within: eight times the largest message of 16 MiB, and values of 32 bytes each.
    pub const DEFAULT: Self = Self { values: 4 << 20, bytes: 128 << 20 };

    /// The same in proportion, for a message that is larger than the largest usually is: whoever takes those has the room.
    #[must_use]
    pub fn of_message(size: usize) -> Self {
        Self { values: Self::DEFAULT.values.max(size / 4), bytes: Self::DEFAULT.bytes.max(size.saturating_mul(8)) }
    }
}

/// A value would take more than its budget has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("once decoded it takes more than its budget of {limit} {what}")]
pub struct Overspent {
    /// `values` or `bytes`.
    pub what: &'static str,
    /// How many there may be.
    pub limit: usize,
}

/// Counts what is decoded.
#[derive(Debug)]
pub struct Meter {
    budget: Budget,
    values: Cell<usize>,
    bytes: Cell<usize>,
    overspent: Cell<Option<Overspent>>,
}

impl Meter {
    /// Nothing is spent yet.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self { budget, values: Cell::new(0), bytes: Cell::new(0), overspent: Cell::new(None) }
    }

    /// Why decoding has failed, if it was this.
    #[must_use]
    pub fn overspent(&self) -> Option<Overspent> {
        self.overspent.get()
    }

    /// What was charged so far, in bytes.
    #[must_use]
    pub fn spent(&self) -> usize {
        self.bytes.get()
    }

    /// Charges a value without a type of its own, or the key of such a map.
    ///
    /// # Errors
    ///
    /// There are too many of them.
    pub fn value(&self) -> Result<(), Overspent> {
        self.charge(&self.values, 1, "values", self.budget.values)
    }

    /// Charges memory.
    ///
    /// # Errors
    ///
    /// It is too much.
    pub fn bytes(&self, bytes: usize) -> Result<(), Overspent> {
        self.charge(&self.bytes, bytes, "bytes", self.budget.bytes)
    }

    /// Charges a text or a byte string of so many bytes.
    ///
    /// # Errors
    ///
    /// It is too much.
    pub fn text(&self, length: usize) -> Result<(), Overspent> {
        self.bytes(if length == 0 { 0 } else { length.saturating_add(ALLOCATION) })
    }

    fn charge(&self, spent: &Cell<usize>, amount: usize, what: &'static str, limit: usize) -> Result<(), Overspent> {
        let sum = spent.get().saturating_add(amount);
        spent.set(sum);
        if sum <= limit {
            return Ok(());
        }
        let overspent = Overspent { what, limit };
        self.overspent.set(Some(overspent));
        Err(overspent)
    }
}

/// What an allocator keeps beside what it is asked for, and rounds up to.
const ALLOCATION: usize = 16;

/// A list that grows: its room is doubled when it is full.
#[derive(Debug, Default)]
pub struct List {
    count: usize,
    room: usize,
}

impl List {
    /// Charges one more element of so many bytes.
    ///
    /// # Errors
    ///
    /// It is too much.
    pub fn grow(&mut self, meter: &Meter, size: usize) -> Result<(), Overspent> {
        self.count += 1;
        if self.count <= self.room || size == 0 {
            return Ok(());
        }
        let (before, first) = (self.room, if size == 1 { 8 } else { FIRST_ROOM });
        self.room = (2 * self.room).max(first);
        let allocation = if before == 0 { ALLOCATION } else { 0 };
        meter.bytes((self.room - before).saturating_mul(size).saturating_add(allocation))
    }
}

/// A list with anything in it has room for so many.
const FIRST_ROOM: usize = 4;

/// A map that grows, as a B-tree: the largest of the usual ones. A hash table takes less.
#[derive(Debug, Default)]
pub struct Map {
    count: usize,
}

impl Map {
    /// Charges one more entry of so many bytes.
    ///
    /// # Errors
    ///
    /// It is too much.
    pub fn grow(&mut self, meter: &Meter, size: usize) -> Result<(), Overspent> {
        self.count += 1;
        let node = size.saturating_mul(NODE).saturating_add(ALLOCATION);
        match self.count {
            1 => meter.bytes(node),
            // Its second leaf, and the node above them.
            count if count == NODE + 1 => meter.bytes(node.saturating_mul(2).saturating_add(EDGES)),
            // Nodes may be half full; every sixth of them has one more above it.
            count if count > NODE && (count - NODE) % HALF_NODE == 1 => meter.bytes(node + node / HALF_NODE + EDGES),
            _ => Ok(()),
        }
    }
}

/// Entries that a node of a B-tree has room for, and at least has.
const NODE: usize = 11;
const HALF_NODE: usize = 5;

/// What a node takes for its children.
const EDGES: usize = (NODE + 1) * size_of::<usize>();
