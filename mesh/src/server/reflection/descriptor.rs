//! The parts of a file descriptor that reflection needs. Options and comments are skipped while decoding; the encoded file is
//! served.

use std::collections::BTreeSet;

/// `google.protobuf.FileDescriptorProto`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FileDescriptor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) package: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) dependencies: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<MessageDescriptor>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<EnumDescriptor>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<ServiceDescriptor>,
    #[prost(message, repeated, tag = "7")]
    extensions: Vec<FieldDescriptor>,
}

/// `google.protobuf.DescriptorProto`
#[derive(Clone, PartialEq, prost::Message)]
struct MessageDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<MessageDescriptor>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<EnumDescriptor>,
    #[prost(message, repeated, tag = "6")]
    extensions: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "8")]
    oneofs: Vec<NamedDescriptor>,
}

/// `google.protobuf.FieldDescriptorProto`
#[derive(Clone, PartialEq, prost::Message)]
struct FieldDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    /// The message that an extension extends, with a dot in front.
    #[prost(string, tag = "2")]
    extendee: String,
    #[prost(int32, tag = "3")]
    number: i32,
}

/// `google.protobuf.EnumDescriptorProto`
#[derive(Clone, PartialEq, prost::Message)]
struct EnumDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<NamedDescriptor>,
}

/// `google.protobuf.ServiceDescriptorProto`
#[derive(Clone, PartialEq, prost::Message)]
struct ServiceDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<NamedDescriptor>,
}

/// A descriptor of which only the name is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct NamedDescriptor {
    #[prost(string, tag = "1")]
    name: String,
}

/// The kind of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymbolKind {
    Message,
    Other,
}

/// An extension: the full name of the message that it extends, and its number.
pub(super) type Extension = (String, i32);

impl FileDescriptor {
    /// The kind of the symbol with this full name, if the file declares it.
    pub(super) fn kind_of(&self, symbol: &str) -> Option<SymbolKind> {
        let path = match self.package.as_str() {
            "" => symbol,
            package => symbol.strip_prefix(package)?.strip_prefix('.')?,
        };
        let path: Vec<&str> = path.split('.').collect();
        let is_service = match path[..] {
            [service] => self.services.iter().any(|declared| declared.name == service),
            [service, method] => {
                let mut services = self.services.iter().filter(|declared| declared.name == service);
                services.any(|declared| has_name(&declared.methods, method))
            }
            _ => false,
        };
        if is_service {
            return Some(SymbolKind::Other);
        }
        kind_in(&path, &self.messages, &self.enums, &self.extensions)
    }

    /// The extensions declared in the file, including those in messages.
    pub(super) fn extensions(&self) -> BTreeSet<Extension> {
        let mut found = BTreeSet::new();
        let mut add = |extensions: &[FieldDescriptor]| {
            let full = |field: &FieldDescriptor| (field.extendee.trim_start_matches('.').to_owned(), field.number);
            found.extend(extensions.iter().map(full));
        };
        add(&self.extensions);
        let mut messages: Vec<&MessageDescriptor> = self.messages.iter().collect();
        while let Some(message) = messages.pop() {
            add(&message.extensions);
            messages.extend(&message.messages);
        }
        found
    }
}

fn kind_in(
    path: &[&str],
    messages: &[MessageDescriptor],
    enums: &[EnumDescriptor],
    extensions: &[FieldDescriptor],
) -> Option<SymbolKind> {
    let (&name, rest) = path.split_first()?;
    if let Some(message) = messages.iter().find(|message| message.name == name) {
        return message.kind_of(rest);
    }
    // Enum values are siblings of their enum, as in C++.
    let is_of_enum = |declared: &EnumDescriptor| declared.name == name || has_name(&declared.values, name);
    let is_declared = enums.iter().any(is_of_enum) || extensions.iter().any(|field| field.name == name);
    (rest.is_empty() && is_declared).then_some(SymbolKind::Other)
}

impl MessageDescriptor {
    fn kind_of(&self, path: &[&str]) -> Option<SymbolKind> {
        match path {
            [] => Some(SymbolKind::Message),
            [name] if self.fields.iter().any(|field| field.name == *name) || has_name(&self.oneofs, name) => {
                Some(SymbolKind::Other)
            }
            path => kind_in(path, &self.messages, &self.enums, &self.extensions),
        }
    }
}

fn has_name(declared: &[NamedDescriptor], name: &str) -> bool {
    declared.iter().any(|declared| declared.name == name)
}
