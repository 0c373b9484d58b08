//! One `.proto` file into one extension, by protox: no `protoc`, no other files, no trust.
//!
//! A file is read whole or refused with its line. It imports `kraken/v1/options.proto`, which this binary carries, and Google's own files. How deep it
//! nests is checked before the parser sees it, for parsers recurse; the rest runs on a thread of its own, so that nothing in it ends the head (F45).

use std::fmt;
use std::thread;

use engine::extension::{DescriptorError, Extension};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// Largest file: ten times what the largest built-in extension could grow to, and a quarter of a message of the API.
pub(crate) const MAX_FILE_BYTES: usize = 256 << 10;

/// Deepest nesting of braces, brackets and parentheses; a url has at most 16 parts.
const MAX_NESTING: usize = 32;

/// Room for the parser's and the resolver's recursion over so many levels, many times over.
const STACK_BYTES: usize = 16 << 20;

/// The only file of ours that extensions import.
const OPTIONS: &str = "kraken/v1/options.proto";

/// Why a file is no extension, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct FileError {
    /// Name of the file.
    pub(crate) file: String,
    /// Line, from 1; none: the file as a whole.
    pub(crate) line: Option<u32>,
    /// What is wrong, and what to do.
    pub(crate) text: String,
}

impl FileError {
    /// About a file as a whole.
    pub(super) fn whole(file: &str, text: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            text: text.into(),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.text),
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

/// The extension that a file declares.
///
/// # Errors
/// Whatever makes it none; never a panic.
pub(crate) fn compile(file: &str, text: &str) -> Result<Extension, FileError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(FileError::whole(
            file,
            format!("is larger than {MAX_FILE_BYTES} bytes"),
        ));
    }
    if let Some(line) = too_deep(text) {
        return Err(FileError {
            file: file.to_owned(),
            line: Some(line),
            text: format!("is nested more than {MAX_NESTING} deep"),
        });
    }
    let (name, source) = (file.to_owned(), text.to_owned());
    let worker = thread::Builder::new()
        .name("extension".into())
        .stack_size(STACK_BYTES)
        .spawn(move || compile_here(&name, &source))
        .map_err(|error| FileError::whole(file, format!("cannot be compiled: {error}")))?;
    worker.join().unwrap_or_else(|_| {
        Err(FileError::whole(
            file,
            "makes the compiler fail: this is a bug in kraken-head; the log says where",
        ))
    })
}

fn compile_here(file: &str, text: &str) -> Result<Extension, FileError> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Carried {
        file: file.to_owned(),
        text: text.to_owned(),
    });
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    if let Err(error) = compiler.open_file(file) {
        return Err(explained(file, text, &error));
    }
    let descriptors = compiler.encode_file_descriptor_set();
    let extensions = Extension::all(&descriptors).map_err(|misfit| FileError {
        file: file.to_owned(),
        line: misfit.line,
        text: match misfit.error {
            DescriptorError::NoOptions(_) | DescriptorError::NoExtension => format!(
                "declares no extension: import \"{OPTIONS}\" and write a message with option (kraken.v1.extension) = \"site\" and the values that it gives to nodes"
            ),
            error => error.to_string(),
        },
    })?;
    match <[Extension; 1]>::try_from(extensions) {
        Ok([extension]) if !extension.name.is_empty() => Ok(extension),
        Ok(_) => Err(FileError::whole(
            file,
            "an extension needs a name: option (kraken.v1.extension) = \"site\"",
        )),
        Err(several) => {
            let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
            Err(FileError::whole(
                file,
                format!(
                    "declares {}: give each extension a file of its own",
                    names.join(" and ")
                ),
            ))
        }
    }
}

/// The compiler's error with its line and, where we know, with what to do.
fn explained(file: &str, source: &str, error: &protox::Error) -> FileError {
    // Its debug form begins `file:line:column: ` where it knows the place.
    let long = format!("{error:?}");
    let line = long
        .strip_prefix(&format!("{file}:"))
        .and_then(|rest| rest.split(':').next())
        .and_then(|line| line.parse().ok());
    let mut text = error.to_string();
    let at = line.and_then(|line: u32| source.lines().nth(line.checked_sub(1)? as usize));
    let imports = at.is_some_and(|at| at.trim_start().starts_with("import"));
    if text == "invalid group name" && imports {
        // What protox 0.9 calls a path that is not plain.
        text = format!(
            "a file is imported by a plain path, without \"..\" and \"/\" at its front: an extension imports {OPTIONS} and google/protobuf/*.proto only"
        );
    } else if text.contains("not found") && text.contains("import") {
        text.push_str(&format!(
            ": an extension imports {OPTIONS} and google/protobuf/*.proto only; put what it needs into the file itself"
        ));
    } else if text.contains("kraken.v1.") {
        text.push_str(&format!(": import \"{OPTIONS}\" and look at its options"));
    }
    FileError {
        file: file.to_owned(),
        line,
        text,
    }
}

/// The file itself, and the options.
struct Carried {
    file: String,
    text: String,
}

impl FileResolver for Carried {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            OPTIONS => File::from_source(name, proto::OPTIONS),
            _ if name == self.file => File::from_source(name, &self.text),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The line on which a text nests too deep, outside of comments and texts in quotes.
fn too_deep(text: &str) -> Option<u32> {
    let mut depth = 0_usize;
    let mut line = 1;
    let mut rest = text.bytes().peekable();
    while let Some(byte) = rest.next() {
        match byte {
            b'\n' => line += 1,
            b'{' | b'[' | b'(' | b'<' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Some(line);
                }
            }
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            b'/' if rest.peek() == Some(&b'/') => {
                // The end of the line is counted by the next round.
                while rest.peek().is_some_and(|byte| *byte != b'\n') {
                    rest.next();
                }
            }
            b'/' if rest.peek() == Some(&b'*') => {
                rest.next();
                let mut last = 0;
                for byte in rest.by_ref() {
                    line += u32::from(byte == b'\n');
                    if last == b'*' && byte == b'/' {
                        break;
                    }
                    last = byte;
                }
            }
            quote @ (b'"' | b'\'') => {
                // A text ends at its quote or with its line, as the parser sees it; a backslash takes one more byte along.
                while let Some(byte) = rest.next_if(|byte| *byte != b'\n') {
                    if byte == quote {
                        break;
                    }
                    if byte == b'\\' {
                        rest.next_if(|byte| *byte != b'\n');
                    }
                }
            }
            _ => {}
        }
    }
    None
}
