//! A response as bytes. Resources are encoded once, when they are made, and all proxies share those bytes; only
//! what is around them is made for each.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// The field of both forms' responses that holds the resources.
const RESOURCES: u32 = 2;

/// A protobuf message in pieces.
#[derive(Debug, Clone)]
pub(super) struct Encoded(Vec<Bytes>);

impl Encoded {
    /// A response that has no resources yet.
    pub(super) fn new(response: &impl Message) -> Self {
        Self(vec![response.encode_to_vec().into()])
    }

    /// Adds a resource: `own`, and then what is shared. In protobuf the order of fields does not matter.
    pub(super) fn add_resource(&mut self, own: &[u8], shared: Bytes) {
        let mut head = Vec::with_capacity(own.len() + 12);
        begin(RESOURCES, own.len() + shared.len(), &mut head);
        head.extend_from_slice(own);
        self.0.extend([head.into(), shared]);
    }
}

/// Writes what stands before a message of `length` bytes in the field `tag`.
pub(super) fn begin(tag: u32, length: usize, buffer: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

/// Requests of type `T` come in, encoded responses go out.
#[derive(Debug)]
pub(super) struct EncodedCodec<T>(PhantomData<T>);

impl<T> Default for EncodedCodec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for EncodedCodec<T> {
    type Encode = Encoded;
    type Decode = T;
    type Encoder = EncodedEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        EncodedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

/// Writes the pieces one after another.
#[derive(Debug)]
pub(super) struct EncodedEncoder;

impl Encoder for EncodedEncoder {
    type Item = Encoded;
    type Error = Status;

    fn encode(&mut self, item: Encoded, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.0.iter().map(Bytes::len).sum());
        for piece in item.0 {
            buffer.put(piece);
        }
        Ok(())
    }
}

#[cfg(test)]
impl Encoded {
    /// The message.
    pub(super) fn decode<T: Message + Default>(&self) -> T {
        T::decode(self.0.concat().as_slice()).unwrap()
    }

    /// Whether the pieces include these very bytes, not only equal ones.
    pub(super) fn shares(&self, bytes: &Bytes) -> bool {
        self.0.iter().any(|piece| std::ptr::eq(piece.as_ptr(), bytes.as_ptr()))
    }
}
