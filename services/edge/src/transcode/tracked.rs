//! Reads JSON through serde and remembers where it is, so that an error can name its place. It refuses members that are
//! given twice in one object, in whichever spelling, of which readers would take different ones, and nesting that protobuf could not
//! carry.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor, value::StrDeserializer},
    forward_to_deserialize_any,
};

use crate::transcode::shape::{Seen, Shape};

/// How deep lists and objects may nest. Protobuf readers stop at 100 messages inside each other, and one level of JSON
/// is up to three of them (`google.protobuf.Struct`).
pub(crate) const MAX_DEPTH: usize = 32;

/// Where reading stopped.
#[derive(Debug, Default)]
pub(crate) struct Trail<'de> {
    /// The steps that an error has passed on its way out: the innermost first.
    steps: Vec<Step>,
    /// The member that is being looked at, until its value is.
    member: Option<Cow<'de, str>>,
    /// Whether the member had been there before.
    is_duplicate: bool,
    /// How many lists and objects are open.
    depth: usize,
}

/// A step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into the member of this name.
    Member(String),
    /// Into the item of this number.
    Item(usize),
}

impl Trail<'_> {
    /// The steps to where the error was, outermost first.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter().rev()
    }

    /// Whether the error is a member that is given twice.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.is_duplicate
    }

    /// Whether the error is nesting that goes too deep.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.depth > MAX_DEPTH
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.is_too_deep() { Err(E::custom("nested too deep")) } else { Ok(()) }
    }

    /// After an error the depth stays as it was.
    fn leave<T, E>(&mut self, result: &Result<T, E>) {
        self.depth -= usize::from(result.is_ok());
    }
}

/// A deserializer that leaves a trail.
pub(crate) struct Tracked<'t, 'de, D> {
    inner: D,
    /// What the value stands for.
    shape: Shape,
    trail: &'t mut Trail<'de>,
}

impl<'t, 'de, D> Tracked<'t, 'de, D> {
    pub(crate) fn new(inner: D, shape: Shape, trail: &'t mut Trail<'de>) -> Self {
        Self { inner, shape, trail }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tracked<'_, 'de, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Tracked::new(visitor, self.shape, self.trail))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Tracked::new(visitor, self.shape, self.trail))
    }

    // JSON says by itself what it holds, so that the other hints change nothing.
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

impl<'de, V: Visitor<'de>> Visitor<'de> for Tracked<'_, 'de, V> {
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
        self.inner.visit_some(Tracked::new(inner, self.shape, self.trail))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let trail = self.trail;
        trail.enter()?;
        let result = self.inner.visit_seq(Items { inner, shape: self.shape.item(), next: 0, trail });
        trail.leave(&result);
        result
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let trail = self.trail;
        trail.enter()?;
        let members = Members { inner, shape: self.shape, value: Shape::Free, seen: Seen::default(), trail };
        let result = self.inner.visit_map(members);
        trail.leave(&result);
        // An error of the visitor's own is about the member that it looked at last.
        if let (Err(_), Some(member)) = (&result, trail.member.take())
            && trail.steps.is_empty()
        {
            trail.steps.push(Step::Member(member.into_owned()));
        }
        result
    }
}

struct Items<'t, 'de, A> {
    inner: A,
    /// What each item stands for.
    shape: Shape,
    next: usize,
    trail: &'t mut Trail<'de>,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, 'de, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let item = self.inner.next_element_seed(Tracked::new(seed, self.shape.clone(), self.trail));
        if item.is_err() {
            self.trail.steps.push(Step::Item(self.next));
        }
        self.next += 1;
        item
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Members<'t, 'de, A> {
    inner: A,
    /// What the object stands for.
    shape: Shape,
    /// What the value of the member that is being looked at stands for.
    value: Shape,
    seen: Seen<'de>,
    trail: &'t mut Trail<'de>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.trail.member = None;
        let Some(key) = self.inner.next_key_seed(Key)? else { return Ok(None) };
        self.trail.member = Some(key.clone());
        let asked = seed.deserialize(StrDeserializer::new(&key))?;
        let (identity, value) = self.shape.member(key);
        self.value = value;
        if !self.seen.insert(identity) {
            self.trail.is_duplicate = true;
            return Err(A::Error::custom("is given twice"));
        }
        Ok(Some(asked))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let member = self.trail.member.take();
        let shape = std::mem::replace(&mut self.value, Shape::Free);
        let value = self.inner.next_value_seed(Tracked::new(seed, shape, self.trail));
        match (&value, member) {
            (Err(_), Some(member)) => self.trail.steps.push(Step::Member(member.into_owned())),
            (_, member) => self.trail.member = member,
        }
        value
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Tracked<'_, 'de, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Tracked::new(inner, self.shape, self.trail))
    }
}

/// Reads a member's name without copying it where it holds no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
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
