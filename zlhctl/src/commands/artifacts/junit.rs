//! The result as JUnit XML, the form that CI systems show.

use super::proof::Found;

pub(super) fn report(found: &[Found], warnings: &[String]) -> String {
    let failures = found.iter().filter(|one| one.defect.is_some()).count();
    let seconds: f64 = found.iter().map(|one| one.took.as_secs_f64()).sum();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"artifacts\" tests=\"{}\" failures=\"{failures}\" time=\"{seconds:.3}\">\n",
        found.len()
    );
    for one in found {
        let (name, class) = (escaped(&one.path), escaped(&one.entries.join(", ")));
        let time = one.took.as_secs_f64();
        match &one.defect {
            None => out.push_str(&format!("  <testcase name=\"{name}\" classname=\"{class}\" time=\"{time:.3}\"/>\n")),
            Some(why) => out.push_str(&format!(
                "  <testcase name=\"{name}\" classname=\"{class}\" time=\"{time:.3}\">\n    <failure message=\"{}\"/>\n  </testcase>\n",
                escaped(why)
            )),
        }
    }
    if !warnings.is_empty() {
        let text = escaped(&warnings.join("; "));
        out.push_str(&format!("  <system-out>warning: {text}</system-out>\n"));
    }
    out.push_str("</testsuite>\n");
    out
}

/// For an attribute. Characters that XML has no form for become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_report_is_xml_whatever_a_file_is_called() {
        let one = |path: &str, defect: Option<&str>| Found {
            path: path.to_owned(),
            entries: vec!["java 21".to_owned()],
            size: 1,
            sha256: String::new(),
            defect: defect.map(str::to_owned),
            took: Duration::from_millis(1500),
        };
        let text = report(
            &[one("a/b.jar", None), one("<&\"\u{1b}>", Some("hash \"x\" <y>"))],
            &["a & b".to_owned()],
        );
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"artifacts\" tests=\"2\" failures=\"1\" time=\"3.000\">\n\
             \x20 <testcase name=\"a/b.jar\" classname=\"java 21\" time=\"1.500\"/>\n\
             \x20 <testcase name=\"&lt;&amp;&quot;\u{fffd}&gt;\" classname=\"java 21\" time=\"1.500\">\n\
             \x20   <failure message=\"hash &quot;x&quot; &lt;y&gt;\"/>\n\
             \x20 </testcase>\n\
             \x20 <system-out>warning: a &amp; b</system-out>\n\
             </testsuite>\n"
        );
    }
}
