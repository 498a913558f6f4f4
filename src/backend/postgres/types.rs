//! PostgreSQL's types: their names as `format_type` gives them, and how their text becomes JSON.
//!
//! Types that every server has under the same OID are known here. Others (enums, composites, extensions) are asked for
//! once a pool and kept in [`TypeNames`]; `lookup.rs` says when.

use std::{borrow::Cow, collections::HashMap};

use parking_lot::RwLock;

use crate::backend::work::Shape;

/// A type with its modifier, as a result's description names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TypeId {
    /// `pg_type.oid`.
    pub(super) oid: u32,
    /// `pg_attribute.atttypmod`; -1 for none.
    pub(super) modifier: i32,
}

/// What a column needs to know about its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TypeInfo {
    /// `format_type`'s name.
    pub(super) name: Cow<'static, str>,
    /// How its text becomes JSON.
    pub(super) shape: Shape,
}

/// Types found on a server, kept for a pool's life. A type that is renamed keeps its old name here until then.
#[derive(Debug, Default)]
pub(super) struct TypeNames(RwLock<HashMap<TypeId, TypeInfo>>);

/// Most types kept. A database with more in its answers is asked anew now and then.
const MOST: usize = 4096;

struct Builtin {
    name: &'static str,
    array: &'static str,
    element: u32,
    is_array: bool,
    shape: Shape,
}

impl TypeNames {
    /// What is known about a type.
    pub(super) fn get(&self, id: TypeId) -> Option<TypeInfo> {
        of_builtin(id).or_else(|| self.0.read().get(&id).cloned())
    }

    /// Keeps what was found.
    pub(super) fn insert(&self, id: TypeId, info: TypeInfo) {
        let mut types = self.0.write();
        if types.len() >= MOST {
            types.clear();
        }
        types.insert(id, info);
    }
}

/// The shape of a type that every server has; text for others.
pub(super) fn shape_of(oid: u32) -> Shape {
    builtin(oid).map_or(Shape::Text, Builtin::shape)
}

/// Wraps an element's shape into that of its array.
pub(super) fn array_of(element: Shape, delimiter: u8) -> Shape {
    Shape::Array(Box::new(element), delimiter)
}

fn of_builtin(id: TypeId) -> Option<TypeInfo> {
    let found = builtin(id.oid)?;
    let name = match (modified(found.element, id.modifier), found.is_array) {
        (Some(name), false) => Cow::Owned(name),
        (Some(name), true) => Cow::Owned(name + "[]"),
        (None, false) => Cow::Borrowed(found.name),
        (None, true) => Cow::Borrowed(found.array),
    };
    Some(TypeInfo { name, shape: found.shape() })
}

impl Builtin {
    fn shape(self) -> Shape {
        let delimiter = if self.element == BOX { b';' } else { b',' };
        if self.is_array { array_of(self.shape, delimiter) } else { self.shape }
    }
}

// === modifiers, as `format_type_extended` and the types' own `typmodout` functions write them ===

const BOX: u32 = 603;

fn modified(oid: u32, modifier: i32) -> Option<String> {
    if modifier < 0 {
        return None;
    }
    let length = modifier - 4;
    Some(match oid {
        1042 if length > 0 => format!("character({length})"),
        1042 => "character".to_owned(),
        1043 if length > 0 => format!("character varying({length})"),
        1083 => format!("time({modifier}) without time zone"),
        1114 => format!("timestamp({modifier}) without time zone"),
        1184 => format!("timestamp({modifier}) with time zone"),
        1186 => interval(modifier),
        1266 => format!("time({modifier}) with time zone"),
        1560 => format!("bit({modifier})"),
        1562 => format!("bit varying({modifier})"),
        1700 if length >= 0 => format!("numeric({},{})", length >> 16 & 0xffff, ((length & 0x7ff) ^ 1024) - 1024),
        _ => return None,
    })
}

fn interval(modifier: i32) -> String {
    let fields = match modifier >> 16 & 0x7fff {
        4 => " year",
        2 => " month",
        8 => " day",
        0x400 => " hour",
        0x800 => " minute",
        0x1000 => " second",
        6 => " year to month",
        0x408 => " day to hour",
        0xc08 => " day to minute",
        0x1c08 => " day to second",
        0xc00 => " hour to minute",
        0x1c00 => " hour to second",
        0x1800 => " minute to second",
        _ => "",
    };
    match modifier & 0xffff {
        0xffff => format!("interval{fields}"),
        precision => format!("interval{fields}({precision})"),
    }
}

// === the table ===

macro_rules! builtins {
    ($($oid:literal $array:literal $name:literal $shape:ident,)*) => {
        fn builtin(oid: u32) -> Option<Builtin> {
            Some(match oid {
                $($oid | $array => Builtin {
                    name: $name,
                    array: concat!($name, "[]"),
                    element: $oid,
                    is_array: oid == $array,
                    shape: Shape::$shape,
                },)*
                _ => return lone(oid),
            })
        }
    };
}

/// Types without an array type of their own, or whose text is no array literal.
fn lone(oid: u32) -> Option<Builtin> {
    let name = match oid {
        22 => "int2vector",
        30 => "oidvector",
        194 => "pg_node_tree",
        705 => "unknown",
        2249 => "record",
        2275 => "cstring",
        2278 => "void",
        _ => return None,
    };
    Some(Builtin { name, array: name, element: oid, is_array: false, shape: Shape::Text })
}

// `pg_type` of PostgreSQL 15, OIDs below 10000 (assigned by hand, the same on every server).
builtins! {
    16 1000 "boolean" Bool,
    17 1001 "bytea" Text,
    18 1002 "\"char\"" Text,
    19 1003 "name" Text,
    20 1016 "bigint" Text,
    21 1005 "smallint" Number,
    23 1007 "integer" Number,
    24 1008 "regproc" Text,
    25 1009 "text" Text,
    26 1028 "oid" Number,
    27 1010 "tid" Text,
    28 1011 "xid" Text,
    29 1012 "cid" Text,
    114 199 "json" Json,
    142 143 "xml" Text,
    600 1017 "point" Text,
    601 1018 "lseg" Text,
    602 1019 "path" Text,
    603 1020 "box" Text,
    604 1027 "polygon" Text,
    628 629 "line" Text,
    650 651 "cidr" Text,
    700 1021 "real" Float,
    701 1022 "double precision" Float,
    718 719 "circle" Text,
    774 775 "macaddr8" Text,
    790 791 "money" Text,
    829 1040 "macaddr" Text,
    869 1041 "inet" Text,
    1033 1034 "aclitem" Text,
    1042 1014 "bpchar" Text,
    1043 1015 "character varying" Text,
    1082 1182 "date" Text,
    1083 1183 "time without time zone" Text,
    1114 1115 "timestamp without time zone" Text,
    1184 1185 "timestamp with time zone" Text,
    1186 1187 "interval" Text,
    1266 1270 "time with time zone" Text,
    1560 1561 "\"bit\"" Text,
    1562 1563 "bit varying" Text,
    1700 1231 "numeric" Text,
    1790 2201 "refcursor" Text,
    2202 2207 "regprocedure" Text,
    2203 2208 "regoper" Text,
    2204 2209 "regoperator" Text,
    2205 2210 "regclass" Text,
    2206 2211 "regtype" Text,
    2950 2951 "uuid" Text,
    2970 2949 "txid_snapshot" Text,
    3220 3221 "pg_lsn" Text,
    3614 3643 "tsvector" Text,
    3615 3645 "tsquery" Text,
    3642 3644 "gtsvector" Text,
    3734 3735 "regconfig" Text,
    3769 3770 "regdictionary" Text,
    3802 3807 "jsonb" Json,
    3904 3905 "int4range" Text,
    3906 3907 "numrange" Text,
    3908 3909 "tsrange" Text,
    3910 3911 "tstzrange" Text,
    3912 3913 "daterange" Text,
    3926 3927 "int8range" Text,
    4072 4073 "jsonpath" Text,
    4089 4090 "regnamespace" Text,
    4096 4097 "regrole" Text,
    4191 4192 "regcollation" Text,
    4451 6150 "int4multirange" Text,
    4532 6151 "nummultirange" Text,
    4533 6152 "tsmultirange" Text,
    4534 6153 "tstzmultirange" Text,
    4535 6155 "datemultirange" Text,
    4536 6157 "int8multirange" Text,
    5038 5039 "pg_snapshot" Text,
    5069 271 "xid8" Text,
}
