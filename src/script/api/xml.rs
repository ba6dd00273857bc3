//! `setpoint.xml`: XML text to plain tables, and ways to find things in them.
//!
//! The reader makes Lua values straight away, so that the VM's own memory limit counts them. It knows the five
//! entities that XML itself has and no others, so no document can blow itself up; document types are passed over.
//! Namespaces are dropped: elements and attributes go by their local names.

use mlua::{Lua, Table, Value};
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::args::{Args, describe, plain, quoted, text};
use super::{Access, FunctionDoc, ModuleDoc};
use crate::script::call::HostShared;

/// The deepest nesting that is read.
const MOST_DEPTH: usize = 64;

/// What a path is, for errors.
const A_PATH: &str = "a path such as \"job/resources/resource\"";

pub(super) const MODULE: ModuleDoc = ModuleDoc {
    name: "xml",
    doc: "XML text to tables. Names are local ones: prefixes of namespaces are dropped.",
    types: &[
        "@class (exact) setpoint.xml.Element",
        "@field name string",
        "@field attributes table<string, string>",
        "@field children setpoint.xml.Element[] Its elements, in order.",
        "@field text string Its own text, that of its children left out, without white space at both ends.",
    ],
    fields: &[],
    functions: &[
        FunctionDoc {
            name: "decode",
            params: &[("text", "string")],
            returns: &["setpoint.xml.Element"],
            access: Access::Pure,
            doc: "The root element of a document. At most 64 levels deep and as long as the host's `body` limit; \
                  anything that is not well-formed raises, with where.",
        },
        FunctionDoc {
            name: "find",
            params: &[("element", "setpoint.xml.Element"), ("path", "string")],
            returns: &["setpoint.xml.Element?"],
            access: Access::Pure,
            doc: "The first element below one, by its path of names; `*` is any name. Nil when there is none.",
        },
        FunctionDoc {
            name: "find_all",
            params: &[("element", "setpoint.xml.Element"), ("path", "string")],
            returns: &["setpoint.xml.Element[]"],
            access: Access::Pure,
            doc: "All elements below one that a path of names leads to, in the document's order; `*` is any name.",
        },
    ],
    register,
};

fn register(lua: &Lua) -> mlua::Result<Table> {
    let module = lua.create_table()?;
    module.raw_set(
        "decode",
        plain(lua, "xml.decode", 1, |lua, args| {
            let document = args.text(1, "XML text in UTF-8")?;
            let most = HostShared::of(lua)?.limits.body;
            if document.len() > most {
                let got = document.len();
                return Err(args.error(format!("expected XML of at most {most} bytes, got {got}")));
            }
            decode(lua, &document).map_err(|problem| args.error(problem))
        })?,
    )?;
    let find = plain(lua, "xml.find", 2, |_, args| Ok(find_all(args, 1)?.into_iter().next()))?;
    module.raw_set("find", find)?;
    module.raw_set(
        "find_all",
        plain(lua, "xml.find_all", 2, |lua, args| lua.create_sequence_from(find_all(args, usize::MAX)?))?,
    )?;
    Ok(module)
}

/// An element that is being read.
struct Open {
    table: Table,
    children: Table,
    text: String,
}

fn decode(lua: &Lua, document: &str) -> Result<Table, String> {
    let document = document.trim_start_matches('\u{feff}');
    let mut reader = Reader::from_str(document);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    loop {
        let before = reader.buffer_position();
        let event = reader.read_event();
        let here = |problem: &str| format!("expected XML, got {problem} {}", place(document, before));
        match event.map_err(|error| format!("expected XML: {error} {}", place(document, reader.error_position())))? {
            Event::Start(start) => {
                if root.is_some() && open.is_empty() {
                    return Err(here("a second root element"));
                }
                if open.len() == MOST_DEPTH {
                    return Err(here(&format!("elements more than {MOST_DEPTH} levels deep")));
                }
                let element = element(lua, &start).map_err(|problem| here(&problem))?;
                open.push(element);
            }
            Event::End(_) => {
                // The reader has seen that it ends the element that is open.
                let Some(closed) = open.pop() else { continue };
                let table = close(closed).map_err(|error| error.to_string())?;
                match open.last() {
                    Some(parent) => parent.children.raw_push(table).map_err(|error| error.to_string())?,
                    None => root = Some(table),
                }
            }
            Event::Text(text) => match open.last_mut() {
                Some(element) => element.text.push_str(&text.xml10_content()),
                None if text.trim().is_empty() => {}
                None => return Err(here("text outside of the root element")),
            },
            Event::CData(text) => match open.last_mut() {
                Some(element) => element.text.push_str(&text.xml10_content()),
                None => return Err(here("text outside of the root element")),
            },
            Event::GeneralRef(reference) => match (open.last_mut(), resolve(&reference)) {
                (Some(element), Some(text)) => element.text.push_str(&text),
                (Some(_), None) => return Err(here(&format!("the unknown entity {}", quoted(&reference)))),
                (None, _) => return Err(here("text outside of the root element")),
            },
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if let Some(unclosed) = open.last() {
        let name: String = unclosed.table.raw_get("name").map_err(|error| error.to_string())?;
        return Err(format!("expected XML, got its end before the end of <{name}>"));
    }
    root.ok_or_else(|| format!("expected XML, got {}", quoted(document.get(..64).unwrap_or(document))))
}

fn element(lua: &Lua, start: &BytesStart<'_>) -> Result<Open, String> {
    let failed = |error: mlua::Error| error.to_string();
    let table = lua.create_table().map_err(failed)?;
    table.raw_set("name", start.local_name().as_ref()).map_err(failed)?;
    let attributes = lua.create_table().map_err(failed)?;
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        attributes.raw_set(attribute.key.local_name().as_ref(), &*value).map_err(failed)?;
    }
    table.raw_set("attributes", attributes).map_err(failed)?;
    Ok(Open { table, children: lua.create_table().map_err(failed)?, text: String::new() })
}

fn close(element: Open) -> mlua::Result<Table> {
    let Open { table, children, text } = element;
    table.raw_set("children", children)?;
    table.raw_set("text", text.trim())?;
    Ok(table)
}

/// What a reference stands for: a character, or one of XML's own five entities.
fn resolve(reference: &BytesRef<'_>) -> Option<String> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) => Some(character.to_string()),
        Ok(None) => resolve_predefined_entity(reference).map(str::to_owned),
        Err(_) => None,
    }
}

/// Line and column of a byte, as people count them.
fn place(document: &str, at: u64) -> String {
    let at = usize::try_from(at).unwrap_or(usize::MAX).min(document.len());
    let before = &document.as_bytes()[..at];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = at - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
    format!("at line {line} column {column}")
}

/// The first `most` elements that argument 2, a path, leads to from argument 1.
fn find_all(args: &Args, most: usize) -> mlua::Result<Vec<Table>> {
    let mut found = vec![args.table(1, "an element of `xml.decode`")?];
    let path = args.text(2, A_PATH)?;
    let names: Vec<&str> = path.split('/').collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err(args.wrong(2, A_PATH));
    }
    for (depth, name) in names.iter().enumerate() {
        let last = depth + 1 == names.len();
        let mut below = Vec::new();
        for element in &found {
            for child in children(args, element)? {
                if *name == "*" || text(&child.raw_get("name")?).is_some_and(|own| own == *name) {
                    below.push(child);
                }
                if last && below.len() == most {
                    return Ok(below);
                }
            }
        }
        found = below;
    }
    Ok(found)
}

fn children(args: &Args, element: &Table) -> mlua::Result<Vec<Table>> {
    let got: Value = element.raw_get("children")?;
    let children = got.as_table().map(|children| children.sequence_values::<Table>().collect());
    children
        .unwrap_or_else(|| Err(args.error(format!("expected an element with children, got {} there", describe(&got)))))
}
