//! What a command writes: through a pipe into files that do not grow without end.

use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::logs::Rolling;
use crate::{files, say};

/// Bytes that are taken at once; a pipe holds as many.
const CHUNK: usize = 64 * 1024;
/// The last words of a command are waited for so long: somebody who left its group may hold the pipe for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes what comes out of a pipe until nobody holds its other end.
pub(super) struct Output {
    task: JoinHandle<()>,
}

impl Output {
    /// The end that a command writes to.
    pub(super) fn begin(log: &Path) -> io::Result<(Self, PipeWriter)> {
        let rolling = Rolling::open(log)?;
        let (reader, writer) = io::pipe()?;
        let reader = Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let log = log.display().to_string();
        let task = tokio::spawn(take(reader, rolling, log));
        Ok((Self { task }, writer))
    }

    /// Waits until all of it is written.
    pub(super) async fn end(self) {
        let _ = timeout(LAST_WORDS, self.task).await;
    }
}

async fn take(mut reader: Receiver, mut rolling: Rolling, log: String) {
    let mut chunk = vec![0; CHUNK];
    let mut is_well = true;
    while let Ok(count @ 1..) = reader.read(&mut chunk).await {
        let written = rolling.write(chunk.get(..count).unwrap_or_default());
        // A command goes on although nobody can keep what it says; that is told once.
        if let Err(e) = &written
            && is_well
        {
            let words = files::words(e);
            say::err(format_args!("{log}: cannot be written: {words}"));
        }
        is_well = written.is_ok();
    }
}
