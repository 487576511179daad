//! The opcodes of protocols 0 to 5, as Python's `pickletools` names them.

macro_rules! opcodes {
    ($($name:ident = $byte:expr),* $(,)?) => { $(pub(crate) const $name: u8 = $byte;)* };
}

// Protocol 0: text, ended by a newline.
opcodes! {
    MARK = b'(', STOP = b'.', POP = b'0', DUP = b'2', NONE = b'N',
    INT = b'I', LONG = b'L', FLOAT = b'F', STRING = b'S', UNICODE = b'V',
    APPEND = b'a', LIST = b'l', TUPLE = b't', DICT = b'd', SETITEM = b's',
    GET = b'g', PUT = b'p', GLOBAL = b'c', REDUCE = b'R', BUILD = b'b',
    INST = b'i', PERSID = b'P',
}

// Protocol 1: binary.
opcodes! {
    POP_MARK = b'1', BININT = b'J', BININT1 = b'K', BININT2 = b'M', BINFLOAT = b'G',
    BINSTRING = b'T', SHORT_BINSTRING = b'U', BINUNICODE = b'X',
    EMPTY_LIST = b']', EMPTY_TUPLE = b')', EMPTY_DICT = b'}', APPENDS = b'e', SETITEMS = b'u',
    BINGET = b'h', LONG_BINGET = b'j', BINPUT = b'q', LONG_BINPUT = b'r',
    OBJ = b'o', BINPERSID = b'Q',
}

// Protocol 2: short tuples, long integers, new-style classes, the extension registry.
opcodes! {
    PROTO = 0x80, NEWOBJ = 0x81, EXT1 = 0x82, EXT2 = 0x83, EXT4 = 0x84,
    TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87, NEWTRUE = 0x88, NEWFALSE = 0x89,
    LONG1 = 0x8a, LONG4 = 0x8b,
}

// Protocol 3: bytes.
opcodes! { BINBYTES = b'B', SHORT_BINBYTES = b'C' }

// Protocol 4: 64-bit lengths, sets, frames.
opcodes! {
    SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d, BINBYTES8 = 0x8e,
    EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
    NEWOBJ_EX = 0x92, STACK_GLOBAL = 0x93, MEMOIZE = 0x94, FRAME = 0x95,
}

// Protocol 5: buffers.
opcodes! { BYTEARRAY8 = 0x96, NEXT_BUFFER = 0x97, READONLY_BUFFER = 0x98 }
