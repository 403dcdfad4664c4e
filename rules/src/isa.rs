//! The operations of a compiled condition.
//!
//! A condition is a straight line of operations on a stack of [`Value`](crate::Value)s that leaves one
//! boolean. The only jumps go forward, so every condition ends. The table at the end is the one
//! definition: encoding, decoding, verification and disassembly all follow from it.

use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};

/// Index of a constant in its ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ConstantId(pub u32);
/// Index of an attribute in its ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AttributeId(pub u16);
/// Index of a list constant in its ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListId(pub u32);
/// Number of operations to skip after this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Skip(pub u16);

/// The types that an operand may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Any type.
    Any,
    /// `bool`.
    Bool,
    /// `int`, `uint` and `double`.
    Number,
    /// `int` and `uint`.
    Integer,
    /// `int` and `double`.
    Signed,
    /// `string`.
    String,
}

/// The type of what an operation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yields {
    /// The operands' type.
    Same,
    /// `bool`.
    Bool,
    /// `int`.
    Int,
}

/// What an operation does to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Pushes a constant.
    Constant(ConstantId),
    /// Pushes an attribute's value, or the error that it has none.
    Attribute(AttributeId),
    /// Pushes whether the request carries an attribute. Never an error.
    Presence(AttributeId),
    /// Pops one operand of the class and pushes the result.
    Unary(Class, Yields),
    /// Pops two operands of one type in the class and pushes the result.
    Binary(Class, Yields),
    /// Pops a value and pushes whether the list has it.
    Member(ListId),
    /// Pops two values of one type and, below them, a boolean; pushes the one that the boolean chooses.
    Select,
    /// Looks at the boolean on top, leaves it, and may jump.
    Branch(Skip),
}

macro_rules! isa {
    ($( $(#[doc = $doc:literal])+ $opcode:literal $name:ident $( ($operand:ident) )? = $mnemonic:literal, $effect:expr; )+) => {
        /// One operation. Encoded as its opcode, one byte, and its operand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op { $( $(#[doc = $doc])+ $name $( ($operand) )?, )+ }

        impl Op {
            /// The name that the disassembler prints.
            #[must_use]
            pub fn mnemonic(self) -> &'static str {
                match self { $( isa!(@pattern $name $($operand)?) => $mnemonic, )+ }
            }

            /// What the operation does to the stack.
            #[must_use]
            pub fn effect(self) -> Effect {
                match self { $( isa!(@bind $name operand $($operand)?) => isa!(@effect $effect, operand $(, $operand)?), )+ }
            }
        }

        impl Encode for Op {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                match *self {
                    $( isa!(@bind $name operand $($operand)?) => {
                        u8::encode(&$opcode, encoder)?;
                        $( $operand::encode(&operand, encoder)?; )?
                    } )+
                }
                Ok(())
            }
        }

        impl<Context> Decode<Context> for Op {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                match u8::decode(decoder)? {
                    $( $opcode => Ok(isa!(@make decoder $name $($operand)?)), )+
                    _ => Err(DecodeError::Other("unknown operation")),
                }
            }
        }

        bincode::impl_borrow_decode!(Op);
    };
    (@pattern $name:ident) => { Op::$name };
    (@pattern $name:ident $operand:ident) => { Op::$name(_) };
    (@bind $name:ident $binding:ident) => { Op::$name };
    (@bind $name:ident $binding:ident $operand:ident) => { Op::$name($binding) };
    (@make $decoder:ident $name:ident) => { Op::$name };
    (@make $decoder:ident $name:ident $operand:ident) => { Op::$name($operand::decode($decoder)?) };
    (@effect $effect:expr, $binding:ident) => { $effect };
    (@effect $effect:expr, $binding:ident, $operand:ident) => { $effect($binding) };
}

isa! {
    /// The value of a constant.
    0x01 Constant(ConstantId) = "const", Effect::Constant;
    /// The value of an attribute.
    0x02 Load(AttributeId) = "load", Effect::Attribute;
    /// Whether the request carries an attribute.
    0x03 Has(AttributeId) = "has", Effect::Presence;
    /// Equality; on doubles by IEEE 754.
    0x04 Equal = "eq", Effect::Binary(Class::Any, Yields::Bool);
    /// Inequality.
    0x05 NotEqual = "ne", Effect::Binary(Class::Any, Yields::Bool);
    /// Less; strings by code point, `false` before `true`.
    0x06 Less = "lt", Effect::Binary(Class::Any, Yields::Bool);
    /// Less or equal.
    0x07 LessEqual = "le", Effect::Binary(Class::Any, Yields::Bool);
    /// Greater.
    0x08 Greater = "gt", Effect::Binary(Class::Any, Yields::Bool);
    /// Greater or equal.
    0x09 GreaterEqual = "ge", Effect::Binary(Class::Any, Yields::Bool);
    /// Sum; an integer that leaves its range is an error.
    0x0a Add = "add", Effect::Binary(Class::Number, Yields::Same);
    /// Difference.
    0x0b Subtract = "sub", Effect::Binary(Class::Number, Yields::Same);
    /// Product.
    0x0c Multiply = "mul", Effect::Binary(Class::Number, Yields::Same);
    /// Quotient; integers truncate towards zero.
    0x0d Divide = "div", Effect::Binary(Class::Number, Yields::Same);
    /// Remainder with the sign of the dividend.
    0x0e Remainder = "rem", Effect::Binary(Class::Integer, Yields::Same);
    /// Arithmetic negation.
    0x0f Negate = "neg", Effect::Unary(Class::Signed, Yields::Same);
    /// Logical negation.
    0x10 Not = "not", Effect::Unary(Class::Bool, Yields::Same);
    /// Conjunction of two evaluated operands; false wins over an error.
    0x11 And = "and", Effect::Binary(Class::Bool, Yields::Same);
    /// Disjunction of two evaluated operands; true wins over an error.
    0x12 Or = "or", Effect::Binary(Class::Bool, Yields::Same);
    /// Jumps when the top is exactly false. Stands before the right operand of `&&`.
    0x13 SkipIfFalse(Skip) = "skip.false", Effect::Branch;
    /// Jumps when the top is exactly true. Stands before the right operand of `||`.
    0x14 SkipIfTrue(Skip) = "skip.true", Effect::Branch;
    /// `c ? x : y` of three evaluated operands; an error in the operand that is not chosen is dropped.
    0x15 Select = "select", Effect::Select;
    /// Membership in a list constant.
    0x16 In(ListId) = "in", Effect::Member;
    /// Whether the lower string starts with the upper one.
    0x17 StartsWith = "starts_with", Effect::Binary(Class::String, Yields::Bool);
    /// Whether the lower string ends with the upper one.
    0x18 EndsWith = "ends_with", Effect::Binary(Class::String, Yields::Bool);
    /// Whether the lower string contains the upper one.
    0x19 Contains = "contains", Effect::Binary(Class::String, Yields::Bool);
    /// Number of code points.
    0x1a Size = "size", Effect::Unary(Class::String, Yields::Int);
}
