//! The operations of a compiled condition.
//!
//! A condition is a straight line of operations on a stack of [`Value`](crate::Value)s that leaves one
//! boolean. The only jumps go forward, so every condition ends. The table at the end is the one
//! definition: encoding, decoding, verification and disassembly all follow from it and from the tables in
//! [`crate::operator`].

use crate::{
    operator::{Binary, Unary},
    value::{EvalError, Type},
};
use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};

macro_rules! ids {
    ($( $(#[doc = $doc:literal])+ $name:ident($ty:ty); )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
        pub struct $name(pub $ty);
    )+ };
}

ids! {
    /// Index of a constant in its ruleset.
    ConstantId(u32);
    /// Index of an attribute in its ruleset.
    AttributeId(u16);
    /// Index of a list constant in its ruleset.
    ListId(u32);
    /// Index of a map constant in its ruleset.
    MapId(u32);
    /// Index of a shared predicate in its ruleset.
    PredicateId(u16);
    /// Index of an automaton in its ruleset.
    AutomatonId(u16);
    /// Index of a network in its ruleset.
    NetworkId(u16);
    /// Number of buckets that units are spread over, 1 to 2³¹.
    Buckets(u32);
    /// Number of operations to skip after this one.
    Skip(u16);
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
    /// Pushes the time of the request.
    Now,
    /// Pops one operand and pushes the result.
    Unary(Unary),
    /// Pops two operands and pushes the result.
    Binary(Binary),
    /// Pops two booleans and pushes one.
    Logic,
    /// Pops a value and pushes whether the list has it.
    Member(ListId),
    /// Pops a key and pushes what the map has for it.
    Lookup(MapId),
    /// Pops a text and pushes whether the automaton finds something in it.
    Match(AutomatonId),
    /// Pops an address and pushes whether the network has it.
    Network(NetworkId),
    /// Pops a unit and pushes its bucket under a seed.
    Bucket(ConstantId, Buckets),
    /// Pops two values of one type and, below them, a boolean; pushes the one that the boolean chooses.
    Select,
    /// Looks at the boolean on top, leaves it, and may jump.
    Branch(Skip),
    /// Pushes how an attribute compares with a constant.
    Test(AttributeId, Binary, ConstantId),
    /// Pushes whether a list has an attribute.
    TestMember(AttributeId, ListId),
    /// Pushes what a shared predicate is.
    Predicate(PredicateId),
    /// Pushes an error where a value of the type is expected.
    Fail(Type, EvalError),
}

impl Effect {
    /// How many values the operation takes from the stack. It leaves one.
    #[must_use]
    pub fn operands(self) -> usize {
        match self {
            Self::Constant(_)
            | Self::Attribute(_)
            | Self::Presence(_)
            | Self::Now
            | Self::Test(..)
            | Self::TestMember(..)
            | Self::Predicate(_)
            | Self::Fail(..) => 0,
            Self::Unary(_)
            | Self::Member(_)
            | Self::Lookup(_)
            | Self::Match(_)
            | Self::Network(_)
            | Self::Bucket(..)
            | Self::Branch(_) => 1,
            Self::Binary(_) | Self::Logic => 2,
            Self::Select => 3,
        }
    }
}

macro_rules! isa {
    ($( $(#[doc = $doc:literal])+ $opcode:literal $name:ident $( ($($operand:ident $ty:ident),+) )? = $mnemonic:literal, $effect:expr; )+) => {
        /// One operation. Encoded as its opcode, one byte, and its operands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Op { $( $(#[doc = $doc])+ $name $( ($($ty),+) )?, )+ }

        impl Op {
            /// The name that the disassembler prints.
            #[must_use]
            pub fn mnemonic(self) -> &'static str {
                match self { $( isa!(@any $name $($($operand)+)?) => $mnemonic, )+ }
            }

            /// What the operation does to the stack.
            #[must_use]
            pub fn effect(self) -> Effect {
                match self { $( Op::$name $( ($($operand),+) )? => $effect, )+ }
            }
        }

        impl Encode for Op {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                match *self {
                    $( Op::$name $( ($($operand),+) )? => {
                        u8::encode(&$opcode, encoder)?;
                        $( $( $operand.encode(encoder)?; )+ )?
                    } )+
                }
                Ok(())
            }
        }

        impl<Context> Decode<Context> for Op {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                match u8::decode(decoder)? {
                    $( $opcode => Ok(Op::$name $( ($($ty::decode(decoder)?),+) )?), )+
                    _ => Err(DecodeError::Other("unknown operation")),
                }
            }
        }

        bincode::impl_borrow_decode!(Op);
    };
    (@any $name:ident) => { Op::$name };
    (@any $name:ident $($operand:ident)+) => { Op::$name(..) };
}

isa! {
    /// The value of a constant.
    0x01 Constant(id ConstantId) = "const", Effect::Constant(id);
    /// The value of an attribute.
    0x02 Load(id AttributeId) = "load", Effect::Attribute(id);
    /// Whether the request carries an attribute.
    0x03 Has(id AttributeId) = "has", Effect::Presence(id);
    /// The time of the request.
    0x04 Now = "now", Effect::Now;
    /// An operation on the top.
    0x05 Unary(op Unary) = "unary", Effect::Unary(op);
    /// An operation on the two upper values.
    0x06 Binary(op Binary) = "binary", Effect::Binary(op);
    /// Conjunction of two evaluated operands; false wins over an error.
    0x07 And = "and", Effect::Logic;
    /// Disjunction of two evaluated operands; true wins over an error.
    0x08 Or = "or", Effect::Logic;
    /// Jumps when the top is exactly false. Stands before the right operand of `&&`.
    0x09 SkipIfFalse(skip Skip) = "skip.false", Effect::Branch(skip);
    /// Jumps when the top is exactly true. Stands before the right operand of `||`.
    0x0a SkipIfTrue(skip Skip) = "skip.true", Effect::Branch(skip);
    /// `c ? x : y` of three evaluated operands; an error in the operand that is not chosen is dropped.
    0x0b Select = "select", Effect::Select;
    /// Membership in a list constant.
    0x0c In(id ListId) = "in", Effect::Member(id);
    /// What a map constant has for a key.
    0x0d Lookup(id MapId) = "lookup", Effect::Lookup(id);
    /// Whether a regular expression finds something in a text.
    0x0e Match(id AutomatonId) = "match", Effect::Match(id);
    /// Whether a network has an address.
    0x0f InNetwork(id NetworkId) = "in_network", Effect::Network(id);
    /// The bucket of a unit under a seed.
    0x10 Bucket(seed ConstantId, buckets Buckets) = "bucket", Effect::Bucket(seed, buckets);
    /// How an attribute compares with a constant: `Load`, `Constant` and `Binary` in one.
    0x11 Test(attribute AttributeId, op Binary, constant ConstantId) = "test", Effect::Test(attribute, op, constant);
    /// Whether a list constant has an attribute: `Load` and `In` in one.
    0x12 TestIn(attribute AttributeId, list ListId) = "test.in", Effect::TestMember(attribute, list);
    /// A predicate that several rules share; it is evaluated once per request.
    0x13 Predicate(id PredicateId) = "predicate", Effect::Predicate(id);
    /// What a constant expression is that has no value.
    0x14 Fail(ty Type, error EvalError) = "fail", Effect::Fail(ty, error);
}
