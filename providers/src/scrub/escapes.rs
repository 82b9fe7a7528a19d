//! Reads a secret through the escapes of percent-encoding, JSON, HTML and mail, byte by byte as they stand.
//!
//! Every byte of the secret may be spelled in its own way, so one pass knows each mixture that a server may write: all
//! bytes escaped, or only those that its encoder minds. The reader is told which byte comes next, so it never guesses.

use super::End;

/// Which escapes are read as such. A number is how often the encoder may have been applied; what is off stays plain.
#[derive(Clone, Copy)]
pub(super) struct Escapes {
    /// RFC 3986, section 2.1.
    percent: u8,
    /// RFC 8259, section 7, and `\x73` of JavaScript and Python.
    json: u8,
    /// HTML, section 13.5: numbers in both bases, and the names of ASCII punctuation.
    html: u8,
    /// Quoted-printable, RFC 2045 section 6.7, with its soft line breaks.
    mail: bool,
    /// The end of one `data:` field of an event stream and the beginning of the next.
    events: bool,
}

/// What a text is to a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// It begins with the secret, which takes so many bytes.
    Whole(usize),
    /// All of it may be the secret's beginning.
    Beginning,
    Other,
}

/// One escape read.
#[derive(Clone, Copy)]
enum Step {
    Taken(usize),
    /// The text ends within it.
    Short,
    No,
}

impl Escapes {
    const NONE: Self = Self {
        percent: 0,
        json: 0,
        html: 0,
        mail: false,
        events: false,
    };
    const EVERY: Self = Self {
        percent: 3,
        json: 2,
        html: 2,
        mail: true,
        events: true,
    };
    /// No escapes at all.
    pub(super) const LITERAL: &'static [Self] = &[Self::NONE];

    /// How a secret must be read so that none of its spellings is missed.
    ///
    /// One reading is enough unless the secret itself holds a character that begins an escape. Then `%25` may be its
    /// `%` or three of its own bytes, depending on the encoder, so each encoder is tried by itself.
    pub(super) fn of(secret: &[u8]) -> &'static [Self] {
        const ANY: &[Escapes] = &[Escapes::EVERY];
        const EACH: &[Escapes] = &[
            Escapes {
                events: true,
                ..Escapes::NONE
            },
            Escapes {
                percent: 1,
                ..Escapes::NONE
            },
            Escapes {
                percent: 2,
                ..Escapes::NONE
            },
            Escapes {
                percent: 3,
                ..Escapes::NONE
            },
            Escapes {
                json: 1,
                ..Escapes::NONE
            },
            Escapes {
                json: 2,
                ..Escapes::NONE
            },
            Escapes {
                html: 1,
                ..Escapes::NONE
            },
            Escapes {
                html: 2,
                ..Escapes::NONE
            },
            Escapes {
                mail: true,
                ..Escapes::NONE
            },
            Escapes::EVERY,
        ];
        if secret
            .iter()
            .any(|byte| matches!(byte, b'%' | b'\\' | b'&' | b'='))
        {
            EACH
        } else {
            ANY
        }
    }

    /// Compares the secret with the beginning of `text`.
    pub(super) fn read(self, secret: &[u8], text: &[u8], end: End) -> Spelling {
        let short = match end {
            End::Open => Spelling::Beginning,
            End::Final => Spelling::Other,
        };
        let mut at = 0;
        for (index, &byte) in secret.iter().enumerate() {
            if index > 0 {
                match self.line_break(&text[at..], at) {
                    Step::Taken(taken) => at += taken,
                    Step::Short if end == End::Open => return short,
                    Step::Short | Step::No => {}
                }
            }
            match self.byte(&text[at..], byte, end) {
                Step::Taken(taken) => at += taken,
                Step::Short => return short,
                Step::No => return Spelling::Other,
            }
        }
        Spelling::Whole(at)
    }

    fn byte(self, text: &[u8], byte: u8, end: End) -> Step {
        let Some(&first) = text.first() else {
            return Step::Short;
        };
        let escaped = match first {
            b'%' => percent(text, byte, self.percent),
            b'\\' => json(text, byte, self.json),
            b'&' => html(text, byte, self.html, end),
            b'=' if self.mail => then(&text[1..], 1, |rest| hex(rest, byte)),
            _ => Step::No,
        };
        match escaped {
            Step::Taken(_) => escaped,
            Step::Short if end == End::Open => escaped,
            _ if first == byte => Step::Taken(1),
            Step::Short | Step::No => Step::No,
        }
    }

    /// A break between two bytes of the secret that the reader of the text takes out again.
    fn line_break(self, text: &[u8], at: usize) -> Step {
        match text.first() {
            Some(b'=') if self.mail => literal(text, b"=\n").or(|| literal(text, b"=\r\n")),
            // Of fewer bytes before the break, the end of every other event would have to wait for the next one.
            Some(b'\n' | b'\r') if self.events && at >= BEFORE_A_FIELD => next_field(text),
            _ => Step::No,
        }
    }
}

/// The next `data:` field, of the same event or of the next (HTML, section 9.2.6).
fn next_field(text: &[u8]) -> Step {
    let one = newline(text, 0);
    let two = match one {
        Step::Taken(taken) => newline(&text[taken..], taken),
        Step::Short | Step::No => one,
    };
    let newlines = match two {
        Step::No => one,
        Step::Taken(_) | Step::Short => two,
    };
    let Step::Taken(at) = newlines else {
        return newlines;
    };
    then(&text[at..], at, |rest| {
        literal(rest, b"data: ").or(|| literal(rest, b"data:"))
    })
}

fn newline(text: &[u8], before: usize) -> Step {
    then(text, before, |rest| {
        literal(rest, b"\n").or(|| literal(rest, b"\r\n"))
    })
}

/// `%73`, `%2573`, `%252573`, and `%25%37%33`.
fn percent(text: &[u8], byte: u8, times: u8) -> Step {
    const BEFORE: [&[u8]; 3] = [b"%", b"%25", b"%2525"];
    let once_more = || {
        if times < 2 {
            return Step::No;
        }
        after(text, b"%25", |rest| match escaped_digit(rest, byte >> 4) {
            Step::Taken(taken) => {
                then(&rest[taken..], taken, |rest| escaped_digit(rest, byte & 15))
            }
            other => other,
        })
    };
    // The longest first: `%2525` is a `%` that was escaped twice, unless it was escaped once and `25` follows it.
    BEFORE[..usize::from(times).min(BEFORE.len())]
        .iter()
        .rev()
        .fold(once_more(), |found, before| {
            found.or(|| after(text, before, |rest| hex(rest, byte)))
        })
}

/// A hexadecimal digit that was escaped itself: `%37`, `%62` or `%42`.
fn escaped_digit(text: &[u8], digit: u8) -> Step {
    let low = DIGITS[usize::from(digit & 15)];
    after(text, b"%", |rest| {
        hex(rest, low).or(|| hex(rest, low.to_ascii_uppercase()))
    })
}

/// `\u0073`, `\x73`, `\/`, and each of them once more escaped.
fn json(text: &[u8], byte: u8, times: u8) -> Step {
    let most = match times {
        0 => return Step::No,
        1 => 1,
        _ => 3,
    };
    let slashes = text.iter().take_while(|&&byte| byte == b'\\').count();
    let escaped = if slashes > most {
        Step::No
    } else {
        then(&text[slashes..], slashes, |rest| {
            short(rest, byte)
                .or(|| after(rest, b"u00", |rest| hex(rest, byte)))
                .or(|| after(rest, b"x", |rest| hex(rest, byte)))
        })
    };
    escaped
        .or(|| match (byte, times) {
            (b'\\', 2..) => literal(text, br"\\\\"),
            _ => Step::No,
        })
        .or(|| match byte {
            b'\\' => literal(text, br"\\"),
            _ => Step::No,
        })
}

/// What follows the backslashes of a short escape.
fn short(text: &[u8], byte: u8) -> Step {
    match byte {
        b'/' | b'"' | b'\'' => literal(text, &[byte]),
        b'\n' => literal(text, b"n"),
        b'\r' => literal(text, b"r"),
        b'\t' => literal(text, b"t"),
        _ => Step::No,
    }
}

/// `&#115;`, `&#x73;` and `&lowbar;`, and each of them with its `&` as `&amp;`.
fn html(text: &[u8], byte: u8, times: u8, end: End) -> Step {
    let twice = if times > 1 {
        after(text, b"&amp;", |rest| reference(rest, byte, end))
    } else {
        Step::No
    };
    twice.or(|| match times {
        0 => Step::No,
        _ => after(text, b"&", |rest| reference(rest, byte, end)),
    })
}

/// What follows the `&`.
fn reference(text: &[u8], byte: u8, end: End) -> Step {
    after(text, b"#x", |rest| number(rest, byte, 16, end))
        .or(|| after(text, b"#", |rest| number(rest, byte, 10, end)))
        .or(|| {
            names(byte).fold(Step::No, |found, name| {
                found.or(|| match literal(text, name.as_bytes()) {
                    Step::Taken(taken) => then(&text[taken..], taken, |rest| literal(rest, b";")),
                    other => other,
                })
            })
        })
}

/// A number in base ten or sixteen, with the semicolon that browsers miss as little as its digits need it to end
/// (HTML, section 13.2.5.75).
fn number(text: &[u8], byte: u8, base: u8, end: End) -> Step {
    let mut expected = [b'0'; 3];
    let (mut rest, mut first) = (byte, 3);
    while rest > 0 {
        first -= 1;
        expected[first] = DIGITS[usize::from(rest % base)];
        rest /= base;
    }
    let digits = 3 - first;
    let zeros = text.iter().take_while(|&&digit| digit == b'0').count();
    if zeros + digits > MOST_DIGITS {
        return Step::No;
    }
    let length = match literal(&text[zeros..], &expected[first..]) {
        Step::Taken(taken) => zeros + taken,
        other => return other,
    };
    match (text.get(length), end) {
        (Some(b';'), _) => Step::Taken(length + 1),
        (Some(next), _) if char::from(*next).is_digit(u32::from(base)) => Step::No,
        (None, End::Open) => Step::Short,
        (Some(_), _) | (None, End::Final) => Step::Taken(length),
    }
}

/// The two digits of a byte, of either case.
fn hex(text: &[u8], byte: u8) -> Step {
    let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    literal(text, &digits)
}

/// `expected`, whose letters may be of either case: numbers do not mind it, and no two of these names differ in it alone.
fn literal(text: &[u8], expected: &[u8]) -> Step {
    let shared = text.len().min(expected.len());
    if !text[..shared].eq_ignore_ascii_case(&expected[..shared]) {
        Step::No
    } else if shared < expected.len() {
        Step::Short
    } else {
        Step::Taken(shared)
    }
}

/// `before`, and then what `next` reads.
fn after(text: &[u8], before: &[u8], next: impl FnOnce(&[u8]) -> Step) -> Step {
    match literal(text, before) {
        Step::Taken(taken) => then(&text[taken..], taken, next),
        other => other,
    }
}

/// What `next` reads of the rest, behind `taken` bytes.
fn then(rest: &[u8], taken: usize, next: impl FnOnce(&[u8]) -> Step) -> Step {
    match next(rest) {
        Step::Taken(more) => Step::Taken(taken + more),
        other => other,
    }
}

impl Step {
    /// The first of two readings that may be right.
    fn or(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => other(),
            Self::Taken(_) | Self::Short => self,
        }
    }
}

/// The names of a byte among HTML's character references. `-` has none; its look-alikes are written for it.
pub(super) fn names(byte: u8) -> impl Iterator<Item = &'static str> {
    let place = NAMES.partition_point(|(named, _)| *named < byte);
    NAMES[place..]
        .iter()
        .take_while(move |(named, _)| *named == byte)
        .map(|(_, name)| *name)
}

/// By byte.
const NAMES: [(u8, &str); 40] = [
    (b'!', "excl"),
    (b'"', "quot"),
    (b'#', "num"),
    (b'$', "dollar"),
    (b'%', "percnt"),
    (b'&', "amp"),
    (b'\'', "apos"),
    (b'(', "lpar"),
    (b')', "rpar"),
    (b'*', "ast"),
    (b'*', "midast"),
    (b'+', "plus"),
    (b',', "comma"),
    (b'-', "hyphen"),
    (b'-', "dash"),
    (b'.', "period"),
    (b'/', "sol"),
    (b':', "colon"),
    (b';', "semi"),
    (b'<', "lt"),
    (b'=', "equals"),
    (b'>', "gt"),
    (b'?', "quest"),
    (b'@', "commat"),
    (b'[', "lsqb"),
    (b'[', "lbrack"),
    (b'\\', "bsol"),
    (b']', "rsqb"),
    (b']', "rbrack"),
    (b'^', "Hat"),
    (b'_', "lowbar"),
    (b'_', "UnderBar"),
    (b'`', "grave"),
    (b'{', "lcub"),
    (b'{', "lbrace"),
    (b'|', "verbar"),
    (b'|', "vert"),
    (b'}', "rcub"),
    (b'}', "rbrace"),
    (b'~', "tilde"),
];

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Digits of a number in HTML, with the zeros before it.
const MOST_DIGITS: usize = 7;

/// How many bytes of the secret a field of an event must end in.
const BEFORE_A_FIELD: usize = 4;

/// What one byte of a secret takes at most: `\r\n\r\ndata: ` before it, and `&amp;#x0000073;`.
pub(super) const LONGEST_BYTE: usize = 10 + 15;

#[cfg(test)]
mod tests;
