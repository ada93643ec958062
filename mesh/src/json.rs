//! Strict JSON, on top of any serde deserializer: refuses duplicate members and deep nesting, and tracks the position of an
//! error.
//!
//! Parsers differ in which of two equal members they use (RFC 8259, section 4), so that two readers of one document could
//! act on different values. A [`Schema`] decides which names are equal: without one, each name is its own member.

use std::{borrow::Cow, collections::HashSet, fmt, hash::Hash};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

/// The type of a JSON value, as far as it decides which names in an object denote the same member. The default is a value
/// in which each name denotes its own member.
pub trait Schema: Clone + Default {
    /// Equal for names of the same member.
    type Key<'de>: Eq + Hash;

    /// The type of a list's items.
    #[must_use]
    fn item(&self) -> Self;

    /// The member that a name of this object denotes, and the type of its value.
    fn member<'de>(&self, name: Cow<'de, str>) -> (Self::Key<'de>, Self);
}

/// No schema: each name denotes its own member.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untyped;

impl Schema for Untyped {
    type Key<'de> = Cow<'de, str>;

    fn item(&self) -> Self {
        Self
    }

    fn member<'de>(&self, name: Cow<'de, str>) -> (Cow<'de, str>, Self) {
        (name, Self)
    }
}

/// The position in a document, and why reading stopped there.
#[derive(Debug)]
pub struct Track<'de> {
    /// The steps to an error, innermost first: they are added while the error is returned.
    steps: Vec<PathStep>,
    /// The member whose value is still to be read.
    member: Option<Cow<'de, str>>,
    is_duplicate: bool,
    /// The number of open lists and objects.
    depth: usize,
    max_depth: usize,
}

/// A step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// Into the member of this name.
    Member(String),
    /// Into the item of this index.
    Item(usize),
}

impl Track<'_> {
    /// The start of a document whose lists and objects may nest `max_depth` levels.
    #[must_use]
    pub const fn new(max_depth: usize) -> Self {
        Self { steps: Vec::new(), member: None, is_duplicate: false, depth: 0, max_depth }
    }

    /// The steps to the error, outermost first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &PathStep> {
        self.steps.iter().rev()
    }

    /// Whether the error is a duplicate member.
    #[must_use]
    pub const fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }

    /// Whether the error is nesting beyond the limit.
    #[must_use]
    pub const fn is_too_deep(&self) -> bool {
        self.depth > self.max_depth
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.is_too_deep() { Err(E::custom("nested too deep")) } else { Ok(()) }
    }

    /// After an error the depth is kept for [`Self::is_too_deep`].
    fn leave<T, E>(&mut self, result: &Result<T, E>) {
        self.depth -= usize::from(result.is_ok());
    }
}

/// A strict deserializer around another. It wraps the visitors and seeds of the values inside as well.
#[derive(Debug)]
pub struct Strict<'t, 'de, D, S> {
    inner: D,
    schema: S,
    track: &'t mut Track<'de>,
}

impl<'t, 'de, D, S> Strict<'t, 'de, D, S> {
    /// Reads from `inner` a value of type `schema`.
    pub const fn new(inner: D, schema: S, track: &'t mut Track<'de>) -> Self {
        Self { inner, schema, track }
    }
}

impl<'de, D: Deserializer<'de>, S: Schema> Deserializer<'de> for Strict<'_, 'de, D, S> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Strict::new(visitor, self.schema, self.track))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Strict::new(visitor, self.schema, self.track))
    }

    // JSON is self-describing, so that the other hints are not needed. Derived enums and newtypes do need them: no
    // such type is read here.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

macro_rules! forward_visit {
    ($($name:ident($type:ty))+) => {
        $(fn $name<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$name(value)
        })+
    };
}

impl<'de, V: Visitor<'de>, S: Schema> Visitor<'de> for Strict<'_, 'de, V, S> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visit! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) }
    forward_visit! { visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict::new(inner, self.schema, self.track))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let track = self.track;
        track.enter()?;
        let result = self.inner.visit_seq(Items { inner, schema: self.schema.item(), next: 0, track });
        track.leave(&result);
        result
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let track = self.track;
        track.enter()?;
        let members = Members { inner, schema: self.schema, value: S::default(), seen: MemberSet::default(), track };
        let result = self.inner.visit_map(members);
        track.leave(&result);
        // An error that the visitor raises itself is about the member that it read last.
        if let (Err(_), Some(member)) = (&result, track.member.take())
            && track.steps.is_empty()
        {
            track.steps.push(PathStep::Member(member.into_owned()));
        }
        result
    }
}

struct Items<'t, 'de, A, S> {
    inner: A,
    /// The type of each item.
    schema: S,
    next: usize,
    track: &'t mut Track<'de>,
}

impl<'de, A: SeqAccess<'de>, S: Schema> SeqAccess<'de> for Items<'_, 'de, A, S> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let item = self.inner.next_element_seed(Strict::new(seed, self.schema.clone(), self.track));
        if item.is_err() {
            self.track.steps.push(PathStep::Item(self.next));
        }
        self.next += 1;
        item
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Members<'t, 'de, A, S: Schema> {
    inner: A,
    /// The type of the object.
    schema: S,
    /// The type of the value that follows.
    value: S,
    seen: MemberSet<S::Key<'de>>,
    track: &'t mut Track<'de>,
}

impl<'de, A: MapAccess<'de>, S: Schema> MapAccess<'de> for Members<'_, 'de, A, S> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.track.member = None;
        let Some(name) = self.inner.next_key_seed(Name)? else { return Ok(None) };
        self.track.member = Some(name.clone());
        let given = seed.deserialize(StrDeserializer::new(&name))?;
        let (key, value) = self.schema.member(name);
        self.value = value;
        if !self.seen.insert(key) {
            self.track.is_duplicate = true;
            return Err(A::Error::custom("is given twice"));
        }
        Ok(Some(given))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let member = self.track.member.take();
        let schema = std::mem::take(&mut self.value);
        let value = self.inner.next_value_seed(Strict::new(seed, schema, self.track));
        match (&value, member) {
            (Err(_), Some(member)) => self.track.steps.push(PathStep::Member(member.into_owned())),
            (_, member) => self.track.member = member,
        }
        value
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>, S: Schema> DeserializeSeed<'de> for Strict<'_, 'de, T, S> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        self.inner.deserialize(Strict::new(inner, self.schema, self.track))
    }
}

/// Reads a member's name without copying it where it holds no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The members of one object. Few are compared one by one; many are hashed, so that no document makes it quadratic.
struct MemberSet<K> {
    few: Vec<K>,
    many: HashSet<K>,
}

/// The number of members that are compared one by one.
const MAX_COMPARED: usize = 16;

impl<K> Default for MemberSet<K> {
    fn default() -> Self {
        Self { few: Vec::new(), many: HashSet::new() }
    }
}

impl<K: Eq + Hash> MemberSet<K> {
    /// Whether the member is new.
    fn insert(&mut self, member: K) -> bool {
        if self.many.is_empty() && self.few.len() < MAX_COMPARED {
            let is_new = !self.few.contains(&member);
            self.few.push(member);
            return is_new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(member)
    }
}
