//! The certificate files of a pod, as Istio's agent writes them.
//!
//! `certs` is a link to a folder that is written once and never changed, so that whoever resolves it finds three files that
//! belong together. The folder before stays for whoever is still reading it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use meshward_core::agent::Identity;

use crate::files;

/// Where one pod's certificates are.
#[derive(Debug)]
pub(crate) struct Certificates {
    dir: PathBuf,
    generation: u64,
}

impl Certificates {
    /// `dir`: of the pod, which holds none yet.
    pub(crate) fn below(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            generation: 0,
        }
    }

    /// `$MESHWARD_CERTS`.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// Puts `identity` in the place of what is there.
    pub(crate) fn write(&mut self, identity: &Identity) -> Result<(), String> {
        let next = self.generation + 1;
        self.write_as(next, identity).map_err(|e| {
            format!(
                "{}: the certificates cannot be written: {}",
                self.path().display(),
                files::words(&e)
            )
        })?;
        self.generation = next;
        Ok(())
    }

    fn write_as(&self, generation: u64, identity: &Identity) -> io::Result<()> {
        let name = format!(".certs-{generation}");
        let folder = self.dir.join(&name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        for (file, text) in [
            ("cert-chain.pem", &identity.chain_pem),
            ("key.pem", identity.key_pem.reveal()),
            ("root-cert.pem", &identity.bundle_pem),
        ] {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(file))?
                .write_all(text.as_bytes())?;
        }
        let link = self.dir.join(".certs");
        symlink(&name, &link)?;
        fs::rename(&link, self.path())?;
        if let Some(old) = generation.checked_sub(2).filter(|old| *old > 0) {
            fs::remove_dir_all(self.dir.join(format!(".certs-{old}")))?;
        }
        Ok(())
    }

    /// Takes all of them away.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(self.path());
        for generation in [self.generation.saturating_sub(1), self.generation] {
            let _ = fs::remove_dir_all(self.dir.join(format!(".certs-{generation}")));
        }
    }
}
