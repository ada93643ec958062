//! The binary fuse filter of T. M. Graf and D. Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters" (ACM
//! Journal of Experimental Algorithmics 27, 2022; <https://arxiv.org/abs/2201.01174>), with three 16-bit fingerprints a
//! key.
//!
//! A key is in the set if its fingerprint is the XOR of the three values at its positions. The positions are in three
//! consecutive segments of the table. All keys of the set match; of other keys, one in 65,536.

/// The maximum segment length, as in the paper.
const MAX_SEGMENT_LENGTH: u32 = 1 << 18;

/// More segments than any filter of [`MAX_KEYS`] has.
const MAX_SEGMENT_COUNT: u32 = 1 << 12;

/// The number of keys that the sizes are meant for. More need more memory while the filter is built.
pub(super) const MAX_KEYS: usize = 1 << 22;

/// Each attempt succeeds with a probability of more than one half.
const MAX_ATTEMPTS: u64 = 100;

/// The dimensions of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// The length of a segment, a power of two.
    pub segment_length: u32,
    /// The number of segments in which a key's first position can be. The table has two more.
    pub segment_count: u32,
}

impl Geometry {
    /// The dimensions for this many keys, at most [`MAX_KEYS`], by the formulas of the paper (section 4).
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "MAX_KEYS bounds every value")]
    #[expect(clippy::cast_precision_loss, reason = "MAX_KEYS is exact")]
    pub(super) fn for_keys(count: usize) -> Self {
        let count = count.clamp(2, MAX_KEYS) as f64;
        let segment_length = 1 << ((count.ln() / 3.33_f64.ln() + 2.25) as u32);
        let segment_length = u32::min(segment_length, MAX_SEGMENT_LENGTH);
        let size_factor = f64::max(1.125, 0.875 + 0.25 * 1_000_000_f64.ln() / count.ln());
        let segments = ((count * size_factor) as u32).div_ceil(segment_length);
        Self { segment_length, segment_count: segments.saturating_sub(2).max(1) }
    }

    /// Whether the values can be of a filter that [`construct`] made.
    pub(super) fn is_valid(self) -> bool {
        self.segment_length.is_power_of_two()
            && self.segment_length <= MAX_SEGMENT_LENGTH
            && (1..=MAX_SEGMENT_COUNT).contains(&self.segment_count)
    }

    /// The number of fingerprints in the table. Fits, since [`is_valid`](Self::is_valid).
    pub(super) fn table_length(self) -> u32 {
        (self.segment_count + 2) * self.segment_length
    }

    /// The three positions of a hash, all different.
    pub(super) fn positions(self, hash: u64) -> [u32; 3] {
        let mask = u64::from(self.segment_length - 1);
        let range = u128::from(self.segment_count * self.segment_length);
        #[expect(clippy::cast_possible_truncation, reason = "less than the range")]
        let first = ((u128::from(hash) * range) >> 64) as u32;
        let second = (first + self.segment_length) ^ low_bits(hash >> 18, mask);
        let third = (first + 2 * self.segment_length) ^ low_bits(hash, mask);
        [first, second, third]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the mask is of a segment")]
fn low_bits(hash: u64, mask: u64) -> u32 {
    (hash & mask) as u32
}

/// The hash of a key. Different keys have different hashes: every step can be reversed. The finalizer of MurmurHash3.
pub(super) fn hash(key: u64, seed: u64) -> u64 {
    let mut hash = key.wrapping_add(seed);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The fingerprint of a hash.
#[expect(clippy::cast_possible_truncation, reason = "the low 16 bits")]
pub(super) fn fingerprint(hash: u64) -> u16 {
    (hash ^ (hash >> 32)) as u16
}

/// Constructs the table for keys without duplicates, and returns it with the seed of its hashes. The same keys give the
/// same table. `None` if there are more keys than the geometry is for.
///
/// Uses about 30 bytes a key.
pub(super) fn construct(keys: &[u64], geometry: Geometry) -> Option<(u64, Vec<u16>)> {
    (0..MAX_ATTEMPTS).map(|attempt| hash(attempt, 0x9e37_79b9_7f4a_7c15)).find_map(|seed| {
        let order = peel(keys, geometry, seed)?;
        Some((seed, assign(&order, geometry)))
    })
}

/// Orders the keys such that each has a position that no later key has: removes, again and again, a key that is alone at
/// one of its positions. `None` if keys remain.
fn peel(keys: &[u64], geometry: Geometry, seed: u64) -> Option<Vec<(u64, u32)>> {
    let length = geometry.table_length() as usize;
    let mut counts = vec![0_u32; length];
    // The XOR of the hashes at a position: the hash itself where there is one.
    let mut hashes = vec![0_u64; length];
    for key in keys {
        let hash = hash(*key, seed);
        for position in geometry.positions(hash) {
            counts[position as usize] += 1;
            hashes[position as usize] ^= hash;
        }
    }
    let mut alone: Vec<u32> = (0..geometry.table_length()).filter(|index| counts[*index as usize] == 1).collect();
    let mut order = Vec::with_capacity(keys.len());
    while let Some(position) = alone.pop() {
        if counts[position as usize] != 1 {
            continue;
        }
        let hash = hashes[position as usize];
        order.push((hash, position));
        for other in geometry.positions(hash) {
            counts[other as usize] -= 1;
            hashes[other as usize] ^= hash;
            if counts[other as usize] == 1 {
                alone.push(other);
            }
        }
    }
    (order.len() == keys.len()).then_some(order)
}

/// Sets the free position of each key, the last key first.
fn assign(order: &[(u64, u32)], geometry: Geometry) -> Vec<u16> {
    let mut table = vec![0_u16; geometry.table_length() as usize];
    for (hash, free) in order.iter().rev() {
        // The free position still has zero.
        let others = geometry.positions(*hash).map(|position| table[position as usize]);
        table[*free as usize] = fingerprint(*hash) ^ others[0] ^ others[1] ^ others[2];
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(key: u64, seed: u64, geometry: Geometry, table: &[u16]) -> bool {
        let hash = hash(key, seed);
        geometry.positions(hash).iter().fold(fingerprint(hash), |xor, index| xor ^ table[*index as usize]) == 0
    }

    #[test]
    fn all_keys_match_and_few_others_for_every_size() {
        for count in (1..40_u64).chain([100, 1_000, 4_097, 30_000, 100_000]) {
            let keys: Vec<u64> = (0..count).map(|key| key * key + 7).collect();
            let geometry = Geometry::for_keys(keys.len());
            assert!(geometry.is_valid(), "{geometry:?}");
            let (seed, table) = construct(&keys, geometry).unwrap();
            assert!(keys.iter().all(|key| contains(*key, seed, geometry, &table)), "{count}");
            let others = (0..100_000).map(|key| key << 32 | 3);
            let false_positives = others.filter(|key| contains(*key, seed, geometry, &table)).count();
            assert!(false_positives < 10, "{count}: {false_positives}");
        }
    }

    #[test]
    fn the_largest_geometry_is_valid_and_uses_18_bits_a_key() {
        let geometry = Geometry::for_keys(MAX_KEYS);
        assert!(geometry.is_valid());
        let bits = 16.0 * f64::from(geometry.table_length()) / f64::from(1_u32 << 22);
        assert!(bits < 18.3, "{bits}");
        assert_eq!(Geometry::for_keys(usize::MAX), geometry);
    }

    #[test]
    fn too_many_keys_for_the_geometry_are_an_error() {
        let keys: Vec<u64> = (0..10_000).collect();
        assert_eq!(construct(&keys, Geometry::for_keys(100)), None);
    }
}
