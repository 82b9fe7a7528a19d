//! A form's own word for the method. Frameworks (Rack, Symfony, Laravel, Express) let a field of a POST's form name another
//! method, and would carry out what policy did not see (threats.md B10). Nothing else of a body is read for policy: names of
//! fields are, as they pass, in bounded memory.

use http::Method;
use http::header::CONTENT_TYPE;
use memchr::memmem::Finder;
use percent_encoding::percent_decode;
use pingora::http::RequestHeader;
use providers::method::is_named_by;

use crate::refuse::{Code, Refusal};

/// The longest name of a field that is read, as it is written; what names a method has 66 bytes with all of it escaped.
const LONGEST_NAME: usize = 128;
/// The longest head of a part that is read.
const LONGEST_HEAD: usize = 16 * 1024;
/// The longest boundary that is taken; RFC 2046, section 5.1.1, asks for 70 at most, and some clients write more.
const LONGEST_BOUNDARY: usize = 200;

/// Reads the names of a form's fields as its body passes.
#[derive(Debug)]
pub(crate) struct FormNames(Kind);

#[derive(Debug)]
enum Kind {
    Pairs(Pairs),
    Parts(Box<Parts>),
}

impl FormNames {
    /// For a POST with a form in its body; `None` for any other request. Servers take one without a media type for a form, too.
    pub(crate) fn of(request: &RequestHeader) -> Result<Option<Self>, Refusal> {
        if request.method != Method::POST {
            return Ok(None);
        }
        let mut types = request.headers.get_all(CONTENT_TYPE).iter();
        let Some(media) = types.next() else {
            return Ok(Some(Self(Kind::Pairs(Pairs::default()))));
        };
        let media = String::from_utf8_lossy(media.as_bytes());
        let essence = media.split([';', ',']).next().unwrap_or_default().trim();
        let is = |family: &str| {
            let start = essence.get(..family.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(family))
        };
        let kind = if is("multipart/") {
            Kind::Parts(Box::new(Parts::of(&media)?))
        } else if is("application/x-www-form-urlencoded") {
            Kind::Pairs(Pairs::default())
        } else if types.next().is_some() {
            return Err(odd("Content-Type is given twice"));
        } else {
            return Ok(None);
        };
        if types.next().is_some() {
            return Err(odd("Content-Type is given twice"));
        }
        Ok(Some(Self(kind)))
    }

    /// Reads the next part of the body. One that is refused must not leave.
    pub(crate) fn read(&mut self, part: Option<&[u8]>, end: bool) -> Result<(), Refusal> {
        let part = part.unwrap_or_default();
        match &mut self.0 {
            Kind::Pairs(pairs) => pairs.read(part, end),
            Kind::Parts(parts) => parts.read(part),
        }
    }
}

/// `application/x-www-form-urlencoded`, as the URL standard has it, and with `;` between pairs as well.
#[derive(Debug, Default)]
struct Pairs {
    /// Of the field under way, without spaces before it.
    name: Vec<u8>,
    place: Place,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Name,
    /// In a value, or in a name that is too long for a method's.
    Rest,
}

impl Pairs {
    fn read(&mut self, part: &[u8], end: bool) -> Result<(), Refusal> {
        for byte in part {
            match byte {
                b'&' | b';' => {
                    self.check()?;
                    self.name.clear();
                    self.place = Place::Name;
                }
                b'=' => {
                    self.check()?;
                    self.place = Place::Rest;
                }
                _ if self.place == Place::Rest => {}
                _ => self.take(*byte),
            }
        }
        if end { self.check() } else { Ok(()) }
    }

    fn take(&mut self, byte: u8) {
        self.name.push(byte);
        let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'+';
        // Spaces before a name are not part of it, as many as there are.
        if percent_decode(&self.name).all(is_space) {
            self.name.clear();
        }
        if self.name.len() > LONGEST_NAME {
            self.place = Place::Rest;
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.place == Place::Name && is_named_by(&String::from_utf8_lossy(&self.name)) {
            return Err(named());
        }
        Ok(())
    }
}

/// `multipart/form-data` and its kin (RFC 7578): the heads of its parts.
struct Parts {
    delimiter: Finder<'static>,
    /// The head under way, or the end of what was read, which may begin a delimiter.
    held: Vec<u8>,
    is_head: bool,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Parts {
    fn of(media: &str) -> Result<Self, Refusal> {
        let lower = media.to_ascii_lowercase();
        let mut places = lower.match_indices("boundary=").map(|(place, _)| place);
        let (Some(place), None) = (places.next(), places.next()) else {
            return Err(odd("Content-Type needs one boundary"));
        };
        let rest = &media[place + "boundary=".len()..];
        let boundary = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split([';', ',']).next().map(str::trim_end),
        };
        let boundary = boundary.unwrap_or_default();
        // RFC 2046 section 5.1.1. What else stands there is read differently by different servers.
        let is_proper = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        if boundary.is_empty()
            || boundary.len() > LONGEST_BOUNDARY
            || boundary.ends_with(' ')
            || !boundary.bytes().all(is_proper)
        {
            return Err(odd("the boundary in Content-Type is malformed"));
        }
        let delimiter = format!("--{boundary}");
        Ok(Self {
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
            held: Vec::new(),
            is_head: false,
        })
    }

    fn read(&mut self, part: &[u8]) -> Result<(), Refusal> {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(part);
        let mut rest = &held[..];
        loop {
            if !self.is_head {
                let Some(place) = self.delimiter.find(rest) else {
                    let kept = self.delimiter.needle().len() - 1;
                    self.held = rest[rest.len().saturating_sub(kept)..].to_vec();
                    return Ok(());
                };
                rest = &rest[place + self.delimiter.needle().len()..];
                self.is_head = true;
            }
            let Some(end) = end_of_head(rest) else {
                if rest.len() > LONGEST_HEAD {
                    return Err(odd("the head of a part of the form is longer than 16 KiB"));
                }
                self.held = rest.to_vec();
                return Ok(());
            };
            check_head(&rest[..end])?;
            rest = &rest[end..];
            self.is_head = false;
        }
    }
}

/// Where an empty line ends a head, with any line ends.
fn end_of_head(text: &[u8]) -> Option<usize> {
    let ends = |place: usize| {
        let rest = &text[place + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    };
    memchr::memchr_iter(b'\n', text).find(|place| ends(*place))
}

/// Refuses the head of a part that names a method anywhere: how parameters are quoted and escaped, servers do not agree on.
fn check_head(head: &[u8]) -> Result<(), Refusal> {
    let decoded = percent_decode(head).decode_utf8_lossy();
    let text: String = decoded.chars().filter(|char| *char != '\\').collect();
    // RFC 2231, section 3: a name in several pieces.
    let is_in_pieces = text.to_ascii_lowercase().contains(" name*0");
    let is_in_word = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '[');
    let mut words = text.split(|char| !is_in_word(char));
    if is_in_pieces || words.any(is_named_by) {
        return Err(named());
    }
    Ok(())
}

fn named() -> Refusal {
    odd("a field of the form names the request's method; send the request with that method itself")
}

fn odd(what: &'static str) -> Refusal {
    Refusal::new(Code::AmbiguousRequest, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(media: &[&str]) -> RequestHeader {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        for media in media {
            request
                .append_header("content-type", (*media).to_owned())
                .unwrap();
        }
        request
    }

    /// Whether the body passes, in one part and byte by byte.
    fn passes(media: &[&str], body: &str) -> bool {
        let names = || FormNames::of(&post(media)).unwrap().unwrap();
        let whole = names().read(Some(body.as_bytes()), true).is_ok();
        let mut pieces = names();
        let last = body.len().saturating_sub(1);
        let mut bytes = body.bytes().enumerate();
        let in_pieces =
            bytes.all(|(place, byte)| pieces.read(Some(&[byte]), place == last).is_ok());
        assert_eq!(whole, in_pieces, "{media:?} {body:?}");
        whole
    }

    const FORM: &[&str] = &["Application/X-WWW-Form-URLencoded; charset=utf-8"];
    const PARTS: &[&str] = &["multipart/form-data; boundary=xyz"];

    fn parts(head: &str) -> String {
        format!("--xyz\r\n{head}\r\n\r\nDELETE\r\n--xyz--\r\n")
    }

    #[test]
    fn a_form_that_names_a_method_is_refused() {
        for body in [
            "_method=DELETE",
            "a=1&_method=delete",
            "a=1;_method=PUT",
            "%5Fmethod=PUT",
            "_%6dethod=PUT",
            "_Method[]=PUT",
            "+%20++_method=PUT",
            "a&_method",
            "X-HTTP-Method-Override=PUT",
            "x_http_method=PUT",
        ] {
            assert!(!passes(FORM, body), "{body}");
            assert!(!passes(&[], body), "without a media type: {body}");
        }
        let far = format!("{}_method=PUT", "+".repeat(1_000));
        assert!(!passes(FORM, &far));
        let behind = format!("{}&_method=PUT", "a".repeat(1_000));
        assert!(!passes(FORM, &behind));
    }

    #[test]
    fn other_forms_pass() {
        for body in [
            "",
            "a=_method",
            "a=1=_method",
            "payment_method=card&method=x",
            "my_method=1",
            "a=1&b%26_method=2",
        ] {
            assert!(passes(FORM, body), "{body}");
        }
        for body in [
            parts("Content-Disposition: form-data; name=\"payment_method\""),
            "--xyz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.html\"\r\n\r\n\
             <input name=\"_method\" value=\"delete\">\r\n--xyz--\r\n"
                .to_owned(),
            String::new(),
        ] {
            assert!(passes(PARTS, &body), "{body}");
        }
    }

    #[test]
    fn a_part_that_names_a_method_is_refused() {
        for head in [
            "Content-Disposition: form-data; name=\"_method\"",
            "content-disposition: form-data; name=_method",
            "Content-Disposition: form-data; name='_METHOD'",
            "Content-Disposition: form-data; name=\"_meth\\od\"",
            "Content-Disposition: form-data; name=\"_method[]\"",
            "Content-Disposition: form-data; name*=utf-8''%5Fmethod",
            "Content-Disposition: form-data; name*0=\"_met\"; name*1=\"hod\"",
            "Content-Type: text/plain\nContent-Disposition: form-data; name=\"_method\"",
        ] {
            assert!(!passes(PARTS, &parts(head)), "{head}");
            let later = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{}\r\n{}",
                "-".repeat(100),
                parts(head)
            );
            assert!(!passes(PARTS, &later), "behind another: {head}");
        }
        let bare = "--xyz\nContent-Disposition: form-data; name=\"_method\"\n\nPUT\n--xyz--\n";
        assert!(!passes(PARTS, bare));
    }

    #[test]
    fn a_form_that_servers_may_read_differently_is_refused() {
        for media in [
            &["multipart/form-data"][..],
            &["multipart/form-data; boundary="],
            &["multipart/form-data; boundary=a; boundary=b"],
            &["multipart/form-data; boundary=a\tb"],
            &["multipart/form-data; boundary=\"a\\\"b\""],
            &["application/json", "application/x-www-form-urlencoded"],
            &["application/x-www-form-urlencoded", "application/json"],
        ] {
            let refusal = FormNames::of(&post(media)).unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest, "{media:?}");
        }
        let endless = format!("--xyz\r\n{}", "a".repeat(LONGEST_HEAD));
        assert!(!passes(PARTS, &endless));
    }

    #[test]
    fn what_is_no_form_is_not_read() {
        let none = |request: &RequestHeader| FormNames::of(request).unwrap().is_none();
        assert!(none(&post(&["application/json"])));
        assert!(none(&RequestHeader::build("PUT", b"/", None).unwrap()));
        for media in ["multipart/mixed; boundary=\"a b\"", PARTS[0]] {
            assert!(!none(&post(&[media])), "{media}");
        }
    }
}
