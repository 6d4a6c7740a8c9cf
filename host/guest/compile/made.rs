//! `Made`: what a compilation made, in a file without a name: the code, and after it the module's
//! debug information, which nobody looks at until something fails.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use super::super::child::nameless;
use super::super::symbols::DebugInfo;

/// What a compiler has at its end.
pub(in super::super) struct Parts {
    pub(in super::super) code: Vec<u8>,
    /// [`super::super::symbols::collect`]
    pub(in super::super) debug: Vec<u8>,
}

/// The code's length, before it.
const HEAD: u64 = size_of::<u64>() as u64;

impl Parts {
    pub(in super::super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&(self.code.len() as u64).to_le_bytes())?;
        to.write_all(&self.code)?;
        to.write_all(&self.debug)?;
        to.flush()
    }
}

/// What a compilation made. Its clones are the same.
#[derive(Clone)]
pub(in super::super) struct Made {
    file: Arc<File>,
    /// Where the code begins.
    from: u64,
    code: u64,
    debug: u64,
}

impl Made {
    /// What a child left in its answer.
    pub(in super::super) fn of_answer(file: File) -> io::Result<Self> {
        let mut head = [0; HEAD as usize];
        file.read_exact_at(&mut head, 0)?;
        let code = u64::from_le_bytes(head);
        let after = file.metadata()?.len().checked_sub(HEAD);
        let debug = after.and_then(|length| length.checked_sub(code));
        let debug = debug.ok_or_else(|| io::Error::other("it ends early"))?;
        Ok(Self {
            file: Arc::new(file),
            from: HEAD,
            code,
            debug,
        })
    }

    /// A file with nothing but code in it.
    pub(in super::super) fn of_code_alone(file: File) -> io::Result<Self> {
        Ok(Self {
            code: file.metadata()?.len(),
            file: Arc::new(file),
            from: 0,
            debug: 0,
        })
    }

    pub(in super::super) fn of_parts(parts: &Parts) -> io::Result<Self> {
        let mut file = nameless("made")?;
        parts.write(&mut file)?;
        Self::of_answer(file)
    }

    #[cfg(test)]
    pub(in super::super) fn of_code(code: &[u8]) -> Self {
        let parts = Parts {
            code: code.to_vec(),
            debug: Vec::new(),
        };
        Self::of_parts(&parts).unwrap()
    }

    /// Bytes of the code.
    pub(in super::super) fn size(&self) -> u64 {
        self.code
    }

    /// The code.
    pub(in super::super) fn code(&self) -> impl Read + use<> {
        self.part(self.from, self.code)
    }

    /// The file as a compiler left it.
    pub(in super::super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives back the memory of the code, which somebody has made runnable: what is left is the debug
    /// information. Nobody may ask for the code any more.
    pub(in super::super) fn forget_code(&self) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Failing that, it takes memory for as long as the module does.
        let _ = rustix::fs::fallocate(&*self.file, hole, self.from, self.code);
    }

    /// The debug information, where there is any.
    pub(in super::super) fn debug(&self) -> Option<impl Read + use<>> {
        (self.debug > 0).then(|| self.part(self.from + self.code, self.debug))
    }

    /// Where its debug information is while nothing else has it.
    pub(in super::super) fn held_debug(&self) -> DebugInfo {
        match self.debug {
            0 => DebugInfo::None,
            _ => DebugInfo::Held(Arc::clone(&self.file), self.from + self.code),
        }
    }

    fn part(&self, from: u64, length: u64) -> Part {
        Part {
            file: Arc::clone(&self.file),
            at: from,
            end: from + length,
        }
    }
}

/// A part of a file that others read from as well.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let read = self.file.read_at(&mut into[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
