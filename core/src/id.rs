//! Names of the things a machine holds, and the table that holds them.
//!
//! An id is a slot and a generation: looking something up is an index and a comparison, and an id never comes back,
//! because a slot's generation grows each time it is given out. Tables are walked by slot, which is deterministic.

use std::fmt;

/// One byte stream: generation (32 bits) | slot (31 bits) | parity (1 bit).
///
/// Odd: accepted by the shell, which gives out the id. Even: opened by the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One question put to somebody outside the machine: generation (32 bits) | slot (32 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// One request and its answer, or one opaque connection: generation (32 bits) | slot (32 bits). Never leaves the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

impl LinkId {
    /// The id that a shell gives to an accepted stream.
    pub fn accepted(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot) << 1 | 1)
    }

    /// The id that a machine gives to a stream that it opens.
    pub fn opened(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot) << 1)
    }

    pub fn is_accepted(self) -> bool {
        self.0 & 1 == 1
    }

    pub fn slot(self) -> u32 {
        (self.0 as u32) >> 1
    }

    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_accepted() { 'd' } else { 'u' };
        write!(f, "{side}{}.{}", self.slot(), self.generation())
    }
}

impl fmt::Debug for AskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "?{}.{}", self.0 as u32, self.0 >> 32)
    }
}

impl fmt::Debug for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "x{}.{}", self.0 as u32, self.0 >> 32)
    }
}

/// What a [`Table`] is keyed by.
pub trait Key: Copy {
    fn new(slot: u32, generation: u32) -> Self;
    fn slot(self) -> u32;
    fn generation(self) -> u32;
}

impl Key for ExchangeId {
    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }
    fn slot(self) -> u32 {
        self.0 as u32
    }
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl Key for AskId {
    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }
    fn slot(self) -> u32 {
        self.0 as u32
    }
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Keyed as the opener does: even ids.
impl Key for LinkId {
    fn new(slot: u32, generation: u32) -> Self {
        Self::opened(slot, generation)
    }
    fn slot(self) -> u32 {
        Self::slot(self)
    }
    fn generation(self) -> u32 {
        Self::generation(self)
    }
}

/// A slab: values in slots, each slot with the generation of the id that owns it.
///
/// `insert` gives out ids itself (lowest free slot that was freed last); `insert_at` takes an id from a shell. One table
/// uses one of the two.
#[derive(Debug)]
pub struct Table<K, V> {
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    len: usize,
    key: std::marker::PhantomData<K>,
}

#[derive(Debug)]
struct Slot<V> {
    generation: u32,
    value: Option<V>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
            key: std::marker::PhantomData,
        }
    }
}

impl<K: Key, V> Table<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores `value` under a fresh id. Panics after 2^31 slots, which no limit of ours allows.
    pub fn insert(&mut self, value: V) -> K {
        self.len += 1;
        if let Some(slot) = self.free.pop()
            && let Some(entry) = self.slots.get_mut(slot as usize)
        {
            entry.value = Some(value);
            return K::new(slot, entry.generation);
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^31 entries");
        self.slots.push(Slot {
            generation: 1,
            value: Some(value),
        });
        K::new(slot, 1)
    }

    /// Stores `value` under an id from outside. `false` if the slot is taken, or the generation is not a newer one.
    pub fn insert_at(&mut self, key: K, value: V) -> bool {
        let slot = key.slot() as usize;
        while self.slots.len() <= slot {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
        }
        let Some(entry) = self.slots.get_mut(slot) else {
            return false;
        };
        if entry.value.is_some() || key.generation() <= entry.generation {
            return false;
        }
        entry.generation = key.generation();
        entry.value = Some(value);
        self.len += 1;
        true
    }

    pub fn get(&self, key: K) -> Option<&V> {
        let entry = self.slots.get(key.slot() as usize)?;
        if entry.generation == key.generation() {
            entry.value.as_ref()
        } else {
            None
        }
    }

    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let entry = self.slots.get_mut(key.slot() as usize)?;
        if entry.generation == key.generation() {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// Takes the value out and retires the id. For tables that give out ids.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let value = self.remove_at(key)?;
        let entry = self.slots.get_mut(key.slot() as usize)?;
        // A slot whose generation is used up is abandoned.
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            self.free.push(key.slot());
        }
        Some(value)
    }

    /// Takes the value out; the owner of the ids gives the slot out again with a newer generation.
    pub fn remove_at(&mut self, key: K) -> Option<V> {
        let entry = self.slots.get_mut(key.slot() as usize)?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        self.len -= 1;
        Some(value)
    }

    /// All entries by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, &V)> {
        self.slots
            .iter()
            .zip(0u32..)
            .filter_map(|(s, i)| s.value.as_ref().map(|v| (i, s.generation, v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_comes_back() {
        let mut table: Table<ExchangeId, u8> = Table::default();
        let first = table.insert(1);
        assert_eq!(table.remove(first), Some(1));
        let second = table.insert(2);

        assert_eq!(Key::slot(first), Key::slot(second));
        assert_ne!(first, second);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get(second), Some(&2));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn an_id_from_outside_must_be_newer_than_its_slot() {
        let mut table: Table<LinkId, u8> = Table::default();
        assert!(table.insert_at(LinkId::accepted(3, 7), 1));
        assert!(!table.insert_at(LinkId::accepted(3, 8), 2), "taken");
        assert_eq!(table.remove_at(LinkId::accepted(3, 7)), Some(1));
        assert!(!table.insert_at(LinkId::accepted(3, 7), 2), "used before");
        assert!(table.insert_at(LinkId::accepted(3, 8), 2));
    }

    #[test]
    fn parity_tells_who_opened_a_link() {
        assert!(LinkId::accepted(5, 1).is_accepted());
        assert!(!LinkId::opened(5, 1).is_accepted());
        assert_eq!(
            format!("{:?} {:?}", LinkId::accepted(5, 1), LinkId::opened(6, 2)),
            "d5.1 u6.2"
        );
    }
}
