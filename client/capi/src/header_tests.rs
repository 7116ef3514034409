//! `include/tramline.h` and this crate say the same: functions with their types, constants, structs; and everything in the header has a comment.
//!
//! Types of functions are compared as text, numbers and layouts by a C compiler. Where there is none, the tests that need it say aloud that they did not run.
//!
//! Not here: whether the functions do what the comments say (tests/capi.rs of the workspace's root).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tramline_client::{Codec, ErrorCode, Level};

use crate::constants;
use crate::layout::SHAPES;

const HEADER: &str = include_str!("../include/tramline.h");

/// The sources whose functions are exported; `defect.rs` is in no shipped library.
const SOURCES: [(&str, &str); 7] = [
    ("client.rs", include_str!("client.rs")),
    ("consumer.rs", include_str!("consumer.rs")),
    ("last.rs", include_str!("last.rs")),
    ("member.rs", include_str!("member.rs")),
    ("producer.rs", include_str!("producer.rs")),
    ("queue.rs", include_str!("queue.rs")),
    ("queue_consumer.rs", include_str!("queue_consumer.rs")),
];

/// How a Rust type is written in C.
const TYPES: [(&str, &str); 50] = [
    ("()", "void"),
    ("c_int", "int"),
    ("u32", "uint32_t"),
    ("u64", "uint64_t"),
    ("usize", "size_t"),
    ("*const c_char", "constchar*"),
    ("*mut c_char", "char*"),
    ("*mut c_void", "void*"),
    ("*mut u32", "uint32_t*"),
    ("*mut u64", "uint64_t*"),
    ("*mut usize", "size_t*"),
    ("ClientHandle", "tramline_client_t"),
    ("*mut ClientHandle", "tramline_client_t*"),
    ("ProducerHandle", "tramline_producer_t"),
    ("*mut ProducerHandle", "tramline_producer_t*"),
    ("ConsumerHandle", "tramline_consumer_t"),
    ("*mut ConsumerHandle", "tramline_consumer_t*"),
    ("*const ClientOptions", "consttramline_client_options_t*"),
    ("*mut ClientOptions", "tramline_client_options_t*"),
    ("*const ProducerOptions", "consttramline_producer_options_t*"),
    ("*mut ProducerOptions", "tramline_producer_options_t*"),
    ("*const ConsumerOptions", "consttramline_consumer_options_t*"),
    ("*mut ConsumerOptions", "tramline_consumer_options_t*"),
    ("MemberHandle", "tramline_member_t"),
    ("*mut MemberHandle", "tramline_member_t*"),
    ("*const MemberOptions", "consttramline_member_options_t*"),
    ("*mut MemberOptions", "tramline_member_options_t*"),
    ("*mut MemberPart", "tramline_member_part_t*"),
    ("*const *const c_char", "constchar*const*"),
    ("Option<PartsFn>", "tramline_parts_fn"),
    ("QueueConsumerHandle", "tramline_queue_consumer_t"),
    ("*mut QueueConsumerHandle", "tramline_queue_consumer_t*"),
    ("*const QueueConsumerOptions", "consttramline_queue_consumer_options_t*"),
    ("*mut QueueConsumerOptions", "tramline_queue_consumer_options_t*"),
    ("*mut QueueConsumerCounts", "tramline_queue_consumer_metrics_t*"),
    ("Token", "tramline_token_t"),
    ("*mut Token", "tramline_token_t*"),
    ("*mut *const *const MessageView", "consttramline_message_t*const**"),
    ("*const Settlement", "consttramline_settlement_t*"),
    ("*mut Settled", "tramline_settled_t*"),
    ("*const Setting", "consttramline_setting_t*"),
    ("*const NewRecord", "consttramline_record_t*"),
    ("*mut NewRecord", "tramline_record_t*"),
    ("*const RecordView", "consttramline_record_view_t*"),
    ("*const DeliveryView", "consttramline_delivery_t*"),
    ("*mut ErrorView", "tramline_error_t*"),
    ("*mut ProducerCounts", "tramline_producer_metrics_t*"),
    ("*mut ConsumerCounts", "tramline_consumer_metrics_t*"),
    ("Option<DeliveryFn>", "tramline_delivery_fn"),
    ("Option<RecordFn>", "tramline_record_fn"),
];

fn in_c(rust: &str) -> String {
    let found = TYPES.iter().find(|(name, _)| *name == rust);
    found.unwrap_or_else(|| panic!("how is {rust:?} written in C? Add it to TYPES")).1.to_string()
}

/// Types of arguments of a Rust parameter list, written in C.
fn rust_arguments(list: &str) -> String {
    let types =
        list.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| in_c(part.split_once(": ").expect("name: type").1));
    types.collect::<Vec<_>>().join(",")
}

/// Exported functions: name, and return type and arguments as in C.
fn exported() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (file, source) in SOURCES {
        for function in source.split("\n#[unsafe(no_mangle)]\n").skip(1) {
            let (_, behind) = function.split_once("extern \"C\" fn ").unwrap_or_else(|| panic!("{file}: no function behind no_mangle"));
            let (name, behind) = behind.split_once('(').expect("arguments");
            let (arguments, behind) = behind.split_once(')').expect("the end of the arguments");
            let (returned, body) = behind.split_once('{').expect("a body");
            let body = body.split("\n}\n").next().expect("the end of the body");
            assert!(body.contains("guard(|| ") || body.contains("guard_value("), "{file}: {name} does not run in guard");
            let returned = returned.trim().strip_prefix("-> ").map_or("void".to_string(), in_c);
            found.insert(name.to_string(), format!("{returned}({})", rust_arguments(arguments)));
        }
    }
    assert!(found.len() > 30, "{found:?}");
    found
}

/// A C argument without its name, and without spaces.
fn c_type(argument: &str) -> String {
    let argument = argument.trim();
    let end = argument.rfind([' ', '*']).map_or(argument.len(), |at| at + 1);
    argument[..end].replace(char::is_whitespace, "").replace("tramline_status_t", "int")
}

/// A thing of the header: what its comment says, and its text up to the end of the line or declaration.
struct Item {
    comment: String,
    text: String,
}

/// Everything in the header that has to have a comment: functions, types, fields, constants, macros.
fn items() -> Vec<Item> {
    let mut items = Vec::new();
    let mut comment = String::new();
    let mut inside = false;
    let mut lines = HEADER.lines().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.starts_with("/*") {
            comment.clear();
            inside = true;
        }
        if inside {
            comment += trimmed;
            comment.push('\n');
            inside = !trimmed.ends_with("*/");
            continue;
        }
        let is_code = !trimmed.is_empty() && !["}", "{", "extern \"C\""].iter().any(|start| trimmed.starts_with(start));
        let is_preprocessor = trimmed.starts_with('#') && !trimmed.starts_with("#define TRAMLINE_") || trimmed == "#define TRAMLINE_H";
        if !is_code || is_preprocessor {
            continue;
        }
        let mut text = trimmed.to_string();
        while text.contains('(') && !text.contains(')') && !text.starts_with('#') {
            text += lines.next().expect("the end of a declaration").trim();
        }
        // A macro of several lines.
        while text.ends_with('\\') {
            text.pop();
            text += lines.next().expect("the end of a macro").trim();
        }
        items.push(Item { comment: std::mem::take(&mut comment), text });
    }
    items
}

fn prototypes() -> BTreeMap<String, (String, String)> {
    let functions = items().into_iter().filter(|item| {
        item.text.contains('(') && !item.text.starts_with(['#', 't']) || item.text.starts_with("tramline_status_t tramline_")
    });
    functions
        .map(|item| {
            let (head, arguments) = item.text.split_once('(').expect("arguments");
            let name = head.rsplit([' ', '*']).next().expect("a name").to_string();
            let returned = c_type(head);
            let arguments = arguments.trim_end_matches(");");
            let arguments =
                if arguments == "void" { String::new() } else { arguments.split(',').map(c_type).collect::<Vec<_>>().join(",") };
            (name, (format!("{returned}({arguments})"), item.comment))
        })
        .collect()
}

#[test]
fn the_functions_of_the_header_are_those_of_the_library() {
    let declared: BTreeMap<String, String> = prototypes().into_iter().map(|(name, (types, _))| (name, types)).collect();
    assert_eq!(declared, exported());
}

#[test]
fn callbacks_have_the_types_of_the_header() {
    for (rust, c) in [("DeliveryFn", "tramline_delivery_fn"), ("RecordFn", "tramline_record_fn"), ("PartsFn", "tramline_parts_fn")] {
        let source = SOURCES
            .iter()
            .find_map(|(_, source)| source.split_once(&format!("pub type {rust} = unsafe extern \"C\" fn(")))
            .expect("a type")
            .1;
        let (arguments, returned) = source.split_once(')').expect("arguments");
        let returned = returned.split_once(';').expect("an end").0.trim().strip_prefix("-> ").map_or("void".to_string(), in_c);
        let expected = format!("typedef{returned}(*{c})({});", rust_arguments(arguments));
        let text = items().into_iter().map(|item| item.text).find(|text| text.contains(&format!("(*{c})"))).expect("a typedef");
        let (head, arguments) = text.rsplit_once('(').expect("arguments");
        let arguments: Vec<String> = arguments.trim_end_matches(");").split(',').map(c_type).collect();
        assert_eq!(format!("{}({});", head.replace(' ', ""), arguments.join(",")), expected);
    }
}

#[test]
fn everything_in_the_header_has_a_comment() {
    let items = items();
    assert!(items.len() > 250, "{}", items.len());
    let bare: Vec<&str> = items.iter().filter(|item| !item.comment.starts_with("/**")).map(|item| item.text.as_str()).collect();
    assert_eq!(bare, Vec::<&str>::new());
    for (name, (types, comment)) in prototypes() {
        let has = |words: &str| comment.lines().any(|line| line.starts_with(words));
        assert!(has("* Returns: ") && has("* Threads: "), "{name}: what does it return, and in which threads can it be called?");
        let says_status = types.starts_with("int(") && name != "tramline_catches_panics";
        assert!(
            !says_status || comment.contains("Returns: TRAMLINE_OK") || comment.contains("Returns: as there."),
            "{name}: which statuses?"
        );
    }
}

#[test]
fn the_version_is_the_crates() {
    assert!(HEADER.contains(&format!("#define TRAMLINE_HEADER_VERSION \"{}\"", env!("CARGO_PKG_VERSION"))));
}

/// Constants of the header that are numbers.
fn names_in_header() -> Vec<String> {
    let name = |item: &Item| {
        let text = item.text.strip_prefix("#define ").unwrap_or(&item.text);
        let name = text.split([' ', '=', ',']).next().unwrap_or_default();
        (name.starts_with("TRAMLINE_") && !["TRAMLINE_HEADER_VERSION", "TRAMLINE_RECORD_INIT"].contains(&name)).then(|| name.to_string())
    };
    items().iter().filter_map(name).collect()
}

fn numbers() -> BTreeMap<String, u64> {
    let levels = Level::ALL.iter().map(|level| (format!("TRAMLINE_LEVEL_{}", level.name().to_uppercase()), u64::from(level.as_u8())));
    let codecs = Codec::ALL.iter().map(|codec| (format!("TRAMLINE_COMPRESSION_{}", codec.name().to_uppercase()), u64::from(codec.as_u8())));
    let codes = ErrorCode::ALL.iter().map(|code| (format!("TRAMLINE_CODE_{}", code.name().to_uppercase()), u64::from(code.as_u16())));
    constants::ALL
        .iter()
        .map(|(name, value)| (name.to_string(), *value))
        .chain(codes)
        .chain(levels)
        .chain(codecs)
        .chain([("TRAMLINE_FOREVER_US".to_string(), u64::MAX)])
        .collect()
}

#[test]
fn the_constants_of_the_header_are_those_of_the_library() {
    let mut in_header = names_in_header();
    in_header.sort();
    assert_eq!(in_header, numbers().into_keys().collect::<Vec<_>>());
}

/// Whether a compiler is there; says so aloud when there is none.
fn compiler_is_there(compiler: &str, package: &str, test: &str) -> bool {
    let there = Command::new(compiler).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        // The real standard error: the captured one is shown only when a test fails.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: there is no {compiler}; install it with: apt-get install {package}");
    }
    there
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_c_compiler_sees_the_same_numbers_sizes_and_offsets() {
    if !compiler_is_there("cc", "gcc libc6-dev", "a_c_compiler_sees_the_same_numbers_sizes_and_offsets") {
        return;
    }
    let mut program = String::from("#include <stdio.h>\n#include \"tramline.h\"\nint main(void) {\n");
    let mut expected = String::new();
    for (name, value) in numbers() {
        program += &format!("printf(\"{name} %llu\\n\", (unsigned long long)({name}));\n");
        expected += &format!("{name} {value}\n");
    }
    for shape in SHAPES {
        let name = shape.name;
        program += &format!("printf(\"{name} %zu\\n\", sizeof({name}));\n");
        expected += &format!("{name} {}\n", shape.size);
        for (field, offset, size) in shape.fields {
            program += &format!("printf(\"{name}.{field} %zu %zu\\n\", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));\n");
            expected += &format!("{name}.{field} {offset} {size}\n");
        }
    }
    program += "return 0;\n}\n";
    let dir = tempfile::tempdir().expect("a directory");
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, program).expect("written");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    run(Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include)
        .arg(&source)
        .arg("-o")
        .arg(&binary));
    let printed = run(&mut Command::new(&binary));
    for (is, should) in printed.lines().zip(expected.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(printed.len(), expected.len());
    // A struct of the header that is not compared would be a hole.
    let structs: Vec<String> = HEADER.lines().filter_map(|line| Some(line.strip_prefix("} ")?.strip_suffix(';')?.to_string())).collect();
    let mut compared: Vec<String> = SHAPES.iter().map(|shape| shape.name.to_string()).collect();
    compared.sort();
    assert_eq!(
        {
            let mut sorted = structs;
            sorted.sort();
            sorted
        },
        compared
    );
    // And a field that is not compared.
    let fields = SHAPES.iter().map(|shape| shape.fields.len()).sum::<usize>();
    let in_header =
        items().iter().filter(|item| item.text.ends_with(';') && !item.text.contains('(') && !item.text.starts_with("typedef")).count();
    assert_eq!(in_header, fields);
}

#[test]
fn a_cpp_compiler_takes_the_header() {
    if !compiler_is_there("c++", "g++", "a_cpp_compiler_takes_the_header") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("takes.cpp");
    let program =
        "#include \"tramline.h\"\nint main() { tramline_record_t record; return tramline_record_defaults(&record, sizeof record); }\n";
    std::fs::write(&source, program).expect("written");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    run(Command::new("c++").args(["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"]).arg(include).arg(&source));
}
