//! The thread that writes the access log, and where it writes to.
//!
//! Owns the file, its thread and what waits to be written. Refuses to keep anybody waiting: it
//! never holds the GIL, and lines that come faster than they can be written are dropped and
//! counted. Whole lines are written at once, so that workers can share a file or a pipe.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::log_batch::Batch;
use super::log_line::Lines;

/// Where lines go.
#[derive(Debug)]
pub struct Sink {
    file: File,
    name: String,
    /// How much is written at once.
    piece_bytes_max: usize,
    /// Whether the last line is not whole.
    is_torn: bool,
}

impl Sink {
    /// Standard output.
    ///
    /// # Errors
    /// EMFILE when there are no descriptors left.
    pub fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Self::new(file, "stdout".to_owned())
    }

    /// A file, which is made or appended to; or a pipe with a name.
    ///
    /// # Errors
    /// As open(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
        let mut options = OpenOptions::new();
        // Opening a pipe for writing alone would wait for a reader, and a reader that starts anew
        // would find no writer.
        options.append(true).create(!is_pipe).read(is_pipe);
        Self::new(options.open(path)?, path.display().to_string())
    }

    fn new(file: File, name: String) -> io::Result<Self> {
        let piece_bytes_max = if file.metadata()?.is_file() {
            FILE_BYTES_MAX
        } else {
            PIPE_BYTES_MAX
        };
        Ok(Self {
            file,
            name,
            piece_bytes_max,
            is_torn: false,
        })
    }

    /// Writes whole lines in one piece, as far as the kernel does.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            // The disk was full: what was cut off must not become the beginning of this line.
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    rest = &rest[bytes..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody who shares our standard output wants it so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(INTERVAL),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The worker's end: takes batches, and never waits for the file.
#[derive(Debug)]
pub struct Writer {
    desk: Arc<Desk>,
    ended: Receiver<()>,
}

/// What worker and thread share.
#[derive(Debug)]
struct Desk {
    tray: Mutex<Tray>,
    called: Condvar,
    tally: Arc<Tally>,
    name: String,
}

#[derive(Debug, Default)]
struct Tray {
    batch: Batch,
    /// Whether the thread rests until it is called.
    rests: bool,
    is_closed: bool,
}

/// How many lines were written and dropped.
#[derive(Debug, Default)]
pub struct Tally {
    waiting: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
    /// Whether lines are being dropped, and somebody was told.
    is_dropping: AtomicBool,
}

impl Tally {
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// EAGAIN when there can be no more threads.
    pub fn start(sink: Sink, lines: Lines, tally: Arc<Tally>) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            tray: Mutex::default(),
            called: Condvar::new(),
            tally,
            name: sink.name.clone(),
        });
        let (end, ended) = channel();
        let clerk = Clerk {
            desk: Arc::clone(&desk),
            sink,
            lines,
            out: Vec::new(),
            is_refused: false,
        };
        // It ends by itself: nobody could join it while the file takes nothing.
        thread::Builder::new()
            .name("anel-access-log".to_owned())
            .spawn(move || clerk.work(&end))?;
        Ok(Self { desk, ended })
    }

    /// Takes what is in the batch, which is empty afterwards.
    pub fn take(&self, batch: &mut Batch) {
        let lines = batch.lines();
        let mut tray = self.desk.tray();
        if tray.batch.bytes() > WAITING_BYTES_MAX {
            drop(tray);
            batch.clear();
            self.desk
                .drop_lines(lines, "they come faster than they are taken");
            return;
        }
        self.desk.tally.waiting.fetch_add(lines, Ordering::Relaxed);
        tray.batch.append(batch);
        let is_due = tray.batch.bytes() >= DUE_BYTES || std::mem::take(&mut tray.rests);
        drop(tray);
        if is_due {
            self.desk.called.notify_one();
        }
    }

    /// Waits until everything is written, as long as that goes on. What is left then is dropped.
    pub fn close(self) {
        self.desk.close();
        let tally = &self.desk.tally;
        let until = Instant::now() + END_MAX;
        let mut written = tally.written();
        while let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(STUCK) {
            let before = std::mem::replace(&mut written, tally.written());
            if written == before || Instant::now() >= until {
                let lines = tally.waiting.load(Ordering::Relaxed);
                if let Some(told) = self.desk.drop_lines(lines, "they are not taken at the end") {
                    // Nothing can be done where stderr is as stuck as the log.
                    let _ = told.recv_timeout(STUCK);
                }
                return;
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl Desk {
    fn tray(&self) -> MutexGuard<'_, Tray> {
        // Nothing that panics is done with it.
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.tray().is_closed = true;
        self.called.notify_one();
    }

    /// Counts lines that nobody will read. When that begins, a line on stderr says so: the receiver
    /// hears when it was written.
    fn drop_lines(&self, lines: u64, why: &str) -> Option<Receiver<()>> {
        self.tally.dropped.fetch_add(lines, Ordering::Relaxed);
        if self.tally.is_dropping.swap(true, Ordering::Relaxed) {
            return None;
        }
        let line = format!("anel: access log {}: lines are dropped: {why}\n", self.name);
        let (tell, told) = channel();
        // By a thread of its own: stderr may be as stuck as the log, and the worker goes on.
        let started = thread::Builder::new().spawn(move || {
            let _ = io::stderr().write_all(line.as_bytes());
            let _ = tell.send(());
        });
        started.ok().map(|_| told)
    }
}

/// What the thread works with.
struct Clerk {
    desk: Arc<Desk>,
    sink: Sink,
    lines: Lines,
    /// Lines that are to be written.
    out: Vec<u8>,
    /// Whether the last write failed.
    is_refused: bool,
}

impl Clerk {
    /// Writes until the desk is closed and empty.
    fn work(mut self, end: &Sender<()>) {
        let mut batch = Batch::default();
        while self.wait(&mut batch) {
            self.write(&batch);
            batch.clear_to(DUE_BYTES);
        }
        // Nobody listens if the worker gave up.
        let _ = end.send(());
    }

    /// Waits for a batch, which is taken; `false` when there will be none.
    fn wait(&self, batch: &mut Batch) -> bool {
        let mut tray = self.desk.tray();
        if tray.batch.is_empty() && !self.is_refused {
            // It keeps up.
            self.desk.tally.is_dropping.store(false, Ordering::Relaxed);
        }
        while tray.batch.is_empty() && !tray.is_closed {
            tray.rests = true;
            let woken = self.desk.called.wait(tray);
            tray = woken.unwrap_or_else(PoisonError::into_inner);
        }
        tray.rests = false;
        // More come soon, and a write of many lines costs little more than one of a few.
        let is_early = |tray: &mut Tray| !tray.is_closed && tray.batch.bytes() < DUE_BYTES;
        let waited = self
            .desk
            .called
            .wait_timeout_while(tray, INTERVAL, is_early);
        let (mut tray, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut tray.batch, batch);
        !batch.is_empty()
    }

    fn write(&mut self, batch: &Batch) {
        let mut count = 0;
        let piece_bytes_max = self.sink.piece_bytes_max;
        batch.each(|record, unix_ms| {
            let begin = self.out.len();
            self.lines.push(&mut self.out, record, unix_ms, usize::MAX);
            if self.out.len() - begin > piece_bytes_max {
                // It would be torn apart by those of others.
                self.out.truncate(begin);
                self.lines
                    .push(&mut self.out, record, unix_ms, PART_BYTES_MAX);
            }
            if self.out.len() > piece_bytes_max && begin > 0 {
                self.write_out(begin, std::mem::take(&mut count));
            }
            count += 1;
        });
        self.write_out(self.out.len(), count);
    }

    /// Writes the first so many bytes, which are so many lines.
    fn write_out(&mut self, bytes: usize, lines: u64) {
        let written = self.sink.write(&self.out[..bytes]);
        self.is_refused = written.is_err();
        let tally = &self.desk.tally;
        tally.waiting.fetch_sub(lines, Ordering::Relaxed);
        match written {
            Ok(()) => {
                tally.written.fetch_add(lines, Ordering::Relaxed);
            }
            Err(error) => {
                self.desk.drop_lines(lines, &error.to_string());
            }
        }
        self.out.drain(..bytes);
    }
}

/// How long lines wait for others: a log is read by people, or by programs that read it in pieces.
const INTERVAL: Duration = Duration::from_millis(10);

/// Records that are too many to wait for more: a write of their lines costs little more than they.
const DUE_BYTES: usize = 256 * 1024;

/// Records that may wait, apart from those of the last turn: 80,000 of the usual size, so a disk
/// may rest for a second.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is written to a file at once. It is appended in one piece, whoever else appends.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// The same for pipes: PIPE_BUF of pipe(7). Terminals and sockets take as much in one piece.
const PIPE_BYTES_MAX: usize = 4_096;

/// Longest part of a line that is too long for one piece. There are four, and what is around them
/// takes less than 400 bytes.
const PART_BYTES_MAX: usize = 900;

/// At the end the file is given up when it has taken nothing for so long, and in any case then.
const STUCK: Duration = Duration::from_secs(1);
const END_MAX: Duration = Duration::from_secs(10);
