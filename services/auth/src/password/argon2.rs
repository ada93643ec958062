//! Computes Argon2 (RFC 9106), with memory that is kept between hashes.
//!
//! Two implementations can: `argon2-rust`, which uses AVX-512, AVX2 or NEON where the processor has them, and `argon2`, which is portable
//! and slower. The first computes, unless it differs from the second on this machine (`docs/decisions/0013`).

use std::sync::OnceLock;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use argon2_rust::params::{Memory, TagLen};

use super::{HashError, huge_pages};

/// What is computed.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) params: Params,
}

/// The memory of one thread.
#[derive(Default)]
pub(super) struct HashMemory {
    fast: Option<argon2_rust::Hasher>,
    portable: Vec<Block>,
}

impl HashMemory {
    /// Fills `output` with the hash of a password.
    pub(super) fn compute(
        &mut self,
        variant: &Variant,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), HashError> {
        if is_fast_one_right() {
            self.compute_fast(variant, password, salt, output)
        } else {
            self.compute_portably(variant, password, salt, output)
        }
    }

    /// Whether memory for the next hash is allocated.
    pub(super) fn is_held(&self) -> bool {
        self.fast.is_some() || !self.portable.is_empty()
    }

    /// Frees the memory, wiped.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    fn compute_fast(
        &mut self,
        variant: &Variant,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), HashError> {
        let fast = argon2_rust::Argon2::new(
            match variant.algorithm {
                Algorithm::Argon2d => argon2_rust::Algorithm::Argon2d,
                Algorithm::Argon2i => argon2_rust::Algorithm::Argon2i,
                Algorithm::Argon2id => argon2_rust::Algorithm::Argon2id,
            },
            match variant.version {
                Version::V0x10 => argon2_rust::Version::V0x10,
                Version::V0x13 => argon2_rust::Version::V0x13,
            },
            argon2_rust::Params::builder()
                .memory(Memory::kib(variant.params.m_cost().into()))
                .passes(variant.params.t_cost())
                .lanes(variant.params.p_cost())
                .threads(1)
                .tag_len(TagLen::bytes(output.len() as u64))
                .build()
                .map_err(HashError::FastArgon2)?,
        );
        let hasher = self.fast.get_or_insert_with(|| fast.hasher());
        hasher.set_argon2(fast);
        let is_allocated = hasher.reserved_blocks() >= variant.params.block_count();
        let mut compute = || hasher.hash_into(password, salt, output);
        let computed = if is_allocated { compute() } else { huge_pages::allocate(compute) };
        computed.map_err(HashError::FastArgon2)
    }

    fn compute_portably(
        &mut self,
        variant: &Variant,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), HashError> {
        let Variant { algorithm, version, params } = variant.clone();
        let blocks = params.block_count();
        if self.portable.len() < blocks {
            huge_pages::allocate(|| self.portable.resize(blocks, Block::new()));
        }
        let portable = Argon2::new(algorithm, version, params);
        let memory = self.portable.as_mut_slice();
        portable.hash_password_into_with_memory(password, salt, output, memory).map_err(HashError::Argon2)
    }
}

impl std::fmt::Debug for HashMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashMemory").field("is_held", &self.is_held()).finish_non_exhaustive()
    }
}

/// Whether both implementations compute the same on this machine, whose processor decides which code the fast one runs.
fn is_fast_one_right() -> bool {
    /// Found out once in a process: the processor does not change.
    static IS_RIGHT: OnceLock<bool> = OnceLock::new();

    *IS_RIGHT.get_or_init(|| {
        let is_right = agree().unwrap_or(false);
        if !is_right {
            tracing::error!(
                backend = ?argon2_rust::detected_backend(),
                "the fast implementation of Argon2 computes something else on this processor; the portable one is used"
            );
        }
        is_right
    })
}

/// Compares both for each algorithm, over several passes, with one lane and with two.
fn agree() -> Result<bool, HashError> {
    let mut memory = HashMemory::default();
    for algorithm in [Algorithm::Argon2d, Algorithm::Argon2i, Algorithm::Argon2id] {
        for lanes in [1, 2] {
            let params = Params::new(128, 3, lanes, None).map_err(|_| HashError::Cost)?;
            let variant = Variant { algorithm, version: Version::V0x13, params };
            let (mut fast, mut portable) = ([0; 32], [0; 32]);
            memory.compute_fast(&variant, b"a known password", b"a salt of sixteen", &mut fast)?;
            memory.compute_portably(&variant, b"a known password", b"a salt of sixteen", &mut portable)?;
            if fast != portable {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fast_implementation_is_right_here() {
        assert!(agree().unwrap() && is_fast_one_right());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Also with memory that a hash of another size has left.
        #[test]
        fn both_implementations_compute_the_same(
            hashes in proptest::collection::vec(
                (0..3_usize, any::<bool>(), 8..200_u32, 1..4_u32, 1..5_u32, 10..64_usize, any::<Vec<u8>>(), any::<[u8; 16]>()),
                1..4,
            )
        ) {
            let (mut fast_memory, mut portable_memory) = (HashMemory::default(), HashMemory::default());
            for (algorithm, is_old, memory, passes, lanes, length, password, salt) in hashes {
                let algorithm = [Algorithm::Argon2d, Algorithm::Argon2i, Algorithm::Argon2id][algorithm];
                let version = if is_old { Version::V0x10 } else { Version::V0x13 };
                let params = Params::new(memory.max(8 * lanes), passes, lanes, None).unwrap();
                let variant = Variant { algorithm, version, params };
                let (mut fast, mut portable) = (vec![0; length], vec![0; length]);
                fast_memory.compute_fast(&variant, &password, &salt, &mut fast).unwrap();
                portable_memory.compute_portably(&variant, &password, &salt, &mut portable).unwrap();
                prop_assert_eq!(fast, portable);
            }
        }
    }
}
