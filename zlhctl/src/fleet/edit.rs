//! Changes to the fleet file that leave comments and order alone.

use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

use super::{Fleet, FleetError, MAX_FLEET_BYTES, Member, read, write};

/// Adds `member`, creating the file when there is none.
pub(crate) fn add(path: &Path, member: &Member) -> Result<(), FleetError> {
    let refuse = |reason: String| FleetError::Refused { path: path.to_owned(), reason };
    let (fleet, mut document) = open(path)?;
    if let Some(known) = fleet.get(&member.name) {
        return Err(refuse(format!("`{}` is there already, at {}", known.name, known.url)));
    }
    let agents = document
        .entry("agents")
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()))
        .as_array_of_tables_mut()
        .ok_or_else(|| refuse("`agents` is written inline: use [[agents]] sections".to_owned()))?;
    agents.push(table(member));
    write(path, &document.to_string())
}

/// Takes the agent called `name` out; false when there is none.
pub(crate) fn remove(path: &Path, name: &str) -> Result<bool, FleetError> {
    let (_, mut document) = open(path)?;
    let Some(agents) = document.get_mut("agents").and_then(Item::as_array_of_tables_mut) else {
        return Ok(false);
    };
    let Some(index) = agents.iter().position(|agent| agent.get("name").and_then(Item::as_str) == Some(name))
    else {
        return Ok(false);
    };
    agents.remove(index);
    write(path, &document.to_string()).map(|()| true)
}

/// The file twice: as data, which also checks it, and as a text to edit.
fn open(path: &Path) -> Result<(Fleet, DocumentMut), FleetError> {
    let fleet = Fleet::load(path)?;
    let text = match read(path, MAX_FLEET_BYTES) {
        Ok((text, _)) => text,
        Err(FleetError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => return Err(error),
    };
    let document = text.parse().map_err(|_| FleetError::Refused {
        path: path.to_owned(),
        reason: "it changed while it was read".to_owned(),
    })?;
    Ok((fleet, document))
}

fn table(member: &Member) -> Table {
    let mut table = Table::new();
    table.insert("name", value(&member.name));
    table.insert("url", value(&member.url));
    if !member.labels.is_empty() {
        let labels: InlineTable =
            member.labels.iter().map(|(key, label)| (key.as_str(), Value::from(label))).collect();
        table.insert("labels", value(labels));
    }
    if let Some(file) = &member.token_file {
        table.insert("token_file", value(file.display().to_string()));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn member(name: &str) -> Member {
        let labels = [("site".to_owned(), "fra".to_owned())].into();
        Member {
            name: name.to_owned(),
            url: "http://10.0.0.1:18888".to_owned(),
            labels,
            token_file: None,
            token: None,
        }
    }

    #[test]
    fn add_and_remove_leave_the_rest_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/fleet.toml");
        add(&path, &member("a")).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# my fleet\n{text}# the first\n")).unwrap();
        add(&path, &member("b")).unwrap();
        assert!(add(&path, &member("b")).unwrap_err().to_string().contains("there already"));
        let names = |path: &Path| {
            Fleet::load(path).unwrap().agents.iter().map(|a| a.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&path), ["a", "b"]);
        assert!(remove(&path, "a").unwrap());
        assert!(!remove(&path, "a").unwrap());
        assert_eq!(names(&path), ["b"]);
        assert_eq!(Fleet::load(&path).unwrap().agents[0].labels["site"], "fra");
        assert!(std::fs::read_to_string(&path).unwrap().contains("# the first"));
    }
}
