//! Declaring bodies: a struct's fields in their order on the wire give its encoder and its decoder, so the two cannot
//! disagree; flags and enumerations in the same way.
//!
//! Not here: the bodies.

/// Declares a body or item: fields in their order on the wire, `=> zero N` for reserved bytes that follow a field.
macro_rules! layout {
    ($(#[$doc:meta])* pub struct $name:ident<$lt:lifetime> { $($(#[$fdoc:meta])* pub $field:ident: $type:ty $(=> zero $pad:literal)?;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name<$lt> { $($(#[$fdoc])* pub $field: $type,)* }

        impl<$lt> $crate::prim::Item<$lt> for $name<$lt> {
            $crate::prim::layout!(@body $lt, $($field: $type $(=> zero $pad)?;)*);
        }
        impl<$lt> $name<$lt> {
            $crate::prim::layout!(@inherent $lt);
        }
    };
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $type:ty $(=> zero $pad:literal)?;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

        impl<'w> $crate::prim::Item<'w> for $name {
            $crate::prim::layout!(@read 'w, $($field: $type $(=> zero $pad)?;)*);
            // At once: who appends field by field looks for room each time.
            #[inline]
            fn write(&self, to: &mut Vec<u8>) {
                let mut bytes = [0; <$name as $crate::prim::Item<'static>>::BYTES_MIN];
                $crate::prim::Fixed::put(self, &mut bytes);
                to.extend_from_slice(&bytes);
            }
        }
        impl $crate::prim::Fixed for $name {
            #[inline]
            fn put(&self, _to: &mut [u8]) {
                let _at = 0;
                $(
                    let _end = _at + <$type as $crate::prim::Item<'static>>::BYTES_MIN;
                    $crate::prim::Fixed::put(&self.$field, &mut _to[_at.._end]);
                    let _at = _end $(+ $pad)?;
                )*
            }
        }
        impl $name {
            $crate::prim::layout!(@inherent '_);
        }
    };
    (@body $lt:lifetime, $($field:ident: $type:ty $(=> zero $pad:literal)?;)*) => {
        $crate::prim::layout!(@read $lt, $($field: $type $(=> zero $pad)?;)*);
        #[inline]
        fn write(&self, _to: &mut Vec<u8>) {
            $(
                $crate::prim::Item::write(&self.$field, _to);
                $($crate::prim::Item::write(&$crate::prim::Zero::<$pad>, _to);)?
            )*
        }
    };
    (@read $lt:lifetime, $($field:ident: $type:ty $(=> zero $pad:literal)?;)*) => {
        const BYTES_MIN: usize = 0 $(+ <$type as $crate::prim::Item<$lt>>::BYTES_MIN $(+ $pad)?)*;
        #[inline]
        fn read(_from: &mut $crate::prim::Reader<$lt>) -> Result<Self, $crate::prim::DecodeError> {
            $(
                let $field = <$type as $crate::prim::Item<$lt>>::read(_from)?;
                $(<$crate::prim::Zero<$pad> as $crate::prim::Item<$lt>>::read(_from)?;)?
            )*
            Ok(Self { $($field,)* })
        }
    };
    (@inherent $lt:lifetime) => {
        /// Appends the body.
        pub fn encode(&self, out: &mut Vec<u8>) {
            $crate::prim::Item::write(self, out);
        }
        /// Reads and validates a body; refuses trailing bytes.
        pub fn decode(meta: &$lt [u8]) -> Result<Self, $crate::prim::DecodeError> {
            let mut from = $crate::prim::Reader::new(meta);
            let body = <Self as $crate::prim::Item<'_>>::read(&mut from)?;
            from.finish()?;
            Ok(body)
        }
    };
}
pub(crate) use layout;

/// Declares flags in a small number: known bits by name, unknown ones refused with `unknown_flag`.
macro_rules! flags {
    ($(#[$doc:meta])* pub struct $name:ident($type:ident, $what:literal) { $($(#[$bdoc:meta])* $bit:ident = $value:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name(pub $type);

        impl $name {
            $($(#[$bdoc])* pub const $bit: $name = $name($value);)*
            /// All bits that have a meaning.
            pub const KNOWN: $type = 0 $(| $value)*;
            /// Whether all bits of `other` are set.
            pub const fn has(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }
            /// These bits and those of `other`.
            pub const fn with(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl<'w> $crate::prim::Item<'w> for $name {
            const BYTES_MIN: usize = std::mem::size_of::<$type>();
            #[inline]
            fn read(from: &mut $crate::prim::Reader<'w>) -> Result<$name, $crate::prim::DecodeError> {
                let bits = <$type as $crate::prim::Item<'w>>::read(from)?;
                if bits & !$name::KNOWN != 0 {
                    return Err($crate::prim::DecodeError::UnknownValue {
                        what: $what,
                        value: bits as u64,
                        code: $crate::error::ErrorCode::UnknownFlag,
                    });
                }
                Ok($name(bits))
            }
            #[inline]
            fn write(&self, to: &mut Vec<u8>) {
                $crate::prim::Item::write(&self.0, to);
            }
        }
        impl $crate::prim::Fixed for $name {
            #[inline]
            fn put(&self, to: &mut [u8]) {
                $crate::prim::Fixed::put(&self.0, to);
            }
        }
    };
}
pub(crate) use flags;

/// Declares an enumeration of one byte: numbers and names that users see; a number that is not listed is refused as malformed.
macro_rules! choices {
    ($(#[$doc:meta])* pub enum $name:ident($what:literal) { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            /// Every one, in order of number.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name that users see.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The one with this number.
            pub const fn from_u8(number: u8) -> Option<$name> {
                match number { $($number => Some($name::$variant),)* _ => None }
            }
        }

        impl<'w> $crate::prim::Item<'w> for $name {
            const BYTES_MIN: usize = 1;
            #[inline]
            fn read(from: &mut $crate::prim::Reader<'w>) -> Result<$name, $crate::prim::DecodeError> {
                let number = from.u8()?;
                $name::from_u8(number).ok_or($crate::prim::DecodeError::UnknownValue {
                    what: $what,
                    value: number as u64,
                    code: $crate::error::ErrorCode::Malformed,
                })
            }
            #[inline]
            fn write(&self, to: &mut Vec<u8>) {
                to.push(*self as u8);
            }
        }
        $crate::prim::fixed!($name, |it| [*it as u8]);
    };
}
pub(crate) use choices;

/// An item of always the same size, by the bytes it is written as.
macro_rules! fixed {
    ($name:ty, |$it:ident| $bytes:expr) => {
        impl $crate::prim::Fixed for $name {
            #[inline]
            fn put(&self, to: &mut [u8]) {
                let $it = self;
                to.copy_from_slice(&$bytes);
            }
        }
    };
}
pub(crate) use fixed;
