//! The machine that a pickle is a program for, less everything that would call something.

use std::io::{Read, Seek};

use crate::data::{Data, not_utf8};
use crate::error::{Error, Result};
use crate::globals::{self, Global};
use crate::limits::Limits;
use crate::opcode as op;
use crate::reader::Source;
use crate::stack::{Memo, Stack};
use crate::text;
use crate::value::{Arena, FALSE, Id, NONE, Node, TRUE};

/// Longest line that holds a number or a name.
const MAX_NAME: usize = 1 << 10;

/// Names are looked up from memory, so no limit may leave them in the file.
const MIN_INLINE: u64 = 64;

/// Longest integer decoded, in bytes.
const MAX_INT: usize = 16;

/// The state of a decode.
pub(crate) struct Machine<'l, R> {
    source: Source<R>,
    limits: &'l Limits,
    arena: Arena,
    stack: Stack,
    memo: Memo,
    protocol: u8,
}

/// What a decode leaves.
pub(crate) struct Decoded {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Id,
    pub(crate) protocol: u8,
    /// The offset after the last opcode.
    pub(crate) end: u64,
}

impl<'l, R: Read + Seek> Machine<'l, R> {
    pub(crate) fn new(reader: R, limits: &'l Limits) -> Result<Self> {
        Ok(Self {
            source: Source::new(reader)?,
            limits,
            arena: Arena::new(limits),
            stack: Stack::default(),
            memo: Memo::new(limits.max_memo),
            protocol: 0,
        })
    }

    /// Runs to the end of the pickle.
    pub(crate) fn run(mut self) -> Result<Decoded> {
        loop {
            let at = self.source.at();
            let code = self.source.byte()?;
            if code == op::STOP {
                let root = self.stack.pop().map_err(|err| err.or_at(at))?;
                let (nodes, protocol) = (self.arena.nodes, self.protocol);
                return Ok(Decoded { nodes, root, protocol, end: self.source.at() });
            }
            self.step(code).map_err(|err| err.or_at(at))?;
        }
    }

    fn step(&mut self, code: u8) -> Result<()> {
        match code {
            op::PROTO => {
                self.protocol = self.source.byte()?;
                if self.protocol > 5 {
                    let found = self.protocol;
                    let what = format!("protocol {found}, where 5 is the last one known");
                    return Err(Error::unsupported(what));
                }
                Ok(())
            }
            op::FRAME => self.source.array::<8>().map(|_| ()), // only a hint for buffering

            op::NONE => self.push(NONE),
            op::NEWTRUE => self.push(TRUE),
            op::NEWFALSE => self.push(FALSE),
            op::INT => match self.line(MAX_NAME)?.as_slice() {
                b"00" => self.push(FALSE),
                b"01" => self.push(TRUE),
                line => self.push_new(Node::Int(text::number(line)?)),
            },
            op::LONG => {
                let line = self.line(MAX_NAME)?;
                let digits = line.strip_suffix(b"L").unwrap_or(&line);
                self.push_new(Node::Int(text::number(digits)?))
            }
            op::BININT => {
                let value = i32::from_le_bytes(self.source.array()?);
                self.push_new(Node::Int(value.into()))
            }
            op::BININT1 => {
                let value = self.source.byte()?;
                self.push_new(Node::Int(value.into()))
            }
            op::BININT2 => {
                let value = u16::from_le_bytes(self.source.array()?);
                self.push_new(Node::Int(value.into()))
            }
            op::LONG1 => {
                let n = self.len1()?;
                self.long(n)
            }
            op::LONG4 => {
                let n = self.signed_len4()?;
                self.long(n)
            }
            op::FLOAT => {
                let line = self.line(MAX_NAME)?;
                self.push_new(Node::Float(text::number(&line)?))
            }
            op::BINFLOAT => {
                let value = f64::from_be_bytes(self.source.array()?);
                self.push_new(Node::Float(value))
            }

            op::STRING => {
                let line = self.text_line()?;
                self.push_new(Node::Bytes(Data::Inline(text::quoted(&line)?.into())))
            }
            op::UNICODE => {
                let line = self.text_line()?;
                let text = text::raw_unicode(&line)?;
                self.arena.spend_bytes(text.len().saturating_sub(line.len()))?;
                self.push_new(Node::Str(Data::Inline(text.into_bytes().into())))
            }
            op::SHORT_BINUNICODE | op::BINUNICODE | op::BINUNICODE8 => {
                let n = match code {
                    op::SHORT_BINUNICODE => self.len1()?,
                    op::BINUNICODE => self.len4()?,
                    _ => self.len8()?,
                };
                let data = self.payload(n)?;
                if data.inline().is_some_and(|text| std::str::from_utf8(text).is_err()) {
                    return Err(not_utf8());
                }
                self.push_new(Node::Str(data))
            }
            op::SHORT_BINSTRING | op::SHORT_BINBYTES => {
                let n = self.len1()?;
                self.bytes(n)
            }
            op::BINSTRING => {
                let n = self.signed_len4()?;
                self.bytes(n)
            }
            op::BINBYTES => {
                let n = self.len4()?;
                self.bytes(n)
            }
            op::BINBYTES8 | op::BYTEARRAY8 => {
                let n = self.len8()?;
                self.bytes(n)
            }

            op::EMPTY_LIST => self.push_new(Node::List(Vec::new())),
            op::EMPTY_TUPLE => self.push_new(Node::Tuple(Vec::new())),
            op::EMPTY_DICT => self.push_new(Node::Dict(Box::default())),
            op::EMPTY_SET => self.push_new(Node::Set(Box::default())),
            op::LIST => {
                let items = self.stack.pop_mark()?;
                self.push_new(Node::List(items))
            }
            op::TUPLE => {
                let items = self.stack.pop_mark()?;
                self.push_new(Node::Tuple(items))
            }
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => {
                let n = usize::from(code - op::TUPLE1) + 1;
                let items = self.stack.pop_n(n)?;
                self.push_new(Node::Tuple(items))
            }
            op::DICT => {
                let items = self.stack.pop_mark()?;
                self.push_new(Node::Dict(Box::default()))?;
                self.arena.set_items(self.stack.top()?, &items)
            }
            op::FROZENSET => {
                let items = self.stack.pop_mark()?;
                self.push_new(Node::Set(Box::default()))?;
                self.arena.add_items(self.stack.top()?, &items)
            }
            op::APPEND => {
                let item = self.stack.pop()?;
                self.arena.append(self.stack.top()?, &[item])
            }
            op::APPENDS => {
                let items = self.stack.pop_mark()?;
                self.arena.append(self.stack.top()?, &items)
            }
            op::SETITEM => {
                let value = self.stack.pop()?;
                let key = self.stack.pop()?;
                self.arena.set_items(self.stack.top()?, &[key, value])
            }
            op::SETITEMS => {
                let items = self.stack.pop_mark()?;
                self.arena.set_items(self.stack.top()?, &items)
            }
            op::ADDITEMS => {
                let items = self.stack.pop_mark()?;
                self.arena.add_items(self.stack.top()?, &items)
            }

            op::MARK => {
                self.arena.spend(1)?;
                self.stack.mark();
                Ok(())
            }
            op::POP => self.stack.drop_one(),
            op::POP_MARK => self.stack.pop_mark().map(|_| ()),
            op::DUP => {
                let top = self.stack.top()?;
                self.push(top)
            }

            op::PUT => {
                let line = self.line(MAX_NAME)?;
                self.memo.put(text::number(&line)?, self.stack.top()?)
            }
            op::BINPUT => {
                let key = self.source.byte()?;
                self.memo.put(key.into(), self.stack.top()?)
            }
            op::LONG_BINPUT => {
                let key = u32::from_le_bytes(self.source.array()?);
                self.memo.put(key, self.stack.top()?)
            }
            op::MEMOIZE => self.memo.put(self.memo.next(), self.stack.top()?),
            op::GET => {
                let line = self.line(MAX_NAME)?;
                self.push(self.memo.get(text::number(&line)?)?)
            }
            op::BINGET => {
                let key = self.source.byte()?;
                self.push(self.memo.get(key.into())?)
            }
            op::LONG_BINGET => {
                let key = u32::from_le_bytes(self.source.array()?);
                self.push(self.memo.get(key)?)
            }

            op::GLOBAL => {
                let module = self.line(MAX_NAME)?;
                let name = self.line(MAX_NAME)?;
                self.push_new(Node::Global(Global::find(&module, &name)?))
            }
            op::STACK_GLOBAL => {
                let name = self.stack.pop()?;
                let module = self.stack.pop()?;
                let global = match (self.arena.text(module), self.arena.text(name)) {
                    (Some(module), Some(name)) => Global::find(module.as_bytes(), name.as_bytes())?,
                    _ => return Err(Error::malformed("a name that is not made of two texts")),
                };
                self.push_new(Node::Global(global))
            }
            op::REDUCE => {
                let args = self.stack.pop()?;
                let callable = self.stack.pop()?;
                self.arena.spend(1)?;
                let made = globals::reduce(&mut self.arena, callable, args)?;
                self.push(made)
            }
            op::BUILD => {
                let state = self.stack.pop()?;
                let target = self.stack.top()?;
                globals::build(&mut self.arena, target, state)
            }
            _ => Err(self.refusal(code)?),
        }
    }

    /// Why an opcode is not run that makes objects of classes, or that does not exist.
    fn refusal(&mut self, code: u8) -> Result<Error> {
        let what = match code {
            op::INST => {
                let module = self.line(MAX_NAME)?;
                let name = self.line(MAX_NAME)?;
                return Ok(Error::refused(&module, &name));
            }
            op::OBJ | op::NEWOBJ | op::NEWOBJ_EX => {
                let below = match code {
                    op::OBJ => Some(0),
                    op::NEWOBJ => self.stack.above().len().checked_sub(2),
                    _ => self.stack.above().len().checked_sub(3),
                };
                let class = below.and_then(|below| self.stack.above().get(below));
                let class = class.map(|&id| self.arena.node(id).kind());
                let class = class.unwrap_or_else(|| "nothing".into());
                format!(
                    "refuses to make an object of a class ({class}); save its content as plain data"
                )
            }
            op::PERSID | op::BINPERSID => "refuses a persistent id: the data lies outside of this \
                                           pickle (torch.save does so); save it as numpy arrays"
                .into(),
            op::EXT1 | op::EXT2 | op::EXT4 => {
                "refuses a code of python's extension registry, which only its writer can resolve"
                    .into()
            }
            op::NEXT_BUFFER | op::READONLY_BUFFER => {
                "refuses an out-of-band buffer: the data lies outside of this pickle; write it \
                 without buffer_callback"
                    .into()
            }
            _ => format!("unknown opcode 0x{code:02x}; is this a pickle, and not compressed?"),
        };
        Ok(Error::unsupported(what))
    }

    fn push(&mut self, id: Id) -> Result<()> {
        self.arena.spend(1)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_new(&mut self, node: Node) -> Result<()> {
        self.arena.spend(1)?;
        let id = self.arena.add(node);
        self.stack.push(id);
        Ok(())
    }

    fn line(&mut self, max: usize) -> Result<Vec<u8>> {
        let long = || Error::malformed(format!("a number or name of more than {max} characters"));
        self.source.line(max)?.ok_or_else(long)
    }

    /// A line that holds a text, which stays in memory.
    fn text_line(&mut self) -> Result<Vec<u8>> {
        let max = self.arena.bytes_left();
        let line = self.source.line(max)?.ok_or_else(|| self.arena.too_many_bytes())?;
        self.arena.spend_bytes(line.len())?;
        Ok(line)
    }

    fn len1(&mut self) -> Result<u64> {
        self.source.byte().map(u64::from)
    }

    fn len4(&mut self) -> Result<u64> {
        Ok(u32::from_le_bytes(self.source.array()?).into())
    }

    fn len8(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.source.array()?))
    }

    fn signed_len4(&mut self) -> Result<u64> {
        let n = i32::from_le_bytes(self.source.array()?);
        u64::try_from(n).map_err(|_| Error::malformed(format!("a length of {n}")))
    }

    /// The next `n` bytes: in memory if they are few, otherwise where they are.
    fn payload(&mut self, n: u64) -> Result<Data> {
        if n >= self.limits.inline_below.max(MIN_INLINE) {
            return Ok(Data::InFile(self.source.skip(n)?));
        }
        let n = usize::try_from(n).map_err(|_| self.arena.too_many_bytes())?;
        self.arena.spend_bytes(n)?;
        Ok(Data::Inline(self.source.bytes(n)?.into()))
    }

    fn bytes(&mut self, n: u64) -> Result<()> {
        let data = self.payload(n)?;
        self.push_new(Node::Bytes(data))
    }

    /// A little-endian integer of `n` bytes, the first bit of the last one its sign.
    fn long(&mut self, n: u64) -> Result<()> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        if n > MAX_INT {
            let what = format!("an integer of {n} bytes, where {MAX_INT} are decoded");
            return Err(Error::unsupported(what));
        }
        let bytes = self.source.bytes(n)?;
        let sign = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut wide = [sign; MAX_INT];
        wide[..n].copy_from_slice(&bytes);
        self.push_new(Node::Int(i128::from_le_bytes(wide)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Decodes opcodes and writes the value out, much as Python would.
    fn run(program: &[u8]) -> String {
        let limits = Limits::default();
        let machine = Machine::new(Cursor::new(program), &limits).unwrap();
        let decoded = machine.run().unwrap_or_else(|err| panic!("{program:?}: {err}"));
        show(&decoded.nodes, decoded.root)
    }

    fn show(nodes: &[Node], id: Id) -> String {
        let node = &nodes[id as usize];
        let all = (0..node.n_children()).map(|i| show(nodes, node.child(i).unwrap()));
        let all = all.collect::<Vec<_>>().join(" ");
        match node {
            Node::None => "None".into(),
            Node::Bool(value) => value.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => format!("{value:?}"),
            Node::Str(data) => format!("{:?}", text::lenient(data.inline().unwrap())),
            Node::Bytes(data) => format!("b{:?}", text::lenient(data.inline().unwrap())),
            Node::List(_) => format!("[{all}]"),
            Node::Tuple(_) => format!("({all})"),
            Node::Dict(_) => format!("{{{all}}}"),
            Node::Set(_) => format!("<{all}>"),
            Node::Array(_) | Node::DType(_) | Node::Global(_) => node.kind(),
        }
    }

    #[test]
    fn opcodes_of_numbers() {
        assert_eq!(run(b"(NI00\nI01\nI-5\nL12L\nF-1.5\nt."), "(None false true -5 12 -1.5)");
        assert_eq!(run(b"(Finf\nF-inf\nFnan\nt."), "(inf -inf NaN)");
        assert_eq!(run(b"(J\xfe\xff\xff\xffK\xffM\xff\xff\x88\x89t."), "(-2 255 65535 true false)");
        assert_eq!(run(b"G\xbf\xf8\0\0\0\0\0\0."), "-1.5");
        assert_eq!(run(b"(\x8a\0\x8a\x01\xff\x8a\x02\xff\0t."), "(0 -1 255)");
        assert_eq!(run(b"\x8b\x03\0\0\0\0\0\x80."), "-8388608");
    }

    #[test]
    fn opcodes_of_text_and_bytes() {
        assert_eq!(run(b"(S'a\\x41'\nV\\u00e9\nt."), r#"(b"aA" "é")"#);
        assert_eq!(run(b"(U\x01aT\x02\0\0\0abt."), r#"(b"a" b"ab")"#);
        let unicode = b"(X\x02\0\0\0\xc3\xa9\x8c\x01a\x8d\x01\0\0\0\0\0\0\0bt.";
        assert_eq!(run(unicode), r#"("é" "a" "b")"#);
        let bytes = b"(B\x01\0\0\0aC\x01b\x8e\x01\0\0\0\0\0\0\0ct.";
        assert_eq!(run(bytes), r#"(b"a" b"b" b"c")"#);
        assert_eq!(run(b"\x96\x02\0\0\0\0\0\0\0ab."), r#"b"ab""#);
    }

    #[test]
    fn opcodes_of_containers() {
        assert_eq!(run(b"(K\x01K\x02lK\x03a(K\x04K\x05e."), "[1 2 3 4 5]");
        let tuples = b"(K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87t.";
        assert_eq!(run(tuples), "((1) (1 2) (1 2 3))");
        assert_eq!(run(b"(K\x01K\x02dK\x03K\x04s(K\x05K\x06u."), "{1 2 3 4 5 6}");
        assert_eq!(run(b"(\x8f(K\x01K\x01\x90(K\x02\x91])}t."), "(<1> <2> [] () {})");
    }

    #[test]
    fn opcodes_of_stack_and_memo() {
        assert_eq!(run(b"(K\x012K\x090(K\x01K\x021t."), "(1 1)");
        assert_eq!(run(b"(]p5\n0g5\nK\x01ag5\nt."), "([1] [1])");
        assert_eq!(run(b"(K\x07q\x020h\x02r\0\x01\0\0j\0\x01\0\0t."), "(7 7)");
        let framed = b"\x80\x04\x95\0\0\0\0\0\0\0\0(K\x07\x94K\x08\x94h\0h\x01t.";
        assert_eq!(run(framed), "(7 8 7 8)");
    }

    #[test]
    fn opcodes_of_known_names() {
        assert_eq!(run(b"c__builtin__\nset\n((K\x01K\x01ltR."), "<1>");
        assert_eq!(run(b"\x80\x04\x8c\x08builtins\x8c\x09frozenset\x93]\x85R."), "<>");
        assert_eq!(run(b"c_codecs\nencode\n(V\xff\nVlatin1\ntR."), r#"b"ÿ""#);
        assert_eq!(run(b"c__builtin__\nbytearray\n(Va\nVlatin-1\ntR."), r#"b"a""#);
        let ordered = b"ccollections\nOrderedDict\n((l(lK\x01aK\x02aatR.";
        assert_eq!(run(ordered), "{1 2}");
        let default = b"ccollections\ndefaultdict\n(c__builtin__\nlist\ntRK\x01K\x02s.";
        assert_eq!(run(default), "{1 2}");
        assert_eq!(run(b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR."), "dtype float32");
    }
}
