//! `Process`: what the process uses of the machine, under the names that all Prometheus clients give it.

use std::fmt;

use procfs::ProcResult;
use procfs::process::LimitValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct Process;

struct Usage {
    cpu: f64,
    resident: u64,
    reserved: u64,
    threads: i64,
    files: u64,
    max_files: Option<u64>,
    started: Option<f64>,
}

impl Usage {
    fn now() -> ProcResult<Self> {
        let process = procfs::process::Process::myself()?;
        let stat = process.stat()?;
        #[expect(clippy::cast_precision_loss, reason = "ticks of centuries fit")]
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        // Hidden where only processes are shown, as under systemd's `ProcSubset=pid`.
        #[expect(clippy::cast_precision_loss, reason = "seconds of aeons fit")]
        let booted = procfs::boot_time_secs().ok().map(|booted| booted as f64);
        Ok(Self {
            cpu: seconds(stat.utime + stat.stime),
            resident: stat.rss * procfs::page_size(),
            reserved: stat.vsize,
            threads: stat.num_threads,
            files: process.fd_count()? as u64,
            max_files: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            },
            started: booted.map(|booted| booted + seconds(stat.starttime)),
        })
    }
}

impl Collector for Process {
    /// What cannot be read, as where `/proc` is not mounted, is left out.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(usage) = Usage::now() else {
            return Ok(());
        };
        let mut tell = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn EncodeMetric| {
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)
        };
        let gauge = |bytes: u64| ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        let (seconds, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
        tell(
            "process_cpu",
            "CPU time of the process.",
            seconds(),
            &ConstCounter::new(usage.cpu),
        )?;
        tell(
            "process_resident_memory",
            "Memory that the process holds.",
            bytes(),
            &gauge(usage.resident),
        )?;
        tell(
            "process_virtual_memory",
            "Address space of the process; most of it is reserved for sandboxes and costs nothing.",
            bytes(),
            &gauge(usage.reserved),
        )?;
        tell(
            "process_threads",
            "Threads of the process.",
            None,
            &ConstGauge::new(usage.threads),
        )?;
        tell(
            "process_open_fds",
            "Open file descriptors.",
            None,
            &gauge(usage.files),
        )?;
        if let Some(most) = usage.max_files {
            let help = "File descriptors that may be open.";
            tell("process_max_fds", help, None, &gauge(most))?;
        }
        if let Some(started) = usage.started {
            let help = "When the process started, since the Unix epoch.";
            let started = ConstGauge::new(started);
            tell("process_start_time", help, seconds(), &started)?;
        }
        Ok(())
    }
}
