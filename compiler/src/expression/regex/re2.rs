//! What RE2 reads otherwise than `regex-syntax`: it is refused, or given RE2's meaning.

use regex_syntax::ast::{self, Ast, ClassSet, ClassSetItem, visit};

/// Repetitions that RE2 counts to, those of nested ones multiplied.
const MAX_REPETITIONS: u32 = 1_000;

/// RE2's classes of characters by the general category, and of all characters.
const CATEGORIES: &str = "Any C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm \
    So Z Zl Zp Zs";

/// RE2's classes of characters by the script: Unicode's long names.
const SCRIPTS: &str = "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki \
    Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee \
    Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan \
    Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Garay Georgian Glagolitic Gothic Grantha Greek Gujarati \
    Gunjala_Gondi Gurmukhi Gurung_Khema Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic \
    Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi \
    Khitan_Small_Script Khmer Khojki Khudawadi Kirat_Rai Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian \
    Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui \
    Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari \
    New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Ol_Onal Old_Hungarian Old_Italic \
    Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya \
    Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada \
    Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Sunuwar Syloti_Nagri Syriac Tagalog \
    Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Todhri \
    Toto Tulu_Tigalari Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square";

/// A problem and its place.
pub(super) fn at(span: &ast::Span, problem: impl std::fmt::Display) -> String {
    format!("{problem} (character {})", span.start.column)
}

/// Why an expression does not parse.
pub(super) fn describe(error: &ast::Error) -> String {
    let span = error.span();
    let text = error.pattern().get(span.start.offset..span.end.offset).unwrap_or_default();
    match (error.kind(), text) {
        (ast::ErrorKind::EscapeUnrecognized, r"\Q" | r"\E") => {
            at(span, format!("`{text}` is left out: put a `\\` before each character instead"))
        }
        (ast::ErrorKind::EscapeUnrecognized, _) => at(span, format!("`{text}` is not known")),
        (
            ast::ErrorKind::RepetitionCountDecimalEmpty
            | ast::ErrorKind::RepetitionCountUnclosed
            | ast::ErrorKind::SpecialWordBoundaryUnclosed
            | ast::ErrorKind::SpecialWordBoundaryUnrecognized
            | ast::ErrorKind::SpecialWordOrRepetitionUnexpectedEof,
            _,
        ) => at(span, "a brace that is no repetition: write `\\{`"),
        (ast::ErrorKind::RepetitionMissing, _) => at(span, "there is nothing to repeat"),
        (kind, _) => at(span, kind),
    }
}

/// Refuses what RE2 does not read, or reads otherwise.
pub(super) fn check(pattern: &str, tree: &Ast) -> Result<(), String> {
    visit(tree, OnlyRe2 { pattern, repetitions: vec![MAX_REPETITIONS] })
}

struct OnlyRe2<'a> {
    pattern: &'a str,
    /// How many repetitions are left within each repetition that is open.
    repetitions: Vec<u32>,
}

impl ast::Visitor for OnlyRe2<'_> {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), String> {
        match node {
            Ast::Flags(flags) => only_known_flags(&flags.flags),
            Ast::Group(group) => self.group(group),
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText
                | ast::AssertionKind::WordBoundary
                | ast::AssertionKind::NotWordBoundary
                | ast::AssertionKind::WordBoundaryStartAngle
                | ast::AssertionKind::WordBoundaryEndAngle => Ok(()),
                _ => Err(self.none("", &assertion.span, "")),
            },
            Ast::Repetition(repetition) => self.repetition(repetition),
            Ast::Literal(literal) => self.literal(literal),
            Ast::ClassUnicode(class) => self.class(class),
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, node: &Ast) -> Result<(), String> {
        if let Ast::Repetition(_) = node {
            self.repetitions.pop();
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ast::ClassSetBinaryOp) -> Result<(), String> {
        let symbol = match op.kind {
            ast::ClassSetBinaryOpKind::Intersection => "&&",
            ast::ClassSetBinaryOpKind::Difference => "--",
            ast::ClassSetBinaryOpKind::SymmetricDifference => "~~",
        };
        Err(at(&op.span, format!("RE2 has no operation `{symbol}` on classes: write the character once")))
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(class) => {
                Err(at(&class.span, "RE2 has no class within a class: write `\\[` for the character"))
            }
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => self.literal(&range.start).and(self.literal(&range.end)),
            ClassSetItem::Unicode(class) => self.class(class),
            _ => Ok(()),
        }
    }
}

impl OnlyRe2<'_> {
    fn text(&self, span: &ast::Span) -> &str {
        self.pattern.get(span.start.offset..span.end.offset).unwrap_or_default()
    }

    /// That RE2 has nothing like the text at a place.
    fn none(&self, what: &str, span: &ast::Span, instead: &str) -> String {
        at(span, format!("RE2 has no {what}`{}`{instead}", self.text(span)))
    }

    fn group(&self, group: &ast::Group) -> Result<(), String> {
        match &group.kind {
            ast::GroupKind::NonCapturing(flags) => only_known_flags(flags),
            ast::GroupKind::CaptureName { name, .. } if name.name.contains(['.', '[', ']']) => {
                Err(self.none("group name ", &name.span, ": write letters, digits and `_`"))
            }
            _ => Ok(()),
        }
    }

    fn repetition(&mut self, repetition: &ast::Repetition) -> Result<(), String> {
        let span = &repetition.op.span;
        if let Ast::Repetition(inner) = &*repetition.ast {
            let both = ast::Span::new(inner.op.span.start, span.end);
            return Err(self.none("", &both, ": put what the first one repeats into a group, `(?:a*)*`"));
        }
        let mut left = self.repetitions.last().copied().unwrap_or_default();
        if let ast::RepetitionKind::Range(range) = &repetition.op.kind {
            if self.text(span).contains(char::is_whitespace) {
                return Err(at(span, "a brace that is no repetition: write it without blanks, or `\\{`"));
            }
            let largest = match *range {
                ast::RepetitionRange::Exactly(n) | ast::RepetitionRange::AtLeast(n) => n,
                ast::RepetitionRange::Bounded(_, high) => high,
            };
            left /= largest.max(1);
            if left == 0 {
                let problem =
                    format!("more than {MAX_REPETITIONS} repetitions, those of nested ones multiplied");
                return Err(at(span, problem));
            }
        }
        self.repetitions.push(left);
        Ok(())
    }

    fn literal(&self, literal: &ast::Literal) -> Result<(), String> {
        use ast::HexLiteralKind::{UnicodeLong, UnicodeShort};
        match literal.kind {
            ast::LiteralKind::HexFixed(UnicodeShort | UnicodeLong)
            | ast::LiteralKind::HexBrace(UnicodeShort | UnicodeLong) => {
                let instead = format!(": write `\\x{{{:X}}}`", u32::from(literal.c));
                Err(self.none("", &literal.span, &instead))
            }
            // RE2 reads `\0` and two or three digits as a character, one digit as what it does not have.
            ast::LiteralKind::Octal if self.text(&literal.span).len() == 2 && literal.c != '\0' => {
                Err(self.none("backreference ", &literal.span, ""))
            }
            _ => Ok(()),
        }
    }

    fn class(&self, class: &ast::ClassUnicode) -> Result<(), String> {
        let instead = match &class.kind {
            ast::ClassUnicodeKind::OneLetter(letter) if has_class(letter.encode_utf8(&mut [0; 4])) => {
                return Ok(());
            }
            ast::ClassUnicodeKind::Named(name) if has_class(name.strip_prefix('^').unwrap_or(name)) => {
                return Ok(());
            }
            ast::ClassUnicodeKind::NamedValue { value, .. } if has_class(value) => {
                format!(": write `\\p{{{value}}}`")
            }
            _ => ": it has general categories, for example `\\p{Lu}`, and scripts, for example `\\p{Greek}`"
                .into(),
        };
        Err(self.none("class ", &class.span, &instead))
    }
}

fn has_class(name: &str) -> bool {
    [CATEGORIES, SCRIPTS].iter().any(|names| names.split_ascii_whitespace().any(|known| known == name))
}

fn only_known_flags(flags: &ast::Flags) -> Result<(), String> {
    let unknown = flags.items.iter().find_map(|item| match item.kind {
        ast::FlagsItemKind::Flag(ast::Flag::Unicode) => Some((item, 'u')),
        ast::FlagsItemKind::Flag(ast::Flag::CRLF) => Some((item, 'R')),
        ast::FlagsItemKind::Flag(ast::Flag::IgnoreWhitespace) => Some((item, 'x')),
        _ => None,
    });
    unknown.map_or(Ok(()), |(item, flag)| {
        Err(at(&item.span, format!("RE2 has no flag `{flag}`: it has `i`, `m`, `s` and `U`")))
    })
}

/// Gives RE2's meaning to what `regex-syntax` reads otherwise: `\d`, `\s`, `\w` and `\b` are about ASCII only, `\<` and
/// `\>` are the characters, and `^` negates in `\p{^Greek}`.
pub(super) fn give_meaning(node: &mut Ast) {
    match node {
        Ast::ClassPerl(class) => {
            *node = Ast::class_bracketed(ast::ClassBracketed {
                span: class.span,
                negated: false,
                kind: ClassSet::Item(ascii_class(class)),
            });
        }
        Ast::Assertion(assertion) => {
            use ast::AssertionKind as Kind;
            let span = assertion.span;
            let literal = |c| Ast::literal(ast::Literal { span, kind: ast::LiteralKind::Superfluous, c });
            match assertion.kind {
                Kind::WordBoundary | Kind::NotWordBoundary => *node = without_unicode(assertion),
                Kind::WordBoundaryStartAngle => *node = literal('<'),
                Kind::WordBoundaryEndAngle => *node = literal('>'),
                _ => {}
            }
        }
        Ast::ClassUnicode(class) => negate_by_name(class),
        Ast::ClassBracketed(class) => {
            if let ClassSet::Item(item) = &mut class.kind {
                give_item_meaning(item);
            }
        }
        Ast::Repetition(repetition) => give_meaning(&mut repetition.ast),
        Ast::Group(group) => give_meaning(&mut group.ast),
        Ast::Alternation(alternation) => alternation.asts.iter_mut().for_each(give_meaning),
        Ast::Concat(concat) => concat.asts.iter_mut().for_each(give_meaning),
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) => {}
    }
}

fn give_item_meaning(item: &mut ClassSetItem) {
    match item {
        ClassSetItem::Perl(class) => *item = ascii_class(class),
        ClassSetItem::Unicode(class) => negate_by_name(class),
        ClassSetItem::Union(union) => union.items.iter_mut().for_each(give_item_meaning),
        _ => {}
    }
}

/// `(?-u:\b)`
fn without_unicode(assertion: &ast::Assertion) -> Ast {
    let span = assertion.span;
    let item = |kind| ast::FlagsItem { span, kind };
    let flags = ast::Flags {
        span,
        items: vec![item(ast::FlagsItemKind::Negation), item(ast::FlagsItemKind::Flag(ast::Flag::Unicode))],
    };
    Ast::group(ast::Group {
        span,
        kind: ast::GroupKind::NonCapturing(flags),
        ast: Box::new(Ast::assertion(assertion.clone())),
    })
}

/// `\p{^Greek}` as `\P{Greek}`.
fn negate_by_name(class: &mut ast::ClassUnicode) {
    if let ast::ClassUnicodeKind::Named(name) = &mut class.kind
        && let Some(negated) = name.strip_prefix('^')
    {
        *name = negated.into();
        class.negated = !class.negated;
    }
}

/// `\d` as `[0-9]`, and so on; negated ones as the rest of Unicode.
fn ascii_class(class: &ast::ClassPerl) -> ClassSetItem {
    let span = class.span;
    let ranges: &[(char, char)] = match class.kind {
        ast::ClassPerlKind::Digit => &[('0', '9')],
        ast::ClassPerlKind::Space => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        ast::ClassPerlKind::Word => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
    };
    let literal = |c| ast::Literal { span, kind: ast::LiteralKind::Verbatim, c };
    let range = |(start, end): &(char, char)| {
        ClassSetItem::Range(ast::ClassSetRange { span, start: literal(*start), end: literal(*end) })
    };
    let items = ranges.iter().map(range).collect();
    let set = ClassSet::Item(ClassSetItem::Union(ast::ClassSetUnion { span, items }));
    ClassSetItem::Bracketed(Box::new(ast::ClassBracketed { span, negated: class.negated, kind: set }))
}
