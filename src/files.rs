//! Reading and writing files, with the path in every error.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: cannot be read: {}", path.display(), words(&e)))
}

/// The whole file as text.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        format!(
            "{}: not UTF-8 from byte {at} on\n  hint: save the file as UTF-8",
            path.display()
        )
    })
}

/// Writes a file that appears whole or not at all. `mode`: permission bits.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let failed = |e: io::Error| format!("{}: cannot be written: {}", path.display(), words(&e));
    let mut name = path.file_name().map(|n| n.to_owned()).unwrap_or_default();
    name.push(format!(".new-{}", std::process::id()));
    let beside = path.with_file_name(name);
    // What a process of the same number left there has its own owner and permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)
}

/// Every file with the ending of a resource below `path`, in name order, as `kubectl apply -R -f` takes them: links to
/// folders below it are not followed. A file that is named itself is taken whatever its name.
pub(crate) fn resources(path: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let failed = |e: io::Error| format!("{}: cannot be read: {}", path.display(), words(&e));
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        entries.push((entry.path(), kind));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (entry, kind) in entries {
        let named = entry
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if kind.is_dir() {
            found.extend(resources(&entry)?);
        } else if named {
            // A link counts as what it leads to; one that leads nowhere is told when it is read.
            match fs::metadata(&entry) {
                Ok(there) if there.is_dir() => {}
                Ok(there) if !there.is_file() => {
                    return Err(format!(
                        "{}: is no file\n  hint: move it away: reading it might never end",
                        entry.display()
                    ));
                }
                _ => found.push(entry),
            }
        }
    }
    Ok(found)
}

/// What an error of the operating system says, without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_that_links_to_itself_is_read_once() {
        let dir = std::env::temp_dir().join(format!("meshward-files-{}", std::process::id()));
        fs::create_dir_all(dir.join("below")).unwrap();
        for file in ["b.yaml", "below/c.json", "no.txt"] {
            fs::write(dir.join(file), "").unwrap();
        }
        symlink(".", dir.join("again")).unwrap();
        symlink("..", dir.join("up.yaml")).unwrap();
        symlink("no.txt", dir.join("a.yml")).unwrap();
        let found = resources(&dir);
        fs::remove_dir_all(&dir).unwrap();
        let names = found.unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|path| path.strip_prefix(&dir).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "below/c.json"]);
    }

    #[test]
    fn what_is_no_file_in_a_folder_is_refused_and_not_waited_for() {
        let dir = std::env::temp_dir().join(format!("meshward-socket-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.yaml");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = resources(&dir);
        fs::remove_dir_all(&dir).unwrap();
        let says = format!("{}: is no file\n  hint: ", path.display());
        assert!(
            found.as_ref().is_err_and(|e| e.starts_with(&says)),
            "{found:?}"
        );
    }
}
