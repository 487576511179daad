//! Files that were made to do harm, or damaged: each ends in an error that says where.

mod common;

use std::io::Cursor;
use std::path::Path;

use common::{describe, files, fixtures};
use cumdf_pickle::{Error, ErrorKind, Limits, load};

fn decode(bytes: &[u8]) -> Result<String, Error> {
    load(Cursor::new(bytes), &Limits::default()).map(|pickle| pickle.root().kind())
}

/// The error of a pickle that must not decode, which has a place inside of the file.
fn error(bytes: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let err = decode(bytes).expect_err(&shown);
    let at = err.offset().unwrap_or_else(|| panic!("no place: {err}"));
    assert!(at <= bytes.len() as u64, "{err}");
    err
}

/// Checks an error's text, and that it is one: lower case, no full stop.
fn says(bytes: &[u8], what: &str) {
    let text = error(bytes).to_string();
    assert!(text.contains(what), "wanted {what:?}, got {text:?}");
    assert!(text.starts_with("byte ") && !text.ends_with('.'), "{text}");
}

/// `numpy.dtype(code, 0, 1)` with a byte order, as Python 2 writes it.
fn dtype(code: &str, order: &str) -> Vec<u8> {
    format!("cnumpy\ndtype\n(S'{code}'\nI0\nI1\ntR(I3\nS'{order}'\nNNNI-1\nI-1\nI0\ntb").into()
}

/// An array whose state has this shape, dtype and content, all of them opcodes.
fn array(shape: &str, dtype: &[u8], content: &str) -> Vec<u8> {
    let head = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n";
    [head.as_bytes(), shape.as_bytes(), dtype, b"I00\n", content.as_bytes(), b"tb."].concat()
}

#[test]
fn a_call_is_refused_by_name_before_it_is_made() {
    for (bytes, name) in [
        (&b"cposix\nsystem\n(S'rm -rf ~'\ntR."[..], "posix.system"),
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", "builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "builtins.getattr"),
        (b"c__builtin__\neval\n.", "__builtin__.eval"),
        (b"csubprocess\nPopen\n.", "subprocess.Popen"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"ccopy_reg\n_reconstructor\n.", "copy_reg._reconstructor"),
        (b"cpandas.core.frame\nDataFrame\n.", "pandas.core.frame.DataFrame"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n.", "torch._utils._rebuild_tensor_v2"),
        (b"(iposix\nsystem\n.", "posix.system"),
    ] {
        let err = error(bytes);
        assert!(matches!(err.kind(), ErrorKind::Refused { name: found } if found == name), "{err}");
        says(bytes, &format!("refuses {name}: this pickle wants to call it"));
    }
    // What a name can hold is shown escaped and cut.
    says(b"c\x1b[2J\nx\n.", r"refuses \u{1b}[2J.x:");
    let long = [b"c".as_slice(), &[b'a'; 900], b"\nx\n."].concat();
    assert!(error(&long).to_string().len() < 400);
}

#[test]
fn known_names_are_refused_where_they_would_do_something_else() {
    says(b"cnumpy\nndarray\n(I5\ntR.", "refuses numpy.ndarray with 1 arguments");
    says(b"c__builtin__\nlist\n(tR.", "refuses list with 0 arguments");
    says(b"c_codecs\nencode\n(Va\nVrot13\ntR.", "another encoding than latin1");
    says(b"ccollections\ndefaultdict\n(c_codecs\nencode\ntR.", "would call its factory");
    says(b"\x80\x02ccollections\nOrderedDict\n)\x81.", "refuses to make an object of a class");
    says(b"(ccollections\nOrderedDict\no.", "the name collections.OrderedDict");
    says(b"ccollections\nOrderedDict\n(tR}b.", "refuses to set attributes of dict of 0");
    says(b"I1\n(tR.", "int is called");
    says(b"c__builtin__\nbytes\nI1\nR.", "int in place of a tuple");
    let head = b"cnumpy.core.multiarray\n_reconstruct\n".to_vec();
    says(&[&head[..], b"(c__builtin__\nset\n(I0\ntS'b'\ntR."].concat(), "not ndarray");
    says(&[&head[..], b"(cnumpy\nndarray\n(I9\ntS'b'\ntR."].concat(), "values that are nowhere");
}

#[test]
fn what_lies_outside_of_the_file_is_refused() {
    says(b"P1\n.", "refuses a persistent id");
    says(b"I1\nQ.", "refuses a persistent id");
    for code in [0x82, 0x83, 0x84] {
        says(&[code, 1, 0, 0, 0, b'.'], "extension registry");
    }
    says(b"\x80\x05\x97.", "refuses an out-of-band buffer");
    says(b"\x80\x05\x97\x98.", "without buffer_callback");
}

#[test]
fn other_dtypes_are_refused_by_name() {
    for code in ["c16", "V8", "M8", "m8", "f16", "g"] {
        says(&[&dtype(code, "<")[..], b"."].concat(), &format!("refuses dtype {code:?}"));
    }
    let fields = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'|'\nN(S'a'\nt}I8\nI1\nI0\ntb.";
    says(fields, "refuses a structured dtype");
    says(&[&dtype("f4", "x")[..], b"."].concat(), "byte order 'x'");
    says(b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI8\nI1\nI0\ntb.", "a float32 of 8 bytes");
}

#[test]
fn an_array_that_claims_more_than_there_is_is_refused() {
    let f8 = dtype("f8", "<");
    says(&array("(I1152921504606846976\nt", &f8, "S''\n"), "the pickle has 0"); // 2^60
    says(&array("(I4294967296\nI4294967296\nt", &f8, "S''\n"), "more elements than there can be");
    says(&array("(I0\nI4294967296\nI4294967296\nt", &f8, "S''\n"), "than there can be");
    says(&array("(I9223372036854775807\nt", &f8, "S''\n"), "the pickle has 0");
    says(&array("(I-1\nt", &f8, "S''\n"), "something else than sizes");
    says(&array("(I2\nt", &f8, "S'12345678'\n"), "needs 2 times 8 bytes, the pickle has 8");
    says(&array("(I2\nt", &f8, "V12345678\n"), "whose content is str");
    says(&array("(I9\nt", &dtype("S0", "|"), "S''\n"), "9 elements of no bytes");
    says(
        &array("(I1000000000\nt", &dtype("O8", "|"), "(l"),
        "object array [1000000000] made of list",
    );
    says(
        &array(&format!("({}t", "I1\n".repeat(65)), &f8, "S'12345678'\n"),
        "a shape that is tuple",
    );
    // The content is announced, but not there.
    says(b"\x80\x04\x8e\0\0\0\0\0\0\0\x10.", "1152921504606846975 bytes short");
    says(b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes short");
    says(b"B\xff\xff\xff\xff.", "bytes short");
    assert_eq!(
        decode(&array("(I0\nI5\nt", &f8, "S''\n")).expect("no elements"),
        "float64 array [0, 5]"
    );
}

#[test]
fn a_value_that_contains_itself_is_refused() {
    says(b"(lp0\ng0\na.", "a value contains itself (list of 1)");
    says(b"(dp0\nS'a'\ng0\ns.", "a value contains itself (dict of 1)");
    says(b"(lp0\n(g0\nta.", "contains itself");
    says(b"(lp0\n(lp1\ng0\nag1\na0g0\ng1\na.", "contains itself");
    let o = dtype("O8", "|");
    let head =
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRp0\n(I1\n(I1\nt";
    says(&[head, &o[..], b"I00\n(lg0\natb."].concat(), "contains itself (object array [1])");
    // Where nobody can get at it, it does no harm.
    assert_eq!(decode(b"(lp0\ng0\na0I5\n.").expect("the list is dropped"), "int");
}

#[test]
fn sharing_is_cheap_and_a_walk_over_it_is_bounded() {
    let mut laughs = b"]q\x00".to_vec();
    for level in 0..60u8 {
        laughs.extend([b'0', b'(', b'h', level, b'h', level, b'l', b'q', level + 1]);
    }
    laughs.push(b'.');
    says(&laughs, "raise Limits::max_walk if you trust the file");
    let limits = Limits { max_walk: u64::MAX, ..Limits::default() };
    let pickle = load(Cursor::new(&laughs), &limits).expect("the limit was lifted");
    assert_eq!(pickle.root().kind(), "list of 2");
    assert_eq!(format!("{:?}", pickle.root()), "list of 2");
}

#[test]
fn deep_nesting_ends_in_an_error_and_not_in_the_stack() {
    let n = 300_000;
    for (open, close) in [("]", "a"), ("(", "t"), ("}K\u{1}", "s"), ("(", "l"), ("", "\u{85}")] {
        let close: Vec<u8> = close.chars().map(|c| c as u8).collect();
        let nested = [open.repeat(n).as_bytes(), b"N", &close.repeat(n), b"."].concat();
        says(&nested, "more than 256 values inside one another");
        let limits = Limits { max_depth: u32::MAX, ..Limits::default() };
        let pickle = load(Cursor::new(&nested), &limits).expect("the limit was lifted");
        drop(pickle); // without recursion either
    }
    assert!(error(&"(".repeat(n).into_bytes()).to_string().contains("cut off"));
}

#[test]
fn limits_bound_values_memo_and_memory() {
    let small = |bytes: &[u8]| {
        let limits =
            Limits { max_nodes: 50, max_memo: 10, max_inline_bytes: 40, ..Limits::default() };
        load(Cursor::new(bytes), &limits).expect_err("it is above a limit").to_string()
    };
    assert!(small(&[b'N'; 60]).contains("more than 50 values; raise Limits::max_nodes"));
    assert!(small(&[b'('; 60]).contains("max_nodes"));
    assert!(small(&[b"N".as_slice(), &[b'2'; 60]].concat()).contains("max_nodes"));
    let puts: Vec<u8> = (0..20).flat_map(|i| [b'q', i]).collect();
    assert!(small(&[b"N", &puts[..]].concat()).contains("max_memo"));
    assert!(small(&b"U\x09123456789".repeat(5)).contains("max_inline_bytes"));
    assert!(small(&[b"V", &[b'a'; 50][..], b"\n."].concat()).contains("max_inline_bytes"));
    // A set of a list that is used over and over copies it each time.
    let set = b"c__builtin__\nset\n(h\0tR";
    let list = [b"]q\0(".as_slice(), &[b'N'; 10], b"e"].concat();
    assert!(small(&[&list[..], &set.repeat(9)].concat()).contains("max_nodes"));
    // Numbers of 2^32 - 1 cost no more than others.
    assert_eq!(decode(b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.").expect("it is a number"), "none");
    says(b"Np4294967296\n.", "not a number that fits");
}

#[test]
fn broken_programs_end_where_they_break() {
    for (bytes, what) in [
        (&b""[..], "cut off"),
        (b".", "empty stack"),
        (b"0.", "empty stack"),
        (b"1.", "no mark"),
        (b"(.", "empty stack"),
        (b"N(a.", "empty stack"),
        (b"N(\x85.", "empty stack"),
        (b"NN\x87.", "empty stack"),
        (b"Na.", "empty stack"),
        (b"NNa.", "appended to none"),
        (b"N(Ne.", "appended to none"),
        (b"}(Nu.", "1 keys and values are set in dict of 0"),
        (b"NNNs.", "2 keys and values are set in none"),
        (b"}]Ns.", "list of 0 cannot be a key"),
        (b"\x8f(]\x90.", "list of 0 cannot be a key"),
        (b"](N\x90.", "added to list of 0"),
        (b"(N\x91", "cut off"),
        (b"(NNNd.", "3 keys and values"),
        (b"R.", "empty stack"),
        (b"b.", "empty stack"),
        (b"h\0.", "value 0 is used, but never made"),
        (b"g7\n.", "value 7 is used, but never made"),
        (b"q\0.", "empty stack"),
        (b"g-1\n.", "\"-1\" is not a number"),
        (b"I1x\n.", "not a number"),
        (b"L999999999999999999999999999999999999999999L\n.", "not a number that fits"),
        (b"F1.2.3\n.", "not a number"),
        (b"Sabc\n.", "without its quotes"),
        (b"T\xff\xff\xff\xff.", "a length of -1"),
        (b"\x8b\xff\xff\xff\xff.", "a length of -1"),
        (b"\x8b\0\0\0\x7f.", "an integer of 2130706432 bytes"),
        (b"\x8a\x11aaaaaaaaaaaaaaaaa.", "an integer of 17 bytes"),
        (b"\x8c\x02\xff\xfe.", "not utf-8"),
        (b"NN\x93.", "not made of two texts"),
        (b"\x80\x06.", "protocol 6"),
        (b"\x80\xff.", "protocol 255"),
        (b"\xff.", "unknown opcode 0xff"),
        (b"\x1f\x8b\x08", "unknown opcode 0x1f; is this a pickle, and not compressed?"),
        (b"PK\x03\x04\n", "torch.save does so"), // a zip, which torch.save writes
        (b"\x89HDF\r\n\x1a\n", "unknown opcode 0x48"),
    ] {
        says(bytes, what);
    }
    let line = [b"I".as_slice(), &[b'1'; 2000]].concat();
    says(&line, "a number or name of more than 1024 characters");
}

#[test]
fn harmless_oddities_decode() {
    assert_eq!(decode(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.").expect("a frame"), "none");
    assert_eq!(decode(b"(0N.").expect("pop takes a mark"), "none");
    assert_eq!(decode(b"((N1N.").expect("a mark may be left"), "none");
    assert_eq!(decode(b"N.trailing").expect("the pickle has ended"), "none");
    assert_eq!(decode(b"}(I1\nNI01\nNI1\nNS'1'\nNu.").expect("1 is True"), "dict of 2");
    let twice = load(Cursor::new(b"}(S'a'\nK\x01S'b'\nK\x02S'a'\nK\x03u."), &Limits::default());
    let twice = twice.expect("a key may be set again");
    assert_eq!(twice.root().kind(), "dict of 2");
    assert_eq!(twice.root().get("a").and_then(|item| item.integer()), Some(3));
}

#[test]
fn a_fixture_cut_off_at_any_byte_says_so() {
    for (name, bytes) in fixtures() {
        for n in 0..bytes.len() {
            let err = error(&bytes[..n]);
            assert!(matches!(err.kind(), ErrorKind::Truncated { .. }), "{name} cut at {n}: {err}");
        }
    }
}

/// Decodes, and reads all arrays if that works; what counts is that it ends.
fn survives(bytes: &[u8]) {
    let limits = Limits { inline_below: 64, ..Limits::default() };
    if let Ok(pickle) = load(Cursor::new(bytes), &limits) {
        let _ = describe(pickle.root(), &mut Cursor::new(bytes));
    }
}

#[test]
fn any_single_damaged_byte_is_survived() {
    for (name, bytes) in fixtures() {
        // Every value of every byte of the smallest, three values in some of the others.
        let some = ["plain_0.pkl", "plain_1.pkl", "plain_4.pkl", "py2_2.pkl", "arrays_5.pkl"];
        let step = if name.starts_with("readme") { 1 } else { 85 };
        if step > 1 && !some.contains(&name.as_str()) {
            continue;
        }
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            for change in (1..=255u8).step_by(step) {
                damaged[at] = bytes[at] ^ change;
                survives(&damaged);
            }
            damaged[at] = bytes[at];
        }
    }
}

#[test]
fn the_corpus_of_the_fuzzer_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let corpus = files(&folder);
    assert!(corpus.len() > 100, "the corpus has {} files", corpus.len());
    for (_, bytes) in corpus {
        survives(&bytes);
    }
}
