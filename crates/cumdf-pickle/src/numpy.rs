//! How numpy writes arrays, scalars and dtypes; see `array_reduce` and `arraydescr_reduce` there.

use crate::array::{MAX_AXES, Payload, Stored, checked_len};
use crate::data::Data;
use crate::dtype::{DType, Kind};
use crate::element;
use crate::error::{Error, Result};
use crate::globals::{Global, fields};
use crate::value::{Arena, Id, Node};

/// `numpy.dtype(code, ..)`
pub(crate) fn dtype(arena: &Arena, code: Id) -> Result<Node> {
    match arena.text(code) {
        Some(code) => Ok(Node::DType(DType::parse(&code)?)),
        None => {
            let kind = arena.node(code).kind();
            Err(Error::malformed(format!("a dtype named by {kind}")))
        }
    }
}

/// `(version, byte order, subarray, names, fields, element size, ..)`, set on a new dtype.
pub(crate) fn dtype_state(arena: &Arena, dtype: DType, state: Id) -> Result<Node> {
    let state = fields(arena, state)?;
    let &[_version, order, subarray, names, members, size, ..] = state.as_slice() else {
        return Err(Error::malformed(format!("a dtype state of {} fields", state.len())));
    };
    if [subarray, names, members].iter().any(|&id| !matches!(arena.node(id), Node::None)) {
        return Err(Error::unsupported(
            "refuses a structured dtype; save each of its fields as an array of its own",
        ));
    }
    let mut dtype = match arena.text(order).as_deref().map(|order| order.as_bytes()) {
        Some(&[order]) => dtype.with_order(char::from(order))?,
        _ => return Err(Error::malformed("a dtype without a byte order")),
    };
    let size = arena.int(size).ok_or_else(|| Error::malformed("a dtype without a size"))?;
    match (dtype.kind, usize::try_from(size)) {
        _ if size == -1 => {} // fixed by the kind
        (Kind::Bytes, Ok(size)) => dtype.size = size,
        (Kind::Text, Ok(size)) if size.is_multiple_of(4) => dtype.size = size,
        (Kind::Object, _) => {}
        (_, Ok(size)) if size == dtype.size => {}
        _ => return Err(Error::malformed(format!("a {dtype} of {size} bytes"))),
    }
    Ok(Node::DType(dtype))
}

/// `_reconstruct(numpy.ndarray, (0,), b'b')`: an empty array, to be filled by its state.
pub(crate) fn reconstruct(arena: &Arena, class: Id, shape: Id) -> Result<Node> {
    if !matches!(arena.node(class), Node::Global(Global::NdArray)) {
        let kind = arena.node(class).kind();
        return Err(Error::unsupported(format!("refuses an array that is {kind}, not ndarray")));
    }
    let shape = sizes(arena, shape)?;
    if checked_len(&shape)? != 0 {
        return Err(Error::malformed("an array of values that are nowhere"));
    }
    let dtype = DType { kind: Kind::Int, size: 1, big_endian: false };
    let axes = (0..shape.len()).collect();
    let payload = Payload::Bytes(Data::Inline([].into()));
    Ok(Node::Array(Box::new(Stored { dtype, shape, axes, payload })))
}

/// `(version, shape, dtype, fortran, content)`, where the first pickles had no version.
pub(crate) fn array_state(arena: &mut Arena, state: Id) -> Result<Node> {
    let state = fields(arena, state)?;
    let (&[_, shape, dtype, fortran, content] | &[shape, dtype, fortran, content]) =
        state.as_slice()
    else {
        return Err(Error::malformed(format!("an array state of {} fields", state.len())));
    };
    let dtype = as_dtype(arena, dtype)?;
    let shape = sizes(arena, shape)?;
    let fortran = arena.int(fortran).ok_or_else(|| Error::malformed("an array of no order"))? != 0;
    if dtype.kind == Kind::Object {
        let axes = (0..shape.len()).collect(); // numpy lists objects in C order either way
        return objects(arena, dtype, shape, axes, content);
    }
    let axes = if fortran { (0..shape.len()).rev().collect() } else { (0..shape.len()).collect() };
    bytes(arena, dtype, shape, axes, content)
}

/// `_frombuffer(content, dtype, shape, order)`, from protocol 5 on; numpy 2.3 adds axes.
pub(crate) fn from_buffer(
    arena: &Arena,
    content: Id,
    dtype: Id,
    shape: Id,
    order: Id,
    permuted: Option<Id>,
) -> Result<Node> {
    let dtype = as_dtype(arena, dtype)?;
    let shape = sizes(arena, shape)?;
    let n_axes = shape.len();
    let permuted = permuted.filter(|&id| !matches!(arena.node(id), Node::None));
    let (shape, axes) = match (arena.text(order).as_deref(), permuted) {
        (Some("C"), _) => (shape, (0..n_axes).collect()),
        (Some("F"), _) => (shape, (0..n_axes).rev().collect()),
        (Some("K"), Some(permuted)) => {
            // `shape` is of the memory, and axis `i` of the array is axis `order[i]` of it.
            let order = sizes(arena, permuted)?;
            let place = |axis| order.iter().position(|&stored| stored == axis);
            let axes: Option<Vec<usize>> = (0..n_axes).map(place).collect();
            match axes {
                Some(axes) if order.len() == n_axes => {
                    (order.iter().map(|&axis| shape[axis]).collect(), axes)
                }
                _ => return Err(Error::malformed("an array whose axes are no permutation")),
            }
        }
        _ => return Err(Error::unsupported("an array of another order than C and F")),
    };
    if dtype.kind == Kind::Object {
        return Err(Error::malformed("an array of objects in a buffer"));
    }
    bytes(arena, dtype, shape, axes, content)
}

/// `scalar(dtype, bytes)`, decoded to a plain value.
pub(crate) fn scalar(arena: &mut Arena, dtype: Id, content: Id) -> Result<Node> {
    let dtype = as_dtype(arena, dtype)?;
    let Node::Bytes(Data::Inline(bytes)) = arena.node(content) else {
        let kind = arena.node(content).kind();
        return Err(Error::unsupported(format!("a {dtype} scalar made of {kind}")));
    };
    if bytes.len() != dtype.size {
        let n = bytes.len();
        return Err(Error::malformed(format!("a {dtype} scalar of {n} bytes")));
    }
    let bytes = bytes.clone();
    Ok(match dtype.kind {
        Kind::Bool => Node::Bool(element::int(dtype, &bytes) != 0),
        Kind::Int | Kind::Uint => Node::Int(element::int(dtype, &bytes)),
        Kind::Float => Node::Float(element::float(dtype, &bytes)),
        Kind::Bytes | Kind::Text => {
            arena.spend_bytes(bytes.len())?;
            match dtype.kind {
                Kind::Text => Node::Str(inline(element::text(dtype, &bytes)?.as_bytes())),
                _ => Node::Bytes(inline(element::stripped(&bytes))),
            }
        }
        Kind::Object => return Err(Error::unsupported("a scalar that is an object")),
    })
}

fn inline(bytes: &[u8]) -> Data {
    Data::Inline(bytes.into())
}

fn as_dtype(arena: &Arena, id: Id) -> Result<DType> {
    match arena.node(id) {
        Node::DType(dtype) => Ok(*dtype),
        other => Err(Error::malformed(format!("{} in place of a dtype", other.kind()))),
    }
}

/// A shape: a tuple of sizes, or one size.
fn sizes(arena: &Arena, id: Id) -> Result<Vec<usize>> {
    let size = |id| {
        let size = arena.int(id).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| Error::malformed("a shape of something else than sizes"))
    };
    match arena.node(id) {
        Node::Tuple(items) | Node::List(items) if items.len() <= MAX_AXES => {
            items.iter().map(|&id| size(id)).collect()
        }
        Node::Int(_) => Ok(vec![size(id)?]),
        other => Err(Error::malformed(format!("a shape that is {}", other.kind()))),
    }
}

/// An array of `content`, which is exactly as long as the shape wants.
fn bytes(
    arena: &Arena,
    dtype: DType,
    shape: Vec<usize>,
    axes: Vec<usize>,
    content: Id,
) -> Result<Node> {
    let n = checked_len(&shape)?;
    if dtype.size == 0 && n > 0 {
        return Err(Error::malformed(format!("{n} elements of no bytes")));
    }
    let Node::Bytes(data) = arena.node(content) else {
        let kind = arena.node(content).kind();
        return Err(Error::malformed(format!("a {dtype} array {shape:?} whose content is {kind}")));
    };
    match n.checked_mul(dtype.size) {
        Some(want) if data.may_be(want as u64) => {}
        _ => {
            let (found, size) = (data.stored_len(), dtype.size);
            return Err(Error::malformed(format!(
                "a {dtype} array {shape:?} needs {n} times {size} bytes, the pickle has {found}"
            )));
        }
    }
    let payload = Payload::Bytes(data.clone());
    Ok(Node::Array(Box::new(Stored { dtype, shape, axes, payload })))
}

/// An array of the objects in the list `content`.
fn objects(
    arena: &mut Arena,
    dtype: DType,
    shape: Vec<usize>,
    axes: Vec<usize>,
    content: Id,
) -> Result<Node> {
    let n = checked_len(&shape)?;
    let items = match arena.node(content) {
        Node::List(items) if items.len() == n => items.clone(),
        other => {
            let kind = other.kind();
            return Err(Error::malformed(format!("an object array {shape:?} made of {kind}")));
        }
    };
    arena.spend(n)?;
    let payload = Payload::Objects(items);
    Ok(Node::Array(Box::new(Stored { dtype, shape, axes, payload })))
}
