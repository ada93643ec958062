//! Sets of permissions as bits.

/// The number of a permission in [`Definitions`](super::Definitions).
pub(crate) type PermissionId = u16;

/// A set of permissions of one [`Definitions`](super::Definitions).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PermissionSet(Vec<u64>);

impl PermissionSet {
    /// An empty set that holds permissions up to this number without another allocation.
    pub(super) fn with_room_for(permissions: usize) -> Self {
        Self(vec![0; permissions.div_ceil(64)])
    }

    pub(crate) fn contains(&self, id: PermissionId) -> bool {
        self.0.get(usize::from(id / 64)).is_some_and(|word| word & bit(id) != 0)
    }

    pub(super) fn insert(&mut self, id: PermissionId) {
        let index = usize::from(id / 64);
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        if let Some(word) = self.0.get_mut(index) {
            *word |= bit(id);
        }
    }

    pub(super) fn remove(&mut self, id: PermissionId) {
        if let Some(word) = self.0.get_mut(usize::from(id / 64)) {
            *word &= !bit(id);
        }
    }

    pub(super) fn insert_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    /// The permissions of this set that `other` does not have.
    pub(crate) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PermissionId> + 'a {
        self.iter().filter(|id| !other.contains(*id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = PermissionId> + '_ {
        let words = self.0.iter().zip((0..).step_by(64));
        words.flat_map(|(word, first)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit))
    }
}

const fn bit(id: PermissionId) -> u64 {
    1 << (id % 64)
}
