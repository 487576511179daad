//! The few names that a pickle of data needs, and what this crate does in their place.
//!
//! Nothing is ever looked up or called: a name that is not in this file ends the decode.

use crate::data::Data;
use crate::dict::Dict;
use crate::error::{Error, Result};
use crate::numpy;
use crate::value::{Arena, Id, Node};

/// A name that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    Encode,
    Bytes,
    ByteArray,
    Set,
    FrozenSet,
    OrderedDict,
    DefaultDict,
    /// A type that only serves as the factory of a `defaultdict`, where it is ignored.
    Factory(&'static str),
    NdArray,
    DType,
    Reconstruct,
    FromBuffer,
    Scalar,
}

/// No function here takes more arguments, no state has more fields.
const MAX_ARGS: usize = 16;

impl Global {
    /// The name that `module` and `name` stand for, in Python 2 and 3, in numpy 1 and 2.
    pub(crate) fn find(module: &[u8], name: &[u8]) -> Result<Self> {
        let global = match (module, name) {
            (b"_codecs", b"encode") => Self::Encode,
            (b"collections", b"OrderedDict") => Self::OrderedDict,
            (b"collections", b"defaultdict") => Self::DefaultDict,
            (b"builtins" | b"__builtin__", name) => match name {
                b"bytes" => Self::Bytes,
                b"bytearray" => Self::ByteArray,
                b"set" => Self::Set,
                b"frozenset" => Self::FrozenSet,
                b"list" => Self::Factory("list"),
                b"dict" => Self::Factory("dict"),
                b"int" => Self::Factory("int"),
                b"float" => Self::Factory("float"),
                b"str" => Self::Factory("str"),
                _ => return Err(Error::refused(module, name)),
            },
            (b"numpy", b"ndarray") => Self::NdArray,
            (b"numpy", b"dtype") => Self::DType,
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
                Self::Reconstruct
            }
            (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"scalar") => Self::Scalar,
            (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Self::FromBuffer,
            _ => return Err(Error::refused(module, name)),
        };
        Ok(global)
    }

    /// Its name, for messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Encode => "_codecs.encode",
            Self::Bytes => "bytes",
            Self::ByteArray => "bytearray",
            Self::Set => "set",
            Self::FrozenSet => "frozenset",
            Self::OrderedDict => "collections.OrderedDict",
            Self::DefaultDict => "collections.defaultdict",
            Self::Factory(name) => name,
            Self::NdArray => "numpy.ndarray",
            Self::DType => "numpy.dtype",
            Self::Reconstruct => "numpy.core.multiarray._reconstruct",
            Self::FromBuffer => "numpy.core.numeric._frombuffer",
            Self::Scalar => "numpy.core.multiarray.scalar",
        }
    }
}

/// The fields of a tuple of arguments or of a state.
pub(crate) fn fields(arena: &Arena, id: Id) -> Result<Vec<Id>> {
    match arena.node(id) {
        Node::Tuple(items) if items.len() <= MAX_ARGS => Ok(items.clone()),
        other => Err(Error::malformed(format!(
            "{} in place of a tuple of at most {MAX_ARGS} arguments",
            other.kind()
        ))),
    }
}

/// What the call of `callable` with the tuple `args` would have given.
pub(crate) fn reduce(arena: &mut Arena, callable: Id, args: Id) -> Result<Id> {
    let global = match arena.node(callable) {
        Node::Global(global) => *global,
        other => return Err(Error::malformed(format!("{} is called", other.kind()))),
    };
    let args = fields(arena, args)?;
    let node = match (global, args.as_slice()) {
        (Global::Encode | Global::ByteArray, &[text, encoding]) => latin1(arena, text, encoding)?,
        (Global::Bytes | Global::ByteArray, &[]) => Node::Bytes(Data::Inline([].into())),
        (Global::Bytes | Global::ByteArray, &[bytes]) => match arena.node(bytes) {
            Node::Bytes(data) => Node::Bytes(data.clone()),
            other => return Err(Error::malformed(format!("bytes made of {}", other.kind()))),
        },
        (Global::Set | Global::FrozenSet, args @ ([] | [_])) => {
            let set = arena.add(Node::Set(Box::default()));
            let items = copied(arena, args)?;
            arena.add_items(set, &items)?;
            return Ok(set);
        }
        (Global::OrderedDict, args @ ([] | [_])) => {
            let dict = arena.add(Node::Dict(Box::default()));
            for pair in copied(arena, args)? {
                let (Node::List(pair) | Node::Tuple(pair)) = arena.node(pair) else {
                    return Err(Error::malformed("an OrderedDict of something else than pairs"));
                };
                let &[key, value] = pair.as_slice() else {
                    return Err(Error::malformed("an OrderedDict of something else than pairs"));
                };
                arena.insert(dict, key, value)?;
            }
            return Ok(dict);
        }
        (Global::DefaultDict, [] | [_]) => {
            let plain = args.iter().all(|&factory| {
                matches!(
                    arena.node(factory),
                    Node::None | Node::Global(Global::Factory(_) | Global::Set)
                )
            });
            if !plain {
                return Err(Error::unsupported(
                    "refuses a defaultdict that would call its factory",
                ));
            }
            Node::Dict(Box::<Dict>::default())
        }
        (Global::DType, &[code, ..]) => numpy::dtype(arena, code)?,
        (Global::Reconstruct, &[class, shape, _]) => numpy::reconstruct(arena, class, shape)?,
        (Global::FromBuffer, &[data, dtype, shape, order]) => {
            numpy::from_buffer(arena, data, dtype, shape, order, None)?
        }
        (Global::FromBuffer, &[data, dtype, shape, order, axes]) => {
            numpy::from_buffer(arena, data, dtype, shape, order, Some(axes))?
        }
        (Global::Scalar, &[dtype, bytes]) => numpy::scalar(arena, dtype, bytes)?,
        (global, args) => {
            let (name, n) = (global.name(), args.len());
            return Err(Error::unsupported(format!(
                "refuses {name} with {n} arguments, which no plain data is written as"
            )));
        }
    };
    Ok(arena.add(node))
}

/// Sets the state of an array or a dtype, the only things here that have one.
pub(crate) fn build(arena: &mut Arena, target: Id, state: Id) -> Result<()> {
    let node = match arena.node(target) {
        Node::DType(dtype) => numpy::dtype_state(arena, *dtype, state)?,
        Node::Array(_) => numpy::array_state(arena, state)?,
        other => {
            let kind = other.kind();
            return Err(Error::unsupported(format!("refuses to set attributes of {kind}")));
        }
    };
    *arena.node_mut(target) = node;
    Ok(())
}

/// The items of the list that is the only argument, if there is one.
fn copied(arena: &mut Arena, args: &[Id]) -> Result<Vec<Id>> {
    let Some(&arg) = args.first() else { return Ok(Vec::new()) };
    let n = arena.node(arg).n_children();
    arena.spend(n)?;
    match arena.node(arg) {
        Node::List(items) | Node::Tuple(items) => Ok(items.clone()),
        other => Err(Error::malformed(format!("items of {}, which is no list", other.kind()))),
    }
}

/// Bytes that Python 3 wrote as text, because protocols 0 to 2 have no bytes.
fn latin1(arena: &mut Arena, text: Id, encoding: Id) -> Result<Node> {
    match arena.text(encoding).as_deref() {
        Some("latin1" | "latin-1") => {}
        _ => return Err(Error::unsupported("bytes written in another encoding than latin1")),
    }
    let data = match arena.node(text) {
        Node::Str(data) => data.clone(),
        other => return Err(Error::malformed(format!("bytes written as {}", other.kind()))),
    };
    Ok(Node::Bytes(data.latin1(|n| arena.spend_bytes(n))?))
}
