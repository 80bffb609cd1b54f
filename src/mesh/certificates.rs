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

    /// For a pod that takes the place of this one, in the same folder: what is written next replaces what is there.
    pub(crate) fn continued(&self) -> Self {
        Self {
            dir: self.dir.clone(),
            generation: self.generation,
        }
    }

    /// Takes back what was written since `self` was [continued](Self::continued) as `by`.
    pub(crate) fn restore(&self, by: &Self) {
        if by.generation > self.generation {
            let back = symlink(name(self.generation), self.link());
            // Without a link the files are there still, and the next ones that are written get one.
            let _ = back.and_then(|()| fs::rename(self.link(), self.path()));
            self.forget(by.generation);
        }
    }

    /// `$MESHWARD_CERTS`.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// Puts `identity` in the place of what is there.
    pub(crate) fn write(&mut self, identity: &Identity) -> Result<(), String> {
        let next = self.generation + 1;
        if let Err(e) = self.write_as(next, identity) {
            self.forget(next);
            return Err(format!(
                "{}: the certificates cannot be written: {}",
                self.path().display(),
                files::words(&e)
            ));
        }
        self.generation = next;
        if let Some(old) = next.checked_sub(2) {
            self.forget(old);
        }
        Ok(())
    }

    fn write_as(&self, generation: u64, identity: &Identity) -> io::Result<()> {
        let name = name(generation);
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
        symlink(&name, self.link())?;
        fs::rename(self.link(), self.path())
    }

    /// What `certs` is before it has that name.
    fn link(&self) -> PathBuf {
        self.dir.join(".certs")
    }

    /// Leaves nothing of a generation that `certs` does not lead to, so that its name is free and its key gone.
    fn forget(&self, generation: u64) {
        let _ = fs::remove_file(self.link());
        let _ = fs::remove_dir_all(self.dir.join(name(generation)));
    }

    /// Takes all of them away.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(self.path());
        for generation in [self.generation.saturating_sub(1), self.generation] {
            self.forget(generation);
        }
    }
}

fn name(generation: u64) -> String {
    format!(".certs-{generation}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use meshward_core::spiffe::{SpiffeId, TrustDomain};
    use meshward_core::tls::KeyKind;

    use super::*;
    use crate::mesh::identities::{Identities, Issuing};

    fn identity() -> Arc<Identity> {
        let issuing = Issuing {
            key: KeyKind::P256,
            ttl: Duration::from_secs(60),
            answers_for: None,
        };
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let mut identities = Identities::new(&domain, issuing).unwrap();
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let (_, news) = identities.begin(id).unwrap();
        news.identity.unwrap()
    }

    #[test]
    fn files_that_could_not_be_written_once_are_written_later_and_all_of_them_go() {
        let dir = std::env::temp_dir().join(format!("meshward-certs-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let identity = identity();
        let mut certificates = Certificates::below(&dir);
        certificates.write(&identity).unwrap();
        let in_the_way = dir.join(".certs");
        fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            certificates.write(&identity).unwrap_err();
            assert!(!dir.join(".certs-2").exists(), "no key is left of it");
        }
        fs::remove_dir(&in_the_way).unwrap();
        for _ in 0..4 {
            certificates.write(&identity).unwrap();
        }
        let key = fs::read_to_string(certificates.path().join("key.pem")).unwrap();
        assert_eq!(&key, identity.key_pem.reveal());
        assert!(!dir.join(".certs-3").exists() && dir.join(".certs-4").exists());
        certificates.remove();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }
}
