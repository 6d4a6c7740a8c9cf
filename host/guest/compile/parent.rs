//! `compile`: starts a child for a module, waits for it no longer than agreed, and makes sense of
//! its end.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::Path;

use rustix::process::Signal;

use super::super::child::{Confinement, Ended, Errand, dup, nameless};
use super::super::module::LoadError;
use super::super::runtime::Tier;
use super::child::{CompileOrder, Verdict};
use super::made::Made;
use super::{CODE_BYTES, CompileLimits, Compiler, Job, Overran};

/// How much lower than the server's its priority is: the lowest there is, but where somebody waits
/// for a new page, who goes before whoever only gets faster code.
fn nice(tier: Tier) -> i32 {
    match tier {
        Tier::Baseline => 15,
        Tier::Optimized => 19,
    }
}

/// Compiles in a child of `program`, which ends with this future.
pub(super) async fn compile(program: &Path, job: Job) -> Result<Made, LoadError> {
    let unready = |error| LoadError::NoCompiler(format!("{}: {error}", program.display()));
    let Job {
        bytes,
        limits,
        left,
        fast,
        tier,
        threads,
        max_memory,
    } = job;
    let order = CompileOrder {
        confinement: Confinement {
            parent: std::process::id(),
            nice: nice(tier),
            space: Some(limits.memory.min(left)),
            data: None,
            // Zero seconds would be no limit at all.
            cpu: limits.cpu.as_secs().max(1),
            files: CODE_BYTES,
        },
        fast,
        tier,
        max_memory,
    };
    let order =
        serde_json::to_string(&order).map_err(|error| LoadError::NoCompiler(error.to_string()))?;
    let module = written(&bytes).map_err(unready)?;
    drop(bytes);
    let errand = Errand {
        program,
        command: Compiler::COMMAND,
        order,
        input: dup(&module).map_err(unready)?,
        threads,
        wall: limits.wall,
    };
    let ended = errand.run().await.map_err(unready)?;
    judge(ended, &limits, left)
}

fn written(module: &[u8]) -> io::Result<File> {
    let mut file = nameless("module")?;
    file.write_all(module)?;
    file.rewind()?;
    Ok(file)
}

/// What the child made, if it ended well.
fn judge(ended: Ended, limits: &CompileLimits, left: u64) -> Result<Made, LoadError> {
    let Some(status) = ended.status else {
        return Err(LoadError::Overran(Overran::Wall(limits.wall)));
    };
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| ended.code() == Some(*verdict as i32));
    if verdict == Some(Verdict::Compiled) {
        return Made::of_answer(ended.answer)
            .map_err(|error| LoadError::Crashed(format!("its code cannot be read: {error}")));
    }
    let overran = overran(&ended, limits, left);
    let words = ended.words.clone();
    Err(match (verdict, overran) {
        // These words are the module's own in part: no conclusions are drawn from them.
        (Some(Verdict::Malformed), _) => LoadError::Malformed(words),
        (Some(Verdict::NoComponentType), _) => LoadError::NoComponentType,
        (Some(Verdict::NeedsTooMuch), _) => LoadError::NeedsTooMuch(words),
        (_, Some(overran)) => LoadError::Overran(overran),
        (Some(Verdict::Refused), None) => LoadError::Compile(words),
        (Some(Verdict::Unready), None) => LoadError::NoCompiler(words),
        _ if ended.is_by(Signal::KILL) => LoadError::Killed,
        _ if words.is_empty() => LoadError::Crashed(status.to_string()),
        _ => LoadError::Crashed(format!("{status}: {words}")),
    })
}

/// The limit that ended it, if one did.
fn overran(ended: &Ended, limits: &CompileLimits, left: u64) -> Option<Overran> {
    if ended.is_by(Signal::XCPU) {
        Some(Overran::Cpu(limits.cpu))
    } else if ended.is_by(Signal::XFSZ) {
        Some(Overran::Code)
    } else if ended.is_starved() {
        Some(match left < limits.memory {
            true => Overran::Left(left),
            false => Overran::Memory(limits.memory),
        })
    } else {
        None
    }
}
